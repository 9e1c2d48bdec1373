//! Merges convolutions of one input with several constant kernels into one wide convolution.
//!
//! ```text
//! %a = conv(%x, %wa, %ba) ..      %1 = conv(%x, %w, %b) ..
//! %b = conv(%x, %wb) ..           %a, %b = split(%1) axis=1 sizes=[64, 96]
//! ```
//! where w and b are the concatenated weights and biases; a bias that is not there is zeros.
//!
//! Fires on two convolutions or more with equal strides, dilations, padding, kernel sizes and epilogue, whatever their
//! numbers of channels, if [`Siblings`](crate::Siblings) has them merged.
//!
//! Refuses: "such siblings are merged only if asked for"; "a sibling's weights or bias are not constant"; "the channels
//! are in groups", where the wide result would be the parts' groups in turn; "the weights are read elsewhere and too
//! large to be copied" beyond [`Options::fold_budget`](crate::Options). One with a residual in its epilogue is no sibling.
//!
//! Order: after `fuse_residual` and `fuse_activation`, so that what follows each part follows the whole.
//!
//! Numerics: bit-exact but for the convolution's own order of sums.

use trt_fuse_ir::op::Conv;
use trt_fuse_ir::{Dim, Graph, NodeId, Op, OpKind, Patch, Step};

use crate::pass::{Miss, Rule, RuleContext};
use crate::siblings::{Axes, Pattern, merge, siblings_of};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct MergeConvolutions;

impl Rule for MergeConvolutions {
    fn name(&self) -> &'static str {
        "merge_convolutions"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Conv]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Conv(op)) = graph.op(root) else { return Err(Miss::NoMatch) };
        if op.epilogue.0.contains(&Step::Add) {
            return Err(Miss::NoMatch);
        }
        let kernel = kernel(graph, root).ok_or(Miss::NoMatch)?;
        let siblings = siblings_of(graph, root, |id| self::kernel(graph, id) == Some(kernel)).ok_or(Miss::NoMatch)?;
        let is_pointwise = kernel.iter().all(|size| size.is(1));
        let pattern = if is_pointwise { Pattern::PointwiseConvolutions } else { Pattern::Convolutions };
        pattern.check(&siblings, context)?;
        check_form(graph, &siblings, op)?;
        let channels = |id: &NodeId| graph.constant(graph.input(*id, 1)?)?.dims().first().copied();
        let sizes: Option<Vec<usize>> = siblings.iter().map(channels).collect();
        merge(self.name(), graph, &siblings, &sizes.ok_or(Miss::NoMatch)?, Axes { weight: 0, result: 1 }, context)
    }
}

/// The sizes of a kernel.
fn kernel(graph: &Graph, id: NodeId) -> Option<&[Dim]> {
    graph.info(graph.input(id, 1)?)?.shape.as_ref()?.get(2..)
}

