//! Quantization layers.

use trt_fuse_ir::op::{Dequantize, Quantize};
use trt_fuse_ir::{Dim, Op, ValueRef};

use super::super::error::EmitError;
use super::super::layers::Quantize as Layer;
use super::super::sink::NetworkSink;
use super::super::site::Site;

/// What both directions share.
fn layer<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    axis: i64,
    blocks: Option<i64>,
) -> Result<Layer<S::Tensor>, EmitError> {
    let zero_point = site.source(2).is_some();
    if zero_point && site.constant(2).is_none_or(|zero| zero.bytes().iter().any(|byte| *byte != 0)) {
        return asymmetric(site);
    }
    let rank = site.rank(0)?;
    let per_axis = site.rank(1)? == 1 && blocks.is_none();
    let shape = |slot: usize| site.info(slot).and_then(|info| info.shape.clone());
    if let (Some(block), Some(data), Some(scales)) = (blocks, shape(0), shape(1)) {
        let is_whole = |(size, count): (&Dim, &Dim)| size == count || *size == count * &Dim::fixed(block);
        if !data.iter().zip(&scales).all(is_whole) {
            return site.unsupported(format!("blocks of {block} do not divide the axis"));
        }
    }
    let scale = site.tensor(1)?;
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    Ok(Layer { scale, zero_point: None, axis: per_axis.then_some(axis), dtype: site.dtype() })
}

/// Names the tensor and its zero point, and says what helps.
fn asymmetric<'g, S: NetworkSink<'g>, T>(site: &Site<'_, '_, 'g, S>) -> Result<T, EmitError> {
    let graph = site.emitter.graph;
    let quantized = match &site.node.op {
        Op::Quantize(_) => Some(ValueRef::from(site.id)),
        _ => site.source(0),
    };
    let name = quantized.and_then(|value| graph.value(value)).map_or("", |value| &value.name);
    let zero = site.constant(2);
    let first = zero.and_then(|zero| zero.to_i64s()?.into_iter().find(|zero| *zero != 0));
    let point = match (first, zero) {
        (Some(first), Some(zero)) => format!("{first} of {}", zero.dtype()),
        _ => "known only at run time".to_string(),
    };
    site.unsupported(format!(
        "`{name}` is quantized around the zero point {point}, TensorRT quantizes around 0 alone: quantize symmetrically \
         (onnxruntime: extra_options ActivationSymmetric and WeightSymmetric; PyTorch: per_tensor_symmetric)"
    ))
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
