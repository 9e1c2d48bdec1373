//! Convolutions: as matrix products over tiles of columns, and depthwise ones directly.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, ArrayViewMut3, Axis as NdAxis};
use rayon::prelude::*;

use super::activation::apply_epilogue;
use super::layout::{Operand, filled, in_parallel, in_rows, product, zip_assign};
use super::number::{Number, Real, for_real, load_real, phrase};
use super::window::{self, Axes, Axis, Windows, unravel};
use super::{Inputs, Tensors, one};
use crate::{DType, Dims, Epilogue, Padding, Tensor, op};

/// Elements of a tile of columns: it should stay in the second-level cache.
const TILE: usize = 1 << 18;

/// Fewest columns of a tile, so that packing the weight pays.
const LEAST_COLUMNS: usize = 64;

/// The sizes of a convolution: `[n, groups * channels, spatial...]` and a weight for `groups * filters` outputs.
struct Sizes {
    batch: usize,
    groups: usize,
    /// Input channels of a group.
    channels: usize,
    /// Output channels of a group.
    filters: usize,
}

pub(super) fn conv(op: &op::Conv, inputs: Inputs<'_>) -> Result<Tensors, String> {
    let (x, w) = (inputs.required(0)?, inputs.required(1)?);
    let ([batch, channels, sizes @ ..], [filters, group_channels, kernel @ ..]) = (x.dims(), w.dims()) else {
        return Err(format!("data {:?} and weight {:?}", x.dims(), w.dims()));
    };
    let groups = window::positive(&[op.groups], 0, "groups")?;
    if group_channels.checked_mul(groups) != Some(*channels) || filters % groups != 0 {
        return Err(format!("data {:?} and weight {:?} in {groups} groups", x.dims(), w.dims()));
    }
    let windows =
        Windows { kernel, strides: &op.strides, dilations: &op.dilations, padding: &op.padding, ceil_mode: false };
    let axes = windows.axes(sizes)?;
    let mut dims = Dims::from_slice(&[*batch, *filters]);
    dims.extend(window::outputs(&axes));
    let sizes = Sizes { batch: *batch, groups, channels: *group_channels, filters: filters / groups };
    for_real!(x.dtype(), T => {
        let (data, weight) = (load_real::<T>(x)?, load_real::<T>(w)?);
        let mut output = filled(&dims, T::ZERO)?;
        if !output.is_empty() && !data.is_empty() && !weight.is_empty() {
            if sizes.channels == 1 {
                depthwise(&data, &weight, &mut output, &sizes, &axes);
            } else {
                by_products(&data, &weight, &mut output, &sizes, &axes)?;
            }
        }
        one(finish(&op.epilogue, inputs, x.dtype(), &dims, output))
    })
}

/// Adds the bias, applies the epilogue and rounds.
fn finish<T: Real>(
    epilogue: &Epilogue,
    inputs: Inputs<'_>,
    dtype: DType,
    dims: &[usize],
    mut output: Vec<T>,
) -> Result<Tensor, String> {
    let [_, filters, sizes @ ..] = dims else { return Err(format!("an output of {dims:?}")) };
    if let Some(bias) = inputs.optional(2) {
        let elements = load_real::<T>(bias)?;
        if bias.dims() != [*filters] {
            return Err(format!("a bias of {:?} for {filters} channels", bias.dims()));
        }
        in_rows(&mut output, product(sizes), &|row, output| {
            let bias = elements[row % filters];
            output.iter_mut().for_each(|x| *x = *x + bias);
        });
    }
    apply_epilogue(epilogue, &mut output, |at, output| {
        let residual = inputs.required(3 + at)?;
        if residual.dims() != dims {
            return Err(format!("{:?} is added to an output of {dims:?}", residual.dims()));
        }
        zip_assign(output, dims, &Operand::new(load_real::<T>(residual)?, dims)?, T::plus)
    })?;
    T::store(dtype, dims, output)
}

