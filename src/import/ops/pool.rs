//! Pooling and resampling.

use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::{
    AspectPolicy, BinaryOp, CoordinateMode, NearestMode, Pool, PoolKind, Reduce, ReduceKind, Resize, ResizeMode,
    UnaryOp,
};
use trt_fuse_ir::{Ints, Op, Tensor};

use super::Row;
use super::conv::padding;
use crate::import::attrs::fault;
use crate::import::node::{Fault, Imported, NodeContext};

pub(super) const ROWS: &[Row] = &[
    Row::new("AveragePool", (1, 1), 1, average_pool),
    Row::new("GlobalAveragePool", (1, 1), 1, |node| global(node, ReduceKind::Mean)),
    Row::new("GlobalLpPool", (1, 1), 1, global_lp_pool),
    Row::new("GlobalMaxPool", (1, 1), 1, |node| global(node, ReduceKind::Max)),
    Row::new("LpPool", (1, 1), 1, lp_pool),
    Row::new("MaxPool", (1, 1), 2, max_pool),
    Row::new("Resize", (1, 4), 1, resize),
    Row::new("Upsample", (1, 2), 1, upsample),
];

/// What all kinds of pooling have in common.
fn windows(node: &NodeContext<'_, '_>, kind: PoolKind) -> Result<Pool, Fault> {
    let attrs = &node.attrs;
    let axes = attrs.ints("kernel_shape")?.ok_or_else(|| fault("kernel_shape", "it is missing"))?.len();
    Ok(Pool {
        kind,
        kernel: attrs.ints_of("kernel_shape", axes, 1, 1)?,
        strides: attrs.ints_of("strides", axes, 1, 1)?,
        dilations: attrs.ints_of("dilations", axes, 1, 1)?,
        padding: padding(attrs, axes)?,
        ceil_mode: attrs.flag("ceil_mode", false)?,
        p: None,
        column_major: false,
    })
}

fn average_pool(node: &mut NodeContext<'_, '_>) -> Imported {
    let padded = node.attrs.flag("count_include_pad", false)?;
    let pool = windows(node, if padded { PoolKind::AverageIncludePad } else { PoolKind::Average })?;
    node.emit_same(pool)
}

fn max_pool(node: &mut NodeContext<'_, '_>) -> Imported {
    // The order matters to the indices alone.
    let column_major = node.attrs.flag("storage_order", false)? && node.is_used(1);
    let pool = Pool { column_major, ..windows(node, PoolKind::Max)? };
    node.emit_same(pool)
}

fn lp_pool(node: &mut NodeContext<'_, '_>) -> Imported {
    let p = Some(node.attrs.int_at_least("p", 1, 2)?);
    let pool = Pool { p, ..windows(node, PoolKind::Lp)? };
    node.emit_same(pool)
}

/// All axes but the first two.
fn spatial_axes(node: &NodeContext<'_, '_>) -> Result<Vec<i64>, Fault> {
    let rank = i64::try_from(node.rank(0)?).unwrap_or(i64::MAX);
    if rank < 2 {
        let reason = format!("input 0 has rank {rank}, at least 2 expected");
        return Err(crate::import::ImportError::Operands { reason }.into());
    }
    Ok((2..rank).collect())
}

/// Over all spatial axes: a reduction.
fn global(node: &mut NodeContext<'_, '_>, kind: ReduceKind) -> Imported {
    let axes = Some(spatial_axes(node)?.into_iter().collect());
    node.emit_same(Reduce { kind, axes, keep_dims: true, noop_if_empty: true })
}

fn global_lp_pool(node: &mut NodeContext<'_, '_>) -> Imported {
    match node.attrs.int_at_least("p", 1, 2)? {
        1 => global(node, ReduceKind::L1),
        2 => global(node, ReduceKind::L2),
        p => global_norm(node, p as f64),
    }
}

/// `sum(|x|^p)^(1/p)`
fn global_norm(node: &mut NodeContext<'_, '_>, p: f64) -> Imported {
    let axes = spatial_axes(node)?;
    let (x, dtype) = (node.required(0)?, node.dtype(0)?);
    let magnitude = node.unary("abs", UnaryOp::Abs, x)?;
    let powers = node.with_number("powers", BinaryOp::Pow, magnitude, p)?;
    let sum = node.reduce("sum", ReduceKind::Sum, powers, &axes, true)?;
    let root = node.scalar_part("root", dtype, 1.0 / p)?;
    node.emit(Op::Binary(BinaryOp::Pow), [Some(sum), Some(root)])
}

