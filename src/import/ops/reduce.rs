//! Reductions, and what works along one axis.

use trt_fuse_ir::op::{
    ArgReduce, BinaryOp, Cast, Cumulative, Flatten, Reduce, ReduceKind, Reshape, ShapeOf, Softmax, TopK, UnaryOp,
};
use trt_fuse_ir::{Dim, Ints, Op, Tensor, ValueRef};

use super::Row;
use crate::import::attrs::fault;
use crate::import::formula::front_axis;
use crate::import::node::{Fault, Imported, NodeContext};

/// Rows of reductions.
macro_rules! reductions {
    ($($name:literal => $kind:ident),* $(,)?) => {
        &[$(Row::new($name, (1, 2), 1, |node| reduce(node, ReduceKind::$kind))),*]
    };
}

pub(super) const REDUCTIONS: &[Row] = reductions! {
    "ReduceL1" => L1,
    "ReduceL2" => L2,
    "ReduceLogSum" => LogSum,
    "ReduceLogSumExp" => LogSumExp,
    "ReduceMax" => Max,
    "ReduceMean" => Mean,
    "ReduceMin" => Min,
    "ReduceProd" => Prod,
    "ReduceSum" => Sum,
    "ReduceSumSquare" => SumSquare,
};

pub(super) const ROWS: &[Row] = &[
    Row::new("ArgMax", (1, 1), 1, |node| arg_reduce(node, true)),
    Row::new("ArgMin", (1, 1), 1, |node| arg_reduce(node, false)),
    Row::new("CumProd", (2, 2), 1, |node| cumulative(node, true)),
    Row::new("CumSum", (2, 2), 1, |node| cumulative(node, false)),
    Row::new("Det", (1, 1), 1, det),
    Row::new("Hardmax", (1, 1), 1, hardmax),
    Row::new("LogSoftmax", (1, 1), 1, |node| softmax(node, true)),
    Row::new("Softmax", (1, 1), 1, |node| softmax(node, false)),
    Row::new("TopK", (1, 2), 2, top_k),
];

/// Axes are an attribute before opset 18 (13 for the sum), an input from there on. No axes means all of them.
fn reduce(node: &mut NodeContext<'_, '_>, kind: ReduceKind) -> Imported {
    let keep_dims = node.attrs.flag("keepdims", true)?;
    let noop_if_empty = node.attrs.flag("noop_with_empty_axes", false)?;
    let data = node.required(0)?;
    let given: Option<Ints> = match node.input(1) {
        None => node.attrs.ints("axes")?,
        Some(_) if node.attrs.has("axes") => return Err(fault("axes", "the axes are an input too").into()),
        Some(axes) => match node.constant_ints(1) {
            None => return node.emit(Reduce { kind, axes: None, keep_dims, noop_if_empty }, [Some(data), Some(axes)]),
            Some(axes) => Some(axes.into_iter().collect()),
        },
    };
    let axes = given.filter(|axes| !axes.is_empty());
    node.emit(Reduce { kind, axes, keep_dims, noop_if_empty }, [Some(data)])
}

fn arg_reduce(node: &mut NodeContext<'_, '_>, largest: bool) -> Imported {
    let attrs = &node.attrs;
    let op = ArgReduce {
        largest,
        axis: attrs.int_or("axis", 0)?,
        keep_dims: attrs.flag("keepdims", true)?,
        select_last: attrs.flag("select_last_index", false)?,
    };
    node.emit_same(op)
}

fn cumulative(node: &mut NodeContext<'_, '_>, product: bool) -> Imported {
    let (exclusive, reverse) = (node.attrs.flag("exclusive", false)?, node.attrs.flag("reverse", false)?);
    node.emit_same(Cumulative { product, exclusive, reverse })
}

/// The number of elements is an attribute before opset 10.
fn top_k(node: &mut NodeContext<'_, '_>) -> Imported {
    let attrs = &node.attrs;
    let op = TopK {
        axis: attrs.int_or("axis", -1)?,
        largest: attrs.flag("largest", true)?,
        sorted: attrs.flag("sorted", true)?,
    };
    let data = node.required(0)?;
    let count = if node.opset >= 10 {
        node.required(1)?
    } else {
        node.attrs.required_int("k")?;
        let count = node.attrs.int_at_least("k", 0, 0)?;
        node.ints_part("k", &[count])?
    };
    node.emit(op, [Some(data), Some(count)])
}

/// What an operator along axes works on.
enum Along {
    /// One axis.
    Axis(i64),
    /// All axes from this one on together.
    From(i64),
}

