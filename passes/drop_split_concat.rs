//! Drops a concatenation of all the parts that a split made, in their order.
//!
//! ```text
//! %a, %b = split(%x) axis=1 sizes=[2, 3]      %z = relu(%x)
//! %y = concat(%a, %b) axis=1
//! %z = relu(%y)
//! ```
//!
//! Fires when the concatenation reads every output of one split once, in order, along the same axis. Other readers of
//! the parts keep the split.
//!
//! Refuses when the parts are not in their order.
//!
//! Order: none needed.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, ValueRef};

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

    fn rewrite(&self, graph: &Graph, root: NodeId, _context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Concat(concat)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let parts = graph.node_inputs(root);
        let source = parts.first().copied().flatten().ok_or(Miss::NoMatch)?.node;
        let (Some(Op::Split(split)), Some(x)) = (graph.op(source), graph.input(source, 0)) else {
            return Err(Miss::NoMatch);
        };
        let rank = graph.info(x).and_then(|info| info.rank()).ok_or(Miss::NoMatch)?;
        let same_axis = resolve_axis(split.axis, rank) == resolve_axis(concat.axis, rank);
        let outputs = graph.node(source).map_or(0, |node| node.outputs.len());
        let from_split = parts.iter().all(|part| part.is_some_and(|part| part.node == source));
        if !same_axis || parts.len() != outputs || !from_split {
            return Err(Miss::NoMatch);
        }
        let in_order = parts.iter().zip(0..).all(|(part, slot)| *part == Some(ValueRef { node: source, slot }));
        if !in_order {
            return Err(Miss::Blocked { reason: "the parts are not in their order", at: root });
        }
        let mut patch = Patch::new(self.name(), root);
        patch.replace(root.into(), x).absorb([root]);
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
    fn other_axes_and_parts_are_no_match() {
        let axis = "graph g(%x: f32[4, 4]) -> (%y) {
            %a, %b = split(%x) axis=1 sizes=[2, 2] %y = concat(%a, %b) axis=0 }";
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
