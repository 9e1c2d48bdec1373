//! Instructions that become nodes.

use smallvec::SmallVec;
use trt_fuse_ir::op::*;
use trt_fuse_ir::{Builder, DType, Dim, Ints, NewNode, Op, Padding, Tensor, ValueRef};

use super::{BATCH, Instruction};

/// A graph being made.
pub(super) struct Maker {
    pub(super) builder: Builder,
    /// What later instructions may read.
    pub(super) values: Vec<ValueRef>,
    made: usize,
    operands: usize,
    parameters: u64,
}

impl Maker {
    pub(super) fn new(builder: Builder, values: Vec<ValueRef>) -> Self {
        Self { builder, values, made: 0, operands: 0, parameters: 0 }
    }

    /// A number that no node has yet.
    pub(super) fn made(&mut self) -> usize {
        self.made += 1;
        self.made
    }

    /// Takes a number below `count` out of the parameters.
    pub(super) fn pick(&mut self, count: usize) -> usize {
        let picked = (self.parameters % count as u64) as usize;
        self.parameters /= count as u64;
        picked
    }

    /// Takes one of some things out of the parameters.
    pub(super) fn one_of<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.pick(things.len())]
    }

    /// Takes a value out of the operands. Late ones are likelier, so that graphs grow deep.
    pub(super) fn value(&mut self) -> ValueRef {
        let recent = self.values.len().min(5);
        let at = self.operands % (recent + 1);
        self.operands /= recent + 1;
        if at == recent {
            self.values[self.operands % self.values.len()]
        } else {
            self.values[self.values.len() - 1 - at]
        }
    }

    pub(super) fn dims(&self, value: ValueRef) -> Vec<Dim> {
        self.builder.graph().info(value).unwrap().shape.clone().unwrap().to_vec()
    }

    /// An axis of a fixed size, and that size.
    fn fixed_axis(&mut self, value: ValueRef) -> Option<(usize, i64)> {
        let dims = self.dims(value);
        let fixed: Vec<(usize, i64)> =
            dims.iter().enumerate().filter_map(|(axis, dim)| Some((axis, dim.value()?))).collect();
        if fixed.is_empty() { None } else { Some(self.one_of(&fixed)) }
    }

    /// Adds a node; nothing if its inputs do not fit.
    pub(super) fn node(
        &mut self,
        op: impl Into<Op>,
        inputs: &[Option<ValueRef>],
        outputs: usize,
    ) -> Option<Vec<ValueRef>> {
        let op = op.into();
        self.made += 1;
        let name = format!("{}.{}", op.name(), self.made);
        let origin = self.builder.source(name.as_str(), op.name());
        let new = NewNode {
            inputs: inputs.to_vec(),
            outputs: (0..outputs).map(|_| name.as_str().into()).collect(),
            name: name.into(),
            origin,
            op,
        };
        let id = self.builder.node(new).ok()?;
        Some((0..outputs as u32).map(|slot| ValueRef { node: id, slot }).collect())
    }

    pub(super) fn push(&mut self, op: impl Into<Op>, inputs: &[Option<ValueRef>]) -> Option<()> {
        let values = self.node(op, inputs, 1)?;
        self.keep(values)
    }

    /// Makes values operands of later instructions, unless they are too large to be worth it, or empty: what -1 in a
    /// shape is then, nobody says. Sizes, places and conditions are none.
    pub(super) fn keep(&mut self, values: Vec<ValueRef>) -> Option<()> {
        for value in values {
            let elements: i64 = self.dims(value).iter().map(|dim| dim.value().unwrap_or(BATCH)).product();
            if (1..=4096).contains(&elements) && self.builder.graph().dtype(value) == DType::F32 {
                self.values.push(value);
            }
        }
        Some(())
    }

    pub(super) fn constant(&mut self, tensor: Tensor) -> Option<ValueRef> {
        self.made += 1;
        self.builder.constant(format!("c.{}", self.made), tensor).ok()
    }

    pub(super) fn ints(&mut self, values: &[i64]) -> Option<ValueRef> {
        self.constant(Tensor::vector(values.to_vec()))
    }

    /// A constant whose rows differ, so that sums of them do not cancel: what is left of a zero is noise.
    pub(super) fn floats(&mut self, dims: &[usize]) -> Option<ValueRef> {
        let (count, seed) = (dims.iter().product::<usize>(), self.pick(5) as f32);
        let data = (0..count).map(|at| ((at * 37 % 101) as f32 - 50.0) * 0.015 + seed * 0.125).collect();
        self.constant(Tensor::from_vec(dims, data).unwrap())
    }

    pub(super) fn instruction(&mut self, (operator, operands, parameters): Instruction) -> Option<()> {
        self.operands = operands.into();
        self.parameters = parameters;
        if operator >= 128 {
            return self.motif();
        }
        let x = self.value();
        let rank = self.dims(x).len();
        match operator % 20 {
            0 => {
                use Activation::*;
                let activation =
                    self.one_of(&[Relu, Sigmoid, Tanh, LeakyRelu(0.1.into()), Clip(0.0.into(), 6.0.into())]);
                self.push(Op::Activation(activation), &[Some(x)])
            }
            1 => {
                let op = self.one_of(&[UnaryOp::Identity, UnaryOp::Neg, UnaryOp::Abs]);
                self.push(Op::Unary(op), &[Some(x)])
            }
            2 => {
                let y = self.value();
                let op = self.one_of(&[BinaryOp::Add, BinaryOp::Mul, BinaryOp::Sub, BinaryOp::Max]);
                self.push(Op::Binary(op), &[Some(x), Some(y)])
            }
            3 => self.with_constant(x),
            4 => self.reshape(x),
            5 => {
                let mut perm: Ints = (0..rank as i64).collect();
                for at in (1..rank).rev() {
                    let other = self.pick(at + 1);
                    perm.swap(at, other);
                }
                self.push(Transpose { perm }, &[Some(x)])
            }
            6 => {
                let parts: Vec<Option<ValueRef>> = (0..=self.pick(3)).map(|_| Some(self.value())).collect();
                let axis = self.pick(rank.max(1)) as i64 - if self.pick(2) == 0 { 0 } else { rank as i64 };
                self.push(Concat { axis }, &parts)
            }
            7 => self.split(x),
            8 => self.slice(x),
            9 => {
                use ReduceKind::*;
                let (axis, _) = self.fixed_axis(x)?;
                let kind = self.one_of(&[Mean, Sum, Max, L1]);
                let axes = self.ints(&[axis as i64 - rank as i64])?;
                let keep_dims = self.pick(2) == 0;
                self.push(Reduce { kind, axes: None, keep_dims, noop_if_empty: false }, &[Some(x), Some(axes)])
            }
            10 => {
                let inner = self.dims(x).last()?.value()?;
                let weight = self.floats(&[inner as usize, 3])?;
                let op = MatMul::new(false, false);
                self.push(op, &[Some(x), Some(weight)])
            }
            11 => self.conv(x),
            12 => {
                let mut pads = vec![0; 2 * rank];
                for at in [rank.checked_sub(1)?, 2 * rank - 1] {
                    pads[at] = self.one_of(&[1, 0, 2, -1]);
                }
                // Infinities are padded in front of pools: see `padded`. What hides scores supposes that they are finite.
                let fill = self.one_of(&[0.0_f32, -3.0, 1.5]);
                let pads = self.ints(&pads)?;
                let fill = if fill == 0.0 { None } else { Some(self.constant(Tensor::scalar(fill))?) };
                self.push(Pad { mode: PadMode::Constant, pads: None }, &[Some(x), Some(pads), fill])
            }
            13 => self.pool(x),
            14 => {
                let mut sizes = vec![1; rank];
                if let Some(size) = sizes.last_mut() {
                    *size = self.one_of(&[1, 2]);
                }
                let sizes = self.ints(&sizes)?;
                if self.pick(2) == 0 {
                    self.push(Expand { shape: None }, &[Some(x), Some(sizes)])
                } else {
                    self.push(Tile {}, &[Some(x), Some(sizes)])
                }
            }
            15 => self.push(Cast::new(DType::F32), &[Some(x)]),
            16 => {
                let y = self.value();
                let condition = self.one_of(&[true, false]);
                let condition = self.constant(Tensor::scalar(condition))?;
                self.push(Op::Where, &[Some(condition), Some(x), Some(y)])
            }
            17 => self.view(x),
            18 => self.push(Softmax { axis: -1, log: false }, &[Some(x)]),
            _ => {
                // The same node again.
                let graph = self.builder.graph();
                let (op, inputs) = (graph.op(x.node)?.clone(), graph.node_inputs(x.node));
                let outputs = graph.node(x.node)?.outputs.len();
                if matches!(op, Op::Input) {
                    return None;
                }
                let values = self.node(op, &inputs, outputs)?;
                self.keep(values)
            }
        }
    }

    fn with_constant(&mut self, x: ValueRef) -> Option<()> {
        use BinaryOp::*;
        let dims = self.dims(x);
        let value = self.one_of(&[0.0_f32, 1.0, 2.0, 0.5, 3.0]);
        let constant = match self.pick(3) {
            0 => Tensor::scalar(value),
            1 => Tensor::full([1, 1], value).unwrap(),
            _ => {
                let last = dims.last()?.value()? as usize;
                Tensor::from_vec([last], (0..last).map(|at| value + at as f32).collect()).unwrap()
            }
        };
        let divides = constant.to_f64s()?.iter().all(|value| *value != 0.0);
        let op = self.one_of(&[Add, Mul, Sub, Div, Pow]);
        let (on_right, constant) = (self.pick(2) == 0, self.constant(constant)?);
        match op {
            Div if !divides => None,
            Pow | Div => {
                let x = self.node(Op::Activation(Activation::Sigmoid), &[Some(x)], 1)?[0];
                self.push(Op::Binary(op), &[Some(x), Some(constant)])
            }
            op if on_right => self.push(Op::Binary(op), &[Some(x), Some(constant)]),
            op => self.push(Op::Binary(op), &[Some(constant), Some(x)]),
        }
    }

    fn reshape(&mut self, x: ValueRef) -> Option<()> {
        let rank = self.dims(x).len() as i64;
        let reshape = Reshape { shape: None, allow_zero: false };
        match self.pick(5) {
            0 => {
                let axis = self.pick(rank as usize + 1) as i64;
                self.push(Flatten { axis }, &[Some(x)])
            }
            1 => {
                let axes = self.ints(&[-1])?;
                self.push(Unsqueeze { axes: None }, &[Some(x), Some(axes)])
            }
            2 => {
                let axis = self.dims(x).iter().position(|dim| dim.is(1))? as i64;
                self.push(Squeeze { axes: Some([axis].into_iter().collect()) }, &[Some(x)])
            }
            3 => {
                let shape = self.ints(&[0, -1])?;
                self.push(reshape, &[Some(x), Some(shape)])
            }
            _ => {
                let inner = self.one_of(&[2, 3, 4]);
                let shape = self.ints(&[-1, inner])?;
                // Only if the elements certainly come in such groups.
                let count = Dim::product(&self.dims(x));
                count.exact_div(&Dim::fixed(inner))?;
                self.push(reshape, &[Some(x), Some(shape)])
            }
        }
    }

    /// `x.view(x.shape[0], -1)`, as exporters write it.
    fn view(&mut self, x: ValueRef) -> Option<()> {
        let shape = self.node(ShapeOf { start: 0, end: None }, &[Some(x)], 1)?[0];
        let zero = self.constant(Tensor::scalar(0_i64))?;
        let first = self.node(Gather { axis: 0 }, &[Some(shape), Some(zero)], 1)?[0];
        let axes = self.ints(&[0])?;
        let first = self.node(Unsqueeze { axes: None }, &[Some(first), Some(axes)], 1)?[0];
        let rest = self.ints(&[-1])?;
        let to = self.node(Concat { axis: 0 }, &[Some(first), Some(rest)], 1)?[0];
        self.push(Reshape { shape: None, allow_zero: false }, &[Some(x), Some(to)])
    }

    fn split(&mut self, x: ValueRef) -> Option<()> {
        let (axis, size) = self.fixed_axis(x)?;
        let axis = axis as i64;
        let first = 1 + self.pick(3) as i64;
        if first >= size {
            return None;
        }
        let values = if self.pick(2) == 0 {
            let sizes = self.ints(&[first, size - first])?;
            self.node(Split { axis, sizes: None }, &[Some(x), Some(sizes)], 2)?
        } else {
            self.node(Split { axis, sizes: None }, &[Some(x)], 2)?
        };
        if self.pick(3) == 0 {
            self.push(Concat { axis }, &values.iter().copied().map(Some).collect::<Vec<_>>())?;
        }
        self.keep(values)
    }

    fn slice(&mut self, x: ValueRef) -> Option<()> {
        let (axis, _) = self.fixed_axis(x)?;
        let step = self.one_of(&[1, 1, 2, -1]);
        let (start, end) =
            if step > 0 { (self.one_of(&[0, 1, -3, 2]), self.one_of(&[i64::MAX, 4, -1])) } else { (-1, i64::MIN) };
        let mut inputs = vec![Some(x)];
        for value in [start, end, axis as i64, step] {
            inputs.push(Some(self.ints(&[value])?));
        }
        self.push(Slice { axes: None, starts: None, ends: None, steps: None }, &inputs)
    }

    fn padding(&mut self, axes: usize, kernel: i64) -> Padding {
        match self.pick(4) {
            0 => Padding::SameUpper,
            1 => Padding::SameLower,
            2 => Padding::none(axes),
            _ => Padding::Explicit(SmallVec::from_elem(1.min(kernel - 1), 2 * axes)),
        }
    }

    pub(super) fn conv(&mut self, x: ValueRef) -> Option<()> {
        let dims = self.dims(x);
        let axes = dims.len().checked_sub(2).filter(|axes| (1..=2).contains(axes))?;
        let (channels, kernel) = (dims[1].value()?, self.one_of(&[1_i64, 3]));
        let mut weight = vec![4, channels as usize];
        weight.extend(std::iter::repeat_n(kernel as usize, axes));
        let (weight, bias) = (self.floats(&weight)?, self.floats(&[4])?);
        let conv = Conv {
            strides: SmallVec::from_elem(self.one_of(&[1, 2]), axes),
            dilations: SmallVec::from_elem(1, axes),
            padding: self.padding(axes, kernel),
            groups: 1,
            epilogue: Default::default(),
        };
        let bias = if self.pick(2) == 0 { Some(bias) } else { None };
        self.push(conv, &[Some(x), Some(weight), bias])
    }

    pub(super) fn pool(&mut self, x: ValueRef) -> Option<()> {
        let axes = self.dims(x).len().checked_sub(2).filter(|axes| (1..=2).contains(axes))?;
        let kernel = self.one_of(&[2_i64, 3, 1]);
        let pool = Pool {
            kind: self.one_of(&[PoolKind::Max, PoolKind::Average, PoolKind::AverageIncludePad]),
            kernel: SmallVec::from_elem(kernel, axes),
            strides: SmallVec::from_elem(self.one_of(&[1, 2]), axes),
            dilations: SmallVec::from_elem(1, axes),
            padding: self.padding(axes, kernel),
            ceil_mode: self.pick(4) == 0,
            p: None,
            column_major: false,
        };
        self.push(pool, &[Some(x)])
    }
}