/// One channel a group: each output plane is a sum of shifted copies of one input plane.
fn depthwise<T: Real>(data: &[T], weight: &[T], output: &mut [T], sizes: &Sizes, axes: &Axes) {
    let (plane, taps) = (axes.iter().map(|axis| axis.size).product::<usize>(), taps(axes));
    let length = axes.iter().map(|axis| axis.output).product();
    let planes = sizes.groups * sizes.filters;
    in_parallel(output, length, &|row, output| {
        let (n, filter) = (row / planes, row % planes);
        let from = (n * sizes.groups + filter / sizes.filters) * plane;
        let data = &data[from..from + plane];
        for (tap, weight) in weight[filter * taps..(filter + 1) * taps].iter().enumerate() {
            for_each_run(axes, tap, 0, length, |to, from, length, stride| {
                let output = &mut output[to..to + length];
                let data = data[from..].iter().step_by(stride);
                output.iter_mut().zip(data).for_each(|(to, from)| *to = *to + *weight * *from);
            });
        }
    });
}

fn taps(axes: &[Axis]) -> usize {
    axes.iter().map(|axis| axis.kernel).product()
}

/// Calls `run(to, from, length, stride)` for the runs of outputs `start..end` (flat indices; `to` counts from `start`)
/// whose window element `tap` lies in the data: consecutive outputs read the data from `from` on by `stride`.
fn for_each_run(axes: &[Axis], tap: usize, start: usize, end: usize, mut run: impl FnMut(usize, usize, usize, usize)) {
    let Some((last, outer)) = axes.split_last() else {
        // No spatial axis: one output, one tap, one element.
        return run(0, 0, 1, 1);
    };
    let taps = unravel(tap, axes.iter().map(|axis| axis.kernel));
    let inner_tap = taps.last().copied().unwrap_or_default();
    let inside = last.inside(inner_tap);
    let mut at = start;
    while at < end {
        let (row, column) = (at / last.output, at % last.output);
        let stop = last.output.min(column + (end - at));
        let (from, to) = (inside.start.max(column), inside.end.min(stop));
        if from < to {
            let index = unravel(row, outer.iter().map(|axis| axis.output));
            let base = outer
                .iter()
                .zip(&index)
                .zip(&taps)
                .try_fold(0, |base, ((axis, at), tap)| Some(base * axis.size + axis.source(*at, *tap)?));
            if let (Some(base), Some(first)) = (base, last.source(from, inner_tap)) {
                run(at + from - column - start, base * last.size + first, to - from, last.stride);
            }
        }
        at += stop - column;
    }
}

/// Whether the data itself is the matrix of columns.
fn is_pointwise(axes: &[Axis]) -> bool {
    axes.iter().all(|axis| axis.kernel == 1 && axis.stride == 1 && axis.before == 0 && axis.after == 0)
}

/// A tile of the output to compute: batch * groups + group, first row, first column, its elements.
struct Tile<'a, T> {
    block: usize,
    row: usize,
    column: usize,
    output: ArrayViewMut2<'a, T>,
}

