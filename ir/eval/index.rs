//! Operators whose indices are data. Every index is checked against its axis.

use std::borrow::Cow;

use bytemuck::Zeroable;

use super::cast::cast;
use super::layout::{around, by_width, check_size, filled, from_units, product, splat_like, strides, take, units};
use super::number::{Number, for_number, load_int, load_ints, phrase, same_dtype, view};
use super::window::unravel;
use super::{Inputs, Tensors, one};
use crate::infer::resolve_axis;
use crate::op::{self, ScatterReduction};
use crate::{DType, Dims, Op, Tensor, numel};

pub(super) fn eval(op: &Op, inputs: Inputs<'_>) -> Result<Tensors, String> {
    let x = inputs.required(0)?;
    one(match op {
        Op::Gather(op) => gather(op, x, inputs.required(1)?),
        Op::GatherElements(op) => gather_elements(op, x, inputs.required(1)?),
        Op::GatherNd(op) => gather_nd(op, x, inputs.required(1)?),
        Op::ScatterElements(op) => {
            let (indices, updates) = (inputs.required(1)?, inputs.required(2)?);
            let places = element_places(x.dims(), indices, op.axis)?;
            scatter(x, &places, updates, 1, op.reduction)
        }
        Op::ScatterNd(op) => scatter_nd(op, x, inputs.required(1)?, inputs.required(2)?),
        Op::OneHot(op) => one_hot(op, x, inputs.required(1)?, inputs.required(2)?),
        Op::NonZero => non_zero(x),
        Op::ReverseSequence(op) => reverse_sequence(op, x, inputs.required(1)?),
        op => Err(format!("{op} has no indices")),
    })
}

/// An index in `0..size`.
fn index(at: i64, size: usize) -> Result<usize, String> {
    let resolved = if at < 0 { i64::try_from(size).ok().and_then(|size| at.checked_add(size)) } else { Some(at) };
    resolved
        .and_then(|at| usize::try_from(at).ok())
        .filter(|at| *at < size)
        .ok_or_else(|| format!("index {at} is outside of a size of {size}"))
}

fn gather(op: &op::Gather, x: &Tensor, indices: &Tensor) -> Result<Tensor, String> {
    let axis = resolve_axis(op.axis, x.rank())?;
    let size = x.dims().get(axis).copied().unwrap_or(0);
    let picks: Vec<Option<usize>> =
        load_ints(indices, "indices")?.iter().map(|at| index(*at, size).map(Some)).collect::<Result<_, _>>()?;
    let (before, rest) = x.dims().split_at(axis);
    let dims: Dims = before.iter().chain(indices.dims()).chain(rest.iter().skip(1)).copied().collect();
    if let Some(splat) = splat_like(x, &dims) {
        return splat;
    }
    by_width!(x.dtype(), N => {
        let (_, elements) = take(&units::<N>(x)?, x.dims(), axis, &picks, [0; N])?;
        from_units(x.dtype(), &dims, elements)
    })
}

/// For each element of `indices`, the flat index of the element it names along an axis.
fn element_places(dims: &[usize], indices: &Tensor, axis: i64) -> Result<Vec<usize>, String> {
    let axis = resolve_axis(axis, dims.len())?;
    let fits = |(at, (size, whole)): (usize, (&usize, &usize))| at == axis || size <= whole;
    if indices.rank() != dims.len() || !indices.dims().iter().zip(dims).enumerate().all(fits) {
        return Err(format!("indices of {:?} into {dims:?}", indices.dims()));
    }
    let (all, size) = (strides(dims), dims.get(axis).copied().unwrap_or(0));
    let place = |(flat, at): (usize, i64)| {
        let mut named = unravel(flat, indices.dims().iter().copied());
        if let Some(slot) = named.get_mut(axis) {
            *slot = index(at, size)?;
        }
        Ok(named.iter().zip(&all).map(|(at, stride)| at * stride.unsigned_abs()).sum())
    };
    load_ints(indices, "indices")?.into_iter().enumerate().map(place).collect()
}

/// Runs of `length` elements at the places.
fn pick<T: Copy + Zeroable>(data: &[T], places: &[usize], length: usize, dims: &[usize]) -> Result<Vec<T>, String> {
    let mut output = filled(dims, T::zeroed())?;
    for (to, place) in output.chunks_mut(length.max(1)).zip(places) {
        to.copy_from_slice(data.get(*place..place + length).ok_or("a place is outside of the data")?);
    }
    Ok(output)
}

