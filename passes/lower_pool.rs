//! Writes pooling that the target's layer does not do as sums and maxima of shifted slices.
//!
//! ```text
//! %y = pool(%x) kind=max kernel=[2] strides=[1] dilations=[3] : f32[n, c, 5]
//! ```
//! becomes, for data of 8,
//! ```text
//! %1 = slice(%x) axes=[2] starts=[0] ends=[5] steps=[1] : f32[n, c, 5]
//! %2 = slice(%x) axes=[2] starts=[3] ends=[8] steps=[1] : f32[n, c, 5]
//! %y = max(%1, %2) : f32[n, c, 5]
//! ```
//!
//! Fires on dilations, on the norm of any exponent, on indices as an output, on sizes that round up where they are no
//! numbers or a mean counts padding, and on maxima of integers. Windows are separable: one axis after the other, the
//! last one first. A norm without dilation is a mean of powers, which the layer takes.
//!
//! Refuses: "SAME padding of a size that is not known", "its windows have too many elements to be written out"
//!
//! Order: any.
//!
//! Numerics: sums of 16-bit floats are taken in f32; 1e-6 in f32. A maximum of several negative infinities has the index
//! of one of them, or -1 in the padding.

use trt_fuse_ir::op::{BinaryOp, Expand, Pad, PadMode, Pool, PoolKind, Reduce, ReduceKind, UnaryOp};
use trt_fuse_ir::{DType, Dim, Dims, Graph, Ints, NodeId, Op, OpKind, Padding, Patch, Shape, Tensor, ValueRef};

use crate::formula::{Formula, MAX_CONSTANT};
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerPool;

impl Rule for LowerPool {
    fn name(&self) -> &'static str {
        "lower_pool"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Pool]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let node = graph.node(root).ok_or(Miss::NoMatch)?;
        let Op::Pool(op) = &node.op else { return Err(Miss::NoMatch) };
        let mut f = Formula::new(self.name(), graph, root);
        let dtype = f.info(0)?.dtype;
        let dilated = op.dilations.iter().any(|dilation| *dilation != 1);
        let indexed = node.outputs.len() > 1;
        if !dilated && !indexed && fits_layer(graph, root, op, dtype)? {
            return Err(Miss::NoMatch);
        }
        if op.padding.explicit().is_none() {
            return Err(Miss::Blocked { reason: "SAME padding of a size that is not known", at: root });
        }
        let taps = op.kernel.iter().try_fold(0_i64, |taps, size| taps.checked_add(*size));
        if taps.is_none_or(|taps| taps > MAX_TAPS) {
            return Err(Miss::Blocked { reason: "its windows have too many elements to be written out", at: root });
        }
        let output = graph.info(root.into()).and_then(|info| info.shape.clone()).ok_or(Miss::NoMatch)?;
        let windows = Windows { op, input: f.shape(0)?, output: &output };
        let x = f.input(0)?;
        match op.kind {
            PoolKind::Max if indexed => windows.max_with_index(f, x, dtype),
            PoolKind::Max if !dilated && dtype.is_integer() && dtype.bits() == 8 => {
                // 8-bit integers are exact in f32, and the layer takes that.
                let wide = f.cast(x, DType::F32);
                let y = f.op(Pool::clone(op), &[wide]);
                let y = f.cast(y, dtype);
                Ok(f.result(y))
            }
            PoolKind::Max => {
                let fill = f.constant(lowest(dtype)?);
                let y = windows.combined(&mut f, x, fill, |f, a, b| f.binary(BinaryOp::Max, a, b));
                Ok(f.result(y))
            }
            PoolKind::Lp => windows.norm(f, x, dtype, dilated),
            _ => windows.mean(f, x, dtype),
        }
    }
}

/// Elements of a window along all axes together, each of which is a slice.
const MAX_TAPS: i64 = 1 << 10;

