//! Operators.
//!
//! One variant an internal form; several ONNX operators and opsets map to one form. Parameters are typed structs in
//! the family modules, whose docs give each operator's inputs in slot order. What has no typed form is
//! [`Op::Opaque`]: it survives import and passes, and is refused by name when a network is emitted.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::attr::{Attr, AttrError, AttrMap, AttrValue, Attributes};
use crate::{Tensor, attributes};

mod attention;
mod control;
mod conv;
mod index;
mod math;
mod matmul;
mod movement;
mod norm;
mod pool;
mod quant;
mod random;
mod reduce;
mod vision;

pub use attention::{Attention, CausalKind, RotaryEmbedding, ScoreStage};
pub use control::{Bodies, Body, If, Loop, Scan, WITH_BODIES};
pub use conv::{Conv, ConvTranspose};
pub use index::{
    Gather, GatherElements, GatherNd, OneHot, ReverseSequence, ScatterElements, ScatterNd, ScatterReduction,
};
pub use math::{Activation, BinaryOp, BitCast, Cast, UnaryOp};
pub use matmul::{Einsum, MatMul};
pub use movement::{
    Concat, ConstantOfShape, DepthToSpace, Expand, EyeLike, Flatten, Pad, PadMode, Reshape, Roll, ShapeOf, Shuffle,
    Slice, Split, Squeeze, Tile, Transpose, Trilu, Unsqueeze,
};
pub use norm::{BatchNorm, GroupNorm, LayerNorm, LpNorm, Lrn, MeanVarianceNorm, RmsNorm};
pub use pool::{AspectPolicy, CoordinateMode, NearestMode, Pool, PoolKind, Resize, ResizeMode};
pub use quant::{Dequantize, Quantize};
pub use random::{Random, RandomKind};
pub use reduce::{ArgReduce, Cumulative, Reduce, ReduceKind, Softmax, TopK};
pub use vision::{GridSample, NonMaxSuppression, SampleKind, SamplePadding};

/// A few integers.
pub type Ints = SmallVec<[i64; 4]>;

/// Padding of spatial axes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Padding {
    /// Elements before each axis, then after each axis; none negative.
    Explicit(Ints),
    /// The output has `ceil(size / stride)` elements; an odd one goes to the end (ONNX `SAME_UPPER`).
    SameUpper,
    /// As SameUpper, but an odd one goes to the beginning.
    SameLower,
}

impl Padding {
    /// No padding of `axes` axes.
    pub fn none(axes: usize) -> Self {
        Self::Explicit(SmallVec::from_elem(0, 2 * axes))
    }

    /// Elements before and after each axis, if they are explicit.
    pub fn explicit(&self) -> Option<(&[i64], &[i64])> {
        match self {
            Self::Explicit(pads) => Some(pads.split_at(pads.len() / 2)),
            Self::SameUpper | Self::SameLower => None,
        }
    }
}

impl AttrValue for Padding {
    fn to_attr(&self) -> Option<Attr> {
        match self {
            Self::Explicit(pads) if pads.iter().all(|pad| *pad == 0) => None,
            Self::Explicit(pads) => pads.to_attr(),
            Self::SameUpper => Some(Attr::Word("same_upper".into())),
            Self::SameLower => Some(Attr::Word("same_lower".into())),
        }
    }

    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        match attr {
            Some(Attr::Word(word)) if &**word == "same_upper" => Ok(Self::SameUpper),
            Some(Attr::Word(word)) if &**word == "same_lower" => Ok(Self::SameLower),
            // The reader of an operator widens this to its number of axes.
            None => Ok(Self::Explicit(Ints::new())),
            attr => Ints::from_attr(attr).map(Self::Explicit),
        }
    }
}

/// One step of an [`Epilogue`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Adds the next extra input. For a convolution it has the output's very shape (a residual); for a MatMul it may
    /// broadcast to it (a bias).
    Add,
    /// Applies an activation.
    Activation(Activation),
}

/// What a convolution or matrix product applies to its output before it is stored, in order.
///
/// TensorRT's kernels do these without another pass over memory, so that a node with an epilogue foretells a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Epilogue(pub SmallVec<[Step; 2]>);

impl Epilogue {
    /// Number of extra inputs.
    pub fn adds(&self) -> usize {
        self.0.iter().filter(|step| matches!(step, Step::Add)).count()
    }

