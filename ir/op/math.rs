//! Elementwise operators.
//!
//! Binary operators, [`Where`](super::Op::Where) and epilogue adds broadcast as NumPy does.

use std::sync::Arc;

use crate::attr::{Attr, AttrValue, F32};
use crate::{DType, attributes, words};

words! {
    /// One input, one output, no parameter. Dtype stays, but for the predicates, which yield Bool.
    pub enum UnaryOp {
        /// Copy.
        Identity = "identity",
        /// Absolute value.
        Abs = "abs",
        /// Negation.
        Neg = "neg",
        /// e^x.
        Exp = "exp",
        /// Natural logarithm.
        Log = "log",
        /// Square root.
        Sqrt = "sqrt",
        /// 1/x.
        Reciprocal = "reciprocal",
        /// Round down.
        Floor = "floor",
        /// Round up.
        Ceil = "ceil",
        /// Round, halves to even.
        Round = "round",
        /// -1, 0 or 1.
        Sign = "sign",
        /// Error function.
        Erf = "erf",
        /// Sine.
        Sin = "sin",
        /// Cosine.
        Cos = "cos",
        /// Tangent.
        Tan = "tan",
        /// Arc sine.
        Asin = "asin",
        /// Arc cosine.
        Acos = "acos",
        /// Arc tangent.
        Atan = "atan",
        /// Hyperbolic sine.
        Sinh = "sinh",
        /// Hyperbolic cosine.
        Cosh = "cosh",
        /// Inverse hyperbolic sine.
        Asinh = "asinh",
        /// Inverse hyperbolic cosine.
        Acosh = "acosh",
        /// Inverse hyperbolic tangent.
        Atanh = "atanh",
        /// Logical negation of Bool.
        Not = "not",
        /// Bitwise negation of integers.
        BitwiseNot = "bitwise_not",
        /// Whether the element is a NaN.
        IsNan = "is_nan",
        /// Whether the element is infinite.
        IsInf = "is_inf",
        /// Whether the element is positive infinity.
        IsPosInf = "is_pos_inf",
        /// Whether the element is negative infinity.
        IsNegInf = "is_neg_inf",
    }
}

words! {
    /// Two inputs of one dtype, broadcast; comparisons yield Bool.
    pub enum BinaryOp {
        /// Sum.
        Add = "add",
        /// Difference.
        Sub = "sub",
        /// Product.
        Mul = "mul",
        /// Quotient; of integers, rounded towards zero.
        Div = "div",
        /// Power; the exponent may have another dtype.
        Pow = "pow",
        /// The smaller; NaN if either is.
        Min = "min",
        /// The larger; NaN if either is.
        Max = "max",
        /// Remainder with the divisor's sign (ONNX `Mod`, fmod=0).
        Mod = "mod",
        /// Remainder with the dividend's sign (ONNX `Mod`, fmod=1).
        FMod = "fmod",
        /// Logical and.
        And = "and",
        /// Logical or.
        Or = "or",
        /// Logical exclusive or.
        Xor = "xor",
        /// Equality.
        Equal = "equal",
        /// a > b.
        Greater = "greater",
        /// a >= b.
        GreaterOrEqual = "greater_or_equal",
        /// a < b.
        Less = "less",
        /// a <= b.
        LessOrEqual = "less_or_equal",
        /// Bitwise and.
        BitwiseAnd = "bitwise_and",
        /// Bitwise or.
        BitwiseOr = "bitwise_or",
        /// Bitwise exclusive or.
        BitwiseXor = "bitwise_xor",
        /// a << b.
        ShiftLeft = "shift_left",
        /// a >> b.
        ShiftRight = "shift_right",
        /// a where a >= 0, else a * b (ONNX `PRelu`; b broadcasts to a only).
        PRelu = "prelu",
    }
}

impl UnaryOp {
    /// Whether the output is Bool whatever the input.
    pub fn is_predicate(self) -> bool {
        matches!(self, Self::IsNan | Self::IsInf | Self::IsPosInf | Self::IsNegInf)
    }
}

impl BinaryOp {
    /// Whether the output is Bool whatever the inputs.
    pub fn is_comparison(self) -> bool {
        matches!(self, Self::Equal | Self::Greater | Self::GreaterOrEqual | Self::Less | Self::LessOrEqual)
    }

    /// Whether the inputs may be exchanged.
    pub fn is_commutative(self) -> bool {
        matches!(
            self,
            Self::Add
                | Self::Mul
                | Self::Min
                | Self::Max
                | Self::And
                | Self::Or
                | Self::Xor
                | Self::Equal
                | Self::BitwiseAnd
                | Self::BitwiseOr
                | Self::BitwiseXor
        )
    }
}

/// An activation: one input, one output of the same shape and float dtype.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// x where x >= 0, else alpha * x
    LeakyRelu(F32),
    /// min(max(x, low), high)
    Clip(F32, F32),
    /// 1 / (1 + e^-x)
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// clip(alpha * x + beta, 0, 1)
    HardSigmoid(F32, F32),
    /// x * hard_sigmoid(1/6, 0.5)(x)
    HardSwish,
    /// x * sigmoid(beta * x): SiLU for beta 1.
    Swish(F32),
    /// x where x >= 0, else alpha * (e^x - 1)
    Elu(F32),
    /// gamma * elu(alpha)(x)
    Selu(F32, F32),
    /// max(0, x) + min(0, alpha * (e^(x / alpha) - 1))
    Celu(F32),
    /// ln(1 + e^x)
    Softplus,
    /// x / (1 + |x|)
    Softsign,
    /// x * tanh(softplus(x))
    Mish,
    /// x / 2 * (1 + erf(x / sqrt 2))
    GeluErf,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// x where x > alpha, else 0
    ThresholdedRelu(F32),
    /// x - bias where x > lambd, x + bias where x < -lambd, else 0: (lambd, bias)
    Shrink(F32, F32),
}

