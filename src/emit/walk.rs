//! The walk over a verified graph that makes the layers.
//!
//! Every node is handed to its operator family in [`super::ops`]. Constants are not emitted by themselves: where a layer
//! holds weights they go in as weights, elsewhere a constant layer is made for the first reader. A body of control flow
//! is walked in the same way, by an emitter of its own on the same network.

use rustc_hash::{FxHashMap, FxHashSet};
use trt_fuse_ir::eval::narrowed;
use trt_fuse_ir::{
    Capabilities, DType, Dim, Dims, Graph, Known, Node, NodeId, Op, Tensor, Value, ValueInfo, ValueRef, Verified,
};

use super::error::{EmitError, Unsupported};
use super::layers::{DimsArg, Input};
use super::ops;
use super::sink::{Label, LayerCounts, NetworkSink, Outputs, Weights};
use super::site::Site;
use super::symbols::{Symbols, divides};

/// Makes the layers of a graph in a sink, and counts them.
///
/// After each node, the sink's own shapes are compared with the graph's.
///
/// # Errors
/// [`EmitError::Unsupported`] names all nodes that the target cannot express; other errors name the first node that was
/// refused.
pub fn emit<'g, S: NetworkSink<'g>>(
    verified: Verified<'g>,
    capabilities: &Capabilities,
    sink: &mut S,
) -> Result<LayerCounts, EmitError> {
    let mut labels = FxHashMap::default();
    let mut emitter = Emitter {
        graph: verified.graph(),
        is_body: false,
        capabilities,
        sink,
        tensors: FxHashMap::default(),
        constants: FxHashMap::default(),
        symbols: Symbols::default(),
        labels: &mut labels,
        refused: FxHashSet::default(),
        unsupported: Vec::new(),
    };
    emitter.inputs()?;
    emitter.nodes()?;
    emitter.outputs()?;
    Ok(emitter.sink.layer_counts())
}

/// The state of a walk.
pub(super) struct Emitter<'e, 'g, S: NetworkSink<'g>> {
    pub(super) graph: &'g Graph,
    /// Whether the graph is a body. Names of values are unique in one graph only, those of tensors in the network.
    is_body: bool,
    pub(super) capabilities: &'e Capabilities,
    pub(super) sink: &'e mut S,
    tensors: FxHashMap<ValueRef, S::Tensor>,
    /// Constant layers by value and by the dimensions that a reader asked for.
    constants: FxHashMap<(ValueRef, Dims), S::Tensor>,
    pub(super) symbols: Symbols<S::Tensor>,
    /// Labels taken, each with the number that the next layer asking for it gets.
    labels: &'e mut FxHashMap<String, u32>,
    /// Values of unsupported nodes, and what needs them.
    refused: FxHashSet<ValueRef>,
    unsupported: Vec<Unsupported>,
}

