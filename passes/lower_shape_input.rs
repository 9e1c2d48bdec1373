//! Writes shapes that an input gives at run time in the one form that is emitted.
//!
//! ```text
//! %y = reshape(%x, %shape) : f32[y.d0, y.d1]
//! ```
//! becomes
//! ```text
//! %1 = where(equal(%shape, 0), shape(%x), %shape) : i64[2]
//! %y = reshape(%x, %1) allow_zero=true : f32[y.d0, y.d1]
//! ```
//!
//! Fires on a reshape whose shape is an input and may have zeros that mean the data's own size, on `squeeze` and
//! `unsqueeze` with axes known only at run time, which become such reshapes, and on a slice or pad with such axes, whose
//! numbers are then spread over all axes.
//!
//! Refuses nothing; an unknown rank or number of axes is no match.
//!
//! Order: any.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::op::{BinaryOp, Gather, Pad, Reshape, Slice};
use trt_fuse_ir::{DType, Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::axes::{named_axes, unnamed_dims};
use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerShapeInput;

impl Rule for LowerShapeInput {
    fn name(&self) -> &'static str {
        "lower_shape_input"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Reshape, OpKind::Squeeze, OpKind::Unsqueeze, OpKind::Slice, OpKind::Pad]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let f = Formula::new(self.name(), graph, root);
        match graph.op(root) {
            Some(Op::Slice(_)) => return slice(f),
            Some(Op::Pad(op)) => return pad(f, op),
            _ => {}
        }
        let list = f.info(1)?;
        let count = list.fixed_dims().filter(|dims| dims.len() == 1).ok_or(Miss::NoMatch)?[0];
        if list.known_elements().is_some() {
            return Err(Miss::NoMatch);
        }
        match graph.op(root) {
            Some(Op::Reshape(op)) if op.shape.is_none() && !op.allow_zero => reshape(f, count),
            Some(Op::Squeeze(op)) if op.axes.is_none() => squeeze(f, count),
            Some(Op::Unsqueeze(op)) if op.axes.is_none() => unsqueeze(f, count),
            _ => Err(Miss::NoMatch),
        }
    }
}

fn reshaped(mut f: Formula<'_>, shape: ValueRef) -> Result<Patch, Miss> {
    let x = f.input(0)?;
    let y = f.op(Reshape { shape: None, allow_zero: true }, &[x, shape]);
    Ok(f.result(y))
}

/// A 0 is the data's size of that axis.
fn reshape(mut f: Formula<'_>, count: usize) -> Result<Patch, Miss> {
    let rank = f.shape(0)?.len();
    let (x, shape) = (f.input(0)?, f.input(1)?);
    let dims = f.dims(x);
    let own = if rank >= count {
        f.cut(dims, 0, count as i64)
    } else {
        let ones = f.ints(&vec![1; count - rank]);
        f.concat(&[dims, ones], 0)
    };
    let is_zero = f.with_number(BinaryOp::Equal, shape, DType::I64, 0.0)?;
    let shape = f.select(is_zero, own, shape);
    reshaped(f, shape)
}

fn squeeze(mut f: Formula<'_>, count: usize) -> Result<Patch, Miss> {
    let rank = f.shape(0)?.len();
    if count > rank {
        return Err(Miss::NoMatch);
    }
    let x = f.input(0)?;
    let named = named_axes(&mut f, rank, count)?;
    let dims = f.dims(x);
    let shape = unnamed_dims(&mut f, named, dims, rank, count)?;
    reshaped(f, shape)
}

/// Each size of the output is 1 if its axis is named, else the next of the data's.
fn unsqueeze(mut f: Formula<'_>, count: usize) -> Result<Patch, Miss> {
    let rank = f.shape(0)?.len() + count;
    let x = f.input(0)?;
    let named = named_axes(&mut f, rank, count)?;
    let dims = f.dims(x);
    // A 1 behind the sizes, for the axes that are named after the last of them.
    let one = f.ints(&[1]);
    let dims = f.concat(&[dims, one], 0);
    let mut place = f.ints(&[0]);
    let mut sizes = Vec::new();
    for axis in 0..rank as i64 {
        let is_named = f.cut(named, axis, axis + 1);
        let next = f.op(Gather { axis: 0 }, &[dims, place]);
        sizes.push(f.select(is_named, one, next));
        let step = f.cast(is_named, DType::I64);
        let step = f.binary(BinaryOp::Sub, one, step);
        place = f.binary(BinaryOp::Add, place, step);
    }
    let shape = f.concat(&sizes, 0);
    reshaped(f, shape)
}

