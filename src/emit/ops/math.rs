//! Elementwise layers.

use trt_fuse_ir::op::{Activation, BinaryOp, BitCast, Cast, UnaryOp};
use trt_fuse_ir::{DType, Tensor};

use super::super::error::EmitError;
use super::super::layers::Quantize;
use super::super::sink::NetworkSink;
use super::super::site::Site;
use super::super::terms::{ActivationKind, ElementwiseKind, UnaryKind};

pub(super) fn unary<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: UnaryOp,
) -> Result<S::Tensor, EmitError> {
    use UnaryKind as K;
    let x = site.tensor(0)?;
    let kind = match op {
        UnaryOp::Identity => return site.layer("", |sink, label| sink.identity(label, x)),
        UnaryOp::Abs => K::Abs,
        UnaryOp::Neg => K::Neg,
        UnaryOp::Exp => K::Exp,
        UnaryOp::Log => K::Log,
        UnaryOp::Sqrt => K::Sqrt,
        UnaryOp::Reciprocal => K::Recip,
        UnaryOp::Floor => K::Floor,
        UnaryOp::Ceil => K::Ceil,
        UnaryOp::Round => K::Round,
        UnaryOp::Sign => K::Sign,
        UnaryOp::Erf => K::Erf,
        UnaryOp::Sin => K::Sin,
        UnaryOp::Cos => K::Cos,
        UnaryOp::Tan => K::Tan,
        UnaryOp::Asin => K::Asin,
        UnaryOp::Acos => K::Acos,
        UnaryOp::Atan => K::Atan,
        UnaryOp::Sinh => K::Sinh,
        UnaryOp::Cosh => K::Cosh,
        UnaryOp::Asinh => K::Asinh,
        UnaryOp::Acosh => K::Acosh,
        UnaryOp::Atanh => K::Atanh,
        UnaryOp::Not => K::Not,
        UnaryOp::IsNan => K::IsNan,
        UnaryOp::IsInf => K::IsInf,
        UnaryOp::IsPosInf | UnaryOp::IsNegInf => {
            let (rank, dtype) = (site.rank(0)?, site.info(0).map_or(DType::Unknown, |info| info.dtype));
            let infinite = site.unary(x, K::IsInf, "is_inf")?;
            let zero = site.scalar(dtype, rank, 0.0, "zero")?;
            let side = if op == UnaryOp::IsPosInf { ElementwiseKind::Greater } else { ElementwiseKind::Less };
            let side = site.elementwise(x, zero, side, "side")?;
            return site.elementwise(infinite, side, ElementwiseKind::And, "");
        }
        other => return site.unsupported(format!("TensorRT has no unary layer for `{}`", other.word())),
    };
    site.unary(x, kind, "")
}

pub(super) fn binary<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: BinaryOp,
) -> Result<S::Tensor, EmitError> {
    use ElementwiseKind as K;
    let rank = site.rank(0)?.max(site.rank(1)?);
    let (a, b) = (site.aligned(0, rank)?, site.aligned(1, rank)?);
    let float = site.info(0).is_some_and(|info| info.dtype.is_float());
    let kind = match op {
        BinaryOp::Add => K::Sum,
        BinaryOp::Sub => K::Sub,
        BinaryOp::Mul => K::Prod,
        BinaryOp::Div => K::Div,
        BinaryOp::Pow => K::Pow,
        BinaryOp::Min => K::Min,
        BinaryOp::Max => K::Max,
        BinaryOp::And => K::And,
        BinaryOp::Or => K::Or,
        BinaryOp::Xor => K::Xor,
        BinaryOp::Equal => K::Equal,
        BinaryOp::Greater => K::Greater,
        BinaryOp::Less => K::Less,
        BinaryOp::GreaterOrEqual | BinaryOp::LessOrEqual => {
            let strict = if op == BinaryOp::GreaterOrEqual { K::Greater } else { K::Less };
            // Not the negation of the other comparison: a NaN is neither.
            let strict = site.elementwise(a, b, strict, "strict")?;
            let equal = site.elementwise(a, b, K::Equal, "equal")?;
            return site.elementwise(strict, equal, K::Or, "");
        }
        BinaryOp::PRelu => return site.layer("", |sink, label| sink.parametric_relu(label, a, b)),
        BinaryOp::Mod if !float => {
            return integer_modulo(site, a, b, rank);
        }
        other => return site.unsupported(format!("TensorRT has no elementwise layer for `{}`", other.word())),
    };
    site.elementwise(a, b, kind, "")
}

