//! Attention, its variants, and rotary embeddings.
//!
//! The core is one operator on four axes. What ONNX adds around it is spelled out: the split of heads, the cache, and
//! the masks that follow from positions.

use smallvec::SmallVec;
use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::{
    Attention, BinaryOp, CausalKind, Concat, Expand, Gather, Reshape, RotaryEmbedding, ScoreStage, ShapeOf, Squeeze,
    Transpose, UnaryOp, Unsqueeze,
};
use trt_fuse_ir::{DType, Dim, Ints, Op, Shape, Tensor, ValueRef};

use super::Row;
use crate::import::attrs::fault;
use crate::import::node::{Fault, Imported, NodeContext, Outputs};

pub(super) const ROWS: &[Row] =
    &[Row::new("Attention", (3, 7), 4, attention), Row::new("RotaryEmbedding", (3, 4), 1, rotary_embedding)];

/// The output of the scores.
const SCORES: usize = 3;

fn attention(node: &mut NodeContext<'_, '_>) -> Imported {
    let heads = Heads::of(node)?;
    let dtype = node.dtype(0)?;
    let query = heads.split(node, 0, "query", heads.queries)?;
    let new_key = heads.split(node, 1, "key", heads.keys)?;
    let new_value = heads.split(node, 2, "value", heads.keys)?;
    let (key, value) = (cached(node, new_key, 4, 1, "key")?, cached(node, new_value, 5, 2, "value")?);
    let window = Window::of(node)?;
    let scale = match node.attrs.has("scale") {
        true => node.attrs.float("scale", 1.0)?,
        false => match axis(node, query, 3)?.value() {
            Some(size) => (1.0 / (size as f64).sqrt()) as f32,
            None => return Err(Fault::Unsupported("the size of a head is not known".to_owned())),
        },
    };
    let (causal, mask) = masks(node, query, key, &window, dtype)?;
    let op = Attention {
        scale: F32(scale),
        softcap: Some(F32(node.attrs.float("softcap", 0.0)?)).filter(|cap| cap.0 != 0.0),
        causal,
        softmax_dtype: node.attrs.dtype("softmax_precision")?.filter(|precision| *precision != dtype),
        zero_hidden: true,
        scores: stage(node)?,
    };
    let value = node.cast("value_cast", value, dtype)?;
    let inputs = [Some(query), Some(key), Some(value), mask];
    let scores = node.is_used(SCORES).then_some(Some(SCORES));
    let slots: SmallVec<[Option<usize>; 2]> = [(!heads.flat).then_some(0)].into_iter().chain(scores).collect();
    let core = node.part("core", op, inputs, &slots)?;
    let mut output = core.first().copied().ok_or_else(|| Fault::Unsupported("it has no output".to_owned()))?;
    if heads.flat {
        output = heads.join(node, output)?;
    }
    let mut outputs = Outputs::from_iter([output]);
    for (slot, cache) in [(1, key), (2, value)].into_iter().take(node.outputs.len().saturating_sub(1)) {
        // Without a past, the keys and values are the cache.
        let named = node.is_used(slot) && node.input(slot + 3).is_none();
        outputs.push(if named { node.result(slot, Op::Unary(UnaryOp::Identity), [cache])? } else { cache });
    }
    if node.outputs.len() > SCORES {
        // One that nothing reads is not computed.
        outputs.push(core.get(1).copied().unwrap_or(output));
    }
    Ok(outputs)
}

fn stage(node: &NodeContext<'_, '_>) -> Result<ScoreStage, Fault> {
    Ok(match node.attrs.int_or("qk_matmul_output_mode", 0)? {
        0 => ScoreStage::Product,
        1 => ScoreStage::Capped,
        2 => ScoreStage::Masked,
        3 => ScoreStage::Weights,
        mode => return Err(fault("qk_matmul_output_mode", format!("{mode} found, 0 to 3 expected")).into()),
    })
}

/// A dimension of a value of known rank.
fn axis(node: &NodeContext<'_, '_>, value: ValueRef, at: usize) -> Result<Dim, Fault> {
    let dim = node.info(value).shape.and_then(|shape| shape.get(at).cloned());
    dim.ok_or_else(|| Fault::Unsupported("the rank of its inputs is not known".to_owned()))
}

/// How heads lie in the inputs.
struct Heads {
    /// Heads share the last of three axes, and have no axis of their own.
    flat: bool,
    /// Heads of queries, where they share an axis.
    queries: i64,
    /// Heads of keys and values, where they share an axis.
    keys: i64,
}

