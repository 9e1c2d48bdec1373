//! Pooling over windows.

use super::layout::{check_size, collected, filled, in_rows, product};
use super::number::{Number, Real, for_number, for_real, phrase};
use super::window::{self, Axis, Windows, unravel};
use super::{EvalContext, Inputs, Tensors, one};
use crate::{Dims, Tensor, op};
use op::PoolKind;

pub(super) fn pool(op: &op::Pool, inputs: Inputs<'_>, context: &EvalContext<'_>) -> Result<Tensors, String> {
    let x = inputs.required(0)?;
    let [batch, channels, sizes @ ..] = x.dims() else { return Err(format!("data of shape {:?}", x.dims())) };
    let kernel: Dims =
        (0..op.kernel.len()).map(|axis| window::positive(&op.kernel, axis, "kernel")).collect::<Result<_, _>>()?;
    let windows = Windows {
        kernel: &kernel,
        strides: &op.strides,
        dilations: &op.dilations,
        padding: &op.padding,
        ceil_mode: op.ceil_mode,
    };
    let axes = windows.axes(sizes)?;
    let mut dims = Dims::from_slice(&[*batch, *channels]);
    dims.extend(window::outputs(&axes));
    check_size(&dims, size_of::<f64>())?;
    let spans: Vec<Vec<Span>> = axes.iter().map(spans).collect::<Result<_, _>>()?;
    let plane = product(sizes);
    match op.kind {
        PoolKind::Max if context.outputs > 1 => for_number!(x.dtype(), T => {
            let places = places(&T::load(x)?, &dims, &axes, &spans)?;
            let data = T::load(x)?;
            let maxima = places.iter().map(|at| at.and_then(|at| data.get(at)).copied().unwrap_or(T::limits(x.dtype()).0)).collect();
            let index = |at: &Option<usize>| at.map_or(-1, |at| numbered(op, at, plane, sizes));
            let indices = Tensor::from_vec(&dims, places.iter().map(index).collect()).map_err(phrase)?;
            Ok(Tensors::from_iter([T::store(x.dtype(), &dims, maxima)?, indices]))
        }),
        PoolKind::Max => for_number!(x.dtype(), T => {
            let data = T::load(x)?;
            let maxima = windowed(&data, &dims, &axes, &spans, &|window, _| {
                window.fold(T::limits(x.dtype()).0, |most: T, (_, x)| most.larger(x))
            })?;
            one(T::store(x.dtype(), &dims, maxima))
        }),
        _ => {
            for_real!(x.dtype(), T => one(T::store(x.dtype(), &dims, means::<T>(op, &T::load(x)?, &dims, &axes, &spans)?)))
        }
    }
}

/// Where a window lies along an axis.
#[derive(Debug, Clone, Copy)]
struct Span {
    /// First element inside the data.
    first: usize,
    /// Elements inside the data.
    inside: usize,
    /// Elements inside the data and its padding.
    padded: usize,
}

fn spans(axis: &Axis) -> Result<Vec<Span>, String> {
    let end = |limit: usize, start: usize| limit.saturating_sub(start).div_ceil(axis.dilation).min(axis.kernel);
    let span = |at: usize| {
        let start = at * axis.stride;
        let skipped = axis.before.saturating_sub(start).div_ceil(axis.dilation);
        let inside = end(axis.before + axis.size, start).saturating_sub(skipped);
        let first = (start + skipped * axis.dilation).saturating_sub(axis.before);
        Span { first, inside, padded: end(axis.before + axis.size + axis.after, start) }
    };
    collected(axis.output, span)
}

/// What a window yields, from its elements with their indices in the plane and from its spans.
type Fold<'a, T, O> = &'a (dyn Fn(&mut dyn Iterator<Item = (usize, T)>, &[Span]) -> O + Sync);