/// Each axis has the bounds of the entry that names it, if one does, else all of its elements.
fn slice(mut f: Formula<'_>) -> Result<Patch, Miss> {
    let rank = f.shape(0)?.len();
    let axes = f.info(3)?;
    let count = axes.fixed_dims().filter(|dims| dims.len() == 1).ok_or(Miss::NoMatch)?[0];
    if axes.known_ints().is_some() || count > rank {
        return Err(Miss::NoMatch);
    }
    let mut lists = Vec::new();
    for slot in [1, 2, 3, 4] {
        let Ok(list) = f.input(slot) else { continue };
        lists.push(if f.info(slot)?.dtype == DType::I64 { list } else { f.cast(list, DType::I64) });
    }
    let axes = lists.remove(2);
    let axes = f.with_number(BinaryOp::Mod, axes, DType::I64, rank as f64)?;
    let x = f.input(0)?;
    let dims = f.dims(x);
    let numbers = f.ints(&(0..rank as i64).collect::<Vec<_>>());
    let (zeros, ones) = (f.ints(&vec![0; rank]), f.ints(&vec![1; rank]));
    let mut spread = [zeros, dims, ones];
    for at in 0..count as i64 {
        let axis = f.cut(axes, at, at + 1);
        let is_named = f.binary(BinaryOp::Equal, numbers, axis);
        for (spread, list) in spread.iter_mut().zip(&lists) {
            let bound = f.cut(*list, at, at + 1);
            *spread = f.select(is_named, bound, *spread);
        }
    }
    let [starts, ends, steps] = spread;
    let op = Slice { axes: None, starts: None, ends: None, steps: None };
    let y = f.many(op.into(), &[Some(x), Some(starts), Some(ends), None, Some(steps)], 1);
    Ok(f.results(&y))
}

