//! Writes what a node means as a formula of other operators: the body of a rule that lowers.
//!
//! Operators broadcast as NumPy does, so that a scalar of rank 0 stands beside any tensor.

use trt_fuse_ir::op::{
    BinaryOp, Cast, Concat, Constant, Pad, Reduce, ReduceKind, Reshape, ShapeOf, Slice, Squeeze, UnaryOp, Unsqueeze,
};
use trt_fuse_ir::{DType, Dim, Graph, Ints, NodeId, Op, Patch, Shape, Tensor, ValueInfo, ValueRef};

use crate::pass::Miss;

/// Elements of a constant that a formula may bring in; what has more is computed at run time.
pub(crate) const MAX_CONSTANT: i64 = 1 << 20;

/// A formula being written: a patch that replaces one node.
#[derive(Debug)]
pub(crate) struct Formula<'g> {
    graph: &'g Graph,
    root: NodeId,
    patch: Patch,
}

impl<'g> Formula<'g> {
    /// An empty formula for the outputs of `root`.
    pub(crate) fn new(rule: &'static str, graph: &'g Graph, root: NodeId) -> Self {
        Self { graph, root, patch: Patch::new(rule, root) }
    }

    /// An input of the node that must be there.
    pub(crate) fn input(&self, slot: usize) -> Result<ValueRef, Miss> {
        self.graph.input(self.root, slot).ok_or(Miss::NoMatch)
    }

