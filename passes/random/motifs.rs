//! Motifs: the few nodes in a row that passes look for, in the ways that models write them, with other readers in
//! between now and then.

use trt_fuse_ir::op::*;
use trt_fuse_ir::{Dim, Ints, Op, Tensor, ValueRef};

use super::maker::Maker;

impl Maker {
    pub(super) fn motif(&mut self) -> Option<()> {
        let x = self.image();
        match self.pick(24) {
            0 | 1 => self.convolution(x),
            2 => self.padded(x),
            3 => self.concatenated(x),
            4 => self.sliced(x),
            5 | 6 => self.activation(x),
            7 | 8 => self.product(x),
            9 => self.moved(x),
            10 => self.reduced(x),
            11 => self.normal(x),
            12 | 13 => self.attention(x),
            14 => match self.pick(4) {
                0 | 1 => self.heads(x),
                2 => self.products_of_parts(x),
                _ => self.joined_parts(x),
            },
            15 => match self.pick(3) {
                0 | 1 => self.siblings(x),
                _ => self.stacked(x),
            },
            20 => self.branches(x),
            16 => self.rotary(x),
            17 => self.picked(x),
            18 => self.rotary_part(x),
            19 => self.normal_of_channels(x),
            21 => self.masked(x),
            22 => self.looked_up(x),
            _ => self.controlled(x),
        }
    }

    /// A value of four axes, all sizes but the batch known.
    fn image(&mut self) -> ValueRef {
        let images: Vec<ValueRef> = self
            .values
            .iter()
            .copied()
            .filter(|value| {
                let dims = self.dims(*value);
                dims.len() == 4 && dims.iter().skip(1).all(|dim| dim.value().is_some())
            })
            .collect();
        // The first input is one.
        images[images.len() - 1 - self.pick(images.len().min(3))]
    }

    /// Adds a node of one output, which now and then has other readers.
    pub(super) fn link(&mut self, op: impl Into<Op>, inputs: &[ValueRef]) -> Option<ValueRef> {
        let inputs: Vec<Option<ValueRef>> = inputs.iter().copied().map(Some).collect();
        let value = self.node(op, &inputs, 1)?[0];
        if self.pick(9) == 1 {
            self.keep(vec![value])?;
        }
        Some(value)
    }

    pub(super) fn binary(&mut self, op: BinaryOp, a: ValueRef, b: ValueRef) -> Option<ValueRef> {
        if op.is_commutative() && self.pick(2) == 1 {
            self.link(Op::Binary(op), &[b, a])
        } else {
            self.link(Op::Binary(op), &[a, b])
        }
    }

    pub(super) fn with_scalar(&mut self, op: BinaryOp, x: ValueRef, value: f32) -> Option<ValueRef> {
        let scalar = if self.pick(2) == 0 { Tensor::scalar(value) } else { Tensor::vector(vec![value]) };
        let scalar = self.constant(scalar)?;
        self.binary(op, x, scalar)
    }

    fn activate(&mut self, activation: Activation, x: ValueRef) -> Option<ValueRef> {
        self.link(Op::Activation(activation), &[x])
    }

    /// A value as an operand of later instructions.
    pub(super) fn done(&mut self, value: ValueRef) -> Option<()> {
        self.keep(vec![value])
    }

    /// A normalization of axis 1, its parameters constants.
    fn normalize(&mut self, x: ValueRef, channels: usize) -> Option<ValueRef> {
        let mut inputs = vec![x];
        for _ in 0..3 {
            inputs.push(self.floats(&[channels])?);
        }
        let variance = (0..channels).map(|at| 0.5 + at as f32 * 0.25).collect();
        inputs.push(self.constant(Tensor::from_vec([channels], variance).unwrap())?);
        self.link(BatchNorm { epsilon: 1e-3.into(), epilogue: Epilogue::default() }, &inputs)
    }

