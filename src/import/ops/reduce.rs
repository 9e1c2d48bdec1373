//! Reductions, and what works along one axis.

use trt_fuse_ir::Ints;
use trt_fuse_ir::op::{ArgReduce, Cumulative, Flatten, Reduce, ReduceKind, Reshape, ShapeOf, Softmax, TopK};

use super::Row;
use crate::import::attrs::fault;
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

/// Before opset 13 over all axes from `axis` on together; from there on along `axis` alone.
fn softmax(node: &mut NodeContext<'_, '_>, log: bool) -> Imported {
    let data = node.required(0)?;
    if node.opset >= 13 {
        let axis = node.attrs.int_or("axis", -1)?;
        return node.emit(Softmax { axis, log }, [Some(data)]);
    }
    let axis = node.attrs.int_or("axis", 1)?;
    let shape = node.info(data).shape;
    let Some(shape) = shape else {
        return Err(Fault::Unsupported("the rank of input 0 is not known".to_owned()));
    };
    let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
    let first = if axis < 0 { axis.saturating_add(rank) } else { axis };
    if !(0..=rank).contains(&first) {
        return Err(fault("axis", format!("{axis} is outside of rank {rank}")).into());
    }
    // Axes of size 1 add nothing: at most one other is left for the usual form.
    let mut wide = (first..rank).zip(shape.iter().skip(first as usize)).filter(|(_, dim)| !dim.is(1));
    let along = match (wide.next(), wide.next()) {
        (None, _) => Some(first),
        (Some((axis, _)), None) => Some(axis),
        _ => None,
    };
    match along.filter(|axis| *axis < rank) {
        Some(axis) => node.emit(Softmax { axis, log }, [Some(data)]),
        None => {
            let flat = node.helper("flat", Flatten { axis: first }, [data])?;
            let softmax = node.helper("softmax", Softmax { axis: 1, log }, [flat])?;
            let dims = node.helper("shape", ShapeOf { start: 0, end: None }, [data])?;
            node.emit(Reshape { shape: None, allow_zero: true }, [Some(softmax), Some(dims)])
        }
    }
}
