//! Pooling and resampling.

use smallvec::SmallVec;

use super::conv::Windows;
use super::{InferContext, Infos, Inputs, one, resolve_axes, shaped};
use crate::op::{AspectPolicy, CoordinateMode, Pool, PoolKind, Resize};
use crate::{DType, Dim, Shape, ValueInfo};

pub(super) fn pool(op: &Pool, inputs: Inputs<'_>, _context: &InferContext<'_>) -> Result<Infos, String> {
    let x = inputs.required(0)?;
    let shape = x.shape.as_ref().map(|data| pooled_shape(op, data)).transpose()?;
    let mut infos = one(shaped(x.dtype, shape.clone()));
    if op.kind == PoolKind::Max {
        infos.push(shaped(DType::I64, shape));
    }
    Ok(infos)
}

fn pooled_shape(op: &Pool, data: &Shape) -> Result<Shape, String> {
    let Some([batch, channels]) = data.first_chunk() else {
        return Err(format!("data of rank {}", data.len()));
    };
    let kernel: Vec<Dim> = op.kernel.iter().copied().map(Dim::fixed).collect();
    let windows = Windows { kernel: &kernel, strides: &op.strides, dilations: &op.dilations, padding: &op.padding };
    windows.check(data.len() - 2)?;
    let mut shape = Shape::from_iter([batch.clone(), channels.clone()]);
    for (axis, size) in data.iter().skip(2).enumerate() {
        shape.push(if op.ceil_mode { ceil_count(&windows, axis, size)? } else { windows.count(axis, size)? });
    }
    Ok(shape)
}

/// Number of windows along an axis, rounded up; a last window that would start in the padding is dropped.
fn ceil_count(windows: &Windows<'_>, axis: usize, size: &Dim) -> Result<Dim, String> {
    let Some((before, after)) = windows.pads(axis) else { return windows.count(axis, size) };
    let stride = windows.stride(axis);
    let (step, zero_stride) = (Dim::fixed(stride), || "stride of 0".to_string());
    let steps = windows.steps(axis, size)?;
    if steps.is(-1) {
        // Of nothing, as `steps` lets pass.
        return Ok(Dim::fixed(0));
    }
    let count = steps.ceil_div(&step).ok_or_else(zero_stride)? + Dim::fixed(1);
    // The last window starts at most `stride - 1` beyond the last full one.
    let extent = windows.extent(axis).value().unwrap_or(0);
    if extent >= after.saturating_add(stride) {
        return Ok(count);
    }
    // As many windows as start before the padding at the end, but only one is ever dropped.
    let started = (size + &Dim::fixed(before)).ceil_div(&step).ok_or_else(zero_stride)?;
    let kept = count.minimum(&started);
    Ok(if extent > after { kept } else { kept.maximum(&(count - Dim::fixed(1))) })
}

/// Largest numerator and denominator of a scale that is used as a fraction of symbolic sizes.
const MAX_FRACTION: f64 = 4096.0;

pub(super) fn resize(op: &Resize, inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<Infos, String> {
    let x = inputs.required(0)?;
    let Some(data) = &x.shape else { return Ok(one(shaped(x.dtype, None))) };
    let axes: SmallVec<[usize; 4]> = match &op.axes {
        Some(axes) => resolve_axes(axes, data.len())?,
        None => (0..data.len()).collect(),
    };
    let mut shape = data.clone();
    for axis in &axes {
        if let Some(dim) = shape.get_mut(*axis) {
            *dim = context.fresh(&format!("d{axis}"));
        }
    }
    // An empty tensor in a slot is the old way to leave it out.
    let given = |slot| inputs.optional(slot).filter(|info| info.numel().is_none_or(|count| !count.is(0)));
    if let Some(sizes) = given(3) {
        if let Some(sizes) = sizes.known_elements() {
            check_count("sizes", sizes.len(), axes.len())?;
            resize_to(op.aspect, &sizes, &axes, data, &mut shape)?;
        }
    } else if let Some(scales) = given(2) {
        if let Some(scales) = floats(scales) {
            check_count("scales", scales.len(), axes.len())?;
            let roi = match (op.coordinates, inputs.optional(1)) {
                (CoordinateMode::TfCropAndResize, Some(roi)) => floats(roi),
                (CoordinateMode::TfCropAndResize, None) => None,
                _ => Some(axes.iter().map(|_| 0.0).chain(axes.iter().map(|_| 1.0)).collect()),
            };
            if let Some(roi) = roi {
                scale_by(&scales, &roi, &axes, data, &mut shape)?;
            }
        }
    } else {
        return Err("neither scales nor sizes".to_string());
    }
    match shape.iter().find(|dim| dim.value().is_some_and(|size| size < 0)) {
        Some(size) => Err(format!("size of {size}")),
        None => Ok(one(shaped(x.dtype, Some(shape)))),
    }
}

fn check_count(what: &str, found: usize, expected: usize) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{found} {what} for {expected} axes")) }
}

