//! Pooling and resizing layers.

use trt_fuse_ir::op::{AspectPolicy, CoordinateMode, NearestMode, Pool, PoolKind, Resize, ResizeMode};

use super::super::error::EmitError;
use super::super::layers::{DimsArg, Pooling, Resize as ResizeLayer, ResizeTo};
use super::super::sink::NetworkSink;
use super::super::site::Site;
use super::super::terms::{CoordinateTransform, Interpolation, PaddingMode, PoolingKind, ResizeRound, ResizeSelector};
use super::conv::{with_last_axis, without_last_axis};

pub(super) fn pool<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>, op: &Pool) -> Result<S::Tensor, EmitError> {
    let (kind, exclude_padding) = match op.kind {
        PoolKind::Max => (PoolingKind::Max, true),
        PoolKind::Average => (PoolingKind::Average, true),
        PoolKind::AverageIncludePad => (PoolingKind::Average, false),
        _ => return site.unsupported("TensorRT has no pooling by a norm"),
    };
    if site.node.outputs.len() > 1 {
        return site.unsupported("TensorRT's pooling gives no indices");
    }
    if op.dilations.iter().any(|dilation| *dilation != 1) {
        return site.unsupported("TensorRT's pooling has no dilation");
    }
    let Some((pre, post)) = op.padding.explicit() else {
        return site.unsupported("SAME padding of a size that is not known");
    };
    let post = match end_padding(site, op, pre, post) {
        Some(post) => post,
        None => return site.unsupported("ceil_mode with a window that reaches beyond the padding"),
    };
    let flat = op.kernel.len() == 1;
    let widened = |values: &[i64], fill: i64| -> Vec<i64> {
        let extra = if flat { Some(fill) } else { None };
        values.iter().copied().chain(extra).collect()
    };
    let mut x = site.tensor(0)?;
    if flat {
        x = with_last_axis(site, x, 0)?;
    }
    let layer = Pooling {
        kind,
        window: &widened(&op.kernel, 1),
        stride: &widened(&op.strides, 1),
        pre_padding: &widened(pre, 0),
        post_padding: &widened(&post, 0),
        padding_mode: PaddingMode::ExplicitRoundDown,
        exclude_padding,
    };
    let y = site.layer("", |sink, label| sink.pooling(label, x, &layer))?;
    if flat { without_last_axis(site, y) } else { Ok(y) }
}

/// The padding at the end that gives the output's size when sizes round down.
///
/// ONNX drops a last window that would start in the padding, TensorRT's rounding up does not; with the padding made
/// explicit both mean the same. A longer padding changes no maximum and no mean that leaves padding out. `None` if it
/// would change a mean that counts padding.
fn end_padding<'g, S: NetworkSink<'g>>(
    site: &Site<'_, '_, 'g, S>,
    op: &Pool,
    pre: &[i64],
    post: &[i64],
) -> Option<Vec<i64>> {
    if !op.ceil_mode {
        return Some(post.to_vec());
    }
    let (input, output) = (site.info(0)?.shape.as_ref()?, site.output()?.shape.as_ref()?);
    let mut padding = Vec::new();
    for (axis, window) in op.kernel.iter().enumerate() {
        let (size, wanted) = (input.get(axis + 2)?.value()?, output.get(axis + 2)?.value()?);
        let needed = (wanted - 1) * op.strides.get(axis)? + window - size - pre.get(axis)?;
        let stated = *post.get(axis)?;
        if needed > stated && op.kind == PoolKind::AverageIncludePad {
            return None;
        }
        // Rounding down gives the same size for any padding from `needed` on, up to a stride more.
        padding.push(if needed <= stated && stated < needed + op.strides.get(axis)? { stated } else { needed.max(0) });
    }
    Some(padding)
}

pub(super) fn resize<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &Resize,
) -> Result<S::Tensor, EmitError> {
    if op.antialias {
        return site.unsupported("TensorRT's resize has no antialias");
    }
    if op.aspect != AspectPolicy::Stretch {
        return site.unsupported("keep_aspect_ratio_policy");
    }
    let (transform, selector) = match op.coordinates {
        CoordinateMode::HalfPixel => (CoordinateTransform::HalfPixel, ResizeSelector::Formula),
        CoordinateMode::PytorchHalfPixel => (CoordinateTransform::HalfPixel, ResizeSelector::Upper),
        CoordinateMode::AlignCorners => (CoordinateTransform::AlignCorners, ResizeSelector::Formula),
        CoordinateMode::Asymmetric => (CoordinateTransform::Asymmetric, ResizeSelector::Formula),
        other => return site.unsupported(format!("TensorRT has no `{}` coordinates", other.word())),
    };
    let rounding = match op.nearest {
        NearestMode::RoundPreferFloor => ResizeRound::HalfDown,
        NearestMode::RoundPreferCeil => ResizeRound::HalfUp,
        NearestMode::Floor => ResizeRound::Floor,
        NearestMode::Ceil => ResizeRound::Ceil,
        other => return site.unsupported(format!("TensorRT has no `{}` rounding", other.word())),
    };
    let mode = match op.mode {
        ResizeMode::Nearest => Interpolation::Nearest,
        ResizeMode::Linear => Interpolation::Linear,
        ResizeMode::Cubic => Interpolation::Cubic,
        other => return site.unsupported(format!("TensorRT has no `{}` resize", other.word())),
    };
    let runtime = |slot: usize| site.info(slot).is_some_and(|info| info.numel().is_none_or(|count| !count.is(0)));
    if runtime(2) && site.constant(2).is_none() {
        return site.unsupported("scales that are known only at run time");
    }
    let x = site.tensor(0)?;
    let scales = site.constant(2).and_then(|scales| scales.to_f64s()).filter(|scales| !scales.is_empty());
    let rank = site.rank(0)?;
    let layer = |to| ResizeLayer {
        to,
        mode,
        transform,
        selector,
        rounding,
        cubic_coeff: op.cubic_coeff.0,
        exclude_outside: op.exclude_outside,
    };
    // The scales themselves where they are known: they, not the sizes, define the coordinates.
    if let Some(scales) = scales {
        let mut all = vec![1.0_f32; rank];
        let axes: Vec<i64> = op.axes.as_ref().map_or_else(|| (0..rank as i64).collect(), |axes| axes.to_vec());
        for (axis, scale) in axes.iter().zip(&scales) {
            let at = if *axis < 0 { axis + rank as i64 } else { *axis };
            if let Some(slot) = usize::try_from(at).ok().and_then(|at| all.get_mut(at)) {
                *slot = *scale as f32;
            }
        }
        return site.layer("", |sink, label| sink.resize(label, x, &layer(ResizeTo::Scales(&all))));
    }
    if site.source(3).is_some() {
        super::runtime::sizes(site, 3, op.axes.as_deref())?;
    }
    let Some(shape) = site.output().and_then(|info| info.shape.clone()) else {
        return site.unsupported("the output's shape is not known");
    };
    if let Some(dims) = shape.iter().map(|dim| dim.value()).collect::<Option<Vec<i64>>>() {
        return site.layer("", |sink, label| sink.resize(label, x, &layer(ResizeTo::Dims(DimsArg::Fixed(&dims)))));
    }
    let dims = site.dims_tensor(&shape)?;
    site.layer("", |sink, label| sink.resize(label, x, &layer(ResizeTo::Dims(DimsArg::Tensor(dims)))))
}
