//! Motifs of transformers: attention, and tensors that are split and laid out anew for it.

use trt_fuse_ir::op::*;
use trt_fuse_ir::{Dim, Op, Tensor, ValueRef};

use super::maker::Maker;

impl Maker {
    /// Attention of an image's rows over themselves, scaled and masked here and there.
    pub(super) fn attention(&mut self, x: ValueRef) -> Option<()> {
        let dims = self.dims(x);
        let rows = usize::try_from(dims[2].value()?).ok()?;
        let (mut query, mut key) = (x, x);
        if self.pick(3) == 0 {
            query = self.with_scalar(BinaryOp::Mul, query, 0.5)?;
        }
        let transpose_b = self.pick(2) == 0;
        if !transpose_b {
            key = self.link(Transpose { perm: [0, 1, 3, 2].into_iter().collect() }, &[key])?;
        }
        let product = |transpose_b| MatMul::new(false, transpose_b);
        let mut scores = self.link(product(transpose_b), &[query, key])?;
        if self.pick(2) == 0 {
            scores = self.with_scalar(BinaryOp::Div, scores, 4.0)?;
        }
        match self.pick(5) {
            0 => {
                let triangle = |at: usize| if at % rows <= at / rows { 0.0 } else { f32::NEG_INFINITY };
                let mask = Tensor::from_vec([rows, rows], (0..rows * rows).map(triangle).collect()).ok()?;
                let mask = self.constant(mask)?;
                scores = self.binary(BinaryOp::Add, scores, mask)?;
            }
            1 => {
                let sees = (0..rows * rows).map(|at| at % rows != 0 || rows == 1).collect();
                let mask = Tensor::from_vec([1, rows, rows], sees).ok()?;
                let (mask, hidden) = (self.constant(mask)?, self.constant(Tensor::scalar(f32::MIN))?);
                // Nothing else reads it: other passes' formulas overflow on such numbers.
                scores = self.node(Op::Where, &[Some(mask), Some(scores), Some(hidden)], 1)?[0];
            }
            2 => {
                let bias = self.link(Op::Unary(UnaryOp::Neg), &[scores])?;
                scores = self.binary(BinaryOp::Add, scores, bias)?;
            }
            _ => {}
        }
        let axis = if self.pick(8) == 0 { 2 } else { 3 };
        let mut weights = self.link(Softmax { axis, log: false }, &[scores])?;
        if self.pick(3) == 0 {
            let test = self.node(Op::Unary(UnaryOp::IsNan), &[Some(weights)], 1)?[0];
            let zero = self.constant(Tensor::scalar(0.0f32))?;
            weights = self.link(Op::Where, &[test, zero, weights])?;
        }
        let y = self.link(product(false), &[weights, x])?;
        self.done(y)
    }

    /// Halves of the channels, each as heads of two.
    pub(super) fn heads(&mut self, x: ValueRef) -> Option<()> {
        let dims = self.dims(x);
        let half = dims[1].exact_div(&Dim::fixed(2))?;
        let heads = half.exact_div(&Dim::fixed(2))?;
        let split = Split { axis: 1, sizes: Some([half.clone(), half].into_iter().collect()) };
        let parts = self.node(split, &[Some(x)], 2)?;
        let shape: trt_fuse_ir::Shape =
            [dims[0].clone(), heads, Dim::fixed(2), dims[2].clone(), dims[3].clone()].into_iter().collect();
        let perm: trt_fuse_ir::Ints =
            if self.pick(2) == 0 { [0, 2, 1, 3, 4] } else { [1, 0, 3, 4, 2] }.into_iter().collect();
        for part in parts {
            let apart = self.link(Reshape { shape: Some(shape.clone()), allow_zero: false }, &[part])?;
            let turned = self.link(Transpose { perm: perm.clone() }, &[apart])?;
            self.done(turned)?;
        }
        Some(())
    }
}