/// Whether the target's layer takes a pooling without dilations and indices.
fn fits_layer(graph: &Graph, root: NodeId, op: &Pool, dtype: DType) -> Result<bool, Miss> {
    let sizes = graph.input(root, 0).and_then(|x| graph.info(x)?.shape.as_ref());
    let fixed = sizes.is_some_and(|sizes| sizes.iter().skip(2).all(|size| size.value().is_some()));
    if op.ceil_mode && !fixed {
        // The padding that the layer needs instead of rounding up follows from the sizes.
        return Ok(false);
    }
    Ok(match op.kind {
        PoolKind::Max => !(dtype.is_integer() && dtype.bits() == 8),
        PoolKind::Average => true,
        PoolKind::AverageIncludePad if op.ceil_mode => {
            let x = graph.input(root, 0).ok_or(Miss::NoMatch)?;
            let fixed = |value| graph.info(value).and_then(|info| info.fixed_dims());
            let (Some((before, after)), Some(from), Some(to)) = (op.padding.explicit(), fixed(x), fixed(root.into()))
            else {
                return Ok(true);
            };
            // A window that reaches beyond the padding counts what is inside of it alone.
            (0..op.kernel.len()).all(|axis| {
                let at = |values: &[i64]| values.get(axis).copied().unwrap_or(0);
                let size = |dims: &Dims| dims.get(axis + 2).map_or(0, |size| *size as i64);
                (size(&to) - 1) * at(&op.strides) + at(&op.kernel) <= size(&from) + at(before) + at(after)
            })
        }
        PoolKind::AverageIncludePad => true,
        _ => false,
    })
}

/// The least value of a type, as rank 0.
fn lowest(dtype: DType) -> Result<Tensor, Miss> {
    let least = match dtype {
        DType::I8 => f64::from(i8::MIN),
        DType::I16 => f64::from(i16::MIN),
        DType::I32 => f64::from(i32::MIN),
        DType::I64 => i64::MIN as f64,
        dtype if dtype.is_unsigned_integer() => 0.0,
        _ => f64::NEG_INFINITY,
    };
    Tensor::number(dtype, least).ok_or(Miss::NoMatch)
}

/// A pooling and the shapes around it.
struct Windows<'a> {
    op: &'a Pool,
    input: &'a Shape,
    output: &'a Shape,
}