    /// A convolution, transposed or not, and what follows one.
    fn convolution(&mut self, x: ValueRef) -> Option<()> {
        let channels = self.dims(x)[1].value()? as usize;
        let (ones, pads): (Ints, Ints) = ([1, 1].into_iter().collect(), [1, 1, 1, 1].into_iter().collect());
        let padding = trt_fuse_ir::Padding::Explicit(pads);
        let (weight, groups, epilogue) = (self.floats(&[channels, channels, 3, 3])?, 1, Epilogue::default());
        let op: Op = if self.pick(3) == 0 {
            let (strides, dilations, output_padding) = (ones.clone(), ones, [0, 0].into_iter().collect());
            ConvTranspose { strides, dilations, padding, output_padding, output_shape: None, groups, epilogue }.into()
        } else {
            Conv { strides: ones.clone(), dilations: ones, padding, groups, epilogue }.into()
        };
        let mut value = self.link(op, &[x, weight])?;
        for _ in 0..1 + self.pick(4) {
            value = match self.pick(6) {
                0 => self.normalize(value, channels)?,
                1 | 2 => {
                    let constant = self.floats(&[channels, 1, 1])?;
                    let op = self.one_of(&[BinaryOp::Mul, BinaryOp::Add, BinaryOp::Sub]);
                    self.binary(op, value, constant)?
                }
                3 => self.binary(BinaryOp::Add, value, x)?,
                4 => self.activate(Activation::Relu, value)?,
                _ => self.with_scalar(BinaryOp::Div, value, 4.0)?,
            };
        }
        self.done(value)
    }

    /// Convolutions of an image with kernels of several lengths and one size, mostly, put together again now and then.
    pub(super) fn branches(&mut self, x: ValueRef) -> Option<()> {
        let channels = usize::try_from(self.dims(x)[1].value()?).ok()?;
        let (ones, activated) = (Ints::from_slice(&[1, 1]), self.pick(2) == 0);
        let mut results = Vec::new();
        for length in 1..=self.one_of(&[2, 3]) {
            let size = self.one_of(&[1, 1, 1, 3]);
            let mut inputs = vec![x, self.floats(&[length, channels, size, size])?];
            if self.pick(3) > 0 {
                inputs.push(self.floats(&[length])?);
            }
            let padding = trt_fuse_ir::Padding::Explicit(Ints::from_elem(i64::from(size == 3), 4));
            let (strides, dilations, epilogue) = (ones.clone(), ones.clone(), Epilogue::default());
            let mut value = self.link(Conv { strides, dilations, padding, groups: 1, epilogue }, &inputs)?;
            if activated {
                value = self.link(Op::Activation(Activation::Relu), &[value])?;
            }
            results.push(value);
        }
        if self.pick(2) == 0 {
            let whole = self.link(Concat { axis: 1 }, &results)?;
            return self.done(whole);
        }
        self.keep(results)
    }

    /// Padding, then what may take it in.
    fn padded(&mut self, x: ValueRef) -> Option<()> {
        let fill = self.one_of(&[0.0, 0.0, f32::NEG_INFINITY, 1.5]);
        let mut inputs = vec![Some(x), Some(self.ints(&[0, 0, 1, 0, 0, 0, 1, 1])?)];
        if fill != 0.0 {
            inputs.push(Some(self.constant(Tensor::scalar(fill))?));
        }
        let value = self.node(Pad { mode: PadMode::Constant, pads: None }, &inputs, 1)?[0];
        for _ in 0..1 + self.pick(2) {
            if self.pick(2) == 0 { self.conv(value)? } else { self.pool(value)? }
        }
        Some(())
    }

