//! Convolutions, and the arithmetic of windows that pooling shares.

use smallvec::SmallVec;

use super::math::broadcasts_to;
use super::{Infos, Inputs, join_dtypes, one, shaped, unify};
use crate::op::{Conv, ConvTranspose, Epilogue};
use crate::{Dim, Ints, Padding, Shape, ValueInfo};

/// Windows over the spatial axes of an operator.
pub(super) struct Windows<'a> {
    pub kernel: &'a [Dim],
    pub strides: &'a [i64],
    pub dilations: &'a [i64],
    pub padding: &'a Padding,
}

impl Windows<'_> {
    /// Checks that every parameter has one number an axis, of a sensible size.
    pub(super) fn check(&self, axes: usize) -> Result<(), String> {
        let counts =
            [("kernel", self.kernel.len()), ("strides", self.strides.len()), ("dilations", self.dilations.len())];
        for (what, count) in counts {
            if count != axes {
                return Err(format!("{what} of {count} axes for {axes} spatial axes"));
            }
        }
        for (what, numbers) in [("stride", self.strides), ("dilation", self.dilations)] {
            if let Some(number) = numbers.iter().find(|number| **number < 1) {
                return Err(format!("{what} of {number}"));
            }
        }
        if let Some(size) = self.kernel.iter().find(|size| size.value().is_some_and(|size| size < 1)) {
            return Err(format!("kernel of {size}"));
        }
        match self.padding {
            Padding::Explicit(pads) if pads.len() != 2 * axes => {
                Err(format!("padding of {} numbers for {axes} spatial axes", pads.len()))
            }
            _ => Ok(()),
        }
    }

    /// Elements from a window's first to its last along an axis.
    pub(super) fn extent(&self, axis: usize) -> Dim {
        let (kernel, dilation) = (self.kernel.get(axis), self.dilations.get(axis));
        let kernel = kernel.cloned().unwrap_or(Dim::fixed(1));
        (kernel - Dim::fixed(1)) * Dim::fixed(dilation.copied().unwrap_or(1)) + Dim::fixed(1)
    }

    pub(super) fn stride(&self, axis: usize) -> i64 {
        self.strides.get(axis).copied().unwrap_or(1)
    }

    /// Elements before and after an axis, if they are explicit.
    pub(super) fn pads(&self, axis: usize) -> Option<(i64, i64)> {
        let (before, after) = self.padding.explicit()?;
        Some((*before.get(axis)?, *after.get(axis)?))
    }

    /// Number of windows along an axis of `size` elements, rounded down.
    pub(super) fn count(&self, axis: usize, size: &Dim) -> Result<Dim, String> {
        let stride = Dim::fixed(self.stride(axis));
        let zero_stride = || "stride of 0".to_string();
        match self.pads(axis) {
            None => size.ceil_div(&stride).ok_or_else(zero_stride),
            Some(_) => Ok(self.steps(axis, size)?.floor_div(&stride).ok_or_else(zero_stride)? + Dim::fixed(1)),
        }
    }

    /// How far a window can move along a padded axis.
    pub(super) fn steps(&self, axis: usize, size: &Dim) -> Result<Dim, String> {
        let (before, after) = self.pads(axis).unwrap_or((0, 0));
        let padded = size + &Dim::fixed(before.saturating_add(after));
        let extent = self.extent(axis);
        let steps = &padded - &extent;
        // Of nothing there is nothing: what `SAME_UPPER` says stays so with its padding as numbers.
        let is_of_nothing = size.value() == Some(0) && steps.value() == Some(-1);
        if steps.value().is_some_and(|steps| steps < 0) && !is_of_nothing {
            return Err(format!("window of {extent} on {padded} padded elements of axis {}", axis + 2));
        }
        Ok(steps)
    }
}

/// The padding of every spatial axis as numbers: elements before each axis, then after each.
///
/// All slices have one number a spatial axis; `input` is the size of the data.
///
/// # Errors
/// If the numbers of axes differ or a stride is not positive.
pub fn explicit_padding(
    padding: &Padding,
    kernel: &[i64],
    strides: &[i64],
    dilations: &[i64],
    input: &[i64],
) -> Result<Ints, String> {
    let dims: Vec<Dim> = kernel.iter().copied().map(Dim::fixed).collect();
    let windows = Windows { kernel: &dims, strides, dilations, padding };
    windows.check(input.len())?;
    if let Padding::Explicit(pads) = padding {
        return Ok(pads.clone());
    }
    let totals = input.iter().enumerate().map(|(axis, size)| {
        let count = windows.count(axis, &Dim::fixed(*size))?.value().unwrap_or(0);
        let extent = windows.extent(axis).value().unwrap_or(1);
        let covered = count.saturating_sub(1).saturating_mul(windows.stride(axis)).saturating_add(extent);
        Ok(covered.saturating_sub(*size).max(0))
    });
    let totals: Vec<i64> = totals.collect::<Result<_, String>>()?;
    Ok(halves(&totals, *padding == Padding::SameUpper))
}

