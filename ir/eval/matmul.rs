//! Matrix products.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use super::activation::apply_epilogue;
use super::layout::{self, Operand, filled, in_rows, product, strides, zip_assign};
use super::number::{Number, Real, for_integer, for_real, phrase, same_dtype};
use super::{Inputs, Tensors, one};
use crate::{Dims, Epilogue, Tensor, op};

pub(super) fn matmul(op: &op::MatMul, inputs: Inputs<'_>) -> Result<Tensors, String> {
    let (a, b) = (inputs.required(0)?, inputs.required(1)?);
    let batches = Batches::new(a.dims(), b.dims(), op.transpose_a, op.transpose_b)?;
    let dtype = same_dtype(a, b)?;
    if dtype.is_integer() {
        return for_integer!(dtype, T => {
            let output = batches.run_integers::<T>(&T::load(a)?, &T::load(b)?)?;
            one(finish(&op.epilogue, inputs, dtype, &batches.dims, output))
        });
    }
    for_real!(dtype, T => {
        let output = batches.run::<T>(&T::load(a)?, &T::load(b)?)?;
        one(finish(&op.epilogue, inputs, dtype, &batches.dims, output))
    })
}

fn finish<T: Number>(
    epilogue: &Epilogue,
    inputs: Inputs<'_>,
    dtype: crate::DType,
    dims: &[usize],
    mut output: Vec<T>,
) -> Result<Tensor, String> {
    apply_epilogue(epilogue, &mut output, |at, output| {
        let add = inputs.required(2 + at)?;
        if layout::broadcast(dims, add.dims())?.as_slice() != dims {
            return Err(format!("{:?} does not broadcast to the output {dims:?}", add.dims()));
        }
        zip_assign(output, dims, &Operand::new(T::load(add)?, add.dims())?, T::plus)
    })?;
    T::store(dtype, dims, output)
}

/// A product of stacks of matrices.
struct Batches {
    /// Of the output.
    dims: Dims,
    rows: usize,
    depth: usize,
    columns: usize,
    transpose_a: bool,
    transpose_b: bool,
    /// For each output matrix, which matrices of a and b make it.
    pairs: Vec<(usize, usize)>,
}

impl Batches {
    fn new(a: &[usize], b: &[usize], transpose_a: bool, transpose_b: bool) -> Result<Self, String> {
        let wrong = || format!("no product of {a:?} and {b:?}");
        // A vector is a row on the left and a column on the right, and its axis leaves the output.
        let (matrix_a, matrix_b) = match (a, b) {
            ([], _) | (_, []) => return Err(wrong()),
            ([_], _) if transpose_a => return Err(wrong()),
            (_, [_]) if transpose_b => return Err(wrong()),
            (a, b) => {
                let a = if let [depth] = a { Dims::from_slice(&[1, *depth]) } else { Dims::from_slice(a) };
                let b = if let [depth] = b { Dims::from_slice(&[*depth, 1]) } else { Dims::from_slice(b) };
                (a, b)
            }
        };
        let split = |dims: &Dims, transposed: bool| match dims.as_slice() {
            [batch @ .., rows, columns] if transposed => Some((Dims::from_slice(batch), *columns, *rows)),
            [batch @ .., rows, columns] => Some((Dims::from_slice(batch), *rows, *columns)),
            _ => None,
        };
        let (batch_a, rows, depth) = split(&matrix_a, transpose_a).ok_or_else(wrong)?;
        let (batch_b, depth_b, columns) = split(&matrix_b, transpose_b).ok_or_else(wrong)?;
        if depth != depth_b {
            return Err(wrong());
        }
        let batch = layout::broadcast(&batch_a, &batch_b)?;
        let mut dims = batch.clone();
        if a.len() > 1 {
            dims.push(rows);
        }
        if b.len() > 1 {
            dims.push(columns);
        }
        let mut this = Self { dims, rows, depth, columns, transpose_a, transpose_b, pairs: Vec::new() };
        if batch_b.iter().all(|dim| *dim == 1) && !transpose_a && batch_a == batch {
            // One matrix on the right: all of the left's rows are rows of one matrix.
            this.rows = rows.checked_mul(product(&batch)).ok_or_else(wrong)?;
            this.pairs.push((0, 0));
        } else {
            layout::check_size(&this.dims, 1)?;
            let matrices = |dims: &[usize]| matrix_numbers(dims, &batch);
            this.pairs = matrices(&batch_a)?.into_iter().zip(matrices(&batch_b)?).collect();
        }
        Ok(this)
    }

