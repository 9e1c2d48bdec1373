//! Sampling and detection layers.

use trt_fuse_ir::op::{GridSample, NonMaxSuppression, SampleKind, SamplePadding};
use trt_fuse_ir::{DType, Dim};

use super::super::error::EmitError;
use super::super::layers::{DimsArg, GridSample as GridSampleLayer, Nms};
use super::super::sink::NetworkSink;
use super::super::terms::{BoxFormat, Interpolation, SampleMode};
use super::super::walk::Site;

pub(super) fn grid_sample<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &GridSample,
) -> Result<S::Tensor, EmitError> {
    match site.rank(0)? {
        4 => {}
        5 if site.capabilities().grid_sample_3d => {}
        rank => return site.unsupported(format!("this TensorRT samples no data of rank {rank}")),
    }
    let interpolation = match op.kind {
        SampleKind::Linear => Interpolation::Linear,
        SampleKind::Nearest => Interpolation::Nearest,
        SampleKind::Cubic => Interpolation::Cubic,
        other => return site.unsupported(format!("TensorRT has no `{}` sampling", other.word())),
    };
    let mode = match op.padding {
        SamplePadding::Zeros => SampleMode::Fill,
        SamplePadding::Border => SampleMode::Clamp,
        SamplePadding::Reflection => SampleMode::Reflect,
        other => return site.unsupported(format!("TensorRT has no `{}` sampling", other.word())),
    };
    let (x, grid) = (site.tensor(0)?, site.tensor(1)?);
    let layer = GridSampleLayer { interpolation, align_corners: op.align_corners, mode };
    site.layer("", |sink, label| sink.grid_sample(label, x, grid, &layer))
}

pub(super) fn non_max_suppression<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &NonMaxSuppression,
) -> Result<S::Tensor, EmitError> {
    if !site.capabilities().nms {
        return site.unsupported("TensorRT-RTX has no kernel for its layer of non-maximum suppression");
    }
    if site.source(2).is_none() {
        return site.unsupported("without a number of boxes it selects none");
    }
    let boxes = site.tensor(0)?;
    let scores = site.tensor(1)?;
    let scores = site.shuffle(scores, Some(&[0, 2, 1]), None, None, "scores")?;
    let most = scalar(site, 2, "most")?;
    let most = site.layer("most_i32", |sink, label| sink.cast(label, most, DType::I32))?;
    let overlap = match site.source(3) {
        Some(_) => scalar(site, 3, "overlap")?,
        None => site.scalar(DType::F32, 0, 0.0, "overlap")?,
    };
    let least = match site.source(4) {
        Some(_) => scalar(site, 4, "least")?,
        None => site.scalar(DType::F32, 0, f64::from(f32::MIN), "least")?,
    };
    let indices = if site.capabilities().version >= (10, 14, 0) { DType::I64 } else { DType::I32 };
    let layer = Nms {
        boxes,
        scores,
        max_output_boxes_per_class: most,
        iou_threshold: Some(overlap),
        score_threshold: Some(least),
        format: if op.center_point { BoxFormat::CenterSizes } else { BoxFormat::CornerPairs },
        top_k_limit: None,
        indices,
    };
    let selected = site.layer("", |sink, label| sink.nms(label, &layer))?;
    let Some(selected) = selected.first().copied() else { return site.unsupported("the layer has no output") };
    if indices == site.dtype() {
        return Ok(selected);
    }
    let dtype = site.dtype();
    site.layer("cast", |sink, label| sink.cast(label, selected, dtype))
}

/// An input of one element as a tensor of rank 0.
fn scalar<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    slot: usize,
    what: &str,
) -> Result<S::Tensor, EmitError> {
    let x = site.tensor(slot)?;
    match site.info(slot).and_then(|info| info.shape.clone()) {
        Some(shape) if shape.is_empty() => Ok(x),
        Some(shape) if shape.iter().all(|dim| dim == &Dim::fixed(1)) => {
            site.shuffle(x, None, Some(DimsArg::Fixed(&[])), None, what)
        }
        _ => site.unsupported(format!("input {slot} is not known to be one number")),
    }
}
