//! Operators on quantized numbers.
//!
//! TensorRT has no convolution or product of integers that a network could ask for: it makes them of ones in float
//! between dequantization and quantization. `QLinear*` become just that. `*Integer`, whose sums are the output, are
//! computed in f32, which is exact below 2^24; what may be larger is computed digit by digit.

use trt_fuse_ir::op::{BinaryOp, Cast, Conv, Dequantize, MatMul, Quantize, ReduceKind, UnaryOp};
use trt_fuse_ir::{DType, Dim, Op, ValueRef};

use super::Row;
use super::conv::convolution;
use crate::import::formula::Part;
use crate::import::node::{Fault, Imported, NodeContext};

pub(super) const ROWS: &[Row] = &[
    Row::new("ConvInteger", (2, 4), 1, conv_integer),
    Row::new("DynamicQuantizeLinear", (1, 1), 3, dynamic_quantize),
    Row::new("MatMulInteger", (2, 4), 1, mat_mul_integer),
    Row::new("QLinearConv", (8, 9), 1, qlinear_conv),
    Row::new("QLinearMatMul", (8, 8), 1, qlinear_mat_mul),
];

/// A parameter of one element as a scalar, which serves for all axes; others as they are.
fn scalar_of_one(node: &mut NodeContext<'_, '_>, part: &str, slot: usize) -> Part {
    let value = node.required(slot)?;
    if Dim::product(&node.shape(slot)?).is(1) { node.reshape(part, value, []) } else { Ok(value) }
}

/// A scale as f32, as its operands are computed in.
fn scale(node: &mut NodeContext<'_, '_>, part: &str, slot: usize) -> Part {
    let scale = scalar_of_one(node, part, slot)?;
    node.cast(&format!("{part}.f32"), scale, DType::F32)
}

/// Input `slot` dequantized by the scale and the zero point that follow it; a vector of scales is for `axis`.
fn dequantized(node: &mut NodeContext<'_, '_>, part: &str, slot: usize, axis: i64) -> Part {
    let x = node.required(slot)?;
    let scale = scale(node, &format!("{part}.scale"), slot + 1)?;
    let zero = scalar_of_one(node, &format!("{part}.zero_point"), slot + 2)?;
    node.helper(part, Dequantize { axis, block_size: None }, [x, scale, zero])
}

/// `value` quantized by the scale of input `slot` and the zero point that follows it, as the node's output.
fn quantized(node: &mut NodeContext<'_, '_>, value: ValueRef, slot: usize) -> Imported {
    let (scale, to) = (scale(node, "y_scale", slot)?, node.dtype(slot + 1)?);
    let zero = scalar_of_one(node, "y_zero_point", slot + 1)?;
    if node.info(scale).rank() != Some(0) {
        return Err(Fault::Unsupported("its output has more than one scale".to_owned()));
    }
    let op = Quantize { axis: 1, block_size: None, to, saturate: true };
    node.emit(op, [Some(value), Some(scale), Some(zero)])
}

fn qlinear_conv(node: &mut NodeContext<'_, '_>) -> Imported {
    let op = convolution(node, 3)?;
    let x = dequantized(node, "x", 0, 1)?;
    let w = dequantized(node, "w", 3, 0)?;
    let mut inputs = vec![x, w];
    if let Some(bias) = node.input(8) {
        let (of_x, of_w) = (scale(node, "bias.x_scale", 1)?, scale(node, "bias.w_scale", 4)?);
        let scale = node.binary("bias.scale", BinaryOp::Mul, of_x, of_w)?;
        // Not a dequantization: those of TensorRT take no i32.
        let exact = node.cast("bias.f32", bias, DType::F32)?;
        inputs.push(node.binary("bias", BinaryOp::Mul, exact, scale)?);
    }
    let y = node.helper("conv", op, inputs)?;
    quantized(node, y, 6)
}

/// Scales are of the whole, of rows of a and columns of b as vectors, or the same with the rank of the data.
fn qlinear_mat_mul(node: &mut NodeContext<'_, '_>) -> Imported {
    let a = matrix(node, "a", 0, -2)?;
    let b = matrix(node, "b", 3, -1)?;
    let y = node.helper("matmul", MatMul::new(false, false), [a, b])?;
    quantized(node, y, 6)
}

fn matrix(node: &mut NodeContext<'_, '_>, part: &str, slot: usize, axis: i64) -> Part {
    if node.rank(slot + 1)? <= 1 || Dim::product(&node.shape(slot + 1)?).is(1) {
        return dequantized(node, part, slot, axis);
    }
    let centred = centred(node, part, slot, slot + 2, axis)?;
    let scale = scale(node, &format!("{part}.scale"), slot + 1)?;
    node.binary(&format!("{part}.scaled"), BinaryOp::Mul, centred, scale)
}

