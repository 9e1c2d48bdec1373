//! Masks and tables as exporters write them: places counted and compared, constants cut and expanded to sizes.

use trt_fuse_ir::op::*;
use trt_fuse_ir::{DType, Dim, Op, Shape, Tensor, ValueRef};

use super::maker::Maker;

impl Maker {
    /// Places of an axis compared with a bound, and what the comparison selects.
    pub(super) fn masked(&mut self, x: ValueRef) -> Option<()> {
        let axis = self.pick(3);
        let size = self.link(ShapeOf { start: 0, end: None }, &[x])?;
        let at = self.constant(Tensor::scalar(axis as i64))?;
        let size = self.link(Gather { axis: 0 }, &[size, at])?;
        let (zero, one) = (self.constant(Tensor::scalar(0_i64))?, self.constant(Tensor::scalar(1_i64))?);
        let places = self.link(Op::Range, &[zero, size, one])?;
        let mut shape: Shape = (0..4).map(|_| Dim::fixed(1)).collect();
        shape[axis] = self.dims(x)[axis].clone();
        let places = self.link(Reshape { shape: Some(shape), allow_zero: false }, &[places])?;
        let bound = match self.pick(4) {
            0 => size,
            at => self.constant(Tensor::scalar(at as i64 - 2))?,
        };
        let comparisons =
            [BinaryOp::Greater, BinaryOp::GreaterOrEqual, BinaryOp::Less, BinaryOp::LessOrEqual, BinaryOp::Equal];
        let op = self.one_of(&comparisons);
        let (a, b) = if self.pick(2) == 0 { (places, bound) } else { (bound, places) };
        let mut shown = self.link(Op::Binary(op), &[a, b])?;
        if self.pick(2) == 0 {
            let zero = self.constant(Tensor::scalar(0_f32))?;
            let positive = self.link(Op::Binary(BinaryOp::Greater), &[x, zero])?;
            shown = self.binary(BinaryOp::And, shown, positive)?;
        }
        let y = match self.pick(3) {
            0 => {
                let other = self.constant(Tensor::scalar(-0.5_f32))?;
                self.link(Op::Where, &[shown, x, other])?
            }
            1 => {
                let (yes, no) = (self.constant(Tensor::scalar(0_f32))?, self.constant(Tensor::scalar(-3_f32))?);
                let bias = self.link(Op::Where, &[shown, yes, no])?;
                self.binary(BinaryOp::Add, x, bias)?
            }
            _ => {
                let factor = self.link(Cast::new(DType::F32), &[shown])?;
                self.binary(BinaryOp::Mul, x, factor)?
            }
        };
        self.done(y)
    }

    /// A row of a table for each place of the first axis, its number a constant, or a row that is expanded, added.
    pub(super) fn looked_up(&mut self, x: ValueRef) -> Option<()> {
        let dims = self.dims(x);
        let (first, last) = (dims.first()?.clone(), dims.last()?.value()? as usize);
        let row = if self.pick(2) == 0 {
            let table = self.floats(&[3, last])?;
            let index = self.pick(3) as i64;
            let indices = self.constant(Tensor::from_vec([1, 2], vec![index, index]).unwrap())?;
            let slice = Slice {
                axes: Some([1].into_iter().collect()),
                starts: Some([Dim::fixed(0)].into_iter().collect()),
                ends: Some([Dim::fixed(1)].into_iter().collect()),
                steps: Some([1].into_iter().collect()),
            };
            let indices = self.link(slice, &[indices])?;
            let shape = [first, Dim::fixed(1)].into_iter().collect();
            let indices = self.link(Expand { shape: Some(shape) }, &[indices])?;
            self.link(Gather { axis: 0 }, &[table, indices])?
        } else {
            let row = match self.pick(2) {
                0 => self.floats(&[1, last])?,
                _ => self.constant(Tensor::full([1, last], 0.75_f32).unwrap())?,
            };
            let shape = [first, Dim::fixed(1), Dim::fixed(last as i64)].into_iter().collect();
            self.link(Expand { shape: Some(shape) }, &[row])?
        };
        let unary = self.one_of(&[UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Exp]);
        let row = self.link(Op::Unary(unary), &[row])?;
        let axes = Some([1].into_iter().collect());
        let row = self.link(Unsqueeze { axes }, &[row])?;
        let y = self.binary(BinaryOp::Add, x, row)?;
        self.done(y)
    }
}