/// Cuts an output of `[blocks, rows, columns]` into tiles, enough of them for all threads.
fn tiles<T>(output: ArrayViewMut3<'_, T>, width: usize) -> Vec<Tile<'_, T>> {
    let (blocks, rows, columns) = output.dim();
    let threads = rayon::current_num_threads();
    let per_row = blocks * columns.div_ceil(width);
    let height = if per_row >= threads { rows } else { rows.div_ceil(threads.div_ceil(per_row)).max(16).min(rows) };
    let mut tiles = Vec::new();
    for (block, output) in output.into_axis_iter_mut(NdAxis(0)).enumerate() {
        for (row, output) in output.into_axis_chunks_iter_mut(NdAxis(0), height).enumerate() {
            for (column, output) in output.into_axis_chunks_iter_mut(NdAxis(1), width).enumerate() {
                tiles.push(Tile { block, row: row * height, column: column * width, output });
            }
        }
    }
    tiles
}

fn by_products<T: Real>(data: &[T], weight: &[T], output: &mut [T], sizes: &Sizes, axes: &Axes) -> Result<(), String> {
    let plane = axes.iter().map(|axis| axis.size).product::<usize>();
    let length = axes.iter().map(|axis| axis.output).product::<usize>();
    let depth = sizes.channels * taps(axes);
    let blocks = sizes.batch * sizes.groups;
    let weights = ArrayView2::from_shape((sizes.groups * sizes.filters, depth), weight).map_err(phrase)?;
    let output = ArrayViewMut3::from_shape((blocks, sizes.filters, length), output).map_err(phrase)?;
    let threads = rayon::current_num_threads();
    let width = (TILE / depth).max(LEAST_COLUMNS).min(length.div_ceil(threads).max(LEAST_COLUMNS)).min(length);
    let pointwise = is_pointwise(axes);
    tiles(output, width).into_par_iter().for_each_init(Vec::new, |columns, mut tile| {
        let (rows, width) = tile.output.dim();
        let first = tile.block % sizes.groups * sizes.filters + tile.row;
        let weights = weights.slice(ndarray::s![first..first + rows, ..]);
        let from = tile.block * sizes.channels * plane;
        let data = &data[from..from + sizes.channels * plane];
        let product = |columns: ArrayView2<'_, T>, output: &mut ArrayViewMut2<'_, T>| {
            general_mat_mul(T::ONE, &weights, &columns, T::ZERO, output);
        };
        if pointwise {
            if let Ok(data) = ArrayView2::from_shape((sizes.channels, plane), data) {
                product(data.slice(ndarray::s![.., tile.column..tile.column + width]), &mut tile.output);
            }
        } else {
            fill_columns(columns, data, sizes.channels, axes, tile.column..tile.column + width);
            if let Ok(columns) = ArrayView2::from_shape((depth, width), columns) {
                product(columns, &mut tile.output);
            }
        }
    });
    Ok(())
}

/// The matrix whose column holds what the window of an output sees: `[channels * taps, outputs]`.
fn fill_columns<T: Real>(
    columns: &mut Vec<T>,
    data: &[T],
    channels: usize,
    axes: &Axes,
    outputs: std::ops::Range<usize>,
) {
    let (plane, taps) = (axes.iter().map(|axis| axis.size).product::<usize>(), taps(axes));
    let width = outputs.len();
    columns.clear();
    columns.resize(channels * taps * width, T::ZERO);
    for tap in 0..taps {
        for_each_run(axes, tap, outputs.start, outputs.end, |to, from, length, stride| {
            for channel in 0..channels {
                let row = (channel * taps + tap) * width + to;
                let (columns, data) = (&mut columns[row..row + length], &data[channel * plane + from..]);
                if stride == 1 {
                    columns.copy_from_slice(&data[..length]);
                } else {
                    columns.iter_mut().zip(data.iter().step_by(stride)).for_each(|(to, from)| *to = *from);
                }
            }
        });
    }
}

pub(super) fn conv_transpose(op: &op::ConvTranspose, inputs: Inputs<'_>) -> Result<Tensors, String> {
    let (x, w) = (inputs.required(0)?, inputs.required(1)?);
    let ([batch, channels, sizes @ ..], [weight_channels, filters, kernel @ ..]) = (x.dims(), w.dims()) else {
        return Err(format!("data {:?} and weight {:?}", x.dims(), w.dims()));
    };
    let groups = window::positive(&[op.groups], 0, "groups")?;
    let filters_of_all = filters.checked_mul(groups).ok_or("too many groups")?;
    if channels != weight_channels || channels % groups != 0 || sizes.len() != kernel.len() {
        return Err(format!("data {:?} and weight {:?} in {groups} groups", x.dims(), w.dims()));
    }
    let axes: Axes = (0..sizes.len()).map(|axis| transposed_axis(op, axis, sizes, kernel)).collect::<Result<_, _>>()?;
    let mut dims = Dims::from_slice(&[*batch, filters_of_all]);
    dims.extend(axes.iter().map(|axis| axis.size));
    let sizes = Sizes { batch: *batch, groups, channels: channels / groups, filters: *filters };
    for_real!(x.dtype(), T => {
        let (data, weight) = (load_real::<T>(x)?, load_real::<T>(w)?);
        let mut output = filled(&dims, T::ZERO)?;
        if !output.is_empty() && !data.is_empty() && !weight.is_empty() {
            transposed(&data, &weight, &mut output, &sizes, &axes)?;
        }
        one(finish(&op.epilogue, inputs, x.dtype(), &dims, output))
    })
}

/// An axis of the convolution that a transposed one turns around: its output is our data, its data our output.
fn transposed_axis(op: &op::ConvTranspose, axis: usize, sizes: &[usize], kernel: &[usize]) -> Result<Axis, String> {
    let (input, kernel) = match (sizes.get(axis), kernel.get(axis)) {
        (Some(size), Some(kernel)) if *kernel > 0 && *kernel < 1 << 30 && *size < 1 << 30 => (*size, *kernel),
        _ => return Err(format!("a kernel of {kernel:?} over {sizes:?}")),
    };
    let stride = window::positive(&op.strides, axis, "strides")?;
    let dilation = window::positive(&op.dilations, axis, "dilations")?;
    let extra = op.output_padding.get(axis).copied().unwrap_or(0);
    let extra = usize::try_from(extra).ok().filter(|extra| *extra < 1 << 30).ok_or("output_padding is negative")?;
    let full = input.saturating_sub(1) * stride + extra + (kernel - 1) * dilation + 1;
    let stated = match (&op.output_shape, &op.padding) {
        (Some(shape), _) => Some(window::positive(shape, axis, "output_shape")?),
        (None, Padding::Explicit(_)) => None,
        (None, _) => Some(input * stride),
    };
    let (before, size) = match (stated, &op.padding) {
        (None, Padding::Explicit(pads)) => {
            let (before, after) = window::pads(pads, axis, sizes.len())?;
            let size =
                full.checked_sub(before + after).ok_or_else(|| format!("padding {pads:?} exceeds the output"))?;
            (before, size)
        }
        (stated, padding) => {
            let size = stated.unwrap_or(full);
            (window::halved(full.saturating_sub(size), matches!(padding, Padding::SameUpper)).0, size)
        }
    };
    Ok(Axis { size, kernel, stride, dilation, before, after: 0, output: input })
}

/// Each output plane is, tap by tap, a product of weights and data, scattered to where the tap reaches.
fn transposed<T: Real>(data: &[T], weight: &[T], output: &mut [T], sizes: &Sizes, axes: &Axes) -> Result<(), String> {
    let plane = axes.iter().map(|axis| axis.size).product::<usize>();
    let length = axes.iter().map(|axis| axis.output).product::<usize>();
    let taps = taps(axes);
    super::layout::check_size(&[taps, length], size_of::<T>())?;
    let weights =
        ArrayView2::from_shape((sizes.groups * sizes.channels, sizes.filters * taps), weight).map_err(phrase)?;
    let filters = sizes.groups * sizes.filters;
    in_parallel(output, plane, &|row, output| {
        let (n, group, filter) = (row / filters, row % filters / sizes.filters, row % sizes.filters);
        let channels = group * sizes.channels..(group + 1) * sizes.channels;
        let from = (n * sizes.groups + group) * sizes.channels * length;
        let data = ArrayView2::from_shape((sizes.channels, length), &data[from..from + sizes.channels * length]);
        let weights = weights.slice(ndarray::s![channels, filter * taps..(filter + 1) * taps]);
        let mut columns = vec![T::ZERO; taps * length];
        if let (Ok(data), Ok(mut columns)) = (data, ArrayViewMut2::from_shape((taps, length), &mut columns[..])) {
            general_mat_mul(T::ONE, &weights.t(), &data, T::ZERO, &mut columns);
        }
        for tap in 0..taps {
            let columns = &columns[tap * length..(tap + 1) * length];
            for_each_run(axes, tap, 0, length, |from, to, count, stride| {
                let output = output[to..].iter_mut().step_by(stride);
                output.zip(&columns[from..from + count]).for_each(|(to, from)| *to = *to + *from);
            });
        }
    });
    Ok(())
}
