//! Resampling, axis by axis: each output coordinate reads a few input coordinates with weights.

use std::borrow::Cow;

use super::cast::cast;
use super::layout::{self, around, by_width, filled, in_rows};
use super::number::{Number, Real, load_ints, load_real, phrase};
use super::{Inputs, Tensors, one};
use crate::infer::resolve_axes;
use crate::{DType, Dims, Tensor, op};
use op::{AspectPolicy, CoordinateMode, NearestMode, ResizeMode};

/// How one axis is resampled.
#[derive(Debug, Clone, Copy)]
struct Axis {
    input: usize,
    output: usize,
    /// Output elements an input element.
    scale: f64,
    /// Whether the output's size was stated, so that `output / input` is more exact than the scale.
    sized: bool,
    /// Region of interest, in parts of the input.
    region: (f64, f64),
}

/// What an output coordinate of an axis reads: input coordinates with weights, or nothing where it lies outside of the
/// region of interest.
pub type Taps = Option<Vec<(usize, f64)>>;

/// What each output coordinate of each axis of a [`Resize`](crate::op::Resize) reads, of data of `dims` and the roi,
/// scales and sizes given.
///
/// # Errors
/// If those do not fit the data.
pub fn resize_taps(
    op: &op::Resize,
    dims: &[usize],
    [roi, scales, sizes]: [Option<&Tensor>; 3],
) -> Result<Vec<Vec<Taps>>, String> {
    let axes = axes(op, Inputs(&[None, roi, scales, sizes]), dims)?;
    if dims.contains(&0) && axes.iter().any(|axis| axis.output > 0) {
        return Err(format!("{dims:?} has nothing to resample"));
    }
    axes.iter().map(|axis| layout::collected(axis.output, |at| axis.taps(op, at))).collect()
}

pub(super) fn resize(op: &op::Resize, inputs: Inputs<'_>) -> Result<Tensors, String> {
    let x = inputs.required(0)?;
    let axes = self::axes(op, inputs, x.dims())?;
    let dims: Dims = axes.iter().map(|axis| axis.output).collect();
    layout::check_size(&dims, size_of::<f64>())?;
    if dims.contains(&0) {
        return one(Tensor::new(x.dtype(), dims, bytes::Bytes::new()).map_err(phrase));
    }
    if x.numel() == 0 {
        return Err(format!("{:?} has nothing to resample", x.dims()));
    }
    let taps = resize_taps(op, x.dims(), [1, 2, 3].map(|slot| inputs.optional(slot)))?;
    if op.mode == ResizeMode::Nearest && op.coordinates != CoordinateMode::TfCropAndResize {
        return one(nearest(x, &taps));
    }
    let fill = f64::from(op.extrapolation.0);
    one(match x.dtype() {
        dtype @ (DType::F32 | DType::F16 | DType::BF16) => {
            f32::store(dtype, &dims, resample(f32::load(x)?, x.dims(), &taps, fill as f32)?)
        }
        DType::F64 => f64::store(DType::F64, &dims, resample(f64::load(x)?, x.dims(), &taps, fill)?),
        // Integers are computed exactly, then rounded.
        dtype => {
            let wide = cast(x, DType::F64, true)?;
            let mut elements = resample(f64::load(&wide)?, x.dims(), &taps, fill)?;
            elements.iter_mut().for_each(|x| *x = x.round_ties_even());
            cast(&Tensor::from_vec(&dims, elements).map_err(phrase)?, dtype, true)
        }
    })
}

/// The axes of the data, resampled or not.
fn axes(op: &op::Resize, inputs: Inputs<'_>, dims: &[usize]) -> Result<Vec<Axis>, String> {
    let named = match &op.axes {
        Some(axes) => resolve_axes(axes, dims.len())?,
        None => (0..dims.len()).collect(),
    };
    let given = |slot: usize| inputs.optional(slot).filter(|tensor| tensor.numel() > 0);
    let fits = |tensor: &Tensor, what: &str, count: usize| {
        if tensor.numel() == count {
            Ok(())
        } else {
            Err(format!("{} {what} for {} axes", tensor.numel(), named.len()))
        }
    };
    let mut all: Vec<Axis> = dims.iter().map(|size| Axis::same(*size)).collect();
    match (given(2), given(3)) {
        (Some(scales), None) => {
            fits(scales, "scales", named.len())?;
            for (axis, scale) in named.iter().zip(load_real::<f64>(scales)?.iter()) {
                let Some(axis) = all.get_mut(*axis) else { continue };
                let output = (axis.input as f64 * scale).floor();
                if scale.is_nan() || *scale <= 0.0 || output > layout::MAX_BYTES as f64 {
                    return Err(format!("a scale of {scale}"));
                }
                *axis = Axis { output: output as usize, scale: *scale, sized: false, ..*axis };
            }
        }
        (None, Some(sizes)) => {
            fits(sizes, "sizes", named.len())?;
            stretch(op.aspect, &named, &load_ints(sizes, "sizes")?, &mut all)?;
        }
        (None, None) => return Err("neither scales nor sizes are given".to_string()),
        (Some(_), Some(_)) => return Err("both scales and sizes are given".to_string()),
    }
    if let (CoordinateMode::TfCropAndResize, Some(region)) = (op.coordinates, given(1)) {
        fits(region, "bounds of a region", 2 * named.len())?;
        let bounds = load_real::<f64>(region)?;
        let (starts, ends) = bounds.split_at(named.len());
        for ((axis, start), end) in named.iter().zip(starts).zip(ends) {
            if let Some(axis) = all.get_mut(*axis) {
                axis.region = (*start, *end);
            }
        }
    }
    Ok(all)
}

