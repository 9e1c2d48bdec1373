//! Dimensions, strides and copies: how row-major data is walked.

use bytemuck::Zeroable;
use bytes::Bytes;
use rayon::prelude::*;
use smallvec::SmallVec;
use std::borrow::Cow;

use super::number::phrase;
use crate::{DType, Dims, Tensor, numel};

/// Largest tensor that an operator may make, in bytes: a hostile model gets an error, not the process' end.
pub(super) const MAX_BYTES: usize = 16 << 30;

/// Elements from which on work is spread over threads.
pub(super) const PARALLEL: usize = 1 << 15;

/// Runs a block with `$N` the bytes an element of `$dtype`.
macro_rules! by_width {
    ($dtype:expr, $N:ident => $body:expr) => {
        match $crate::eval::layout::width($dtype)? {
            1 => {
                const $N: usize = 1;
                $body
            }
            2 => {
                const $N: usize = 2;
                $body
            }
            4 => {
                const $N: usize = 4;
                $body
            }
            8 => {
                const $N: usize = 8;
                $body
            }
            _ => {
                const $N: usize = 16;
                $body
            }
        }
    };
}

pub(super) use by_width;

/// Number of elements of a tensor, if `width` bytes each are not too many.
pub(super) fn check_size(dims: &[usize], width: usize) -> Result<usize, String> {
    numel(dims)
        .filter(|count| count.checked_mul(width.max(1)).is_some_and(|bytes| bytes <= MAX_BYTES))
        .ok_or_else(|| format!("a tensor of {dims:?} with {width} bytes an element is too large to compute"))
}

/// The elements of a tensor, all equal.
pub(super) fn filled<T: Clone>(dims: &[usize], value: T) -> Result<Vec<T>, String> {
    let mut elements = reserved(dims)?;
    elements.resize(product(dims), value);
    Ok(elements)
}

/// An empty vector with room for the elements of a tensor.
pub(super) fn reserved<T>(dims: &[usize]) -> Result<Vec<T>, String> {
    let count = check_size(dims, size_of::<T>())?;
    let mut elements = Vec::new();
    elements.try_reserve_exact(count).map_err(|_| format!("no memory for a tensor of {dims:?}"))?;
    Ok(elements)
}

/// The elements of a vector whose length comes from the model.
pub(super) fn collected<T>(count: usize, element: impl FnMut(usize) -> T) -> Result<Vec<T>, String> {
    let mut elements = reserved(&[count])?;
    elements.extend((0..count).map(element));
    Ok(elements)
}

/// What is done with a piece of an output and the piece's first index or number. Behind a pointer, so that rayon is
/// compiled once an element type and not once an operator.
type Work<'a, T> = &'a (dyn Fn(usize, &mut [T]) + Sync);

/// Calls `work` with each piece of `length` elements and its number, in parallel.
pub(super) fn in_parallel<T: Send>(output: &mut [T], length: usize, work: Work<'_, T>) {
    output.par_chunks_mut(length.max(1)).enumerate().for_each(|(at, piece)| work(at, piece));
}

/// Calls `work` with pieces of the output and their first index, in parallel if there is much to do.
pub(super) fn in_pieces<T: Send>(output: &mut [T], work: Work<'_, T>) {
    if output.len() <= PARALLEL {
        return work(0, output);
    }
    in_parallel(output, PARALLEL, &|at, piece| work(at * PARALLEL, piece));
}

/// Calls `work` with each row of `length` elements and its number, in parallel if there is much to do.
pub(super) fn in_rows<T: Send>(output: &mut [T], length: usize, work: Work<'_, T>) {
    if length == 0 {
        return;
    }
    if output.len() <= PARALLEL {
        return output.chunks_mut(length).enumerate().for_each(|(at, row)| work(at, row));
    }
    let rows = (PARALLEL / length).max(1);
    in_parallel(output, rows * length, &|at, piece| {
        piece.chunks_mut(length).enumerate().for_each(|(row, elements)| work(at * rows + row, elements));
    });
}

