//! Makes a reduction of a pooling whose one window is the whole of the spatial axes.
//!
//! ```text
//! %y = pool(%x) kind=average kernel=[7, 7] .. : f32[n, 512, 1, 1]
//! ```
//! becomes, for a 7 by 7 input,
//! ```text
//! %y = reduce(%x) kind=mean axes=[2, 3] keep_dims=true : f32[n, 512, 1, 1]
//! ```
//!
//! Fires on average and maximum pooling without dilation when the spatial sizes are known numbers. The window may reach
//! into padding, unless the average counts it.
//!
//! Refuses nothing: a smaller window, or an output of indices, is no match.
//!
//! Order: after `fuse_pad`; before `fuse_reduce_reshape`.
//!
//! Numerics: the same sums, perhaps in another order; outputs within 1e-6 of the largest in f32.

use trt_fuse_ir::op::{PoolKind, Reduce, ReduceKind};
use trt_fuse_ir::{Dim, Graph, Ints, NodeId, Op, OpKind, Patch};

use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseGlobalPool;

impl Rule for FuseGlobalPool {
    fn name(&self) -> &'static str {
        "fuse_global_pool"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Pool]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Pool(op)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let kind = match op.kind {
            PoolKind::Average | PoolKind::AverageIncludePad => ReduceKind::Mean,
            PoolKind::Max => ReduceKind::Max,
            _ => return Err(Miss::NoMatch),
        };
        let x = graph.input(root, 0).ok_or(Miss::NoMatch)?;
        let shape = graph.info(x).and_then(|info| info.shape.as_ref()).ok_or(Miss::NoMatch)?;
        let spatial = shape.get(2..).ok_or(Miss::NoMatch)?;
        let output = graph.info(root.into()).and_then(|info| info.shape.as_ref()?.get(2..)).ok_or(Miss::NoMatch)?;
        let (before, after) = op.padding.explicit().ok_or(Miss::NoMatch)?;
        // What a window has beyond the input is padding, which matters only to an average that counts it.
        let counts = op.kind == PoolKind::AverageIncludePad;
        let covers = |((size, side), before): ((&Dim, &i64), &i64)| match size.value() {
            Some(size) if counts => size == *side,
            Some(size) => (1..=side.saturating_sub(*before)).contains(&size),
            None => false,
        };
        let covers_all = output.iter().all(|size| size.is(1))
            && spatial.len() == op.kernel.len()
            && spatial.iter().zip(&op.kernel).zip(before).all(covers);
        let is_plain = (!counts || before.iter().chain(after).all(|pad| *pad == 0))
            && op.dilations.iter().all(|dilation| *dilation == 1)
            && graph.node(root).is_some_and(|node| node.outputs.len() == 1);
        if !covers_all || !is_plain {
            return Err(Miss::NoMatch);
        }
        let axes: Ints = (2..).take(spatial.len()).collect();
        let mut patch = Patch::new(self.name(), root);
        let reduce = Reduce { kind, axes: Some(axes), keep_dims: true, noop_if_empty: false };
        let fused = patch.add(reduce, &[Some(x)]);
        patch.replace(root.into(), fused).absorb([root]);
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(input: &str, pool: &str) -> Run {
        run_rule(FuseGlobalPool, &format!("graph g(%x: f32{input}) -> (%y) {{ %y = pool(%x) {pool} }}"))
    }

    #[test]
    fn fires_on_average() {
        let run = run("[n, 2, 7, 5]", "kind=average kernel=[7, 5] strides=[1, 1] dilations=[1, 1]");
        insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 2, 7, 5]) -> (%y) {
          %y = reduce(%x) kind=mean axes=[2, 3] keep_dims=true : f32[n, 2, 1, 1]
        }
        ");
    }

    #[test]
    fn fires_on_maximum() {
        let run = run("[1, 2, 7]", "kind=max kernel=[7] strides=[2] dilations=[1] ceil_mode=true");
        insta::assert_snapshot!(run.equal_within(0.0, 1).after, @"
        graph g(%x: f32[1, 2, 7]) -> (%y) {
          %y = reduce(%x) kind=max axes=[2] keep_dims=true : f32[1, 2, 1]
        }
        ");
    }

    #[test]
    fn fires_on_windows_that_reach_into_padding() {
        // Of 6 by 6 elements, as Caffe pads them for 7 by 7; of 3, one before and two after.
        for (input, pool) in [
            ("[1, 2, 6, 6]", "kind=average kernel=[7, 7] strides=[1, 1] dilations=[1, 1] padding=[0, 0, 1, 1]"),
            ("[1, 2, 3]", "kind=average kernel=[6] strides=[1] dilations=[1] padding=[1, 2]"),
            ("[1, 2, 3]", "kind=max kernel=[6] strides=[4] dilations=[1] padding=[1, 2]"),
        ] {
            let run = run(input, pool);
            assert_eq!(run.rewrites, 1, "{pool}");
            run.equal_within(1e-6, 1);
        }
    }

    #[test]
    fn leaves_other_windows_alone() {
        for (input, pool) in [
            // The last element is outside, the padding counts, there are two windows.
            ("[1, 2, 3]", "kind=average kernel=[3] strides=[2] dilations=[1] padding=[1, 0]"),
            ("[1, 2, 6]", "kind=average_include_pad kernel=[7] strides=[1] dilations=[1] padding=[0, 1]"),
            ("[1, 2, 6]", "kind=average kernel=[7] strides=[1] dilations=[1] padding=[1, 1]"),
            ("[1, 2, 7, 7]", "kind=average kernel=[7, 6] strides=[1, 1] dilations=[1, 1]"),
            ("[1, 2, h, 7]", "kind=average kernel=[7, 7] strides=[1, 1] dilations=[1, 1]"),
            ("[1, 2, 7]", "kind=average kernel=[7] strides=[1] dilations=[1] padding=[1, 1]"),
            ("[1, 2, 7]", "kind=average kernel=[7] strides=[7] dilations=[1] padding=same_upper"),
            ("[1, 2, 7]", "kind=lp kernel=[7] strides=[1] dilations=[1] p=2"),
            // Every other element alone is in the window.
            ("[1, 2, 3]", "kind=max kernel=[4] strides=[1] dilations=[2] padding=[0, 4]"),
        ] {
            let run = run(input, pool);
            assert_eq!((run.rewrites, run.reasons()), (0, vec![]), "{pool}");
        }
    }

    #[test]
    fn leaves_indices_alone() {
        let text =
            "graph g(%x: f32[1, 2, 7]) -> (%y, %i) { %y, %i = pool(%x) kind=max kernel=[7] strides=[1] dilations=[1] }";
        let run = run_rule(FuseGlobalPool, text);
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
    }
}