    /// Whether there is no step.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// This epilogue and one more step.
    #[must_use]
    pub fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl AttrValue for Epilogue {
    fn to_attr(&self) -> Option<Attr> {
        if self.is_empty() {
            return None;
        }
        let step = |step: &Step| match step {
            Step::Add => Attr::Word("add".into()),
            Step::Activation(activation) => activation.to_attr().unwrap_or(Attr::Word("identity".into())),
        };
        Some(Attr::List(self.0.iter().map(step).collect()))
    }

    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        let step = |attr: &Attr| match attr {
            Attr::Word(word) if &**word == "add" => Ok(Step::Add),
            attr => Activation::from_attr(Some(attr)).map(Step::Activation),
        };
        match attr {
            None => Ok(Self::default()),
            Some(Attr::List(items)) => items.iter().map(step).collect::<Result<_, _>>().map(Self),
            Some(_) => Err("a list of steps expected".to_string()),
        }
    }
}

attributes! {
    /// Data of the model.
    pub struct Constant {
        /// The data.
        value: Tensor,
    }
}

attributes! {
    /// An operator without a typed form.
    pub struct Opaque {
        /// Its domain; empty for ONNX's own.
        domain: String,
        /// Its type.
        op_type: String,
        /// The opset of its domain that the model asks for.
        opset: i64,
        /// Why it has no typed form.
        reason: String,
        /// The attribute whose value is the reason, if one is.
        attribute: Option<String>,
        /// Its attributes as ONNX prints them, `key=value`.
        attrs: Vec<String>,
    }
}

/// How [`Op`] holds the parameters of a variant.
macro_rules! held {
    ($variant:ident) => { $variant };
    ($variant:ident $holder:ident) => { $holder<$variant> };
}