/// How opset 10 and older sample.
fn old_resize(mode: ResizeMode) -> Resize {
    Resize {
        mode,
        coordinates: CoordinateMode::Asymmetric,
        nearest: NearestMode::Floor,
        cubic_coeff: F32(-0.75),
        exclude_outside: false,
        antialias: false,
        extrapolation: F32(0.0),
        axes: None,
        aspect: AspectPolicy::Stretch,
    }
}

const OLD_MODES: &[(&str, ResizeMode)] = &[("nearest", ResizeMode::Nearest), ("linear", ResizeMode::Linear)];

/// Scales are an attribute before opset 9.
fn upsample(node: &mut NodeContext<'_, '_>) -> Imported {
    let op = old_resize(node.attrs.choice("mode", OLD_MODES)?);
    let data = node.required(0)?;
    let scales = if node.opset >= 9 {
        node.required(1)?
    } else {
        let scales = node.attrs.floats("scales")?.ok_or_else(|| fault("scales", "it is missing"))?.to_vec();
        node.constant_part("scales", Tensor::vector(scales))?
    };
    node.emit(op, [Some(data), None, Some(scales)])
}

fn resize(node: &mut NodeContext<'_, '_>) -> Imported {
    let data = node.required(0)?;
    if node.opset < 11 {
        let op = old_resize(node.attrs.choice("mode", OLD_MODES)?);
        let scales = node.required(1)?;
        return node.emit(op, [Some(data), None, Some(scales)]);
    }
    // Opset 11 has no empty slot for what is left out, but a tensor of no elements.
    let given = |node: &NodeContext<'_, '_>, slot| {
        node.input(slot).filter(|_| node.constant(slot).is_none_or(|tensor| tensor.numel() > 0))
    };
    let (scales, sizes) = (given(node, 2), given(node, 3));
    if scales.is_some() == sizes.is_some() {
        let reason = "either scales or sizes expected".to_owned();
        return Err(crate::import::ImportError::Operands { reason }.into());
    }
    if scales.is_some() && node.constant(2).is_none() {
        // The sizes that inference cannot tell are those that the model states.
        node.stated_dims(0);
    }
    let op = resize_op(node)?;
    let roi = given(node, 1).filter(|_| op.coordinates == CoordinateMode::TfCropAndResize);
    node.emit(op, [Some(data), roi, scales, sizes])
}

fn resize_op(node: &NodeContext<'_, '_>) -> Result<Resize, Fault> {
    let attrs = &node.attrs;
    let modes = [("nearest", ResizeMode::Nearest), ("linear", ResizeMode::Linear), ("cubic", ResizeMode::Cubic)];
    let coordinates = [
        ("half_pixel", CoordinateMode::HalfPixel),
        ("half_pixel_symmetric", CoordinateMode::HalfPixelSymmetric),
        ("pytorch_half_pixel", CoordinateMode::PytorchHalfPixel),
        ("align_corners", CoordinateMode::AlignCorners),
        ("asymmetric", CoordinateMode::Asymmetric),
        ("tf_half_pixel_for_nn", CoordinateMode::TfHalfPixelForNn),
        ("tf_crop_and_resize", CoordinateMode::TfCropAndResize),
    ];
    let nearest = [
        ("round_prefer_floor", NearestMode::RoundPreferFloor),
        ("round_prefer_ceil", NearestMode::RoundPreferCeil),
        ("floor", NearestMode::Floor),
        ("ceil", NearestMode::Ceil),
    ];
    let policies = [
        ("stretch", AspectPolicy::Stretch),
        ("not_larger", AspectPolicy::NotLarger),
        ("not_smaller", AspectPolicy::NotSmaller),
    ];
    Ok(Resize {
        mode: attrs.choice("mode", &modes)?,
        coordinates: attrs.choice("coordinate_transformation_mode", &coordinates)?,
        nearest: attrs.choice("nearest_mode", &nearest)?,
        cubic_coeff: F32(attrs.float("cubic_coeff_a", -0.75)?),
        exclude_outside: attrs.flag("exclude_outside", false)?,
        antialias: attrs.flag("antialias", false)?,
        extrapolation: F32(attrs.float("extrapolation_value", 0.0)?),
        axes: attrs.ints("axes")?.filter(|axes: &Ints| !axes.is_empty()),
        aspect: attrs.choice("keep_aspect_ratio_policy", &policies)?,
    })
}