/// Before opset 13 over all axes from `axis` on together; from there on along `axis` alone.
fn along(node: &NodeContext<'_, '_>) -> Result<Along, Fault> {
    if node.opset >= 13 {
        return Ok(Along::Axis(node.attrs.int_or("axis", -1)?));
    }
    let axis = node.attrs.int_or("axis", 1)?;
    let shape = node.shape(0)?;
    let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
    let first = if axis < 0 { axis.saturating_add(rank) } else { axis };
    if !(0..=rank).contains(&first) {
        return Err(fault("axis", format!("{axis} is outside of rank {rank}")).into());
    }
    // Axes of size 1 add nothing: at most one other is left for the usual form.
    let mut wide = (first..rank).zip(shape.iter().skip(first as usize)).filter(|(_, dim)| !dim.is(1));
    Ok(match (wide.next(), wide.next()) {
        (None, _) if first < rank => Along::Axis(first),
        (Some((axis, _)), None) => Along::Axis(axis),
        _ => Along::From(first),
    })
}

/// The node's output: a matrix under the dimensions of its input.
fn unflatten(node: &mut NodeContext<'_, '_>, matrix: ValueRef) -> Imported {
    let data = node.required(0)?;
    let dims = node.helper("shape", ShapeOf { start: 0, end: None }, [data])?;
    node.emit(Reshape { shape: None, allow_zero: true }, [Some(matrix), Some(dims)])
}

fn softmax(node: &mut NodeContext<'_, '_>, log: bool) -> Imported {
    let data = node.required(0)?;
    match along(node)? {
        Along::Axis(axis) => node.emit(Softmax { axis, log }, [Some(data)]),
        Along::From(first) => {
            let flat = node.helper("flat", Flatten { axis: first }, [data])?;
            let softmax = node.helper("softmax", Softmax { axis: 1, log }, [flat])?;
            unflatten(node, softmax)
        }
    }
}

/// One at the first of the largest elements, zeros elsewhere.
fn hardmax(node: &mut NodeContext<'_, '_>) -> Imported {
    let data = node.required(0)?;
    let dtype = node.dtype(0)?;
    let (data, axis, is_flat) = match along(node)? {
        Along::Axis(axis) => (data, front_axis("axis", axis, node.rank(0)?)?, false),
        Along::From(first) => (node.helper("flat", Flatten { axis: first }, [data])?, 1, true),
    };
    let rank = node.info(data).rank().unwrap_or(0);
    let largest = ArgReduce { largest: true, axis: axis as i64, keep_dims: true, select_last: false };
    let largest = node.helper("largest", Op::from(largest), [data])?;
    let mut positions = node.indices_of("positions", data, axis)?;
    let after: Vec<i64> = (1..(rank - axis) as i64).collect();
    if !after.is_empty() {
        positions = node.unsqueeze("positions.aligned", positions, &after)?;
    }
    let is_largest = node.binary("is_largest", BinaryOp::Equal, positions, largest)?;
    let op = Cast::new(dtype);
    if !is_flat {
        return node.emit(op, [Some(is_largest)]);
    }
    let matrix = node.helper("hardmax", op, [is_largest])?;
    unflatten(node, matrix)
}

/// Largest matrices whose determinants are written out.
const MAX_DET: usize = 4;

/// By Laplace's expansion along rows.
fn det(node: &mut NodeContext<'_, '_>) -> Imported {
    let (data, shape) = (node.required(0)?, node.shape(0)?);
    let [batch @ .., rows, columns] = &shape[..] else {
        return Err(crate::import::ImportError::Operands { reason: format!("a matrix of rank {}", shape.len()) }.into());
    };
    let side = rows.value().filter(|_| rows == columns).and_then(|side| usize::try_from(side).ok());
    let Some(side) = side.filter(|side| (1..=MAX_DET).contains(side)) else {
        let reason = format!("determinants of {rows} by {columns} matrices are not written out, only up to {MAX_DET}");
        return Err(Fault::Unsupported(reason));
    };
    let flat = node.reshape("flat", data, batch.iter().cloned().chain([Dim::from(side * side)]))?;
    let mut elements = Vec::new();
    for at in 0..side * side {
        let place = node.constant_part("place", Tensor::scalar(at as i64))?;
        elements.push(node.gather("element", flat, place, batch.len())?);
    }
    let det = minor(node, &elements, side, 0, &(0..side).collect::<Vec<_>>())?;
    node.emit(Op::Unary(UnaryOp::Identity), [Some(det)])
}

/// The determinant of these columns of the rows from `row` on, of which there are as many.
fn minor(
    node: &mut NodeContext<'_, '_>,
    elements: &[ValueRef],
    side: usize,
    row: usize,
    columns: &[usize],
) -> Result<ValueRef, Fault> {
    let mut total = None;
    for (at, column) in columns.iter().enumerate() {
        let Some(element) = elements.get(row * side + column).copied() else { continue };
        let rest: Vec<usize> = columns.iter().copied().filter(|other| other != column).collect();
        let term = match rest.is_empty() {
            true => element,
            false => {
                let minor = minor(node, elements, side, row + 1, &rest)?;
                node.binary("term", BinaryOp::Mul, element, minor)?
            }
        };
        total = Some(match total {
            None => term,
            Some(total) if at % 2 == 0 => node.binary("sum", BinaryOp::Add, total, term)?,
            Some(total) => node.binary("difference", BinaryOp::Sub, total, term)?,
        });
    }
    total.ok_or_else(|| Fault::Unsupported("an empty matrix".to_owned()))
}
