//! The graph: nodes in a private petgraph, read through queries, changed through patches only.
//!
//! petgraph recycles the index of a removed node and keeps edges in no useful order; therefore slots are data on the
//! edges, a [`NodeId`] must not outlive the patch that removes its node, and every order given out here follows from
//! the graph's structure alone.

use std::fmt;
use std::sync::{Arc, OnceLock};

use petgraph::Direction::{Incoming, Outgoing};
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::{EdgeRef, NodeIndexable};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use crate::infer::{InferContext, Infos, infer};
use crate::{DType, GraphError, Op, OpKind, Origin, Tensor, ValueInfo};

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

/// A set of names with a counter for each stem, so that making a name unique takes one look-up.
#[derive(Debug, Clone, Default)]
struct Names {
    taken: FxHashSet<Arc<str>>,
    next: FxHashMap<Arc<str>, u32>,
}

impl Names {
    fn claim(&mut self, wanted: &Arc<str>) -> Arc<str> {
        if !wanted.is_empty() && self.taken.insert(wanted.clone()) {
            return wanted.clone();
        }
        let stem: Arc<str> = if wanted.is_empty() { "unnamed".into() } else { wanted.clone() };
        let next = self.next.entry(stem.clone()).or_insert(0);
        loop {
            *next += 1;
            let name: Arc<str> = format!("{stem}.{next}").into();
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }

    /// Frees a name. The last name made of a stem is the next one again, so that a change taken back leaves no trace.
    fn release(&mut self, name: &Arc<str>) {
        self.taken.remove(name);
        if let Some((stem, number)) = name.rsplit_once('.')
            && let Some(next) = self.next.get_mut(stem)
            && number.parse() == Ok(*next)
        {
            *next -= 1;
        }
    }
}

/// A dataflow graph of tensors.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    name: Arc<str>,
    inner: StableDiGraph<Node, Edge>,
    inputs: Vec<NodeId>,
    outputs: Vec<Output>,
    /// How often each value is an output of the graph.
    output_uses: FxHashMap<ValueRef, u32>,
    sources: Arc<Vec<Source>>,
    node_names: Names,
    value_names: Names,
    /// Nodes that are neither inputs nor constants.
    operations: usize,
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

