//! A node being emitted, as its operator family sees it.

use smallvec::SmallVec;
use trt_fuse_ir::{Capabilities, DType, Dims, Graph, Node, NodeId, Op, Tensor, ValueInfo, ValueRef};

use super::error::{EmitError, Unsupported};
use super::layers::{Activation, DimsArg, Shuffle};
use super::sink::{Label, NetworkSink, ORIGIN_SEPARATOR, Outputs, Weights};
use super::terms::{ActivationKind, ElementwiseKind, UnaryKind};
use super::walk::Emitter;

/// The ONNX nodes of a layer.
fn metadata(graph: &Graph, id: NodeId) -> String {
    let names: Vec<&str> = graph.origins(id).map(|source| &*source.name).collect();
    names.join(&ORIGIN_SEPARATOR.to_string())
}

/// A node being emitted: its inputs as tensors, and shorthands for the layers that many families need.
pub(super) struct Site<'s, 'e, 'g, S: NetworkSink<'g>> {
    pub(super) id: NodeId,
    pub(super) node: &'g Node,
    metadata: String,
    pub(super) emitter: &'s mut Emitter<'e, 'g, S>,
}

/// The outputs of a node that has one.
pub(super) fn one<T>(tensor: T) -> Outputs<T> {
    let mut outputs = SmallVec::new();
    outputs.push(tensor);
    outputs
}