/// Gives the named axes the sizes asked for, or those nearest that keep the aspect ratio.
fn stretch(aspect: AspectPolicy, named: &[usize], sizes: &[i64], axes: &mut [Axis]) -> Result<(), String> {
    let wrong = || format!("sizes are {sizes:?}");
    let mut ratios = Vec::new();
    for (axis, size) in named.iter().zip(sizes) {
        let input = axes.get(*axis).map_or(0, |axis| axis.input);
        ratios.push(usize::try_from(*size).map_err(|_| wrong())? as f64 / input as f64);
    }
    let common = match aspect {
        AspectPolicy::Stretch => None,
        AspectPolicy::NotLarger => ratios.iter().copied().reduce(f64::min),
        AspectPolicy::NotSmaller => ratios.iter().copied().reduce(f64::max),
    };
    for ((axis, size), ratio) in named.iter().zip(sizes).zip(ratios) {
        let Some(axis) = axes.get_mut(*axis) else { continue };
        let size = usize::try_from(*size).map_err(|_| wrong())?;
        *axis = match common {
            None => Axis { output: size, scale: ratio, sized: true, ..*axis },
            Some(scale) => {
                let output = (scale * axis.input as f64 + 0.5).floor();
                if output.is_nan() || output > layout::MAX_BYTES as f64 {
                    return Err(wrong());
                }
                Axis { output: output as usize, scale, sized: false, ..*axis }
            }
        };
    }
    Ok(())
}

impl Axis {
    /// An axis that stays as it is.
    fn same(size: usize) -> Self {
        Self { input: size, output: size, scale: 1.0, sized: true, region: (0.0, 1.0) }
    }

    /// `x / scale`, exact where it can be.
    fn shrunk(&self, x: f64) -> f64 {
        if self.sized { x * self.input as f64 / self.output as f64 } else { x / self.scale }
    }

    /// The input coordinate of an output coordinate.
    fn coordinate(&self, mode: CoordinateMode, at: usize) -> f64 {
        let (x, input, output) = (at as f64, self.input as f64, self.output as f64);
        // The size that the scale asks for, before it is made whole.
        let wanted = if self.sized { output } else { self.scale * input };
        match mode {
            CoordinateMode::HalfPixel => self.shrunk(x + 0.5) - 0.5,
            CoordinateMode::HalfPixelSymmetric => input / 2.0 * (1.0 - output / wanted) + self.shrunk(x + 0.5) - 0.5,
            CoordinateMode::PytorchHalfPixel if self.output > 1 => self.shrunk(x + 0.5) - 0.5,
            CoordinateMode::PytorchHalfPixel => 0.0,
            CoordinateMode::AlignCorners if self.output > 1 => x * (input - 1.0) / (wanted - 1.0),
            CoordinateMode::AlignCorners => 0.0,
            CoordinateMode::Asymmetric => self.shrunk(x),
            CoordinateMode::TfHalfPixelForNn => self.shrunk(x + 0.5),
            CoordinateMode::TfCropAndResize => {
                let (start, end) = self.region;
                if self.output > 1 {
                    start * (input - 1.0) + x * (end - start) * (input - 1.0) / (output - 1.0)
                } else {
                    0.5 * (start + end) * (input - 1.0)
                }
            }
        }
    }

    /// Whether nothing happens along this axis.
    fn is_same(&self, op: &op::Resize) -> bool {
        self.input == self.output && self.scale == 1.0 && op.coordinates != CoordinateMode::TfCropAndResize
    }

