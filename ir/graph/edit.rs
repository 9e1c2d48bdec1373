//! Changes of a graph, which patches alone make.

use std::sync::Arc;

use petgraph::visit::{EdgeRef, IntoEdgeReferences, NodeIndexable};
use smallvec::SmallVec;

use super::{Edge, Graph, Input, NewNode, Node, NodeId, Output, Place, Source, Use, Value, ValueRef, is_operation};
use crate::infer::{InferContext, Infos, infer};
use crate::{GraphError, Op, OpKind, Origin, ValueInfo};

impl Graph {
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
            if !same {
                self.mark_stale(reader.node);
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
        if self.change_info(value, info) {
            self.mark_stale(value.node);
        }
    }

    fn mark_stale(&mut self, id: NodeId) {
        self.has_stale = true;
        if let Some(place) = self.place_mut(id) {
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
            self.mark_stale(reader.node);
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
        if !self.has_stale {
            return Ok(());
        }
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
        self.has_stale = false;
        Ok(())
    }
}
