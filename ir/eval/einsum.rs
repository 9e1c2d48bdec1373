//! Einsum, operand by operand: each is brought to batched matrices, multiplied, and its axes named again.

use smallvec::SmallVec;

use super::layout::{Strides, broadcast, copy_strided, filled, in_pieces, permuted, product, strides};
use super::matmul::stacked;
use super::number::{Number, Real, for_real, same_dtype};
use super::{Inputs, Tensors, one};
use crate::{Dims, op};

/// The name of an axis; those of an ellipsis are digits counted from the last axis.
type Label = char;
type Labels = SmallVec<[Label; 8]>;

/// Data with named axes, each name once.
struct Named<T> {
    labels: Labels,
    dims: Dims,
    data: Vec<T>,
}

pub(super) fn einsum(op: &op::Einsum, inputs: Inputs<'_>) -> Result<Tensors, String> {
    let first = inputs.required(0)?;
    let (terms, result) = op.equation.split_once("->").ok_or("the equation has no `->`")?;
    let terms: Vec<&str> = terms.split(',').collect();
    if terms.len() != inputs.0.len() {
        return Err(format!("`{}` has {} terms for {} inputs", op.equation, terms.len(), inputs.0.len()));
    }
    for_real!(first.dtype(), T => {
        let mut operands = Vec::new();
        for (slot, term) in terms.iter().enumerate() {
            let tensor = inputs.required(slot)?;
            same_dtype(first, tensor)?;
            let labels = labels(term, tensor.rank())?;
            operands.push(diagonal(&T::load(tensor)?, tensor.dims(), &labels)?);
        }
        let ellipsis = operands.iter().flat_map(|operand| operand.labels.iter().copied());
        let ellipsis = ellipsis.filter(char::is_ascii_digit).max().map_or(0, |digit| digit as usize - '0' as usize + 1);
        let wanted = expand(result, ellipsis)?;
        let (dims, data) = contract(operands, &wanted)?;
        one(T::store(first.dtype(), &dims, data))
    })
}

/// A term's labels; an ellipsis stands for the axes that no letter names.
fn labels(term: &str, rank: usize) -> Result<Labels, String> {
    let named = term.chars().filter(|label| *label != '.').count();
    let ellipsis = rank.checked_sub(named).ok_or_else(|| format!("`{term}` names {named} axes of {rank}"))?;
    if ellipsis > 0 && !term.contains("...") {
        return Err(format!("`{term}` names {named} axes of {rank}"));
    }
    expand(term, ellipsis)
}

fn expand(term: &str, ellipsis: usize) -> Result<Labels, String> {
    if ellipsis > 10 {
        return Err(format!("an ellipsis of {ellipsis} axes"));
    }
    let digits: String = "9876543210".chars().skip(10 - ellipsis).collect();
    let labels: Labels = term.replacen("...", &digits, 1).chars().collect();
    match labels.iter().find(|label| !label.is_ascii_alphanumeric()) {
        Some(label) => Err(format!("`{label}` in the equation")),
        None => Ok(labels),
    }
}

/// The operand with each label once: of a repeated one, the diagonal.
fn diagonal<T: Real>(data: &[T], dims: &[usize], labels: &Labels) -> Result<Named<T>, String> {
    let (mut names, mut sizes, mut steps) = (Labels::new(), Dims::new(), Strides::new());
    for ((label, dim), stride) in labels.iter().zip(dims).zip(strides(dims)) {
        match names.iter().position(|name| name == label) {
            Some(at) if sizes[at] == *dim => steps[at] += stride,
            Some(_) => return Err(format!("`{label}` has two sizes")),
            None => {
                names.push(*label);
                sizes.push(*dim);
                steps.push(stride);
            }
        }
    }
    let data = copy_strided(data, 0, &sizes, &steps)?;
    Ok(Named { labels: names, dims: sizes, data })
}

fn contract<T: Real>(operands: Vec<Named<T>>, wanted: &Labels) -> Result<(Dims, Vec<T>), String> {
    let mut operands: std::collections::VecDeque<_> = operands.into();
    let mut total = operands.pop_front().ok_or("no operand")?;
    while let Some(next) = operands.pop_front() {
        let needed =
            |label: &Label| wanted.contains(label) || operands.iter().any(|operand| operand.labels.contains(label));
        total = multiply(total, next, &needed)?;
    }
    let total = summed(total, &|label| wanted.contains(label))?;
    let axis = |label: &Label| {
        total.labels.iter().position(|name| name == label).ok_or_else(|| format!("no operand has `{label}`"))
    };
    let perm: Dims = wanted.iter().map(axis).collect::<Result<_, _>>()?;
    if perm.len() != total.labels.len() {
        return Err("a label is given twice in the output".to_string());
    }
    permuted(&total.data, &total.dims, &perm)
}