impl Heads {
    fn of(node: &NodeContext<'_, '_>) -> Result<Self, Fault> {
        let flat = match node.rank(0)? {
            3 => true,
            4 => false,
            rank => {
                let reason = format!("input 0 has rank {rank}, 3 or 4 expected");
                return Err(crate::import::ImportError::Operands { reason }.into());
            }
        };
        let heads = |name| match node.attrs.int(name)? {
            None if flat => Err(fault(name, "it is missing")),
            None => Ok(1),
            Some(heads) if heads < 1 => Err(fault(name, format!("{heads} found, at least 1 expected"))),
            Some(heads) => Ok(heads),
        };
        Ok(Self { flat, queries: heads("q_num_heads")?, keys: heads("kv_num_heads")? })
    }

    /// An input as `[batch, heads, sequence, size]`.
    fn split(&self, node: &mut NodeContext<'_, '_>, slot: usize, part: &str, heads: i64) -> Result<ValueRef, Fault> {
        let x = node.required(slot)?;
        if self.flat { split_heads(node, x, part, heads) } else { Ok(x) }
    }

    /// `[batch, heads, sequence, size]` to the node's output of three axes.
    fn join(&self, node: &mut NodeContext<'_, '_>, x: ValueRef) -> Result<ValueRef, Fault> {
        let moved = node.helper("sequence_first", Transpose { perm: Ints::from_slice(&[0, 2, 1, 3]) }, [x])?;
        let Some([batch, sequence, heads, size]) = node.info(moved).shape.and_then(|shape| shape.into_inner().ok())
        else {
            return Err(Fault::Unsupported("the rank of its inputs is not known".to_owned()));
        };
        let shape = [batch, sequence, heads * size].into_iter().collect();
        node.result(0, Reshape { shape: Some(shape), allow_zero: true }, [moved])
    }
}

/// `[batch, sequence, heads * size]` to `[batch, heads, sequence, size]`.
fn split_heads(node: &mut NodeContext<'_, '_>, x: ValueRef, part: &str, heads: i64) -> Result<ValueRef, Fault> {
    let Some([batch, sequence, hidden]) = node.info(x).shape.as_deref().and_then(|shape| shape.first_chunk().cloned())
    else {
        return Err(Fault::Unsupported(format!("the rank of its {part} is not known")));
    };
    let heads = Dim::fixed(heads);
    let Some(size) = hidden.exact_div(&heads) else {
        return Err(Fault::Unsupported(format!("{hidden} elements are not known to be a multiple of {heads} heads")));
    };
    let shape = [batch, sequence, heads, size].into_iter().collect();
    let split = node.helper(&format!("{part}_split"), Reshape { shape: Some(shape), allow_zero: true }, [x])?;
    node.helper(&format!("{part}_heads"), Transpose { perm: Ints::from_slice(&[0, 2, 1, 3]) }, [split])
}

/// Keys or values behind those of the past, which are input `slot`; together they are output `output`.
fn cached(
    node: &mut NodeContext<'_, '_>,
    new: ValueRef,
    slot: usize,
    output: usize,
    part: &str,
) -> Result<ValueRef, Fault> {
    let Some(past) = node.input(slot) else { return Ok(new) };
    let past = node.cast(&format!("past_{part}"), past, node.info(new).dtype)?;
    if node.is_used(output) {
        return node.result(output, Concat { axis: 2 }, [past, new]);
    }
    node.helper(&format!("{part}_cache"), Concat { axis: 2 }, [past, new])
}

/// Keys that a query may see, counted from its own position; `None` for no bound.
struct Window {
    left: Option<i64>,
    right: Option<i64>,
}

impl Window {
    fn of(node: &NodeContext<'_, '_>) -> Result<Self, Fault> {
        let bound = |name| Ok::<_, Fault>(Some(node.attrs.int_at_least(name, -1, -1)?).filter(|bound| *bound >= 0));
        let causal = node.attrs.flag("is_causal", false)?;
        let (left, right) = (bound("left_window_size")?, bound("right_window_size")?);
        Ok(Self { left, right: if causal { Some(0) } else { right } })
    }
}

