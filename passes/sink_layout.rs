//! Moves reshapes and transposes of a product's rows behind the product.
//!
//! ```text
//! %1 = reshape(%x) shape=[64, 768]            %1 = matmul(%x, %w) : f32[1, 64, 2304]
//! %2 = matmul(%1, %w) : f32[64, 2304]         %2 = reshape(%1) shape=[64, 2304]
//! %y = reshape(%2) shape=[1, 64, 3, 768]      %y = reshape(%2) shape=[1, 64, 3, 768]
//! ```
//!
//! Fires on a product with a matrix whose one reader is a reshape or transpose, so that the two meet and merge. What brings
//! the summed elements together stays in front.
//!
//! Refuses when: an operand of the epilogue has rows; something else reads the reshape or transpose in front.
//!
//! Order: before `merge_layouts`, which merges what meets.
//!
//! Numerics: bit-exact but for the product's own order of sums.

use trt_fuse_ir::op::MatMul;
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch};

use crate::layout::{Layout, Step, is_told};
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct SinkLayout;

/// Nodes in front of the product that are looked at together.
const LONGEST: usize = 4;

impl Rule for SinkLayout {
    fn name(&self) -> &'static str {
        "sink_layout"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::MatMul]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::MatMul(op @ MatMul { transpose_a: false, .. })) = graph.op(root) else {
            return Err(Miss::NoMatch);
        };
        let reader = graph.sole_consumer(root.into()).ok_or(Miss::NoMatch)?;
        let mut inputs = graph.node_inputs(root);
        let [Some(data), Some(matrix), epilogue @ ..] = inputs.as_slice() else { return Err(Miss::NoMatch) };
        let rank = |value| graph.info(value).and_then(|info| info.rank());
        if Step::of(graph, reader.node).is_none() || rank(*matrix) != Some(2) {
            return Err(Miss::NoMatch);
        }
        let (mut x, mut chain) = (*data, Vec::new());
        // A product of what is moved with itself.
        if epilogue.iter().flatten().chain([matrix]).any(|other| other.node == data.node) {
            return Err(Miss::NoMatch);
        }
        while let (Some(step), Some(data), true) =
            (Step::of(graph, x.node), graph.input(x.node, 0), chain.len() < LONGEST)
        {
            // What else is read stays, and ends the chain. Of the first it is worth a remark.
            if !chain.is_empty() && graph.sole_consumer(x).is_none() {
                break;
            }
            chain.push((x.node, step));
            x = data;
        }
        let shape = graph.info(x).and_then(|info| info.shape.as_ref()).ok_or(Miss::NoMatch)?;
        let columns = graph.info(root.into()).and_then(|info| info.shape.as_ref()?.last()).ok_or(Miss::NoMatch)?;
        let layout = chain.iter().rev().try_fold(Layout::identity(shape), |layout, (_, step)| layout.then(step));
        let (before, after) = layout.and_then(|layout| layout.around_product(columns)).ok_or(Miss::NoMatch)?;
        let (before, after) = (before.steps(), after.steps());
        if after.is_empty()
            || before.len() > chain.len()
            || !before.iter().chain(&after).all(|step| is_told(step, context))
        {
            return Err(Miss::NoMatch);
        }
        if let Some(at) = epilogue.iter().flatten().find(|operand| rank(**operand).is_none_or(|rank| rank > 1)) {
            return Err(Miss::Blocked { reason: "an operand of the epilogue has rows", at: at.node });
        }
        let mut patch = Patch::new(self.name(), root);
        if let Some(slot) = inputs.first_mut() {
            *slot = Some(before.into_iter().fold(x, |x, step| step.add(&mut patch, x)));
        }
        let product = patch.add(op.clone(), &inputs);
        let result = after.into_iter().fold(product, |x, step| step.add(&mut patch, x));
        patch.replace(root.into(), result).absorb([root]).absorb(chain.into_iter().map(|(node, _)| node));
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::testing::run_rule;

    #[test]
    fn fires_behind_what_something_else_reads() {
        // As a Shuffle, which `fuse_layout` makes of it, the shared transpose would end the chain too.
        let text = "graph g(%x: f32[n, 12], %w: f32[2, 4]) -> (%y, %2) {
            %1 = reshape(%x) shape=[n, 2, 6]
            %2 = transpose(%1) perm=[0, 2, 1]
            %3 = reshape(%2) shape=[(6*n), 2]
            %4 = matmul(%3, %w)
            %y = reshape(%4) shape=[n, 6, 2, 2] }";
        assert_snapshot!(run_rule(SinkLayout, text).equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 12], %w: f32[2, 4]) -> (%y, %2) {
          %1 = reshape(%x) shape=[n, 2, 6] : f32[n, 2, 6]
          %2 = transpose(%1) perm=[0, 2, 1] : f32[n, 6, 2]
          %4.1 = matmul(%2, %w) : f32[n, 6, 4]
          %4 = reshape(%4.1) shape=[(6*n), 4] : f32[6*n, 4]
          %y = reshape(%4) shape=[n, 6, 2, 2] : f32[n, 6, 2, 2]
        }
        ");
    }

    #[test]
    fn a_step_that_the_epilogue_reads_too_stays() {
        let text = "graph g(%x: f32[2, 4], %w: f32[8, 8]) -> (%y) {
            %1 = reshape(%x) shape=[8] %2 = reshape(%1) shape=[1, 8]
            %3 = matmul(%2, %w, %1) epilogue=[add] %y = reshape(%3) shape=[8] }";
        let run = run_rule(SinkLayout, text);
        assert_eq!(run.equal_within(1e-6, 2).rewrites, 1);
        assert!(run.after.to_string().contains("%1 = reshape(%x) shape=[8]"));
    }

    #[test]
    fn fires_on_a_reshape() {
        let text = "graph g(%x: f32[1, 6, 8], %w: f32[8, 12], %b: f32[12]) -> (%y) {
            %1 = reshape(%x) shape=[6, 8]
            %2 = matmul(%1, %w, %b) epilogue=[add, relu]
            %y = reshape(%2) shape=[1, 6, 3, 4] }";
        assert_snapshot!(run_rule(SinkLayout, text).equal_within(1e-6, 1).after, @"
        graph g(%x: f32[1, 6, 8], %w: f32[8, 12], %b: f32[12]) -> (%y) {
          %2.1 = matmul(%x, %w, %b) epilogue=[add, relu] : f32[1, 6, 12]
          %2 = reshape(%2.1) shape=[6, 12] : f32[6, 12]
          %y = reshape(%2) shape=[1, 6, 3, 4] : f32[1, 6, 3, 4]
        }
        ");
    }

    #[test]
    fn fires_on_a_transpose() {
        let text = "graph g(%x: f32[n, 6, 8], %w: f32[12, 8]) -> (%y) {
            %1 = transpose(%x) perm=[1, 0, 2]
            %2 = matmul(%1, %w) transpose_b=true
            %y = reshape(%2) shape=[6, n, 3, 4] }";
        assert_snapshot!(run_rule(SinkLayout, text).equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 6, 8], %w: f32[12, 8]) -> (%y) {
          %2.1 = matmul(%x, %w) transpose_b=true : f32[n, 6, 12]
          %2 = transpose(%2.1) perm=[1, 0, 2] : f32[6, n, 12]
          %y = reshape(%2) shape=[6, n, 3, 4] : f32[6, n, 3, 4]
        }
        ");
    }

    #[test]
    fn what_brings_the_sums_together_stays() {
        let text = "graph g(%x: f32[n, 2, 6, 4], %w: f32[8, 12]) -> (%y) {
            %1 = transpose(%x) perm=[2, 0, 1, 3]
            %2 = reshape(%1) shape=[(6*n), 8]
            %3 = matmul(%2, %w)
            %4 = reshape(%3) shape=[6, n, 12]
            %y = transpose(%4) perm=[1, 0, 2] }";
        assert_snapshot!(run_rule(SinkLayout, text).equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 2, 6, 4], %w: f32[8, 12]) -> (%y) {
          %3.1 = transpose(%x) perm=[0, 2, 1, 3] : f32[n, 6, 2, 4]
          %3.2 = reshape(%3.1) shape=[n, 6, 8] : f32[n, 6, 8]
          %3.3 = matmul(%3.2, %w) : f32[n, 6, 12]
          %3.4 = transpose(%3.3) perm=[1, 0, 2] : f32[6, n, 12]
          %3 = reshape(%3.4) shape=[(6*n), 12] : f32[6*n, 12]
          %4 = reshape(%3) shape=[6, n, 12] : f32[6, n, 12]
          %y = transpose(%4) perm=[1, 0, 2] : f32[n, 6, 12]
        }
        ");
    }

    #[test]
    fn refuses_an_operand_with_rows() {
        let text = "graph g(%x: f32[1, 6, 8], %w: f32[8, 12], %r: f32[6, 12]) -> (%y) {
            %1 = reshape(%x) shape=[6, 8]
            %2 = matmul(%1, %w, %r) epilogue=[add]
            %y = reshape(%2) shape=[1, 6, 3, 4] }";
        let run = run_rule(SinkLayout, text);
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["an operand of the epilogue has rows"]));
    }

    #[test]
    fn refuses_a_reshape_with_another_reader() {
        let text = "graph g(%x: f32[1, 6, 8], %w: f32[8, 12]) -> (%y, %1) {
            %1 = reshape(%x) shape=[6, 8]
            %2 = matmul(%1, %w)
            %y = reshape(%2) shape=[1, 6, 3, 4] }";
        let run = run_rule(SinkLayout, text);
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["output of `1` also read by `an output of the graph`"]));
    }

    #[test]
    fn leaves_others_alone() {
        for body in [
            // Nothing to meet, columns that move, a product of batches.
            "%1 = reshape(%x) shape=[6, 8] %2 = matmul(%1, %w) %y = relu(%2)",
            "%1 = transpose(%x) perm=[2, 0, 1] %2 = reshape(%1) shape=[6, 8] %3 = matmul(%2, %w) %y = reshape(%3) shape=[72]",
            "%1 = reshape(%x) shape=[6, 8] %2 = matmul(%1, %v) %y = reshape(%2) shape=[72]",
            // The step is read by the matrix's slot.
            "%1 = reshape(%x) shape=[6, 8] %2 = reshape(%1) shape=[8, 6] %3 = matmul(%2, %1) %y = reshape(%3) shape=[64]",
            "%1 = reshape(%s) shape=[4, 4] %2 = matmul(%1, %1) %y = reshape(%2) shape=[16]",
        ] {
            let inputs = "%x: f32[1, 6, 8], %w: f32[8, 12], %v: f32[1, 8, 12], %s: f32[2, 8]";
            let text = format!("graph g({inputs}) -> (%y) {{ {body} }}");
            assert_eq!(run_rule(SinkLayout, &text).rewrites, 0, "{body}");
        }
    }
}