/// Totals split in two; an odd element goes to the end or to the beginning.
fn halves(totals: &[i64], odd_to_end: bool) -> Ints {
    let smaller = totals.iter().map(|total| total / 2);
    let larger = totals.iter().map(|total| total - total / 2);
    if odd_to_end { smaller.chain(larger).collect() } else { larger.chain(smaller).collect() }
}

/// The padding that a transposed convolution takes away from its output, as numbers: before each spatial axis, then
/// after each. `kernel` and `input` have one number a spatial axis.
///
/// # Errors
/// If the numbers of axes differ.
pub fn explicit_transposed_padding(op: &ConvTranspose, kernel: &[i64], input: &[i64]) -> Result<Ints, String> {
    let dims: Vec<Dim> = kernel.iter().copied().map(Dim::fixed).collect();
    let windows = Windows { kernel: &dims, strides: &op.strides, dilations: &op.dilations, padding: &op.padding };
    windows.check(input.len())?;
    let stated = transposed_sizes(op, &windows, &input.iter().copied().map(Dim::fixed).collect())?;
    let (Some(sizes), false) = (stated, op.output_shape.is_none() && op.padding.explicit().is_some()) else {
        return Ok(op.padding.explicit().map(|(before, after)| [before, after].concat().into()).unwrap_or_default());
    };
    let totals: Vec<i64> = input
        .iter()
        .enumerate()
        .map(|(axis, size)| {
            let full = unpadded_transposed_size(op, &windows, axis, &Dim::fixed(*size)).value().unwrap_or(0);
            let wanted = sizes.get(axis).and_then(Dim::value).unwrap_or(0);
            full.saturating_sub(wanted).max(0)
        })
        .collect();
    Ok(halves(&totals, op.padding == Padding::SameUpper))
}

pub(super) fn conv(op: &Conv, inputs: Inputs<'_>) -> Result<Infos, String> {
    let (x, weight) = (inputs.required(0)?, inputs.required(1)?);
    let dtype = join_dtypes(x.dtype, weight.dtype)?;
    let (Some(data), Some(filter)) = (&x.shape, &weight.shape) else {
        return Ok(one(shaped(dtype, None)));
    };
    let axes = check_ranks(data, filter)?;
    let (Some([batch, channels]), Some([outputs, taken])) = (data.first_chunk(), filter.first_chunk()) else {
        return Err(format!("data of rank {}", data.len()));
    };
    if op.groups < 1 {
        return Err(format!("{} groups", op.groups));
    }
    let expected = taken * &Dim::fixed(op.groups);
    unify(channels, &expected).map_err(|_| format!("data of {channels} channels, weight for {expected}"))?;
    check_divisible(outputs, op.groups)?;
    check_bias(inputs.optional(2), outputs, x)?;
    let kernel: Vec<Dim> = filter.iter().skip(2).cloned().collect();
    let windows = Windows { kernel: &kernel, strides: &op.strides, dilations: &op.dilations, padding: &op.padding };
    windows.check(axes)?;
    let mut shape = Shape::from_iter([batch.clone(), outputs.clone()]);
    for (axis, size) in data.iter().skip(2).enumerate() {
        shape.push(windows.count(axis, size)?);
    }
    let shape = epilogue(&op.epilogue, inputs, 3, shape)?;
    Ok(one(shaped(dtype, Some(shape))))
}

