//! The graph: nodes in a private petgraph, read through queries, changed through patches only.
//!
//! petgraph recycles the index of a removed node and keeps edges in no useful order; therefore slots are data on the
//! edges, a [`NodeId`] must not outlive the patch that removes its node, and every order given out here follows from
//! the graph's structure alone.
//!
//! To remove an edge petgraph walks the edges of both its ends, which thousands of readers of one tensor cannot afford.
//! So each node lists what it reads, and an edge holds as long as the slot that it leads to says so; what no longer holds
//! is swept away when there is as much of it as of everything else ([`Graph::sweep`]).

mod edit;
mod names;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use petgraph::Direction::Outgoing;
use petgraph::stable_graph::{EdgeIndex, EdgeReference, NodeIndex, StableDiGraph};
use petgraph::visit::{EdgeRef, NodeIndexable};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use self::names::Names;
use crate::{DType, Dim, InputValues, Op, OpKind, Origin, Tensor, ValueInfo};

/// A node of one graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    fn index(self) -> NodeIndex {
        NodeIndex::new(self.0 as usize)
    }

    fn from_index(index: NodeIndex) -> Self {
        // petgraph's own index type is u32.
        Self(index.index() as u32)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// An output of a node: the one way to name a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueRef {
    /// The node.
    pub node: NodeId,
    /// Which of its outputs.
    pub slot: u32,
}

impl From<NodeId> for ValueRef {
    /// The node's first output.
    fn from(node: NodeId) -> Self {
        Self { node, slot: 0 }
    }
}

/// An input slot of a node that reads a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Use {
    /// The reader.
    pub node: NodeId,
    /// Its input slot.
    pub slot: u32,
}

#[derive(Debug, Clone, Copy)]
struct Edge {
    from_slot: u32,
    to_slot: u32,
}

/// What petgraph holds for a node. The node itself lies elsewhere: walks read the structure alone, in memory order.
#[derive(Debug, Clone)]
struct Place {
    /// `None` once it is removed.
    node: Option<Box<Node>>,
    kind: OpKind,
    /// Whether an input has changed since the outputs were inferred.
    is_stale: bool,
    /// Input slots, empty ones included.
    inputs: SmallVec<[Option<Input>; 2]>,
    /// How many input slots read each output.
    readers: SmallVec<[u32; 4]>,
}

/// What an input slot reads, and the one edge to it that holds.
#[derive(Debug, Clone, Copy)]
struct Input {
    value: ValueRef,
    edge: EdgeIndex,
}

/// A node of the ONNX model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name; generated and unique if the model gave none.
    pub name: Arc<str>,
    /// Its operator, with the domain if that is not ONNX's own.
    pub op_type: Arc<str>,
}

/// A named tensor.
#[derive(Debug, Clone)]
pub struct Value {
    /// Unique in its graph.
    pub name: Arc<str>,
    /// What is known of it.
    pub info: ValueInfo,
}

/// A node.
#[derive(Debug, Clone)]
pub struct Node {
    /// The operator.
    pub op: Op,
    /// Unique in its graph.
    pub name: Arc<str>,
    /// Its outputs in slot order.
    pub outputs: SmallVec<[Value; 1]>,
    /// Number of input slots, empty ones included.
    pub arity: u32,
    /// The ONNX nodes that it stands for.
    pub origin: Origin,
}

/// An output of the graph.
#[derive(Debug, Clone)]
pub struct Output {
    /// The name that users see; it may differ from the value's own.
    pub name: Arc<str>,
    /// The tensor.
    pub value: ValueRef,
}

/// A node to be added.
#[derive(Debug, Clone)]
pub struct NewNode {
    /// The operator.
    pub op: Op,
    /// Inputs in slot order; `None` for an optional one left out.
    pub inputs: Vec<Option<ValueRef>>,
    /// Wanted name; made unique.
    pub name: Arc<str>,
    /// Wanted names of the outputs, one each; made unique.
    pub outputs: SmallVec<[Arc<str>; 1]>,
    /// The ONNX nodes that it stands for.
    pub origin: Origin,
}

