//! Operators whose indices are data.

use trt_fuse_ir::op::{
    BinaryOp, Concat, Gather, GatherElements, GatherNd, OneHot, ReverseSequence, ScatterElements, ScatterNd,
    ScatterReduction, Transpose,
};
use trt_fuse_ir::{Dim, Op, ValueRef};

use super::Row;
use crate::import::attrs::fault;
use crate::import::formula::{Part, front_axis};
use crate::import::node::{Fault, Imported, NodeContext};

pub(super) const ROWS: &[Row] = &[
    Row::new("Compress", (2, 2), 1, compress),
    Row::new("Gather", (2, 2), 1, gather),
    Row::new("GatherElements", (2, 2), 1, gather_elements),
    Row::new("GatherND", (2, 2), 1, gather_nd),
    Row::new("NonZero", (1, 1), 1, |node| node.emit_same(Op::NonZero)),
    Row::new("OneHot", (3, 3), 1, one_hot),
    Row::new("ReverseSequence", (2, 2), 1, reverse_sequence),
    // The older name of ScatterElements.
    Row::new("Scatter", (3, 3), 1, scatter_elements),
    Row::new("ScatterElements", (3, 3), 1, scatter_elements),
    Row::new("ScatterND", (3, 3), 1, scatter_nd),
    Row::new("TensorScatter", (2, 3), 1, tensor_scatter),
];

fn gather(node: &mut NodeContext<'_, '_>) -> Imported {
    let axis = node.attrs.int_or("axis", 0)?;
    node.emit_same(Gather { axis })
}

fn gather_elements(node: &mut NodeContext<'_, '_>) -> Imported {
    let axis = node.attrs.int_or("axis", 0)?;
    node.emit_same(GatherElements { axis })
}

fn gather_nd(node: &mut NodeContext<'_, '_>) -> Imported {
    let batch_dims = node.attrs.int_at_least("batch_dims", 0, 0)?;
    node.emit_same(GatherNd { batch_dims })
}

fn one_hot(node: &mut NodeContext<'_, '_>) -> Imported {
    let axis = node.attrs.int_or("axis", -1)?;
    node.emit_same(OneHot { axis })
}

fn reduction(node: &NodeContext<'_, '_>) -> Result<ScatterReduction, Fault> {
    let words: Vec<_> = ScatterReduction::ALL.iter().map(|reduction| (reduction.word(), *reduction)).collect();
    Ok(node.attrs.choice("reduction", &words)?)
}

fn scatter_elements(node: &mut NodeContext<'_, '_>) -> Imported {
    let op = ScatterElements { axis: node.attrs.int_or("axis", 0)?, reduction: reduction(node)? };
    node.emit_same(op)
}

fn scatter_nd(node: &mut NodeContext<'_, '_>) -> Imported {
    let op = ScatterNd { reduction: reduction(node)? };
    node.emit_same(op)
}

fn reverse_sequence(node: &mut NodeContext<'_, '_>) -> Imported {
    let op = ReverseSequence {
        batch_axis: node.attrs.int_or("batch_axis", 1)?,
        time_axis: node.attrs.int_or("time_axis", 0)?,
    };
    node.emit_same(op)
}

/// A gather of the places where the condition is true: known ones, or those that run time finds.
fn compress(node: &mut NodeContext<'_, '_>) -> Imported {
    let mut data = node.required(0)?;
    let axis = match node.attrs.int("axis")? {
        Some(axis) => front_axis("axis", axis, node.rank(0)?)?,
        None => {
            let size = Dim::product(&node.shape(0)?);
            data = node.reshape("flat", data, [size])?;
            0
        }
    };
    let places = match node.constant_ints(1) {
        Some(condition) => {
            let places = (0_i64..).zip(condition).filter(|(_, kept)| *kept != 0).map(|(at, _)| at);
            node.ints_part("places", &places.collect::<Vec<_>>())?
        }
        None => {
            let condition = node.required(1)?;
            let found = node.helper("found", Op::NonZero, [condition])?;
            node.squeeze("places", found, &[0])?
        }
    };
    node.emit(Gather { axis: axis as i64 }, [Some(data), Some(places)])
}

/// Rows of the cache, `[batch, sequence, ...]`, replaced at `(batch, write index + position)`. Without write indices the
/// update takes the place of the first ones.
fn tensor_scatter(node: &mut NodeContext<'_, '_>) -> Imported {
    let circular = node.attrs.choice("mode", &[("linear", false), ("circular", true)])?;
    let (cache, update) = (node.required(0)?, node.required(1)?);
    let (shape, update_shape) = (node.shape(0)?, node.shape(1)?);
    let axis = front_axis("axis", node.attrs.int_or("axis", -2)?, shape.len())?;
    let (Some(size), Some(length), true) = (shape.get(axis).cloned(), update_shape.get(axis).cloned(), axis > 0) else {
        return Err(fault("axis", "it is the axis of batch").into());
    };
    let Some(first) = node.input(2) else {
        let rest = node.slice("rest", cache, axis, length, size)?;
        return node.emit(Concat { axis: axis as i64 }, [Some(update), Some(rest)]);
    };

    // The axis of sequences second, and back.
    let mut order: Vec<usize> = (0..shape.len()).filter(|at| *at != axis).collect();
    order.insert(1, axis);
    let mut back: Vec<usize> = (2..shape.len()).collect();
    back.insert(0, 0);
    back.insert(axis, 1);
    let sequences = node.transpose("cache", cache, &order)?;
    let updates = node.transpose("update", update, &order)?;
    let positions = node.indices_of("positions", updates, 1)?;
    let first = node.unsqueeze("first", first, &[1])?;
    let mut places = node.binary("places", BinaryOp::Add, first, positions)?;
    if circular {
        let size = node.size_of("size", sequences, 1)?;
        places = node.binary("wrapped", BinaryOp::Mod, places, size)?;
    }
    let indices = batch_indices(node, places)?;
    let op = ScatterNd { reduction: ScatterReduction::None };
    if order.iter().enumerate().all(|(to, from)| to == *from) {
        return node.emit(op, [Some(sequences), Some(indices), Some(updates)]);
    }
    let written = node.helper("written", op, [sequences, indices, updates])?;
    let perm = back.iter().map(|axis| *axis as i64).collect();
    node.emit(Transpose { perm }, [Some(written)])
}

/// Index tuples `[batch, count, 2]` of places `[batch, count]`: the number of the batch and the place.
fn batch_indices(node: &mut NodeContext<'_, '_>, places: ValueRef) -> Part {
    let batch = node.indices_of("batch", places, 0)?;
    let column = node.unsqueeze("batch.column", batch, &[1])?;
    // Broadcast by arithmetic, which needs no sizes.
    let zeros = node.binary("zeros", BinaryOp::Sub, places, places)?;
    let numbers = node.binary("batch.numbers", BinaryOp::Add, zeros, column)?;
    let pairs = [node.unsqueeze("of_batch", numbers, &[2])?, node.unsqueeze("of_place", places, &[2])?];
    node.concat("indices", 2, &pairs)
}