pub(super) fn conv_transpose(op: &ConvTranspose, inputs: Inputs<'_>) -> Result<Infos, String> {
    let (x, weight) = (inputs.required(0)?, inputs.required(1)?);
    let dtype = join_dtypes(x.dtype, weight.dtype)?;
    let (Some(data), Some(filter)) = (&x.shape, &weight.shape) else {
        return Ok(one(shaped(dtype, None)));
    };
    let axes = check_ranks(data, filter)?;
    let (Some([batch, channels]), Some([taken, given])) = (data.first_chunk(), filter.first_chunk()) else {
        return Err(format!("data of rank {}", data.len()));
    };
    if op.groups < 1 {
        return Err(format!("{} groups", op.groups));
    }
    unify(channels, taken).map_err(|_| format!("data of {channels} channels, weight for {taken}"))?;
    check_divisible(channels, op.groups)?;
    let outputs = given * &Dim::fixed(op.groups);
    check_bias(inputs.optional(2), &outputs, x)?;
    let kernel: Vec<Dim> = filter.iter().skip(2).cloned().collect();
    let windows = Windows { kernel: &kernel, strides: &op.strides, dilations: &op.dilations, padding: &op.padding };
    windows.check(axes)?;
    let spatial: Shape = data.iter().skip(2).cloned().collect();
    let sizes = match transposed_sizes(op, &windows, &spatial)? {
        Some(sizes) => sizes,
        None => spatial
            .iter()
            .enumerate()
            .map(|(axis, size)| {
                let (before, after) = windows.pads(axis).unwrap_or((0, 0));
                let size =
                    unpadded_transposed_size(op, &windows, axis, size) - Dim::fixed(before.saturating_add(after));
                if size.value().is_some_and(|size| size < 0) {
                    return Err(format!("axis {} would have {size} elements", axis + 2));
                }
                Ok(size)
            })
            .collect::<Result<_, String>>()?,
    };
    let shape = [batch.clone(), outputs].into_iter().chain(sizes).collect();
    let shape = epilogue(&op.epilogue, inputs, 3, shape)?;
    Ok(one(shaped(dtype, Some(shape))))
}

/// The spatial sizes of the output, where the model states them or padding follows from them.
fn transposed_sizes(op: &ConvTranspose, windows: &Windows<'_>, spatial: &Shape) -> Result<Option<Shape>, String> {
    if let Some(stated) = &op.output_shape {
        if stated.len() != spatial.len() {
            return Err(format!("output shape of {} axes for {} spatial axes", stated.len(), spatial.len()));
        }
        return Ok(Some(stated.iter().copied().map(Dim::fixed).collect()));
    }
    if op.padding.explicit().is_some() {
        return Ok(None);
    }
    let sizes = spatial.iter().enumerate().map(|(axis, size)| size * &Dim::fixed(windows.stride(axis)));
    Ok(Some(sizes.collect()))
}

fn unpadded_transposed_size(op: &ConvTranspose, windows: &Windows<'_>, axis: usize, size: &Dim) -> Dim {
    let added = op.output_padding.get(axis).copied().unwrap_or(0);
    (size - &Dim::fixed(1)) * Dim::fixed(windows.stride(axis)) + windows.extent(axis) + Dim::fixed(added)
}

/// The number of spatial axes.
fn check_ranks(data: &Shape, filter: &Shape) -> Result<usize, String> {
    if data.len() != filter.len() || data.len() < 2 {
        return Err(format!("data of rank {} and weight of rank {}", data.len(), filter.len()));
    }
    Ok(data.len() - 2)
}

fn check_divisible(channels: &Dim, groups: i64) -> Result<(), String> {
    match channels.value() {
        Some(count) if count % groups != 0 => Err(format!("{count} channels in {groups} groups")),
        _ => Ok(()),
    }
}

fn check_bias(bias: Option<&ValueInfo>, channels: &Dim, x: &ValueInfo) -> Result<(), String> {
    let Some(bias) = bias else { return Ok(()) };
    join_dtypes(bias.dtype, x.dtype)?;
    match bias.shape.as_deref() {
        None => Ok(()),
        Some([size]) => unify(size, channels).map(drop).map_err(|_| format!("bias of {size} for {channels} channels")),
        Some(shape) => Err(format!("bias of rank {}", shape.len())),
    }
}

/// Checks the extra inputs of an epilogue, each of the output's very shape. They may know a dimension better.
fn epilogue(epilogue: &Epilogue, inputs: Inputs<'_>, first: usize, mut shape: Shape) -> Result<Shape, String> {
    for slot in first..first + epilogue.adds() {
        let Some(added) = &inputs.required(slot)?.shape else { continue };
        if added.len() != shape.len() {
            return Err(format!("input {slot} of rank {} added to rank {}", added.len(), shape.len()));
        }
        shape = shape
            .iter()
            .zip(added)
            .map(|(size, added)| unify(size, added).map_err(|_| format!("input {slot}: {added} added to {size}")))
            .collect::<Result<SmallVec<_>, String>>()?;
    }
    Ok(shape)
}

/// Checks the extra inputs of an epilogue whose adds may broadcast to the output.
pub(super) fn broadcast_epilogue(
    epilogue: &Epilogue,
    inputs: Inputs<'_>,
    first: usize,
    shape: &Shape,
) -> Result<(), String> {
    for slot in first..first + epilogue.adds() {
        if let Some(added) = &inputs.required(slot)?.shape {
            broadcasts_to(added, shape).map_err(|reason| format!("input {slot}: {reason}"))?;
        }
    }
    Ok(())
}
