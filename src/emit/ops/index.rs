//! Gathers and scatters.

use trt_fuse_ir::op::{
    Gather, GatherElements, GatherNd, OneHot, ReverseSequence, ScatterElements, ScatterNd, ScatterReduction,
};

use super::super::error::EmitError;
use super::super::layers::{DimsArg, Gather as GatherLayer};
use super::super::sink::NetworkSink;
use super::super::site::Site;
use super::super::terms::{GatherMode, ScatterMode};

/// Indices count from the front: `lower_indices` has seen to it.
fn gather_layer<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    layer: &GatherLayer,
) -> Result<S::Tensor, EmitError> {
    let (data, indices) = (site.tensor(0)?, site.tensor(1)?);
    site.layer("", |sink, label| sink.gather(label, data, indices, layer))
}

fn front_axis<'g, S: NetworkSink<'g>>(site: &Site<'_, '_, 'g, S>, axis: i64) -> Result<i64, EmitError> {
    Ok(if axis < 0 { axis + site.rank(0)? as i64 } else { axis })
}

pub(super) fn gather<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &Gather,
) -> Result<S::Tensor, EmitError> {
    let axis = front_axis(site, op.axis)?;
    gather_layer(site, &GatherLayer { mode: GatherMode::Default, axis, batch_dims: 0 })
}

pub(super) fn gather_elements<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &GatherElements,
) -> Result<S::Tensor, EmitError> {
    let axis = front_axis(site, op.axis)?;
    gather_layer(site, &GatherLayer { mode: GatherMode::Element, axis, batch_dims: 0 })
}

pub(super) fn gather_nd<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &GatherNd,
) -> Result<S::Tensor, EmitError> {
    gather_layer(site, &GatherLayer { mode: GatherMode::Nd, axis: 0, batch_dims: op.batch_dims })
}

fn scatter<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    mode: ScatterMode,
    axis: i64,
    reduction: ScatterReduction,
) -> Result<S::Tensor, EmitError> {
    if reduction != ScatterReduction::None {
        return site.unsupported(format!("TensorRT's scatter has no reduction `{}`", reduction.word()));
    }
    let (data, indices, updates) = (site.tensor(0)?, site.tensor(1)?, site.tensor(2)?);
    site.layer("", |sink, label| sink.scatter(label, data, indices, updates, mode, axis))
}

pub(super) fn scatter_elements<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &ScatterElements,
) -> Result<S::Tensor, EmitError> {
    let axis = front_axis(site, op.axis)?;
    scatter(site, ScatterMode::Element, axis, op.reduction)
}

pub(super) fn scatter_nd<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &ScatterNd,
) -> Result<S::Tensor, EmitError> {
    scatter(site, ScatterMode::Nd, 0, op.reduction)
}

pub(super) fn one_hot<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &OneHot,
) -> Result<S::Tensor, EmitError> {
    let is_whole = site.info(1).is_some_and(|info| info.dtype.is_integer());
    let constant = site.constant(1).and_then(|depth| depth.to_f64s()?.first().copied());
    if !is_whole && constant.is_none() {
        return site.unsupported("a depth in floats that is known only at run time");
    }
    let (indices, values) = (site.tensor(0)?, site.tensor(2)?);
    if let Some(depth) = constant {
        let depth = site.scalar(site.capabilities().index_dtype(), 0, depth.trunc(), "depth")?;
        return one_hot_layer(site, op, indices, values, depth);
    }
    let mut depth = site.tensor(1)?;
    if site.rank(1)? != 0 {
        depth = site.shuffle(depth, None, Some(DimsArg::Fixed(&[])), None, "depth")?;
    }
    one_hot_layer(site, op, indices, values, depth)
}

fn one_hot_layer<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &OneHot,
    indices: S::Tensor,
    values: S::Tensor,
    depth: S::Tensor,
) -> Result<S::Tensor, EmitError> {
    // The axis counts in the output, which has one more.
    let axis = if op.axis < 0 { op.axis + site.rank(0)? as i64 + 1 } else { op.axis };
    site.layer("", |sink, label| sink.one_hot(label, indices, values, depth, axis))
}

pub(super) fn non_zero<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>) -> Result<S::Tensor, EmitError> {
    if !site.capabilities().non_zero {
        return site.unsupported("this TensorRT has no layer whose output is as large as its data say");
    }
    let x = site.tensor(0)?;
    let indices = site.indices();
    let found = site.layer("", |sink, label| sink.non_zero(label, x, indices))?;
    site.as_indices(found)
}

pub(super) fn reverse_sequence<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &ReverseSequence,
) -> Result<S::Tensor, EmitError> {
    let (batch, time) = (front_axis(site, op.batch_axis)?, front_axis(site, op.time_axis)?);
    let (x, lengths) = (site.tensor(0)?, site.tensor(1)?);
    site.layer("", |sink, label| sink.reverse_sequence(label, x, lengths, batch, time))
}