    /// Parts put together, then taken apart or put together further.
    fn concatenated(&mut self, x: ValueRef) -> Option<()> {
        let size = self.dims(x)[1].value()?;
        let y = self.activate(Activation::Tanh, x)?;
        let whole = self.link(Concat { axis: 1 }, &[x, y, x])?;
        match self.pick(4) {
            0 => {
                let sizes = self.ints(&[size, 2 * size])?;
                let parts = self.node(Split { axis: 1, sizes: None }, &[Some(whole), Some(sizes)], 2)?;
                self.keep(parts)
            }
            1 => {
                let parts = self.node(Split { axis: 1, sizes: None }, &[Some(whole)], 3)?;
                self.keep(parts)
            }
            2 => {
                let (start, end) = self.one_of(&[(0, size), (size, i64::MAX), (size, 2 * size), (1, size)]);
                let value = self.cut(whole, 1, start, end)?;
                self.done(value)
            }
            _ => {
                let value = self.link(Concat { axis: -3 }, &[y, whole])?;
                self.done(value)
            }
        }
    }

    fn cut(&mut self, x: ValueRef, axis: i64, start: i64, end: i64) -> Option<ValueRef> {
        let (starts, ends, axes) = (self.ints(&[start])?, self.ints(&[end])?, self.ints(&[axis])?);
        self.link(Slice { axes: None, starts: None, ends: None, steps: None }, &[x, starts, ends, axes])
    }

    fn sliced(&mut self, x: ValueRef) -> Option<()> {
        let (first, second) = (self.one_of(&[1, 2]), self.one_of(&[1, 2]));
        let value = self.cut(x, first, 1, i64::MAX)?;
        let value = self.cut(value, second, 0, -1)?;
        self.done(value)
    }

    /// Activations in parts.
    fn activation(&mut self, x: ValueRef) -> Option<()> {
        use Activation::*;
        let clip = Clip(0.0.into(), 6.0.into());
        let value = match self.pick(9) {
            0 => {
                let value = self.activate(Relu, x)?;
                self.with_scalar(BinaryOp::Min, value, 6.0)?
            }
            1 => {
                let value = self.activate(clip, x)?;
                self.activate(Relu, value)?
            }
            2 => {
                let value = self.with_scalar(BinaryOp::Add, x, 3.0)?;
                let value = self.activate(clip, value)?;
                self.with_scalar(BinaryOp::Div, value, 6.0)?
            }
            3 => {
                let value = self.with_scalar(BinaryOp::Add, x, 3.0)?;
                let value = self.activate(clip, value)?;
                let value = self.binary(BinaryOp::Mul, x, value)?;
                self.with_scalar(BinaryOp::Mul, value, 1.0 / 6.0)?
            }
            4 if self.pick(2) == 0 => {
                let negative = self.link(Op::Unary(UnaryOp::Neg), &[x])?;
                let power = self.link(Op::Unary(UnaryOp::Exp), &[negative])?;
                let sum = self.with_scalar(BinaryOp::Add, power, 1.0)?;
                self.link(Op::Binary(BinaryOp::Div), &[x, sum])?
            }
            4 => {
                let value = self.activate(Sigmoid, x)?;
                self.binary(BinaryOp::Mul, x, value)?
            }
            5 => {
                let value = if self.pick(2) == 0 {
                    let power = self.link(Op::Unary(UnaryOp::Exp), &[x])?;
                    let sum = self.with_scalar(BinaryOp::Add, power, 1.0)?;
                    self.link(Op::Unary(UnaryOp::Log), &[sum])?
                } else {
                    self.activate(Softplus, x)?
                };
                let value = self.activate(Tanh, value)?;
                self.binary(BinaryOp::Mul, x, value)?
            }
            6 => {
                let value = self.with_scalar(BinaryOp::Mul, x, std::f32::consts::FRAC_1_SQRT_2)?;
                let value = self.link(Op::Unary(UnaryOp::Erf), &[value])?;
                self.gelu_of(x, value)?
            }
            7 => {
                let cube = self.with_scalar(BinaryOp::Pow, x, 3.0)?;
                let cube = self.with_scalar(BinaryOp::Mul, cube, 0.044_715)?;
                let sum = self.binary(BinaryOp::Add, x, cube)?;
                let value = self.with_scalar(BinaryOp::Mul, sum, (2.0 / std::f32::consts::PI).sqrt())?;
                let value = self.activate(Tanh, value)?;
                self.gelu_of(x, value)?
            }
            _ => {
                // Scale and shift of each channel, no convolution before them.
                let channels = self.dims(x)[1].value()? as usize;
                let value = self.normalize(x, channels)?;
                let constant = self.floats(&[channels, 1, 1])?;
                self.binary(BinaryOp::Mul, value, constant)?
            }
        };
        self.done(value)
    }