/// Input `slot` without its zero point, in f32. A vector of zero points is for `axis`, counted from the end.
fn centred(node: &mut NodeContext<'_, '_>, part: &str, slot: usize, zero: usize, axis: i64) -> Part {
    let x = node.required(slot)?;
    let wide = node.cast(&format!("{part}.f32"), x, DType::F32)?;
    let Some(shift) = node.input(zero) else { return Ok(wide) };
    let shape = node.shape(zero)?;
    // First of all, as a network can move f32 about, but not every type of integers.
    let mut shift = node.cast(&format!("{part}.zero_point"), shift, DType::F32)?;
    if Dim::product(&shape).is(1) {
        shift = node.reshape(&format!("{part}.shift"), shift, [])?;
    } else if shape.len() == 1 && axis < -1 {
        let after: Vec<i64> = (1..-axis).collect();
        shift = node.unsqueeze(&format!("{part}.shift"), shift, &after)?;
    }
    node.binary(&format!("{part}.centred"), BinaryOp::Sub, wide, shift)
}

/// Sums from here on may be rounded in f32.
const INEXACT: u64 = 1 << 24;
/// What a centred number of 8 bits is divided by for its digits: both are 0 to 16, but for the sign of the upper.
const RADIX: u64 = 16;
/// No centred number of 8 bits is larger, whatever its sign.
const MOST: u64 = 255;

/// How many digits the factors of a product are split into.
#[derive(Clone, Copy)]
struct Digits {
    x: bool,
    w: bool,
}

/// The fewest digits with which sums of `terms` products stay exact; `sum_w`, if known, is the largest sum of magnitudes
/// of w that a sum has. Sizes that only run time tells are taken for less than 65536.
///
/// # Errors
/// Unsupported if there are too many terms.
fn digits(terms: Option<u64>, sum_w: Option<u64>) -> Result<Digits, Fault> {
    let Some(terms) = terms else { return Ok(Digits { x: true, w: true }) };
    let sum_w = sum_w.unwrap_or(terms.saturating_mul(MOST));
    if sum_w.saturating_mul(MOST) < INEXACT {
        Ok(Digits { x: false, w: false })
    } else if sum_w.saturating_mul(RADIX) < INEXACT {
        Ok(Digits { x: true, w: false })
    } else if terms.saturating_mul(RADIX * RADIX) < INEXACT {
        Ok(Digits { x: true, w: true })
    } else {
        Err(Fault::Unsupported(format!("sums of {terms} products are not exact in f32")))
    }
}

/// A number as digits with their weights, the lowest first.
fn split(node: &mut NodeContext<'_, '_>, part: &str, x: ValueRef, split: bool) -> Result<Vec<(ValueRef, i32)>, Fault> {
    if !split {
        return Ok(vec![(x, 1)]);
    }
    let radix = RADIX as f64;
    let shifted = node.with_number(&format!("{part}.shifted"), BinaryOp::Mul, x, 1.0 / radix)?;
    let upper = node.unary(&format!("{part}.upper"), UnaryOp::Floor, shifted)?;
    let whole = node.with_number(&format!("{part}.whole"), BinaryOp::Mul, upper, radix)?;
    let lower = node.binary(&format!("{part}.lower"), BinaryOp::Sub, x, whole)?;
    Ok(vec![(lower, 1), (upper, RADIX as i32)])
}

/// The sum of products of all digits, each exact in f32, as i32: the node's output.
fn integer_product(
    node: &mut NodeContext<'_, '_>,
    op: impl Into<Op>,
    factors: (ValueRef, ValueRef),
    digits: Digits,
) -> Imported {
    let op = op.into();
    let to_i32 = Cast::new(DType::I32);
    let xs = split(node, "x", factors.0, digits.x)?;
    let ws = split(node, "w", factors.1, digits.w)?;
    if let ([(x, _)], [(w, _)]) = (&xs[..], &ws[..]) {
        let product = node.helper("product", op, [*x, *w])?;
        return node.emit(to_i32, [Some(product)]);
    }
    let mut terms = Vec::new();
    for (x, of_x) in &xs {
        for (w, of_w) in &ws {
            let product = node.helper("product", op.clone(), [*x, *w])?;
            let term = node.helper("term", to_i32.clone(), [product])?;
            let place = f64::from(of_x * of_w);
            terms.push(if place == 1.0 { term } else { node.with_number("placed", BinaryOp::Mul, term, place)? });
        }
    }
    let Some((last, rest)) = terms.split_last() else {
        return Err(Fault::Unsupported("it has no factors".to_owned()));
    };
    let mut total = None;
    for term in rest {
        total = Some(match total {
            None => *term,
            Some(total) => node.binary("sum", BinaryOp::Add, total, *term)?,
        });
    }
    node.emit(Op::Binary(BinaryOp::Add), [total, Some(*last)])
}

