//! Reductions along axes, and what normalises, sorts or accumulates along one.

use std::borrow::Cow;
use std::cmp::Ordering;

use num_traits::AsPrimitive;

use super::cast::cast;
use super::layout::{PARALLEL, around, filled, in_parallel, in_pieces, in_rows, permuted, product};
use super::number::{Number, Real, for_integer, for_number, for_real, load_int, load_ints, phrase};
use super::{EvalContext, Inputs, Tensors, one};
use crate::infer::{resolve_axes, resolve_axis};
use crate::op::{self, ReduceKind};
use crate::{DType, Dims, Op, Tensor};

pub(super) fn eval(op: &Op, inputs: Inputs<'_>, _context: &EvalContext<'_>) -> Result<Tensors, String> {
    let x = inputs.required(0)?;
    match op {
        Op::Reduce(op) => one(reduce(op, x, inputs.optional(1))),
        Op::ArgReduce(op) => for_number!(x.dtype(), T => one(arg_reduce::<T>(op, x))),
        Op::Softmax(op) => for_real!(x.dtype(), T => one(softmax::<T>(op, x))),
        Op::TopK(op) => for_number!(x.dtype(), T => top_k::<T>(op, x, inputs.required(1)?)),
        Op::Cumulative(op) => for_number!(x.dtype(), T => one(cumulative::<T>(op, x, inputs.required(1)?))),
        op => Err(format!("{op} is no reduction")),
    }
}

fn reduce(op: &op::Reduce, x: &Tensor, axes: Option<&Tensor>) -> Result<Tensor, String> {
    let given = match (&op.axes, axes) {
        (Some(axes), _) => axes.to_vec(),
        (None, Some(axes)) => load_ints(axes, "axes")?,
        (None, None) => Vec::new(),
    };
    let axes: Dims = if given.is_empty() && !op.noop_if_empty {
        (0..x.rank()).collect()
    } else {
        resolve_axes(&given, x.rank())?.iter().copied().collect()
    };
    let kept: Dims = (0..x.rank()).filter(|axis| !axes.contains(axis)).collect();
    let dims: Dims = x
        .dims()
        .iter()
        .enumerate()
        .filter_map(|(axis, dim)| if !axes.contains(&axis) { Some(*dim) } else { op.keep_dims.then_some(1) })
        .collect();
    let order: Dims =
        kept.iter().chain((0..x.rank()).filter(|axis| axes.contains(axis)).collect::<Dims>().iter()).copied().collect();
    let length = product(&axes.iter().filter_map(|axis| x.dims().get(*axis).copied()).collect::<Dims>());
    match x.dtype() {
        // The larger of two truths is whether either holds.
        DType::Bool => cast(&reduce(op, &cast(x, DType::U8, true)?, axes_tensor(&given).as_ref())?, DType::Bool, true),
        dtype if dtype.is_integer() => for_integer!(dtype, T => {
            T::store(dtype, &dims, rows(&in_order::<T>(x, &order)?, &dims, length, &|row| integer_fold(op.kind, T::limits(dtype), row))?)
        }),
        dtype => for_real!(dtype, T => {
            T::store(dtype, &dims, rows(&in_order::<T>(x, &order)?, &dims, length, &|row| real_fold(op.kind, row))?)
        }),
    }
}

fn axes_tensor(axes: &[i64]) -> Option<Tensor> {
    (!axes.is_empty()).then(|| Tensor::vector(axes.to_vec()))
}

/// The elements with axes in another order; borrowed if that is theirs.
fn in_order<'a, T: Number>(x: &'a Tensor, order: &[usize]) -> Result<Cow<'a, [T]>, String> {
    let elements = T::load(x)?;
    if order.iter().enumerate().all(|(at, axis)| at == *axis) {
        return Ok(elements);
    }
    Ok(Cow::Owned(permuted(&elements, x.dims(), order)?.1))
}

/// `fold` of each row of `length` elements.
fn rows<T: Number>(
    elements: &[T],
    dims: &[usize],
    length: usize,
    fold: &(dyn Fn(&[T]) -> T + Sync),
) -> Result<Vec<T>, String> {
    let mut output = filled(dims, T::ZERO)?;
    let piece = (PARALLEL / length.max(1)).max(1);
    in_parallel(&mut output, piece, &|at, output| {
        for (row, to) in output.iter_mut().enumerate() {
            let row = at * piece + row;
            *to = fold(&elements[row * length..(row + 1) * length]);
        }
    });
    Ok(output)
}

