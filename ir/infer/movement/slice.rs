//! Slices: bounds that count from either end and are clamped to the axis.

use ndarray::{Axis, Slice as ArraySlice};
use smallvec::SmallVec;

use super::fresh_shape;
use crate::infer::elements::{Elements, elements, known};
use crate::infer::{InferContext, Inputs, resolve_axes, shaped};
use crate::op::Slice;
use crate::{Dim, ValueInfo};

/// Bounds so far out mean the end of the axis.
const FAR: i64 = i32::MAX as i64;

/// The cut along one axis.
struct Cut {
    axis: usize,
    start: Dim,
    end: Dim,
    step: i64,
}

pub(super) fn slice(op: &Slice, inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<ValueInfo, String> {
    let x = inputs.required(0)?;
    let Some(data) = &x.shape else { return Ok(shaped(x.dtype, None)) };
    let mut shape = data.clone();
    let cuts = if op.starts.is_some() { attribute_cuts(op, data.len())? } else { input_cuts(inputs, data.len())? };
    let cuts = match cuts {
        Cuts::Known(cuts) => cuts,
        Cuts::Axes(axes) => {
            for axis in axes {
                if let Some(dim) = shape.get_mut(axis) {
                    *dim = context.fresh(&format!("d{axis}"));
                }
            }
            return Ok(shaped(x.dtype, Some(shape)));
        }
        Cuts::Unknown => return Ok(shaped(x.dtype, Some(fresh_shape(data.len(), context)))),
    };
    for cut in &cuts {
        let Some(dim) = shape.get_mut(cut.axis) else { continue };
        *dim = cut_length(cut, dim).unwrap_or_else(|| context.fresh(&format!("d{}", cut.axis)));
    }
    let result = elements(x).and_then(|x| cuts.iter().try_fold(x, cut_elements));
    Ok(known(x.dtype, Some(shape), result))
}

/// What is known of the cuts.
enum Cuts {
    Known(SmallVec<[Cut; 2]>),
    /// Only the axes that are cut.
    Axes(SmallVec<[usize; 4]>),
    Unknown,
}

fn attribute_cuts(op: &Slice, rank: usize) -> Result<Cuts, String> {
    let missing = |what: &str| format!("{what} is missing");
    let axes = op.axes.as_ref().ok_or_else(|| missing("axes"))?;
    let starts = op.starts.as_ref().ok_or_else(|| missing("starts"))?;
    let ends = op.ends.as_ref().ok_or_else(|| missing("ends"))?;
    let steps = op.steps.as_ref().ok_or_else(|| missing("steps"))?;
    let axes = resolve_axes(axes, rank)?;
    // These bounds count from the start; only an end of -1 means "before the first element".
    let from_start = |bound: &Dim| bound.maximum(&Dim::fixed(0));
    let end = |(end, step): (&Dim, &i64)| if *step < 0 && end.is(-1) { Dim::fixed(-FAR) } else { from_start(end) };
    let starts: Vec<Dim> = starts.iter().map(from_start).collect();
    let ends: Vec<Dim> = ends.iter().zip(steps).map(end).collect();
    cuts(&axes, &starts, &ends, steps)
}

fn input_cuts(inputs: Inputs<'_>, rank: usize) -> Result<Cuts, String> {
    let (starts, ends) = (inputs.required(1)?, inputs.required(2)?);
    let count = [Some(starts), Some(ends), inputs.optional(3)]
        .into_iter()
        .flatten()
        .find_map(|info| usize::try_from(info.numel()?.value()?).ok());
    let axes = match (inputs.optional(3), count) {
        (Some(axes), _) => match axes.known_ints() {
            Some(axes) => resolve_axes(&axes, rank)?,
            None => return Ok(Cuts::Unknown),
        },
        (None, Some(count)) if count > rank => return Err(format!("{count} starts for rank {rank}")),
        (None, Some(count)) => (0..count).collect(),
        (None, None) => return Ok(Cuts::Unknown),
    };
    let steps = match inputs.optional(4) {
        Some(steps) => steps.known_ints(),
        None => Some(vec![1; axes.len()]),
    };
    match (starts.known_elements(), ends.known_elements(), steps) {
        (Some(starts), Some(ends), Some(steps)) => cuts(&axes, &starts, &ends, &steps),
        _ => Ok(Cuts::Axes(axes)),
    }
}

fn cuts(axes: &[usize], starts: &[Dim], ends: &[Dim], steps: &[i64]) -> Result<Cuts, String> {
    if starts.len() != axes.len() || ends.len() != axes.len() || steps.len() != axes.len() {
        let (starts, ends, steps) = (starts.len(), ends.len(), steps.len());
        return Err(format!("{starts} starts, {ends} ends and {steps} steps for {} axes", axes.len()));
    }
    if steps.contains(&0) {
        return Err("step of 0".to_string());
    }
    let bounds = starts.iter().zip(ends).zip(steps);
    let cut = |(axis, ((start, end), step)): (&usize, ((&Dim, &Dim), &i64))| Cut {
        axis: *axis,
        start: start.clone(),
        end: end.clone(),
        step: *step,
    };
    Ok(Cuts::Known(axes.iter().zip(bounds).map(cut).collect()))
}

/// Elements that a cut leaves of an axis; `None` if a bound may count from either end.
fn cut_length(cut: &Cut, size: &Dim) -> Option<Dim> {
    let zero = Dim::fixed(0);
    let beyond_end = |bound: &Dim| bound.value().is_some_and(|bound| bound >= FAR);
    let beyond_start = |bound: &Dim| bound.value().is_some_and(|bound| bound <= -FAR);
    if cut.step > 0 {
        if beyond_end(&cut.start) || beyond_start(&cut.end) {
            return Some(zero);
        }
        let step = Dim::fixed(cut.step.min(FAR));
        let to_end = beyond_end(&cut.end) || cut.end == *size;
        let start = if beyond_start(&cut.start) { &zero } else { &cut.start };
        // The last elements: no more than there are.
        if let (Some(start), true) = (start.value().filter(|start| *start < 0), to_end) {
            return Dim::fixed(start.saturating_neg()).minimum(size).ceil_div(&step);
        }
        let start = from_start(start, size)?.maximum(&zero);
        let end = if to_end { size.clone() } else { from_start(&cut.end, size)?.minimum(size) };
        (end - start).maximum(&zero).ceil_div(&step)
    } else {
        if beyond_end(&cut.end) {
            return Some(zero);
        }
        let last = size - &Dim::fixed(1);
        let before = Dim::fixed(-1);
        let start = if beyond_end(&cut.start) || cut.start.is(-1) {
            last
        } else if beyond_start(&cut.start) {
            zero.minimum(&last)
        } else {
            // A first element before the first one is the first one, not none, where there is one.
            from_start(&cut.start, size)?.maximum(&zero).minimum(&last)
        };
        let end = if beyond_start(&cut.end) { before } else { from_start(&cut.end, size)?.maximum(&before) };
        (start - end).maximum(&zero).ceil_div(&Dim::fixed(cut.step.saturating_neg().min(FAR)))
    }
}

/// A bound counted from the start of the axis, not yet clamped.
fn from_start(bound: &Dim, size: &Dim) -> Option<Dim> {
    if bound.at_least(0) {
        Some(bound.clone())
    } else if (-bound).at_least(1) {
        Some(size + bound)
    } else {
        None
    }
}

fn cut_elements(x: Elements, cut: &Cut) -> Option<Elements> {
    let size = i64::try_from(*x.shape().get(cut.axis)?).ok()?;
    let fixed = |bound: &Dim| from_start(bound, &Dim::fixed(size))?.value();
    let (start, end) = (fixed(&cut.start)?, fixed(&cut.end)?);
    if size == 0 {
        return Some(x);
    }
    let indices: Vec<usize> = if cut.step > 0 {
        let (start, end) = (start.clamp(0, size), end.clamp(0, size));
        if start == 0 && end == size && cut.step == 1 {
            return Some(x);
        }
        if cut.step == 1 {
            let range = ArraySlice::new(start as isize, Some(end.max(start) as isize), 1);
            return Some(x.slice_axis(Axis(cut.axis), range).to_owned());
        }
        (start..end).step_by(usize::try_from(cut.step).ok()?).map(|at| at as usize).collect()
    } else {
        let (start, end) = (start.min(size - 1).max(0), end.clamp(-1, size - 1));
        let step = usize::try_from(cut.step.checked_neg()?).ok()?;
        (end + 1..=start).rev().step_by(step).map(|at| at as usize).collect()
    };
    Some(x.select(Axis(cut.axis), &indices))
}
