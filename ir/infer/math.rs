//! Elementwise operators.

use ndarray::{IxDyn, Zip};

use super::elements::{Elements, elements, few, known, map, zip};
use super::{Infos, Inputs, join_dtypes, one, shaped, unify};
use crate::op::{BinaryOp, BitCast, Cast, UnaryOp};
use crate::{DType, Dim, Op, Shape, ValueInfo};

pub(super) fn infer(op: &Op, inputs: Inputs<'_>) -> Result<Infos, String> {
    let x = inputs.required(0)?;
    Ok(one(match op {
        Op::Unary(op) => unary(*op, x)?,
        Op::Binary(op) => binary(*op, x, inputs.required(1)?)?,
        Op::Cast(op) => cast(op, x),
        Op::BitCast(op) => bit_cast(op, x)?,
        Op::Where => pick(x, inputs.required(1)?, inputs.required(2)?)?,
        _ => shaped(x.dtype, x.shape.clone()),
    }))
}

fn bit_cast(op: &BitCast, x: &ValueInfo) -> Result<ValueInfo, String> {
    if x.dtype != DType::Unknown && x.dtype.bits() != op.to.bits() {
        return Err(format!("{} has {} bits, {} has {}", x.dtype, x.dtype.bits(), op.to, op.to.bits()));
    }
    Ok(shaped(op.to, x.shape.clone()))
}

/// The shape that two shapes broadcast to, as NumPy does it.
///
/// Of two different symbols the larger is taken: either they are equal or one of them is 1. (Only where the other is
/// then 0 is that wrong.)
///
/// # Errors
/// The two dimensions that do not broadcast.
pub fn broadcast(a: &Shape, b: &Shape) -> Result<Shape, String> {
    let rank = a.len().max(b.len());
    // Axis `at` of the output, in a shape that may have fewer axes.
    let dim = |shape: &Shape, at: usize| (at + shape.len()).checked_sub(rank).and_then(|at| shape.get(at).cloned());
    (0..rank)
        .map(|at| match (dim(a, at), dim(b, at)) {
            (Some(a), Some(b)) => broadcast_dims(&a, &b),
            (Some(dim), None) | (None, Some(dim)) => Ok(dim),
            (None, None) => Ok(Dim::fixed(1)),
        })
        .collect()
}

/// Checks that `from` broadcasts to the very shape `to`.
///
/// # Errors
/// The dimension that does not.
pub fn broadcasts_to(from: &Shape, to: &Shape) -> Result<(), String> {
    let Some(extra) = to.len().checked_sub(from.len()) else {
        return Err(format!("rank {} does not broadcast to rank {}", from.len(), to.len()));
    };
    for (from, to) in from.iter().zip(to.iter().skip(extra)) {
        // A symbolic dimension may be 1.
        if from.at_least(2) || from.is(0) {
            unify(from, to).map_err(|_| format!("{from} does not broadcast to {to}"))?;
        }
    }
    Ok(())
}

pub(super) fn broadcast_dims(a: &Dim, b: &Dim) -> Result<Dim, String> {
    if a == b || b.is(1) {
        return Ok(a.clone());
    }
    if a.is(1) {
        return Ok(b.clone());
    }
    match (a.value(), b.value()) {
        (Some(_), Some(_)) => Err(format!("{a} and {b} do not broadcast")),
        (Some(_), None) => Ok(a.clone()),
        (None, Some(_)) => Ok(b.clone()),
        // What cannot be 1 is the result.
        (None, None) if a.at_least(2) => Ok(a.clone()),
        (None, None) if b.at_least(2) => Ok(b.clone()),
        (None, None) => Ok(a.maximum(b)),
    }
}

fn broadcast_known(a: &ValueInfo, b: &ValueInfo) -> Result<Option<Shape>, String> {
    match (&a.shape, &b.shape) {
        (Some(a), Some(b)) => broadcast(a, b).map(Some),
        _ => Ok(None),
    }
}

