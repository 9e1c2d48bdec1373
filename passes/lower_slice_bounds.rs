//! Brings the bounds of slices into the integers that the target counts in.
//!
//! ```text
//! %s = constant() value=i64[1] {-1}
//! %e = constant() value=i64[1] {-9223372036854775807}
//! %y = slice(%x, %s, %e, %axes, %s)
//! ```
//! becomes, where i64 is computed as i32,
//! ```text
//! %1 = constant() value=i64[1] {-2147483647}
//! %y = slice(%x, %s, %1, %axes, %s)
//! ```
//!
//! Fires on starts, ends and steps that are constants, one of which is beyond i32: exporters write the ends of i64 for those of
//! an axis, and no axis is longer than i32 tells. Where a slice's bounds are attributes, they lie within the axis already.
//!
//! Refuses nothing; bounds known only at run time, and a target that has i64, are no match.
//!
//! Order: any.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::{DType, Graph, NodeId, Op, OpKind, Patch, Tensor};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerSliceBounds;

/// The input slots of starts, ends and steps.
const BOUNDS: [usize; 3] = [1, 2, 4];
const FAR: i64 = i32::MAX as i64;

impl Rule for LowerSliceBounds {
    fn name(&self) -> &'static str {
        "lower_slice_bounds"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Slice]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Slice(op)) = graph.op(root) else { return Err(Miss::NoMatch) };
        if op.starts.is_some() || context.capabilities.dtypes.contains(&DType::I64) {
            return Err(Miss::NoMatch);
        }
        let mut f = Formula::new(self.name(), graph, root);
        let mut inputs = graph.node_inputs(root);
        let mut is_far = false;
        for slot in BOUNDS {
            let Some(input) = inputs.get_mut(slot) else { continue };
            let Some(bounds) = f.constant_input(slot).and_then(Tensor::to_i64s) else { continue };
            if bounds.iter().any(|bound| !(-FAR..=FAR).contains(bound)) {
                let near: Vec<i64> = bounds.iter().map(|bound| (*bound).clamp(-FAR, FAR)).collect();
                *input = Some(f.ints(&near));
                is_far = true;
            }
        }
        if !is_far {
            return Err(Miss::NoMatch);
        }
        let y = f.many(Op::Slice(op.clone()), &inputs, 1);
        Ok(f.results(&y))
    }
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::Capabilities;
    use trt_fuse_ir::eval::eval_graph;

    use super::*;
    use crate::testing::{random_inputs, run_for};

    const OLD: (u32, u32, u32) = (8, 5, 3);

    #[test]
    fn fires() {
        let text = "graph g(%x: f32[2, n]) -> (%y, %z) {
            %a = constant() value=i64[1] {1}
            %s = constant() value=i64[1] {-1}
            %e = constant() value=i64[1] {-9223372036854775807}
            %y = slice(%x, %s, %e, %a, %s)
            %f = constant() value=i64[2] {0, 1}
            %g = constant() value=i64[2] {1, 9223372036854775807}
            %z = slice(%x, %f, %g)
        }";
        let before: Graph = text.parse().unwrap();
        let after = run_for(LowerSliceBounds, &before, &Capabilities::tensorrt(OLD));
        insta::assert_snapshot!(after, @"
        graph g(%x: f32[2, n]) -> (%y, %z) {
          %s = constant() value=i64[1] {-1}
          %y.lower_slice_bounds = constant() value=i64[1] {-2147483647}
          %a = constant() value=i64[1] {1}
          %y = slice(%x, %s, %y.lower_slice_bounds, %a, %s) : f32[2, n]
          %f = constant() value=i64[2] {0, 1}
          %z.lower_slice_bounds = constant() value=i64[2] {1, 2147483647}
          %z = slice(%x, %f, %z.lower_slice_bounds) : f32[1, max(0, n-1)]
        }
        ");
        for seed in 1..4 {
            let inputs = random_inputs(&before, 3, seed);
            assert_eq!(eval_graph(&before, &inputs).unwrap(), eval_graph(&after, &inputs).unwrap());
        }
        assert_eq!(run_for(LowerSliceBounds, &after, &Capabilities::tensorrt(OLD)).to_string(), after.to_string());
    }

    #[test]
    fn leaves_alone_what_the_target_counts_in_and_what_is_near() {
        let far = "graph g(%x: f32[n], %s: i64[1]) -> (%y) {
            %e = constant() value=i64[1] {9223372036854775807} %y = slice(%x, %s, %e) }";
        let near = "graph g(%x: f32[n], %s: i64[1]) -> (%y) {
            %e = constant() value=i64[1] {2147483647} %y = slice(%x, %s, %e) }";
        for (text, version) in [(far, (10, 3, 0)), (near, OLD)] {
            let before: Graph = text.parse().unwrap();
            let after = run_for(LowerSliceBounds, &before, &Capabilities::tensorrt(version));
            assert_eq!(after.to_string(), before.to_string());
        }
    }
}
