//! TensorRT's enumerations, in its own terms.
//!
//! Discriminants are TensorRT's own: `cpp/terms.cc` asserts them against each set of headers that is compiled in.

use std::fmt;

macro_rules! terms {
    ($($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $value:literal $text:literal,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            #[repr(i32)]
            pub enum $name { $($(#[$doc])* $variant = $value,)* }

            impl $name {
                /// The name in recorded text.
                pub fn name(self) -> &'static str {
                    match self { $(Self::$variant => $text,)* }
                }

                /// TensorRT's value.
                pub fn code(self) -> i32 {
                    self as i32
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(self.name())
                }
            }
        )*
    };
}

terms! {
    /// The function of an activation layer.
    ActivationKind {
        /// max(x, 0)
        Relu = 0 "relu",
        /// 1 / (1 + e^-x)
        Sigmoid = 1 "sigmoid",
        /// tanh(x)
        Tanh = 2 "tanh",
        /// x >= 0 ? x : alpha * x
        LeakyRelu = 3 "leaky_relu",
        /// x >= 0 ? x : alpha * (e^x - 1)
        Elu = 4 "elu",
        /// x > 0 ? beta * x : beta * (alpha * e^x - alpha)
        Selu = 5 "selu",
        /// x / (1 + |x|)
        Softsign = 6 "softsign",
        /// alpha * log(e^(beta * x) + 1)
        Softplus = 7 "softplus",
        /// max(alpha, min(beta, x))
        Clip = 8 "clip",
        /// max(0, min(1, alpha * x + beta))
        HardSigmoid = 9 "hard_sigmoid",
        /// alpha * tanh(beta * x)
        ScaledTanh = 10 "scaled_tanh",
        /// x > alpha ? x : 0
        ThresholdedRelu = 11 "thresholded_relu",
        /// x / 2 * (1 + erf(x / sqrt(2)))
        GeluErf = 12 "gelu_erf",
        /// x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))
        GeluTanh = 13 "gelu_tanh",
    }

    /// An operation on one tensor, element by element.
    UnaryKind {
        /// e^x
        Exp = 0 "exp",
        /// Natural logarithm.
        Log = 1 "log",
        /// Square root.
        Sqrt = 2 "sqrt",
        /// 1 / x
        Recip = 3 "recip",
        /// |x|
        Abs = 4 "abs",
        /// -x
        Neg = 5 "neg",
        /// sin(x)
        Sin = 6 "sin",
        /// cos(x)
        Cos = 7 "cos",
        /// tan(x)
        Tan = 8 "tan",
        /// sinh(x)
        Sinh = 9 "sinh",
        /// cosh(x)
        Cosh = 10 "cosh",
        /// asin(x)
        Asin = 11 "asin",
        /// acos(x)
        Acos = 12 "acos",
        /// atan(x)
        Atan = 13 "atan",
        /// asinh(x)
        Asinh = 14 "asinh",
        /// acosh(x)
        Acosh = 15 "acosh",
        /// atanh(x)
        Atanh = 16 "atanh",
        /// Rounds up.
        Ceil = 17 "ceil",
        /// Rounds down.
        Floor = 18 "floor",
        /// The error function.
        Erf = 19 "erf",
        /// Logical not.
        Not = 20 "not",
        /// -1, 0 or 1.
        Sign = 21 "sign",
        /// Rounds to nearest, ties to even.
        Round = 22 "round",
        /// Whether x is an infinity.
        IsInf = 23 "is_inf",
        /// Whether x is not a number.
        IsNan = 24 "is_nan",
    }

    /// An operation on two tensors of equal rank, element by element, extents of one broadcast.
    ElementwiseKind {
        /// a + b
        Sum = 0 "sum",
        /// a * b
        Prod = 1 "prod",
        /// max(a, b)
        Max = 2 "max",
        /// min(a, b)
        Min = 3 "min",
        /// a - b
        Sub = 4 "sub",
        /// a / b; truncates for integers
        Div = 5 "div",
        /// a ^ b
        Pow = 6 "pow",
        /// floor(a / b)
        FloorDiv = 7 "floor_div",
        /// Logical and.
        And = 8 "and",
        /// Logical or.
        Or = 9 "or",
        /// Logical exclusive or.
        Xor = 10 "xor",
        /// a == b
        Equal = 11 "equal",
        /// a > b
        Greater = 12 "greater",
        /// a < b
        Less = 13 "less",
    }

    /// What a reduction computes.
    ReduceKind {
        /// Sum.
        Sum = 0 "sum",
        /// Product.
        Prod = 1 "prod",
        /// Maximum.
        Max = 2 "max",
        /// Minimum.
        Min = 3 "min",
        /// Mean.
        Avg = 4 "avg",
    }

    /// What a pooling window computes.
    PoolingKind {
        /// Maximum.
        Max = 0 "max",
        /// Mean.
        Average = 1 "average",
    }

    /// How the output extent of a window is derived from padding.
    PaddingMode {
        /// Explicit padding, extent rounded down.
        ExplicitRoundDown = 0 "explicit_round_down",
        /// Explicit padding, extent rounded up.
        ExplicitRoundUp = 1 "explicit_round_up",
        /// Padding derived, the odd element at the end.
        SameUpper = 2 "same_upper",
        /// Padding derived, the odd element at the start.
        SameLower = 3 "same_lower",
    }

    /// Over what the coefficients of a scale layer vary.
    ScaleMode {
        /// One coefficient for all elements.
        Uniform = 0 "uniform",
        /// One coefficient a channel.
        Channel = 1 "channel",
        /// One coefficient an element.
        Elementwise = 2 "elementwise",
    }

    /// How an operand of a matrix product is read.
    MatrixOp {
        /// Matrices as they lie.
        None = 0 "none",
        /// The last two axes exchanged.
        Transpose = 1 "transpose",
        /// The last axis is a vector, the rest is batch.
        Vector = 2 "vector",
    }

    /// How a gather reads its indices.
    GatherMode {
        /// ONNX Gather.
        Default = 0 "default",
        /// ONNX GatherElements.
        Element = 1 "element",
        /// ONNX GatherND.
        Nd = 2 "nd",
    }

    /// How a scatter reads its indices.
    ScatterMode {
        /// ONNX ScatterElements.
        Element = 0 "element",
        /// ONNX ScatterND.
        Nd = 1 "nd",
    }

    /// What is read outside a tensor's bounds.
    SampleMode {
        /// Nothing: bounds are an error.
        StrictBounds = 0 "strict_bounds",
        /// Indices modulo the extent.
        Wrap = 1 "wrap",
        /// The nearest element.
        Clamp = 2 "clamp",
        /// A fill value.
        Fill = 3 "fill",
        /// The element mirrored at the border, the border not repeated.
        Reflect = 4 "reflect",
    }

    /// Which elements TopK keeps.
    TopKKind {
        /// The largest.
        Max = 0 "max",
        /// The smallest.
        Min = 1 "min",
    }

    /// Interpolation of resize and grid sample.
    Interpolation {
        /// Nearest element.
        Nearest = 0 "nearest",
        /// Linear along each resized axis.
        Linear = 1 "linear",
        /// Cubic along the last two axes.
        Cubic = 2 "cubic",
    }

    /// How an output coordinate of a resize maps to an input coordinate.
    CoordinateTransform {
        /// Corner elements coincide.
        AlignCorners = 0 "align_corners",
        /// x / scale
        Asymmetric = 1 "asymmetric",
        /// (x + 0.5) / scale - 0.5
        HalfPixel = 2 "half_pixel",
    }

    /// The coordinate that a resize to extent one reads.
    ResizeSelector {
        /// What the coordinate transform gives.
        Formula = 0 "formula",
        /// The first element.
        Upper = 1 "upper",
    }

    /// How a nearest resize rounds a coordinate.
    ResizeRound {
        /// To nearest, ties up.
        HalfUp = 0 "half_up",
        /// To nearest, ties down.
        HalfDown = 1 "half_down",
        /// Down.
        Floor = 2 "floor",
        /// Up.
        Ceil = 3 "ceil",
    }

    /// What a fill layer writes.
    FillKind {
        /// alpha + index * beta
        Linspace = 0 "linspace",
        /// Uniform in [alpha, beta).
        RandomUniform = 1 "random_uniform",
        /// Normal with mean alpha and deviation beta.
        RandomNormal = 2 "random_normal",
    }

    /// How a box is given to non-maximum suppression.
    BoxFormat {
        /// Two opposite corners.
        CornerPairs = 0 "corner_pairs",
        /// Centre, width, height.
        CenterSizes = 1 "center_sizes",
    }

    /// What runs along an axis.
    CumulativeKind {
        /// A running sum.
        Sum = 0 "sum",
    }

    /// How attention scores are normalized.
    AttentionNorm {
        /// Not at all.
        None = 0 "none",
        /// Softmax over the keys.
        Softmax = 1 "softmax",
    }

    /// Which keys a query of causal attention sees.
    CausalMask {
        /// All.
        None = 0 "none",
        /// Keys up to the query's index, both counted from the start.
        UpperLeft = 1 "upper_left",
        /// Keys up to the query's index, both counted from the end.
        LowerRight = 2 "lower_right",
    }

    /// How long a loop runs.
    TripLimit {
        /// As often as a count says.
        Count = 0 "count",
        /// While a condition holds.
        While = 1 "while",
    }

    /// What a loop gives out of a value.
    LoopOutput {
        /// The last value.
        LastValue = 0 "last_value",
        /// All values, concatenated in order.
        Concatenate = 1 "concatenate",
        /// All values, concatenated in reverse order.
        Reverse = 2 "reverse",
    }
}