/// Which keys queries may see: the causal kind where that says it, and a mask for the rest.
fn masks(
    node: &mut NodeContext<'_, '_>,
    query: ValueRef,
    key: ValueRef,
    window: &Window,
    dtype: DType,
) -> Result<(CausalKind, Option<ValueRef>), Fault> {
    let (queries, keys) = (axis(node, query, 2)?, axis(node, key, 2)?);
    let lengths = node.input(6);
    let mut causal = CausalKind::None;
    let mut kept: Vec<ValueRef> = Vec::new();
    if window.left.is_some() || window.right.is_some() {
        let past = node.input(4).map(|past| axis(node, past, 2)).transpose()?;
        let offset = past.clone().unwrap_or(Dim::fixed(0));
        let is_causal = window.left.is_none() && window.right == Some(0) && (past.is_some() || lengths.is_none());
        if is_causal && offset.is(0) {
            causal = CausalKind::UpperLeft;
        } else if is_causal && offset == &keys - &queries {
            causal = CausalKind::LowerRight;
        } else {
            let offset = match (past, lengths) {
                (None, Some(lengths)) => Offset::OfBatch(lengths),
                _ => Offset::Same(offset),
            };
            kept.push(window_mask(node, window, (query, queries), (key, keys.clone()), offset)?);
        }
    }
    if let Some(lengths) = lengths {
        let positions = positions(node, "key_positions", key, &keys)?;
        let lengths = column(node, "lengths", lengths)?;
        kept.push(node.helper("filled", Op::Binary(BinaryOp::Less), [positions, lengths])?);
    }
    let mut bias = None;
    if let Some(mask) = node.input(3) {
        let is_bool = node.dtype(3)? == DType::Bool;
        let mask = if is_bool { mask } else { node.cast("mask_cast", mask, dtype)? };
        let mask = widened(node, mask, &keys)?;
        if is_bool { kept.push(mask) } else { bias = Some(mask) }
    }
    let mut kept = kept.into_iter();
    let Some(mut all) = kept.next() else { return Ok((causal, bias)) };
    for (at, next) in kept.enumerate() {
        all = node.helper(&format!("kept{at}"), Op::Binary(BinaryOp::And), [all, next])?;
    }
    let mask = match bias {
        None => all,
        Some(bias) => {
            let hidden = node.scalar_part("hidden", dtype, f64::NEG_INFINITY)?;
            node.helper("bias", Op::Where, [all, bias, hidden])?
        }
    };
    Ok((causal, Some(mask)))
}

/// A mask that is shorter than the keys, the rest of them hidden.
fn widened(node: &mut NodeContext<'_, '_>, mask: ValueRef, keys: &Dim) -> Result<ValueRef, Fault> {
    let info = node.info(mask);
    let Some((length, leading)) = info.shape.as_ref().and_then(|shape| shape.split_last()) else {
        return Err(Fault::Unsupported("the rank of its mask is not known".to_owned()));
    };
    if length == keys {
        return Ok(mask);
    }
    let hidden = match info.dtype {
        DType::Bool => node.constant_part("beyond", Tensor::scalar(false))?,
        dtype => node.scalar_part("beyond", dtype, f64::NEG_INFINITY)?,
    };
    let shape: Shape = leading.iter().cloned().chain([keys - length]).collect();
    let rest = node.helper("beyond_mask", Expand { shape: Some(shape) }, [hidden])?;
    node.helper("mask", Concat { axis: -1 }, [mask, rest])
}

/// The position of the first query.
enum Offset {
    /// One for all.
    Same(Dim),
    /// That of each batch: its number of keys, less the number of queries.
    OfBatch(ValueRef),
}

