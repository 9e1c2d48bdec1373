//! Builds a graph node by node.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::graph::{Graph, NewNode, NodeId, Source, ValueRef};
use crate::{GraphError, InputValues, Op, Origin, Tensor, ValueInfo};

/// Makes a graph: inputs, nodes in topological order, outputs.
#[derive(Debug, Default)]
pub struct Builder {
    graph: Graph,
    sources: Vec<Source>,
}

impl Builder {
    /// A builder of an empty graph.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { graph: Graph::new(name), sources: Vec::new() }
    }

    /// A builder of a graph that is made of the nodes of another: it has its name and its ONNX nodes.
    pub fn like(graph: &Graph) -> Self {
        let mut like = Graph::new(graph.name().clone());
        like.fixed = graph.fixed.clone();
        Self { graph: like, sources: graph.sources().to_vec() }
    }

    /// Copies the nodes that the outputs of a graph need, with `inputs` in place of its inputs (`None` for one that
    /// nothing reads), and makes the outputs. The builder must be [`like`](Self::like) it.
    ///
    /// # Errors
    /// If the inputs do not fit.
    pub fn copy(&mut self, graph: &Graph, inputs: &[Option<ValueRef>]) -> Result<(), GraphError> {
        let mut copies: FxHashMap<ValueRef, ValueRef> = FxHashMap::default();
        for (id, input) in graph.inputs().iter().zip(inputs) {
            if let Some(input) = input {
                copies.insert((*id).into(), *input);
            }
        }
        let copied = |copies: &FxHashMap<ValueRef, ValueRef>, value: ValueRef, name: &Arc<str>| {
            copies.get(&value).copied().ok_or_else(|| GraphError::NoSuchValue { node: name.clone(), value })
        };
        for id in graph.live() {
            let Some(node) = graph.node(id).filter(|node| !matches!(node.op, Op::Input)) else { continue };
            let operands = graph.node_inputs(id);
            let operands =
                operands.into_iter().map(|input| input.map(|input| copied(&copies, input, &node.name)).transpose());
            let new = NewNode {
                op: node.op.clone(),
                inputs: operands.collect::<Result<_, _>>()?,
                name: node.name.clone(),
                outputs: node.outputs.iter().map(|value| value.name.clone()).collect(),
                origin: node.origin.clone(),
            };
            let copy = self.graph.add_node(new)?;
            for (slot, value) in (0..).zip(&node.outputs) {
                let reference = ValueRef { node: copy, slot };
                if let Some(info) = self.graph.info(reference) {
                    let info = info.clone().settled(&value.info, &node.name);
                    self.graph.set_info(reference, info);
                }
                copies.insert(ValueRef { node: id, slot }, reference);
            }
        }
        for output in graph.outputs() {
            let value = copied(&copies, output.value, &output.name)?;
            self.graph.add_output(output.name.clone(), value);
        }
        Ok(())
    }

    /// The graph so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Enters an ONNX node that graph nodes come from.
    pub fn source(&mut self, name: impl Into<Arc<str>>, op_type: impl Into<Arc<str>>) -> Origin {
        let at = u32::try_from(self.sources.len()).unwrap_or(u32::MAX);
        self.sources.push(Source { name: name.into(), op_type: op_type.into() });
        Origin::one(at)
    }

    /// Adds an input of the graph.
    pub fn input(&mut self, name: impl Into<Arc<str>>, info: ValueInfo) -> ValueRef {
        self.graph.add_input(&name.into(), info).into()
    }

    /// Says that a constant stands for an input wherever it would be read.
    pub fn fix(&mut self, input: impl Into<Arc<str>>, values: InputValues) {
        self.graph.fixed.insert(input.into(), values);
    }

    /// Adds a node.
    ///
    /// # Errors
    /// If the inputs do not fit the operator.
    pub fn node(&mut self, new: NewNode) -> Result<NodeId, GraphError> {
        self.graph.add_node(new)
    }

    /// Adds a node of one output, named like the node.
    ///
    /// # Errors
    /// If the inputs do not fit the operator.
    pub fn op(
        &mut self,
        name: impl Into<Arc<str>>,
        op: impl Into<Op>,
        inputs: &[ValueRef],
    ) -> Result<ValueRef, GraphError> {
        let name = name.into();
        let new = NewNode {
            op: op.into(),
            inputs: inputs.iter().copied().map(Some).collect(),
            outputs: SmallVec::from_iter([name.clone()]),
            name,
            origin: Origin::default(),
        };
        self.graph.add_node(new).map(ValueRef::from)
    }

    /// Adds a constant.
    ///
    /// # Errors
    /// Never for a tensor that was made; the type is that of other nodes.
    pub fn constant(&mut self, name: impl Into<Arc<str>>, value: Tensor) -> Result<ValueRef, GraphError> {
        self.op(name, crate::op::Constant { value }, &[])
    }

    /// What the model itself says of a value, kept where inference knows less.
    ///
    /// # Errors
    /// If it contradicts what was inferred.
    pub fn hint(&mut self, value: ValueRef, hint: &ValueInfo) -> Result<(), GraphError> {
        let Some(found) = self.graph.value(value) else {
            return Err(GraphError::NoSuchValue { node: Arc::from(""), value });
        };
        if !found.info.is_compatible(hint) {
            return Err(GraphError::Contradiction {
                value: found.name.clone(),
                inferred: found.info.to_string(),
                stated: hint.to_string(),
            });
        }
        let info = found.info.clone().settled(hint, self.graph.node_name(value.node));
        self.graph.set_info(value, info);
        Ok(())
    }

    /// Makes a value an output of the graph.
    pub fn output(&mut self, name: impl Into<Arc<str>>, value: ValueRef) {
        self.graph.add_output(name.into(), value);
    }

    /// The graph.
    pub fn finish(mut self) -> Graph {
        self.graph.set_sources(Arc::new(self.sources));
        self.graph
    }
}
