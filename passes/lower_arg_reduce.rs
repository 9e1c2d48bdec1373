//! Finds the last of equal extrema as the first from the end, and those of integers where the target's top-k takes none.
//!
//! ```text
//! %y = arg_reduce(%x) largest=true axis=1 keep_dims=true select_last=true : i64[n, 1]
//! ```
//! becomes, for an axis of 5,
//! ```text
//! %1 = slice(%x) axes=[1] starts=[4] ends=[-1] steps=[-1] : f32[n, 5]
//! %2 = arg_reduce(%1) largest=true axis=1 keep_dims=true : i64[n, 1]
//! %y = sub(4, %2) : i64[n, 1]
//! ```
//!
//! and, of integers,
//! ```text
//! %1 = reduce(%x) kind=max axes=[1] keep_dims=true : i32[n, 1]
//! %2 = equal(%x, %1) : bool[n, 5]
//! %3 = where(%2, [0, 1, 2, 3, 4], 2147483647) : i64[n, 5]
//! %y = reduce(%3) kind=min axes=[1] keep_dims=true : i64[n, 1]
//! ```
//!
//! Fires on every `arg_reduce` with `select_last`, TensorRT's top-k having no such choice. On integers it fires for TensorRT
//! before 10; as f32 those beyond 2^24 would be one number. The rest stays a top-k, which is not said to find the first of
//! equal elements: on TensorRT 8.5 it did in ONNX's tests of ArgMax and ArgMin, and did not among three numbers of 0 and 1.
//!
//! Refuses nothing; the last along an axis of a size that is no number is no match.
//!
//! Order: any.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{ArgReduce, BinaryOp, Reduce, ReduceKind, Slice};
use trt_fuse_ir::{DType, Dim, Graph, Ints, NodeId, Op, OpKind, Patch, Shape};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerArgReduce;

impl Rule for LowerArgReduce {
    fn name(&self) -> &'static str {
        "lower_arg_reduce"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::ArgReduce]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::ArgReduce(op)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let f = Formula::new(self.name(), graph, root);
        if op.select_last {
            from_the_end(f, op)
        } else if f.info(0)?.dtype.is_integer() && !context.capabilities.top_k_integers {
            of_integers(f, op)
        } else {
            Err(Miss::NoMatch)
        }
    }
}

fn from_the_end(mut f: Formula<'_>, op: &ArgReduce) -> Result<Patch, Miss> {
    let shape = f.shape(0)?;
    let axis = resolve_axis(op.axis, shape.len()).map_err(|_| Miss::NoMatch)?;
    let last = shape.get(axis).and_then(Dim::value).ok_or(Miss::NoMatch)? - 1;
    let bound = |value: i64| Some(Shape::from_iter([Dim::fixed(value)]));
    let one = |value: i64| Some(Ints::from_slice(&[value]));
    let flip = Slice { axes: one(axis as i64), starts: bound(last), ends: bound(-1), steps: one(-1) };
    let x = f.input(0)?;
    let flipped = f.op(flip, &[x]);
    let from_end = f.op(ArgReduce { select_last: false, ..op.clone() }, &[flipped]);
    let last = f.number(DType::I64, last as f64)?;
    let y = f.binary(BinaryOp::Sub, last, from_end);
    Ok(f.result(y))
}