/// Whether `-right <= query - key <= left`: `[queries, keys]`, or `[batch, 1, queries, keys]`.
fn window_mask(
    node: &mut NodeContext<'_, '_>,
    window: &Window,
    (query, queries): (ValueRef, Dim),
    (key, keys): (ValueRef, Dim),
    offset: Offset,
) -> Result<ValueRef, Fault> {
    let rows = positions(node, "query_positions", query, &queries)?;
    let rows = node.helper("query_column", Unsqueeze { axes: Some(Ints::from_slice(&[1])) }, [rows])?;
    let columns = positions(node, "window_keys", key, &keys)?;
    let add = |node: &mut NodeContext<'_, '_>, part: &str, op, a, b| node.helper(part, Op::Binary(op), [a, b]);
    let rows = match offset {
        Offset::Same(offset) if offset.is(0) => rows,
        Offset::Same(_) => {
            let past = node.required(4)?;
            let offset = length(node, "past_length", past)?;
            add(node, "query_offset", BinaryOp::Add, rows, offset)?
        }
        Offset::OfBatch(lengths) => {
            let lengths = column(node, "cache_lengths", lengths)?;
            let count = length(node, "query_count", query)?;
            let offset = add(node, "offsets", BinaryOp::Sub, lengths, count)?;
            add(node, "query_offset", BinaryOp::Add, offset, rows)?
        }
    };
    let distance = add(node, "distance", BinaryOp::Sub, rows, columns)?;
    let mut inside = None;
    let bounds = [
        (window.left, BinaryOp::LessOrEqual, "left"),
        (window.right.map(|right| -right), BinaryOp::GreaterOrEqual, "right"),
    ];
    for (bound, op, part) in bounds {
        let Some(bound) = bound else { continue };
        let bound = node.scalar_part(&format!("{part}_bound"), DType::I64, bound as f64)?;
        let here = add(node, part, op, distance, bound)?;
        inside = Some(match inside {
            None => here,
            Some(other) => add(node, "window", BinaryOp::And, other, here)?,
        });
    }
    inside.ok_or_else(|| Fault::Unsupported("a window without bounds".to_owned()))
}

/// `[batch]` as `[batch, 1, 1, 1]`.
fn column(node: &mut NodeContext<'_, '_>, part: &str, x: ValueRef) -> Result<ValueRef, Fault> {
    let x = node.cast(&format!("{part}_cast"), x, DType::I64)?;
    node.helper(part, Unsqueeze { axes: Some(Ints::from_slice(&[1, 2, 3])) }, [x])
}

/// Axis 2 of a tensor of rank 4, as a number of rank 0.
fn length(node: &mut NodeContext<'_, '_>, part: &str, x: ValueRef) -> Result<ValueRef, Fault> {
    if let Some(length) = axis(node, x, 2)?.value() {
        return node.scalar_part(part, DType::I64, length as f64);
    }
    let dims = node.helper(&format!("{part}_dim"), ShapeOf { start: 2, end: Some(3) }, [x])?;
    node.helper(part, Squeeze { axes: Some(Ints::from_slice(&[0])) }, [dims])
}

/// `0..size`, the size being axis 2 of a tensor.
fn positions(node: &mut NodeContext<'_, '_>, part: &str, x: ValueRef, size: &Dim) -> Result<ValueRef, Fault> {
    if let Some(size) = size.value() {
        return node.ints_part(part, &(0..size).collect::<Vec<_>>());
    }
    let limit = length(node, &format!("{part}_limit"), x)?;
    let (start, step) = (
        node.scalar_part(&format!("{part}_start"), DType::I64, 0.0)?,
        node.scalar_part(&format!("{part}_step"), DType::I64, 1.0)?,
    );
    node.helper(part, Op::Range, [start, limit, step])
}

fn rotary_embedding(node: &mut NodeContext<'_, '_>) -> Imported {
    let interleaved = node.attrs.flag("interleaved", false)?;
    let wanted = node.attrs.int_at_least("rotary_embedding_dim", 0, 0)?;
    let flat = node.rank(0)? == 3;
    let mut x = node.required(0)?;
    let heads = node.attrs.int_at_least("num_heads", 0, 0)?;
    if flat {
        if heads == 0 {
            return Err(fault("num_heads", "it is missing").into());
        }
        x = split_heads(node, x, "data", heads)?;
    }
    let size = axis(node, x, 3)?;
    let dim = match (wanted, size.value()) {
        (0, Some(size)) => size,
        (0, None) => return Err(Fault::Unsupported("the size of a head is not known".to_owned())),
        (dim, _) => dim,
    };
    let (cos, sin) = (angles(node, 1, "cos")?, angles(node, 2, "sin")?);
    let op = RotaryEmbedding { interleaved, dim };
    if !flat {
        return node.emit(op, [Some(x), Some(cos), Some(sin)]);
    }
    let rotated = node.helper("rotated", op, [x, cos, sin])?;
    let heads = Heads { flat, queries: heads, keys: heads };
    Ok(Outputs::from_iter([heads.join(node, rotated)?]))
}

/// The cosines or sines of each position, `[batch, sequence, dim / 2]`.
fn angles(node: &mut NodeContext<'_, '_>, slot: usize, part: &str) -> Result<ValueRef, Fault> {
    let table = node.required(slot)?;
    match node.input(3) {
        Some(positions) => node.helper(part, Gather { axis: 0 }, [table, positions]),
        None => Ok(table),
    }
}