/// A small constant's elements.
fn floats(info: &ValueInfo) -> Option<Vec<f64>> {
    info.as_constant().filter(|tensor| tensor.numel() <= 64)?.to_f64s()
}

fn resize_to(
    aspect: AspectPolicy,
    sizes: &[Dim],
    axes: &[usize],
    data: &Shape,
    shape: &mut Shape,
) -> Result<(), String> {
    if aspect == AspectPolicy::Stretch {
        for (axis, size) in axes.iter().zip(sizes) {
            if let Some(dim) = shape.get_mut(*axis) {
                *dim = size.clone();
            }
        }
        return Ok(());
    }
    // One scale for all axes: known only if every size is a number.
    let ratio = |(axis, size): (&usize, &Dim)| Some(size.value()? as f32 / data.get(*axis)?.value()? as f32);
    let Some(ratios) = axes.iter().zip(sizes).map(ratio).collect::<Option<Vec<f32>>>() else { return Ok(()) };
    let scale = match aspect {
        AspectPolicy::NotLarger => ratios.into_iter().fold(f32::INFINITY, f32::min),
        _ => ratios.into_iter().fold(0.0, f32::max),
    };
    for axis in axes {
        if let (Some(dim), Some(size)) = (shape.get_mut(*axis), data.get(*axis).and_then(Dim::value)) {
            // Halves are rounded up.
            *dim = Dim::fixed((f64::from(scale * size as f32) + 0.5).floor() as i64);
        }
    }
    Ok(())
}

fn scale_by(scales: &[f64], roi: &[f64], axes: &[usize], data: &Shape, shape: &mut Shape) -> Result<(), String> {
    check_count("bounds of the region", roi.len(), 2 * axes.len())?;
    let (starts, ends) = roi.split_at(axes.len());
    for (at, axis) in axes.iter().enumerate() {
        let (Some(scale), Some(start), Some(end)) = (scales.get(at), starts.get(at), ends.get(at)) else { continue };
        if scale.is_nan() || *scale <= 0.0 {
            return Err(format!("scale of {scale}"));
        }
        let (Some(dim), Some(size)) = (shape.get_mut(*axis), data.get(*axis)) else { continue };
        // Scales are f32, and so is the product: 10 * 0.7 is 7.
        let region = (end - start) as f32;
        match size.value() {
            Some(size) => *dim = Dim::fixed((size as f32 * region * *scale as f32).floor() as i64),
            None => {
                if let Some(scaled) = scaled(size, f64::from(region) * scale) {
                    *dim = scaled;
                }
            }
        }
    }
    Ok(())
}

/// `floor(size * scale)` for a scale that is a fraction of small numbers.
fn scaled(size: &Dim, scale: f64) -> Option<Dim> {
    let mut denominator = 1.0;
    while (scale * denominator).fract() != 0.0 {
        denominator *= 2.0;
        if denominator > MAX_FRACTION {
            return None;
        }
    }
    let numerator = scale * denominator;
    if numerator.abs() > MAX_FRACTION {
        return None;
    }
    (size * &Dim::fixed(numerator as i64)).floor_div(&Dim::fixed(denominator as i64))
}
