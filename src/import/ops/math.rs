//! Elementwise arithmetic and logic, casts, selection, constants and identities.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{BinaryOp, BitCast, Cast, Constant, ConstantOfShape, Expand, ShapeOf, UnaryOp, Unsqueeze};
use trt_fuse_ir::{DType, Op, Tensor};

use super::random::uniform_like;
use super::{ANY, Row};
use crate::import::attrs::fault;
use crate::import::model::{SPARSE, STRINGS};
use crate::import::node::{Fault, Imported, NodeContext, Outputs};

/// Rows of operators that are one internal operator without parameters.
macro_rules! plain {
    ($inputs:literal, $op:path: $($name:literal => $variant:expr),* $(,)?) => {
        &[$(Row::new($name, ($inputs, $inputs), 1, |node| node.emit_same($op($variant)))),*]
    };
}

pub(super) const UNARY: &[Row] = plain!(1, Op::Unary:
    "Identity" => UnaryOp::Identity,
    "Abs" => UnaryOp::Abs,
    "Neg" => UnaryOp::Neg,
    "Exp" => UnaryOp::Exp,
    "Log" => UnaryOp::Log,
    "Sqrt" => UnaryOp::Sqrt,
    "Reciprocal" => UnaryOp::Reciprocal,
    "Floor" => UnaryOp::Floor,
    "Ceil" => UnaryOp::Ceil,
    "Round" => UnaryOp::Round,
    "Sign" => UnaryOp::Sign,
    "Erf" => UnaryOp::Erf,
    "Sin" => UnaryOp::Sin,
    "Cos" => UnaryOp::Cos,
    "Tan" => UnaryOp::Tan,
    "Asin" => UnaryOp::Asin,
    "Acos" => UnaryOp::Acos,
    "Atan" => UnaryOp::Atan,
    "Sinh" => UnaryOp::Sinh,
    "Cosh" => UnaryOp::Cosh,
    "Asinh" => UnaryOp::Asinh,
    "Acosh" => UnaryOp::Acosh,
    "Atanh" => UnaryOp::Atanh,
    "Not" => UnaryOp::Not,
    "BitwiseNot" => UnaryOp::BitwiseNot,
    "IsNaN" => UnaryOp::IsNan,
);

/// Rows of operators that are one internal binary operator.
macro_rules! binary_rows {
    ($($name:literal => $variant:expr),* $(,)?) => {
        &[$(Row::new($name, (2, 2), 1, |node| binary(node, $variant))),*]
    };
}

pub(super) const BINARY: &[Row] = binary_rows!(
    "Add" => BinaryOp::Add,
    "Sub" => BinaryOp::Sub,
    "Mul" => BinaryOp::Mul,
    "Div" => BinaryOp::Div,
    "Pow" => BinaryOp::Pow,
    "And" => BinaryOp::And,
    "Or" => BinaryOp::Or,
    "Xor" => BinaryOp::Xor,
    "Equal" => BinaryOp::Equal,
    "Greater" => BinaryOp::Greater,
    "GreaterOrEqual" => BinaryOp::GreaterOrEqual,
    "Less" => BinaryOp::Less,
    "LessOrEqual" => BinaryOp::LessOrEqual,
    "BitwiseAnd" => BinaryOp::BitwiseAnd,
    "BitwiseOr" => BinaryOp::BitwiseOr,
    "BitwiseXor" => BinaryOp::BitwiseXor,
    "PRelu" => BinaryOp::PRelu,
);

pub(super) const ROWS: &[Row] = &[
    Row::new("BitCast", (1, 1), 1, bit_cast),
    Row::new("BitShift", (2, 2), 1, bit_shift),
    Row::new("Cast", (1, 1), 1, cast),
    Row::new("CastLike", (2, 2), 1, cast_like),
    Row::new("Constant", (0, 0), 1, constant),
    Row::new("Dropout", (1, 3), 2, dropout),
    Row::new("IsInf", (1, 1), 1, is_inf),
    Row::new("Max", (1, ANY), 1, |node| variadic(node, BinaryOp::Max)),
    Row::new("Mean", (1, ANY), 1, mean),
    Row::new("Min", (1, ANY), 1, |node| variadic(node, BinaryOp::Min)),
    Row::new("Mod", (2, 2), 1, modulo),
    Row::new("Sum", (1, ANY), 1, |node| variadic(node, BinaryOp::Add)),
    Row::new("Where", (3, 3), 1, |node| node.emit_same(Op::Where)),
];

