//! Invariants of a graph.
//!
//! Checked after every pass, every violation collected:
//! 1. **edges**: a node has as many slots as it says, each that reads something has its edge, and readers are counted.
//! 2. **values**: every edge leaves a slot that its source has.
//! 3. **acyclic**: no node needs itself.
//! 4. **names**: node names are unique, value names are unique.
//! 5. **types**: what is recorded of each output is compatible with what inference says.
//! 6. **interface**: inputs are input nodes and all input nodes are inputs; outputs exist.
//! 7. **origins**: every origin is one of the graph's sources.
//! 8. **bodies**: the bodies of control flow hold all this too, and have an input for each capture.

use std::fmt;
use std::sync::Arc;

use rustc_hash::FxHashSet;

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

/// Whether a name may come twice. Hashes in order are quicker to look through than a set of names, whose memory is
/// touched in no order.
fn may_repeat<'a>(names: impl Iterator<Item = &'a str>) -> bool {
    let mut hashes: Vec<u64> = names.map(|name| xxhash_rust::xxh3::xxh3_64(name.as_bytes())).collect();
    hashes.sort_unstable();
    hashes.windows(2).any(|pair| pair[0] == pair[1])
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
        let nodes = || graph.node_ids().filter_map(|id| graph.node(id));
        if may_repeat(nodes().map(|node| &*node.name)) {
            let mut names = FxHashSet::default();
            for node in nodes().filter(|node| !names.insert(&node.name)) {
                self.violation("names", &node.name, "two nodes have this name".to_string());
            }
        }
        let values = || nodes().flat_map(|node| node.outputs.iter().map(move |value| (node, &value.name)));
        if may_repeat(values().map(|(_, name)| &**name)) {
            let mut names = FxHashSet::default();
            for (node, name) in values().filter(|(_, name)| !names.insert(*name)) {
                self.violation("names", &node.name, format!("two values are called `{name}`"));
            }
        }
    }

    fn acyclic(&mut self, order: &[NodeId]) {
        let graph = self.graph;
        let mut seen = vec![false; order.iter().map(|id| id.0 as usize + 1).max().unwrap_or(0)];
        for id in order {
            for input in graph.node_inputs(*id).into_iter().flatten() {
                if !seen.get(input.node.0 as usize).is_some_and(|seen| *seen) {
                    let source = graph.node_name(input.node);
                    self.violation("acyclic", graph.node_name(*id), format!("it reads `{source}`, which needs it"));
                }
            }
            if let Some(seen) = seen.get_mut(id.0 as usize) {
                *seen = true;
            }
        }
    }

    fn bodies(&mut self, name: &str, op: &Op, arity: usize) {
        let Some((slot, first)) = op.first_capture() else { return };
        for body in op.bodies() {
            let expected = first + arity.saturating_sub(slot);
            let found = body.0.inputs().len();
            if found != expected {
                self.violation("bodies", name, format!("a body has {found} inputs, {expected} expected"));
            }
            if let Err(VerifyErrors(violations)) = verify(&body.0) {
                self.violations.extend(violations);
            }
        }
    }

    fn node(&mut self, id: NodeId) {
        let graph = self.graph;
        let Some(node) = graph.node(id) else { return };
        for fault in graph.structure_faults(id) {
            self.violation("edges", &node.name, fault);
        }
        let inputs = graph.node_inputs(id);
        for input in inputs.iter().copied().flatten() {
            if graph.value(input).is_none() {
                self.violation("values", &node.name, format!("it reads {input:?}, which does not exist"));
            }
        }
        if node.origin.last().is_some_and(|last| last as usize >= graph.sources().len()) {
            self.violation("origins", &node.name, "an origin is no source of the graph".to_string());
        }
        if matches!(node.op, Op::Input) {
            return;
        }
        self.bodies(&node.name, &node.op, node.arity as usize);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Origin, Use, ValueInfo};

    const GRAPH: &str = "graph g(%x: f32[n, 4]) -> (%c) {
        %a = relu(%x)
        %b = exp(%a)
        %c = add(%a, %b)
    }";

    /// Breaks the graph and checks the violations, one a line.
    #[track_caller]
    fn check(break_it: impl FnOnce(&mut Graph), expected: &[&str]) {
        let mut graph: Graph = GRAPH.parse().unwrap();
        verify(&graph).unwrap();
        break_it(&mut graph);
        let errors = verify(&graph).unwrap_err();
        assert_eq!(errors.to_string().split("; ").collect::<Vec<_>>(), expected);
    }

    fn slot(graph: &Graph, name: &str, slot: u32) -> Use {
        Use { node: graph.find(name), slot }
    }

    #[test]
    fn edges() {
        let more = |graph: &mut Graph| graph.node_mut(graph.find("b")).arity = 2;
        check(more, &["edges at `b`: 1 input slots and 1 outputs, where its arity is 2 and it has 1 outputs"]);
        let cut = |graph: &mut Graph| graph.cut(slot(graph, "b", 0));
        check(
            cut,
            &["edges at `a`: its outputs count [2] readers and have [1]", "edges at `b`: no edge leads to slot 0"],
        );
    }

    #[test]
    fn values() {
        let missing = |graph: &mut Graph| {
            let x = ValueRef { node: graph.find("x"), slot: 3 };
            graph.redirect(graph.find("a").into(), x, &[graph.find("c")]);
        };
        check(
            missing,
            &[
                "values at `b`: it reads ValueRef { node: n0, slot: 3 }, which does not exist",
                "types at `b`: node `b` (exp): input 0 is missing",
            ],
        );
    }

    #[test]
    fn acyclic() {
        let back = |graph: &mut Graph| {
            let (a, b, x) = (graph.find("a"), graph.find("b"), graph.find("x"));
            graph.redirect(x.into(), b.into(), &[]);
            assert_eq!(graph.input(a, 0), Some(b.into()));
        };
        check(back, &["acyclic at `b`: it reads `a`, which needs it"]);
    }

    #[test]
    fn names() {
        let twins = |graph: &mut Graph| {
            let b = graph.find("b");
            graph.node_mut(b).name = "a".into();
            graph.node_mut(b).outputs[0].name = "a".into();
        };
        check(twins, &["names at `a`: two nodes have this name", "names at `a`: two values are called `a`"]);
    }

    #[test]
    fn types() {
        let other = |graph: &mut Graph| {
            graph.set_info(graph.find("b").into(), ValueInfo::new(DType::F32, ["n+1".parse::<crate::Dim>().unwrap()]));
        };
        check(other, &["types at `b`: output 0 is recorded as f32[n+1] but is f32[n, 4]"]);
    }

    #[test]
    fn interface() {
        let stray = |graph: &mut Graph| graph.node_mut(graph.find("b")).op = Op::Input;
        check(stray, &["interface at `b`: input nodes and inputs differ"]);
        let lost = |graph: &mut Graph| {
            let value = ValueRef { node: graph.find("a"), slot: 5 };
            graph.add_output("lost".into(), value);
        };
        check(lost, &["interface at `lost`: the output's value does not exist"]);
    }

    #[test]
    fn bodies() {
        let body: Graph = "graph b(%x: f32[n, 4]) -> (%y) { %y = relu(%x) }".parse().unwrap();
        let with_body = |body: Graph| {
            move |graph: &mut Graph| {
                let body = crate::op::Body(Arc::new(body));
                let looped = crate::op::Scan {
                    body,
                    scan_inputs: 1,
                    carried: 0,
                    input_axes: Default::default(),
                    output_axes: Default::default(),
                    input_reversed: Default::default(),
                    output_reversed: Default::default(),
                };
                let b = graph.find("b");
                graph.set_info(b.into(), ValueInfo::unshaped(DType::F32));
                graph.set_info(graph.find("c").into(), ValueInfo::unshaped(DType::F32));
                graph.node_mut(b).op = looped.into();
            }
        };
        let mut broken = body.clone();
        broken.node_mut(body.find("y")).origin = Origin::one(99);
        check(with_body(broken), &["origins at `y`: an origin is no source of the graph"]);
        let two: Graph = "graph b(%x: f32[4], %z: f32[4]) -> (%y) { %y = relu(%x) }".parse().unwrap();
        check(with_body(two), &["bodies at `b`: a body has 2 inputs, 1 expected"]);
    }

    #[test]
    fn origins() {
        let foreign = |graph: &mut Graph| graph.node_mut(graph.find("b")).origin = Origin::one(99);
        check(foreign, &["origins at `b`: an origin is no source of the graph"]);
    }
}
