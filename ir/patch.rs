//! The one way to change a graph.
//!
//! A rule reads the graph and returns a [`Patch`]: nodes to add, values to replace, nodes to absorb. Applying it checks
//! that the region is closed (nothing outside reads an absorbed value that is not replaced), that replacements keep
//! their type, and hands names and origins on.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use crate::graph::{Graph, NewNode, NodeId, Source, ValueRef};
use crate::op::Constant;
use crate::{GraphError, Op, Origin, Tensor};

/// Ids from here on name nodes of the patch, not yet of the graph.
const PENDING: u32 = 1 << 31;

#[derive(Debug)]
struct PendingNode {
    op: Op,
    inputs: Vec<Option<ValueRef>>,
    outputs: usize,
    /// For a node of a body.
    copied: Option<Copied>,
    /// The one node that it stands for; otherwise for all that the patch takes in.
    stands_for: Option<NodeId>,
}

/// What a node of a body keeps outside of it.
#[derive(Debug)]
struct Copied {
    name: Arc<str>,
    outputs: SmallVec<[Arc<str>; 1]>,
    sources: Vec<Source>,
}

/// A change to a graph, not yet made.
#[derive(Debug)]
pub struct Patch {
    rule: &'static str,
    anchor: NodeId,
    nodes: Vec<PendingNode>,
    replacements: Vec<(ValueRef, ValueRef)>,
    absorbed: Vec<NodeId>,
    inherited: Vec<NodeId>,
    heirs: Vec<NodeId>,
}

/// What a patch did.
#[derive(Debug, Default)]
pub struct Applied {
    /// Nodes added, in the order of the patch.
    pub added: Vec<NodeId>,
    /// Nodes removed; their ids may be taken again.
    pub removed: Vec<NodeId>,
}

impl Patch {
    /// An empty patch of a rule. New nodes are named after `anchor`.
    pub fn new(rule: &'static str, anchor: NodeId) -> Self {
        Self {
            rule,
            anchor,
            nodes: Vec::new(),
            replacements: Vec::new(),
            absorbed: Vec::new(),
            inherited: Vec::new(),
            heirs: Vec::new(),
        }
    }

    /// Adds a node of one output, which is returned.
    pub fn add(&mut self, op: impl Into<Op>, inputs: &[Option<ValueRef>]) -> ValueRef {
        self.add_many(op, inputs, 1).into()
    }

    /// Adds a node of several outputs.
    pub fn add_many(&mut self, op: impl Into<Op>, inputs: &[Option<ValueRef>], outputs: usize) -> NodeId {
        self.nodes.push(PendingNode {
            op: op.into(),
            inputs: inputs.to_vec(),
            outputs,
            copied: None,
            stands_for: None,
        });
        NodeId(PENDING + (self.nodes.len() - 1) as u32)
    }

    /// Adds the nodes of a body, under their own names and origins, with `inputs` in place of its inputs, and gives the
    /// values of its outputs. The symbols of its inputs must mean the same outside.
    ///
    /// # Errors
    /// If there are fewer inputs than the body has.
    pub fn inline(&mut self, body: &Graph, inputs: &[ValueRef]) -> Result<Vec<ValueRef>, GraphError> {
        let bad = |what: &str| GraphError::BadPatch { rule: self.rule, what: what.to_string() };
        if inputs.len() < body.inputs().len() {
            return Err(bad("fewer inputs than the body has"));
        }
        let mut copies: FxHashMap<NodeId, NodeId> = FxHashMap::default();
        let inputs: FxHashMap<NodeId, ValueRef> = body.inputs().iter().copied().zip(inputs.iter().copied()).collect();
        let outside = |copies: &FxHashMap<NodeId, NodeId>, value: ValueRef| match inputs.get(&value.node) {
            Some(outer) => Some(*outer),
            None => copies.get(&value.node).map(|node| ValueRef { node: *node, slot: value.slot }),
        };
        for id in body.live() {
            let Some(node) = body.node(id).filter(|node| !matches!(node.op, Op::Input)) else { continue };
            let sources = body.origins(id).cloned().collect();
            let names = node.outputs.iter().map(|value| value.name.clone()).collect();
            let operands = body.node_inputs(id);
            self.nodes.push(PendingNode {
                op: node.op.clone(),
                inputs: operands.into_iter().map(|input| input.and_then(|input| outside(&copies, input))).collect(),
                outputs: node.outputs.len(),
                copied: Some(Copied { name: node.name.clone(), outputs: names, sources }),
                stands_for: None,
            });
            copies.insert(id, NodeId(PENDING + (self.nodes.len() - 1) as u32));
        }
        let outputs = body.outputs().iter().map(|output| outside(&copies, output.value));
        outputs.collect::<Option<_>>().ok_or_else(|| bad("a body whose output does not exist"))
    }

