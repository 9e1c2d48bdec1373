//! What was rewritten: the count of changes, the most that may be made, and, if asked for, each of them in words.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashSet;
use serde::Serialize;
use trt_fuse_ir::{Applied, Graph, GraphError, NodeId, Op, Patch};

/// A node as it was when a rewrite was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TracedNode {
    /// Its name.
    pub name: Arc<str>,
    /// Its operator.
    pub op: String,
    /// Its line in text form.
    pub line: String,
    /// Names of the ONNX nodes that it stands for.
    pub onnx_nodes: Vec<Arc<str>>,
}

impl TracedNode {
    fn of(graph: &Graph, id: NodeId) -> Option<Self> {
        let node = graph.node(id)?;
        Some(Self {
            name: node.name.clone(),
            op: node.op.to_string(),
            line: graph.line(id),
            onnx_nodes: graph.origins(id).map(|source| source.name.clone()).collect(),
        })
    }
}

/// One change of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rewrite {
    /// Which it is of the pipeline's, from 1. What is dropped because nothing reads it any more has the number of the
    /// rewrite before.
    pub number: usize,
    /// The pass.
    pub pass: &'static str,
    /// The rule; the pass itself, unless that is several.
    pub rule: &'static str,
    /// Which it is of the rule's, from 1; 0 for what is dropped because nothing reads it any more.
    pub ordinal: usize,
    /// The round of the pipeline, from 1.
    pub round: usize,
    /// The ONNX node that it was made at; the node's own name where it stands for none.
    pub node: Arc<str>,
    /// The nodes that were taken in or replaced, constants left out.
    pub before: Vec<TracedNode>,
    /// The nodes that were added.
    pub after: Vec<TracedNode>,
    /// The nodes that were there already, and are read instead.
    pub instead: Vec<TracedNode>,
}

impl Rewrite {
    /// Whether nothing was changed but that nodes which nothing reads are gone.
    pub fn is_drop(&self) -> bool {
        self.ordinal == 0
    }
}

/// A change that could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The patch does not fit.
    Patch(GraphError),
    /// As many changes were made as may be.
    Spent,
}

/// Counts changes, and writes them down if asked to.
#[derive(Debug)]
pub(crate) struct Journal {
    /// The round, from 0.
    pub(crate) round: usize,
    made: usize,
    most: usize,
    spent: bool,
    ordinals: BTreeMap<&'static str, usize>,
    trace: Option<Vec<Rewrite>>,
}

impl Default for Journal {
    fn default() -> Self {
        Self::new(usize::MAX, false)
    }
}

impl Journal {
    /// A journal that allows at most so many changes.
    pub(crate) fn new(most: usize, traced: bool) -> Self {
        let trace = traced.then(Vec::new);
        Self { round: 0, made: 0, most, spent: false, ordinals: BTreeMap::new(), trace }
    }

    /// Changes made.
    pub(crate) fn made(&self) -> usize {
        self.made
    }

    /// Whether a change was refused because there were enough.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent
    }

    /// What was written down.
    pub(crate) fn into_rewrites(self) -> Vec<Rewrite> {
        self.trace.unwrap_or_default()
    }

    /// Makes a change.
    pub(crate) fn apply(&mut self, pass: &'static str, graph: &mut Graph, patch: &Patch) -> Result<Applied, Refused> {
        if self.made >= self.most {
            self.spent = true;
            return Err(Refused::Spent);
        }
        let traced = self.trace.is_some().then(|| {
            let instead: Vec<TracedNode> = nodes(graph, patch.instead(), true);
            (onnx_name(graph, patch.anchor()), nodes(graph, patch.touched(), false), instead)
        });
        let applied = graph.apply(patch).map_err(Refused::Patch)?;
        self.made += 1;
        let ordinal = self.ordinals.entry(patch.rule()).or_insert(0);
        *ordinal += 1;
        if let (Some(trace), Some((node, before, instead))) = (&mut self.trace, traced) {
            trace.push(Rewrite {
                number: self.made,
                pass,
                rule: patch.rule(),
                ordinal: *ordinal,
                round: self.round + 1,
                node,
                before,
                after: nodes(graph, applied.added.iter().copied(), true),
                instead,
            });
        }
        Ok(applied)
    }

    /// Removes what no output needs, and says how many nodes computed something. This is no change of its own: outputs
    /// stay as they are.
    pub(crate) fn prune(&mut self, pass: &'static str, graph: &mut Graph) -> usize {
        if let Some(trace) = &mut self.trace {
            let mut before = nodes(graph, graph.dead().into_iter(), false);
            before.sort_by(|a, b| a.name.cmp(&b.name));
            if let Some(first) = before.first() {
                let node = first.onnx_nodes.first().unwrap_or(&first.name).clone();
                let (number, round) = (self.made, self.round + 1);
                let nothing = Vec::new;
                trace.push(Rewrite {
                    number,
                    pass,
                    rule: pass,
                    ordinal: 0,
                    round,
                    node,
                    before,
                    after: nothing(),
                    instead: nothing(),
                });
            }
        }
        graph.prune_dead()
    }
}

/// The name of the first ONNX node that a node stands for, or its own.
pub(crate) fn onnx_name(graph: &Graph, id: NodeId) -> Arc<str> {
    graph.origins(id).next().map_or_else(|| graph.node_name(id).into(), |source| source.name.clone())
}

/// Each node once.
fn nodes(graph: &Graph, ids: impl Iterator<Item = NodeId>, constants: bool) -> Vec<TracedNode> {
    let mut seen = FxHashSet::default();
    let is_wanted = |id: &NodeId| constants || !matches!(graph.op(*id), Some(Op::Constant(_)));
    ids.filter(|id| is_wanted(id) && seen.insert(*id)).filter_map(|id| TracedNode::of(graph, id)).collect()
}
