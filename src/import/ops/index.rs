//! Operators whose indices are data.

use trt_fuse_ir::Op;
use trt_fuse_ir::op::{Gather, GatherElements, GatherNd, OneHot, ScatterElements, ScatterNd, ScatterReduction};

use super::Row;
use crate::import::node::{Fault, Imported, NodeContext};

pub(super) const ROWS: &[Row] = &[
    Row::new("Gather", (2, 2), 1, gather),
    Row::new("GatherElements", (2, 2), 1, gather_elements),
    Row::new("GatherND", (2, 2), 1, gather_nd),
    Row::new("NonZero", (1, 1), 1, |node| node.emit_same(Op::NonZero)),
    Row::new("OneHot", (3, 3), 1, one_hot),
    // The older name of ScatterElements.
    Row::new("Scatter", (3, 3), 1, scatter_elements),
    Row::new("ScatterElements", (3, 3), 1, scatter_elements),
    Row::new("ScatterND", (3, 3), 1, scatter_nd),
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