    /// The product of a value, a half and the gate that an error function or tangent opens, in some grouping.
    fn gelu_of(&mut self, x: ValueRef, gate: ValueRef) -> Option<ValueRef> {
        let gate = self.with_scalar(BinaryOp::Add, gate, 1.0)?;
        if self.pick(2) == 0 {
            let half = self.with_scalar(BinaryOp::Mul, x, 0.5)?;
            return self.binary(BinaryOp::Mul, half, gate);
        }
        let value = self.binary(BinaryOp::Mul, x, gate)?;
        self.with_scalar(BinaryOp::Mul, value, 0.5)
    }

    /// The RMS norm or, of data less its mean, the layer norm of the last axis.
    fn normal(&mut self, x: ValueRef) -> Option<()> {
        let size = self.dims(x).last()?.value()? as usize;
        let mean = |kind| Reduce { kind, axes: Some(Ints::from_slice(&[-1])), keep_dims: true, noop_if_empty: false };
        let is_layer_norm = self.pick(2) == 0;
        let data = if is_layer_norm {
            let mean = self.link(mean(ReduceKind::Mean), &[x])?;
            self.link(Op::Binary(BinaryOp::Sub), &[x, mean])?
        } else {
            x
        };
        let square = self.binary(BinaryOp::Mul, data, data)?;
        let variance = self.link(mean(ReduceKind::Mean), &[square])?;
        let sum = self.with_scalar(BinaryOp::Add, variance, 1e-2)?;
        let root = self.link(Op::Unary(UnaryOp::Sqrt), &[sum])?;
        let normal = self.link(Op::Binary(BinaryOp::Div), &[data, root])?;
        let scale = self.floats(&[size])?;
        let mut value = self.binary(BinaryOp::Mul, normal, scale)?;
        if self.pick(2) == 0 {
            let bias = self.floats(&[size])?;
            value = self.binary(BinaryOp::Add, value, bias)?;
        }
        self.done(value)
    }

    /// The norm of an image's channels, alone or two together, in its parts or whole.
    fn normal_of_channels(&mut self, x: ValueRef) -> Option<()> {
        let dims = self.dims(x);
        let channels = dims[1].value()?;
        let is_grouped = channels % 2 == 0 && self.pick(2) == 0;
        let mut data = x;
        if is_grouped {
            let rest = dims[2].value()? * dims[3].value()? * 2;
            let groups = [dims[0].clone(), Dim::fixed(channels / 2), Dim::fixed(rest)].into_iter().collect();
            data = self.link(Reshape { shape: Some(groups), allow_zero: false }, &[x])?;
        }
        let count = if is_grouped { channels / 2 } else { channels } as usize;
        let mut normal = if self.pick(2) == 0 {
            let scale = self.constant(Tensor::full([count], 1.0f32).ok()?)?;
            let bias = self.constant(Tensor::full([count], 0.0f32).ok()?)?;
            self.link(GroupNorm { groups: 0, epsilon: 1e-2.into() }, &[data, scale, bias])?
        } else {
            let axes: Ints = if is_grouped { [2].into_iter().collect() } else { [2, 3].into_iter().collect() };
            let mean = Reduce { kind: ReduceKind::Mean, axes: Some(axes), keep_dims: true, noop_if_empty: false };
            let means = self.link(mean.clone(), &[data])?;
            let centred = self.link(Op::Binary(BinaryOp::Sub), &[data, means])?;
            let square = self.binary(BinaryOp::Mul, centred, centred)?;
            let variance = self.link(mean, &[square])?;
            let sum = self.with_scalar(BinaryOp::Add, variance, 1e-2)?;
            let root = self.link(Op::Unary(UnaryOp::Sqrt), &[sum])?;
            self.link(Op::Binary(BinaryOp::Div), &[centred, root])?
        };
        if is_grouped {
            normal = self.link(Reshape { shape: Some(dims.into_iter().collect()), allow_zero: false }, &[normal])?;
        }
        let scale = self.floats(&[channels as usize, 1, 1])?;
        let product = self.binary(BinaryOp::Mul, normal, scale)?;
        let bias = self.floats(&[channels as usize, 1, 1])?;
        let value = self.binary(BinaryOp::Add, product, bias)?;
        self.done(value)
    }

