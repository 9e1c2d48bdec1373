//! Moves the reshapes and transposes of equal parts of a tensor in front of the split, where they are one.
//!
//! ```text
//! %q, %k = split(%x) axis=1 sizes=[6, 6]      %1 = reshape(%x) shape=[n, 2, 3, 2]
//! %1 = reshape(%q) shape=[n, 3, 2]            %2 = transpose(%1) perm=[1, 0, 2, 3]
//! %2 = reshape(%k) shape=[n, 3, 2]            %3 = gather(%2, 0) axis=0
//!                                             %4 = gather(%2, 1) axis=0
//! ```
//!
//! Fires on the outputs of a Split of equal parts, and on Gathers of every single index of an axis, each read only by the
//! same reshape or transpose; where that leaves fewer nodes.
//!
//! Refuses: "TensorRT makes one kernel of an attention only of parts that are cut from rows", of the outputs of a Split, where
//! it finds the kernel itself ([`RuleContext::finds_attention`]).
//!
//! Order: after `fuse_attention`, which gives queries, keys and values one form.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::op::Gather;
use trt_fuse_ir::{Dim, Graph, NodeId, OpKind, Patch, Tensor};

use crate::layout::{Step, is_told};
use crate::parts::{MOST_STEPS, gathers, is_of_attention, split};
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct SinkParts;

impl Rule for SinkParts {
    fn name(&self) -> &'static str {
        "sink_parts"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Split, OpKind::Gather]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let rows = split(graph, root);
        let are_rows = rows.is_some();
        let parts = rows.or_else(|| gathers(graph, root)).ok_or(Miss::NoMatch)?;
        let readers: Option<Vec<NodeId>> =
            parts.values.iter().map(|value| graph.sole_consumer(*value).map(|reader| reader.node)).collect();
        let readers = readers.ok_or(Miss::NoMatch)?;
        let step = readers.first().and_then(|reader| Step::of(graph, *reader)).ok_or(Miss::NoMatch)?;
        if readers.len() < 2 || readers.iter().any(|reader| Step::of(graph, *reader).as_ref() != Some(&step)) {
            return Err(Miss::NoMatch);
        }
        let steps = parts.layout.then(&in_front(&step, readers.len())).ok_or(Miss::NoMatch)?.steps();
        if steps.len() >= readers.len() || !steps.iter().all(|step| is_told(step, context)) {
            return Err(Miss::NoMatch);
        }
        if are_rows
            && context.finds_attention()
            && parts.values.iter().any(|part| is_of_attention(graph, *part, MOST_STEPS))
        {
            let reason = "TensorRT makes one kernel of an attention only of parts that are cut from rows";
            return Err(Miss::Blocked { reason, at: root });
        }
        let mut patch = Patch::new(self.name(), root);
        let all = steps.into_iter().fold(parts.x, |x, step| step.add(&mut patch, x));
        for (at, reader) in readers.iter().enumerate() {
            let index = patch.constant(Tensor::scalar(at as i64));
            let part = patch.add(Gather { axis: 0 }, &[Some(all), Some(index)]);
            patch.replace((*reader).into(), part);
        }
        let mut nodes: Vec<NodeId> = parts.values.iter().map(|value| value.node).collect();
        nodes.dedup();
        patch.absorb(readers).absorb(nodes);
        Ok(patch)
    }
}