fn unary(op: UnaryOp, x: &ValueInfo) -> Result<ValueInfo, String> {
    if op == UnaryOp::Identity {
        return Ok(x.clone());
    }
    if op == UnaryOp::Not {
        expect_bool(x)?;
    }
    let dtype = if op.is_predicate() { DType::Bool } else { x.dtype };
    let result = elements(x).and_then(|x| map(&x, |x| unary_element(op, x)));
    Ok(known(dtype, x.shape.clone(), result))
}

fn unary_element(op: UnaryOp, x: &Dim) -> Option<Dim> {
    match op {
        UnaryOp::Neg => unsaturated(&Dim::fixed(0), x, i64::checked_sub, |_, x| -x),
        UnaryOp::Abs if x.at_least(0) => Some(x.clone()),
        UnaryOp::Abs if (-x).at_least(0) => unary_element(UnaryOp::Neg, x),
        UnaryOp::Sign => match x.value() {
            Some(value) => Some(Dim::fixed(value.signum())),
            None => x.at_least(1).then(|| Dim::fixed(1)),
        },
        UnaryOp::Not => truth(x).map(|x| bool_dim(!x)),
        _ => None,
    }
}

fn binary(op: BinaryOp, a: &ValueInfo, b: &ValueInfo) -> Result<ValueInfo, String> {
    // ONNX lets the exponent differ.
    let dtype = if op == BinaryOp::Pow { a.dtype } else { join_dtypes(a.dtype, b.dtype)? };
    if op == BinaryOp::PRelu {
        if let (Some(slope), Some(x)) = (&b.shape, &a.shape) {
            broadcasts_to(slope, x)?;
        }
        return Ok(shaped(dtype, a.shape.clone()));
    }
    if matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Xor) {
        expect_bool(a)?;
        expect_bool(b)?;
    }
    let shape = broadcast_known(a, b)?;
    let dtype = if op.is_comparison() { DType::Bool } else { dtype };
    let result = combine(shape.as_ref(), a, b, |a, b| binary_element(op, a, b));
    Ok(known(dtype, shape, result))
}

fn combine(
    shape: Option<&Shape>,
    a: &ValueInfo,
    b: &ValueInfo,
    f: impl Fn(&Dim, &Dim) -> Option<Dim>,
) -> Option<Elements> {
    zip(shape?, &elements(a)?, &elements(b)?, f)
}

fn binary_element(op: BinaryOp, a: &Dim, b: &Dim) -> Option<Dim> {
    match op {
        BinaryOp::Add => sum(a, b),
        BinaryOp::Sub => unsaturated(a, b, i64::checked_sub, |a, b| a - b),
        BinaryOp::Mul => product(a, b),
        BinaryOp::Div => truncating_div(a, b),
        BinaryOp::Mod => a.modulo(b),
        BinaryOp::FMod => match (a.value(), b.value()) {
            (Some(a), Some(b)) => a.checked_rem(b).map(Dim::fixed),
            _ if a.at_least(0) && b.at_least(0) => a.modulo(b),
            _ => None,
        },
        BinaryOp::Min => Some(a.minimum(b)),
        BinaryOp::Max => Some(a.maximum(b)),
        BinaryOp::And => match (truth(a), truth(b)) {
            (Some(false), _) | (_, Some(false)) => Some(bool_dim(false)),
            (Some(true), Some(true)) => Some(bool_dim(true)),
            _ => None,
        },
        BinaryOp::Or => match (truth(a), truth(b)) {
            (Some(true), _) | (_, Some(true)) => Some(bool_dim(true)),
            (Some(false), Some(false)) => Some(bool_dim(false)),
            _ => None,
        },
        BinaryOp::Xor => Some(bool_dim(truth(a)? != truth(b)?)),
        BinaryOp::Equal => equal(a, b).map(bool_dim),
        BinaryOp::Less => at_least(b, a, 1).map(bool_dim),
        BinaryOp::LessOrEqual => at_least(b, a, 0).map(bool_dim),
        BinaryOp::Greater => at_least(a, b, 1).map(bool_dim),
        BinaryOp::GreaterOrEqual => at_least(a, b, 0).map(bool_dim),
        _ => None,
    }
}

pub(super) fn sum(a: &Dim, b: &Dim) -> Option<Dim> {
    unsaturated(a, b, i64::checked_add, |a, b| a + b)
}

