//! The graph: nodes in a private petgraph, read through queries, changed through patches only.
//!
//! petgraph recycles the index of a removed node and keeps edges in no useful order; therefore slots are data on the
//! edges, a [`NodeId`] must not outlive the patch that removes its node, and every order given out here follows from
//! the graph's structure alone.
//!
//! To remove an edge petgraph walks the edges of both its ends, which thousands of readers of one tensor cannot afford.
//! So each node lists what it reads, and an edge holds as long as the slot that it leads to says so; what no longer holds
//! is swept away when there is as much of it as of everything else ([`Graph::sweep`]).

use std::fmt;
use std::sync::{Arc, OnceLock};

use petgraph::Direction::Outgoing;
use petgraph::stable_graph::{EdgeIndex, EdgeReference, NodeIndex, StableDiGraph};
use petgraph::visit::{EdgeRef, IntoEdgeReferences, NodeIndexable};
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

/// A set of names with a counter for each stem, so that making a name unique takes one look-up.
///
/// It holds the hashes alone, which lie close together. A name whose hash is taken counts as taken, and gets a number.
#[derive(Debug, Clone, Default)]
struct Names {
    taken: FxHashSet<u64>,
    next: FxHashMap<u64, u32>,
}

impl Names {
    fn claim(&mut self, wanted: &Arc<str>) -> Arc<str> {
        if !wanted.is_empty() && self.taken.insert(hash(wanted)) {
            return wanted.clone();
        }
        let stem: &str = if wanted.is_empty() { "unnamed" } else { wanted };
        let next = self.next.entry(hash(stem)).or_insert(0);
        loop {
            *next += 1;
            let name = format!("{stem}.{next}");
            if self.taken.insert(hash(&name)) {
                return name.into();
            }
        }
    }

    /// Frees a name. The last name made of a stem is the next one again, so that a change taken back leaves no trace.
    fn release(&mut self, name: &str) {
        self.taken.remove(&hash(name));
        if let Some((stem, number)) = name.rsplit_once('.')
            && let Ok(number) = number.parse::<u32>()
            && let Some(next) = self.next.get_mut(&hash(stem))
            && number == *next
        {
            *next -= 1;
        }
    }
}

