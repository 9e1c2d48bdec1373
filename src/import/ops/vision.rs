//! Sampling at positions that are data, and detection.

use trt_fuse_ir::op::{GridSample, NonMaxSuppression, SampleKind, SamplePadding};

use super::Row;
use crate::import::node::{Imported, NodeContext};

pub(super) const ROWS: &[Row] =
    &[Row::new("GridSample", (2, 2), 1, grid_sample), Row::new("NonMaxSuppression", (2, 5), 1, non_max_suppression)];

/// Opset 16 has other names for the kinds.
fn grid_sample(node: &mut NodeContext<'_, '_>) -> Imported {
    let kinds = if node.opset < 20 {
        [("bilinear", SampleKind::Linear), ("nearest", SampleKind::Nearest), ("bicubic", SampleKind::Cubic)]
    } else {
        [("linear", SampleKind::Linear), ("nearest", SampleKind::Nearest), ("cubic", SampleKind::Cubic)]
    };
    let paddings =
        [("zeros", SamplePadding::Zeros), ("border", SamplePadding::Border), ("reflection", SamplePadding::Reflection)];
    let op = GridSample {
        kind: node.attrs.choice("mode", &kinds)?,
        padding: node.attrs.choice("padding_mode", &paddings)?,
        align_corners: node.attrs.flag("align_corners", false)?,
    };
    node.emit_same(op)
}

fn non_max_suppression(node: &mut NodeContext<'_, '_>) -> Imported {
    let center_point = node.attrs.flag("center_point_box", false)?;
    node.emit_same(NonMaxSuppression { center_point })
}