    /// Adds a constant.
    pub fn constant(&mut self, value: Tensor) -> ValueRef {
        self.add(Constant { value }, &[])
    }

    /// Lets every reader of `old` read `new`.
    pub fn replace(&mut self, old: ValueRef, new: ValueRef) -> &mut Self {
        self.replacements.push((old, new));
        self
    }

    /// Removes nodes; the new nodes stand for them.
    pub fn absorb(&mut self, nodes: impl IntoIterator<Item = NodeId>) -> &mut Self {
        self.absorbed.extend(nodes);
        self
    }

    /// Lets the new nodes stand for nodes that stay as long as something else reads them.
    pub fn inherit(&mut self, nodes: impl IntoIterator<Item = NodeId>) -> &mut Self {
        self.inherited.extend(nodes);
        self
    }

    /// Lets a new node stand for one node, and not for all that the patch takes in, as it is a part of what many have become.
    pub fn stand_for(&mut self, new: ValueRef, node: NodeId) -> &mut Self {
        let at = new.node.0.checked_sub(PENDING);
        if let Some(pending) = at.and_then(|at| self.nodes.get_mut(at as usize)) {
            pending.stands_for = Some(node);
        }
        self
    }

    /// Lets a node that stays stand for the absorbed nodes too.
    pub fn hand_on_to(&mut self, heir: NodeId) -> &mut Self {
        self.heirs.push(heir);
        self
    }

    /// The rule's name.
    pub fn rule(&self) -> &'static str {
        self.rule
    }

    /// The node that the change is made at.
    pub fn anchor(&self) -> NodeId {
        self.anchor
    }

    /// The nodes that the new ones stand for, and those of which a value is replaced; one may come twice.
    pub fn touched(&self) -> impl Iterator<Item = NodeId> {
        let replaced = self.replacements.iter().map(|(old, _)| old.node);
        self.absorbed.iter().chain(&self.inherited).copied().chain(replaced)
    }

    /// The nodes of the graph that readers read instead of what they have read; one may come twice.
    pub fn instead(&self) -> impl Iterator<Item = NodeId> {
        self.replacements.iter().map(|(_, new)| new.node).filter(|node| node.0 < PENDING)
    }

    /// Whether the patch changes nothing.
    pub fn is_empty(&self) -> bool {
        self.replacements.is_empty() && self.absorbed.is_empty()
    }
}

impl Graph {
    /// Makes a change.
    ///
    /// # Errors
    /// If the patch does not fit; the graph is then as it was.
    pub fn apply(&mut self, patch: &Patch) -> Result<Applied, GraphError> {
        self.check(patch)?;
        let nodes = patch.absorbed.iter().chain(&patch.inherited).filter_map(|id| self.node(*id));
        let origin = Origin::merged(nodes.map(|node| &node.origin));
        let mut applied = Applied::default();
        let result = self.add_pending(patch, &origin, &mut applied).and_then(|()| self.check_types(patch, &applied));
        if let Err(error) = result {
            for id in applied.added.iter().rev() {
                self.remove_node(*id);
            }
            self.sweep();
            return Err(error);
        }
        for heir in &patch.heirs {
            self.add_origin(*heir, &origin);
        }
        self.commit(patch, &mut applied);
        self.sweep();
        Ok(applied)
    }