/// The remainder of integers with the sign of the divisor. TensorRT 10.7 rounds up some quotients of its floored division
/// of integers (18542495 / 32); the truncated one is exact.
fn integer_modulo<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    a: S::Tensor,
    b: S::Tensor,
    rank: usize,
) -> Result<S::Tensor, EmitError> {
    use ElementwiseKind as K;
    let dtype = site.dtype();
    let quotient = site.elementwise(a, b, K::Div, "quotient")?;
    let product = site.elementwise(quotient, b, K::Prod, "product")?;
    let rest = site.elementwise(a, product, K::Sub, "rest")?;
    let zero = site.scalar(dtype, rank, 0.0, "zero")?;
    let mut other_side = site.elementwise(rest, zero, K::Less, "below")?;
    let divisors = site.constant(1).and_then(Tensor::to_i64s);
    if divisors.is_none_or(|all| all.iter().any(|divisor| *divisor < 0)) {
        let above = site.elementwise(rest, zero, K::Greater, "above")?;
        let points_down = site.elementwise(b, zero, K::Less, "points_down")?;
        other_side = site.layer("other_side", |sink, label| sink.select(label, points_down, above, other_side))?;
    }
    let moved = site.elementwise(rest, b, K::Sum, "moved")?;
    site.layer("", |sink, label| sink.select(label, other_side, moved, rest))
}

pub(super) fn select<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>) -> Result<S::Tensor, EmitError> {
    let rank = site.rank(0)?.max(site.rank(1)?).max(site.rank(2)?);
    let condition = site.aligned(0, rank)?;
    let (a, b) = (site.aligned(1, rank)?, site.aligned(2, rank)?);
    site.layer("", |sink, label| sink.select(label, condition, a, b))
}

pub(super) fn bit_cast<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &BitCast,
) -> Result<S::Tensor, EmitError> {
    let x = site.tensor(0)?;
    match site.info(0).map(|info| info.dtype) {
        Some(dtype) if dtype == op.to => site.layer("", |sink, label| sink.identity(label, x)),
        dtype => {
            let from = dtype.unwrap_or(DType::Unknown);
            site.unsupported(format!("TensorRT has no layer that takes the bits of {from} for {}", op.to))
        }
    }
}

pub(super) fn cast<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>, op: &Cast) -> Result<S::Tensor, EmitError> {
    let Some(to) = site.capabilities().carried_in(op.to) else {
        return site.unsupported(format!("the target has no element type {}", op.to));
    };
    let from = site.info(0).map_or(DType::Unknown, |info| info.dtype);
    let x = site.tensor(0)?;
    match (from, to) {
        (DType::F4E2M1, _) | (_, DType::F4E2M1) => {
            site.unsupported("TensorRT converts f4e2m1 only as quantized weights, in blocks")
        }
        (DType::F8E4M3, _) => {
            let wide = if to.is_float() && to != DType::F8E4M3 { to } else { DType::F32 };
            let layer = unit_scale(site, wide, wide)?;
            let y =
                site.layer(if wide == to { "" } else { "wide" }, |sink, label| sink.dequantize(label, x, &layer))?;
            if wide == to { Ok(y) } else { site.layer("", |sink, label| sink.cast(label, y, to)) }
        }
        (_, DType::F8E4M3) => {
            let mut x = x;
            let wide = if matches!(from, DType::F16 | DType::BF16 | DType::F32) { from } else { DType::F32 };
            if wide != from {
                x = site.layer("wide", |sink, label| sink.cast(label, x, wide))?;
            }
            if !op.saturate {
                x = without_overflow(site, x, wide)?;
            }
            let layer = unit_scale(site, wide, to)?;
            site.layer("", |sink, label| sink.quantize(label, x, &layer))
        }
        _ => site.layer("", |sink, label| sink.cast(label, x, to)),
    }
}

/// Eight-bit floats are converted by quantization alone: by a scale of 1.
fn unit_scale<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    wide: DType,
    dtype: DType,
) -> Result<Quantize<S::Tensor>, EmitError> {
    let scale = site.scalar(wide, 0, 1.0, "scale")?;
    Ok(Quantize { scale, zero_point: None, axis: None, dtype })
}

