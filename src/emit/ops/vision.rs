//! Sampling and detection layers.

use trt_fuse_ir::DType;
use trt_fuse_ir::op::{GridSample, NonMaxSuppression, SampleKind, SamplePadding};

use super::super::error::EmitError;
use super::super::layers::{GridSample as GridSampleLayer, Nms};
use super::super::sink::NetworkSink;
use super::super::site::Site;
use super::super::terms::{BoxFormat, Interpolation, SampleMode};

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
    let most = site.count_i32(2, "most")?;
    let overlap = match site.source(3) {
        Some(_) => site.single(3, "overlap")?,
        None => site.scalar(DType::F32, 0, 0.0, "overlap")?,
    };
    let least = match site.source(4) {
        Some(_) => site.single(4, "least")?,
        None => site.scalar(DType::F32, 0, f64::from(f32::MIN), "least")?,
    };
    let indices = site.indices();
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
    site.as_indices(selected)
}
