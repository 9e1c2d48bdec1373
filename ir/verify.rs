//! Invariants of a graph.
//!
//! Checked after every pass, every violation collected:
//! 1. **arity**: each input slot below a node's arity is read at most once, none above it is; required slots are full.
//! 2. **values**: every edge leaves a slot that its source has.
//! 3. **acyclic**: no node needs itself.
//! 4. **names**: node names are unique, value names are unique.
//! 5. **types**: what is recorded of each output is compatible with what inference says.
//! 6. **interface**: inputs are input nodes and all input nodes are inputs; outputs exist.
//! 7. **origins**: every origin is one of the graph's sources.

use std::fmt;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::infer::{InferContext, infer};
use crate::{Graph, NodeId, Op, ValueRef};

/// A graph that was verified and, being borrowed, has not changed since.
#[derive(Debug, Clone, Copy)]
pub struct Verified<'a>(&'a Graph);

impl<'a> Verified<'a> {
    /// The graph.
    pub fn graph(self) -> &'a Graph {
        self.0
    }
}

/// One violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's name.
    pub invariant: &'static str,
    /// The node, or the graph's name.
    pub at: Arc<str>,
    /// What is wrong.
    pub what: String,
}

/// Every violation found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyErrors(pub Vec<Violation>);

impl std::error::Error for VerifyErrors {}

impl fmt::Display for VerifyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, violation) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{} at `{}`: {}", violation.invariant, violation.at, violation.what)?;
        }
        Ok(())
    }
}

/// Checks every invariant.
///
/// # Errors
/// All violations.
pub fn verify(graph: &Graph) -> Result<Verified<'_>, VerifyErrors> {
    let mut verifier = Verifier { graph, violations: Vec::new() };
    verifier.interface();
    verifier.names();
    let order = graph.topo();
    verifier.acyclic(&order);
    for id in order {
        verifier.node(id);
    }
    if verifier.violations.is_empty() { Ok(Verified(graph)) } else { Err(VerifyErrors(verifier.violations)) }
}

struct Verifier<'a> {
    graph: &'a Graph,
    violations: Vec<Violation>,
}

impl Verifier<'_> {
    fn violation(&mut self, invariant: &'static str, at: &str, what: String) {
        self.violations.push(Violation { invariant, at: at.into(), what });
    }

    fn interface(&mut self) {
        let graph = self.graph;
        let listed: FxHashSet<NodeId> = graph.inputs().iter().copied().collect();
        for id in graph.node_ids() {
            if matches!(graph.op(id), Some(Op::Input)) != listed.contains(&id) {
                self.violation("interface", graph.node_name(id), "input nodes and inputs differ".to_string());
            }
        }
        if listed.len() != graph.inputs().len() || listed.iter().any(|id| graph.node(*id).is_none()) {
            self.violation("interface", graph.name(), "an input is listed twice or does not exist".to_string());
        }
        for output in graph.outputs() {
            if graph.value(output.value).is_none() {
                self.violation("interface", &output.name, "the output's value does not exist".to_string());
            }
        }
    }

    fn names(&mut self) {
        let graph = self.graph;
        let (mut nodes, mut values) = (FxHashSet::default(), FxHashSet::default());
        for node in graph.node_ids().filter_map(|id| graph.node(id)) {
            if !nodes.insert(&node.name) {
                self.violation("names", &node.name, "two nodes have this name".to_string());
            }
            for value in &node.outputs {
                if !values.insert(&value.name) {
                    self.violation("names", &node.name, format!("two values are called `{}`", value.name));
                }
            }
        }
    }

    fn acyclic(&mut self, order: &[NodeId]) {
        let graph = self.graph;
        let place: FxHashMap<NodeId, usize> = order.iter().enumerate().map(|(at, id)| (*id, at)).collect();
        for (at, id) in order.iter().enumerate() {
            for input in graph.node_inputs(*id).into_iter().flatten() {
                if place.get(&input.node).is_none_or(|source| *source >= at) {
                    let source = graph.node_name(input.node);
                    self.violation("acyclic", graph.node_name(*id), format!("it reads `{source}`, which needs it"));
                }
            }
        }
    }

    fn node(&mut self, id: NodeId) {
        let graph = self.graph;
        let Some(node) = graph.node(id) else { return };
        for fault in graph.slot_faults(id) {
            self.violation("arity", &node.name, fault);
        }
        for input in graph.node_inputs(id).into_iter().flatten() {
            if graph.value(input).is_none() {
                self.violation("values", &node.name, format!("it reads {input:?}, which does not exist"));
            }
        }
        if node.origin.sources().iter().any(|at| *at as usize >= graph.sources().len()) {
            self.violation("origins", &node.name, "an origin is no source of the graph".to_string());
        }
        if matches!(node.op, Op::Input) {
            return;
        }
        let context = InferContext { node: &node.name, outputs: node.outputs.len() };
        match infer(&node.op, &graph.input_infos(id), &context) {
            Err(error) => self.violation("types", &node.name, error.to_string()),
            Ok(infos) => {
                for (slot, info) in infos.iter().enumerate() {
                    let value = ValueRef { node: id, slot: slot as u32 };
                    if let Some(recorded) = graph.info(value)
                        && !recorded.is_compatible(info)
                    {
                        let what = format!("output {slot} is recorded as {recorded} but is {info}");
                        self.violation("types", &node.name, what);
                    }
                }
            }
        }
    }
}
