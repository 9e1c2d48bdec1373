//! Quantization layers.

use trt_fuse_ir::op::{Dequantize, Quantize};

use super::super::error::EmitError;
use super::super::layers::Quantize as Layer;
use super::super::sink::NetworkSink;
use super::super::walk::Site;

/// What both directions share.
fn layer<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    axis: i64,
    blocks: Option<i64>,
) -> Result<Layer<S::Tensor>, EmitError> {
    let zero_point = site.source(2).is_some();
    if zero_point && site.constant(2).is_none_or(|zero| zero.bytes().iter().any(|byte| *byte != 0)) {
        return site.unsupported("TensorRT quantizes around 0 only, and the zero point is not 0");
    }
    let rank = site.rank(0)?;
    let per_axis = site.rank(1)? == 1 && blocks.is_none();
    let scale = site.tensor(1)?;
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    Ok(Layer { scale, zero_point: None, axis: per_axis.then_some(axis), dtype: site.dtype() })
}

pub(super) fn quantize<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &Quantize,
) -> Result<S::Tensor, EmitError> {
    let layer = layer(site, op.axis, op.block_size)?;
    let x = site.tensor(0)?;
    site.layer("", |sink, label| sink.quantize(label, x, &layer))
}

pub(super) fn dequantize<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &Dequantize,
) -> Result<S::Tensor, EmitError> {
    let layer = layer(site, op.axis, op.block_size)?;
    let x = site.tensor(0)?;
    site.layer("", |sink, label| sink.dequantize(label, x, &layer))
}