/// A dataflow graph of tensors.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    name: Arc<str>,
    inner: StableDiGraph<Place, Edge>,
    /// Nodes that are removed, and still have a place.
    removed: Vec<NodeId>,
    /// Edges that no longer hold.
    loose_edges: usize,
    inputs: Vec<NodeId>,
    /// Inputs that a constant stands for wherever they were read.
    pub(crate) fixed: BTreeMap<Arc<str>, InputValues>,
    outputs: Vec<Output>,
    /// How often each value is an output of the graph.
    output_uses: FxHashMap<ValueRef, u32>,
    sources: Arc<Vec<Source>>,
    node_names: Names,
    value_names: Names,
    /// Nodes that are neither inputs nor constants.
    operations: usize,
    /// Whether some node's outputs are to be inferred again.
    has_stale: bool,
    /// What [`walk`](Self::walk) has found, until something changes.
    walked: OnceLock<Walk>,
}

/// Nodes and their operators, in topological order.
type Walk = Arc<[(NodeId, OpKind)]>;

fn is_operation(op: &Op) -> bool {
    !matches!(op, Op::Input | Op::Constant(_))
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The graph's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The ONNX nodes that the model had.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The ONNX nodes that a node stands for.
    pub fn origins(&self, id: NodeId) -> impl DoubleEndedIterator<Item = &Source> {
        let sources = self.node(id).map(|node| node.origin.sources());
        sources.into_iter().flatten().filter_map(|at| self.sources.get(at as usize))
    }

    /// The input nodes, in order.
    pub fn inputs(&self) -> &[NodeId] {
        &self.inputs
    }

    /// The inputs that nothing reads because a constant stands for each, by name: the graph is right for these values only.
    pub fn fixed_inputs(&self) -> &BTreeMap<Arc<str>, InputValues> {
        &self.fixed
    }

    /// The inputs that a program of the graph takes, in order: all but fixed ones whose sizes others tell.
    pub fn taken_inputs(&self) -> impl Iterator<Item = NodeId> + '_ {
        let is_fixed = |value: &Value| self.fixed.contains_key(&value.name);
        let mut told = FxHashSet::default();
        for value in self.inputs.iter().filter_map(|id| self.value((*id).into())).filter(|value| !is_fixed(value)) {
            told.extend(value.info.shape.iter().flatten().filter_map(Dim::as_symbol));
        }
        let is_told = move |value: &Value| {
            let mut all = true;
            value.info.shape.iter().flatten().for_each(|dim| dim.visit_symbols(&mut |name| all &= told.contains(name)));
            all
        };
        let is_left = move |id: NodeId| {
            !self.is_used(id.into()) && self.value(id.into()).is_some_and(|value| is_fixed(value) && is_told(value))
        };
        self.inputs.iter().copied().filter(move |id| !is_left(*id))
    }

    /// The outputs, in order.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.place(id)?.node.as_deref()
    }

    fn place(&self, id: NodeId) -> Option<&Place> {
        self.inner.node_weight(id.index())
    }

    fn place_mut(&mut self, id: NodeId) -> Option<&mut Place> {
        self.inner.node_weight_mut(id.index())
    }

    fn node_weight_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.place_mut(id)?.node.as_deref_mut()
    }

    /// A node's operator.
    pub fn op(&self, id: NodeId) -> Option<&Op> {
        self.node(id).map(|node| &node.op)
    }

    /// Which operator a node has.
    pub fn kind(&self, id: NodeId) -> Option<OpKind> {
        self.place(id).filter(|place| place.node.is_some()).map(|place| place.kind)
    }

    /// Whether an input of a node is of an operator.
    pub fn reads(&self, id: NodeId, kind: OpKind) -> bool {
        let inputs = self.place(id).map_or(&[][..], |place| &place.inputs);
        inputs.iter().flatten().any(|input| self.kind(input.value.node) == Some(kind))
    }

    /// A node's name, for messages; empty if there is no such node.
    pub fn node_name(&self, id: NodeId) -> &str {
        self.node(id).map_or("", |node| &node.name)
    }

    /// A tensor.
    pub fn value(&self, value: ValueRef) -> Option<&Value> {
        self.node(value.node)?.outputs.get(value.slot as usize)
    }

    /// What is known of a tensor.
    pub fn info(&self, value: ValueRef) -> Option<&ValueInfo> {
        self.value(value).map(|value| &value.info)
    }

    /// A constant's data, if the value is a constant node's output.
    pub fn constant(&self, value: ValueRef) -> Option<&Tensor> {
        // Most values are none, and their nodes need not be looked at.
        let place = self.place(value.node).filter(|place| place.kind == OpKind::Constant)?;
        place.node.as_deref()?.op.as_constant()
    }

    /// What a node's input slot reads; `None` for an empty or absent slot.
    pub fn input(&self, id: NodeId, slot: usize) -> Option<ValueRef> {
        self.place(id)?.inputs.get(slot)?.map(|input| input.value)
    }

    /// All input slots in order, empty ones included.
    pub fn node_inputs(&self, id: NodeId) -> SmallVec<[Option<ValueRef>; 4]> {
        let inputs = self.place(id).map_or(&[][..], |place| &place.inputs);
        inputs.iter().map(|input| input.map(|input| input.value)).collect()
    }

    /// What is known of each input slot.
    pub fn input_infos(&self, id: NodeId) -> SmallVec<[Option<&ValueInfo>; 4]> {
        self.node_inputs(id).into_iter().map(|input| self.info(input?)).collect()
    }

    /// How many input slots read a value.
    pub fn reader_count(&self, value: ValueRef) -> usize {
        self.place(value.node)
            .and_then(|place| place.readers.get(value.slot as usize))
            .map_or(0, |count| *count as usize)
    }

    /// The slots that read a value, newest first, found one by one: for rules that look for one among many.
    pub fn uses(&self, value: ValueRef) -> impl Iterator<Item = Use> + '_ {
        // petgraph walks edges from the newest to the oldest.
        self.inner
            .edges_directed(value.node.index(), Outgoing)
            .filter(move |edge| edge.weight().from_slot == value.slot && self.holds(*edge))
            .map(|edge| Use { node: NodeId::from_index(edge.target()), slot: edge.weight().to_slot })
            .take(self.reader_count(value))
    }

    /// Whether an edge is the one that its input slot names.
    fn holds(&self, edge: EdgeReference<'_, Edge>) -> bool {
        let place = self.inner.node_weight(edge.target());
        let input = place.and_then(|place| place.inputs.get(edge.weight().to_slot as usize)).copied().flatten();
        input.is_some_and(|input| input.edge == edge.id())
    }

    /// The slots that read a value, oldest first. Outputs of the graph are not among them.
    pub fn consumers(&self, value: ValueRef) -> SmallVec<[Use; 2]> {
        let mut uses: SmallVec<[Use; 2]> = self.uses(value).collect();
        uses.reverse();
        uses
    }

    /// Whether the value is an output of the graph.
    pub fn is_output(&self, value: ValueRef) -> bool {
        self.output_uses.contains_key(&value)
    }

    /// The one slot that reads a value, if there is just one and the value is no output of the graph.
    pub fn sole_consumer(&self, value: ValueRef) -> Option<Use> {
        if self.reader_count(value) != 1 || self.is_output(value) {
            return None;
        }
        self.uses(value).next()
    }

    /// Whether anything reads the value.
    pub fn is_used(&self, value: ValueRef) -> bool {
        self.reader_count(value) > 0 || self.is_output(value)
    }

    /// Nodes that are neither inputs nor constants: what a report counts.
    pub fn operation_count(&self) -> usize {
        self.operations
    }

    /// All nodes, in no useful order.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.inner.node_indices().map(NodeId::from_index).filter(|id| self.node(*id).is_some())
    }

    /// Number of nodes.
    pub fn node_count(&self) -> usize {
        self.inner.node_count() - self.removed.len()
    }

    /// All nodes, each after those it reads: depth first from the outputs, inputs in slot order, then what no output
    /// needs. The order follows from the structure alone. Nodes of a cycle come in some order.
    pub fn topo(&self) -> Vec<NodeId> {
        let mut order = self.live();
        let mut seen = vec![false; self.inner.node_bound()];
        for id in &order {
            if let Some(seen) = seen.get_mut(id.0 as usize) {
                *seen = true;
            }
        }
        for root in self.node_ids() {
            self.visit_from(root, &mut seen, &mut order);
        }
        order
    }

    /// The nodes that some output needs, and all inputs, in topological order.
    pub fn live(&self) -> Vec<NodeId> {
        self.walk().iter().map(|(id, _)| *id).collect()
    }

    /// Those of [`live`](Self::live) whose operator is one of `kinds`.
    pub fn live_of(&self, kinds: &[OpKind]) -> Vec<NodeId> {
        // Every pass asks for its own, of every node.
        let mut wanted = [false; OpKind::ALL.len()];
        for kind in kinds {
            wanted[*kind as usize] = true;
        }
        self.walk().iter().filter(|(_, kind)| wanted[*kind as usize]).map(|(id, _)| *id).collect()
    }

    /// What [`live`](Self::live) gives. Most passes find nothing, and ask for it again.
    fn walk(&self) -> &Walk {
        self.walked.get_or_init(|| {
            let mut order = Vec::with_capacity(self.node_count());
            let mut seen = vec![false; self.inner.node_bound()];
            for root in self.inputs.iter().copied().chain(self.outputs.iter().map(|output| output.value.node)) {
                self.visit_from(root, &mut seen, &mut order);
            }
            order.into_iter().filter_map(|id| Some((id, self.place(id)?.kind))).collect()
        })
    }

    /// Appends what `root` needs and is not seen yet, in postorder, without recursion.
    fn visit_from(&self, root: NodeId, seen: &mut [bool], order: &mut Vec<NodeId>) {
        let mark = |seen: &mut [bool], id: NodeId| {
            seen.get_mut(id.0 as usize).is_some_and(|seen| !std::mem::replace(seen, true))
        };
        let exists = |id: NodeId| self.place(id).is_some_and(|place| place.node.is_some());
        if !exists(root) || !mark(seen, root) {
            return;
        }
        let mut stack = vec![(root, 0)];
        while let Some((id, at)) = stack.last_mut() {
            match self.place(*id).and_then(|place| place.inputs.get(*at)) {
                None => {
                    order.push(*id);
                    stack.pop();
                }
                Some(input) => {
                    *at += 1;
                    if let Some(input) = input
                        && exists(input.value.node)
                        && mark(seen, input.value.node)
                    {
                        stack.push((input.value.node, 0));
                    }
                }
            }
        }
    }

    /// What of the structure around a node does not fit together, in words.
    pub(crate) fn structure_faults(&self, id: NodeId) -> Vec<String> {
        let Some((place, node)) = self.place(id).and_then(|place| Some((place, place.node.as_deref()?))) else {
            return Vec::new();
        };
        let mut faults = Vec::new();
        if place.inputs.len() != node.arity as usize || place.readers.len() != node.outputs.len() {
            faults.push(format!(
                "{} input slots and {} outputs, where its arity is {} and it has {} outputs",
                place.inputs.len(),
                place.readers.len(),
                node.arity,
                node.outputs.len()
            ));
        }
        for (slot, input) in place.inputs.iter().enumerate() {
            let Some(Input { value, edge }) = *input else { continue };
            let ends = Some((value.node.index(), id.index()));
            let is_edge = |edge: &Edge| edge.from_slot == value.slot && edge.to_slot as usize == slot;
            if self.inner.edge_endpoints(edge) != ends || !self.inner.edge_weight(edge).is_some_and(is_edge) {
                faults.push(format!("no edge leads to slot {slot}"));
            }
        }
        let mut found: SmallVec<[u32; 4]> = SmallVec::from_elem(0, place.readers.len());
        for edge in self.inner.edges_directed(id.index(), Outgoing).filter(|edge| self.holds(*edge)) {
            if let Some(found) = found.get_mut(edge.weight().from_slot as usize) {
                *found += 1;
            }
        }
        if found != place.readers {
            faults.push(format!("its outputs count {:?} readers and have {found:?}", place.readers));
        }
        faults
    }

    // Changing. Everything below is for Builder and Patch.

    /// Element type of a value; [`DType::Unknown`] if there is no such value.
    pub fn dtype(&self, value: ValueRef) -> DType {
        self.info(value).map_or(DType::Unknown, |info| info.dtype)
    }
}

#[cfg(test)]
mod tests;