/// NaN in the place of what rounds to more than 448, the largest number of f8e4m3.
fn without_overflow<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    x: S::Tensor,
    dtype: DType,
) -> Result<S::Tensor, EmitError> {
    let rank = site.rank(0)?;
    let size = site.unary(x, UnaryKind::Abs, "abs")?;
    // Halfway to the next number of the format without a limit.
    let most = site.scalar(dtype, rank, 464.0, "most")?;
    let beyond = site.elementwise(size, most, ElementwiseKind::Greater, "beyond")?;
    let nan = site.scalar(dtype, rank, f64::NAN, "nan")?;
    site.layer("select", |sink, label| sink.select(label, beyond, nan, x))
}

pub(super) fn activation_node<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: Activation,
) -> Result<S::Tensor, EmitError> {
    let x = site.tensor(0)?;
    let rank = site.rank(0)?;
    apply(site, x, rank, op, "")
}

/// The layers of an activation on a tensor of `rank`; the last one is named `what`.
pub(super) fn apply<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    x: S::Tensor,
    rank: usize,
    op: Activation,
    what: &str,
) -> Result<S::Tensor, EmitError> {
    use ActivationKind as K;
    let dtype = site.dtype();
    let (kind, alpha, beta) = match op {
        Activation::Relu => (K::Relu, 0.0, 0.0),
        Activation::LeakyRelu(alpha) => (K::LeakyRelu, alpha.0, 0.0),
        // The layer's lower bound wins where they cross, ONNX's upper one.
        Activation::Clip(low, high) => (K::Clip, low.0.min(high.0), high.0),
        Activation::Sigmoid => (K::Sigmoid, 0.0, 0.0),
        Activation::Tanh => (K::Tanh, 0.0, 0.0),
        Activation::HardSigmoid(alpha, beta) => (K::HardSigmoid, alpha.0, beta.0),
        Activation::Elu(alpha) => (K::Elu, alpha.0, 0.0),
        Activation::Selu(alpha, gamma) => (K::Selu, alpha.0, gamma.0),
        // alpha * ln(e^(beta * x) + 1)
        Activation::Softplus => (K::Softplus, 1.0, 1.0),
        Activation::Softsign => (K::Softsign, 0.0, 0.0),
        Activation::ThresholdedRelu(alpha) => (K::ThresholdedRelu, alpha.0, 0.0),
        Activation::GeluErf if site.capabilities().gelu => (K::GeluErf, 0.0, 0.0),
        Activation::GeluTanh if site.capabilities().gelu => (K::GeluTanh, 0.0, 0.0),
        Activation::HardSwish => {
            let gate = site.activation(x, K::HardSigmoid, 1.0 / 6.0, 0.5, "gate")?;
            return site.elementwise(x, gate, ElementwiseKind::Prod, what);
        }
        Activation::Swish(beta) => {
            let inner = if beta.0 == 1.0 {
                x
            } else {
                let beta = site.scalar(dtype, rank, f64::from(beta.0), "beta")?;
                site.elementwise(x, beta, ElementwiseKind::Prod, "scaled")?
            };
            let gate = site.activation(inner, K::Sigmoid, 0.0, 0.0, "gate")?;
            return site.elementwise(x, gate, ElementwiseKind::Prod, what);
        }
        Activation::Mish => {
            let softplus = site.activation(x, K::Softplus, 1.0, 1.0, "softplus")?;
            let gate = site.activation(softplus, K::Tanh, 0.0, 0.0, "gate")?;
            return site.elementwise(x, gate, ElementwiseKind::Prod, what);
        }
        Activation::Celu(alpha) => {
            // alpha * elu(x / alpha), which is x where x >= 0.
            let alpha = site.scalar(dtype, rank, f64::from(alpha.0), "alpha")?;
            let inner = site.elementwise(x, alpha, ElementwiseKind::Div, "scaled")?;
            let elu = site.activation(inner, K::Elu, 1.0, 0.0, "elu")?;
            return site.elementwise(elu, alpha, ElementwiseKind::Prod, what);
        }
        other => return site.unsupported(format!("TensorRT has no activation layer for `{}`", other.parts().0)),
    };
    site.activation(x, kind, alpha, beta, what)
}
