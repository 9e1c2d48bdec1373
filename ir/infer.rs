//! Shape and type inference.
//!
//! [`infer`] is a pure function of an operator and what is known of its inputs. It is symbolic: dimensions are
//! expressions over the graph's symbols, and the elements of small integer tensors are followed through shape
//! arithmetic ([`Known::Elements`](crate::Known)). What depends on data gets a symbol named after the node.
//!
//! A family function refuses inputs that do not fit its operator with a phrase; what it cannot know it leaves open
//! (an unshaped value, a fresh symbol), which is never an error.

use smallvec::SmallVec;

use crate::{DType, Dim, GraphError, Known, Op, Shape, ValueInfo};

mod attention;
mod control;
mod conv;
mod elements;
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

#[cfg(test)]
mod tests;

pub use conv::{explicit_padding, explicit_transposed_padding};
pub use math::{broadcast, broadcasts_to};

/// Most symbols and operations of a dimension or element that is followed.
const MAX_WEIGHT: usize = 128;
/// Largest number in one.
const MAX_MAGNITUDE: u64 = 1 << 48;

/// What inference needs besides the inputs.
#[derive(Debug, Clone, Copy)]
pub struct InferContext<'a> {
    /// The node's name; fresh symbols start with it.
    pub node: &'a str,
    /// Number of outputs that the node has.
    pub outputs: usize,
}

impl InferContext<'_> {
    /// A dimension that only the data tells.
    fn fresh(&self, what: &str) -> Dim {
        Dim::symbol(format!("{}.{what}", self.node))
    }
}

/// What is known of a node's outputs.
pub type Infos = SmallVec<[ValueInfo; 1]>;

/// The inputs of a node, with phrases for what is missing.
#[derive(Clone, Copy)]
struct Inputs<'a>(&'a [Option<&'a ValueInfo>]);

impl<'a> Inputs<'a> {
    /// An input that may be left out.
    fn optional(self, slot: usize) -> Option<&'a ValueInfo> {
        self.0.get(slot).copied().flatten()
    }

    /// An input that must be there.
    fn required(self, slot: usize) -> Result<&'a ValueInfo, String> {
        self.optional(slot).ok_or_else(|| format!("input {slot} is missing"))
    }

    fn len(self) -> usize {
        self.0.len()
    }
}

/// Types and shapes of an operator's outputs.
///
/// # Errors
/// [`GraphError::Infer`] if the inputs do not fit the operator.
pub fn infer(op: &Op, inputs: &[Option<&ValueInfo>], context: &InferContext<'_>) -> Result<Infos, GraphError> {
    let inputs = Inputs(inputs);
    let result = match op {
        Op::Input => Err("an input has no rule; its type is stated".to_string()),
        Op::Constant(constant) => Ok(one(ValueInfo::constant(constant.value.clone()))),
        Op::Unary(_) | Op::Binary(_) | Op::Activation(_) | Op::Cast(_) | Op::BitCast(_) | Op::Where => {
            math::infer(op, inputs)
        }
        Op::Conv(op) => conv::conv(op, inputs),
        Op::ConvTranspose(op) => conv::conv_transpose(op, inputs),
        Op::MatMul(op) => matmul::matmul(op, inputs),
        Op::Einsum(op) => matmul::einsum(op, inputs),
        Op::Pool(op) => pool::pool(op, inputs, context),
        Op::Resize(op) => pool::resize(op, inputs, context),
        Op::Reduce(_) | Op::ArgReduce(_) | Op::Softmax(_) | Op::TopK(_) | Op::Cumulative(_) => {
            reduce::infer(op, inputs, context)
        }
        Op::BatchNorm(_)
        | Op::LayerNorm(_)
        | Op::RmsNorm(_)
        | Op::GroupNorm(_)
        | Op::Lrn(_)
        | Op::LpNorm(_)
        | Op::MeanVarianceNorm(_) => norm::infer(op, inputs, context),
        Op::Attention(op) => attention::attention(op, inputs, context),
        Op::RotaryEmbedding(op) => attention::rotary_embedding(op, inputs),
        Op::GridSample(_) => vision::grid_sample(inputs),
        Op::NonMaxSuppression(_) => vision::non_max_suppression(inputs, context),
        Op::Reshape(_)
        | Op::Flatten(_)
        | Op::Squeeze(_)
        | Op::Unsqueeze(_)
        | Op::Transpose(_)
        | Op::Shuffle(_)
        | Op::Expand(_)
        | Op::Concat(_)
        | Op::Split(_)
        | Op::Slice(_)
        | Op::Roll(_)
        | Op::Pad(_)
        | Op::Tile(_)
        | Op::ShapeOf(_)
        | Op::Size
        | Op::Range
        | Op::ConstantOfShape(_)
        | Op::DepthToSpace(_)
        | Op::EyeLike(_)
        | Op::Trilu(_) => movement::infer(op, inputs, context),
        Op::Gather(_)
        | Op::GatherElements(_)
        | Op::GatherNd(_)
        | Op::ScatterElements(_)
        | Op::ScatterNd(_)
        | Op::OneHot(_)
        | Op::ReverseSequence(_)
        | Op::NonZero => index::infer(op, inputs, context),
        Op::Quantize(_) | Op::Dequantize(_) => quant::infer(op, inputs),
        Op::Random(op) => random::random(op, inputs, context),
        Op::If(_) | Op::Loop(_) | Op::Scan(_) => control::infer(op, inputs, context),
        Op::Opaque(_) => Ok(SmallVec::from_elem(ValueInfo::unshaped(DType::Unknown), context.outputs)),
    };
    let fail = |reason| GraphError::Infer { node: context.node.into(), op: op.to_string(), reason };
    let mut infos = result.map_err(fail)?;
    if infos.len() < context.outputs {
        return Err(fail(format!("{} outputs asked for, {} possible", context.outputs, infos.len())));
    }
    infos.truncate(context.outputs);
    for (slot, info) in infos.iter_mut().enumerate() {
        bound_expressions(info, slot, context);
    }
    Ok(infos)
}