    /// The data of an input of the node that is a constant.
    pub(crate) fn constant_input(&self, slot: usize) -> Option<&'g Tensor> {
        self.graph.constant(self.graph.input(self.root, slot)?)
    }

    /// The graph of the node.
    pub(crate) fn graph(&self) -> &'g Graph {
        self.graph
    }

    /// The node.
    pub(crate) fn root(&self) -> NodeId {
        self.root
    }

    /// What is known of an input of the node.
    pub(crate) fn info(&self, slot: usize) -> Result<&'g ValueInfo, Miss> {
        self.graph.info(self.input(slot)?).ok_or(Miss::NoMatch)
    }

    /// The shape of an input of the node; no match while its rank is unknown.
    pub(crate) fn shape(&self, slot: usize) -> Result<&'g Shape, Miss> {
        self.info(slot)?.shape.as_ref().ok_or(Miss::NoMatch)
    }

    /// An operator of one output.
    pub(crate) fn op(&mut self, op: impl Into<Op>, inputs: &[ValueRef]) -> ValueRef {
        let inputs: Vec<Option<ValueRef>> = inputs.iter().copied().map(Some).collect();
        self.patch.add(op, &inputs)
    }

    /// An operator of several outputs, with slots that may be empty.
    pub(crate) fn many(&mut self, op: Op, inputs: &[Option<ValueRef>], outputs: usize) -> Vec<ValueRef> {
        let node = self.patch.add_many(op, inputs, outputs);
        (0..outputs as u32).map(|slot| ValueRef { node, slot }).collect()
    }

    /// An elementwise operator of one input.
    pub(crate) fn unary(&mut self, op: UnaryOp, x: ValueRef) -> ValueRef {
        self.op(Op::Unary(op), &[x])
    }

    /// An elementwise operator of two inputs.
    pub(crate) fn binary(&mut self, op: BinaryOp, a: ValueRef, b: ValueRef) -> ValueRef {
        self.op(Op::Binary(op), &[a, b])
    }

    /// An elementwise operator of a tensor and a number, in this order.
    pub(crate) fn with_number(
        &mut self,
        op: BinaryOp,
        x: ValueRef,
        dtype: DType,
        number: f64,
    ) -> Result<ValueRef, Miss> {
        let number = self.number(dtype, number)?;
        Ok(self.binary(op, x, number))
    }

    /// A number of rank 0; no match for a type that does not have it.
    pub(crate) fn number(&mut self, dtype: DType, number: f64) -> Result<ValueRef, Miss> {
        Ok(self.constant(Tensor::number(dtype, number).ok_or(Miss::NoMatch)?))
    }

    /// A constant.
    pub(crate) fn constant(&mut self, value: Tensor) -> ValueRef {
        self.op(Constant { value }, &[])
    }

    /// `condition ? a : b`.
    pub(crate) fn select(&mut self, condition: ValueRef, a: ValueRef, b: ValueRef) -> ValueRef {
        self.op(Op::Where, &[condition, a, b])
    }

    /// A conversion.
    pub(crate) fn cast(&mut self, x: ValueRef, to: DType) -> ValueRef {
        self.op(Cast::new(to), &[x])
    }

    /// A reduction that keeps the reduced axes.
    pub(crate) fn reduce(&mut self, kind: ReduceKind, x: ValueRef, axes: &[i64]) -> ValueRef {
        let axes: Ints = axes.iter().copied().collect();
        self.op(Reduce { kind, axes: Some(axes), keep_dims: true, noop_if_empty: true }, &[x])
    }

    /// Integers of the type `computed` taken to the range of a narrower one, as its bits are.
    pub(crate) fn wrapped(&mut self, x: ValueRef, computed: DType, dtype: DType) -> Result<ValueRef, Miss> {
        let width = dtype.bits();
        if width >= computed.bits() {
            return Ok(x);
        }
        let modulus = (1_i64 << width) as f64;
        if dtype.is_unsigned_integer() {
            return self.with_number(BinaryOp::Mod, x, computed, modulus);
        }
        let raised = self.with_number(BinaryOp::Add, x, computed, modulus / 2.0)?;
        let rest = self.with_number(BinaryOp::Mod, raised, computed, modulus)?;
        self.with_number(BinaryOp::Sub, rest, computed, modulus / 2.0)
    }

    /// Another shape.
    pub(crate) fn reshape(&mut self, x: ValueRef, shape: Shape) -> ValueRef {
        self.op(Reshape { shape: Some(shape), allow_zero: true }, &[x])
    }

    /// Every `step`-th element of an axis, from the first to before the last of `range`.
    pub(crate) fn slice(&mut self, x: ValueRef, axis: i64, range: (i64, Dim), step: i64) -> ValueRef {
        let slice = Slice {
            axes: Some(Ints::from_slice(&[axis])),
            starts: Some(Shape::from_iter([Dim::fixed(range.0)])),
            ends: Some(Shape::from_iter([range.1])),
            steps: Some(Ints::from_slice(&[step])),
        };
        self.op(slice, &[x])
    }

    /// Several joined along an axis.
    pub(crate) fn concat(&mut self, parts: &[ValueRef], axis: i64) -> ValueRef {
        match parts {
            [part] => *part,
            parts => self.op(Concat { axis }, parts),
        }
    }

    /// A vector of integers.
    pub(crate) fn ints(&mut self, values: &[i64]) -> ValueRef {
        self.constant(Tensor::vector(values.to_vec()))
    }

    /// The elements `start..end` of a vector.
    pub(crate) fn cut(&mut self, vector: ValueRef, start: i64, end: i64) -> ValueRef {
        self.slice(vector, 0, (start, Dim::fixed(end)), 1)
    }

    /// The dimensions of a tensor as a vector.
    pub(crate) fn dims(&mut self, x: ValueRef) -> ValueRef {
        self.op(ShapeOf { start: 0, end: None }, &[x])
    }

    /// The size of an axis of an input of the node, as an i64 of rank 0.
    pub(crate) fn size(&mut self, slot: usize, axis: usize) -> Result<ValueRef, Miss> {
        let (x, axis) = (self.input(slot)?, axis as i64);
        let size = self.op(ShapeOf { start: axis, end: Some(axis + 1) }, &[x]);
        Ok(self.op(Squeeze { axes: Some(Ints::from_slice(&[0])) }, &[size]))
    }

    /// The numbers of the elements along an axis of an input of the node, a vector of i64.
    pub(crate) fn positions(&mut self, slot: usize, axis: usize) -> Result<ValueRef, Miss> {
        let size = self.shape(slot)?.get(axis).ok_or(Miss::NoMatch)?.value();
        if let Some(size) = size.filter(|size| *size <= MAX_CONSTANT) {
            return Ok(self.ints(&(0..size).collect::<Vec<_>>()));
        }
        let limit = self.size(slot, axis)?;
        self.count_up(limit)
    }

    /// The numbers from 0 to below an i64 of rank 0.
    pub(crate) fn count_up(&mut self, limit: ValueRef) -> Result<ValueRef, Miss> {
        let (start, step) = (self.number(DType::I64, 0.0)?, self.number(DType::I64, 1.0)?);
        Ok(self.op(Op::Range, &[start, limit, step]))
    }

    /// Axes of size 1 put in at the places named.
    pub(crate) fn unsqueeze(&mut self, x: ValueRef, axes: &[i64]) -> ValueRef {
        self.op(Unsqueeze { axes: Some(axes.iter().copied().collect()) }, &[x])
    }

    /// Padding with a number of rank 0.
    pub(crate) fn pad(&mut self, op: Pad, x: ValueRef, fill: ValueRef) -> ValueRef {
        self.patch.add(op, &[Some(x), None, Some(fill)])
    }

    /// The patch that puts values in the place of the node's outputs, in order.
    pub(crate) fn results(mut self, values: &[ValueRef]) -> Patch {
        for (slot, value) in values.iter().enumerate() {
            self.patch.replace(ValueRef { node: self.root, slot: slot as u32 }, *value);
        }
        self.patch.absorb([self.root]);
        self.patch
    }

    /// The patch that puts a value in the place of the node's one output.
    pub(crate) fn result(self, value: ValueRef) -> Patch {
        self.results(&[value])
    }
}