/// Strides of one number an axis.
pub(super) type Strides = SmallVec<[isize; 4]>;

/// Row-major strides.
pub(super) fn strides(dims: &[usize]) -> Strides {
    let mut strides: Strides = SmallVec::from_elem(1, dims.len());
    let mut stride = 1_isize;
    for (slot, dim) in strides.iter_mut().zip(dims).rev() {
        *slot = stride;
        // A tensor of size 0 is never read, so that a stride that overflows is of no harm.
        stride = stride.saturating_mul(isize::try_from(*dim).unwrap_or(isize::MAX));
    }
    strides
}

/// The product of dimensions of a tensor that exists, or of some of them.
pub(super) fn product(dims: &[usize]) -> usize {
    dims.iter().fold(1, |product, dim| product.saturating_mul(*dim))
}

/// The product of dimensions before, at and after an axis.
pub(super) fn around(dims: &[usize], axis: usize) -> (usize, usize, usize) {
    let (before, rest) = dims.split_at(axis.min(dims.len()));
    let (at, after) = rest.split_first().map_or((1, rest), |(at, after)| (*at, after));
    (product(before), at, product(after))
}

/// NumPy's broadcast of two shapes.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Result<Dims, String> {
    let rank = a.len().max(b.len());
    let at =
        |dims: &[usize], axis: usize| (axis + dims.len()).checked_sub(rank).and_then(|axis| dims.get(axis).copied());
    (0..rank)
        .map(|axis| match (at(a, axis).unwrap_or(1), at(b, axis).unwrap_or(1)) {
            (1, size) | (size, 1) => Ok(size),
            (x, y) if x == y => Ok(x),
            _ => Err(format!("shapes {a:?} and {b:?} do not broadcast")),
        })
        .collect()
}

/// Copies the elements `source[offset + sum(index * stride)]` for each index below `dims`, row-major.
pub(super) fn copy_strided<T: Copy + Zeroable + Send + Sync>(
    source: &[T],
    offset: isize,
    dims: &[usize],
    strides: &[isize],
) -> Result<Vec<T>, String> {
    let mut output = filled(dims, T::zeroed())?;
    if output.is_empty() {
        return Ok(output);
    }
    let (dims, strides) = coalesced(dims, strides);
    let reach = |positive: bool| {
        let steps = dims.iter().zip(&strides).filter(|(_, stride)| (**stride > 0) == positive);
        steps.fold(offset, |at, (dim, stride)| at.saturating_add(stride.saturating_mul(*dim as isize - 1)))
    };
    if reach(false) < 0 || reach(true) >= source.len() as isize {
        return Err("a copy reaches outside of its source".to_string());
    }
    let (Some(inner), Some(step)) = (dims.last().copied(), strides.last().copied()) else { return Ok(output) };
    let outer = &dims[..dims.len() - 1];
    in_rows(&mut output, inner, &|row, output| {
        let mut at = offset;
        let mut rest = row;
        for (dim, stride) in outer.iter().zip(&strides).rev() {
            at += (rest % dim) as isize * stride;
            rest /= dim;
        }
        // In `0..source.len()`, as `reach` says, for each index of the row.
        let start = at as usize;
        match step {
            1 => output.copy_from_slice(&source[start..start + inner]),
            0 => output.fill(source[start]),
            step if step > 0 => {
                output.iter_mut().zip(source[start..].iter().step_by(step as usize)).for_each(|(to, from)| *to = *from);
            }
            step => {
                let from = source[..=start].iter().rev().step_by(step.unsigned_abs());
                output.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            }
        }
    });
    Ok(output)
}

