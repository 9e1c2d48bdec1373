//! Operators that draw random numbers.
//!
//! TensorRT seeds its generator itself: a seed of the model is for the evaluator alone. No two implementations of ONNX
//! draw the same numbers anyway.

use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::{ArgReduce, BinaryOp, Cast, Random, RandomKind, ShapeOf, UnaryOp};
use trt_fuse_ir::{DType, Op, ValueRef};

use super::Row;
use crate::import::attrs::fault;
use crate::import::formula::Part;
use crate::import::node::{Fault, Imported, NodeContext};

pub(super) const ROWS: &[Row] = &[
    Row::new("Bernoulli", (1, 1), 1, bernoulli),
    Row::new("Multinomial", (1, 1), 1, multinomial),
    Row::new("RandomNormal", (0, 0), 1, |node| of_shape(node, RandomKind::Normal)),
    Row::new("RandomNormalLike", (1, 1), 1, |node| like(node, RandomKind::Normal)),
    Row::new("RandomUniform", (0, 0), 1, |node| of_shape(node, RandomKind::Uniform)),
    Row::new("RandomUniformLike", (1, 1), 1, |node| like(node, RandomKind::Uniform)),
];

/// The seed that the model states: a float, of which the bits serve.
fn seed(node: &NodeContext<'_, '_>) -> Result<Option<i64>, Fault> {
    Ok(if node.attrs.has("seed") { Some(node.attrs.float("seed", 0.0)?.to_bits().into()) } else { None })
}

/// Numbers as the attributes describe them.
fn described(node: &NodeContext<'_, '_>, kind: RandomKind, dtype: DType) -> Result<Random, Fault> {
    let attrs = &node.attrs;
    let (low, high) = match kind {
        RandomKind::Normal => (attrs.float("mean", 0.0)?, attrs.float("scale", 1.0)?),
        _ => (attrs.float("low", 0.0)?, attrs.float("high", 1.0)?),
    };
    if !dtype.is_float() {
        return Err(fault("dtype", format!("{dtype} is no float type")).into());
    }
    Ok(Random { kind, dtype, alpha: F32(low), beta: F32(high), seed: seed(node)? })
}

fn of_shape(node: &mut NodeContext<'_, '_>, kind: RandomKind) -> Imported {
    let shape = node.attrs.ints("shape")?.ok_or_else(|| fault("shape", "it is missing"))?;
    let dtype = node.attrs.dtype("dtype")?.unwrap_or(DType::F32);
    let op = described(node, kind, dtype)?;
    let shape = node.ints_part("shape", &shape)?;
    node.emit(op, [Some(shape)])
}

fn like(node: &mut NodeContext<'_, '_>, kind: RandomKind) -> Imported {
    let dtype = match node.attrs.dtype("dtype")? {
        Some(dtype) => dtype,
        None => node.dtype(0)?,
    };
    let op = described(node, kind, dtype)?;
    let data = node.required(0)?;
    let shape = node.helper("shape", ShapeOf { start: 0, end: None }, [data])?;
    node.emit(op, [Some(shape)])
}

/// Numbers from 0 to 1, without 1, in the shape of `x`.
pub(super) fn uniform_like(node: &mut NodeContext<'_, '_>, x: ValueRef, seed: Option<i64>) -> Part {
    let op = Random { kind: RandomKind::Uniform, dtype: DType::F32, alpha: F32(0.0), beta: F32(1.0), seed };
    let shape = node.helper("drawn.shape", ShapeOf { start: 0, end: None }, [x])?;
    node.helper("drawn", op, [shape])
}

/// One where a uniform number is below the probability.
fn bernoulli(node: &mut NodeContext<'_, '_>) -> Imported {
    let to = match node.attrs.dtype("dtype")? {
        Some(dtype) => dtype,
        None => node.dtype(0)?,
    };
    let x = node.required(0)?;
    let seed = seed(node)?;
    let drawn = uniform_like(node, x, seed)?;
    let x = node.cast("probability", x, DType::F32)?;
    let below = node.binary("below", BinaryOp::Less, drawn, x)?;
    node.emit(Cast::new(to), [Some(below)])
}

/// Most samples drawn of one distribution.
const MAX_SAMPLES: i64 = 1 << 24;

/// For each sample the class whose log-probability is largest after Gumbel noise is added, which is a draw from the
/// distribution: `-ln(-ln(uniform))`.
fn multinomial(node: &mut NodeContext<'_, '_>) -> Imported {
    let samples = node.attrs.int_at_least("sample_size", 1, 1)?;
    if samples > MAX_SAMPLES {
        return Err(fault("sample_size", format!("{samples} found, at most {MAX_SAMPLES} are drawn")).into());
    }
    let to = node.attrs.dtype("dtype")?.unwrap_or(DType::I32);
    if !matches!(to, DType::I32 | DType::I64) {
        return Err(fault("dtype", format!("{to} is no type of classes")).into());
    }
    let x = node.required(0)?;
    let x = node.cast("logits", x, DType::F32)?;
    let x = node.unsqueeze("logits.column", x, &[1])?;
    let zeros = node.numbers_part("samples", DType::F32, &[1, samples as usize, 1], &vec![0.0; samples as usize])?;
    let x = node.binary("logits.of_all", BinaryOp::Add, x, zeros)?;
    let seed = seed(node)?;
    let drawn = uniform_like(node, x, seed)?;
    // Away from 0, whose logarithm is infinite.
    let drawn = node.with_number("above_0", BinaryOp::Max, drawn, f64::from(f32::MIN_POSITIVE))?;
    let mut noise = drawn;
    for part in ["inner", "outer"] {
        let log = node.unary(&format!("{part}.log"), UnaryOp::Log, noise)?;
        noise = node.unary(part, UnaryOp::Neg, log)?;
    }
    let noisy = node.binary("noisy", BinaryOp::Add, x, noise)?;
    let op = ArgReduce { largest: true, axis: 2, keep_dims: false, select_last: false };
    if to == DType::I64 {
        return node.emit(op, [Some(noisy)]);
    }
    let classes = node.helper("classes", Op::from(op), [noisy])?;
    node.emit(Cast::new(to), [Some(classes)])
}