/// Whether weights and biases can be put side by side.
fn check_form(graph: &Graph, siblings: &[NodeId], op: &Conv) -> Result<(), Miss> {
    let is_constant = |id: &NodeId, slot| graph.input(*id, slot).is_none_or(|value| graph.constant(value).is_some());
    if let Some(at) = siblings.iter().find(|id| !is_constant(id, 1) || !is_constant(id, 2)) {
        return Err(Miss::Blocked { reason: "a sibling's weights or bias are not constant", at: *at });
    }
    match siblings.first() {
        Some(at) if op.groups != 1 => Err(Miss::Blocked { reason: "the channels are in groups", at: *at }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::Siblings;
    use crate::testing::{Run, run_rule, run_rule_on_siblings};

    fn text(body: &str) -> String {
        format!(
            "graph g(%x: f32[n, 2, 4, 4], %run: f32[1, 2, 1, 1]) -> (%a, %b) {{
            %wa = constant() value=f32[1, 2, 1, 1] {{1.0, -2.0}}
            %wb = constant() value=f32[3, 2, 1, 1] {{0.5, 0.25, 1.5, -1.0, 0.0, 2.0}}
            %wg = constant() value=f32[2, 1, 1, 1] {{0.5, 0.25}}
            %wk = constant() value=f32[1, 2, 3, 3] splat 0.5
            %wl = constant() value=f32[2, 2, 3, 3] splat -0.25
            %ba = constant() value=f32[1] {{0.5}} %bb = constant() value=f32[3] {{1.0, -1.0, 2.0}} {body} }}"
        )
    }

    fn run(body: &str) -> Run {
        run_rule_on_siblings(MergeConvolutions, Siblings::Always, &text(body))
    }

    /// Parameters of a convolution with a stride and groups.
    fn form(stride: u32, groups: u32) -> String {
        format!("strides=[{stride}, {stride}] dilations=[1, 1] groups={groups}")
    }

    #[test]
    fn fires_on_unequal_numbers_of_channels() {
        let form = form(1, 1) + " epilogue=[relu]";
        let run = run(&format!("%a = conv(%x, %wa, %ba) {form} %b = conv(%x, %wb, %bb) {form}"));
        assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 2, 4, 4], %run: f32[1, 2, 1, 1]) -> (%a, %b) {
          %wa = constant() value=f32[1, 2, 1, 1] {1.0, -2.0}
          %wb = constant() value=f32[3, 2, 1, 1] {0.5, 0.25, 1.5, -1.0, 0.0, 2.0}
          %a.1 = concat(%wa, %wb) axis=0 : f32[4, 2, 1, 1]
          %ba = constant() value=f32[1] {0.5}
          %bb = constant() value=f32[3] {1.0, -1.0, 2.0}
          %a.2 = concat(%ba, %bb) axis=0 : f32[4]
          %a.3 = conv(%x, %a.1, %a.2) strides=[1, 1] dilations=[1, 1] groups=1 epilogue=[relu] : f32[n, 4, 4, 4]
          %a, %b = split(%a.3) axis=1 sizes=[1, 3] : f32[n, 1, 4, 4], f32[n, 3, 4, 4]
        }
        ");
    }

    #[test]
    fn fires_where_one_has_no_bias() {
        let run = run(&format!("%a = conv(%x, %wa) {} %b = conv(%x, %wb, %bb) {}", form(2, 1), form(2, 1)));
        assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 2, 4, 4], %run: f32[1, 2, 1, 1]) -> (%a, %b) {
          %wa = constant() value=f32[1, 2, 1, 1] {1.0, -2.0}
          %wb = constant() value=f32[3, 2, 1, 1] {0.5, 0.25, 1.5, -1.0, 0.0, 2.0}
          %a.1 = concat(%wa, %wb) axis=0 : f32[4, 2, 1, 1]
          %a.merge_convolutions = constant() value=f32[1] {0.0}
          %bb = constant() value=f32[3] {1.0, -1.0, 2.0}
          %a.2 = concat(%a.merge_convolutions, %bb) axis=0 : f32[4]
          %a.3 = conv(%x, %a.1, %a.2) strides=[2, 2] dilations=[1, 1] groups=1 : f32[n, 4, 2, 2]
          %a, %b = split(%a.3) axis=1 sizes=[1, 3] : f32[n, 1, 2, 2], f32[n, 3, 2, 2]
        }
        ");
    }

    #[test]
    fn fires_on_larger_kernels_without_bias() {
        let form = form(1, 1) + " padding=[1, 1, 1, 1]";
        let run = run(&format!("%a = conv(%x, %wk) {form} %b = conv(%x, %wl) {form}"));
        assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 2, 4, 4], %run: f32[1, 2, 1, 1]) -> (%a, %b) {
          %wk = constant() value=f32[1, 2, 3, 3] splat 0.5
          %wl = constant() value=f32[2, 2, 3, 3] splat -0.25
          %a.1 = concat(%wk, %wl) axis=0 : f32[3, 2, 3, 3]
          %a.2 = conv(%x, %a.1) strides=[1, 1] dilations=[1, 1] padding=[1, 1, 1, 1] groups=1 : f32[n, 3, 4, 4]
          %a, %b = split(%a.2) axis=1 sizes=[1, 2] : f32[n, 1, 4, 4], f32[n, 2, 4, 4]
        }
        ");
    }

    #[test]
    fn refuses_what_is_not_asked_for() {
        let body = format!("%a = conv(%x, %wa) {} %b = conv(%x, %wb) {}", form(1, 1), form(1, 1));
        let run = run_rule(MergeConvolutions, &text(&body));
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["such siblings are merged only if asked for"]));
        let run = run_rule_on_siblings(MergeConvolutions, Siblings::Never, &text(&body));
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
    }

    #[test]
    fn refuses_weights_of_run_time() {
        let form = form(1, 1);
        for second in ["conv(%x, %run)", "conv(%x, %wa, %r)"] {
            let bias = "%r = reduce(%run) kind=sum axes=[1, 2, 3]";
            let run = run(&format!("{bias} %a = conv(%x, %wa) {form} %b = {second} {form}"));
            let reason = "a sibling's weights or bias are not constant";
            assert_eq!((run.rewrites, run.reasons()), (0, vec![reason]), "{second}");
        }
    }

    #[test]
    fn refuses_groups() {
        let run = run(&format!("%a = conv(%x, %wg) {} %b = conv(%x, %wg) {}", form(1, 2), form(1, 2)));
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["the channels are in groups"]));
    }

    #[test]
    fn refuses_to_copy_large_weights() {
        let text = "graph g(%x: f32[n, 512, 2, 2]) -> (%a, %b) {
            %w = constant() value=f32[512, 512, 1, 1] splat 1.0
            %a = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1
            %b = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1 }";
        let run = run_rule_on_siblings(MergeConvolutions, Siblings::Always, text);
        let reason = "the weights are read elsewhere and too large to be copied";
        assert_eq!((run.rewrites, run.reasons()), (0, vec![reason]));
    }

    #[test]
    fn leaves_others_alone() {
        let one = form(1, 1);
        for body in [
            // Another stride, padding, kernel, epilogue or input; a residual.
            format!("%a = conv(%x, %wa) {one} %b = conv(%x, %wb) {}", form(2, 1)),
            format!("%a = conv(%x, %wa) {one} %b = conv(%x, %wb) {one} padding=[1, 1, 1, 1]"),
            format!("%a = conv(%x, %wa) {one} %b = conv(%x, %wk) {one}"),
            format!("%a = conv(%x, %wa) {one} %b = conv(%x, %wb) {one} epilogue=[relu]"),
            format!("%y = neg(%x) %a = conv(%x, %wa) {one} %b = conv(%y, %wb) {one}"),
            format!(
                "%r = conv(%x, %wb) {one} epilogue=[relu] %c = conv(%x, %wa) {one} epilogue=[tanh]
                %a = conv(%x, %wa, %ba, %c) {one} epilogue=[add] %b = conv(%x, %wb, %bb, %r) {one} epilogue=[add]"
            ),
        ] {
            let run = run(&body);
            assert_eq!((run.rewrites, run.reasons()), (0, vec![]), "{body}");
        }
    }
}