/// Declares [`Op`], [`OpKind`] and their tables: `Variant = "name", least inputs, most inputs`; `Variant in Box` where the
/// parameters are so large that all other nodes would take as much.
macro_rules! operators {
    ($($(#[$meta:meta])* $variant:ident $(in $holder:ident)? = $name:literal, $least:expr, $most:expr;)*) => {
        /// An operator with its parameters.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Op {
            /// An input of the graph; its type is its output's.
            Input,
            /// Elementwise, one input.
            Unary(UnaryOp),
            /// Elementwise, two inputs.
            Binary(BinaryOp),
            /// An activation, one input.
            Activation(Activation),
            /// Picks from b where a is true, else from c: inputs a (Bool), b, c.
            Where,
            /// Start, limit, step (scalars): a vector.
            Range,
            /// The number of elements, a scalar i64.
            Size,
            /// The indices of nonzero elements, `[rank, count]`, i64.
            NonZero,
            $($(#[$meta])* $variant(held!($variant $($holder)?)),)*
        }

        /// An operator without its parameters, to index rules by.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "the variants are Op's")]
        pub enum OpKind { Input, Unary, Binary, Activation, Where, Range, Size, NonZero, $($variant),* }

        impl OpKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[
                Self::Input, Self::Unary, Self::Binary, Self::Activation, Self::Where, Self::Range, Self::Size,
                Self::NonZero, $(Self::$variant),*
            ];
        }

        impl Op {
            /// The operator without its parameters.
            pub fn kind(&self) -> OpKind {
                match self {
                    Op::Input => OpKind::Input,
                    Op::Unary(_) => OpKind::Unary,
                    Op::Binary(_) => OpKind::Binary,
                    Op::Activation(_) => OpKind::Activation,
                    Op::Where => OpKind::Where,
                    Op::Range => OpKind::Range,
                    Op::Size => OpKind::Size,
                    Op::NonZero => OpKind::NonZero,
                    $(Op::$variant(_) => OpKind::$variant),*
                }
            }

            /// The name in the text form.
            pub fn name(&self) -> &'static str {
                match self {
                    Op::Input => "input",
                    Op::Unary(op) => op.word(),
                    Op::Binary(op) => op.word(),
                    Op::Activation(op) => op.parts().0,
                    Op::Where => "where",
                    Op::Range => "range",
                    Op::Size => "size",
                    Op::NonZero => "nonzero",
                    $(Op::$variant(_) => $name),*
                }
            }

            /// The least and the largest number of input slots.
            pub fn arity(&self) -> (usize, usize) {
                match self {
                    Op::Input => (0, 0),
                    Op::Unary(_) | Op::Activation(_) | Op::Size | Op::NonZero => (1, 1),
                    Op::Binary(_) => (2, 2),
                    Op::Where | Op::Range => (3, 3),
                    $(Op::$variant(_) => ($least, $most)),*
                }
            }

            /// The parameters in the text form.
            pub fn attrs(&self) -> Vec<(&'static str, Attr)> {
                match self {
                    Op::Input | Op::Unary(_) | Op::Binary(_) | Op::Where | Op::Range | Op::Size | Op::NonZero => {
                        Vec::new()
                    }
                    Op::Activation(op) => {
                        let parameters = op.parts().1;
                        if parameters.is_empty() {
                            Vec::new()
                        } else {
                            vec![("p", Attr::List(parameters.into_iter().map(Attr::Float).collect()))]
                        }
                    }
                    $(Op::$variant(op) => <$variant as Attributes>::write(op)),*
                }
            }

            /// The operator of a name and parameters; parameters that it does not have stay in the map.
            ///
            /// # Errors
            /// If a parameter does not fit, or no operator has the name.
            pub fn parse(name: &str, attrs: &mut AttrMap) -> Result<Self, AttrError> {
                match name {
                    "input" => return Ok(Op::Input),
                    "where" => return Ok(Op::Where),
                    "range" => return Ok(Op::Range),
                    "size" => return Ok(Op::Size),
                    "nonzero" => return Ok(Op::NonZero),
                    $($name => return Ok(<$variant as Attributes>::read(attrs)?.into()),)*
                    _ => {}
                }
                if let Some(op) = UnaryOp::from_word(name) {
                    return Ok(Op::Unary(op));
                }
                if let Some(op) = BinaryOp::from_word(name) {
                    return Ok(Op::Binary(op));
                }
                let fail = |reason: String| AttrError { name: name.to_string(), reason };
                let parameters = attrs.remove("p").map_or(Ok(Vec::new()), |attr| AttrValue::from_attr(Some(&attr)));
                Activation::from_parts(name, &parameters.map_err(fail)?)
                    .map(Op::Activation)
                    .ok_or_else(|| fail("no operator has this name and number of parameters".to_string()))
            }
        }

        $(impl From<$variant> for Op {
            fn from(op: $variant) -> Self {
                Op::$variant(op.into())
            }
        })*
    };
}

const ANY: usize = usize::MAX;

operators! {
    /// Data of the model.
    Constant = "constant", 0, 0;
    /// A conversion of the dtype.
    Cast = "cast", 1, 1;
    /// The same bits as another dtype.
    BitCast = "bit_cast", 1, 1;
    /// A convolution.
    Conv in Box = "conv", 2, ANY;
    /// A transposed convolution.
    ConvTranspose in Box = "conv_transpose", 2, ANY;
    /// A matrix product.
    MatMul = "matmul", 2, ANY;
    /// A sum of products of elements by index names.
    Einsum = "einsum", 1, ANY;
    /// Pooling over windows.
    Pool in Box = "pool", 1, 1;
    /// Resampling.
    Resize = "resize", 1, 4;
    /// A reduction.
    Reduce = "reduce", 1, 2;
    /// The index of an extremum.
    ArgReduce = "arg_reduce", 1, 1;
    /// Softmax along an axis.
    Softmax = "softmax", 1, 1;
    /// The k largest or smallest.
    TopK = "topk", 2, 2;
    /// Running sums or products.
    Cumulative = "cumulative", 2, 2;
    /// Batch normalisation.
    BatchNorm = "batch_norm", 5, 5;
    /// Layer normalisation.
    LayerNorm = "layer_norm", 2, 3;
    /// RMS normalisation.
    RmsNorm = "rms_norm", 2, 2;
    /// Group and instance normalisation.
    GroupNorm = "group_norm", 3, 3;
    /// Local response normalisation.
    Lrn = "lrn", 1, 1;
    /// Division by the p-norm.
    LpNorm = "lp_norm", 1, 1;
    /// Mean-variance normalisation.
    MeanVarianceNorm = "mean_variance_norm", 1, 1;
    /// Weighted sums of values by queries and keys.
    Attention = "attention", 3, 4;
    /// Rotation of pairs by their position.
    RotaryEmbedding = "rotary_embedding", 3, 3;
    /// Samples at positions.
    GridSample = "grid_sample", 2, 2;
    /// Boxes that do not overlap.
    NonMaxSuppression = "non_max_suppression", 2, 5;
    /// Another shape.
    Reshape = "reshape", 1, 2;
    /// To a matrix.
    Flatten = "flatten", 1, 1;
    /// Without axes of size 1.
    Squeeze = "squeeze", 1, 2;
    /// With axes of size 1.
    Unsqueeze = "unsqueeze", 1, 2;
    /// Another order of axes.
    Transpose = "transpose", 1, 1;
    /// Another order of axes, another shape, and another order of axes.
    Shuffle in Box = "shuffle", 1, 1;
    /// Broadcast with a shape.
    Expand = "expand", 1, 2;
    /// Joined along an axis.
    Concat = "concat", 1, ANY;
    /// Cut along an axis; one output a part.
    Split = "split", 1, 2;
    /// Cut out.
    Slice in Box = "slice", 1, 5;
    /// Moved along axes in a circle.
    Roll = "roll", 1, 1;
    /// Widened.
    Pad = "pad", 1, 4;
    /// Repeated.
    Tile = "tile", 2, 2;
    /// The dimensions.
    ShapeOf = "shape", 1, 1;
    /// One value in a shape.
    ConstantOfShape = "constant_of_shape", 1, 1;
    /// Blocks to channels and back.
    DepthToSpace = "depth_to_space", 1, 1;
    /// Ones on a diagonal.
    EyeLike = "eye_like", 1, 1;
    /// A triangle of a matrix.
    Trilu = "trilu", 1, 2;
    /// Slices by index.
    Gather = "gather", 2, 2;
    /// Elements by index along an axis.
    GatherElements = "gather_elements", 2, 2;
    /// Elements or slices by index tuple.
    GatherNd = "gather_nd", 2, 2;
    /// Updates by index along an axis.
    ScatterElements = "scatter_elements", 3, 3;
    /// Updates by index tuple.
    ScatterNd = "scatter_nd", 3, 3;
    /// Indices to vectors.
    OneHot = "one_hot", 3, 3;
    /// The beginnings of sequences reversed.
    ReverseSequence = "reverse_sequence", 2, 2;
    /// Float to integer.
    Quantize = "quantize", 2, 3;
    /// Integer to float.
    Dequantize = "dequantize", 2, 3;
    /// Random numbers.
    Random = "random", 1, 1;
    /// One of two bodies.
    If = "if", 1, ANY;
    /// A body repeated.
    Loop = "loop", 2, ANY;
    /// A body repeated over slices.
    Scan in Box = "scan", 1, ANY;
    /// Without a typed form.
    Opaque in Box = "opaque", 0, ANY;
}

// Passes walk over all nodes again and again: what each takes decides how many of them the processor's caches hold.
const _: () = assert!(size_of::<Op>() <= 96);

impl Op {
    /// The constant's data.
    pub fn as_constant(&self) -> Option<&Tensor> {
        match self {
            Op::Constant(constant) => Some(&constant.value),
            _ => None,
        }
    }

    /// The epilogue, of the operators that can carry one.
    pub fn epilogue(&self) -> Option<&Epilogue> {
        match self {
            Op::Conv(op) => Some(&op.epilogue),
            Op::ConvTranspose(op) => Some(&op.epilogue),
            Op::MatMul(op) => Some(&op.epilogue),
            Op::BatchNorm(op) => Some(&op.epilogue),
            _ => None,
        }
    }

    /// The same operator with another epilogue; `None` for one that cannot carry any.
    pub fn with_epilogue(&self, epilogue: Epilogue) -> Option<Op> {
        Some(match self {
            Op::Conv(op) => Conv { epilogue, ..Conv::clone(op) }.into(),
            Op::ConvTranspose(op) => ConvTranspose { epilogue, ..ConvTranspose::clone(op) }.into(),
            Op::MatMul(op) => MatMul { epilogue, ..op.clone() }.into(),
            Op::BatchNorm(op) => BatchNorm { epilogue, ..op.clone() }.into(),
            _ => return None,
        })
    }

    /// Input slots before those of the epilogue's adds, of the operators whose epilogue may have adds.
    pub fn own_inputs(&self) -> Option<usize> {
        match self {
            Op::Conv(_) | Op::ConvTranspose(_) => Some(3),
            Op::MatMul(_) => Some(2),
            _ => None,
        }
    }

    /// Whether two runs on equal inputs give equal outputs. What is not may not be shared or folded.
    pub fn is_deterministic(&self) -> bool {
        !matches!(self, Op::Opaque(_) | Op::Random(_) | Op::If(_) | Op::Loop(_) | Op::Scan(_))
    }
}

/// The name and, for one with parameters, those: for messages.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Opaque(op) if op.domain.is_empty() => f.write_str(&op.op_type),
            Op::Opaque(op) => write!(f, "{}::{}", op.domain, op.op_type),
            op => f.write_str(op.name()),
        }
    }
}

/// A name shared by all who mention it.
pub type Name = Arc<str>;