/// For each output, `f` of the window's elements with their indices in the plane, and of its spans.
fn windowed<T: Number, O: Copy + Default + Send>(
    data: &[T],
    dims: &[usize],
    axes: &[Axis],
    spans: &[Vec<Span>],
    f: Fold<'_, T, O>,
) -> Result<Vec<O>, String> {
    let mut output = filled(dims, O::default())?;
    let plane: usize = axes.iter().map(|axis| axis.size).product();
    let length: usize = axes.iter().map(|axis| axis.output).product();
    in_rows(&mut output, length, &|row, output| {
        let data = &data[row * plane..(row + 1) * plane];
        for (at, to) in output.iter_mut().enumerate() {
            let index = unravel(at, axes.iter().map(|axis| axis.output));
            let window: smallvec::SmallVec<[Span; 3]> = index.iter().zip(spans).map(|(at, spans)| spans[*at]).collect();
            let mut elements = Elements::new(axes, &window).map(|at| (at, data[at]));
            *to = f(&mut elements, &window);
        }
    });
    Ok(output)
}

/// The flat indices of a window's elements, row-major.
struct Elements<'a> {
    axes: &'a [Axis],
    window: &'a [Span],
    /// Which element comes next; `None` after the last.
    next: Option<Dims>,
}

impl<'a> Elements<'a> {
    fn new(axes: &'a [Axis], window: &'a [Span]) -> Self {
        let empty = window.iter().any(|span| span.inside == 0);
        Self { axes, window, next: (!empty).then(|| Dims::from_elem(0, window.len())) }
    }
}

impl Iterator for Elements<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let taps = self.next.as_mut()?;
        let flat = self
            .axes
            .iter()
            .zip(self.window)
            .zip(taps.iter())
            .fold(0, |flat, ((axis, span), tap)| flat * axis.size + span.first + tap * axis.dilation);
        for (tap, span) in taps.iter_mut().zip(self.window).rev() {
            *tap += 1;
            if *tap < span.inside {
                return Some(flat);
            }
            *tap = 0;
        }
        self.next = None;
        Some(flat)
    }
}

/// For each output the flat index, in the whole data, of its window's first maximum; the first NaN counts as one.
fn places<T: Number>(
    data: &[T],
    dims: &[usize],
    axes: &[Axis],
    spans: &[Vec<Span>],
) -> Result<Vec<Option<usize>>, String> {
    let plane: usize = axes.iter().map(|axis| axis.size).product();
    let length: usize = axes.iter().map(|axis| axis.output).product();
    let mut places = windowed(data, dims, axes, spans, &|window, _| {
        let later = |best: (usize, T), next: (usize, T)| {
            let better = next.1 > best.1 || (next.1.unordered() && !best.1.unordered());
            if better { next } else { best }
        };
        window.reduce(later).map(|(at, _)| at)
    })?;
    in_rows(&mut places, length, &|row, places| places.iter_mut().flatten().for_each(|at| *at += row * plane));
    Ok(places)
}

/// The index that the operator gives for a flat index.
fn numbered(op: &op::Pool, at: usize, plane: usize, sizes: &[usize]) -> i64 {
    let number = if op.column_major {
        let (row, within) = (at / plane.max(1), at % plane.max(1));
        let index = unravel(within, sizes.iter().copied());
        let column_major = index.iter().zip(sizes).rev().fold(0, |flat, (at, size)| flat * size + at);
        row * plane + column_major
    } else {
        at
    };
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn means<T: Real>(
    op: &op::Pool,
    data: &[T],
    dims: &[usize],
    axes: &[Axis],
    spans: &[Vec<Span>],
) -> Result<Vec<T>, String> {
    let count = |of: fn(&Span) -> usize, window: &[Span]| window.iter().map(of).product::<usize>().max(1) as f64;
    let wide = |x: T| num_traits::AsPrimitive::<f64>::as_(x);
    let p = op.p.unwrap_or(2) as f64;
    windowed(data, dims, axes, spans, &|window, spans| {
        T::real(match op.kind {
            PoolKind::Lp => window.map(|(_, x)| wide(x).abs().powf(p)).sum::<f64>().powf(1.0 / p),
            PoolKind::AverageIncludePad => window.map(|(_, x)| wide(x)).sum::<f64>() / count(|span| span.padded, spans),
            _ => window.map(|(_, x)| wide(x)).sum::<f64>() / count(|span| span.inside, spans),
        })
    })
}