    /// The outputs, in order.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.inner.node_weight(id.index())
    }

    /// A node's operator.
    pub fn op(&self, id: NodeId) -> Option<&Op> {
        self.node(id).map(|node| &node.op)
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
        self.op(value.node)?.as_constant()
    }

    /// What a node's input slot reads; `None` for an empty or absent slot.
    pub fn input(&self, id: NodeId, slot: usize) -> Option<ValueRef> {
        self.inner
            .edges_directed(id.index(), Incoming)
            .find(|edge| edge.weight().to_slot as usize == slot)
            .map(|edge| ValueRef { node: NodeId::from_index(edge.source()), slot: edge.weight().from_slot })
    }

    /// All input slots in order, empty ones included.
    pub fn node_inputs(&self, id: NodeId) -> SmallVec<[Option<ValueRef>; 4]> {
        let mut inputs = SmallVec::from_elem(None, self.node(id).map_or(0, |node| node.arity as usize));
        for edge in self.inner.edges_directed(id.index(), Incoming) {
            if let Some(slot) = inputs.get_mut(edge.weight().to_slot as usize) {
                *slot = Some(ValueRef { node: NodeId::from_index(edge.source()), slot: edge.weight().from_slot });
            }
        }
        inputs
    }

    /// What is known of each input slot.
    pub fn input_infos(&self, id: NodeId) -> SmallVec<[Option<&ValueInfo>; 4]> {
        self.node_inputs(id).into_iter().map(|input| self.info(input?)).collect()
    }

    /// The slots that read a value, oldest first. Outputs of the graph are not among them.
    pub fn consumers(&self, value: ValueRef) -> SmallVec<[Use; 2]> {
        // petgraph walks edges from the newest to the oldest.
        let mut uses: SmallVec<[Use; 2]> = self
            .inner
            .edges_directed(value.node.index(), Outgoing)
            .filter(|edge| edge.weight().from_slot == value.slot)
            .map(|edge| Use { node: NodeId::from_index(edge.target()), slot: edge.weight().to_slot })
            .collect();
        uses.reverse();
        uses
    }

    /// Whether the value is an output of the graph.
    pub fn is_output(&self, value: ValueRef) -> bool {
        self.output_uses.contains_key(&value)
    }

    /// The one slot that reads a value, if there is just one and the value is no output of the graph.
    pub fn sole_consumer(&self, value: ValueRef) -> Option<Use> {
        if self.is_output(value) {
            return None;
        }
        let mut uses = self
            .inner
            .edges_directed(value.node.index(), Outgoing)
            .filter(|edge| edge.weight().from_slot == value.slot)
            .map(|edge| Use { node: NodeId::from_index(edge.target()), slot: edge.weight().to_slot });
        match (uses.next(), uses.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        }
    }

    /// Whether anything reads the value.
    pub fn is_used(&self, value: ValueRef) -> bool {
        self.is_output(value)
            || self.inner.edges_directed(value.node.index(), Outgoing).any(|edge| edge.weight().from_slot == value.slot)
    }

    /// Nodes that are neither inputs nor constants: what a report counts.
    pub fn operation_count(&self) -> usize {
        self.operations
    }

    /// All nodes, in no useful order.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.inner.node_indices().map(NodeId::from_index)
    }

    /// Number of nodes.
    pub fn node_count(&self) -> usize {
        self.inner.node_count()
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
        self.walk().iter().filter(|(_, kind)| kinds.contains(kind)).map(|(id, _)| *id).collect()
    }

    /// What [`live`](Self::live) gives. Most passes find nothing, and ask for it again.
    fn walk(&self) -> &Walk {
        self.walked.get_or_init(|| {
            let mut order = Vec::with_capacity(self.inner.node_count());
            let mut seen = vec![false; self.inner.node_bound()];
            for root in self.inputs.iter().copied().chain(self.outputs.iter().map(|output| output.value.node)) {
                self.visit_from(root, &mut seen, &mut order);
            }
            order.into_iter().filter_map(|id| Some((id, self.op(id)?.kind()))).collect()
        })
    }

    /// Appends what `root` needs and is not seen yet, in postorder, without recursion.
    fn visit_from(&self, root: NodeId, seen: &mut [bool], order: &mut Vec<NodeId>) {
        let mark = |seen: &mut [bool], id: NodeId| {
            seen.get_mut(id.0 as usize).is_some_and(|seen| !std::mem::replace(seen, true))
        };
        if self.node(root).is_none() || !mark(seen, root) {
            return;
        }
        let mut stack = vec![(root, self.node_inputs(root), 0)];
        while let Some((id, inputs, at)) = stack.last_mut() {
            match inputs.get(*at).copied() {
                None => {
                    order.push(*id);
                    stack.pop();
                }
                Some(input) => {
                    *at += 1;
                    if let Some(input) = input
                        && mark(seen, input.node)
                    {
                        stack.push((input.node, self.node_inputs(input.node), 0));
                    }
                }
            }
        }
    }

    /// Slots of a node that are read twice or lie beyond its arity, in words.
    pub(crate) fn slot_faults(&self, id: NodeId) -> Vec<String> {
        let arity = self.node(id).map_or(0, |node| node.arity);
        let mut slots: Vec<u32> =
            self.inner.edges_directed(id.index(), Incoming).map(|edge| edge.weight().to_slot).collect();
        slots.sort_unstable();
        let twice =
            slots.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| format!("slot {} is read twice", pair[0]));
        let beyond =
            slots.iter().filter(|slot| **slot >= arity).map(|slot| format!("slot {slot} is beyond arity {arity}"));
        twice.chain(beyond).collect()
    }

    // Changing. Everything below is for Builder and Patch.

    pub(crate) fn set_sources(&mut self, sources: Arc<Vec<Source>>) {
        self.sources = sources;
    }

    /// The index of an ONNX node, entered if it is new.
    pub(crate) fn source_index(&mut self, source: &Source) -> u32 {
        let at = self.sources.iter().position(|other| other == source).unwrap_or_else(|| {
            Arc::make_mut(&mut self.sources).push(source.clone());
            self.sources.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    pub(crate) fn add_input(&mut self, name: &Arc<str>, info: ValueInfo) -> NodeId {
        let value = Value { name: self.value_names.claim(name), info };
        let node = Node {
            op: Op::Input,
            name: self.node_names.claim(name),
            outputs: SmallVec::from_iter([value]),
            arity: 0,
            origin: Origin::default(),
        };
        let id = NodeId::from_index(self.inner.add_node(node));
        self.inputs.push(id);
        self.walked.take();
        id
    }

    /// Adds a node, its outputs inferred from its inputs.
    pub(crate) fn add_node(&mut self, new: NewNode) -> Result<NodeId, GraphError> {
        // Inference names fresh symbols after the node, hence by its final name.
        let name = self.node_names.claim(&new.name);
        let infos = match self.infer_new(&new, &name) {
            Ok(infos) => infos,
            Err(error) => {
                self.node_names.release(&name);
                return Err(error);
            }
        };
        let named = new.outputs.iter().zip(infos);
        let outputs = named.map(|(name, info)| Value { name: self.value_names.claim(name), info }).collect();
        let node = Node { op: new.op, name, outputs, arity: new.inputs.len() as u32, origin: new.origin };
        self.operations += usize::from(is_operation(&node.op));
        self.walked.take();
        let id = self.inner.add_node(node);
        for (slot, input) in new.inputs.iter().enumerate() {
            if let Some(value) = input {
                let edge = Edge { from_slot: value.slot, to_slot: slot as u32 };
                self.inner.add_edge(value.node.index(), id, edge);
            }
        }
        Ok(NodeId::from_index(id))
    }

    /// What is known of a new node's outputs.
    fn infer_new(&self, new: &NewNode, name: &Arc<str>) -> Result<Infos, GraphError> {
        let missing = |value: ValueRef| GraphError::NoSuchValue { node: name.clone(), value };
        let info = |value: ValueRef| self.info(value).ok_or_else(|| missing(value));
        let infos: SmallVec<[Option<&ValueInfo>; 4]> =
            new.inputs.iter().map(|input| input.map(info).transpose()).collect::<Result<_, _>>()?;
        let (least, most) = new.op.arity();
        let known = match new.op.own_inputs() {
            // The epilogue's inputs come after the operator's own.
            Some(own) if new.op.epilogue().is_some_and(|epilogue| !epilogue.is_empty()) => {
                let adds = new.op.epilogue().map_or(0, crate::Epilogue::adds);
                adds == 0 && new.inputs.len() <= own || new.inputs.len() == own + adds
            }
            Some(own) => new.inputs.len() <= own,
            None => true,
        };
        if new.inputs.len() < least || new.inputs.len() > most || !known {
            return Err(GraphError::Arity {
                node: name.clone(),
                op: new.op.to_string(),
                found: new.inputs.len(),
                least,
                most,
            });
        }
        infer(&new.op, &infos, &InferContext { node: name, outputs: new.outputs.len() })
    }

    pub(crate) fn add_output(&mut self, name: Arc<str>, value: ValueRef) {
        self.walked.take();
        *self.output_uses.entry(value).or_insert(0) += 1;
        self.outputs.push(Output { name, value });
    }

    /// Lets all readers of `old` but those in `except`, and the graph's outputs, read `new`. Readers keep their age.
    pub(crate) fn redirect(&mut self, old: ValueRef, new: ValueRef, except: &[NodeId]) {
        self.walked.take();
        for reader in self.consumers(old) {
            if except.contains(&reader.node) {
                continue;
            }
            let edge = self
                .inner
                .edges_directed(reader.node.index(), Incoming)
                .find(|edge| edge.weight().to_slot == reader.slot)
                .map(|edge| edge.id());
            if let Some(edge) = edge {
                self.inner.remove_edge(edge);
            }
            let edge = Edge { from_slot: new.slot, to_slot: reader.slot };
            self.inner.add_edge(new.node.index(), reader.node.index(), edge);
        }
        if let Some(uses) = self.output_uses.remove(&old) {
            *self.output_uses.entry(new).or_insert(0) += uses;
            for output in &mut self.outputs {
                if output.value == old {
                    output.value = new;
                }
            }
        }
    }

    pub(crate) fn set_info(&mut self, value: ValueRef, info: ValueInfo) {
        let node = self.inner.node_weight_mut(value.node.index());
        if let Some(output) = node.and_then(|node| node.outputs.get_mut(value.slot as usize)) {
            output.info = info;
        }
    }

    /// Gives a value another name, which must be free.
    pub(crate) fn rename_value(&mut self, value: ValueRef, name: &Arc<str>) {
        let name = self.value_names.claim(name);
        let node = self.inner.node_weight_mut(value.node.index());
        if let Some(output) = node.and_then(|node| node.outputs.get_mut(value.slot as usize)) {
            let old = std::mem::replace(&mut output.name, name);
            self.value_names.release(&old);
        }
    }

    pub(crate) fn rename_node(&mut self, id: NodeId, name: &Arc<str>) {
        let name = self.node_names.claim(name);
        if let Some(node) = self.inner.node_weight_mut(id.index()) {
            let old = std::mem::replace(&mut node.name, name);
            self.node_names.release(&old);
        }
    }

    pub(crate) fn add_origin(&mut self, id: NodeId, origin: &Origin) {
        if let Some(node) = self.inner.node_weight_mut(id.index()) {
            node.origin = Origin::merged([&node.origin, origin]);
        }
    }

    pub(crate) fn remove_node(&mut self, id: NodeId) {
        self.walked.take();
        if let Some(node) = self.inner.remove_node(id.index()) {
            self.operations -= usize::from(is_operation(&node.op));
            self.node_names.release(&node.name);
            for output in node.outputs.iter().rev() {
                self.value_names.release(&output.name);
            }
        }
    }

    /// The nodes that no output needs, inputs apart, in no useful order.
    pub fn dead(&self) -> Vec<NodeId> {
        let mut live = vec![false; self.inner.node_bound()];
        for id in self.live() {
            if let Some(live) = live.get_mut(id.0 as usize) {
                *live = true;
            }
        }
        self.node_ids().filter(|id| !live.get(id.0 as usize).is_some_and(|live| *live)).collect()
    }

    /// Removes the nodes that no output needs, inputs apart, and says how many of them computed something.
    pub fn prune_dead(&mut self) -> usize {
        let dead = self.dead();
        let operations = dead.iter().filter(|id| !matches!(self.op(**id), Some(Op::Constant(_)))).count();
        // What lives does so without them.
        let walked = self.walked.take();
        for id in dead {
            self.remove_node(id);
        }
        if let Some(walked) = walked {
            self.walked = walked.into();
        }
        operations
    }

    /// Runs inference over the whole graph again and keeps what it learns. Linear in the graph.
    ///
    /// # Errors
    /// If a node's inputs no longer fit it: some rewrite was wrong.
    pub fn reinfer(&mut self) -> Result<(), GraphError> {
        for id in self.topo() {
            let Some(node) = self.node(id) else { continue };
            if matches!(node.op, Op::Input | Op::Constant(_)) {
                continue;
            }
            let context = InferContext { node: &node.name, outputs: node.outputs.len() };
            let mut infos = infer(&node.op, &self.input_infos(id), &context)?;
            for (info, old) in infos.iter_mut().zip(&node.outputs) {
                *info = info.clone().settled(&old.info, &node.name);
            }
            for (slot, info) in infos.into_iter().enumerate() {
                self.set_info(ValueRef { node: id, slot: slot as u32 }, info);
            }
        }
        Ok(())
    }

    /// Element type of a value; [`DType::Unknown`] if there is no such value.
    pub fn dtype(&self, value: ValueRef) -> DType {
        self.info(value).map_or(DType::Unknown, |info| info.dtype)
    }
}

#[cfg(test)]
mod tests;