    /// A matrix product with a weight, and what follows one.
    fn product(&mut self, x: ValueRef) -> Option<()> {
        let dims = self.dims(x);
        let flat = self.link(Flatten { axis: 1 }, &[x])?;
        let inner = Dim::product(&dims[1..]).value()? as usize;
        let weight = if self.pick(2) == 0 {
            self.floats(&[inner, 5])?
        } else {
            let weight = self.floats(&[5, inner])?;
            self.link(Transpose { perm: [1, 0].into_iter().collect() }, &[weight])?
        };
        let op = MatMul::new(false, false);
        let mut value = self.link(op, &[flat, weight])?;
        for _ in 0..1 + self.pick(4) {
            value = match self.pick(4) {
                0 => self.normalize(value, 5)?,
                1 | 2 => {
                    let constant = self.floats(&[5])?;
                    let op = self.one_of(&[BinaryOp::Mul, BinaryOp::Add]);
                    self.binary(op, value, constant)?
                }
                _ => self.activate(Activation::Relu, value)?,
            };
        }
        self.done(value)
    }

    /// Reshapes and transposes in a row, or a transpose and the product that reads it.
    fn moved(&mut self, x: ValueRef) -> Option<()> {
        let swapped: Ints = [0, 1, 3, 2].into_iter().collect();
        let value = match self.pick(3) {
            0 => {
                let value = self.link(Transpose { perm: swapped }, &[x])?;
                let perm = self.one_of(&[[0, 1, 3, 2], [0, 2, 3, 1], [1, 0, 2, 3]]);
                self.link(Transpose { perm: perm.into_iter().collect() }, &[value])?
            }
            1 => {
                let value = self.link(Transpose { perm: swapped }, &[x])?;
                let op = MatMul::new(false, false);
                self.link(op, &[x, value])?
            }
            _ => {
                let value = self.link(Flatten { axis: 2 }, &[x])?;
                let axes = self.ints(&[0])?;
                self.link(Unsqueeze { axes: None }, &[value, axes])?
            }
        };
        self.done(value)
    }

    /// Reductions over the spatial axes in several forms, and a reshape after them.
    fn reduced(&mut self, x: ValueRef) -> Option<()> {
        let dims = self.dims(x);
        let reduce = |axes: &[i64]| Reduce {
            kind: ReduceKind::Mean,
            axes: Some(axes.iter().copied().collect()),
            keep_dims: true,
            noop_if_empty: false,
        };
        let mut value = match self.pick(3) {
            0 => self.link(reduce(&[2, 3]), &[x])?,
            1 => {
                let value = self.link(reduce(&[-1]), &[x])?;
                self.link(reduce(&[2]), &[value])?
            }
            _ => {
                let pool = Pool {
                    kind: PoolKind::Average,
                    kernel: dims[2..].iter().map(Dim::value).collect::<Option<Ints>>()?,
                    strides: [1, 1].into_iter().collect(),
                    dilations: [1, 1].into_iter().collect(),
                    padding: trt_fuse_ir::Padding::none(2),
                    ceil_mode: false,
                    p: None,
                    column_major: false,
                };
                self.link(pool, &[x])?
            }
        };
        if self.pick(2) == 0 {
            value = self.link(Flatten { axis: 1 }, &[value])?;
        }
        self.done(value)
    }
}
