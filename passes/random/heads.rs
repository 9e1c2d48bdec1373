//! Motifs of transformers: attention, and tensors that are split and laid out anew for it.

use trt_fuse_ir::op::*;
use trt_fuse_ir::{DType, Dim, Op, Shape, Tensor, ValueRef};

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
        match self.pick(6) {
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
            3 => {
                // A mask of keys that shows all.
                let one = self.constant(Tensor::scalar(1_i64))?;
                let (batch, rows) = (dims[0].clone(), dims[2].clone());
                let keys = [batch.clone(), rows.clone()].into_iter().collect();
                let mask = self.link(Expand { shape: Some(keys) }, &[one])?;
                let mask = self.link(Cast::new(DType::Bool), &[mask])?;
                let shape = [batch, Dim::fixed(1), Dim::fixed(1), rows].into_iter().collect();
                let mask = self.link(Reshape { shape: Some(shape), allow_zero: false }, &[mask])?;
                let (shown, hidden) = (self.constant(Tensor::scalar(0_f32))?, self.constant(Tensor::scalar(-3_f32))?);
                let mask = self.link(Op::Where, &[mask, shown, hidden])?;
                scores = self.binary(BinaryOp::Add, scores, mask)?;
            }
            4 => {
                // A mask of windows, behind an axis of size 1.
                let channels = usize::try_from(dims[1].value()?).ok()?;
                let mask = (0..channels * rows).map(|at| (at % 3) as f32 - 1.0).collect();
                let mask = self.constant(Tensor::from_vec([channels, 1, rows], mask).ok()?)?;
                let shape = self.dims(scores);
                let apart = [Dim::fixed(1)].into_iter().chain(shape.iter().cloned()).collect();
                scores = self.link(Reshape { shape: Some(apart), allow_zero: false }, &[scores])?;
                scores = self.binary(BinaryOp::Add, scores, mask)?;
                scores =
                    self.link(Reshape { shape: Some(shape.into_iter().collect()), allow_zero: false }, &[scores])?;
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
        let shape: Shape =
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

    /// Products of the halves of an image with a matrix each, put together again or not.
    pub(super) fn products_of_parts(&mut self, x: ValueRef) -> Option<()> {
        let dims = self.dims(x);
        let axis = 1 + self.pick(3);
        let half = dims[axis].exact_div(&Dim::fixed(2))?;
        let rows = if axis == 3 { half.value() } else { dims[3].value() };
        let rows = usize::try_from(rows?).ok()?;
        let split = Split { axis: axis as i64, sizes: Some([half.clone(), half].into_iter().collect()) };
        let mut products = Vec::new();
        for (at, part) in self.node(split, &[Some(x)], 2)?.into_iter().enumerate() {
            let weight = (0..rows * 3).map(|element| ((element + at) % 5) as f32 / 4.0 - 0.5).collect();
            let weight = self.constant(Tensor::from_vec([rows, 3], weight).ok()?)?;
            products.push(self.link(MatMul::new(false, false), &[part, weight])?);
        }
        match self.pick(3) {
            0 => self.keep(products),
            1 => {
                let joined = self.link(Concat { axis: 3 }, &products)?;
                self.done(joined)
            }
            _ => {
                products.reverse();
                let joined = self.link(Concat { axis: 1 }, &products)?;
                self.done(joined)
            }
        }
    }

    /// The parts of an image, joined along some axis.
    pub(super) fn joined_parts(&mut self, x: ValueRef) -> Option<()> {
        let dims = self.dims(x);
        let axis = self.pick(4);
        let joined = Concat { axis: self.pick(4) as i64 };
        let mut parts = match dims[axis].value() {
            Some(size @ 1..=4) if self.pick(2) == 0 => {
                let at = (0..size).map(|at| self.constant(Tensor::scalar(at))).collect::<Option<Vec<_>>>()?;
                let gather = Gather { axis: axis as i64 };
                let parts = at.into_iter().map(|at| self.link(gather.clone(), &[x, at]));
                // They have three axes, and an image four.
                let parts = parts.collect::<Option<Vec<_>>>()?;
                let stacked = self.link(Concat { axis: joined.axis.min(2) }, &parts)?;
                let apart: Shape = self.dims(stacked).iter().cloned().chain([Dim::fixed(1)]).collect();
                let y = self.link(Reshape { shape: Some(apart), allow_zero: false }, &[stacked])?;
                return self.done(y);
            }
            _ => {
                let half = dims[axis].exact_div(&Dim::fixed(2))?;
                let sizes = Some([half.clone(), half].into_iter().collect());
                self.node(Split { axis: axis as i64, sizes }, &[Some(x)], 2)?
            }
        };
        if self.pick(4) == 0 {
            parts.reverse();
        }
        let y = self.link(joined, &parts)?;
        self.done(y)
    }

    /// Products of an image's rows with three matrices, each as heads of two.
    pub(super) fn siblings(&mut self, x: ValueRef) -> Option<()> {
        let dims = self.dims(x);
        let rows = usize::try_from(dims[3].value()?).ok()?;
        let epilogue = Epilogue::default();
        let shape: Shape = dims[..3].iter().cloned().chain([Dim::fixed(2), Dim::fixed(2)]).collect();
        for part in 0..3 {
            let weight =
                Tensor::from_vec([rows, 4], (0..rows * 4).map(|at| (at % 7 + part) as f32 / 8.0).collect()).ok()?;
            let weight = self.constant(weight)?;
            let op = MatMul { transpose_a: false, transpose_b: false, epilogue: epilogue.clone() };
            let mut data = x;
            if self.pick(4) == 0 {
                let flat = [Dim::product(&dims[..3]), dims[3].clone()].into_iter().collect();
                data = self.link(Reshape { shape: Some(flat), allow_zero: false }, &[x])?;
            }
            let product = self.link(op, &[data, weight])?;
            let heads = self.link(Reshape { shape: Some(shape.clone()), allow_zero: false }, &[product])?;
            self.done(heads)?;
        }
        Some(())
    }

    /// Attention of two heads over an image's rows, or over those of each channel as a window, whose queries, keys and values
    /// are cut from one product behind a transposition.
    pub(super) fn stacked(&mut self, x: ValueRef) -> Option<()> {
        let dims = self.dims(x);
        let columns = usize::try_from(dims[3].value()?).ok()?;
        let is_windows = self.pick(3) == 0;
        let own = if is_windows { 2 } else { 1 };
        let (batch, rows) = (Dim::product(&dims[..own]), Dim::product(&dims[own..3]));
        let reshape = |shape: [Dim; 3], tail: &[i64]| Reshape {
            shape: Some(shape.into_iter().chain(tail.iter().copied().map(Dim::fixed)).collect()),
            allow_zero: false,
        };
        let flat = self.link(reshape([batch.clone(), rows.clone(), dims[3].clone()], &[]), &[x])?;
        let weight = (0..columns * 12).map(|at| (at % 11) as f32 / 16.0 - 0.3).collect();
        let weight = self.constant(Tensor::from_vec([columns, 12], weight).ok()?)?;
        let product = self.link(MatMul::new(false, false), &[flat, weight])?;
        // The parts' axis before that of the heads, or behind it.
        let (apart, perm) = if self.pick(5) == 0 { ([2, 3, 2], [3, 0, 2, 1, 4]) } else { ([3, 2, 2], [2, 0, 3, 1, 4]) };
        let [first, rest @ ..] = apart;
        let apart = self.link(reshape([batch, rows, Dim::fixed(first)], &rest), &[product])?;
        let stacked = self.link(Transpose { perm: perm.into_iter().collect() }, &[apart])?;
        let mut parts = Vec::new();
        for at in 0..3_i64 {
            let index = self.constant(Tensor::scalar(at))?;
            parts.push(self.link(Gather { axis: 0 }, &[stacked, index])?);
        }
        let keys = self.link(Transpose { perm: [0, 1, 3, 2].into_iter().collect() }, &[parts[1]])?;
        let scores = self.link(MatMul::new(false, false), &[parts[0], keys])?;
        let mut scores = self.with_scalar(BinaryOp::Mul, scores, 0.5)?;
        if is_windows {
            let windows = usize::try_from(dims[1].value()?).ok()?;
            let bias = self.constant(Tensor::from_vec([2, 1, 1], vec![0.5, -0.5]).ok()?)?;
            scores = self.binary(BinaryOp::Add, scores, bias)?;
            let whole: Shape = self.dims(scores).into_iter().collect();
            let apart = dims[..2].iter().chain(&whole[1..]).cloned().collect();
            let mask = Tensor::from_vec([windows, 1, 1, 1], (0..windows).map(|at| at as f32).collect()).ok()?;
            let mask = self.constant(mask)?;
            let apart = self.link(Reshape { shape: Some(apart), allow_zero: false }, &[scores])?;
            let masked = self.binary(BinaryOp::Add, apart, mask)?;
            scores = self.link(Reshape { shape: Some(whole), allow_zero: false }, &[masked])?;
        }
        let weights = self.link(Softmax { axis: 3, log: false }, &[scores])?;
        let y = self.link(MatMul::new(false, false), &[weights, parts[2]])?;
        self.done(y)
    }

    /// An image whose rows of six are rotated, or nearly.
    pub(super) fn rotary(&mut self, x: ValueRef) -> Option<()> {
        let dims = self.dims(x);
        let (rows, size) = (usize::try_from(dims[2].value()?).ok()?, dims[3].value()?);
        let half = size / 2;
        let width = usize::try_from(size).ok()?;
        if size != 6 {
            return None;
        }
        let cut = |start: i64, end: i64| Slice {
            axes: Some([3].into_iter().collect()),
            starts: Some([Dim::fixed(start)].into_iter().collect()),
            ends: Some([Dim::fixed(end)].into_iter().collect()),
            steps: Some([1].into_iter().collect()),
        };
        let second = self.link(cut(half, size), &[x])?;
        let period = if self.pick(2) == 0 { 3 } else { 5 };
        let negative = match self.pick(4) {
            0 => second,
            _ => self.link(Op::Unary(UnaryOp::Neg), &[second])?,
        };
        let first = self.link(cut(0, half), &[x])?;
        let turned = self.link(Concat { axis: 3 }, &[negative, first])?;
        let mut terms = Vec::new();
        for (value, shift) in [(x, 0.0f32), (turned, 1.0)] {
            let table =
                (0..rows * width).map(|at| ((at / width * 3 + at % width % period) as f32 + shift).cos()).collect();
            let table = self.constant(Tensor::from_vec([1, 1, rows, width], table).ok()?)?;
            terms.push(self.binary(BinaryOp::Mul, value, table)?);
        }
        let y = self.binary(BinaryOp::Add, terms[0], terms[1])?;
        self.done(y)
    }

    /// An image whose first four columns are rotated, as pairs of neighbours or as halves, with the rest behind, or not.
    pub(super) fn rotary_part(&mut self, x: ValueRef) -> Option<()> {
        let dims = self.dims(x);
        let (heads, rows) = (usize::try_from(dims[1].value()?).ok()?, usize::try_from(dims[2].value()?).ok()?);
        let size = dims[3].value().filter(|size| *size >= 4)?;
        let cut = |start: i64, end: i64, step: i64| Slice {
            axes: Some([3].into_iter().collect()),
            starts: Some([Dim::fixed(start)].into_iter().collect()),
            ends: Some([Dim::fixed(end)].into_iter().collect()),
            steps: Some([step].into_iter().collect()),
        };
        let interleaved = self.pick(2) == 0;
        let (first, second) = if interleaved { (cut(0, 4, 2), cut(1, 4, 2)) } else { (cut(0, 2, 1), cut(2, 4, 1)) };
        let (first, second) = (self.link(first, &[x])?, self.link(second, &[x])?);
        let dims_of_tables = if self.pick(3) == 0 { [1, heads, 1, 2] } else { [1, 1, rows, 2] };
        let mut tables = Vec::new();
        for shift in [0.0f32, 1.0] {
            let numbers =
                (0..dims_of_tables.iter().product::<usize>()).map(|at| (at as f32 * 0.7 + shift).cos()).collect();
            tables.push(self.constant(Tensor::from_vec(dims_of_tables, numbers).ok()?)?);
        }
        let mut product = |a, b| self.binary(BinaryOp::Mul, a, b);
        let (a, b) = (product(first, tables[0])?, product(second, tables[1])?);
        let (c, d) = (product(first, tables[1])?, product(second, tables[0])?);
        let (p, q) = (self.link(Op::Binary(BinaryOp::Sub), &[a, b])?, self.binary(BinaryOp::Add, c, d)?);
        let mut rotated = if interleaved {
            let column: Shape = dims[..3].iter().cloned().chain([Dim::fixed(2), Dim::fixed(1)]).collect();
            let column = Reshape { shape: Some(column), allow_zero: false };
            let (p, q) = (self.link(column.clone(), &[p])?, self.link(column, &[q])?);
            let pairs = self.link(Concat { axis: 4 }, &[p, q])?;
            let flat = dims[..3].iter().cloned().chain([Dim::fixed(4)]).collect();
            self.link(Reshape { shape: Some(flat), allow_zero: false }, &[pairs])?
        } else {
            self.link(Concat { axis: 3 }, &[p, q])?
        };
        if size > 4 && self.pick(2) == 0 {
            let rest = self.link(cut(4, size, 1), &[x])?;
            rotated = self.link(Concat { axis: 3 }, &[rotated, rest])?;
        }
        self.done(rotated)
    }

    /// Neighbouring rows of an image, and a row that is widened before it is added.
    pub(super) fn picked(&mut self, x: ValueRef) -> Option<()> {
        let dims = self.dims(x);
        let rows = dims[2].value()?;
        let start = self.pick(2) as i64;
        let indices = self.constant(Tensor::vector((start..rows).collect::<Vec<i64>>()))?;
        let some = self.link(Gather { axis: 2 }, &[x, indices])?;
        let first = Slice {
            axes: Some([2].into_iter().collect()),
            starts: Some([Dim::fixed(0)].into_iter().collect()),
            ends: Some([Dim::fixed(1)].into_iter().collect()),
            steps: Some([1].into_iter().collect()),
        };
        let row = self.link(first, &[x])?;
        let shape = [dims[0].clone(), dims[1].clone(), Dim::fixed(rows - start), dims[3].clone()].into_iter().collect();
        let wide = self.link(Expand { shape: Some(shape) }, &[row])?;
        let y = self.binary(BinaryOp::Add, some, wide)?;
        self.done(y)
    }
}
