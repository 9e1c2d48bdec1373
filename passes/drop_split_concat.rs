//! Drops a concatenation of all the parts that a split made, in their order, or moves elements in its place.
//!
//! ```text
//! %a, %b = split(%x) axis=1 sizes=[2, 3]      %z = relu(%x)
//! %y = concat(%a, %b) axis=1
//! %z = relu(%y)
//! ```
//!
//! Along another axis the parts, if they are equal, are joined by moving elements:
//!
//! ```text
//! %a, %b = split(%x) axis=1 sizes=[1, 1]      %1 = transpose(%x) perm=[1, 0, 2]
//! %y = concat(%a, %b) axis=0                  %y = reshape(%1) shape=[(2*n), 1, 4]
//! ```
//!
//! Fires when the concatenation reads every output of one split once, in order. Other readers of the parts keep the split
//! of a concatenation along the same axis. Along another axis the parts may be Gathers of every single index too, and no more
//! nodes must be left than there were.
//!
//! Refuses when the parts are not in their order.
//!
//! Order: none needed.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::layout::{Step, is_told};
use crate::parts::{gathers, split};
use crate::{Miss, Rule, RuleContext};

/// Drops a concatenation of all the parts that a split made.
#[derive(Debug, Default)]
pub(crate) struct DropSplitConcat;

impl Rule for DropSplitConcat {
    fn name(&self) -> &'static str {
        "drop_split_concat"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Concat]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Concat(concat)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let parts: Vec<ValueRef> = graph.node_inputs(root).into_iter().collect::<Option<_>>().ok_or(Miss::NoMatch)?;
        let source = parts.first().ok_or(Miss::NoMatch)?.node;
        let x = graph.input(source, 0).ok_or(Miss::NoMatch)?;
        let rank = graph.info(x).and_then(|info| info.rank()).ok_or(Miss::NoMatch)?;
        let Some(Op::Split(cut)) = graph.op(source) else { return self.moved(graph, root, &parts, context) };
        if resolve_axis(cut.axis, rank) != resolve_axis(concat.axis, rank) {
            return self.moved(graph, root, &parts, context);
        }
        let outputs = graph.node(source).map_or(0, |node| node.outputs.len());
        if parts.len() != outputs || parts.iter().any(|part| part.node != source) {
            return Err(Miss::NoMatch);
        }
        if parts.iter().zip(0..).any(|(part, slot)| part.slot != slot) {
            return Err(Miss::Blocked { reason: "the parts are not in their order", at: root });
        }
        let mut patch = Patch::new(self.name(), root);
        patch.replace(root.into(), x).absorb([root]);
        Ok(patch)
    }
}

