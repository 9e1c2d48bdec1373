//! Gathers and scatters.

use trt_fuse_ir::op::{
    Gather, GatherElements, GatherNd, OneHot, ReverseSequence, ScatterElements, ScatterNd, ScatterReduction,
};
use trt_fuse_ir::{DType, Dim, Shape};

use super::super::error::EmitError;
use super::super::layers::{DimsArg, Gather as GatherLayer};
use super::super::sink::NetworkSink;
use super::super::symbols::index_dtype;
use super::super::terms::{ElementwiseKind, GatherMode, ScatterMode};
use super::super::walk::Site;

fn gather_layer<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    layer: &GatherLayer,
) -> Result<S::Tensor, EmitError> {
    let (data, mut indices) = (site.tensor(0)?, site.tensor(1)?);
    let negative = site.info(1).and_then(|info| info.known_ints()).is_none_or(|all| all.iter().any(|index| *index < 0));
    // A negative index counts from the end of an axis only if TensorRT knows its size when it builds.
    let sizes = gathered(site, layer)?;
    if negative && sizes.iter().any(|size| size.value().is_none()) {
        indices = from_front(site, indices, &sizes)?;
    }
    site.layer("", |sink, label| sink.gather(label, data, indices, layer))
}

/// The sizes of the axes that an index, or a tuple of them, goes along.
fn gathered<'g, S: NetworkSink<'g>>(site: &Site<'_, '_, 'g, S>, layer: &GatherLayer) -> Result<Shape, EmitError> {
    let shape = |slot: usize| site.info(slot).and_then(|info| info.shape.clone());
    let (Some(data), Some(indices)) = (shape(0), shape(1)) else {
        return site.unsupported("the rank of data or indices is not known");
    };
    let (first, count) = match layer.mode {
        GatherMode::Nd => match indices.last().and_then(Dim::value) {
            Some(count) => (layer.batch_dims, count),
            None => return site.unsupported("tuples of indices of a length known only at run time"),
        },
        _ => (layer.axis, 1),
    };
    let (skipped, count) = (usize::try_from(first).unwrap_or(usize::MAX), usize::try_from(count).unwrap_or(0));
    Ok(data.into_iter().skip(skipped).take(count).collect())
}

/// Indices that count from the end of an axis made to count from its beginning.
fn from_front<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    indices: S::Tensor,
    sizes: &Shape,
) -> Result<S::Tensor, EmitError> {
    let (rank, dtype) = (site.rank(1)?, site.info(1).map_or(DType::I64, |info| info.dtype));
    let mut shape = vec![1; rank];
    if let Some(last) = shape.last_mut() {
        *last = sizes.len() as i64;
    }
    let mut sizes = site.dims_tensor(sizes)?;
    if index_dtype(site.capabilities()) != dtype {
        sizes = site.layer("sizes_cast", |sink, label| sink.cast(label, sizes, dtype))?;
    }
    let sizes = site.shuffle(sizes, None, Some(DimsArg::Fixed(&shape)), None, "sizes")?;
    let zero = site.scalar(dtype, rank, 0.0, "zero")?;
    let is_negative = site.elementwise(indices, zero, ElementwiseKind::Less, "negative")?;
    let moved = site.elementwise(indices, sizes, ElementwiseKind::Sum, "from_end")?;
    site.layer("indices", |sink, label| sink.select(label, is_negative, moved, indices))
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
        let depth = site.scalar(index_dtype(site.capabilities()), 0, depth.trunc(), "depth")?;
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
    site.layer("", |sink, label| sink.non_zero(label, x, DType::I64))
}

pub(super) fn reverse_sequence<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &ReverseSequence,
) -> Result<S::Tensor, EmitError> {
    let (batch, time) = (front_axis(site, op.batch_axis)?, front_axis(site, op.time_axis)?);
    let (x, lengths) = (site.tensor(0)?, site.tensor(1)?);
    site.layer("", |sink, label| sink.reverse_sequence(label, x, lengths, batch, time))
}
