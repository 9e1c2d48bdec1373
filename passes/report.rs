//! What a pipeline did, for users and tests.

use std::collections::BTreeMap;

use serde::Serialize;
use trt_fuse_ir::{Graph, Op};

use crate::pass::Remark;
use crate::trace::Rewrite;

/// One run of one pass.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PassReport {
    /// The pass.
    pub name: &'static str,
    /// Patches applied, or nodes removed.
    pub rewrites: usize,
    /// Operations before.
    pub nodes_before: usize,
    /// Operations after.
    pub nodes_after: usize,
    /// Time taken, in milliseconds.
    pub ms: f64,
}

/// What a pipeline did.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Report {
    /// Runs of passes in order; after the first round only those that changed something.
    pub passes: Vec<PassReport>,
    /// Near misses that still hold at the end.
    pub remarks: Vec<Remark>,
    /// Rewrites made, in bodies too.
    pub rewrites: usize,
    /// Each of them, if the pipeline traces.
    pub trace: Vec<Rewrite>,
}

/// Number of operations by operator name, constants and inputs left out.
pub fn count_ops(graph: &Graph) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for op in graph.node_ids().filter_map(|id| graph.op(id)) {
        if !matches!(op, Op::Input | Op::Constant(_)) {
            *counts.entry(op.to_string()).or_insert(0) += 1;
        }
    }
    counts
}