/// Before opset 7 the second operand says where it is broadcast: its first axis is `axis`, or its last one the last.
fn binary(node: &mut NodeContext<'_, '_>, op: BinaryOp) -> Imported {
    if node.opset >= 7 {
        return node.emit_same(Op::Binary(op));
    }
    node.attrs.ignore("consumed_inputs");
    // A slope is one a channel.
    let axis = if op == BinaryOp::PRelu { Some(1) } else { node.attrs.int("axis")? };
    let is_broadcast = op == BinaryOp::PRelu || node.attrs.flag("broadcast", false)?;
    let (a, b) = (node.required(0)?, node.required(1)?);
    let (rank, own) = (node.rank(0)?, node.rank(1)?);
    let axis = match axis {
        Some(axis) if is_broadcast && own < rank && own > 0 => {
            resolve_axis(axis, rank).map_err(|why| fault("axis", why))?
        }
        _ => return node.emit_same(Op::Binary(op)),
    };
    let behind = rank.saturating_sub(axis + own);
    if behind == 0 {
        return node.emit_same(Op::Binary(op));
    }
    let axes = (own as i64..(own + behind) as i64).collect();
    let b = node.helper("aligned", Unsqueeze { axes: Some(axes) }, [b])?;
    node.emit(Op::Binary(op), [Some(a), Some(b)])
}

fn bit_shift(node: &mut NodeContext<'_, '_>) -> Imported {
    if !node.attrs.has("direction") {
        return Err(fault("direction", "it is missing").into());
    }
    let directions = [("LEFT", BinaryOp::ShiftLeft), ("RIGHT", BinaryOp::ShiftRight)];
    let op = node.attrs.choice("direction", &directions)?;
    node.emit_same(Op::Binary(op))
}

fn cast(node: &mut NodeContext<'_, '_>) -> Imported {
    let to = node.attrs.dtype("to")?.ok_or_else(|| fault("to", "it is missing"))?;
    cast_to(node, to)
}

fn cast_like(node: &mut NodeContext<'_, '_>) -> Imported {
    let to = node.dtype(1)?;
    cast_to(node, to)
}

fn cast_to(node: &mut NodeContext<'_, '_>, to: DType) -> Imported {
    let saturate = node.attrs.flag("saturate", true)?;
    let rounding = node.attrs.choice("round_mode", &[("up", 0), ("down", 1), ("nearest", 2)])?;
    if to == DType::F8E8M0 && rounding != 0 {
        return Err(Fault::attribute("round_mode", "a cast to f8e8m0 rounds up only"));
    }
    let from = node.input_info(0)?.dtype;
    if from == DType::String || to == DType::String {
        return Err(Fault::Unsupported("casts from and to strings have no form in a network".to_owned()));
    }
    let data = node.required(0)?;
    node.emit(Cast { to, saturate, in_range: false }, [Some(data)])
}

fn constant(node: &mut NodeContext<'_, '_>) -> Imported {
    let attrs = &node.attrs;
    let value = if let Some(proto) = attrs.tensor("value")? {
        match node.importer.tensors.read(proto.clone(), &node.name) {
            Err(crate::import::ImportError::StringTensor { .. }) => return Err(Fault::Unsupported(STRINGS.to_owned())),
            tensor => tensor?,
        }
    } else if attrs.has("value_float") {
        Tensor::scalar(attrs.float("value_float", 0.0)?)
    } else if let Some(values) = attrs.floats("value_floats")? {
        Tensor::vector(values.to_vec())
    } else if let Some(value) = attrs.int("value_int")? {
        Tensor::scalar(value)
    } else if let Some(values) = attrs.ints("value_ints")? {
        Tensor::vector(values.to_vec())
    } else if attrs.has("value_string") || attrs.has("value_strings") {
        return Err(Fault::Unsupported(STRINGS.to_owned()));
    } else if attrs.has("sparse_value") {
        return Err(Fault::attribute("sparse_value", SPARSE));
    } else {
        return Err(fault("value", "it is missing").into());
    };
    node.emit(Constant { value }, [])
}

/// The same bits as another type. Between integers of one width that is a conversion, which wraps around; a Bool is a
/// byte of 0 or 1.
fn bit_cast(node: &mut NodeContext<'_, '_>) -> Imported {
    let to = node.attrs.dtype("to")?.ok_or_else(|| fault("to", "it is missing"))?;
    let from = node.dtype(0)?;
    if to.is_integer() && from.bits() == to.bits() && (from.is_integer() || from == DType::Bool) {
        return node.emit_same(Cast::new(to));
    }
    node.emit_same(BitCast { to })
}

/// The identity, unless it is training and drops something.
fn dropout(node: &mut NodeContext<'_, '_>) -> Imported {
    let ratio = if node.opset < 12 { Some(node.attrs.float("ratio", 0.5)?.into()) } else { constant_ratio(node) };
    let training = match node.input(2) {
        None => Some(false),
        Some(_) => node.constant_ints(2).and_then(|training| training.first().map(|flag| *flag != 0)),
    };
    if training != Some(false) && ratio != Some(0.0) {
        return training_dropout(node, training == Some(true));
    }
    node.attrs.ignore("seed");
    let data = node.required(0)?;
    let mut values = Outputs::from_iter([node.output(0, Op::Unary(UnaryOp::Identity), [data])?]);
    if node.is_used(1) {
        values.push(dropout_mask(node)?);
    }
    Ok(values)
}

