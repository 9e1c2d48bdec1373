//! Attention and rotary embedding layers.

use trt_fuse_ir::DType;
use trt_fuse_ir::op::{Attention, CausalKind, RotaryEmbedding};

use super::super::error::EmitError;
use super::super::layers::{Attention as AttentionLayer, Reduce, RotaryEmbedding as RotaryLayer};
use super::super::sink::NetworkSink;
use super::super::site::Site;
use super::super::terms::{AttentionNorm, CausalMask, ElementwiseKind, ReduceKind};

const RANK: usize = 4;

/// The layer, its query scaled beforehand. What it cannot hold, `lower_attention` has spelled out.
pub(super) fn attention<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &Attention,
) -> Result<S::Tensor, EmitError> {
    if site.node.outputs.len() > 1 || op.softcap.is_some() || op.softmax_dtype.is_some() {
        return site.unsupported("TensorRT's attention has no cap, no precision of its own and gives no scores");
    }
    if !site.capabilities().attention {
        return site.unsupported("this TensorRT has no attention");
    }
    let causal = match op.causal {
        CausalKind::None => CausalMask::None,
        CausalKind::UpperLeft => CausalMask::UpperLeft,
        CausalKind::LowerRight => CausalMask::LowerRight,
        other => return site.unsupported(format!("TensorRT's attention has no `{}` mask", other.word())),
    };
    let mask = match site.source(3) {
        Some(_) => Some(site.aligned(3, RANK)?),
        None => None,
    };
    let dtype = site.dtype();
    let (query, key, value) = (site.tensor(0)?, site.tensor(1)?, site.tensor(2)?);
    let scale = site.scalar(dtype, RANK, f64::from(op.scale.0), "scale")?;
    let query = site.elementwise(query, scale, ElementwiseKind::Prod, "scaled")?;
    let layer = AttentionLayer { query, key, value, norm: AttentionNorm::Softmax, causal, mask, decomposable: true };
    let y = site.layer("", |sink, label| sink.attention(label, &layer))?;
    match mask.filter(|_| op.zero_hidden && may_hide_all(site)) {
        Some(mask) => zero_hidden(site, y, mask),
        None => Ok(y),
    }
}

/// Whether the mask may hide all keys of a query.
fn may_hide_all<'g, S: NetworkSink<'g>>(site: &Site<'_, '_, 'g, S>) -> bool {
    let Some(mask) = site.constant(3) else { return true };
    let keys = mask.dims().last().copied().unwrap_or(1).max(1);
    match (mask.to_i64s(), mask.to_f64s()) {
        (Some(kept), _) => kept.chunks(keys).any(|row| row.iter().all(|kept| *kept == 0)),
        (None, Some(bias)) => bias.chunks(keys).any(|row| row.iter().all(|bias| *bias == f64::NEG_INFINITY)),
        (None, None) => true,
    }
}

/// Zeros where the mask hides all keys of a query.
fn zero_hidden<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    y: S::Tensor,
    mask: S::Tensor,
) -> Result<S::Tensor, EmitError> {
    let dtype = site.dtype();
    let (weight, hidden) = if site.info(3).is_some_and(|info| info.dtype == DType::Bool) {
        (site.layer("kept", |sink, label| sink.cast(label, mask, dtype))?, 0.0)
    } else {
        (mask, f64::NEG_INFINITY)
    };
    let layer = Reduce { kind: ReduceKind::Max, axes: &[3], keep_dims: true };
    let most = site.layer("most", |sink, label| sink.reduce(label, weight, &layer))?;
    let hidden = site.scalar(dtype, RANK, hidden, "hidden")?;
    let sees = site.elementwise(most, hidden, ElementwiseKind::Greater, "sees")?;
    let zero = site.scalar(dtype, RANK, 0.0, "zero")?;
    site.layer("guarded", |sink, label| sink.select(label, sees, y, zero))
}

pub(super) fn rotary_embedding<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &RotaryEmbedding,
) -> Result<S::Tensor, EmitError> {
    if !site.capabilities().rotary_embedding {
        return site.unsupported("this TensorRT has no rotary embedding");
    }
    let (x, cos, sin) = (site.tensor(0)?, site.tensor(1)?, site.tensor(2)?);
    let layer = RotaryLayer { cos, sin, interleaved: op.interleaved, dim: op.dim };
    site.layer("", |sink, label| sink.rotary_embedding(label, x, &layer))
}