fn gather_elements(op: &op::GatherElements, x: &Tensor, indices: &Tensor) -> Result<Tensor, String> {
    let places = element_places(x.dims(), indices, op.axis)?;
    by_width!(x.dtype(), N => from_units(x.dtype(), indices.dims(), pick(&units::<N>(x)?, &places, 1, indices.dims())?))
}

/// For each index tuple (the last axis of `indices`), the flat index of the slice it names, and the dimensions of the
/// slices. The first `batch` axes are shared.
fn tuple_places<'a>(dims: &'a [usize], indices: &Tensor, batch: usize) -> Result<(Vec<usize>, &'a [usize]), String> {
    let wrong = || format!("indices of {:?} into {dims:?} with {batch} batch axes", indices.dims());
    let (length, tuples) = indices.dims().split_last().ok_or_else(wrong)?;
    let named = batch.checked_add(*length).filter(|named| *named <= dims.len()).ok_or_else(wrong)?;
    if tuples.get(..batch) != dims.get(..batch) || tuples.len() < batch {
        return Err(wrong());
    }
    let all = strides(dims);
    let per_batch = product(&tuples[batch..]);
    let elements = load_ints(indices, "indices")?;
    let count = numel(tuples).ok_or_else(wrong)?;
    let place = |tuple: usize| {
        let shared = unravel(tuple / per_batch.max(1), dims[..batch].iter().copied());
        let mut place: usize = shared.iter().zip(&all).map(|(at, stride)| at * stride.unsigned_abs()).sum();
        let tuple = &elements[tuple * length..(tuple + 1) * length];
        for ((at, size), stride) in tuple.iter().zip(&dims[batch..]).zip(&all[batch..]) {
            place += index(*at, *size)? * stride.unsigned_abs();
        }
        Ok(place)
    };
    Ok(((0..count).map(place).collect::<Result<_, String>>()?, &dims[named..]))
}

fn gather_nd(op: &op::GatherNd, x: &Tensor, indices: &Tensor) -> Result<Tensor, String> {
    let batch = usize::try_from(op.batch_dims).map_err(phrase)?;
    let (places, slice) = tuple_places(x.dims(), indices, batch)?;
    let tuples = indices.dims().split_last().map_or(&[][..], |(_, tuples)| tuples);
    let dims: Dims = tuples.iter().chain(slice).copied().collect();
    by_width!(x.dtype(), N => from_units(x.dtype(), &dims, pick(&units::<N>(x)?, &places, product(slice), &dims)?))
}

fn scatter_nd(op: &op::ScatterNd, x: &Tensor, indices: &Tensor, updates: &Tensor) -> Result<Tensor, String> {
    let (places, slice) = tuple_places(x.dims(), indices, 0)?;
    let tuples = indices.dims().split_last().map_or(&[][..], |(_, tuples)| tuples);
    let dims: Dims = tuples.iter().chain(slice).copied().collect();
    if updates.dims() != dims.as_slice() {
        return Err(format!("updates of {:?} where {dims:?} is expected", updates.dims()));
    }
    scatter(x, &places, updates, product(slice), op.reduction)
}

/// Joins runs of `length` updates with the data at the places, in order.
fn scatter(
    x: &Tensor,
    places: &[usize],
    updates: &Tensor,
    length: usize,
    reduction: ScatterReduction,
) -> Result<Tensor, String> {
    let dtype = same_dtype(x, updates)?;
    if places.len().checked_mul(length) != Some(updates.numel()) {
        return Err(format!("updates of {:?} for {} places", updates.dims(), places.len()));
    }
    if reduction == ScatterReduction::None {
        return by_width!(dtype, N => {
            let elements = scattered(&units::<N>(x)?, places, &units::<N>(updates)?, length, |_, update| update)?;
            from_units(dtype, x.dims(), elements)
        });
    }
    if dtype == DType::Bool {
        // Bits: or, and, or, and.
        let wide = |tensor| cast(tensor, DType::U8, true);
        return cast(&scatter(&wide(x)?, places, &wide(updates)?, length, reduction)?, DType::Bool, true);
    }
    for_number!(dtype, T => {
        let join = match reduction {
            ScatterReduction::Add => T::plus,
            ScatterReduction::Mul => T::times,
            ScatterReduction::Max => T::larger,
            _ => T::smaller,
        };
        T::store(dtype, x.dims(), scattered(&T::load(x)?, places, &T::load(updates)?, length, join)?)
    })
}