    /// What output coordinate `at` reads.
    fn taps(&self, op: &op::Resize, at: usize) -> Taps {
        if self.is_same(op) {
            return Some(vec![(at, 1.0)]);
        }
        let x = self.coordinate(op.coordinates, at);
        let last = self.input as f64 - 1.0;
        if op.coordinates == CoordinateMode::TfCropAndResize && !(0.0..=last).contains(&x) {
            return None;
        }
        let clamped = |index: f64| index.clamp(0.0, last) as usize;
        if op.mode == ResizeMode::Nearest {
            return Some(vec![(clamped(nearest_index(op.nearest, x)), 1.0)]);
        }
        let stretch = if op.antialias { self.scale.min(1.0) } else { 1.0 };
        let reach = if op.mode == ResizeMode::Linear { 1.0 } else { 2.0 };
        let floor = x.floor();
        let (first, end) = (floor + (-reach / stretch).floor() + 1.0, floor + (reach / stretch).ceil());
        let weight = |index: f64| match op.mode {
            ResizeMode::Linear => (1.0 - ((index - x) * stretch).abs()).max(0.0),
            _ => cubic((index - x) * stretch, f64::from(op.cubic_coeff.0)),
        };
        let indices = (0..).map(|step| first + f64::from(step)).take_while(|index| *index <= end);
        let inside = |index: &f64| !op.exclude_outside || (0.0..=last).contains(index);
        let mut taps: Vec<(usize, f64)> =
            indices.filter(inside).map(|index| (clamped(index), weight(index))).filter(|tap| tap.1 != 0.0).collect();
        let total: f64 = taps.iter().map(|tap| tap.1).sum();
        if (op.exclude_outside || stretch != 1.0) && total != 0.0 {
            taps.iter_mut().for_each(|tap| tap.1 /= total);
        }
        Some(taps)
    }
}

fn nearest_index(mode: NearestMode, x: f64) -> f64 {
    match mode {
        NearestMode::RoundPreferFloor => (x - 0.5).ceil(),
        NearestMode::RoundPreferCeil => (x + 0.5).floor(),
        NearestMode::Floor => x.floor(),
        NearestMode::Ceil => x.ceil(),
    }
}

/// The cubic convolution kernel with coefficient `a`.
pub(super) fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

/// Every output coordinate reads just one element of the input: bytes are moved.
fn nearest(x: &Tensor, taps: &[Vec<Taps>]) -> Result<Tensor, String> {
    by_width!(x.dtype(), N => {
        let (mut dims, mut data) = (Dims::from_slice(x.dims()), layout::units::<N>(x)?);
        for (axis, taps) in taps.iter().enumerate() {
            let picks: Vec<Option<usize>> =
                taps.iter().map(|taps| taps.as_ref().and_then(|taps| taps.first()).map(|tap| tap.0)).collect();
            if picks.iter().enumerate().all(|(at, pick)| *pick == Some(at)) && dims.get(axis) == Some(&picks.len()) {
                continue;
            }
            let (taken, elements) = layout::take(&data, &dims, axis, &picks, [0; N])?;
            (dims, data) = (taken, Cow::Owned(elements));
        }
        layout::from_units(x.dtype(), &dims, data.into_owned())
    })
}

/// Weighted sums along one axis after the other; `fill` where an axis reads outside of its region.
fn resample<T: Real>(data: Cow<'_, [T]>, dims: &[usize], taps: &[Vec<Taps>], fill: T) -> Result<Vec<T>, String> {
    let (mut dims, mut data) = (Dims::from_slice(dims), data);
    for (axis, taps) in taps.iter().enumerate() {
        let is_copy = |(at, taps): (usize, &Taps)| taps.as_deref() == Some(&[(at, 1.0)]);
        let (_, size, inner) = around(&dims, axis);
        if size == taps.len() && taps.iter().enumerate().all(is_copy) {
            continue;
        }
        if let Some(dim) = dims.get_mut(axis) {
            *dim = taps.len();
        }
        let mut output = filled(&dims, T::ZERO)?;
        in_rows(&mut output, inner, &|row, output| {
            let from = row / taps.len() * size;
            for (index, weight) in taps[row % taps.len()].iter().flatten() {
                let (start, weight) = ((from + index) * inner, T::real(*weight));
                let data = &data[start..start + inner];
                output.iter_mut().zip(data).for_each(|(to, x)| *to = *to + weight * *x);
            }
        });
        data = Cow::Owned(output);
    }
    let mut data = data.into_owned();
    // Last, so that the fill of one axis is not weighed by another.
    for (axis, taps) in taps.iter().enumerate().filter(|(_, taps)| taps.iter().any(Option::is_none)) {
        let inner = around(&dims, axis).2;
        in_rows(&mut data, inner, &|row, output| {
            if taps[row % taps.len()].is_none() {
                output.fill(fill);
            }
        });
    }
    Ok(data)
}