/// A step of each of `count` parts, as a step of all stacked along a first axis.
fn in_front(step: &Step, count: usize) -> Step {
    match step {
        Step::Reshape(shape) => Step::Reshape([Dim::from(count)].into_iter().chain(shape.iter().cloned()).collect()),
        Step::Transpose(perm) => Step::Transpose([0].into_iter().chain(perm.iter().map(|axis| axis + 1)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use trt_fuse_ir::Capabilities;

    use super::*;
    use crate::pass::Options;
    use crate::testing::{run_rule, run_rule_on_target};

    #[test]
    fn fires_on_a_split() {
        let text = "graph g(%x: f32[n, 5, 12]) -> (%a, %b, %c) {
            %q, %k, %v = split(%x) axis=2 sizes=[4, 4, 4]
            %a = reshape(%q) shape=[n, 5, 2, 2]
            %b = reshape(%k) shape=[n, 5, 2, 2]
            %c = reshape(%v) shape=[n, 5, 2, 2] }";
        assert_snapshot!(run_rule(SinkParts, text).equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 5, 12]) -> (%a, %b, %c) {
          %q.1 = reshape(%x) shape=[n, 5, 3, 2, 2] : f32[n, 5, 3, 2, 2]
          %q.2 = transpose(%q.1) perm=[2, 0, 1, 3, 4] : f32[3, n, 5, 2, 2]
          %q.sink_parts = constant() value=i64[] {0}
          %a = gather(%q.2, %q.sink_parts) axis=0 : f32[n, 5, 2, 2]
          %q.sink_parts.1 = constant() value=i64[] {1}
          %b = gather(%q.2, %q.sink_parts.1) axis=0 : f32[n, 5, 2, 2]
          %q.sink_parts.2 = constant() value=i64[] {2}
          %c = gather(%q.2, %q.sink_parts.2) axis=0 : f32[n, 5, 2, 2]
        }
        ");
    }

    #[test]
    fn fires_on_gathers() {
        let text = "graph g(%x: f32[3, 7, n, 8]) -> (%a, %b, %c) {
            %zero = constant() value=i64[] {0} %one = constant() value=i64[] {1} %last = constant() value=i64[] {-1}
            %q = gather(%x, %zero) axis=0 %k = gather(%x, %one) axis=0 %v = gather(%x, %last) axis=0
            %a = transpose(%q) perm=[1, 0, 2] %b = transpose(%k) perm=[1, 0, 2] %c = transpose(%v) perm=[1, 0, 2] }";
        assert_snapshot!(run_rule(SinkParts, text).equal_within(0.0, 2).after, @"
        graph g(%x: f32[3, 7, n, 8]) -> (%a, %b, %c) {
          %q.1 = transpose(%x) perm=[0, 2, 1, 3] : f32[3, n, 7, 8]
          %q.sink_parts = constant() value=i64[] {0}
          %a = gather(%q.1, %q.sink_parts) axis=0 : f32[n, 7, 8]
          %q.sink_parts.1 = constant() value=i64[] {1}
          %b = gather(%q.1, %q.sink_parts.1) axis=0 : f32[n, 7, 8]
          %q.sink_parts.2 = constant() value=i64[] {2}
          %c = gather(%q.1, %q.sink_parts.2) axis=0 : f32[n, 7, 8]
        }
        ");
    }

    #[test]
    fn refuses_parts_of_an_attention_that_tensorrt_finds() {
        let text = |read: &str| {
            format!(
                "graph g(%x: f32[1, 5, 12]) -> (%y) {{
                %q, %k, %v = split(%x) axis=2 sizes=[4, 4, 4]
                %a = reshape(%q) shape=[1, 5, 2, 2] %b = reshape(%k) shape=[1, 5, 2, 2] %c = reshape(%v) shape=[1, 5, 2, 2]
                %d = transpose(%a) perm=[0, 2, 1, 3] %e = transpose(%b) perm=[0, 2, 1, 3] %f = transpose(%c) perm=[0, 2, 1, 3]
                {read} }}"
            )
        };
        let attention = text("%y = attention(%d, %e, %f) scale=0.5 causal=none scores=product");
        let run = |text: &str, target: &Capabilities, half: bool| {
            run_rule_on_target(SinkParts, target, &Options { half, ..Options::default() }, text)
        };
        let old = Capabilities::tensorrt((8, 5, 3));
        let refused = run(&attention, &old, true);
        let reason = "TensorRT makes one kernel of an attention only of parts that are cut from rows";
        assert_eq!((refused.rewrites, refused.reasons()), (0, vec![reason]));
        // Up to four steps from the rows.
        let behind = |steps: &str, q: &str| {
            let steps = format!("%g = transpose(%d) perm=[0, 2, 1, 3] %h = transpose(%g) perm=[0, 2, 1, 3] {steps}");
            text(&format!("{steps} %z = add(%e, %f) %y = attention({q}, %z, %z) scale=0.5 causal=none scores=product"))
        };
        let (four, five) = (behind("", "%h"), behind("%i = transpose(%h) perm=[0, 1, 2, 3]", "%i"));
        assert_eq!(run(&four, &old, true).reasons(), [reason]);
        // Steps that are one layer by now.
        let shuffles = "graph g(%x: f32[1, 6, 12]) -> (%y) {
            %q, %k, %v = split(%x) axis=2 sizes=[4, 4, 4]
            %a = reshape(%q) shape=[2, 3, 2, 2] %b = reshape(%k) shape=[2, 3, 2, 2] %c = reshape(%v) shape=[2, 3, 2, 2]
            %d = shuffle(%a) before=[2, 1, 0, 3] shape=[1, 2, 6, 2] %e = shuffle(%b) before=[2, 1, 0, 3] shape=[1, 2, 6, 2]
            %f = shuffle(%c) before=[2, 1, 0, 3] shape=[1, 2, 6, 2]
            %y = attention(%d, %e, %f) scale=0.5 causal=none scores=product }";
        assert_eq!(run(shuffles, &old, true).reasons(), [reason]);
        // One layer counts as the steps that it was made of: four, five.
        let behind_layer = |layer: &str| {
            text(&format!(
                "%g = shuffle(%d) {layer} %z = add(%e, %f) %y = attention(%g, %z, %z) scale=0.5 causal=none scores=product"
            ))
        };
        let layer_of_two = behind_layer("before=[0, 2, 1, 3] shape=[1, 2, 5, 2]");
        let layer_of_three = behind_layer("before=[0, 2, 1, 3] shape=[1, 5, 2, 2] after=[0, 2, 1, 3]");
        assert_eq!(run(&layer_of_two, &old, true).reasons(), [reason]);
        // No queries, keys or values: a mask.
        let mask = text(
            "%g = reshape(%d) shape=[1, 1, 4, 5] %y = attention(%i, %j, %j, %g) scale=0.5 causal=none scores=product",
        )
        .replace("%x: f32[1, 5, 12]", "%x: f32[1, 5, 12], %i: f32[1, 2, 4, 6], %j: f32[1, 2, 5, 6]");
        // Parts that were cut after a transposition are no rows.
        let gathers = "graph g(%x: f32[3, 1, 5, 4]) -> (%y) {
            %0 = constant() value=i64[] {0} %1 = constant() value=i64[] {1} %2 = constant() value=i64[] {2}
            %q = gather(%x, %0) axis=0 %k = gather(%x, %1) axis=0 %v = gather(%x, %2) axis=0
            %a = reshape(%q) shape=[1, 1, 5, 4] %b = reshape(%k) shape=[1, 1, 5, 4] %c = reshape(%v) shape=[1, 1, 5, 4]
            %y = attention(%a, %b, %c) scale=0.5 causal=none scores=product }";
        let sums = text("%g = add(%d, %e) %y = add(%g, %f)");
        let new = Capabilities::tensorrt((10, 0, 0));
        for (text, target, half) in [
            (attention.as_str(), &old, false),
            (&attention, &new, true),
            (&sums, &old, true),
            (&five, &old, true),
            (&layer_of_three, &old, true),
            (&mask, &old, true),
            (gathers, &old, true),
        ] {
            assert!(run(text, target, half).rewrites > 0, "{text}");
        }
    }

    #[test]
    fn leaves_others_alone() {
        for body in [
            // Unequal parts, different steps, a part that something else reads, a part that nothing reads.
            "%q, %k = split(%x) axis=1 sizes=[2, 4] %a = reshape(%q) shape=[(2*n)] %b = reshape(%k) shape=[(4*n)]",
            "%q, %k = split(%x) axis=1 sizes=[3, 3] %a = reshape(%q) shape=[(3*n)] %b = reshape(%k) shape=[(3*n), 1]",
            "%q, %k = split(%x) axis=1 sizes=[3, 3] %a = reshape(%q) shape=[(3*n)] %c = reshape(%k) shape=[(3*n)] %b = relu(%k)",
            "%z = constant() value=i64[] {0} %o = constant() value=i64[] {1} %q = gather(%x, %z) axis=1
                %k = gather(%x, %o) axis=1 %a = reshape(%q) shape=[1, n] %b = reshape(%k) shape=[1, n]",
            // As many nodes as before.
            "%q, %k = split(%x) axis=1 sizes=[3, 3] %a = reshape(%q) shape=[(3*n)] %b = reshape(%k) shape=[(3*n)]",
            // Axes from the end.
            "%q, %k = split(%x) axis=1 sizes=[3, 3] %a = transpose(%q) perm=[-1, 0] %b = transpose(%k) perm=[-1, 0]",
        ] {
            let text = format!("graph g(%x: f32[n, 6]) -> (%a, %b) {{ {body} }}");
            assert_eq!(run_rule(SinkParts, &text).rewrites, 0, "{body}");
        }
    }

    #[test]
    fn leaves_gathers_of_an_output_alone() {
        let text = |outputs: &str| {
            format!(
                "graph g(%z: f32[3, 7, 8]) -> ({outputs}) {{ %x = relu(%z) %0 = constant() value=i64[] {{0}}
                %1 = constant() value=i64[] {{1}} %2 = constant() value=i64[] {{2}} %q = gather(%x, %0) axis=0
                %k = gather(%x, %1) axis=0 %v = gather(%x, %2) axis=0 %a = reshape(%q) shape=[56] %b = reshape(%k) shape=[56]
                %c = reshape(%v) shape=[56] }}"
            )
        };
        let rewrites = ["%a, %b, %c", "%a, %b, %c, %x"].map(|outputs| run_rule(SinkParts, &text(outputs)).rewrites);
        assert_eq!(rewrites, [1, 0]);
    }

    #[test]
    fn leaves_gathers_along_two_axes_alone() {
        let text = |axis: i64| {
            format!(
                "graph g(%x: f32[2, 2, 3]) -> (%a, %b) {{
                %z = constant() value=i64[] {{0}} %o = constant() value=i64[] {{1}} %q = gather(%x, %z) axis=0
                %k = gather(%x, %o) axis={axis} %a = transpose(%q) perm=[1, 0] %b = transpose(%k) perm=[1, 0] }}"
            )
        };
        assert_eq!([0, 1].map(|axis| run_rule(SinkParts, &text(axis)).rewrites), [1, 0]);
    }
}