/// The operand with its axes in the order of `order`; labels that it lacks are left out.
fn ordered<T: Real>(operand: Named<T>, order: &[Label]) -> Result<Named<T>, String> {
    let perm: Dims = order.iter().filter_map(|label| operand.labels.iter().position(|name| name == label)).collect();
    let labels = perm.iter().filter_map(|axis| operand.labels.get(*axis).copied()).collect();
    let (dims, data) = permuted(&operand.data, &operand.dims, &perm)?;
    Ok(Named { labels, dims, data })
}

/// The operand summed over the labels that are not kept.
fn summed<T: Real>(operand: Named<T>, keep: &dyn Fn(&Label) -> bool) -> Result<Named<T>, String> {
    let kept = operand.labels.iter().filter(|label| keep(label)).count();
    if kept == operand.labels.len() {
        return Ok(operand);
    }
    let mut order = operand.labels.clone();
    order.sort_by_key(|label| !keep(label));
    let mut operand = ordered(operand, &order)?;
    let length = product(&operand.dims[kept..]);
    let mut sums = filled(&operand.dims[..kept], T::ZERO)?;
    in_pieces(&mut sums, &|start, sums| {
        for (at, sum) in sums.iter_mut().enumerate() {
            let from = (start + at) * length;
            *sum = operand.data[from..from + length].iter().fold(T::ZERO, |sum, x| sum + *x);
        }
    });
    operand.labels.truncate(kept);
    operand.dims.truncate(kept);
    operand.data = sums;
    Ok(operand)
}

/// The product of two operands, summed over the labels that nothing needs any more.
fn multiply<T: Real>(a: Named<T>, b: Named<T>, needed: &dyn Fn(&Label) -> bool) -> Result<Named<T>, String> {
    // An axis of size 1 broadcasts against the other operand's.
    let size = |operand: &Named<T>, label: &Label| {
        operand.labels.iter().position(|name| name == label).and_then(|axis| operand.dims.get(axis).copied())
    };
    for label in &a.labels {
        if let (Some(x), Some(y)) = (size(&a, label), size(&b, label)) {
            broadcast(&[x], &[y]).map_err(|_| format!("`{label}` has sizes {x} and {y}"))?;
        }
    }
    let a = without_broadcast(a, &b);
    let b = without_broadcast(b, &a);
    let a = summed(a, &|label| needed(label) || b.labels.contains(label))?;
    let b = summed(b, &|label| needed(label) || a.labels.contains(label))?;
    let pick =
        |from: &Labels, keep: &dyn Fn(&Label) -> bool| from.iter().copied().filter(|l| keep(l)).collect::<Labels>();
    let batch = pick(&a.labels, &|label| b.labels.contains(label) && needed(label));
    let shared = pick(&a.labels, &|label| b.labels.contains(label) && !needed(label));
    let rows = pick(&a.labels, &|label| !b.labels.contains(label));
    let columns = pick(&b.labels, &|label| !a.labels.contains(label));
    let joined = |parts: [&Labels; 3]| parts.into_iter().flatten().copied().collect::<Labels>();
    let a = ordered(a, &joined([&batch, &rows, &shared]))?;
    let b = ordered(b, &joined([&batch, &shared, &columns]))?;
    let (stack, rest_a) = a.dims.split_at(batch.len());
    let (row_dims, depth) = rest_a.split_at(rows.len());
    let column_dims = &b.dims[batch.len() + shared.len()..];
    let matrix = |rows: &[usize], columns: &[usize]| [product(stack), product(rows), product(columns)];
    let (_, data) = stacked(&a.data, &matrix(row_dims, depth), &b.data, &matrix(depth, column_dims))?;
    let dims = stack.iter().chain(row_dims).chain(column_dims).copied().collect();
    Ok(Named { labels: joined([&batch, &rows, &columns]), dims, data })
}

/// The operand without its axes of size 1 that the other has at another size.
fn without_broadcast<T>(mut operand: Named<T>, other: &Named<T>) -> Named<T> {
    for axis in (0..operand.labels.len()).rev() {
        let label = operand.labels[axis];
        let theirs = other.labels.iter().position(|name| *name == label).map(|axis| other.dims[axis]);
        if operand.dims[axis] == 1 && theirs.is_some_and(|size| size != 1) {
            operand.labels.remove(axis);
            operand.dims.remove(axis);
        }
    }
    operand
}