impl Windows<'_> {
    /// Joins the elements of each window, by one spatial axis after the other.
    fn combined(
        &self,
        f: &mut Formula<'_>,
        x: ValueRef,
        fill: ValueRef,
        mut join: impl FnMut(&mut Formula<'_>, ValueRef, ValueRef) -> ValueRef,
    ) -> ValueRef {
        (0..self.op.kernel.len()).rev().fold(x, |x, axis| {
            let parts = self.shifted(f, x, fill, axis);
            parts.into_iter().reduce(|a, b| join(f, a, b)).unwrap_or(x)
        })
    }

    /// Element 0, 1, .. of every window along a spatial axis.
    fn shifted(&self, f: &mut Formula<'_>, x: ValueRef, fill: ValueRef, axis: usize) -> Vec<ValueRef> {
        let at = |values: &[i64], default| values.get(axis).copied().unwrap_or(default);
        let (stride, dilation) = (at(&self.op.strides, 1), at(&self.op.dilations, 1));
        let (before, after) = self.op.padding.explicit().map_or((0, 0), |(b, a)| (at(b, 0), at(a, 0)));
        // Where sizes round up, the last window begins at most a stride before the end.
        let after = after + if self.op.ceil_mode { stride - 1 } else { 0 };
        let rank = self.input.len();
        let mut pads = Ints::from_elem(0, 2 * rank);
        for (slot, pad) in [(axis + 2, before), (axis + 2 + rank, after)] {
            if let Some(slot) = pads.get_mut(slot) {
                *slot = pad;
            }
        }
        let x = if before == 0 && after == 0 {
            x
        } else {
            f.pad(Pad { mode: PadMode::Constant, pads: Some(pads) }, x, fill)
        };
        let count = self.output.get(axis + 2).cloned().unwrap_or(Dim::fixed(1));
        let reach = &(&(&count - &Dim::fixed(1)) * &Dim::fixed(stride)) + &Dim::fixed(1);
        (0..at(&self.op.kernel, 1))
            .map(|tap| f.slice(x, axis as i64 + 2, (tap * dilation, &reach + &Dim::fixed(tap * dilation)), stride))
            .collect()
    }

    fn mean(&self, mut f: Formula<'_>, x: ValueRef, dtype: DType) -> Result<Patch, Miss> {
        let (x, wide) = widened(&mut f, x, dtype);
        let zero = f.number(wide, 0.0)?;
        let sum = self.combined(&mut f, x, zero, |f, a, b| f.binary(BinaryOp::Add, a, b));
        let counts = match self.counts(wide)? {
            Some(counts) => f.constant(counts),
            None => self.counted(&mut f, wide)?,
        };
        let y = f.binary(BinaryOp::Div, sum, counts);
        let y = if wide == dtype { y } else { f.cast(y, dtype) };
        Ok(f.result(y))
    }

    /// The number of elements that each window counts, found at run time: along each axis the sums of ones, multiplied.
    fn counted(&self, f: &mut Formula<'_>, dtype: DType) -> Result<ValueRef, Miss> {
        let rank = self.input.len();
        let (zero, one) = (f.number(dtype, 0.0)?, f.number(dtype, 1.0)?);
        let mut op = self.op.clone();
        let pads = match (op.kind, op.padding.explicit()) {
            // The padding counts, and what lies beyond it does not.
            (PoolKind::AverageIncludePad, Some((before, after))) => Some((before.to_vec(), after.to_vec())),
            _ => None,
        };
        if let Some((before, _)) = &pads {
            op.padding = Padding::Explicit(Ints::from_elem(0, 2 * before.len()));
        }
        let windows = Windows { op: &op, ..*self };
        let mut counts = None;
        for axis in 0..op.kernel.len() {
            let size = f.size(0, axis + 2)?;
            let size = f.unsqueeze(size, &[0]);
            let ones = f.op(Expand { shape: None }, &[one, size]);
            let others: Vec<i64> = (0..rank as i64).filter(|at| *at != axis as i64 + 2).collect();
            let mut ones = f.unsqueeze(ones, &others);
            let pad = |(before, after): &(Vec<i64>, Vec<i64>)| Some((*before.get(axis)?, *after.get(axis)?));
            if let Some((before, after)) = pads.as_ref().and_then(pad).filter(|pad| *pad != (0, 0)) {
                let mut pads = Ints::from_elem(0, 2 * rank);
                (pads[axis + 2], pads[axis + 2 + rank]) = (before, after);
                ones = f.pad(Pad { mode: PadMode::Constant, pads: Some(pads) }, ones, one);
            }
            let parts = windows.shifted(f, ones, zero, axis);
            let along = parts.into_iter().reduce(|a, b| f.binary(BinaryOp::Add, a, b)).ok_or(Miss::NoMatch)?;
            counts = Some(match counts {
                None => along,
                Some(counts) => f.binary(BinaryOp::Mul, counts, along),
            });
        }
        // A window of nothing but padding sums to 0, whatever it is divided by.
        f.with_number(BinaryOp::Max, counts.ok_or(Miss::NoMatch)?, dtype, 1.0)
    }

    /// The number of elements that each window counts: one for all, or one a window. `None` where that is not known, or
    /// very many.
    fn counts(&self, dtype: DType) -> Result<Option<Tensor>, Miss> {
        let volume: i64 = self.op.kernel.iter().product();
        let padded = self.op.kind == PoolKind::AverageIncludePad;
        let none = matches!(&self.op.padding, Padding::Explicit(pads) if pads.iter().all(|pad| *pad == 0));
        if !self.op.ceil_mode && (padded || none) {
            return Tensor::number(dtype, volume as f64).map(Some).ok_or(Miss::NoMatch);
        }
        let (before, after) = self.op.padding.explicit().ok_or(Miss::NoMatch)?;
        let mut counts = vec![1_i64];
        let mut dims = Dims::new();
        let windows = Dim::product(self.output.iter().skip(2)).value();
        if windows.is_none_or(|windows| windows > MAX_CONSTANT) {
            return Ok(None);
        }
        for axis in 0..self.op.kernel.len() {
            let at = |values: &[i64]| values.get(axis).copied().unwrap_or(0);
            let size = |shape: &Shape| shape.get(axis + 2).and_then(Dim::value).ok_or(Miss::NoMatch);
            let (input, output) = (size(self.input)?, size(self.output)?);
            let span = if padded { -at(before)..input + at(after) } else { 0..input };
            let along: Vec<i64> = (0..output)
                .map(|window| {
                    let start = window * at(&self.op.strides) - at(before);
                    let taps = (0..at(&self.op.kernel)).map(|tap| start + tap * at(&self.op.dilations));
                    taps.filter(|place| span.contains(place)).count() as i64
                })
                .collect();
            dims.push(along.len());
            counts = counts.iter().flat_map(|count| along.iter().map(move |along| count * along)).collect();
        }
        // A window of nothing but padding sums to 0, whatever it is divided by.
        let counts: Vec<f32> = counts.into_iter().map(|count| count.max(1) as f32).collect();
        if dtype != DType::F32 {
            return Err(Miss::NoMatch);
        }
        Tensor::from_vec(dims, counts).map(Some).map_err(|_| Miss::NoMatch)
    }

    fn norm(&self, mut f: Formula<'_>, x: ValueRef, dtype: DType, dilated: bool) -> Result<Patch, Miss> {
        let p = self.op.p.unwrap_or(2);
        let (x, wide) = widened(&mut f, x, dtype);
        let power = match p {
            1 => f.unary(UnaryOp::Abs, x),
            2 => f.binary(BinaryOp::Mul, x, x),
            p => {
                let size = f.unary(UnaryOp::Abs, x);
                f.with_number(BinaryOp::Pow, size, wide, p as f64)?
            }
        };
        let sum = if dilated || self.op.ceil_mode {
            let zero = f.number(wide, 0.0)?;
            self.combined(&mut f, power, zero, |f, a, b| f.binary(BinaryOp::Add, a, b))
        } else {
            let mean = f.op(Pool { kind: PoolKind::AverageIncludePad, p: None, ..self.op.clone() }, &[power]);
            let volume: i64 = self.op.kernel.iter().product();
            f.with_number(BinaryOp::Mul, mean, wide, volume as f64)?
        };
        let y = match p {
            1 => sum,
            2 => f.unary(UnaryOp::Sqrt, sum),
            p => f.with_number(BinaryOp::Pow, sum, wide, 1.0 / p as f64)?,
        };
        let y = if wide == dtype { y } else { f.cast(y, dtype) };
        Ok(f.result(y))
    }

    /// The numbers of the places in a plane, `[1, 1, sizes..]`, counted by rows or by columns, and how many there are.
    fn numbered(&self, f: &mut Formula<'_>, axes: usize) -> Result<(ValueRef, ValueRef), Miss> {
        let order: Vec<usize> = if self.op.column_major { (0..axes).collect() } else { (0..axes).rev().collect() };
        let mut stride = f.number(DType::I64, 1.0)?;
        let mut index = None;
        for axis in order {
            let places = f.positions(0, axis + 2)?;
            let others: Vec<i64> = (0..axes as i64 + 2).filter(|at| *at != axis as i64 + 2).collect();
            let places = f.unsqueeze(places, &others);
            let places = f.binary(BinaryOp::Mul, places, stride);
            index = Some(match index {
                None => places,
                Some(index) => f.binary(BinaryOp::Add, index, places),
            });
            let size = f.size(0, axis + 2)?;
            stride = f.binary(BinaryOp::Mul, stride, size);
        }
        Ok((index.ok_or(Miss::NoMatch)?, stride))
    }

    /// The first of the largest elements wins: of a row the leftmost, then of the rows the uppermost.
    fn max_with_index(&self, mut f: Formula<'_>, x: ValueRef, dtype: DType) -> Result<Patch, Miss> {
        let (outer, spatial) = self.input.split_at_checked(2).ok_or(Miss::NoMatch)?;
        let (fill, nowhere) = (f.constant(lowest(dtype)?), f.number(DType::I64, -1.0)?);
        let (mut index, plane) = self.numbered(&mut f, spatial.len())?;
        let mut most = x;
        for axis in (0..spatial.len()).rev() {
            let values = self.shifted(&mut f, most, fill, axis);
            let indices = self.shifted(&mut f, index, nowhere, axis);
            let mut pairs = values.into_iter().zip(indices);
            (most, index) = pairs.next().ok_or(Miss::NoMatch)?;
            for (value, place) in pairs {
                let larger = f.binary(BinaryOp::Greater, value, most);
                most = f.binary(BinaryOp::Max, most, value);
                index = f.select(larger, place, index);
            }
        }
        // Each batch and channel has a plane of its own.
        let sizes = f.dims(x);
        let sizes = f.cut(sizes, 0, 2);
        let product = Reduce {
            kind: ReduceKind::Prod,
            axes: Some(Ints::from_slice(&[0])),
            keep_dims: false,
            noop_if_empty: true,
        };
        let rows = f.op(product, &[sizes]);
        let (first, step) = (f.number(DType::I64, 0.0)?, f.number(DType::I64, 1.0)?);
        let rows = f.op(Op::Range, &[first, rows, step]);
        let starts = f.binary(BinaryOp::Mul, rows, plane);
        let ones = std::iter::repeat_n(Dim::fixed(1), spatial.len());
        let starts = f.reshape(starts, outer.iter().cloned().chain(ones).collect());
        let index = f.binary(BinaryOp::Add, index, starts);
        Ok(f.results(&[most, index]))
    }
}

