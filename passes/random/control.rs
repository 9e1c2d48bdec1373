//! Control flow whose way is known, and some whose way is not.

use std::sync::Arc;

use trt_fuse_ir::op::*;
use trt_fuse_ir::{Builder, DType, Ints, Op, Tensor, ValueInfo, ValueRef};

use super::maker::Maker;

impl Maker {
    /// An `if`, `loop` or `scan` on a value of four axes, with a constant for a capture.
    pub(super) fn controlled(&mut self, x: ValueRef) -> Option<()> {
        let capture = self.floats(&[1])?;
        let outputs = match self.pick(3) {
            0 => {
                let condition = self.condition(x)?;
                let inputs = [self.described(x), self.described(capture)];
                let (then_branch, else_branch) = (self.body(&inputs, 0, 1)?, self.body(&inputs, 0, 1)?);
                let inputs = [Some(condition), Some(x), Some(capture)];
                self.node(If { then_branch, else_branch }, &inputs, 1)?
            }
            1 => {
                let trips = self.pick(4) as i64;
                if trips == 3 {
                    return self.counted(x, capture);
                }
                let trips = self.constant(Tensor::scalar(trips))?;
                let number = ValueInfo::new(DType::I64, [0_i64; 0]);
                let holds = ValueInfo::new(DType::Bool, [0_i64; 0]);
                let inputs = [number, holds, self.described(x), self.described(capture)];
                let body = self.body(&inputs, 2, 2)?;
                self.node(Loop { body, carried: 1 }, &[Some(trips), None, Some(x), Some(capture)], 1)?
            }
            _ => {
                let mut slice = self.described(x);
                slice.shape = slice
                    .shape
                    .map(|shape| shape.into_iter().enumerate().filter(|axis| axis.0 != 1).map(|axis| axis.1).collect());
                let inputs = [slice, self.described(capture)];
                let body = self.body(&inputs, 0, 1)?;
                let reversed = Ints::from_elem(self.pick(2) as i64, 1);
                let scan = Scan {
                    body,
                    scan_inputs: 1,
                    carried: 0,
                    input_axes: Ints::from_elem(1, 1),
                    output_axes: Ints::from_elem(1, 1),
                    input_reversed: reversed.clone(),
                    output_reversed: reversed,
                };
                self.node(scan, &[Some(x), Some(capture)], 1)?
            }
        };
        self.keep(outputs)
    }

    /// A loop that a counter's comparison with a limit ends, which may be that before the loop, too.
    fn counted(&mut self, x: ValueRef, capture: ValueRef) -> Option<()> {
        let [first, limit] = [3, 6].map(|most| Tensor::scalar(self.pick(most) as i64));
        let (first, limit) = (self.constant(first)?, self.constant(limit)?);
        let begins = match self.pick(2) {
            0 => Some(self.node(Op::Binary(BinaryOp::Less), &[Some(first), Some(limit)], 1)?[0]),
            _ => None,
        };
        let number = ValueInfo::new(DType::I64, [0_i64; 0]);
        let holds = ValueInfo::new(DType::Bool, [0_i64; 0]);
        let inputs = [number.clone(), holds, number.clone(), self.described(x), self.described(capture), number];
        let step = Tensor::scalar(1 + self.pick(2) as i64);
        let prefix = format!("body.{}", self.made());
        let mut builder = Builder::new(prefix.as_str());
        let values: Vec<ValueRef> =
            inputs.into_iter().enumerate().map(|(at, info)| builder.input(format!("{prefix}.x{at}"), info)).collect();
        let &[_, _, counter, x_inside, capture_inside, limit_inside] = values.as_slice() else { return None };
        let step = builder.constant(format!("{prefix}.step"), step).ok()?;
        let binary = |builder: &mut Builder, name: &str, op, a, b| {
            builder.op(format!("{prefix}.{name}"), Op::Binary(op), &[a, b])
        };
        let next = binary(&mut builder, "count", BinaryOp::Add, counter, step).ok()?;
        let goes_on = binary(&mut builder, "less", BinaryOp::Less, next, limit_inside).ok()?;
        let scaled = binary(&mut builder, "scaled", BinaryOp::Mul, x_inside, capture_inside).ok()?;
        for (name, value) in [("go", goes_on), ("i", next), ("y", scaled)] {
            builder.output(format!("{prefix}.{name}"), value);
        }
        let body = Body(Arc::new(builder.finish()));
        let inputs = [None, begins, Some(first), Some(x), Some(capture), Some(limit)];
        let outputs = self.node(Loop { body, carried: 2 }, &inputs, 2)?;
        self.keep(outputs)
    }

    fn described(&self, value: ValueRef) -> ValueInfo {
        let info = self.builder.graph().info(value).unwrap();
        ValueInfo { known: Default::default(), ..info.clone() }
    }

    /// A constant, or what the number of channels says.
    fn condition(&mut self, x: ValueRef) -> Option<ValueRef> {
        if self.pick(2) == 0 {
            let holds = self.pick(2) == 0;
            return self.constant(Tensor::scalar(holds));
        }
        let shape = self.node(ShapeOf { start: 0, end: None }, &[Some(x)], 1)?[0];
        let axis = self.pick(4) as i64;
        let axis = self.constant(Tensor::scalar(axis))?;
        let size = self.node(Gather { axis: 0 }, &[Some(shape), Some(axis)], 1)?[0];
        let six = self.constant(Tensor::scalar(6_i64))?;
        Some(self.node(Op::Binary(BinaryOp::Equal), &[Some(size), Some(six)], 1)?[0])
    }

    /// A body that scales its input `from` by the one after it, and gives its inputs 1 to `outputs`, that one changed.
    fn body(&mut self, inputs: &[ValueInfo], from: usize, outputs: usize) -> Option<Body> {
        let prefix = format!("body.{}", self.made());
        let mut builder = Builder::new(prefix.as_str());
        let values: Vec<ValueRef> = inputs
            .iter()
            .enumerate()
            .map(|(at, info)| builder.input(format!("{prefix}.x{at}"), info.clone()))
            .collect();
        let scaled = builder
            .op(format!("{prefix}.scaled"), Op::Binary(BinaryOp::Mul), &[*values.get(from)?, *values.get(from + 1)?])
            .ok()?;
        let activation = self.one_of(&[Activation::Relu, Activation::Tanh, Activation::Sigmoid]);
        let next = builder.op(format!("{prefix}.next"), Op::Activation(activation), &[scaled]).ok()?;
        for at in 1..outputs {
            builder.output(format!("{prefix}.go{at}"), *values.get(at)?);
        }
        builder.output(format!("{prefix}.y"), next);
        Some(Body(Arc::new(builder.finish())))
    }
}