/// The magnitudes of a constant weight of `dims`, less the zero points of its axis 0 (`by_row`) or its last, summed
/// over the terms of an output: the largest of these sums. `None` if it is no constant, or its parts do not fit.
fn weight_sum(node: &NodeContext<'_, '_>, zero: usize, by_row: bool) -> Option<u64> {
    let weight = node.constant(1)?;
    let zeros = match node.input(zero) {
        None => vec![0],
        Some(_) => node.constant_ints(zero)?,
    };
    let outputs = if by_row { *weight.dims().first()? } else { *weight.dims().last()? };
    if outputs == 0 || (zeros.len() != 1 && (zeros.len() != outputs || node.constant(zero)?.rank() != 1)) {
        return None;
    }
    let per_row = weight.numel() / outputs;
    let mut sums = vec![0_u64; outputs];
    for (at, value) in weight.to_i64s()?.into_iter().enumerate() {
        // Leading axes of a stack of matrices add up: an upper bound.
        let output = if by_row { at / per_row.max(1) } else { at % outputs };
        let zero = zeros.get(output).or(zeros.first())?;
        let sum = sums.get_mut(output)?;
        *sum = sum.saturating_add(value.abs_diff(*zero));
    }
    sums.into_iter().max()
}

fn conv_integer(node: &mut NodeContext<'_, '_>) -> Imported {
    let op: Conv = convolution(node, 1)?;
    let terms = node
        .shape(1)?
        .iter()
        .skip(1)
        .try_fold(1_u64, |terms, dim| Some(terms.saturating_mul(u64::try_from(dim.value()?).ok()?)));
    let digits = digits(terms, weight_sum(node, 3, true))?;
    let rank = node.rank(1)? as i64;
    let x = centred(node, "x", 0, 2, -1)?;
    let w = centred(node, "w", 1, 3, -rank)?;
    integer_product(node, op, (x, w), digits)
}

fn mat_mul_integer(node: &mut NodeContext<'_, '_>) -> Imported {
    let terms = node.shape(0)?.last().and_then(|dim| u64::try_from(dim.value()?).ok());
    let digits = digits(terms, weight_sum(node, 3, false))?;
    let a = centred(node, "a", 0, 2, -2)?;
    let b = centred(node, "b", 1, 3, -1)?;
    integer_product(node, MatMul::new(false, false), (a, b), digits)
}

/// Scale and zero point of u8 from the smallest and the largest element, 0 among them. All in f32 but for the outputs:
/// a quantization layer wants a scale that is known when the engine is built.
fn dynamic_quantize(node: &mut NodeContext<'_, '_>) -> Imported {
    const STEPS: f64 = 255.0;
    let x = node.required(0)?;
    let axes: Vec<i64> = (0..node.rank(0)? as i64).collect();
    let mut bounds = Vec::new();
    for (part, kind, op) in [("min", ReduceKind::Min, BinaryOp::Min), ("max", ReduceKind::Max, BinaryOp::Max)] {
        let bound = node.reduce(&format!("{part}.of_x"), kind, x, &axes, false)?;
        bounds.push(node.with_number(part, op, bound, 0.0)?);
    }
    let [low, high] = bounds[..] else { return Err(Fault::Unsupported("it has no bounds".to_owned())) };
    let range = node.binary("range", BinaryOp::Sub, high, low)?;
    // Zeros only: any scale will do.
    let one = node.scalar_part("one", DType::F32, 1.0)?;
    let empty = node.with_number("range.is_0", BinaryOp::Equal, range, 0.0)?;
    let range = node.select("range.safe", empty, one, range)?;
    let steps = node.scalar_part("steps", DType::F32, STEPS)?;
    let scale = node.output(1, Op::Binary(BinaryOp::Div), [range, steps])?;

    let to_u8 = Cast::new(DType::U8);
    let below = node.binary("low.steps", BinaryOp::Div, low, scale)?;
    let below = node.unary("zero_point.exact", UnaryOp::Neg, below)?;
    let zero = clipped(node, "zero_point.clipped", below, STEPS)?;
    let zero = node.unary("zero_point.f32", UnaryOp::Round, zero)?;
    let zero_point = node.output(2, to_u8.clone(), [zero])?;
    let steps = node.binary("x.steps", BinaryOp::Div, x, scale)?;
    let steps = node.unary("x.rounded", UnaryOp::Round, steps)?;
    let steps = node.binary("x.shifted", BinaryOp::Add, steps, zero)?;
    let steps = clipped(node, "x.clipped", steps, STEPS)?;
    let y = node.output(0, to_u8, [steps])?;
    Ok([y, scale, zero_point].into_iter().collect())
}

/// Kept between 0 and `most`.
fn clipped(node: &mut NodeContext<'_, '_>, part: &str, x: ValueRef, most: f64) -> Part {
    let raised = node.with_number(&format!("{part}.above"), BinaryOp::Max, x, 0.0)?;
    node.with_number(part, BinaryOp::Min, raised, most)
}