/// The same walk over fewer axes: without those of size 1, neighbours joined where the data is contiguous.
fn coalesced(dims: &[usize], strides: &[isize]) -> (Dims, Strides) {
    let (mut joined, mut steps) = (Dims::new(), Strides::new());
    for (dim, stride) in dims.iter().zip(strides).filter(|(dim, _)| **dim != 1) {
        match (joined.last_mut(), steps.last_mut()) {
            (Some(last), Some(step)) if stride.saturating_mul(*dim as isize) == *step => {
                *last *= dim;
                *step = *stride;
            }
            _ => {
                joined.push(*dim);
                steps.push(*stride);
            }
        }
    }
    if joined.is_empty() {
        joined.push(1);
        steps.push(1);
    }
    (joined, steps)
}

/// Data in the order of axes `perm`.
pub(super) fn permuted<T: Copy + Zeroable + Send + Sync>(
    source: &[T],
    dims: &[usize],
    perm: &[usize],
) -> Result<(Dims, Vec<T>), String> {
    let strides = strides(dims);
    let pick = |axis: &usize| dims.get(*axis).copied().zip(strides.get(*axis).copied());
    let (dims, strides): (Dims, Strides) =
        perm.iter().map(|axis| pick(axis).ok_or_else(|| format!("no axis {axis}"))).collect::<Result<_, _>>()?;
    let output = copy_strided(source, 0, &dims, &strides)?;
    Ok((dims, output))
}

/// Slices of `source` at `picks` along an axis. Picks are checked to be below the axis' size; `None` yields `fill`.
pub(super) fn take<T: Copy + Zeroable + Send + Sync>(
    source: &[T],
    dims: &[usize],
    axis: usize,
    picks: &[Option<usize>],
    fill: T,
) -> Result<(Dims, Vec<T>), String> {
    let (_, size, inner) = around(dims, axis);
    if let Some(pick) = picks.iter().flatten().find(|pick| **pick >= size) {
        return Err(format!("index {pick} is outside of a size of {size}"));
    }
    let mut dims = Dims::from_slice(dims);
    if let Some(dim) = dims.get_mut(axis) {
        *dim = picks.len();
    }
    let mut output = filled(&dims, fill)?;
    in_rows(&mut output, inner, &|row, output| {
        let (outer, pick) = (row / picks.len(), picks[row % picks.len()]);
        if let Some(pick) = pick {
            let start = (outer * size + pick) * inner;
            output.copy_from_slice(&source[start..start + inner]);
        }
    });
    Ok((dims, output))
}

/// Elements with the dimensions they broadcast with; a repeated element is held once.
pub(super) struct Operand<'a, T: Clone> {
    data: Cow<'a, [T]>,
    dims: Dims,
}

impl<'a, T: Clone> Operand<'a, T> {
    /// Elements of a dense tensor of `dims`.
    pub(super) fn new(data: Cow<'a, [T]>, dims: &[usize]) -> Result<Self, String> {
        if numel(dims) != Some(data.len()) {
            return Err(format!("{} elements do not fill {dims:?}", data.len()));
        }
        Ok(Self { data, dims: Dims::from_slice(dims) })
    }
}

/// One element of a tensor that repeats it, as a tensor of as many axes of size 1.
pub(super) fn repeated(tensor: &Tensor) -> Option<Tensor> {
    let element = Bytes::copy_from_slice(tensor.splat_element()?);
    if tensor.numel() == 0 {
        return None;
    }
    Tensor::new(tensor.dtype(), SmallVec::<[usize; 4]>::from_elem(1, tensor.rank()), element).ok()
}

/// A walk over an output that `N` operands broadcast to, by runs within which each operand advances or stands still.
struct Walk<const N: usize> {
    outer: Dims,
    strides: SmallVec<[[usize; N]; 4]>,
    inner: usize,
    steps: [usize; N],
}