impl<'e, 'g, S: NetworkSink<'g>> Emitter<'e, 'g, S> {
    fn inputs(&mut self) -> Result<(), EmitError> {
        for id in self.graph.taken_inputs() {
            let Some(value) = self.graph.value(id.into()) else { continue };
            if self.capabilities.carried_in(value.info.dtype).is_none() {
                self.unsupported.push(Unsupported {
                    node: value.name.to_string(),
                    op: "input".to_string(),
                    attribute: None,
                    reason: format!("the target has no element type {}", value.info.dtype),
                });
                self.refused.insert(id.into());
                continue;
            }
            let tensor = self.placeholder(value)?;
            self.tensors.insert(id.into(), tensor);
            self.symbols.learn(&value.info, tensor);
        }
        Ok(())
    }

    /// Emits what the outputs need.
    fn nodes(&mut self) -> Result<(), EmitError> {
        for id in self.graph.live() {
            self.node(id)?;
        }
        match std::mem::take(&mut self.unsupported) {
            unsupported if unsupported.is_empty() => Ok(()),
            unsupported => Err(EmitError::Unsupported(unsupported)),
        }
    }

    /// A network input of a value's name and type.
    fn placeholder(&mut self, value: &Value) -> Result<S::Tensor, EmitError> {
        let name = if self.is_body { self.unique(&value.name) } else { value.name.to_string() };
        let shape = value.info.shape.as_ref().ok_or_else(|| EmitError::Parameter {
            layer: value.name.to_string(),
            parameter: "shape",
            expected: "a known rank".to_string(),
            found: value.info.to_string(),
        })?;
        let dtype = self.capabilities.carried_in(value.info.dtype).unwrap_or(value.info.dtype);
        let dims: Vec<i64> = shape.iter().map(|dim| dim.value().unwrap_or(-1)).collect();
        let symbols: Vec<Option<&str>> = shape.iter().map(|dim| dim.as_symbol().map(|name| &**name)).collect();
        let input = Input { name: &name, dtype, dims: &dims, symbols: &symbols };
        let tensor = self.sink.input(&input)?;
        self.sink.note(tensor, dtype, shape);
        Ok(tensor)
    }

    fn node(&mut self, id: NodeId) -> Result<(), EmitError> {
        let Some(node) = self.graph.node(id) else { return Ok(()) };
        if matches!(node.op, Op::Input | Op::Constant(_)) {
            return Ok(());
        }
        // What reads a refused value cannot be judged.
        if self.graph.node_inputs(id).into_iter().flatten().any(|input| self.refused.contains(&input)) {
            self.refuse(id, node);
            return Ok(());
        }
        if self.deferred(id, node).is_some() {
            return Ok(());
        }
        if let Some(same) = self.free_cast(id, node) {
            let tensor = self.made(same, &node.name)?;
            self.tensors.insert(id.into(), tensor);
            return Ok(());
        }
        let foreign = self.foreign_type(id, node);
        let mut site = Site::new(id, node, self);
        let made = match foreign {
            Some(reason) => site.unsupported(reason),
            None => ops::emit(&mut site),
        };
        match made {
            Ok(outputs) => self.publish(id, node, &outputs),
            Err(EmitError::Unsupported(nodes)) => {
                self.unsupported.extend(nodes);
                // The walk goes on, to find whatever else cannot be taken; this network is not used.
                for (slot, value) in node.outputs.iter().enumerate() {
                    let output = ValueRef { node: id, slot: slot as u32 };
                    if value.info.shape.is_some() && self.capabilities.carried_in(value.info.dtype).is_some() {
                        let tensor = self.placeholder(value)?;
                        self.tensors.insert(output, tensor);
                    } else {
                        self.refused.insert(output);
                    }
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The elements of shape arithmetic, which is emitted only if something reads it as a tensor: from the symbols that it
    /// comes to, and not step by step as the model has it.
    fn deferred(&self, id: NodeId, node: &Node) -> Option<Vec<Dim>> {
        let [value] = node.outputs.as_slice() else { return None };
        let Known::Elements(elements) = &value.info.known else { return None };
        let is_vector = value.info.dtype == DType::I64 && value.info.rank()? <= 1 && elements.len() <= MOST_DEFERRED;
        let deferred = is_vector && self.graph.input(id, 0).is_some() && !elements.iter().any(divides);
        (deferred && elements.iter().all(|dim| self.symbols.tell(dim))).then(|| elements.to_vec())
    }

    /// A value's tensor; deferred shape arithmetic is made now.
    pub(super) fn made(&mut self, value: ValueRef, reader: &str) -> Result<S::Tensor, EmitError> {
        let graph = self.graph;
        let node = graph.node(value.node).filter(|_| !self.tensors.contains_key(&value));
        let Some((node, elements)) = node.and_then(|node| Some((node, self.deferred(value.node, node)?))) else {
            return self.known(value, reader);
        };
        let mut site = Site::new(value.node, node, self);
        let tensor = match (&node.op, site.output().and_then(ValueInfo::rank)) {
            // One layer gives all dimensions.
            (Op::ShapeOf(_), _) if elements.len() > 1 => match ops::emit(&mut site)?.first() {
                Some(shape) => *shape,
                None => return self.known(value, reader),
            },
            (_, Some(0)) => {
                let one = site.dims_tensor(&elements.into_iter().collect())?;
                site.shuffle(one, None, Some(DimsArg::Fixed(&[])), None, "")?
            }
            _ => site.dims_tensor(&elements.into_iter().collect())?,
        };
        if let Some(output) = node.outputs.first() {
            self.check(node, output, tensor)?;
        }
        self.tensors.insert(value, tensor);
        Ok(tensor)
    }

    /// The input of a conversion whose two types are carried in one.
    fn free_cast(&self, id: NodeId, node: &Node) -> Option<ValueRef> {
        let Op::Cast(cast) = &node.op else { return None };
        let x = self.graph.input(id, 0)?;
        let carried = |dtype| self.capabilities.carried_in(dtype);
        (cast.in_range && self.graph.constant(x).is_none() && carried(self.graph.dtype(x))? == carried(cast.to)?)
            .then_some(x)
    }

    /// Why the target has no layer for the types of a node.
    fn foreign_type(&self, id: NodeId, node: &'g Node) -> Option<String> {
        if matches!(node.op, Op::Opaque(_)) {
            return None;
        }
        let inputs = || self.graph.node_inputs(id).into_iter().flatten();
        let name = |input| self.graph.value(input).map_or("", |value| &value.name);
        // Lowering leaves what reads such a number as it is.
        for input in inputs() {
            let Some(constant) = self.graph.constant(input) else { continue };
            if let Err(reason) = self.held(constant, self.stand_in(constant.dtype())) {
                return Some(format!("`{}` {reason}", name(input)));
            }
        }
        if let Op::ConstantOfShape(op) = &node.op
            && let Err(reason) = self.held(&op.value, self.stand_in(op.value.dtype()))
        {
            return Some(format!("its value {reason}"));
        }
        let is_carrier = matches!(node.op, Op::Cast(_) | Op::If(_) | Op::Loop(_) | Op::Scan(_));
        for input in inputs() {
            let dtype = self.graph.dtype(input);
            let is_native = dtype == DType::I64 || self.capabilities.dtypes.contains(&dtype);
            if !is_native && !is_carrier && dtype != DType::Unknown {
                return Some(format!("the target has no element type {dtype}, which `{}` has", name(input)));
            }
        }
        let outputs = node.outputs.iter().map(|value| value.info.dtype);
        let lacks = |dtype: &DType| *dtype != DType::Unknown && self.capabilities.carried_in(*dtype).is_none();
        outputs.into_iter().find(lacks).map(|dtype| format!("the target has no element type {dtype}"))
    }

    fn refuse(&mut self, id: NodeId, node: &Node) {
        self.refused.extend((0..node.outputs.len() as u32).map(|slot| ValueRef { node: id, slot }));
    }

    /// Enters a node's outputs: checks their types, names them.
    fn publish(&mut self, id: NodeId, node: &'g Node, outputs: &Outputs<S::Tensor>) -> Result<(), EmitError> {
        for (slot, (value, tensor)) in node.outputs.iter().zip(outputs).enumerate() {
            self.check(node, value, *tensor)?;
            if !self.is_body {
                self.sink.set_tensor_name(*tensor, &value.name)?;
            }
            if let Some(shape) = &value.info.shape {
                self.sink.note(*tensor, value.info.dtype, shape);
            }
            self.symbols.learn(&value.info, *tensor);
            self.tensors.insert(ValueRef { node: id, slot: slot as u32 }, *tensor);
        }
        Ok(())
    }

    /// TensorRT's own inference against the graph's.
    fn check(&self, node: &Node, value: &Value, tensor: S::Tensor) -> Result<(), EmitError> {
        let differ = |found: String| EmitError::Mismatch {
            node: node.name.to_string(),
            op: node.op.to_string(),
            value: value.name.to_string(),
            expected: value.info.to_string(),
            found,
        };
        if let (Some(dims), Some(shape)) = (self.sink.dims(tensor), &value.info.shape) {
            let fits = dims.len() == shape.len()
                && dims
                    .iter()
                    .zip(shape)
                    .all(|(found, dim)| *found < 0 || dim.value().is_none_or(|expected| expected == *found));
            if !fits {
                return Err(differ(format!("{dims:?}")));
            }
        }
        match self.sink.dtype(tensor) {
            Some(dtype) if Some(dtype) != self.capabilities.carried_in(value.info.dtype) => {
                Err(differ(dtype.to_string()))
            }
            _ => Ok(()),
        }
    }

    fn outputs(&mut self) -> Result<(), EmitError> {
        let mut marked = FxHashSet::default();
        for output in self.graph.outputs() {
            let Some(info) = self.graph.info(output.value) else { continue };
            let source = self.source(output.value);
            let input = matches!(self.graph.op(source.node), Some(Op::Input));
            let dtype = self.capabilities.carried_in(info.dtype).unwrap_or(info.dtype);
            let name = self.unique(&output.name);
            let label = Label { name: &name, metadata: &output.name };
            let mut tensor = match self.graph.constant(output.value) {
                Some(constant) => self.constant_output(label, constant)?,
                None => self.made(output.value, &output.name)?,
            };
            // What was deferred may be the tensor of another such value too.
            let node = self.graph.node(source.node);
            let shared = node.is_some_and(|node| self.deferred(source.node, node).is_some());
            // TensorRT takes neither an input nor a tensor twice as an output.
            if input || shared || !marked.insert(source) {
                tensor = self.sink.identity(label, tensor)?;
            }
            self.sink.mark_output(tensor, &output.name, dtype)?;
        }
        Ok(())
    }

    /// The value whose tensor a value is: conversions that cost nothing left out.
    fn source(&self, mut value: ValueRef) -> ValueRef {
        while let Some(x) = self.graph.node(value.node).and_then(|node| self.free_cast(value.node, node)) {
            value = x;
        }
        value
    }

    /// The tensors of a body's outputs.
    fn results(&mut self) -> Result<Outputs<S::Tensor>, EmitError> {
        let mut results = Outputs::new();
        for output in self.graph.outputs() {
            results.push(match self.graph.constant(output.value) {
                Some(constant) => {
                    let name = self.unique(&output.name);
                    self.constant_output(Label::new(&name), constant)?
                }
                None => self.made(output.value, &output.name)?,
            });
        }
        Ok(results)
    }

    /// A constant as an output, in the type that it is carried in.
    fn constant_output(&mut self, label: Label<'_>, constant: &'g Tensor) -> Result<S::Tensor, EmitError> {
        let weights = self.held(constant, self.capabilities.carried_in(constant.dtype())).map_err(|reason| {
            EmitError::Unsupported(vec![Unsupported {
                node: label.name.to_string(),
                op: "constant".to_string(),
                attribute: None,
                reason: format!("it {reason}"),
            }])
        })?;
        self.sink.constant(label, weights)
    }

    /// The type that another stands for in weights, if the target lacks that.
    fn stand_in(&self, dtype: DType) -> Option<DType> {
        if self.capabilities.dtypes.contains(&dtype) { None } else { self.capabilities.computed_in(dtype) }
    }

    /// A constant in the type that stands for its own, or why that cannot hold it.
    fn held(&self, constant: &'g Tensor, carrier: Option<DType>) -> Result<Weights<'g>, String> {
        let dtype = constant.dtype();
        match carrier {
            Some(carrier) if carrier != dtype => narrowed(constant, carrier)
                .map(Weights::Owned)
                .ok_or_else(|| format!("holds numbers of {dtype} that {carrier} cannot hold")),
            _ => Ok(Weights::Borrowed(constant)),
        }
    }

    pub(super) fn known(&self, value: ValueRef, reader: &str) -> Result<S::Tensor, EmitError> {
        self.tensors.get(&value).copied().ok_or_else(|| EmitError::Parameter {
            layer: reader.to_string(),
            parameter: "input",
            expected: "a tensor already made".to_string(),
            found: self.graph.value(value).map_or_else(|| "none".to_string(), |value| value.name.to_string()),
        })
    }

    /// The layer of a constant under dimensions of equal product, one for all readers that ask for the same; inside, why
    /// the constant cannot be held.
    pub(super) fn constant_layer(
        &mut self,
        value: ValueRef,
        constant: &'g Tensor,
        dims: Dims,
    ) -> Result<Result<S::Tensor, String>, EmitError> {
        let key = (value, dims);
        if let Some(tensor) = self.constants.get(&key) {
            return Ok(Ok(*tensor));
        }
        let weights = match self.held(constant, self.stand_in(constant.dtype())) {
            Ok(weights) => weights,
            Err(reason) => return Ok(Err(reason)),
        };
        let weights = if constant.dims() == key.1.as_slice() {
            weights
        } else {
            match weights.reshaped(&key.1) {
                Ok(tensor) => Weights::Owned(tensor),
                Err(error) => return Ok(Err(error.to_string())),
            }
        };
        let name = self.graph.value(value).map_or("constant", |value| &value.name);
        let name = self.unique(name);
        let tensor = self.sink.constant(Label::new(&name), weights)?;
        self.constants.insert(key, tensor);
        Ok(Ok(tensor))
    }

    /// Emits a body whose inputs are these tensors, and gives those of its outputs.
    pub(super) fn body(&mut self, body: &'g Graph, inputs: &[S::Tensor]) -> Result<Outputs<S::Tensor>, EmitError> {
        let mut inner = Emitter {
            graph: body,
            is_body: true,
            capabilities: self.capabilities,
            sink: &mut *self.sink,
            tensors: FxHashMap::default(),
            constants: FxHashMap::default(),
            // What is learnt inside does not reach the outside.
            symbols: self.symbols.clone(),
            labels: &mut *self.labels,
            refused: FxHashSet::default(),
            unsupported: Vec::new(),
        };
        for (id, tensor) in body.inputs().iter().zip(inputs) {
            inner.tensors.insert((*id).into(), *tensor);
            if let Some(info) = body.info((*id).into()) {
                inner.symbols.learn(info, *tensor);
            }
        }
        inner.nodes()?;
        inner.results()
    }

    /// Whether a layer has this name.
    pub(super) fn is_taken(&self, name: &str) -> bool {
        self.labels.contains_key(name)
    }

    pub(super) fn unique(&mut self, wanted: &str) -> String {
        if !self.labels.contains_key(wanted) {
            self.labels.insert(wanted.to_string(), 2);
            return wanted.to_string();
        }
        loop {
            let next = self.labels.entry(wanted.to_string()).or_insert(2);
            let name = format!("{wanted}.{next}");
            *next += 1;
            if !self.labels.contains_key(&name) {
                self.labels.insert(name.clone(), 2);
                return name;
            }
        }
    }
}

/// Elements of shape arithmetic that is made of its symbols: no more than a shape has.
const MOST_DEFERRED: usize = 8;