/// The part dropped, if it is no input that run time gives.
fn constant_ratio(node: &NodeContext<'_, '_>) -> Option<f64> {
    match node.input(1) {
        None => Some(0.5),
        Some(_) => node.constant(1)?.to_f64s()?.first().copied(),
    }
}

/// Zeros where a random number is below the ratio, the rest scaled up to the same mean. Whether it does so at all is an
/// input where it is not `always`.
fn training_dropout(node: &mut NodeContext<'_, '_>, always: bool) -> Imported {
    let (data, dtype) = (node.required(0)?, node.dtype(0)?);
    let ratio = match node.input(1) {
        Some(ratio) => node.cast("ratio", ratio, DType::F32)?,
        None => node.scalar_part("ratio", DType::F32, 0.5)?,
    };
    let seed = node.attrs.int("seed")?;
    let drawn = uniform_like(node, data, seed)?;
    let one = node.scalar_part("one", DType::F32, 1.0)?;
    let mut kept = (Op::Binary(BinaryOp::GreaterOrEqual), [drawn, ratio]);
    let mut share = node.binary("share", BinaryOp::Sub, one, ratio)?;
    if !always {
        let training = node.required(2)?;
        let inference = node.unary("inference", UnaryOp::Not, training)?;
        let above = node.helper("above", kept.0, kept.1)?;
        kept = (Op::Binary(BinaryOp::Or), [above, inference]);
        share = node.select("share.of_training", training, share, one)?;
    }
    let kept = node.output(1, kept.0, kept.1)?;
    let share = node.cast("share.like_data", share, dtype)?;
    let scaled = node.binary("scaled", BinaryOp::Div, data, share)?;
    let zero = node.scalar_part("zero", dtype, 0.0)?;
    let y = node.output(0, Op::Where, [kept, scaled, zero])?;
    Ok([y, kept].into_iter().take(node.outputs.len()).collect())
}

/// What a dropout that drops nothing gives as mask: true everywhere, or ones before opset 10.
fn dropout_mask(node: &mut NodeContext<'_, '_>) -> Result<trt_fuse_ir::ValueRef, Fault> {
    let data = node.required(0)?;
    let value = if node.opset >= 10 {
        Tensor::vector(vec![true])
    } else {
        let dtype = node.dtype(0)?;
        let one = Tensor::number(dtype, 1.0).and_then(|one| one.reshaped([1]).ok());
        one.ok_or_else(|| Fault::Unsupported(format!("{dtype} has no 1")))?
    };
    let shape = node.helper("shape", ShapeOf { start: 0, end: None }, [data])?;
    node.helper("mask", ConstantOfShape { value }, [shape])
}

fn is_inf(node: &mut NodeContext<'_, '_>) -> Imported {
    let op = match (node.attrs.flag("detect_negative", true)?, node.attrs.flag("detect_positive", true)?) {
        (true, true) => UnaryOp::IsInf,
        (true, false) => UnaryOp::IsNegInf,
        (false, true) => UnaryOp::IsPosInf,
        (false, false) => return nowhere(node),
    };
    node.emit_same(Op::Unary(op))
}

/// Booleans of the input's shape, all false.
fn nowhere(node: &mut NodeContext<'_, '_>) -> Imported {
    let data = node.required(0)?;
    let none = node.constant_part("none", Tensor::scalar(false))?;
    let shape = node.helper("shape", ShapeOf { start: 0, end: None }, [data])?;
    node.emit(Expand { shape: None }, [Some(none), Some(shape)])
}

fn modulo(node: &mut NodeContext<'_, '_>) -> Imported {
    let op = if node.attrs.flag("fmod", false)? { BinaryOp::FMod } else { BinaryOp::Mod };
    node.emit_same(Op::Binary(op))
}

/// A chain of binary operators; of one input, the identity.
fn variadic(node: &mut NodeContext<'_, '_>, op: BinaryOp) -> Imported {
    let last = node.inputs.len().saturating_sub(1);
    let mut total = node.required(0)?;
    if last == 0 {
        return node.emit(Op::Unary(UnaryOp::Identity), [Some(total)]);
    }
    for slot in 1..last {
        let next = node.required(slot)?;
        total = node.helper(op.word(), Op::Binary(op), [total, next])?;
    }
    let next = node.required(last)?;
    node.emit(Op::Binary(op), [Some(total), Some(next)])
}

fn mean(node: &mut NodeContext<'_, '_>) -> Imported {
    let mut total = node.required(0)?;
    let count = node.inputs.len();
    let dtype = node.dtype(0)?;
    for slot in 1..count {
        let next = node.required(slot)?;
        total = node.helper("add", Op::Binary(BinaryOp::Add), [total, next])?;
    }
    let count = node.scalar_part("count", dtype, count as f64)?;
    node.emit(Op::Binary(BinaryOp::Div), [Some(total), Some(count)])
}