fn hash(name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes())
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
        self.walk().iter().filter(|(_, kind)| kinds.contains(kind)).map(|(id, _)| *id).collect()
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
        let id = self.place_node(node, &[]);
        self.inputs.push(id);
        id
    }

    fn place_node(&mut self, node: Node, inputs: &[Option<ValueRef>]) -> NodeId {
        self.walked.take();
        self.operations += usize::from(is_operation(&node.op));
        let place = Place {
            kind: node.op.kind(),
            is_stale: false,
            inputs: SmallVec::from_elem(None, inputs.len()),
            readers: SmallVec::from_elem(0, node.outputs.len()),
            node: Some(Box::new(node)),
        };
        let id = NodeId::from_index(self.inner.add_node(place));
        for (slot, input) in (0..).zip(inputs) {
            if let Some(value) = input {
                self.connect(*value, Use { node: id, slot });
            }
        }
        id
    }

    /// Lets an input slot, which must be empty, read a value.
    fn connect(&mut self, from: ValueRef, to: Use) {
        let edge = Edge { from_slot: from.slot, to_slot: to.slot };
        let edge = self.inner.add_edge(from.node.index(), to.node.index(), edge);
        self.count_reader(from, 1);
        if let Some(input) = self.place_mut(to.node).and_then(|place| place.inputs.get_mut(to.slot as usize)) {
            *input = Some(Input { value: from, edge });
        }
    }

    /// Lets an input slot read nothing.
    fn disconnect(&mut self, to: Use) {
        let input = self.place_mut(to.node).and_then(|place| place.inputs.get_mut(to.slot as usize));
        if let Some(Input { value, .. }) = input.and_then(Option::take) {
            self.count_reader(value, -1);
            self.loose_edges += 1;
        }
    }

    fn count_reader(&mut self, value: ValueRef, more: i32) {
        let place = self.place_mut(value.node);
        if let Some(readers) = place.and_then(|place| place.readers.get_mut(value.slot as usize)) {
            *readers = readers.saturating_add_signed(more);
        }
    }

    /// Sweeps away removed nodes and edges that no longer hold, if there are more of them than of others: what a change
    /// has cost is then as much as what the sweep costs. Ids of removed nodes may be taken again afterwards.
    pub(crate) fn sweep(&mut self) {
        let loose = self.removed.len() + self.loose_edges;
        if 2 * loose <= self.inner.node_count() + self.inner.edge_count() {
            return;
        }
        // Edges are never removed one by one, so that their indices are their age.
        let holding: Vec<_> = self.inner.edge_references().filter(|edge| self.holds(*edge)).collect();
        let holding: Vec<_> = holding.into_iter().map(|edge| (edge.source(), edge.target(), *edge.weight())).collect();
        self.inner.clear_edges();
        for (source, target, weight) in holding {
            let edge = self.inner.add_edge(source, target, weight);
            let inputs = self.inner.node_weight_mut(target).map(|place| &mut place.inputs);
            if let Some(Some(input)) = inputs.and_then(|inputs| inputs.get_mut(weight.to_slot as usize)) {
                input.edge = edge;
            }
        }
        for id in self.removed.drain(..) {
            self.inner.remove_node(id.index());
        }
        self.loose_edges = 0;
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
        Ok(self.place_node(node, &new.inputs))
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
        let same = matches!((self.info(old), self.info(new)), (Some(old), Some(new)) if old.is_same(new));
        for reader in self.consumers(old) {
            if except.contains(&reader.node) {
                continue;
            }
            self.disconnect(reader);
            self.connect(new, reader);
            if !same && let Some(place) = self.place_mut(reader.node) {
                place.is_stale = true;
            }
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
        if self.change_info(value, info)
            && let Some(place) = self.place_mut(value.node)
        {
            place.is_stale = true;
        }
    }

    /// Sets what is known of a value, and says whether it is something else than before.
    fn change_info(&mut self, value: ValueRef, info: ValueInfo) -> bool {
        let node = self.node_weight_mut(value.node);
        let Some(output) = node.and_then(|node| node.outputs.get_mut(value.slot as usize)) else { return false };
        if output.info.is_same(&info) {
            return false;
        }
        output.info = info;
        for reader in self.consumers(value) {
            if let Some(place) = self.place_mut(reader.node) {
                place.is_stale = true;
            }
        }
        true
    }

    /// Lets two values exchange their names.
    pub(crate) fn swap_value_names(&mut self, a: ValueRef, b: ValueRef) {
        let names = [a, b].map(|value| self.value(value).map(|value| value.name.clone()));
        let [Some(of_a), Some(of_b)] = names else { return };
        for (value, name) in [(a, of_b), (b, of_a)] {
            let node = self.node_weight_mut(value.node);
            if let Some(output) = node.and_then(|node| node.outputs.get_mut(value.slot as usize)) {
                output.name = name;
            }
        }
    }

    /// Lets two nodes exchange their names.
    pub(crate) fn swap_node_names(&mut self, a: NodeId, b: NodeId) {
        let [Some(of_a), Some(of_b)] = [a, b].map(|id| self.node(id).map(|node| node.name.clone())) else { return };
        for (id, name) in [(a, of_b), (b, of_a)] {
            if let Some(node) = self.node_weight_mut(id) {
                node.name = name;
            }
        }
    }

    pub(crate) fn add_origin(&mut self, id: NodeId, origin: &Origin) {
        if let Some(node) = self.node_weight_mut(id) {
            node.origin = Origin::merged([&node.origin, origin]);
        }
    }

    pub(crate) fn remove_node(&mut self, id: NodeId) {
        self.walked.take();
        let place = self.place_mut(id);
        let Some((node, slots)) = place.and_then(|place| Some((place.node.take()?, place.inputs.len()))) else {
            return;
        };
        for slot in 0..slots as u32 {
            self.disconnect(Use { node: id, slot });
        }
        self.removed.push(id);
        {
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
        self.sweep();
        if let Some(walked) = walked {
            self.walked = walked.into();
        }
        operations
    }

    /// Runs inference again on all nodes of which an input has changed, and keeps what it learns.
    ///
    /// # Errors
    /// If a node's inputs no longer fit it: some rewrite was wrong.
    pub fn reinfer(&mut self) -> Result<(), GraphError> {
        for id in self.topo() {
            let Some(place) = self.place_mut(id) else { continue };
            if !std::mem::replace(&mut place.is_stale, false) || matches!(place.kind, OpKind::Input | OpKind::Constant)
            {
                continue;
            }
            let Some(node) = self.node(id) else { continue };
            let context = InferContext { node: &node.name, outputs: node.outputs.len() };
            let mut infos = infer(&node.op, &self.input_infos(id), &context)?;
            for (info, old) in infos.iter_mut().zip(&node.outputs) {
                *info = info.clone().settled(&old.info, &node.name);
            }
            for (slot, info) in (0..).zip(infos) {
                self.change_info(ValueRef { node: id, slot }, info);
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
