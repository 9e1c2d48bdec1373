//! Merges a reduction of a reduction.
//!
//! ```text
//! %h = reduce(%x) kind=mean axes=[2] keep_dims=true
//! %y = reduce(%h) kind=mean axes=[3] keep_dims=true
//! ```
//! becomes
//! ```text
//! %y = reduce(%x) kind=mean axes=[2, 3] keep_dims=true
//! ```
//!
//! Fires on sum, mean, maximum, minimum and product when both are of the same kind, both keep the reduced axes or both
//! drop them, and their axes are attributes. A mean of means is the mean, as all have equally many elements.
//!
//! Refuses when: the inner reduction has another reader. Means of integers are no match: each cuts its quotient.
//!
//! Order: before `fuse_reduce_reshape`.
//!
//! Numerics: the same sums in another order; outputs within 1e-6 of the largest in f32.

use trt_fuse_ir::op::{Reduce, ReduceKind};
use trt_fuse_ir::{Graph, Ints, NodeId, Op, OpKind, Patch, ValueRef};

use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct MergeReduces;

impl Rule for MergeReduces {
    fn name(&self) -> &'static str {
        "merge_reduces"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Reduce]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let (middle, outer, outer_axes) = reduction(graph, root).ok_or(Miss::NoMatch)?;
        let (x, inner, inner_axes) = reduction(graph, middle.node).ok_or(Miss::NoMatch)?;
        let is_nested = matches!(
            outer.kind,
            ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Max | ReduceKind::Min | ReduceKind::Prod
        );
        if !is_nested || outer.kind != inner.kind || outer.keep_dims != inner.keep_dims {
            return Err(Miss::NoMatch);
        }
        if outer.kind == ReduceKind::Mean && !graph.dtype(root.into()).is_float() {
            return Err(Miss::NoMatch);
        }
        let mut axes: Ints = if inner.keep_dims {
            outer_axes
        } else {
            // The outer axes count what the inner reduction left.
            let rank = graph.info(x).and_then(|info| info.rank()).ok_or(Miss::NoMatch)?;
            let left: Ints = (0..).take(rank).filter(|axis| !inner_axes.contains(axis)).collect();
            let originals = outer_axes.iter().map(|axis| left.get(usize::try_from(*axis).ok()?).copied());
            originals.collect::<Option<_>>().ok_or(Miss::NoMatch)?
        };
        axes.extend(inner_axes);
        axes.sort_unstable();
        axes.dedup();
        let mut patch = Patch::new(self.name(), root);
        let merged = patch.add(Reduce { axes: Some(axes), ..outer.clone() }, &[Some(x)]);
        patch.replace(root.into(), merged).absorb([root, middle.node]);
        Ok(patch)
    }
}

/// What a node reduces, its parameters, and its axes counted from the front.
fn reduction(graph: &Graph, id: NodeId) -> Option<(ValueRef, &Reduce, Ints)> {
    let Op::Reduce(op) = graph.op(id)? else { return None };
    let x = graph.input(id, 0)?;
    let rank = i64::try_from(graph.info(x)?.rank()?).ok()?;
    let axes = op.axes.as_ref().filter(|axes| !axes.is_empty())?;
    Some((x, op, axes.iter().map(|axis| if *axis < 0 { axis + rank } else { *axis }).collect()))
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::Tensor;
    use trt_fuse_ir::eval::eval_graph;

    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(body: &str, outputs: &str) -> Run {
        run_rule(MergeReduces, &format!("graph g(%x: f32[n, 2, 3, 4]) -> ({outputs}) {{ {body} }}"))
    }

    #[test]
    fn fires_when_both_keep_their_axes() {
        let run = run(
            "%h = reduce(%x) kind=mean axes=[-1] keep_dims=true %y = reduce(%h) kind=mean axes=[2] keep_dims=true",
            "%y",
        );
        insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 2, 3, 4]) -> (%y) {
          %y = reduce(%x) kind=mean axes=[2, 3] keep_dims=true : f32[n, 2, 1, 1]
        }
        ");
    }

    /// Axes that stay are counted as before.
    #[test]
    fn fires_on_a_kept_axis_behind_another() {
        let run = run(
            "%h = reduce(%x) kind=sum axes=[1] keep_dims=true %y = reduce(%h) kind=sum axes=[2] keep_dims=true",
            "%y",
        );
        insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 2, 3, 4]) -> (%y) {
          %y = reduce(%x) kind=sum axes=[1, 2] keep_dims=true : f32[n, 1, 1, 4]
        }
        ");
    }

    #[test]
    fn fires_when_both_drop_their_axes() {
        // Axis 1 of what is left is axis 2 of x.
        let run = run("%h = reduce(%x) kind=max axes=[1] %y = reduce(%h) kind=max axes=[1]", "%y");
        insta::assert_snapshot!(run.equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 2, 3, 4]) -> (%y) {
          %y = reduce(%x) kind=max axes=[1, 2] : f32[n, 4]
        }
        ");
    }

    #[test]
    fn refuses_an_inner_value_with_another_reader() {
        let run = run("%h = reduce(%x) kind=sum axes=[1] %y = reduce(%h) kind=sum axes=[1]", "%y, %h");
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["output of `h` also read by `an output of the graph`"]));
    }

    /// The means of the rows are 1 and 2, whose mean is 1; that of all is 2.
    #[test]
    fn leaves_means_of_integers_alone() {
        let text = "graph g(%x: i32[2, 2]) -> (%y) {
            %h = reduce(%x) kind=mean axes=[1] keep_dims=true %y = reduce(%h) kind=mean axes=[0] keep_dims=true }";
        let run = run_rule(MergeReduces, text);
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
        let x = Tensor::from_vec([2, 2], vec![3_i32, 0, 3, 2]).unwrap();
        assert_eq!(eval_graph(&run.after, &[x]).unwrap(), [Tensor::from_vec([1, 1], vec![1_i32]).unwrap()]);
        // Sums of integers add up to the same.
        assert_eq!(run_rule(MergeReduces, &text.replace("mean", "sum")).equal_within(0.0, 1).rewrites, 1);
    }

    #[test]
    fn leaves_other_pairs_alone() {
        for body in [
            "%h = reduce(%x) kind=sum axes=[1] %y = reduce(%h) kind=mean axes=[1]",
            "%h = reduce(%x) kind=l2 axes=[1] %y = reduce(%h) kind=l2 axes=[1]",
            "%h = reduce(%x) kind=sum axes=[1] keep_dims=true %y = reduce(%h) kind=sum axes=[2]",
            "%h = reduce(%x) kind=sum axes=[1] %y = reduce(%h) kind=sum axes=[] noop_if_empty=true",
        ] {
            let run = run(body, "%y");
            assert_eq!((run.rewrites, run.reasons()), (0, vec![]), "{body}");
        }
    }
}
