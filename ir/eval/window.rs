//! Windows that slide over spatial axes: the geometry that convolutions and pooling share.

use smallvec::SmallVec;

use crate::{Dims, Padding};

/// One spatial axis of a sliding window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    /// Size of the data.
    pub(super) size: usize,
    /// Elements of the window.
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    /// Padding before the data.
    pub(super) before: usize,
    /// Padding after the data.
    pub(super) after: usize,
    /// Size of the output.
    pub(super) output: usize,
}

/// Spatial axes, the last one innermost.
pub(super) type Axes = SmallVec<[Axis; 3]>;

/// An operator's parameters for windows.
#[derive(Clone, Copy)]
pub(super) struct Windows<'a> {
    pub(super) kernel: &'a [usize],
    pub(super) strides: &'a [i64],
    pub(super) dilations: &'a [i64],
    pub(super) padding: &'a Padding,
    pub(super) ceil_mode: bool,
}

/// A parameter of one number an axis, as a positive number.
pub(super) fn positive(values: &[i64], axis: usize, what: &str) -> Result<usize, String> {
    let value = values.get(axis).ok_or_else(|| format!("{what} are {values:?}: too few"))?;
    // Beyond this, no product of two such numbers is safe.
    usize::try_from(*value)
        .ok()
        .filter(|value| (1..=1 << 30).contains(value))
        .ok_or_else(|| format!("{what} are {values:?}"))
}

/// Explicit padding of an axis, before and after; none given is none.
pub(super) fn pads(pads: &[i64], axis: usize, axes: usize) -> Result<(usize, usize), String> {
    let wrong = || format!("padding {pads:?} of {axes} axes");
    if pads.is_empty() {
        return Ok((0, 0));
    }
    if pads.len() != 2 * axes {
        return Err(wrong());
    }
    let pad = |at: usize| {
        let pad = pads.get(at).and_then(|pad| usize::try_from(*pad).ok());
        pad.filter(|pad| *pad <= 1 << 30).ok_or_else(wrong)
    };
    Ok((pad(axis)?, pad(axis + axes)?))
}

/// Splits a total padding in two, an odd element at the end or the beginning.
pub(super) fn halved(total: usize, odd_at_end: bool) -> (usize, usize) {
    let small = total / 2;
    if odd_at_end { (small, total - small) } else { (total - small, small) }
}

impl Windows<'_> {
    /// The axes of data of spatial size `sizes`.
    pub(super) fn axes(&self, sizes: &[usize]) -> Result<Axes, String> {
        if self.kernel.len() != sizes.len() {
            return Err(format!("a window of {:?} over {} spatial axes", self.kernel, sizes.len()));
        }
        let axis = |(axis, (size, kernel)): (usize, (&usize, &usize))| {
            let stride = positive(self.strides, axis, "strides")?;
            let dilation = positive(self.dilations, axis, "dilations")?;
            let (size, kernel) = (*size, *kernel);
            if kernel == 0 || kernel > 1 << 30 || size > 1 << 40 {
                return Err(format!("a window of {kernel} over {size} elements"));
            }
            let extent = (kernel - 1) * dilation + 1;
            let (before, after) = match self.padding {
                Padding::Explicit(explicit) => pads(explicit, axis, sizes.len())?,
                padding => {
                    let last = size.div_ceil(stride).saturating_sub(1) * stride;
                    halved((last + extent).saturating_sub(size), matches!(padding, Padding::SameUpper))
                }
            };
            let output = match self.padding {
                // Of nothing there is nothing: what `SAME_UPPER` says stays so with its padding as numbers.
                Padding::Explicit(_) if size == 0 && before + after + 1 == extent => 0,
                Padding::Explicit(_) => {
                    let Some(room) = (size + before + after).checked_sub(extent) else {
                        return Err(format!(
                            "a window of {extent} over {size} elements and {before} + {after} padding"
                        ));
                    };
                    if self.ceil_mode {
                        let output = room.div_ceil(stride) + 1;
                        // A window may not begin in the padding at the end.
                        if (output - 1) * stride >= size + before { output - 1 } else { output }
                    } else {
                        room / stride + 1
                    }
                }
                _ => size.div_ceil(stride),
            };
            Ok(Axis { size, kernel, stride, dilation, before, after, output })
        };
        sizes.iter().zip(self.kernel).enumerate().map(axis).collect()
    }
}

/// Output sizes.
pub(super) fn outputs(axes: &[Axis]) -> Dims {
    axes.iter().map(|axis| axis.output).collect()
}

impl Axis {
    /// The index in the data of element `tap` of window `at`; outside of `0..size` it lies in the padding.
    pub(super) fn source(&self, at: usize, tap: usize) -> Option<usize> {
        (at * self.stride + tap * self.dilation).checked_sub(self.before).filter(|index| *index < self.size)
    }

    /// The windows whose element `tap` lies in the data: a range of outputs.
    pub(super) fn inside(&self, tap: usize) -> std::ops::Range<usize> {
        let shift = tap * self.dilation;
        let first = self.before.saturating_sub(shift).div_ceil(self.stride);
        // One past the last with at * stride + shift < before + size.
        let end = (self.before + self.size).saturating_sub(shift).div_ceil(self.stride).min(self.output);
        first.min(end)..end
    }
}

/// The multi-index of `flat` within `dims`, row-major.
pub(super) fn unravel(mut flat: usize, dims: impl DoubleEndedIterator<Item = usize> + ExactSizeIterator) -> Dims {
    let mut index = Dims::from_elem(0, dims.len());
    for (slot, dim) in index.iter_mut().zip(dims).rev() {
        *slot = flat % dim.max(1);
        flat /= dim.max(1);
    }
    index
}