/// Sums are made in f64, so that long rows lose nothing.
fn real_fold<T: Real>(kind: ReduceKind, row: &[T]) -> T {
    let wide = |x: &T| AsPrimitive::<f64>::as_(*x);
    let sum = |f: fn(f64) -> f64| row.iter().map(|x| f(wide(x))).sum::<f64>();
    T::real(match kind {
        ReduceKind::Max => return row.iter().fold(T::neg_infinity(), |most, x| most.larger(*x)),
        ReduceKind::Min => return row.iter().fold(T::infinity(), |least, x| least.smaller(*x)),
        ReduceKind::Sum => sum(|x| x),
        ReduceKind::Mean => sum(|x| x) / row.len() as f64,
        ReduceKind::Prod => row.iter().map(wide).product(),
        ReduceKind::L1 => sum(f64::abs),
        ReduceKind::L2 => sum(|x| x * x).sqrt(),
        ReduceKind::SumSquare => sum(|x| x * x),
        ReduceKind::LogSum => sum(|x| x).ln(),
        ReduceKind::LogSumExp => {
            let most = wide(&row.iter().fold(T::neg_infinity(), |most, x| most.larger(*x)));
            // An infinite maximum is the result: differences to it are NaN.
            if most.is_infinite() { most } else { most + row.iter().map(|x| (wide(x) - most).exp()).sum::<f64>().ln() }
        }
    })
}

/// `limits` are those of the dtype: what an empty row gives.
fn integer_fold<T: Number>(kind: ReduceKind, limits: (T, T), row: &[T]) -> T {
    let sum = |f: fn(T) -> T| row.iter().fold(T::ZERO, |sum, x| sum.plus(f(*x)));
    let wide = || row.iter().map(|x| AsPrimitive::<f64>::as_(*x));
    match kind {
        ReduceKind::Max => row.iter().fold(limits.0, |most, x| most.larger(*x)),
        ReduceKind::Min => row.iter().fold(limits.1, |least, x| least.smaller(*x)),
        ReduceKind::Sum => sum(|x| x),
        ReduceKind::Prod => row.iter().fold(T::ONE, |product, x| product.times(*x)),
        ReduceKind::L1 => sum(|x| if x < T::ZERO { T::ZERO.minus(x) } else { x }),
        ReduceKind::SumSquare => sum(|x| x.times(x)),
        ReduceKind::Mean => T::from_f64(wide().sum::<f64>() / row.len() as f64),
        ReduceKind::L2 => T::from_f64(wide().map(|x| x * x).sum::<f64>().sqrt()),
        ReduceKind::LogSum => T::from_f64(wide().sum::<f64>().ln()),
        ReduceKind::LogSumExp => T::from_f64(wide().map(f64::exp).sum::<f64>().ln()),
    }
}

/// Axes with `axis` last, and the order that undoes it.
fn axis_last(rank: usize, axis: usize) -> (Dims, Dims) {
    let order: Dims = (0..rank).filter(|other| *other != axis).chain([axis]).collect();
    let mut back = Dims::from_elem(0, rank);
    for (at, axis) in order.iter().enumerate() {
        if let Some(slot) = back.get_mut(*axis) {
            *slot = at;
        }
    }
    (order, back)
}

/// Changes the elements along an axis in place.
pub(super) fn along_axis<T: Number>(
    x: &Tensor,
    axis: i64,
    change: &(dyn Fn(&mut [T]) + Sync),
) -> Result<Tensor, String> {
    // A scalar has one row of one element.
    let axis = resolve_axis(axis, x.rank().max(1))?;
    let (order, back) = axis_last(x.rank(), axis);
    let mut elements = in_order::<T>(x, &order)?.into_owned();
    let length = x.dims().get(axis).copied().unwrap_or(1);
    in_rows(&mut elements, length, &|_, row| change(row));
    if axis + 1 < x.rank() {
        let dims: Dims = order.iter().filter_map(|axis| x.dims().get(*axis).copied()).collect();
        elements = permuted(&elements, &dims, &back)?.1;
    }
    T::store(x.dtype(), x.dims(), elements)
}

