//! Matrix products.

use std::collections::BTreeMap;

use super::conv::broadcast_epilogue;
use super::math::{broadcast, broadcast_dims};
use super::{Infos, Inputs, join_dtypes, one, shaped, unify};
use crate::op::{Einsum, MatMul};
use crate::{Dim, Shape};

pub(super) fn matmul(op: &MatMul, inputs: Inputs<'_>) -> Result<Infos, String> {
    let (a, b) = (inputs.required(0)?, inputs.required(1)?);
    let dtype = join_dtypes(a.dtype, b.dtype)?;
    let (Some(a), Some(b)) = (&a.shape, &b.shape) else {
        return Ok(one(shaped(dtype, None)));
    };
    let (a_leading, rows, inner_a) = split_matrix(a, op.transpose_a, true)?;
    let (b_leading, inner_b, columns) = split_matrix(b, op.transpose_b, false)?;
    unify(&inner_a, &inner_b).map_err(|_| format!("inner dimensions {inner_a} and {inner_b} differ"))?;
    let mut shape = broadcast(&a_leading, &b_leading)?;
    if a.len() > 1 {
        shape.push(rows);
    }
    if b.len() > 1 {
        shape.push(columns);
    }
    broadcast_epilogue(&op.epilogue, inputs, 2, &shape)?;
    Ok(one(shaped(dtype, Some(shape))))
}

/// Leading dimensions, rows, columns; a vector is a row on the left and a column on the right.
fn split_matrix(shape: &Shape, transposed: bool, left: bool) -> Result<(Shape, Dim, Dim), String> {
    match shape.as_slice() {
        [] => Err("a scalar has no matrix product".to_string()),
        [size] if left => Ok((Shape::new(), Dim::fixed(1), size.clone())),
        [size] => Ok((Shape::new(), size.clone(), Dim::fixed(1))),
        [leading @ .., rows, columns] => {
            let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
            Ok((leading.iter().cloned().collect(), rows.clone(), columns.clone()))
        }
    }
}

pub(super) fn einsum(op: &Einsum, inputs: Inputs<'_>) -> Result<Infos, String> {
    let (terms, output) = op.equation.split_once("->").ok_or_else(|| format!("`{}` has no output", op.equation))?;
    let terms: Vec<&str> = terms.split(',').collect();
    if terms.len() != inputs.len() {
        return Err(format!("{} terms for {} inputs", terms.len(), inputs.len()));
    }
    let mut dtype = inputs.required(0)?.dtype;
    let mut labels: BTreeMap<char, Dim> = BTreeMap::new();
    let mut ellipsis = Shape::new();
    let mut complete = true;
    for (slot, term) in terms.iter().enumerate() {
        let input = inputs.required(slot)?;
        dtype = join_dtypes(dtype, input.dtype)?;
        let Some(shape) = &input.shape else {
            complete = false;
            continue;
        };
        let (before, after) = term.split_once("...").unwrap_or((term, ""));
        let named = before.chars().count() + after.chars().count();
        let spare = shape.len().checked_sub(named).filter(|spare| *spare == 0 || term.contains("..."));
        let spare = spare.ok_or_else(|| format!("term `{term}` for rank {}", shape.len()))?;
        let (head, tail) = shape.split_at(before.chars().count());
        let (middle, tail) = tail.split_at(spare);
        for (label, dim) in before.chars().zip(head).chain(after.chars().zip(tail)) {
            let dim = match labels.get(&label) {
                Some(known) => broadcast_dims(known, dim).map_err(|reason| format!("label `{label}`: {reason}"))?,
                None => dim.clone(),
            };
            labels.insert(label, dim);
        }
        ellipsis = broadcast(&ellipsis, &middle.iter().cloned().collect())?;
    }
    if !complete {
        return Ok(one(shaped(dtype, None)));
    }
    let (before, after) = output.split_once("...").unwrap_or((output, ""));
    let dims = |labelled: &str| -> Result<Shape, String> {
        let find = |label| labels.get(&label).cloned().ok_or_else(|| format!("label `{label}` is in no input"));
        labelled.chars().map(find).collect()
    };
    let mut shape = dims(before)?;
    if output.contains("...") {
        shape.extend(ellipsis);
    }
    shape.extend(dims(after)?);
    Ok(one(shaped(dtype, Some(shape))))
}