impl<'s, 'e, 'g, S: NetworkSink<'g>> Site<'s, 'e, 'g, S> {
    pub(super) fn new(id: NodeId, node: &'g Node, emitter: &'s mut Emitter<'e, 'g, S>) -> Self {
        Self { id, node, metadata: metadata(emitter.graph, id), emitter }
    }

    pub(super) fn capabilities(&self) -> &Capabilities {
        self.emitter.capabilities
    }

    /// The refusal of this node.
    pub(super) fn unsupported<T>(&self, reason: impl Into<String>) -> Result<T, EmitError> {
        let graph = self.emitter.graph;
        let source = graph.origins(self.id).next();
        let attribute = match &self.node.op {
            Op::Opaque(op) => op.attribute.clone(),
            _ => None,
        };
        Err(EmitError::Unsupported(vec![Unsupported {
            node: source.map_or_else(|| self.node.name.to_string(), |source| source.name.to_string()),
            op: source.map_or_else(|| self.node.op.to_string(), |source| source.op_type.to_string()),
            attribute,
            reason: reason.into(),
        }]))
    }

    /// Whether anything reads an output.
    pub(super) fn is_used(&self, output: usize) -> bool {
        self.emitter.graph.is_used(ValueRef { node: self.id, slot: output as u32 })
    }

    pub(super) fn source(&self, slot: usize) -> Option<ValueRef> {
        self.emitter.graph.input(self.id, slot)
    }

    pub(super) fn info(&self, slot: usize) -> Option<&'g ValueInfo> {
        self.emitter.graph.info(self.source(slot)?)
    }

    /// Emits a body whose inputs are these tensors, and gives those of its outputs.
    pub(super) fn body(&mut self, body: &'g Graph, inputs: &[S::Tensor]) -> Result<Outputs<S::Tensor>, EmitError> {
        self.emitter.body(body, inputs)
    }

    /// The dtype of the first output.
    pub(super) fn dtype(&self) -> DType {
        self.node.outputs.first().map_or(DType::Unknown, |value| self.emitted(value.info.dtype))
    }

    /// The type that tensors of a type of the graph have in the network: another for indices where these have 32 bits.
    pub(super) fn emitted(&self, dtype: DType) -> DType {
        if dtype == DType::I64 { self.capabilities().index_dtype() } else { dtype }
    }

    /// The type to ask of layers that give indices.
    pub(super) fn indices(&self) -> DType {
        if self.capabilities().wide_indices { DType::I64 } else { DType::I32 }
    }

    /// What such a layer gave, in the type that indices have elsewhere.
    pub(super) fn as_indices(&mut self, x: S::Tensor) -> Result<S::Tensor, EmitError> {
        let dtype = self.capabilities().index_dtype();
        if self.indices() == dtype { Ok(x) } else { self.layer("indices", |sink, label| sink.cast(label, x, dtype)) }
    }

    /// What is known of the first output.
    pub(super) fn output(&self) -> Option<&'g ValueInfo> {
        self.node.outputs.first().map(|value| &value.info)
    }

    pub(super) fn rank(&self, slot: usize) -> Result<usize, EmitError> {
        match self.info(slot).and_then(ValueInfo::rank) {
            Some(rank) => Ok(rank),
            None => self.unsupported(format!("the rank of input {slot} is not known")),
        }
    }

    pub(super) fn constant(&self, slot: usize) -> Option<&'g Tensor> {
        self.emitter.graph.constant(self.source(slot)?)
    }

    /// An input as a tensor.
    pub(super) fn tensor(&mut self, slot: usize) -> Result<S::Tensor, EmitError> {
        match self.constant(slot) {
            Some(constant) => self.constant_layer(slot, Dims::from_slice(constant.dims())),
            None => match self.source(slot) {
                Some(value) => self.emitter.made(value, &self.node.name),
                None => self.unsupported(format!("input {slot} is missing")),
            },
        }
    }

    /// A constant input under other dimensions of equal product, one layer for all readers that ask for the same.
    pub(super) fn constant_layer(&mut self, slot: usize, dims: Dims) -> Result<S::Tensor, EmitError> {
        let (Some(value), Some(constant)) = (self.source(slot), self.constant(slot)) else {
            return self.unsupported(format!("input {slot} is no constant"));
        };
        match self.emitter.constant_layer(value, constant, dims)? {
            Ok(tensor) => Ok(tensor),
            Err(reason) => self.unsupported(reason),
        }
    }

    /// An input as a tensor of `rank`, extents of one in front, as elementwise layers need.
    pub(super) fn aligned(&mut self, slot: usize, rank: usize) -> Result<S::Tensor, EmitError> {
        let own = self.rank(slot)?;
        if own >= rank {
            return self.tensor(slot);
        }
        if let Some(constant) = self.constant(slot) {
            let mut dims = Dims::from_elem(1, rank - own);
            dims.extend_from_slice(constant.dims());
            return self.constant_layer(slot, dims);
        }
        let shape = self.info(slot).and_then(|info| info.shape.clone()).unwrap_or_default();
        let mut widened = trt_fuse_ir::Shape::from_elem(trt_fuse_ir::Dim::fixed(1), rank - own);
        widened.extend(shape);
        let x = self.tensor(slot)?;
        self.reshape_to(x, &widened, "broadcast")
    }

    /// A reshape to a shape that may be symbolic.
    pub(super) fn reshape_to(
        &mut self,
        x: S::Tensor,
        shape: &trt_fuse_ir::Shape,
        what: &str,
    ) -> Result<S::Tensor, EmitError> {
        self.reshape_between(x, None, shape, None, what)
    }

    /// A reshape between two transposes.
    pub(super) fn reshape_between(
        &mut self,
        x: S::Tensor,
        before: Option<&[i64]>,
        shape: &trt_fuse_ir::Shape,
        after: Option<&[i64]>,
        what: &str,
    ) -> Result<S::Tensor, EmitError> {
        let unknown = shape.iter().filter(|dim| dim.value().is_none()).count();
        let fixed: Vec<i64> = shape.iter().map(|dim| dim.value().unwrap_or(-1)).collect();
        // -1 is derived from the element count, which must then not be 0.
        if unknown == 0 || (unknown == 1 && !fixed.contains(&0)) {
            return self.shuffle(x, before, Some(DimsArg::Fixed(&fixed)), after, what);
        }
        let dims = self.dims_tensor(shape)?;
        self.shuffle(x, before, Some(DimsArg::Tensor(dims)), after, what)
    }

    pub(super) fn shuffle(
        &mut self,
        x: S::Tensor,
        first_transpose: Option<&[i64]>,
        reshape: Option<DimsArg<'_, S::Tensor>>,
        second_transpose: Option<&[i64]>,
        what: &str,
    ) -> Result<S::Tensor, EmitError> {
        let layer = Shuffle { first_transpose, reshape, second_transpose };
        self.layer(what, |sink, label| sink.shuffle(label, x, &layer))
    }

    /// A scalar as a constant of `rank` extents of one.
    pub(super) fn scalar(&mut self, dtype: DType, rank: usize, value: f64, what: &str) -> Result<S::Tensor, EmitError> {
        let dtype = self.emitted(dtype);
        let tensor = Tensor::number(dtype, value).and_then(|number| number.reshaped(Dims::from_elem(1, rank)).ok());
        match tensor {
            Some(tensor) => self.layer(what, |sink, label| sink.constant(label, Weights::Owned(tensor))),
            None => self.unsupported(format!("a constant of {dtype} is needed")),
        }
    }

    /// An input of one element as a tensor of rank 0.
    pub(super) fn single(&mut self, slot: usize, what: &str) -> Result<S::Tensor, EmitError> {
        match self.info(slot).and_then(|info| info.shape.as_ref()) {
            Some(shape) if shape.is_empty() => self.tensor(slot),
            Some(shape) if shape.iter().all(|dim| dim.value().is_none_or(|size| size == 1)) => {
                let x = self.tensor(slot)?;
                self.shuffle(x, None, Some(DimsArg::Fixed(&[])), None, what)
            }
            _ => self.unsupported(format!("input {slot} is not known to be one number")),
        }
    }

    /// A count of one element as an i32 of rank 0, for layers that take no other: the largest where it is larger.
    pub(super) fn count_i32(&mut self, slot: usize, what: &str) -> Result<S::Tensor, EmitError> {
        if let Some(count) = self.constant(slot).and_then(|count| count.to_i64s()?.first().copied()) {
            return self.scalar(DType::I32, 0, count.clamp(0, i64::from(i32::MAX)) as f64, what);
        }
        let x = self.single(slot, what)?;
        let dtype = self.info(slot).map_or(DType::Unknown, |info| self.emitted(info.dtype));
        if dtype == DType::I32 {
            return Ok(x);
        }
        let (least, most) = (self.scalar(dtype, 0, 0.0, "least")?, self.scalar(dtype, 0, f64::from(i32::MAX), "most")?);
        let x = self.elementwise(x, least, ElementwiseKind::Max, &format!("{what}_above"))?;
        let x = self.elementwise(x, most, ElementwiseKind::Min, &format!("{what}_below"))?;
        self.layer(&format!("{what}_i32"), |sink, label| sink.cast(label, x, DType::I32))
    }

    /// A vector of integers as a constant of the type that shape tensors have.
    pub(super) fn int_vector(&mut self, values: &[i64], what: &str) -> Result<S::Tensor, EmitError> {
        let tensor = if self.capabilities().dtypes.contains(&DType::I64) {
            Tensor::vector(values.to_vec())
        } else {
            match values.iter().map(|value| i32::try_from(*value)).collect::<Result<Vec<_>, _>>() {
                Ok(values) => Tensor::vector(values),
                Err(_) => return self.unsupported("an integer does not fit 32 bits"),
            }
        };
        self.layer(what, |sink, label| sink.constant(label, Weights::Owned(tensor)))
    }

    /// Makes a layer: named after the node, or after the node and `what`.
    pub(super) fn layer<T>(
        &mut self,
        what: &str,
        make: impl FnOnce(&mut S, Label<'_>) -> Result<T, EmitError>,
    ) -> Result<T, EmitError> {
        let wanted = if what.is_empty() { self.node.name.to_string() } else { format!("{}::{what}", self.node.name) };
        self.layer_named(&wanted, make)
    }

    /// Makes a layer that does the work of one ONNX node of the given types, if the node stands for such a one.
    pub(super) fn layer_of<T>(
        &mut self,
        op_types: &[&str],
        what: &str,
        make: impl FnOnce(&mut S, Label<'_>) -> Result<T, EmitError>,
    ) -> Result<T, EmitError> {
        let graph = self.emitter.graph;
        let source = graph
            .origins(self.id)
            .find(|source| op_types.contains(&&*source.op_type) && !self.emitter.is_taken(&source.name));
        match source {
            Some(source) if source.name != self.node.name => self.layer_named(&source.name, make),
            _ => self.layer(what, make),
        }
    }

    fn layer_named<T>(
        &mut self,
        wanted: &str,
        make: impl FnOnce(&mut S, Label<'_>) -> Result<T, EmitError>,
    ) -> Result<T, EmitError> {
        let name = self.emitter.unique(wanted);
        make(self.emitter.sink, Label { name: &name, metadata: &self.metadata })
    }

    pub(super) fn elementwise(
        &mut self,
        a: S::Tensor,
        b: S::Tensor,
        kind: ElementwiseKind,
        what: &str,
    ) -> Result<S::Tensor, EmitError> {
        self.layer(what, |sink, label| sink.elementwise(label, a, b, kind))
    }

    pub(super) fn unary(&mut self, x: S::Tensor, kind: UnaryKind, what: &str) -> Result<S::Tensor, EmitError> {
        self.layer(what, |sink, label| sink.unary(label, x, kind))
    }

    pub(super) fn activation(
        &mut self,
        x: S::Tensor,
        kind: ActivationKind,
        alpha: f32,
        beta: f32,
        what: &str,
    ) -> Result<S::Tensor, EmitError> {
        let layer = Activation { kind, alpha, beta };
        self.layer(what, |sink, label| sink.activation(label, x, &layer))
    }
}