fn softmax<T: Real>(op: &op::Softmax, x: &Tensor) -> Result<Tensor, String> {
    along_axis::<T>(x, op.axis, &|row| {
        let most = row.iter().fold(T::neg_infinity(), |most, x| most.larger(*x));
        let total: f64 = row.iter().map(|x| AsPrimitive::<f64>::as_((*x - most).exp())).sum();
        if op.log {
            let log = T::real(total.ln());
            row.iter_mut().for_each(|x| *x = *x - most - log);
        } else {
            let total = T::real(total);
            row.iter_mut().for_each(|x| *x = (*x - most).exp() / total);
        }
    })
}

fn arg_reduce<T: Number>(op: &op::ArgReduce, x: &Tensor) -> Result<Tensor, String> {
    let axis = resolve_axis(op.axis, x.rank())?;
    let elements = T::load(x)?;
    let (_, size, inner) = around(x.dims(), axis);
    let mut dims = Dims::from_slice(x.dims());
    dims.remove(axis);
    let mut output = filled(&dims, 0_i64)?;
    if size == 0 && !output.is_empty() {
        return Err("no element to choose from".to_string());
    }
    in_pieces(&mut output, &|start, output| {
        for (at, to) in output.iter_mut().enumerate() {
            let (outer, inner_at) = ((start + at) / inner, (start + at) % inner);
            let element = |index: usize| elements[(outer * size + index) * inner + inner_at];
            let best = (1..size).fold(0, |best, index| {
                let (x, most) = (element(index), element(best));
                let order = if op.largest { x.partial_cmp(&most) } else { most.partial_cmp(&x) };
                let better = match order {
                    Some(Ordering::Greater) => true,
                    Some(Ordering::Equal) => op.select_last,
                    Some(Ordering::Less) => false,
                    // As NumPy has it, a NaN is beyond every number.
                    None => x.unordered() && (op.select_last || !most.unordered()),
                };
                if better { index } else { best }
            });
            *to = best as i64;
        }
    });
    if op.keep_dims {
        dims.insert(axis, 1);
    }
    Tensor::from_vec(dims, output).map_err(phrase)
}

/// Equal elements keep their order: the one of the lower index comes first.
fn top_k<T: Number>(op: &op::TopK, x: &Tensor, k: &Tensor) -> Result<Tensors, String> {
    let axis = resolve_axis(op.axis, x.rank())?;
    let elements = T::load(x)?;
    let (_, size, inner) = around(x.dims(), axis);
    let asked = load_int(k, "k")?;
    let k = usize::try_from(asked).ok().filter(|k| *k <= size).ok_or_else(|| format!("k is {asked}, of {size}"))?;
    let mut dims = Dims::from_slice(x.dims());
    if let Some(dim) = dims.get_mut(axis) {
        *dim = k;
    }
    let mut values = filled(&dims, T::ZERO)?;
    let mut indices = filled(&dims, 0_i64)?;
    let count = values.len().checked_div(k).unwrap_or(0);
    let mut order: Vec<usize> = Vec::new();
    for row in 0..count {
        let (outer, inner_at) = (row / inner, row % inner);
        let element = |index: usize| elements[(outer * size + index) * inner + inner_at];
        order.clear();
        order.extend(0..size);
        order.sort_by(|a, b| {
            let (a, b) = (element(*a), element(*b));
            let (a, b) = if op.largest { (b, a) } else { (a, b) };
            // A NaN counts as the largest.
            a.partial_cmp(&b).unwrap_or_else(|| a.unordered().cmp(&b.unordered()))
        });
        for (place, index) in order.iter().take(k).enumerate() {
            let to = (outer * k + place) * inner + inner_at;
            values[to] = element(*index);
            indices[to] = *index as i64;
        }
    }
    let indices = Tensor::from_vec(&dims, indices).map_err(phrase)?;
    Ok(Tensors::from_iter([T::store(x.dtype(), &dims, values)?, indices]))
}

fn cumulative<T: Number>(op: &op::Cumulative, x: &Tensor, axis: &Tensor) -> Result<Tensor, String> {
    let (start, join): (T, fn(T, T) -> T) = if op.product { (T::ONE, T::times) } else { (T::ZERO, T::plus) };
    let step = |total: &mut T, x: &mut T| {
        let joined = join(*total, *x);
        *x = if op.exclusive { *total } else { joined };
        *total = joined;
    };
    along_axis::<T>(x, load_int(axis, "the axis")?, &|row| {
        let mut total = start;
        if op.reverse {
            row.iter_mut().rev().for_each(|x| step(&mut total, x));
        } else {
            row.iter_mut().for_each(|x| step(&mut total, x));
        }
    })
}