    /// Everything that can be checked before a node is added.
    fn check(&self, patch: &Patch) -> Result<(), GraphError> {
        let bad = |what: String| GraphError::BadPatch { rule: patch.rule, what };
        let absorbed: FxHashSet<NodeId> = patch.absorbed.iter().copied().collect();
        let replaced: FxHashSet<ValueRef> = patch.replacements.iter().map(|(old, _)| *old).collect();
        for old in &replaced {
            if self.value(*old).is_none() {
                return Err(bad(format!("{old:?}, which does not exist")));
            }
        }
        for (at, node) in patch.nodes.iter().enumerate() {
            for input in node.inputs.iter().flatten() {
                let exists = if input.node.0 >= PENDING {
                    ((input.node.0 - PENDING) as usize) < at
                } else {
                    self.value(*input).is_some() && !absorbed.contains(&input.node)
                };
                if !exists {
                    return Err(bad(format!("{input:?}, which does not exist or is absorbed, as an input")));
                }
            }
        }
        for id in &absorbed {
            let Some(node) = self.node(*id) else { return Err(bad(format!("{id:?}, which does not exist"))) };
            if matches!(node.op, Op::Input) {
                return Err(bad(format!("input `{}` as absorbed", node.name)));
            }
            for slot in 0..node.outputs.len() as u32 {
                let value = ValueRef { node: *id, slot };
                if replaced.contains(&value) {
                    continue;
                }
                let reader = self.uses(value).find(|reader| !absorbed.contains(&reader.node));
                let by = reader.map(|reader| reader.node);
                let reader = match by {
                    Some(reader) => Arc::from(self.node_name(reader)),
                    None if self.is_output(value) => Arc::from("an output of the graph"),
                    None => continue,
                };
                return Err(GraphError::NotClosed {
                    rule: patch.rule,
                    node: node.name.clone(),
                    value: self.value(value).map_or_else(|| Arc::from(""), |value| value.name.clone()),
                    reader,
                    at: *id,
                    by,
                });
            }
        }
        Ok(())
    }

    fn add_pending(&mut self, patch: &Patch, origin: &Origin, applied: &mut Applied) -> Result<(), GraphError> {
        let anchor: Arc<str> = self.node_name(patch.anchor).into();
        for pending in &patch.nodes {
            let inputs = pending.inputs.iter().map(|input| input.map(|input| resolve(input, &applied.added))).collect();
            if let Some(copied) = &pending.copied {
                let sources: Vec<Origin> =
                    copied.sources.iter().map(|source| Origin::one(self.source_index(source))).collect();
                let origin = Origin::merged(&sources);
                let new = NewNode {
                    op: pending.op.clone(),
                    inputs,
                    outputs: copied.outputs.clone(),
                    name: copied.name.clone(),
                    origin,
                };
                applied.added.push(self.add_node(new)?);
                continue;
            }
            let constant = matches!(pending.op, Op::Constant(_));
            let own = pending.stands_for.and_then(|id| self.node(id)).map(|node| &node.origin);
            let origin = if constant { Origin::default() } else { own.unwrap_or(origin).clone() };
            let name: Arc<str> = if constant { format!("{anchor}.{}", patch.rule).into() } else { anchor.clone() };
            let new = NewNode {
                op: pending.op.clone(),
                inputs,
                outputs: SmallVec::from_elem(name.clone(), pending.outputs),
                name,
                origin,
            };
            applied.added.push(self.add_node(new)?);
        }
        Ok(())
    }

    fn check_types(&self, patch: &Patch, applied: &Applied) -> Result<(), GraphError> {
        for (old, new) in &patch.replacements {
            let new = resolve(*new, &applied.added);
            let (Some(old_value), Some(new_value)) = (self.value(*old), self.value(new)) else {
                return Err(GraphError::BadPatch {
                    rule: patch.rule,
                    what: format!("{new:?}, which does not exist, as a replacement"),
                });
            };
            if !new_value.info.is_compatible(&old_value.info) {
                return Err(GraphError::Replacement {
                    rule: patch.rule,
                    value: old_value.name.clone(),
                    old: old_value.info.to_string(),
                    new: new_value.info.to_string(),
                });
            }
        }
        Ok(())
    }

