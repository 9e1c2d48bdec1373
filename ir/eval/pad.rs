//! Padding, axis by axis.

use std::borrow::Cow;

use super::Inputs;
use super::layout::{self, by_width, check_size, collected, splat_like, take, units};
use super::number::{load_ints, phrase, same_dtype};
use crate::infer::resolve_axes;
use crate::op::{self, PadMode};
use crate::{Dims, Tensor};

pub(super) fn pad(op: &op::Pad, inputs: Inputs<'_>) -> Result<Tensor, String> {
    let x = inputs.required(0)?;
    let pads = match &op.pads {
        Some(pads) => pads.to_vec(),
        None => load_ints(inputs.required(1)?, "pads")?,
    };
    let axes: Dims = match inputs.optional(3) {
        Some(axes) => resolve_axes(&load_ints(axes, "axes")?, x.rank())?.iter().copied().collect(),
        None => (0..x.rank()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(format!("pads {pads:?} for {} axes", axes.len()));
    }
    let (before, after) = pads.split_at(axes.len());
    let fill = inputs.optional(2);
    if let Some(fill) = fill {
        same_dtype(x, fill)?;
    }
    let mut dims = Dims::from_slice(x.dims());
    let mut picks = Vec::new();
    // Each axis that changes copies the tensor.
    let bounds = axes.iter().zip(before).zip(after);
    for ((axis, before), after) in bounds.filter(|((_, before), after)| (**before, **after) != (0, 0)) {
        let size = x.dims().get(*axis).copied().unwrap_or(0);
        let picked = axis_picks(op.mode, size, *before, *after)?;
        if let Some(dim) = dims.get_mut(*axis) {
            *dim = picked.len();
        }
        picks.push((*axis, picked));
    }
    check_size(&dims, layout::width(x.dtype())?)?;
    if op.mode != PadMode::Constant
        && let Some(splat) = splat_like(x, &dims)
    {
        return splat;
    }
    picked(x, picks, fill)
}

pub(super) fn roll(op: &op::Roll, x: &Tensor) -> Result<Tensor, String> {
    let mut picks = Vec::new();
    for (axis, shift) in resolve_axes(&op.axes, x.rank())?.iter().zip(&op.shifts) {
        let size = x.dims().get(*axis).copied().unwrap_or(0);
        let shift = usize::try_from(*shift).ok().filter(|shift| *shift <= size);
        let shift = shift.ok_or_else(|| format!("shifts {:?} of {:?}", op.shifts, x.dims()))?;
        picks.push((*axis, (shift..size).chain(0..shift).map(Some).collect()));
    }
    picked(x, picks, None)
}

/// Axes whose elements are picked, `None` for the fill.
fn picked(x: &Tensor, picks: Vec<(usize, Vec<Option<usize>>)>, fill: Option<&Tensor>) -> Result<Tensor, String> {
    by_width!(x.dtype(), N => {
        let fill = match fill.map(units::<N>) {
            Some(fill) => *fill?.first().ok_or("the fill is empty")?,
            None => [0; N],
        };
        let (mut dims, mut data) = (Dims::from_slice(x.dims()), units::<N>(x)?);
        for (axis, picks) in picks {
            let (padded, elements) = take(&data, &dims, axis, &picks, fill)?;
            (dims, data) = (padded, Cow::Owned(elements));
        }
        layout::from_units(x.dtype(), &dims, data.into_owned())
    })
}

/// Which element of an axis each output element is, `None` for the fill.
fn axis_picks(mode: PadMode, size: usize, before: i64, after: i64) -> Result<Vec<Option<usize>>, String> {
    // What negative padding takes away is not there for the mode either.
    let whole = i64::try_from(size).map_err(phrase)?;
    let first = before.min(0).saturating_neg();
    let kept = whole.saturating_add(before.min(0)).saturating_add(after.min(0));
    if kept < 0 {
        return Err(format!("padding {before} and {after} of {size} elements"));
    }
    let total = kept.saturating_add(before.max(0)).saturating_add(after.max(0));
    let count = check_size(&[usize::try_from(total).map_err(phrase)?], size_of::<Option<usize>>())?;
    if kept == 0 && count > 0 && mode != PadMode::Constant {
        return Err("nothing to pad with".to_string());
    }
    let start = before.max(0);
    let pick = |at: usize| {
        // In `-start..count - start`, which fits.
        let at = at as i64 - start;
        let within = match mode {
            PadMode::Constant => (0..kept).contains(&at).then_some(at)?,
            PadMode::Edge => at.clamp(0, kept - 1),
            PadMode::Wrap => at.rem_euclid(kept),
            PadMode::Reflect => {
                let period = (2 * (kept - 1)).max(1);
                let at = at.rem_euclid(period);
                if kept == 1 { 0 } else { at.min(period - at) }
            }
        };
        usize::try_from(first + within).ok()
    };
    collected(count, pick)
}