/// Forgets expressions that have grown beyond use, so that no model makes inference slow, or whose numbers may have
/// saturated.
fn bound_expressions(info: &mut ValueInfo, slot: usize, context: &InferContext<'_>) {
    let unwieldy = |dim: &Dim| dim.value().is_none() && (dim.weight() > MAX_WEIGHT || dim.magnitude() > MAX_MAGNITUDE);
    for (axis, dim) in info.shape.iter_mut().flatten().enumerate() {
        if unwieldy(dim) {
            *dim = context.fresh(&format!("o{slot}.d{axis}"));
        }
    }
    if let Known::Elements(elements) = &info.known
        && elements.iter().any(unwieldy)
    {
        info.known = Known::Nothing;
    }
}

fn one(info: ValueInfo) -> Infos {
    SmallVec::from_iter([info])
}

/// A value of a dtype and a shape that may be unknown.
fn shaped(dtype: DType, shape: Option<Shape>) -> ValueInfo {
    ValueInfo { dtype, shape, known: Known::Nothing }
}

/// Two element types that must be equal; one that is not known yields to the other.
fn join_dtypes(a: DType, b: DType) -> Result<DType, String> {
    match (a, b) {
        (DType::Unknown, other) | (other, DType::Unknown) => Ok(other),
        (a, b) if a == b => Ok(a),
        (a, b) => Err(format!("{a} and {b} differ")),
    }
}

/// An axis in `0..rank`; a negative one counts from the end.
///
/// # Errors
/// If it lies outside.
pub fn resolve_axis(axis: i64, rank: usize) -> Result<usize, String> {
    let signed = i64::try_from(rank).unwrap_or(i64::MAX);
    let resolved = if axis < 0 { axis.saturating_add(signed) } else { axis };
    if (0..signed).contains(&resolved) {
        Ok(resolved as usize)
    } else {
        Err(format!("axis {axis} is outside of rank {rank}"))
    }
}

/// Axes in `0..rank`, each once.
///
/// # Errors
/// If one lies outside or is named twice.
pub fn resolve_axes(axes: &[i64], rank: usize) -> Result<SmallVec<[usize; 4]>, String> {
    let mut resolved: SmallVec<[usize; 4]> = SmallVec::new();
    for axis in axes {
        let axis = resolve_axis(*axis, rank)?;
        if resolved.contains(&axis) {
            return Err(format!("axis {axis} is named twice"));
        }
        resolved.push(axis);
    }
    Ok(resolved)
}

/// Two dimensions that must be equal: the more precise one, or why they cannot be.
fn unify(a: &Dim, b: &Dim) -> Result<Dim, String> {
    match (a - b).value() {
        Some(0) => Ok(a.clone()),
        Some(_) => Err(format!("{a} and {b} differ")),
        None => Ok(if a.value().is_some() { a.clone() } else { b.clone() }),
    }
}