/// The first place that has the extremum, by number: of equal elements, top-k may find any.
fn of_integers(mut f: Formula<'_>, op: &ArgReduce) -> Result<Patch, Miss> {
    let rank = f.shape(0)?.len();
    let axis = resolve_axis(op.axis, rank).map_err(|_| Miss::NoMatch)?;
    let x = f.input(0)?;
    let kind = if op.largest { ReduceKind::Max } else { ReduceKind::Min };
    let extremum = f.reduce(kind, x, &[axis as i64]);
    let is_extreme = f.binary(BinaryOp::Equal, x, extremum);
    let mut places = f.positions(0, axis)?;
    let behind: Vec<i64> = (1..(rank - axis) as i64).collect();
    if !behind.is_empty() {
        places = f.unsqueeze(places, &behind);
    }
    let none = f.number(DType::I64, f64::from(i32::MAX))?;
    let place = f.select(is_extreme, places, none);
    let axes = Some(Ints::from_slice(&[axis as i64]));
    let first = Reduce { kind: ReduceKind::Min, axes, keep_dims: op.keep_dims, noop_if_empty: true };
    let y = f.op(first, &[place]);
    Ok(f.result(y))
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::eval::eval_graph;
    use trt_fuse_ir::{Capabilities, Tensor};

    use super::*;
    use crate::testing::{run_for, run_rule};

    #[test]
    fn fires() {
        let text = "graph g(%x: f32[2, 5]) -> (%y) {
            %y = arg_reduce(%x) largest=true axis=-1 keep_dims=false select_last=true }";
        let run = run_rule(LowerArgReduce, text);
        insta::assert_snapshot!(run.equal_within(0.0, 1).after, @"
        graph g(%x: f32[2, 5]) -> (%y) {
          %y.lower_arg_reduce = constant() value=i64[] {4}
          %y.1 = slice(%x) axes=[1] starts=[4] ends=[-1] steps=[-1] : f32[2, 5]
          %y.2 = arg_reduce(%y.1) largest=true axis=-1 : i64[2]
          %y = sub(%y.lower_arg_reduce, %y.2) : i64[2]
        }
        ");
        let x = Tensor::from_vec([2, 5], vec![1_f32, 3.0, 3.0, 3.0, 0.0, 2.0, 2.0, 2.0, 2.0, 2.0]).unwrap();
        assert_eq!(eval_graph(&run.after, &[x]).unwrap(), [Tensor::vector(vec![3_i64, 4])]);
    }

    #[test]
    fn fires_on_integers_for_targets_whose_top_k_takes_none() {
        let text = "graph g(%x: i32[n, 3]) -> (%y) {
            %y = arg_reduce(%x) largest=false axis=1 keep_dims=true select_last=false }";
        let before: Graph = text.parse().unwrap();
        let after = run_for(LowerArgReduce, &before, &Capabilities::tensorrt((8, 6, 1)));
        insta::assert_snapshot!(after, @"
        graph g(%x: i32[n, 3]) -> (%y) {
          %y.1 = reduce(%x) kind=min axes=[1] keep_dims=true noop_if_empty=true : i32[n, 1]
          %y.2 = equal(%x, %y.1) : bool[n, 3]
          %y.lower_arg_reduce = constant() value=i64[3] {0, 1, 2}
          %y.lower_arg_reduce.1 = constant() value=i64[] {2147483647}
          %y.3 = where(%y.2, %y.lower_arg_reduce, %y.lower_arg_reduce.1) : i64[n, 3]
          %y = reduce(%y.3) kind=min axes=[1] keep_dims=true noop_if_empty=true : i64[n, 1]
        }
        ");
        // As f32 the first two were equal.
        let x = Tensor::from_vec([2, 3], vec![16_777_217, 16_777_216, 16_777_216, -1, -2, -3]).unwrap();
        let y = Tensor::from_vec([2, 1], vec![1_i64, 2]).unwrap();
        assert_eq!(eval_graph(&after, &[x]).unwrap(), [y]);
        assert_eq!(
            run_for(LowerArgReduce, &before, &Capabilities::tensorrt((10, 0, 0))).to_string(),
            before.to_string()
        );
    }

    #[test]
    fn fires_on_integers_along_an_axis_in_front_and_takes_the_first_of_equal_ones() {
        let text = "graph g(%x: i32[m, 2]) -> (%y) {
            %y = arg_reduce(%x) largest=true axis=-2 keep_dims=false select_last=false }";
        let before: Graph = text.parse().unwrap();
        let after = run_for(LowerArgReduce, &before, &Capabilities::tensorrt((8, 6, 1)));
        assert!(!after.to_string().contains("arg_reduce("), "{after}");
        let x = Tensor::from_vec([3, 2], vec![1, 5, 7, 5, 7, 2]).unwrap();
        assert_eq!(eval_graph(&after, &[x]).unwrap(), [Tensor::vector(vec![1_i64, 0])]);
    }

    #[test]
    fn leaves_the_first_alone() {
        let text = "graph g(%x: f32[2, 5]) -> (%y) {
            %y = arg_reduce(%x) largest=true axis=1 keep_dims=false select_last=false }";
        assert_eq!(run_rule(LowerArgReduce, text).rewrites, 0);
    }

    #[test]
    fn leaves_an_axis_of_run_time_alone() {
        let text = "graph g(%x: f32[2, n]) -> (%y) {
            %y = arg_reduce(%x) largest=true axis=1 keep_dims=false select_last=true }";
        let run = run_rule(LowerArgReduce, text);
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
    }
}