    fn commit(&mut self, patch: &Patch, applied: &mut Applied) {
        for (old, new) in &patch.replacements {
            let pending = new.node.0 >= PENDING;
            let new = resolve(*new, &applied.added);
            if let (Some(old_value), Some(new_value)) = (self.value(*old), self.value(new)) {
                let info = new_value.info.clone().settled(&old_value.info, self.node_name(new.node));
                // An input is what the outside says.
                if !matches!(self.op(new.node), Some(Op::Input)) {
                    self.set_info(new, info);
                }
                // Names of values that vanish go on to what replaces them, if that is new.
                if pending && patch.absorbed.contains(&old.node) {
                    self.swap_value_names(*old, new);
                }
            }
            self.redirect(*old, new, &applied.added);
        }
        // The last node added is the one that the region became; it takes the region's name. Nodes of a body have names.
        let own = |(id, pending): &(&NodeId, &PendingNode)| {
            pending.copied.is_none() && !matches!(self.op(**id), Some(Op::Constant(_)))
        };
        let last = applied.added.iter().zip(&patch.nodes).rev().find(own).map(|(id, _)| *id);
        if let Some(id) = last.filter(|_| patch.absorbed.contains(&patch.anchor)) {
            self.swap_node_names(id, patch.anchor);
        }
        for id in &patch.absorbed {
            self.remove_node(*id);
            applied.removed.push(*id);
        }
    }
}

