//! Fuses a cut of a tensor into equal parts and their concatenation along another axis, which together move elements.
//!
//! ```text
//! %a, %b = split(%x) axis=1 sizes=[1, 1]      %1 = transpose(%x) perm=[1, 0, 2]
//! %y = concat(%a, %b) axis=0                  %y = reshape(%1) shape=[(2*n), 1, 4]
//! ```
//!
//! Fires when the concatenation reads every output of a Split, or Gathers of every single index of an axis, once and in
//! order, and moving takes no more nodes than go.
//!
//! Never refuses.
//!
//! Order: after `drop_split_concat`, which drops concatenations along the same axis, and after `drop_concat_split`,
//! `drop_concat_slice` and `merge_concats`, which would take the concatenation away.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::layout::{Step, is_told};
use crate::parts::{Parts, gathers, split};
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseSplitConcat;

impl Rule for FuseSplitConcat {
    fn name(&self) -> &'static str {
        "fuse_split_concat"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Concat]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Concat(concat)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let values: Vec<ValueRef> = graph.node_inputs(root).into_iter().collect::<Option<_>>().ok_or(Miss::NoMatch)?;
        let parts = all_parts(graph, &values).ok_or(Miss::NoMatch)?;
        let shape = graph.info(root.into()).and_then(|info| info.shape.clone()).ok_or(Miss::NoMatch)?;
        let axis = resolve_axis(concat.axis, shape.len()).map_err(|_| Miss::NoMatch)?;
        // The first axis of the stacked parts goes in front of the one that they are joined along.
        let mut perm: Vec<i64> = (1..).take(shape.len()).collect();
        perm.insert(axis, 0);
        let joined = parts.layout.then(&Step::Transpose(perm.into())).and_then(|all| all.then(&Step::Reshape(shape)));
        let steps = joined.ok_or(Miss::NoMatch)?.steps();
        let mut cuts: Vec<NodeId> = values.iter().map(|value| value.node).collect();
        cuts.dedup();
        if values.iter().any(|value| graph.reader_count(*value) > 1 || graph.is_output(*value)) {
            // They stay for others.
            cuts.clear();
        }
        if steps.len() > cuts.len() + 1 || !steps.iter().all(|step| is_told(step, context)) {
            return Err(Miss::NoMatch);
        }
        let mut patch = Patch::new(self.name(), root);
        let y = steps.into_iter().fold(parts.x, |x, step| step.add(&mut patch, x));
        patch.replace(root.into(), y).absorb([root]).absorb(cuts);
        Ok(patch)
    }
}