    fn matrix<'a, T>(
        &self,
        data: &'a [T],
        at: usize,
        rows: usize,
        columns: usize,
        transposed: bool,
    ) -> Result<ArrayView2<'a, T>, String> {
        let size = rows * columns;
        let data = data.get(at * size..(at + 1) * size).ok_or("a matrix lies outside of its data")?;
        if transposed {
            ArrayView2::from_shape((columns, rows), data).map(ArrayView2::reversed_axes).map_err(phrase)
        } else {
            ArrayView2::from_shape((rows, columns), data).map_err(phrase)
        }
    }

    fn run<T: Real>(&self, a: &[T], b: &[T]) -> Result<Vec<T>, String> {
        let mut output = filled(&self.dims, T::ZERO)?;
        if output.is_empty() || self.depth == 0 {
            return Ok(output);
        }
        // Pieces of the output that are worth a task each.
        let threads = rayon::current_num_threads();
        let work = self.rows.saturating_mul(self.depth).saturating_mul(self.columns);
        let pieces = if self.pairs.len() >= threads || work < 1 << 18 { 1 } else { threads.div_ceil(self.pairs.len()) };
        let by_rows = self.rows >= self.columns;
        let mut tasks = Vec::new();
        for (matrix, (at_a, at_b)) in output.chunks_mut(self.rows * self.columns).zip(&self.pairs) {
            let a = self.matrix(a, *at_a, self.rows, self.depth, self.transpose_a)?;
            let b = self.matrix(b, *at_b, self.depth, self.columns, self.transpose_b)?;
            let matrix = ArrayViewMut2::from_shape((self.rows, self.columns), matrix).map_err(phrase)?;
            let (axis, step) =
                if by_rows { (Axis(0), self.rows.div_ceil(pieces)) } else { (Axis(1), self.columns.div_ceil(pieces)) };
            for (piece, output) in matrix.into_axis_chunks_iter_mut(axis, step).enumerate() {
                tasks.push((a, b, piece * step, output));
            }
        }
        tasks.into_par_iter().for_each(|(a, b, from, mut output)| {
            let (rows, columns) = output.dim();
            let (a, b) = if by_rows {
                (a.slice_move(ndarray::s![from..from + rows, ..]), b)
            } else {
                (a, b.slice_move(ndarray::s![.., from..from + columns]))
            };
            general_mat_mul(T::ONE, &a, &b, T::ZERO, &mut output);
        });
        Ok(output)
    }

    fn run_integers<T: Number>(&self, a: &[T], b: &[T]) -> Result<Vec<T>, String> {
        let mut output = filled(&self.dims, T::ZERO)?;
        if output.is_empty() {
            return Ok(output);
        }
        for (matrix, (at_a, at_b)) in output.chunks_mut(self.rows * self.columns).zip(&self.pairs) {
            let a = self.matrix(a, *at_a, self.rows, self.depth, self.transpose_a)?;
            let b = self.matrix(b, *at_b, self.depth, self.columns, self.transpose_b)?;
            in_rows(matrix, self.columns, &|row, output| {
                for (a, b) in a.row(row).iter().zip(b.rows()) {
                    output.iter_mut().zip(b).for_each(|(to, b)| *to = to.plus(a.times(*b)));
                }
            });
        }
        Ok(output)
    }
}

/// For each matrix of a stack `batch`, the number of the matrix of a stack `dims` that broadcasts to it.
fn matrix_numbers(dims: &[usize], batch: &[usize]) -> Result<Vec<usize>, String> {
    let skipped = batch.len().saturating_sub(dims.len());
    let mut steps = layout::Strides::from_elem(0, batch.len());
    for ((step, dim), stride) in steps.iter_mut().skip(skipped).zip(dims).zip(strides(dims)) {
        *step = if *dim == 1 { 0 } else { stride };
    }
    let numbers: Vec<usize> = (0..product(dims)).collect();
    layout::copy_strided(&numbers, 0, batch, &steps)
}

/// The product of stacks of matrices `[.., rows, depth]` and `[.., depth, columns]`, and its dimensions.
pub(super) fn stacked<T: Real>(a: &[T], a_dims: &[usize], b: &[T], b_dims: &[usize]) -> Result<(Dims, Vec<T>), String> {
    let batches = Batches::new(a_dims, b_dims, false, false)?;
    let output = batches.run(a, b)?;
    Ok((batches.dims, output))
}