impl<const N: usize> Walk<N> {
    fn new(dims: &[usize], operands: [&[usize]; N]) -> Result<Self, String> {
        let mut joined: SmallVec<[(usize, [bool; N]); 4]> = SmallVec::new();
        for (axis, dim) in dims.iter().enumerate() {
            let mut moves = [false; N];
            for (moves, operand) in moves.iter_mut().zip(operands) {
                let size = (axis + operand.len()).checked_sub(dims.len()).map_or(1, |axis| operand[axis]);
                if size != *dim && size != 1 {
                    return Err(format!("shape {operand:?} does not broadcast to {dims:?}"));
                }
                *moves = size == *dim;
            }
            match joined.last_mut() {
                _ if *dim == 1 => {}
                Some((size, same)) if *same == moves => *size *= dim,
                _ => joined.push((*dim, moves)),
            }
        }
        if operands.iter().any(|operand| operand.len() > dims.len()) {
            return Err(format!("more axes than {dims:?} has"));
        }
        let (inner, moves) = joined.pop().unwrap_or((1, [true; N]));
        let mut reach = moves.map(|moves| if moves { inner } else { 1 });
        let mut strides: SmallVec<[[usize; N]; 4]> = SmallVec::new();
        for (size, moves) in joined.iter().rev() {
            let mut stride = [0; N];
            for ((stride, reach), moves) in stride.iter_mut().zip(&mut reach).zip(moves) {
                if *moves {
                    *stride = *reach;
                    *reach *= size;
                }
            }
            strides.push(stride);
        }
        strides.reverse();
        let outer = joined.iter().map(|(size, _)| *size).collect();
        Ok(Self { outer, strides, inner, steps: moves.map(usize::from) })
    }

    /// Calls `run` with the first operand indices and the length of each run of `start..start + length`.
    fn runs(&self, start: usize, length: usize, mut run: impl FnMut([usize; N], usize)) {
        let (mut at, end) = (start, start + length);
        while at < end {
            let column = at % self.inner;
            let length = (self.inner - column).min(end - at);
            let mut offsets = self.steps.map(|step| step * column);
            let mut row = at / self.inner;
            for (size, strides) in self.outer.iter().zip(&self.strides).rev() {
                for (offset, stride) in offsets.iter_mut().zip(strides) {
                    *offset += row % size * stride;
                }
                row /= size;
            }
            run(offsets, length);
            at += length;
        }
    }
}

/// `f` of the elements of two operands broadcast to `dims`.
pub(super) fn zip_map<A, B, O>(
    a: &Operand<'_, A>,
    b: &Operand<'_, B>,
    dims: &[usize],
    f: impl Fn(A, B) -> O + Sync + Send,
) -> Result<Vec<O>, String>
where
    A: Copy + Send + Sync,
    B: Copy + Send + Sync,
    O: Copy + Default + Send,
{
    let mut output = filled(dims, O::default())?;
    if output.is_empty() {
        return Ok(output);
    }
    let walk = Walk::new(dims, [&a.dims, &b.dims])?;
    in_pieces(&mut output, &|start, mut output| {
        walk.runs(start, output.len(), |[at_a, at_b], length| {
            let (run, rest) = std::mem::take(&mut output).split_at_mut(length);
            output = rest;
            let (a, b) = (&a.data[at_a..], &b.data[at_b..]);
            match walk.steps {
                [0, 0] => run.fill(f(a[0], b[0])),
                [0, _] => run.iter_mut().zip(b).for_each(|(to, b)| *to = f(a[0], *b)),
                [_, 0] => run.iter_mut().zip(a).for_each(|(to, a)| *to = f(*a, b[0])),
                _ => run.iter_mut().zip(a).zip(b).for_each(|((to, a), b)| *to = f(*a, *b)),
            }
        });
    });
    Ok(output)
}