/// What values are all the parts of, in order.
fn all_parts(graph: &Graph, values: &[ValueRef]) -> Option<Parts> {
    let first = values.first()?.node;
    // Before the parts are listed, as a graph may have many concatenations of some of many.
    let parts = match graph.op(first)? {
        Op::Split(_) if graph.node(first)?.outputs.len() == values.len() => split(graph, first),
        Op::Gather(_) if graph.reader_count(graph.input(first, 0)?) == values.len() => gathers(graph, first),
        _ => None,
    };
    parts.filter(|parts| parts.values == values)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use trt_fuse_ir::Capabilities;

    use super::*;
    use crate::Pipeline;
    use crate::testing::run_rule;

    #[test]
    fn parts_joined_along_another_axis_are_moved() {
        let text = "graph g(%x: f32[n, 2, 4]) -> (%y) {
            %a, %b = split(%x) axis=1 sizes=[1, 1] %y = concat(%a, %b) axis=0 }";
        let run = run_rule(FuseSplitConcat, text);
        assert_snapshot!(run.equal_within(0.0, 3).after, @"
        graph g(%x: f32[n, 2, 4]) -> (%y) {
          %y.1 = transpose(%x) perm=[1, 0, 2] : f32[2, n, 4]
          %y = reshape(%y.1) shape=[(2*n), 1, 4] : f32[2*n, 1, 4]
        }
        ");
        // Three nodes for two.
        let longer = text.replace("2, 4]", "6, 4]").replace("[1, 1]", "[3, 3]");
        assert_eq!(run_rule(FuseSplitConcat, &longer).rewrites, 0);
    }

    #[test]
    fn gathers_joined_along_another_axis_are_moved() {
        let text = "graph g(%x: f32[2, 1, n, 8]) -> (%y) {
            %0 = constant() value=i64[] {0} %1 = constant() value=i64[] {1}
            %a = gather(%x, %0) axis=0 %b = gather(%x, %1) axis=0 %y = concat(%a, %b) axis=-1 }";
        let run = run_rule(FuseSplitConcat, text);
        assert_snapshot!(run.equal_within(0.0, 3).after, @"
        graph g(%x: f32[2, 1, n, 8]) -> (%y) {
          %y.1 = transpose(%x) perm=[2, 1, 0, 3] : f32[n, 1, 2, 8]
          %y = reshape(%y.1) shape=[1, n, 16] : f32[1, n, 16]
        }
        ");
        // The first part last.
        let other = text.replace("concat(%a, %b)", "concat(%b, %a)");
        assert_eq!(run_rule(FuseSplitConcat, &other).rewrites, 0);
    }

    #[test]
    fn parts_that_are_read_elsewhere_are_moved_by_one_node_at_most() {
        let text = "graph g(%x: f32[2, 3, n]) -> (%y, %z) {
            %a, %b = split(%x) axis=0 sizes=[1, 1] %y = concat(%a, %b) axis=1 %z = relu(%b) }";
        let reshaped = run_rule(FuseSplitConcat, text);
        assert_snapshot!(reshaped.equal_within(0.0, 3).after, @"
        graph g(%x: f32[2, 3, n]) -> (%y, %z) {
          %y = reshape(%x) shape=[1, 6, n] : f32[1, 6, n]
          %a, %b = split(%x) axis=0 sizes=[1, 1] : f32[1, 3, n], f32[1, 3, n]
          %z = relu(%b) : f32[1, 3, n]
        }
        ");
        let moved = text.replace("axis=1 %z", "axis=2 %z");
        assert_eq!(run_rule(FuseSplitConcat, &moved).rewrites, 0);
    }

    #[test]
    fn leaves_others_alone() {
        for body in [
            // Another order, a part that is missing, one that is read twice, something else besides.
            "%a, %b = split(%x) axis=1 sizes=[1, 1] %y = concat(%b, %a) axis=0",
            "%a, %b = split(%x) axis=1 sizes=[1, 1] %y = concat(%a) axis=0 %z = relu(%b)",
            "%a, %b = split(%x) axis=1 sizes=[1, 1] %y = concat(%a, %a) axis=0 %z = relu(%b)",
            "%a, %b = split(%x) axis=1 sizes=[1, 1] %c = relu(%a) %y = concat(%a, %b, %c) axis=0",
            // A size that no input tells.
            "%i = nonzero(%x) %j = concat(%i, %i) axis=0 %a, %b = split(%j) axis=0 sizes=[3, 3] %y = concat(%a, %b) axis=1",
        ] {
            let z = if body.contains("%z") { ", %z" } else { "" };
            let text = format!("graph g(%x: f32[1, 2, 3]) -> (%y{z}) {{ {body} }}");
            let run = run_rule(FuseSplitConcat, &text);
            assert_eq!((run.rewrites, run.reasons()), (0, vec![]), "{body}");
        }
    }

    #[test]
    fn parts_of_nothing_are_moved() {
        let text = "graph g(%x: f32[n, 2, 4]) -> (%y) {
            %a, %b = split(%x) axis=1 sizes=[1, 1] %y = concat(%a, %b) axis=0 }";
        assert_eq!(run_rule(FuseSplitConcat, text).equal_within(0.0, 0).rewrites, 1);
    }

    #[test]
    fn concatenations_that_other_passes_take_are_left_to_them() {
        let cuts = [
            "%a, %b = split(%x) axis=1 sizes=[1, 1] %c = concat(%a, %b) axis=0
                %p, %q = split(%c) axis=0 sizes=[3, 3] %y = relu(%p) %z = tanh(%q)",
            "%0 = constant() value=i64[] {0} %1 = constant() value=i64[] {1} %a = gather(%x, %0) axis=1
                %b = gather(%x, %1) axis=1 %c = concat(%a, %b) axis=1
                %p = slice(%c) axes=[1] starts=[0] ends=[4] steps=[1] %y = relu(%p) %z = tanh(%p)",
        ];
        for cut in cuts {
            let graph: Graph = format!("graph g(%x: f32[3, 2, 4]) -> (%y, %z) {{ {cut} }}").parse().unwrap();
            let (graph, _) = Pipeline::standard(&Capabilities::default()).run(graph).unwrap();
            assert_eq!(
                graph.live_of(&[OpKind::Reshape, OpKind::Transpose, OpKind::Shuffle, OpKind::Concat]),
                [],
                "{graph}"
            );
        }
    }
}
