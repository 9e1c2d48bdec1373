//! The activation functions of gates.

use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::{Activation, BinaryOp};
use trt_fuse_ir::{DType, Op, ValueRef};

use super::Cell;
use crate::import::attrs::fault;
use crate::import::node::{Fault, NodeContext};

/// An activation function of a gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Function {
    Activation(Activation),
    /// alpha * x + beta
    Affine(f32, f32),
    /// alpha * tanh(beta * x)
    ScaledTanh(f32, f32),
}

impl Function {
    /// That of most gates.
    pub(super) const TANH: Self = Self::Activation(Activation::Tanh);

    /// The function of a value.
    pub(super) fn of(self, node: &mut NodeContext<'_, '_>, dtype: DType, mut x: ValueRef) -> Result<ValueRef, Fault> {
        let scaled = |node: &mut NodeContext<'_, '_>, x, op, factor: f32| {
            let factor = node.scalar_part("factor", dtype, f64::from(factor))?;
            node.helper("scaled", Op::Binary(op), [x, factor])
        };
        match self {
            Self::Activation(activation) => node.helper("activation", Op::Activation(activation), [x]),
            Self::Affine(alpha, beta) => {
                x = scaled(node, x, BinaryOp::Mul, alpha)?;
                scaled(node, x, BinaryOp::Add, beta)
            }
            Self::ScaledTanh(alpha, beta) => {
                x = scaled(node, x, BinaryOp::Mul, beta)?;
                x = node.helper("activation", Op::Activation(Activation::Tanh), [x])?;
                scaled(node, x, BinaryOp::Mul, alpha)
            }
        }
    }
}

/// The functions of each direction. Parameters are consumed in the order of the functions that have them.
pub(super) fn functions(
    node: &NodeContext<'_, '_>,
    cell: Cell,
    directions: usize,
) -> Result<Vec<Vec<Function>>, Fault> {
    let defaults = cell.functions();
    let names = match node.attrs.strings("activations")? {
        Some(names) => names,
        None => defaults.repeat(directions),
    };
    if names.len() != defaults.len() * directions {
        let expected = defaults.len() * directions;
        return Err(fault("activations", format!("{} names found, {expected} expected", names.len())).into());
    }
    let mut alphas = node.attrs.floats("activation_alpha")?.unwrap_or_default().iter().copied();
    let mut betas = node.attrs.floats("activation_beta")?.unwrap_or_default().iter().copied();
    let mut functions = Vec::new();
    for name in names {
        let mut alpha = |default: f32| alphas.next().unwrap_or(default);
        let mut beta = |default: f32| betas.next().unwrap_or(default);
        let activation = match name.to_ascii_lowercase().as_str() {
            "relu" => Activation::Relu,
            "tanh" => Activation::Tanh,
            "sigmoid" => Activation::Sigmoid,
            "softsign" => Activation::Softsign,
            "softplus" => Activation::Softplus,
            "leakyrelu" => Activation::LeakyRelu(F32(alpha(0.01))),
            "thresholdedrelu" => Activation::ThresholdedRelu(F32(alpha(1.0))),
            "elu" => Activation::Elu(F32(alpha(1.0))),
            "hardsigmoid" => Activation::HardSigmoid(F32(alpha(0.2)), F32(beta(0.5))),
            "affine" => {
                functions.push(Function::Affine(alpha(1.0), beta(0.0)));
                continue;
            }
            "scaledtanh" => {
                functions.push(Function::ScaledTanh(alpha(1.0), beta(1.0)));
                continue;
            }
            _ => return Err(fault("activations", format!("`{name}` is no function")).into()),
        };
        functions.push(Function::Activation(activation));
    }
    Ok(functions.chunks(defaults.len()).map(<[Function]>::to_vec).collect())
}