/// The data, in f32 if it is of 16 bits.
fn widened(f: &mut Formula<'_>, x: ValueRef, dtype: DType) -> (ValueRef, DType) {
    match dtype {
        DType::F16 | DType::BF16 => (f.cast(x, DType::F32), DType::F32),
        dtype => (x, dtype),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(input: &str, pool: &str) -> Run {
        run_rule(LowerPool, &format!("graph g(%x: {input}) -> (%y) {{ %y = pool(%x) {pool} }}"))
    }

    #[test]
    fn fires_on_dilations() {
        let run = run("f32[n, 2, w]", "kind=max kernel=[2] strides=[2] dilations=[3] padding=[1, 0]");
        insta::assert_snapshot!(run.equal_within(0.0, 9).after, @"
        graph g(%x: f32[n, 2, w]) -> (%y) {
          %y.lower_pool = constant() value=f32[] {-inf}
          %y.1 = pad(%x, _, %y.lower_pool) mode=constant pads=[0, 0, 1, 0, 0, 0] : f32[n, 2, w+1]
          %y.2 = slice(%y.1) axes=[2] starts=[0] ends=[(2*((w+1)/2)-3)] steps=[2] : f32[n, 2, (min(w+1, max(0, 2*((w+1)/2)-3))+1)/2]
          %y.3 = slice(%y.1) axes=[2] starts=[3] ends=[(2*((w+1)/2))] steps=[2] : f32[n, 2, (max(0, min(w+1, 2*((w+1)/2))-3)+1)/2]
          %y = max(%y.2, %y.3) : f32[n, 2, max((min(w+1, max(0, 2*((w+1)/2)-3))+1)/2, (max(0, min(w+1, 2*((w+1)/2))-3)+1)/2)]
        }
        ");
    }

    #[test]
    fn every_kind_equals_the_operator() {
        for kind in ["max", "average", "average_include_pad", "lp p=1", "lp p=2", "lp p=3"] {
            for more in ["", "ceil_mode=true", "padding=[1, 0, 2, 1]", "padding=[1, 1, 0, 2] ceil_mode=true"] {
                let pool = format!("kind={kind} kernel=[3, 2] strides=[2, 3] dilations=[2, 1] {more}");
                for dtype in ["f32", "f16"] {
                    let tolerance = if dtype == "f32" { 1e-6 } else { 1e-3 };
                    let run = run(&format!("{dtype}[2, 3, 8, 9]"), &pool);
                    assert_eq!(run.equal_within(tolerance, 1).rewrites, 1, "{pool}");
                }
            }
        }
    }

    #[test]
    fn norms_without_dilations_are_means_of_powers() {
        let run = run("f32[1, 2, h, 6]", "kind=lp p=3 kernel=[3, 2] strides=[1, 2] dilations=[1, 1]");
        insta::assert_snapshot!(run.equal_within(1e-6, 5).after, @"
        graph g(%x: f32[1, 2, h, 6]) -> (%y) {
          %y.1 = abs(%x) : f32[1, 2, h, 6]
          %y.lower_pool = constant() value=f32[] {3.0}
          %y.2 = pow(%y.1, %y.lower_pool) : f32[1, 2, h, 6]
          %y.3 = pool(%y.2) kind=average_include_pad kernel=[3, 2] strides=[1, 2] dilations=[1, 1] : f32[1, 2, h-2, 3]
          %y.lower_pool.1 = constant() value=f32[] {6.0}
          %y.4 = mul(%y.3, %y.lower_pool.1) : f32[1, 2, h-2, 3]
          %y.lower_pool.2 = constant() value=f32[] {0.33333334}
          %y = pow(%y.4, %y.lower_pool.2) : f32[1, 2, h-2, 3]
        }
        ");
    }

    #[test]
    fn indices_are_those_of_the_first_largest() {
        let symbolic = "graph g(%x: f32[n, c, 5, 6]) -> (%y, %i) {
            %y, %i = pool(%x) kind=max kernel=[3, 2] strides=[1, 2] dilations=[1, 2] }";
        assert_eq!(run_rule(LowerPool, symbolic).equal_within(0.0, 3).rewrites, 1);
        for more in ["", "column_major=true", "padding=[1, 1, 1, 1]", "padding=[1, 0, 0, 2] ceil_mode=true"] {
            for dtype in ["f32", "i32", "i8"] {
                let text = format!(
                    "graph g(%x: {dtype}[2, 3, 5, 6]) -> (%y, %i) {{
                        %y, %i = pool(%x) kind=max kernel=[3, 2] strides=[1, 2] dilations=[1, 2] {more} }}"
                );
                assert_eq!(run_rule(LowerPool, &text).equal_within(0.0, 1).rewrites, 1, "{more}");
            }
        }
    }

    #[test]
    fn means_that_count_padding_round_up() {
        let pool = "kind=average_include_pad kernel=[3] strides=[2] dilations=[1] padding=[1, 0] ceil_mode=true";
        assert_eq!(run("f32[1, 1, 5]", pool).equal_within(1e-6, 1).rewrites, 1);
    }

    #[test]
    fn maxima_of_bytes_are_taken_as_floats() {
        let run = run("u8[1, 1, 5, 5]", "kind=max kernel=[2, 2] strides=[1, 1] dilations=[1, 1]");
        assert_eq!(run.equal_within(0.0, 1).rewrites, 1);
    }

    #[test]
    fn leaves_the_layers_own_kinds_alone() {
        for kind in ["max", "average", "average_include_pad"] {
            let pool = format!("kind={kind} kernel=[2, 2] strides=[1, 2] dilations=[1, 1] padding=[1, 0, 0, 1]");
            assert_eq!(run("f32[n, 2, h, 6]", &pool).rewrites, 0);
        }
    }

    #[test]
    fn refuses_what_sizes_must_tell() {
        let same = "kind=max kernel=[2] strides=[2] dilations=[3] padding=same_upper";
        assert_eq!(run("f32[1, 2, w]", same).reasons(), ["SAME padding of a size that is not known"]);
    }

    #[test]
    fn counts_windows_of_sizes_of_run_time() {
        for kind in ["average", "average_include_pad", "max", "lp"] {
            for dilation in [1, 2] {
                for ceil in [true, false] {
                    let pool = format!(
                        "kind={kind} kernel=[3, 2] strides=[2, 3] dilations=[{dilation}, 1] padding=[1, 0, 2, 1] \
                         ceil_mode={ceil} p=2"
                    );
                    run("f32[1, 2, h, w]", &pool).equal_within(1e-6, 5);
                }
            }
        }
        let dilated = "kind=average kernel=[3] strides=[1] dilations=[2] padding=[1, 1]";
        assert_eq!(run("f32[1, 2, w]", dilated).rewrites, 1);
        let rounds_up = "kind=average_include_pad kernel=[3] strides=[2] dilations=[1] padding=[1, 1] ceil_mode=true";
        assert_eq!(run("f32[1, 2, w]", rounds_up).rewrites, 1);
    }

    #[test]
    fn refuses_windows_of_very_many_elements() {
        let pool = "kind=max kernel=[100000] strides=[1] dilations=[2]";
        assert_eq!(run("f32[1, 1, 300000]", pool).reasons(), ["its windows have too many elements to be written out"]);
    }

    #[test]
    fn brings_in_no_large_constants() {
        let average = "kind=average kernel=[2, 2] strides=[1, 1] dilations=[2, 2] padding=[1, 1, 1, 1]";
        let averaged = run("f32[1, 1, 9000, 9000]", average);
        let indexed = "graph g(%x: f32[1, 1, 9000, 9000]) -> (%y, %i) {
            %y, %i = pool(%x) kind=max kernel=[2, 2] strides=[1, 1] dilations=[1, 1] padding=[0, 0, 0, 0] }";
        for run in [averaged, run_rule(LowerPool, indexed)] {
            assert_eq!(run.rewrites, 1);
            let sizes = run.after.live().into_iter().filter_map(|id| Some(run.after.constant(id.into())?.numel()));
            assert!(sizes.max().unwrap() <= 9000);
        }
    }
}