pub(super) fn product(a: &Dim, b: &Dim) -> Option<Dim> {
    unsaturated(a, b, i64::checked_mul, |a, b| a * b)
}

/// A sum, difference or product. Expressions saturate where integers wrap around: then nothing is known.
fn unsaturated(a: &Dim, b: &Dim, checked: fn(i64, i64) -> Option<i64>, symbolic: fn(&Dim, &Dim) -> Dim) -> Option<Dim> {
    match (a.value(), b.value()) {
        (Some(a), Some(b)) => checked(a, b).map(Dim::fixed),
        _ => Some(symbolic(a, b)),
    }
}

/// The quotient of integers, rounded towards zero.
fn truncating_div(a: &Dim, b: &Dim) -> Option<Dim> {
    if let (Some(a), Some(b)) = (a.value(), b.value()) {
        return a.checked_div(b).map(Dim::fixed);
    }
    if let Some(quotient) = a.exact_div(b) {
        return Some(quotient);
    }
    // Where nothing is negative, rounding towards zero is rounding down.
    if a.at_least(0) && b.at_least(0) { a.floor_div(b) } else { None }
}

/// Whether `a - b >= gap`, if that holds or fails for all values of the symbols.
fn at_least(a: &Dim, b: &Dim, gap: i64) -> Option<bool> {
    if let (Some(a), Some(b)) = (a.value(), b.value()) {
        return Some(i128::from(a) - i128::from(b) >= i128::from(gap));
    }
    let gap = a - b - Dim::fixed(gap);
    if gap.at_least(0) {
        Some(true)
    } else if (-&gap).at_least(1) {
        Some(false)
    } else {
        None
    }
}

fn equal(a: &Dim, b: &Dim) -> Option<bool> {
    if a == b {
        return Some(true);
    }
    match (at_least(a, b, 1), at_least(b, a, 1)) {
        (Some(true), _) | (_, Some(true)) => Some(false),
        _ => None,
    }
}

fn truth(x: &Dim) -> Option<bool> {
    match x.value() {
        Some(value) => Some(value != 0),
        None => (x.at_least(1) || (-x).at_least(1)).then_some(true),
    }
}

fn bool_dim(value: bool) -> Dim {
    Dim::fixed(i64::from(value))
}

fn cast(op: &Cast, x: &ValueInfo) -> ValueInfo {
    if op.to == x.dtype {
        return x.clone();
    }
    let result = elements(x);
    let result = match op.to {
        DType::Bool => result.and_then(|x| map(&x, |x| truth(x).map(bool_dim))),
        _ => result,
    };
    known(op.to, x.shape.clone(), result)
}

fn pick(condition: &ValueInfo, a: &ValueInfo, b: &ValueInfo) -> Result<ValueInfo, String> {
    expect_bool(condition)?;
    let dtype = join_dtypes(a.dtype, b.dtype)?;
    let branches = broadcast_known(a, b)?;
    let shape = match (&condition.shape, &branches) {
        (Some(condition), Some(branches)) => Some(broadcast(condition, branches)?),
        _ => None,
    };
    let result = picked_elements(shape.as_ref(), condition, a, b);
    Ok(known(dtype, shape, result))
}

fn picked_elements(shape: Option<&Shape>, condition: &ValueInfo, a: &ValueInfo, b: &ValueInfo) -> Option<Elements> {
    let dims = IxDyn(&few(shape?)?);
    let (condition, a, b) = (elements(condition)?, elements(a)?, elements(b)?);
    let (condition, a, b) =
        (condition.broadcast(dims.clone())?, a.broadcast(dims.clone())?, b.broadcast(dims.clone())?);
    let items: Vec<Dim> = Zip::from(&condition)
        .and(&a)
        .and(&b)
        .map_collect(|condition, a, b| Some(if truth(condition)? { a.clone() } else { b.clone() }))
        .into_iter()
        .collect::<Option<_>>()?;
    Elements::from_shape_vec(dims, items).ok()
}

pub(super) fn expect_bool(x: &ValueInfo) -> Result<(), String> {
    match x.dtype {
        DType::Bool | DType::Unknown => Ok(()),
        other => Err(format!("bool expected, {other} found")),
    }
}
