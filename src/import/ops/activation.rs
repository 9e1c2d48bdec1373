//! Activations.

use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::{Activation, BinaryOp};
use trt_fuse_ir::{DType, Op};

use super::Row;
use crate::import::node::{Imported, NodeContext};

/// Rows of activations with float attributes, each with its default.
macro_rules! activations {
    ($($name:literal => $variant:expr $(, $attribute:literal: $default:expr)*;)*) => {
        &[$(Row::new($name, (1, 1), 1, |node| {
            let activation = $variant($(F32(node.attrs.float($attribute, $default)?)),*);
            node.emit_same(Op::Activation(activation))
        })),*]
    };
}

/// The constants of SELU, exact in f32.
const SELU: (f32, f32) = (1.673_263_2, 1.050_701);

pub(super) const WITH_FLOATS: &[Row] = activations! {
    "LeakyRelu" => Activation::LeakyRelu, "alpha": 0.01;
    "HardSigmoid" => Activation::HardSigmoid, "alpha": 0.2, "beta": 0.5;
    "Swish" => Activation::Swish, "alpha": 1.0;
    "Elu" => Activation::Elu, "alpha": 1.0;
    "Selu" => Activation::Selu, "alpha": SELU.0, "gamma": SELU.1;
    "Celu" => Activation::Celu, "alpha": 1.0;
    "ThresholdedRelu" => Activation::ThresholdedRelu, "alpha": 1.0;
};

pub(super) const ROWS: &[Row] = &[
    Row::new("Clip", (1, 3), 1, clip),
    Row::new("Gelu", (1, 1), 1, gelu),
    Row::new("HardSwish", (1, 1), 1, |node| node.emit_same(Op::Activation(Activation::HardSwish))),
    Row::new("Mish", (1, 1), 1, |node| node.emit_same(Op::Activation(Activation::Mish))),
    Row::new("Relu", (1, 1), 1, relu),
    Row::new("Shrink", (1, 1), 1, shrink),
    Row::new("Sigmoid", (1, 1), 1, |node| node.emit_same(Op::Activation(Activation::Sigmoid))),
    Row::new("Softplus", (1, 1), 1, |node| node.emit_same(Op::Activation(Activation::Softplus))),
    Row::new("Softsign", (1, 1), 1, |node| node.emit_same(Op::Activation(Activation::Softsign))),
    Row::new("SwiGLU", (2, 2), 1, swi_glu),
    Row::new("Tanh", (1, 1), 1, |node| node.emit_same(Op::Activation(Activation::Tanh))),
];

/// Since opset 14 of integers too, where it is a maximum.
fn relu(node: &mut NodeContext<'_, '_>) -> Imported {
    let data = node.required(0)?;
    let dtype = node.info(data).dtype;
    if !dtype.is_integer() {
        return node.emit(Op::Activation(Activation::Relu), [Some(data)]);
    }
    let zero = node.scalar_part("zero", dtype, 0.0)?;
    node.emit(Op::Binary(BinaryOp::Max), [Some(data), Some(zero)])
}

fn gelu(node: &mut NodeContext<'_, '_>) -> Imported {
    let forms = [("none", Activation::GeluErf), ("tanh", Activation::GeluTanh)];
    let activation = node.attrs.choice("approximate", &forms)?;
    node.emit_same(Op::Activation(activation))
}

/// Arithmetic, of integers too.
fn shrink(node: &mut NodeContext<'_, '_>) -> Imported {
    let (lambd, bias) = (node.attrs.float("lambd", 0.5)?, node.attrs.float("bias", 0.0)?);
    let x = node.required(0)?;
    let dtype = node.dtype(0)?;
    let high = node.with_number("is_high", BinaryOp::Greater, x, lambd.into())?;
    let low = node.with_number("is_low", BinaryOp::Less, x, f64::from(-lambd))?;
    let lowered = node.with_number("lowered", BinaryOp::Sub, x, bias.into())?;
    let raised = node.with_number("raised", BinaryOp::Add, x, bias.into())?;
    let zero = node.scalar_part("zero", dtype, 0.0)?;
    let rest = node.select("rest", low, raised, zero)?;
    node.emit(Op::Where, [Some(high), Some(lowered), Some(rest)])
}

/// A gate that goes through the activation, and what it gates.
fn swi_glu(node: &mut NodeContext<'_, '_>) -> Imported {
    let alpha = node.attrs.float("alpha", 1.0)?;
    let (gate, linear) = (node.required(0)?, node.required(1)?);
    let gate = node.helper("gate", Op::Activation(Activation::Swish(F32(alpha))), [gate])?;
    node.emit(Op::Binary(BinaryOp::Mul), [Some(gate), Some(linear)])
}

/// Bounds are attributes before opset 11. Constant bounds of floats make an activation, others minima and maxima.
fn clip(node: &mut NodeContext<'_, '_>) -> Imported {
    if node.opset < 11 {
        let (low, high) = (node.attrs.float("min", f32::MIN)?, node.attrs.float("max", f32::MAX)?);
        return node.emit_same(Op::Activation(Activation::Clip(F32(low), F32(high))));
    }
    let data = node.required(0)?;
    let bound = |node: &NodeContext<'_, '_>, slot, default| match node.input(slot) {
        None => Some(default),
        // An f64 may be no f32.
        Some(_) => {
            node.constant(slot).filter(|bound| bound.dtype() != DType::F64)?.to_f64s()?.first().map(|x| *x as f32)
        }
    };
    let bounds = (bound(node, 1, f32::MIN), bound(node, 2, f32::MAX));
    if let (Some(low), Some(high), DType::F32 | DType::F16 | DType::BF16) = (bounds.0, bounds.1, node.info(data).dtype)
    {
        return node.emit(Op::Activation(Activation::Clip(F32(low), F32(high))), [Some(data)]);
    }
    let (maximum, minimum) = (Op::Binary(BinaryOp::Max), Op::Binary(BinaryOp::Min));
    match (node.input(1), node.input(2)) {
        (None, None) => node.emit(Op::Unary(trt_fuse_ir::op::UnaryOp::Identity), [Some(data)]),
        (Some(low), None) => node.emit(maximum, [Some(data), Some(low)]),
        (None, Some(high)) => node.emit(minimum, [Some(data), Some(high)]),
        (Some(low), Some(high)) => {
            let raised = node.helper("max", maximum, [data, low])?;
            node.emit(minimum, [Some(raised), Some(high)])
        }
    }
}
