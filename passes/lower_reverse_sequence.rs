//! Writes reversed beginnings of sequences as elements taken by index, where the target has no layer for them.
//!
//! ```text
//! %y = reverse_sequence(%x, %n) batch_axis=1 time_axis=0 : f32[t, b]
//! ```
//! becomes, of the places p along time,
//! ```text
//! %m = max(%n, 0) : i64[b]
//! %1 = less(%p, %m) : bool[t, b]
//! %2 = sub(sub(%m, %p), 1) : i64[t, b]
//! %3 = where(%1, %2, %p) : i64[t, b]
//! %y = gather_elements(%x, %3) axis=0 : f32[t, b]
//! ```
//!
//! Fires on `reverse_sequence`.
//!
//! Refuses nothing.
//!
//! Order: any.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{BinaryOp, Expand, GatherElements};
use trt_fuse_ir::{DType, Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerReverseSequence;

impl Rule for LowerReverseSequence {
    fn name(&self) -> &'static str {
        "lower_reverse_sequence"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::ReverseSequence]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::ReverseSequence(op)) = graph.op(root) else { return Err(Miss::NoMatch) };
        if context.capabilities.reverse_sequence {
            return Err(Miss::NoMatch);
        }
        let mut f = Formula::new(self.name(), graph, root);
        let (x, lengths) = (f.input(0)?, f.input(1)?);
        let rank = f.shape(0)?.len();
        let front = |axis| resolve_axis(axis, rank).map_err(|_| Miss::NoMatch);
        let (time, batch) = (front(op.time_axis)?, front(op.batch_axis)?);

        let places = f.positions(0, time)?;
        let places = along(&mut f, places, time, rank);
        let lengths = f.cast(lengths, DType::I64);
        // None is below 0, which tells that no difference leaves 32 bits.
        let lengths = f.with_number(BinaryOp::Max, lengths, DType::I64, 0.0)?;
        let lengths = along(&mut f, lengths, batch, rank);
        let is_reversed = f.binary(BinaryOp::Less, places, lengths);
        let from_end = f.binary(BinaryOp::Sub, lengths, places);
        let from_end = f.with_number(BinaryOp::Sub, from_end, DType::I64, 1.0)?;
        let taken = f.select(is_reversed, from_end, places);
        let dims = f.dims(x);
        let taken = f.op(Expand { shape: None }, &[taken, dims]);
        let y = f.op(GatherElements { axis: time as i64 }, &[x, taken]);
        Ok(f.result(y))
    }
}

/// A vector that lies along an axis of `rank`, in what broadcasts with it.
fn along(f: &mut Formula<'_>, vector: ValueRef, axis: usize, rank: usize) -> ValueRef {
    let behind: Vec<i64> = (1..(rank - axis) as i64).collect();
    if behind.is_empty() { vector } else { f.unsqueeze(vector, &behind) }
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::eval::eval_graph;
    use trt_fuse_ir::{Capabilities, Tensor};

    use super::*;
    use crate::testing::run_for;

    fn lowered(before: &Graph) -> Graph {
        run_for(LowerReverseSequence, before, &Capabilities::tensorrt((8, 5, 3)))
    }

    fn check(rest: &str, stated: &str, shape: &[usize], lengths: Vec<i64>) -> Graph {
        let text = format!("graph g(%x: f32[{stated}], %n: i64[b]) -> (%y) {{ %y = reverse_sequence(%x, %n) {rest} }}");
        let before: Graph = text.parse().unwrap();
        let after = lowered(&before);
        assert_ne!(after.to_string(), before.to_string());
        let elements = (0..shape.iter().product::<usize>()).map(|at| at as f32).collect();
        let inputs = [Tensor::from_vec(shape, elements).unwrap(), Tensor::vector(lengths)];
        assert_eq!(eval_graph(&before, &inputs).unwrap(), eval_graph(&after, &inputs).unwrap(), "{text}");
        after
    }

    #[test]
    fn fires_where_the_target_has_no_layer() {
        let after = check("batch_axis=1 time_axis=0", "4, b", &[4, 3], vec![4, 1, 2]);
        insta::assert_snapshot!(after, @"
        graph g(%x: f32[4, b], %n: i64[b]) -> (%y) {
          %y.lower_reverse_sequence = constant() value=i64[4] {0, 1, 2, 3}
          %y.1 = unsqueeze(%y.lower_reverse_sequence) axes=[1] : i64[4, 1]
          %y.2 = cast(%n) to=i64 saturate=true : i64[b]
          %y.lower_reverse_sequence.1 = constant() value=i64[] {0}
          %y.3 = max(%y.2, %y.lower_reverse_sequence.1) : i64[b]
          %y.4 = less(%y.1, %y.3) : bool[4, b]
          %y.5 = sub(%y.3, %y.1) : i64[4, b]
          %y.lower_reverse_sequence.2 = constant() value=i64[] {1}
          %y.6 = sub(%y.5, %y.lower_reverse_sequence.2) : i64[4, b]
          %y.7 = where(%y.4, %y.6, %y.1) : i64[4, b]
          %y.8 = shape(%x) start=0 : i64[2]
          %y.9 = expand(%y.7, %y.8) : i64[4, b]
          %y = gather_elements(%x, %y.9) axis=0 : f32[4, b]
        }
        ");
        assert_eq!(lowered(&after).to_string(), after.to_string());
    }

    #[test]
    fn axes_and_sizes_may_be_any() {
        check("batch_axis=0 time_axis=1", "b, 4", &[3, 4], vec![0, 3, 4]);
        check("batch_axis=0 time_axis=-1", "b, t", &[2, 5], vec![5, 2]);
        check("batch_axis=1 time_axis=0", "t, b, 2, 2", &[3, 2, 2, 2], vec![2, 3]);
        check("batch_axis=0 time_axis=1", "b, t, 1, 2", &[2, 3, 1, 2], vec![1, 3]);
    }

    #[test]
    fn leaves_it_where_there_is_a_layer() {
        let text = "graph g(%x: f32[4, 3], %n: i64[3]) -> (%y) {
            %y = reverse_sequence(%x, %n) batch_axis=1 time_axis=0
        }";
        let before: Graph = text.parse().unwrap();
        let after = run_for(LowerReverseSequence, &before, &Capabilities::tensorrt((8, 6, 0)));
        assert_eq!(after.to_string(), before.to_string());
    }
}