impl DropSplitConcat {
    /// The layout of the whole that joins its equal parts along another axis than they are cut.
    fn moved(
        &self,
        graph: &Graph,
        root: NodeId,
        values: &[ValueRef],
        context: &RuleContext<'_>,
    ) -> Result<Patch, Miss> {
        let Some(Op::Concat(concat)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let first = values.first().ok_or(Miss::NoMatch)?.node;
        let parts = split(graph, first).or_else(|| gathers(graph, first)).ok_or(Miss::NoMatch)?;
        if parts.values != values {
            return Err(Miss::NoMatch);
        }
        let shape = graph.info(root.into()).and_then(|info| info.shape.clone()).ok_or(Miss::NoMatch)?;
        let axis = resolve_axis(concat.axis, shape.len()).map_err(|_| Miss::NoMatch)?;
        // The first axis of the stacked parts goes in front of the one that they are joined along.
        let mut perm: Vec<i64> = (1..).take(shape.len()).collect();
        perm.insert(axis, 0);
        let joined = parts.layout.then(&Step::Transpose(perm.into())).and_then(|all| all.then(&Step::Reshape(shape)));
        let steps = joined.ok_or(Miss::NoMatch)?.steps();
        let are_dropped = values.iter().all(|value| graph.sole_consumer(*value).is_some());
        let mut nodes: Vec<NodeId> = values.iter().map(|value| value.node).collect();
        nodes.dedup();
        if !are_dropped {
            nodes.clear();
        }
        if steps.len() > nodes.len() + 1 || !steps.iter().all(|step| is_told(step, context)) {
            return Err(Miss::NoMatch);
        }
        let mut patch = Patch::new(self.name(), root);
        let y = steps.into_iter().fold(parts.x, |x, step| step.add(&mut patch, x));
        patch.replace(root.into(), y).absorb([root]).absorb(nodes);
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::DropSplitConcat;
    use crate::testing::run_rule;

    #[test]
    fn a_split_that_is_undone_is_dropped() {
        let text = "
            graph g(%x: f32[n, 5]) -> (%z) {
              %a, %b = split(%x) axis=1 sizes=[2, 3]
              %y = concat(%a, %b) axis=-1
              %z = relu(%y)
            }";
        let run = run_rule(DropSplitConcat, text);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 5]) -> (%z) {
          %z = relu(%x) : f32[n, 5]
        }
        ");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn another_reader_keeps_the_split() {
        let text = "
            graph g(%x: f32[n, 5]) -> (%y, %a) {
              %a, %b = split(%x) axis=1 sizes=[2, 3]
              %y = concat(%a, %b) axis=1
            }";
        let run = run_rule(DropSplitConcat, text);
        assert_snapshot!(run.after, @r#"
        graph g(%x: f32[n, 5]) -> (%x as "y", %a) {
          %a, %b = split(%x) axis=1 sizes=[2, 3] : f32[n, 2], f32[n, 3]
        }
        "#);
        run.equal_within(0.0, 3);
    }

    #[test]
    fn refuses_another_order() {
        let text = "
            graph g(%x: f32[n, 4]) -> (%y) {
              %a, %b = split(%x) axis=1 sizes=[2, 2]
              %y = concat(%b, %a) axis=1
            }";
        assert_eq!(run_rule(DropSplitConcat, text).reasons(), ["the parts are not in their order"]);
    }

    #[test]
    fn parts_joined_along_another_axis_are_moved() {
        let text = "graph g(%x: f32[n, 2, 4]) -> (%y) {
            %a, %b = split(%x) axis=1 sizes=[1, 1] %y = concat(%a, %b) axis=0 }";
        let run = run_rule(DropSplitConcat, text);
        assert_snapshot!(run.equal_within(0.0, 3).after, @"
        graph g(%x: f32[n, 2, 4]) -> (%y) {
          %y.1 = transpose(%x) perm=[1, 0, 2] : f32[2, n, 4]
          %y = reshape(%y.1) shape=[(2*n), 1, 4] : f32[2*n, 1, 4]
        }
        ");
        // Three nodes for two.
        let longer = text.replace("2, 4]", "6, 4]").replace("[1, 1]", "[3, 3]");
        assert_eq!(run_rule(DropSplitConcat, &longer).rewrites, 0);
    }

    #[test]
    fn gathers_joined_along_another_axis_are_moved() {
        let text = "graph g(%x: f32[2, 1, n, 8]) -> (%y) {
            %0 = constant() value=i64[] {0} %1 = constant() value=i64[] {1}
            %a = gather(%x, %0) axis=0 %b = gather(%x, %1) axis=0 %y = concat(%a, %b) axis=-1 }";
        let run = run_rule(DropSplitConcat, text);
        assert_snapshot!(run.equal_within(0.0, 3).after, @"
        graph g(%x: f32[2, 1, n, 8]) -> (%y) {
          %y.1 = transpose(%x) perm=[2, 1, 0, 3] : f32[n, 1, 2, 8]
          %y = reshape(%y.1) shape=[1, n, 16] : f32[1, n, 16]
        }
        ");
        // The first part last.
        let other = text.replace("concat(%a, %b)", "concat(%b, %a)");
        assert_eq!(run_rule(DropSplitConcat, &other).rewrites, 0);
    }

    #[test]
    fn parts_that_are_read_elsewhere_are_moved_by_one_node_at_most() {
        let text = "graph g(%x: f32[2, 3, n]) -> (%y, %z) {
            %a, %b = split(%x) axis=0 sizes=[1, 1] %y = concat(%a, %b) axis=1 %z = relu(%b) }";
        let reshaped = run_rule(DropSplitConcat, text);
        assert_snapshot!(reshaped.equal_within(0.0, 3).after, @"
        graph g(%x: f32[2, 3, n]) -> (%y, %z) {
          %y = reshape(%x) shape=[1, 6, n] : f32[1, 6, n]
          %a, %b = split(%x) axis=0 sizes=[1, 1] : f32[1, 3, n], f32[1, 3, n]
          %z = relu(%b) : f32[1, 3, n]
        }
        ");
        let moved = text.replace("axis=1 %z", "axis=2 %z");
        assert_eq!(run_rule(DropSplitConcat, &moved).rewrites, 0);
    }

    #[test]
    fn other_axes_and_parts_are_no_match() {
        let axis = "graph g(%x: f32[4, 3, 4, 5]) -> (%y) {
            %a, %b, %c = split(%x) axis=1 sizes=[1, 1, 1] %y = concat(%a, %c, %b) axis=0 }";
        let parts = "graph g(%x: f32[4, 6]) -> (%y) {
            %a, %b, %c = split(%x) axis=1 sizes=[2, 2, 2] %y = concat(%a, %b) axis=1 }";
        let twice = "graph g(%x: f32[4, 4]) -> (%y) {
            %a, %b = split(%x) axis=1 sizes=[2, 2] %y = concat(%a, %b, %x) axis=1 }";
        let other = "graph g(%x: f32[4, 4], %z: f32[4, 2]) -> (%y) {
            %a, %b = split(%x) axis=1 sizes=[2, 2] %y = concat(%a, %z) axis=1 }";
        for text in [axis, parts, twice, other] {
            let run = run_rule(DropSplitConcat, text);
            assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
        }
    }
}