fn resolve(value: ValueRef, added: &[NodeId]) -> ValueRef {
    match value.node.0.checked_sub(PENDING).and_then(|at| added.get(at as usize)) {
        Some(node) => ValueRef { node: *node, slot: value.slot },
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Activation, BinaryOp, UnaryOp};
    use crate::{ValueInfo, verify};

    const GRAPH: &str = "graph g(%x: f32[n, 4], %y: f32[4]) -> (%out as \"public\") {
        %sum = add(%x, %y)
        %act = relu(%sum)
        %out = exp(%act)
    }";

    fn graph(text: &str) -> Graph {
        text.parse().unwrap()
    }

    fn sources(graph: &Graph, name: &str) -> Vec<String> {
        graph.origins(graph.find(name)).map(|source| source.name.to_string()).collect()
    }

    /// Replaces sum and act by tanh(x) * y.
    fn fused(graph: &Graph) -> Patch {
        let (sum, act) = (graph.find("sum"), graph.find("act"));
        let mut patch = Patch::new("test", act);
        let inner = patch.add(Op::Activation(Activation::Tanh), &[graph.input(sum, 0)]);
        let outer = patch.add(Op::Binary(BinaryOp::Mul), &[Some(inner), graph.input(sum, 1)]);
        patch.replace(act.into(), outer).absorb([sum, act]);
        patch
    }

    #[test]
    fn names_and_origins_are_handed_on() {
        let mut graph = graph(GRAPH);
        let applied = graph.apply(&fused(&graph)).unwrap();
        assert_eq!((applied.added.len(), applied.removed.len()), (2, 2));
        verify(&graph).unwrap();
        insta::assert_snapshot!(graph, @r#"
    graph g(%x: f32[n, 4], %y: f32[4]) -> (%out as "public") {
      %act.1 = tanh(%x) : f32[n, 4]
      %act = mul(%act.1, %y) : f32[n, 4]
      %out = exp(%act) : f32[n, 4]
    }
    "#);
        assert_eq!(sources(&graph, "act"), ["sum", "act"]);
        assert_eq!(sources(&graph, "act.1"), ["sum", "act"]);
        assert_eq!(sources(&graph, "out"), ["out"]);
    }

    #[test]
    fn a_new_node_can_stand_for_one_alone() {
        let mut graph = graph(GRAPH);
        let (sum, act) = (graph.find("sum"), graph.find("act"));
        let mut patch = Patch::new("test", act);
        let both = patch.add(Op::Binary(BinaryOp::Mul), &[graph.input(sum, 0), graph.input(sum, 1)]);
        let part = patch.add(Op::Unary(UnaryOp::Neg), &[Some(both)]);
        patch.stand_for(part, sum).replace(act.into(), part).absorb([sum, act]);
        graph.apply(&patch).unwrap();
        verify(&graph).unwrap();
        assert_eq!(
            (sources(&graph, "act.1"), sources(&graph, "act")),
            (vec!["sum".into(), "act".into()], vec!["sum".into()])
        );
    }

    #[test]
    fn a_node_that_stays_can_be_the_heir_of_origins() {
        let mut graph = graph(&GRAPH.replace("exp(%act)", "relu(%sum)"));
        let (act, out) = (graph.find("act"), graph.find("out"));
        let mut patch = Patch::new("test", out);
        patch.replace(out.into(), act.into()).absorb([out]).hand_on_to(act);
        graph.apply(&patch).unwrap();
        assert_eq!(sources(&graph, "act"), ["act", "out"]);
        assert_eq!(sources(&graph, "sum"), ["sum"]);
    }

    #[test]
    fn nodes_of_a_body_keep_their_names_and_origins() {
        let mut graph = graph(GRAPH);
        let body: Graph = "graph b(%v: f32[n, 4], %w: f32[4]) -> (%e, %v as \"same\") { %d = neg(%v) %e = mul(%d, %w) %dead = exp(%v) }".parse().unwrap();
        let (sum, act) = (graph.find("sum"), graph.find("act"));
        let mut patch = Patch::new("test", act);
        assert!(patch.inline(&body, &[graph.find("x").into()]).is_err());
        let outputs = patch.inline(&body, &[sum.into(), graph.find("y").into()]).unwrap();
        assert_eq!(outputs[1], sum.into());
        patch.replace(act.into(), outputs[0]).absorb([act]);
        graph.apply(&patch).unwrap();
        verify(&graph).unwrap();
        insta::assert_snapshot!(graph, @r#"
        graph g(%x: f32[n, 4], %y: f32[4]) -> (%out as "public") {
          %sum = add(%x, %y) : f32[n, 4]
          %d = neg(%sum) : f32[n, 4]
          %act = mul(%d, %y) : f32[n, 4]
          %out = exp(%act) : f32[n, 4]
        }
        "#);
        let named = |name: &str| graph.node_ids().find(|id| graph.node_name(*id) == name).unwrap();
        let origin: Vec<&str> = graph.origins(named("e")).map(|source| &*source.name).collect();
        assert_eq!(origin, ["e"]);
        assert_eq!(graph.sources().len(), 3 + 2);
    }

    #[test]
    fn an_output_keeps_its_public_name() {
        let mut graph = graph(GRAPH);
        let (act, out) = (graph.find("act"), graph.find("out"));
        let mut patch = Patch::new("test", out);
        patch.replace(out.into(), act.into()).absorb([out]);
        graph.apply(&patch).unwrap();
        verify(&graph).unwrap();
        let output = &graph.outputs()[0];
        assert_eq!((output.name.as_ref(), output.value), ("public", act.into()));
        assert!(graph.is_output(act.into()));
    }

    #[test]
    fn a_region_that_is_read_from_outside_is_refused() {
        let mut graph = graph(&GRAPH.replace("exp(%act)", "add(%act, %sum)"));
        let before = graph.to_string();
        let error = graph.apply(&fused(&graph)).unwrap_err();
        assert_eq!(error.to_string(), "test: `sum` of absorbed node `sum` is also read by `out`");
        assert_eq!(graph.to_string(), before);
        let out = graph.find("out");
        let mut patch = Patch::new("test", out);
        patch.absorb([out]);
        let error = graph.apply(&patch).unwrap_err();
        assert_eq!(error.to_string(), "test: `out` of absorbed node `out` is also read by `an output of the graph`");
    }

    #[test]
    fn a_replacement_of_another_type_is_refused_and_leaves_no_trace() {
        let mut graph = graph(GRAPH);
        let before = graph.to_string();
        let act = graph.find("act");
        let mut patch = Patch::new("test", act);
        let predicate = patch.add(Op::Unary(UnaryOp::IsNan), &[graph.input(act, 0)]);
        patch.replace(act.into(), predicate).absorb([act]);
        let error = graph.apply(&patch).unwrap_err();
        assert_eq!(error.to_string(), "test: `act` is f32[n, 4] and would become bool[n, 4]");
        assert_eq!(graph.to_string(), before);
        // The names that it would have taken are free again.
        let mut patch = Patch::new("test", act);
        let same = patch.add(Op::Activation(Activation::Tanh), &[graph.input(act, 0)]);
        patch.replace(act.into(), same);
        graph.apply(&patch).unwrap();
        assert!(graph.node_ids().any(|id| graph.node_name(id) == "act.1"));
    }

    #[test]
    fn a_new_node_that_does_not_fit_leaves_no_trace() {
        let mut graph = graph(GRAPH);
        let before = graph.to_string();
        let act = graph.find("act");
        let mut patch = Patch::new("test", act);
        let fine = patch.add(Op::Activation(Activation::Tanh), &[graph.input(act, 0)]);
        let wrong = patch.add(Op::Unary(UnaryOp::Not), &[Some(fine)]);
        patch.replace(act.into(), wrong).absorb([act]);
        assert!(matches!(graph.apply(&patch), Err(GraphError::Infer { .. })));
        assert_eq!(graph.to_string(), before);
        assert_eq!(graph.node_count(), 5);
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        let mut graph = graph(GRAPH);
        let (x, act) = (graph.find("x"), graph.find("act"));
        let stranger = ValueRef { node: act, slot: 1 };
        let mut refused = |build: &dyn Fn(&mut Patch), what: &str| {
            let mut patch = Patch::new("test", act);
            build(&mut patch);
            let error = graph.apply(&patch).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        refused(&|patch| _ = patch.replace(stranger, x.into()), "slot: 1 }, which does not exist");
        refused(&|patch| _ = patch.replace(act.into(), stranger), "as a replacement");
        refused(&|patch| _ = patch.absorb([x]), "input `x` as absorbed");
        refused(
            &|patch| {
                let new = patch.add(Op::Activation(Activation::Relu), &[Some(act.into())]);
                patch.replace(act.into(), new).absorb([act]);
            },
            "is absorbed, as an input",
        );
    }

    #[test]
    fn a_replacement_may_read_what_it_replaces() {
        let mut graph = graph(GRAPH);
        let sum = graph.find("sum");
        let mut patch = Patch::new("test", sum);
        let wrapped = patch.add(Op::Unary(UnaryOp::Abs), &[Some(sum.into())]);
        patch.replace(sum.into(), wrapped);
        graph.apply(&patch).unwrap();
        verify(&graph).unwrap();
        assert_eq!(graph.input(graph.find("act"), 0), Some(graph.find("sum.1").into()));
        assert_eq!(graph.input(graph.find("sum.1"), 0), Some(sum.into()));
    }

    #[test]
    fn what_was_known_of_a_replaced_value_is_kept() {
        let mut graph = graph(
            "graph g(%x: f32[..]) -> (%b) {
                %a = relu(%x) : f32[2, n]
                %b = exp(%a)
            }",
        );
        let a = graph.find("a");
        let mut patch = Patch::new("test", a);
        let new = patch.add(Op::Activation(Activation::Tanh), &[graph.input(a, 0)]);
        patch.replace(a.into(), new).absorb([a]);
        graph.apply(&patch).unwrap();
        let stated: ValueInfo = graph.info(graph.find("a").into()).unwrap().clone();
        assert_eq!(stated.to_string(), "f32[2, n]");
    }
}