/// Each axis has the pads of the entry that names it, if one does, else none.
fn pad(mut f: Formula<'_>, op: &Pad) -> Result<Patch, Miss> {
    let rank = f.shape(0)?.len();
    let axes = f.info(3)?;
    let count = axes.fixed_dims().filter(|dims| dims.len() == 1).ok_or(Miss::NoMatch)?[0];
    if axes.known_ints().is_some() || count > rank || op.pads.is_some() {
        return Err(Miss::NoMatch);
    }
    let (x, pads, mut axes) = (f.input(0)?, f.input(1)?, f.input(3)?);
    if f.info(3)?.dtype != DType::I64 {
        axes = f.cast(axes, DType::I64);
    }
    let axes = f.with_number(BinaryOp::Mod, axes, DType::I64, rank as f64)?;
    let numbers = f.ints(&(0..rank as i64).collect::<Vec<_>>());
    let zeros = f.ints(&vec![0; rank]);
    let mut spread = [zeros, zeros];
    for at in 0..count as i64 {
        let axis = f.cut(axes, at, at + 1);
        let is_named = f.binary(BinaryOp::Equal, numbers, axis);
        for (side, spread) in spread.iter_mut().enumerate() {
            let entry = at + (side * count) as i64;
            let number = f.cut(pads, entry, entry + 1);
            *spread = f.select(is_named, number, *spread);
        }
    }
    let pads = f.concat(&spread, 0);
    let y = f.many(op.clone().into(), &[Some(x), Some(pads), f.input(2).ok(), None], 1);
    Ok(f.results(&y))
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::Tensor;
    use trt_fuse_ir::eval::eval_graph;

    use super::*;
    use crate::testing::{random_inputs, run_rule};

    fn check(op: &str, data: &str, list: &[i64]) {
        let count = list.len();
        let run = run_rule(
            LowerShapeInput,
            &format!("graph g(%x: f32{data}, %a: i64[{count}]) -> (%y) {{ %y = {op}(%x, %a) }}"),
        );
        assert_eq!(run.rewrites, 1);
        let mut inputs = random_inputs(&run.before, 3, 7);
        inputs[1] = Tensor::vector(list.to_vec());
        let expected = eval_graph(&run.before, &inputs).unwrap();
        assert_eq!(eval_graph(&run.after, &inputs).unwrap(), expected, "{op} {list:?}\n{}", run.after);
    }

    #[test]
    fn fires_on_shapes_with_zeros() {
        let text = "graph g(%x: f32[2, 3, n], %a: i64[2]) -> (%y) { %y = reshape(%x, %a) }";
        insta::assert_snapshot!(run_rule(LowerShapeInput, text).after, @"
        graph g(%x: f32[2, 3, n], %a: i64[2]) -> (%y) {
          %y.lower_shape_input = constant() value=i64[] {0}
          %y.3 = equal(%a, %y.lower_shape_input) : bool[2]
          %y.1 = shape(%x) start=0 : i64[3]
          %y.2 = slice(%y.1) axes=[0] starts=[0] ends=[2] steps=[1] : i64[2]
          %y.4 = where(%y.3, %y.2, %a) : i64[2]
          %y = reshape(%x, %y.4) allow_zero=true : f32[y.d0, y.d1]
        }
        ");
        check("reshape", "[2, 3, 4]", &[0, -1]);
        check("reshape", "[2, n, 4]", &[2, 0, 2, -1]);
        check("reshape", "[6]", &[0, 1]);
    }

    #[test]
    fn fires_on_axes_of_run_time() {
        check("squeeze", "[2, 1, 3, 1]", &[-1, 1]);
        check("squeeze", "[1, n]", &[0]);
        check("unsqueeze", "[2, n]", &[0]);
        check("unsqueeze", "[2, 3]", &[-1, 1]);
        check("unsqueeze", "[2, 3]", &[0, 3]);
    }

    #[test]
    fn fires_on_a_slice_along_axes_of_run_time() {
        let text = "graph g(%x: f32[4, 5, 6], %s: i64[2], %e: i64[2], %a: i64[2], %t: i64[2]) -> (%y) {
            %y = slice(%x, %s, %e, %a, %t) }";
        let run = run_rule(LowerShapeInput, text);
        assert_eq!(run.rewrites, 1);
        let mut inputs = random_inputs(&run.before, 1, 7);
        for (input, list) in inputs[1..].iter_mut().zip([[1, -1], [4, -7], [-2, 0], [2, -1]]) {
            *input = Tensor::vector(list.map(i64::from).to_vec());
        }
        let expected = eval_graph(&run.before, &inputs).unwrap();
        assert_eq!(eval_graph(&run.after, &inputs).unwrap(), expected, "{}", run.after);
    }

    #[test]
    fn fires_on_a_pad_along_axes_of_run_time() {
        let text = "graph g(%x: f32[4, 5, 6], %p: i64[4], %v: f32[], %a: i64[2]) -> (%y) {
            %y = pad(%x, %p, %v, %a) mode=constant }";
        let run = run_rule(LowerShapeInput, text);
        assert_eq!(run.rewrites, 1);
        let mut inputs = random_inputs(&run.before, 1, 7);
        inputs[1] = Tensor::vector(vec![1_i64, 2, 3, -1]);
        inputs[3] = Tensor::vector(vec![-1_i64, 0]);
        let expected = eval_graph(&run.before, &inputs).unwrap();
        assert_eq!(eval_graph(&run.after, &inputs).unwrap(), expected, "{}", run.after);
    }

    #[test]
    fn leaves_known_lists_alone() {
        for text in [
            "graph g(%x: f32[2, 3], %a: i64[2]) -> (%y) { %y = reshape(%x, %a) allow_zero=true }",
            "graph g(%x: f32[2, n]) -> (%y) { %s = shape(%x) start=0 %y = reshape(%x, %s) }",
            "graph g(%x: f32[2, 3], %a: i64[k]) -> (%y) { %y = unsqueeze(%x, %a) }",
            "graph g(%x: f32[..], %a: i64[2]) -> (%y) { %y = unsqueeze(%x, %a) }",
        ] {
            assert_eq!(run_rule(LowerShapeInput, text).rewrites, 0, "{text}");
        }
    }
}