/// Name, number of parameters, constructor from parameters.
type ActivationRow = (&'static str, usize, fn(&[F32]) -> Option<Activation>);

const ACTIVATIONS: &[ActivationRow] = &[
    ("relu", 0, |_| Some(Activation::Relu)),
    ("leaky_relu", 1, |p| Some(Activation::LeakyRelu(*p.first()?))),
    ("clip", 2, |p| Some(Activation::Clip(*p.first()?, *p.get(1)?))),
    ("sigmoid", 0, |_| Some(Activation::Sigmoid)),
    ("tanh", 0, |_| Some(Activation::Tanh)),
    ("hard_sigmoid", 2, |p| Some(Activation::HardSigmoid(*p.first()?, *p.get(1)?))),
    ("hard_swish", 0, |_| Some(Activation::HardSwish)),
    ("swish", 1, |p| Some(Activation::Swish(*p.first()?))),
    ("elu", 1, |p| Some(Activation::Elu(*p.first()?))),
    ("selu", 2, |p| Some(Activation::Selu(*p.first()?, *p.get(1)?))),
    ("celu", 1, |p| Some(Activation::Celu(*p.first()?))),
    ("softplus", 0, |_| Some(Activation::Softplus)),
    ("softsign", 0, |_| Some(Activation::Softsign)),
    ("mish", 0, |_| Some(Activation::Mish)),
    ("gelu", 0, |_| Some(Activation::GeluErf)),
    ("gelu_tanh", 0, |_| Some(Activation::GeluTanh)),
    ("thresholded_relu", 1, |p| Some(Activation::ThresholdedRelu(*p.first()?))),
    ("shrink", 2, |p| Some(Activation::Shrink(*p.first()?, *p.get(1)?))),
];

impl Activation {
    /// Name in the text form and parameters.
    pub fn parts(self) -> (&'static str, Vec<F32>) {
        use Activation::*;
        match self {
            Relu => ("relu", vec![]),
            LeakyRelu(alpha) => ("leaky_relu", vec![alpha]),
            Clip(low, high) => ("clip", vec![low, high]),
            Sigmoid => ("sigmoid", vec![]),
            Tanh => ("tanh", vec![]),
            HardSigmoid(alpha, beta) => ("hard_sigmoid", vec![alpha, beta]),
            HardSwish => ("hard_swish", vec![]),
            Swish(beta) => ("swish", vec![beta]),
            Elu(alpha) => ("elu", vec![alpha]),
            Selu(alpha, gamma) => ("selu", vec![alpha, gamma]),
            Celu(alpha) => ("celu", vec![alpha]),
            Softplus => ("softplus", vec![]),
            Softsign => ("softsign", vec![]),
            Mish => ("mish", vec![]),
            GeluErf => ("gelu", vec![]),
            GeluTanh => ("gelu_tanh", vec![]),
            ThresholdedRelu(alpha) => ("thresholded_relu", vec![alpha]),
            Shrink(lambd, bias) => ("shrink", vec![lambd, bias]),
        }
    }

    /// The activation of a name and its parameters.
    pub fn from_parts(name: &str, parameters: &[F32]) -> Option<Self> {
        let (_, _, make) = ACTIVATIONS.iter().find(|row| row.0 == name && row.1 == parameters.len())?;
        make(parameters)
    }
}

impl AttrValue for Activation {
    fn to_attr(&self) -> Option<Attr> {
        let (name, parameters) = self.parts();
        Some(if parameters.is_empty() {
            Attr::Word(name.into())
        } else {
            Attr::Call(name.into(), parameters.into_iter().map(Attr::Float).collect())
        })
    }

    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        let (name, parameters): (&Arc<str>, &[Attr]) = match attr {
            Some(Attr::Word(name)) => (name, &[]),
            Some(Attr::Call(name, parameters)) => (name, parameters),
            _ => return Err("an activation expected".to_string()),
        };
        let parameters: Vec<F32> =
            parameters.iter().map(|parameter| F32::from_attr(Some(parameter))).collect::<Result<_, _>>()?;
        Self::from_parts(name, &parameters).ok_or_else(|| format!("no activation is called `{name}`"))
    }
}

attributes! {
    /// ONNX `Cast`.
    pub struct Cast {
        /// The output's dtype.
        to: DType,
        /// Values out of a float8 type's range become its largest, not infinity or NaN.
        saturate: bool,
        /// The values are `to`'s already, in another type that holds them: there is nothing to round or wrap around.
        in_range: bool,
    }
}

impl Cast {
    /// A conversion as ONNX means it by default.
    pub fn new(to: DType) -> Self {
        Self { to, saturate: true, in_range: false }
    }
}

attributes! {
    /// ONNX `BitCast`.
    pub struct BitCast {
        /// The output's dtype, of the width of the input's.
        to: DType,
    }
}