/// Replaces each element x of `output` (of `dims`) by `f(x, b)`, b broadcast to it.
pub(super) fn zip_assign<T: Copy + Send + Sync>(
    output: &mut [T],
    dims: &[usize],
    b: &Operand<'_, T>,
    f: impl Fn(T, T) -> T + Sync + Send,
) -> Result<(), String> {
    if output.is_empty() {
        return Ok(());
    }
    let walk = Walk::new(dims, [&b.dims])?;
    in_pieces(output, &|start, mut output| {
        walk.runs(start, output.len(), |[at], length| {
            let (run, rest) = std::mem::take(&mut output).split_at_mut(length);
            output = rest;
            let b = &b.data[at..];
            match walk.steps {
                [0] => run.iter_mut().for_each(|to| *to = f(*to, b[0])),
                _ => run.iter_mut().zip(b).for_each(|(to, b)| *to = f(*to, *b)),
            }
        });
    });
    Ok(())
}

/// Elements of `b` where `a` holds, else of `c`, broadcast to `dims`.
pub(super) fn select<T: Copy + Zeroable + Send + Sync>(
    a: &Operand<'_, bool>,
    b: &Operand<'_, T>,
    c: &Operand<'_, T>,
    dims: &[usize],
) -> Result<Vec<T>, String> {
    let mut output = filled(dims, T::zeroed())?;
    if output.is_empty() {
        return Ok(output);
    }
    let walk = Walk::new(dims, [&a.dims, &b.dims, &c.dims])?;
    in_pieces(&mut output, &|start, mut output| {
        walk.runs(start, output.len(), |[at_a, at_b, at_c], length| {
            let (run, rest) = std::mem::take(&mut output).split_at_mut(length);
            output = rest;
            let [step_a, step_b, step_c] = walk.steps;
            for (at, to) in run.iter_mut().enumerate() {
                let holds = a.data[at_a + at * step_a];
                *to = if holds { b.data[at_b + at * step_b] } else { c.data[at_c + at * step_c] };
            }
        });
    });
    Ok(output)
}

/// Bytes an element, for types that data movement knows.
pub(super) fn width(dtype: DType) -> Result<usize, String> {
    match dtype.bits() {
        bits @ (8 | 16 | 32 | 64 | 128) => Ok(bits / 8),
        _ => Err(format!("elements of {dtype} are not moved one by one")),
    }
}

/// The elements as units of `N` bytes.
pub(super) fn units<const N: usize>(tensor: &Tensor) -> Result<Cow<'_, [[u8; N]]>, String> {
    if let Some(element) = tensor.splat_element() {
        let unit = *element.first_chunk::<N>().ok_or_else(|| format!("an element of {} bytes", element.len()))?;
        return filled(tensor.dims(), unit).map(Cow::Owned);
    }
    Ok(Cow::Borrowed(tensor.bytes().as_chunks::<N>().0))
}

/// A tensor of units of `N` bytes.
pub(super) fn from_units<const N: usize>(dtype: DType, dims: &[usize], units: Vec<[u8; N]>) -> Result<Tensor, String> {
    Tensor::new(dtype, dims, Bytes::from(units.into_flattened())).map_err(phrase)
}

/// A tensor of other dimensions that repeats the same element, if the tensor repeats one.
pub(super) fn splat_like(tensor: &Tensor, dims: &[usize]) -> Option<Result<Tensor, String>> {
    let element = Bytes::copy_from_slice(tensor.splat_element()?);
    Some(Tensor::splat(tensor.dtype(), dims, element).map_err(phrase))
}

/// The slice of a tensor at one index of an axis, without that axis.
pub(super) fn slice_at(tensor: &Tensor, axis: usize, at: usize) -> Result<Tensor, String> {
    let mut dims = Dims::from_slice(tensor.dims());
    dims.remove(axis);
    if let Some(splat) = splat_like(tensor, &dims) {
        return splat;
    }
    by_width!(tensor.dtype(), N => {
        let (_, elements) = take(&units::<N>(tensor)?, tensor.dims(), axis, &[Some(at)], [0; N])?;
        from_units(tensor.dtype(), &dims, elements)
    })
}