fn scattered<T: Copy>(
    data: &[T],
    places: &[usize],
    updates: &[T],
    length: usize,
    join: impl Fn(T, T) -> T,
) -> Result<Vec<T>, String> {
    let mut output = data.to_vec();
    for (place, updates) in places.iter().zip(updates.chunks(length.max(1))) {
        let output = output.get_mut(*place..place + length).ok_or("a place is outside of the data")?;
        output.iter_mut().zip(updates).for_each(|(to, update)| *to = join(*to, *update));
    }
    Ok(output)
}

/// Indices outside of `-depth..depth` give a vector without a one.
fn one_hot(op: &op::OneHot, indices: &Tensor, depth: &Tensor, values: &Tensor) -> Result<Tensor, String> {
    let axis = resolve_axis(op.axis, indices.rank() + 1)?;
    let whole = |tensor: &Tensor| cast(tensor, DType::I64, true);
    let asked = load_int(&whole(depth)?, "the depth")?;
    let depth = usize::try_from(asked).map_err(|_| format!("the depth is {asked}"))?;
    let mut dims = Dims::from_slice(indices.dims());
    dims.insert(axis, depth);
    let places = whole(indices)?;
    let places: Cow<'_, [i64]> = i64::load(&places)?;
    let inner = around(&dims, axis).2;
    by_width!(values.dtype(), N => {
        let pair = units::<N>(values)?;
        let [off, on] = pair.as_ref() else { return Err(format!("values are {:?}", values.dims())) };
        let mut output = filled(&dims, *off)?;
        for (at, place) in places.iter().enumerate() {
            if let Ok(place) = index(*place, depth) {
                let (outer, inner_at) = (at / inner, at % inner);
                if let Some(to) = output.get_mut((outer * depth + place) * inner + inner_at) {
                    *to = *on;
                }
            }
        }
        from_units(values.dtype(), &dims, output)
    })
}

fn non_zero(x: &Tensor) -> Result<Tensor, String> {
    let holds = cast(x, DType::Bool, true)?;
    let holds = view::<bool>(&holds)?;
    let found: Vec<usize> = holds.iter().enumerate().filter(|(_, holds)| **holds).map(|(at, _)| at).collect();
    let dims = [x.rank(), found.len()];
    check_size(&dims, size_of::<i64>())?;
    // Row by row of the output: one axis of every element found.
    let rows = (0..x.rank()).map(|axis| around(x.dims(), axis));
    let elements = rows.flat_map(|(_, size, inner)| found.iter().map(move |at| (at / inner % size) as i64)).collect();
    Tensor::from_vec(dims, elements).map_err(phrase)
}

fn reverse_sequence(op: &op::ReverseSequence, x: &Tensor, lengths: &Tensor) -> Result<Tensor, String> {
    let (batch, time) = (resolve_axis(op.batch_axis, x.rank())?, resolve_axis(op.time_axis, x.rank())?);
    let (_, sequences, batch_step) = around(x.dims(), batch);
    let (_, steps, time_step) = around(x.dims(), time);
    let lengths = load_ints(lengths, "lengths")?;
    let fits = |length: &i64| usize::try_from(*length).ok().filter(|length| *length <= steps);
    let lengths: Option<Vec<usize>> = lengths.iter().map(fits).collect();
    let lengths = lengths.filter(|lengths| lengths.len() == sequences && batch != time);
    let lengths = lengths.ok_or_else(|| format!("lengths that do not fit {:?}", x.dims()))?;
    let source = |flat: usize| {
        let (sequence, at) = (flat / batch_step % sequences, flat / time_step % steps);
        match lengths[sequence].checked_sub(at + 1) {
            Some(mirrored) => flat - at * time_step + mirrored * time_step,
            None => flat,
        }
    };
    by_width!(x.dtype(), N => {
        let elements = units::<N>(x)?;
        from_units(x.dtype(), x.dims(), (0..elements.len()).map(|flat| elements[source(flat)]).collect())
    })
}
