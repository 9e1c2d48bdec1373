//! Merges a concatenation into the one that reads it.
//!
//! ```text
//! %k = concat(%a, %b) axis=1      %y = concat(%a, %b, %c) axis=1
//! %y = concat(%k, %c) axis=1
//! ```
//!
//! Fires when an input of a concatenation is another one along the same axis that nothing else reads.
//!
//! Refuses when something else reads the inner one: its parts would be copied twice. One that is an input twice is no
//! match.
//!
//! Order: none needed.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::Concat;
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::{Miss, Rule, RuleContext};

/// Merges a concatenation into the one that reads it.
#[derive(Debug, Default)]
pub(crate) struct MergeConcats;

impl Rule for MergeConcats {
    fn name(&self) -> &'static str {
        "merge_concats"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Concat]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let axis = concat_axis(graph, root).ok_or(Miss::NoMatch)?;
        let (mut inputs, mut merged, mut shared) = (Vec::new(), Vec::new(), None);
        // All levels at once: a long chain merged pair by pair would copy its inputs again and again.
        let mut pending: Vec<Option<ValueRef>> = graph.node_inputs(root).into_iter().rev().collect();
        while let Some(input) = pending.pop() {
            let inner = input.filter(|value| concat_axis(graph, value.node) == Some(axis));
            match inner {
                Some(value) if graph.sole_consumer(value).is_some() => {
                    pending.extend(graph.node_inputs(value.node).into_iter().rev());
                    merged.push(value.node);
                }
                inner => {
                    // The root alone may read it twice.
                    let is_elsewhere = |value: &ValueRef| {
                        graph.is_output(*value) || graph.uses(*value).any(|reader| reader.node != root)
                    };
                    shared = shared.or(inner.filter(is_elsewhere));
                    inputs.push(input);
                }
            }
        }
        if merged.is_empty() {
            return Err(match shared {
                Some(value) => Miss::AlsoRead { value, within: root },
                None => Miss::NoMatch,
            });
        }
        let mut patch = Patch::new(self.name(), root);
        let whole: ValueRef = patch.add(Concat { axis: axis as i64 }, &inputs);
        patch.replace(root.into(), whole).absorb([root]).absorb(merged);
        Ok(patch)
    }
}

/// The axis of a concatenation, counted from the front.
fn concat_axis(graph: &Graph, id: NodeId) -> Option<usize> {
    let Some(Op::Concat(concat)) = graph.op(id) else { return None };
    resolve_axis(concat.axis, graph.info(id.into())?.rank()?).ok()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::MergeConcats;
    use crate::testing::run_rule;

    const INPUTS: &str = "%a: f32[2, 2], %b: f32[2, 3], %c: f32[2, 4]";

    #[test]
    fn nested_concatenations_become_one() {
        let text = format!(
            "graph g({INPUTS}) -> (%y) {{
              %k = concat(%a, %b) axis=1
              %l = concat(%c, %k) axis=-1
              %m = concat(%b, %b) axis=1
              %y = concat(%m, %a, %l) axis=1
            }}"
        );
        let run = run_rule(MergeConcats, &text);
        assert_snapshot!(run.after, @r"
        graph g(%a: f32[2, 2], %b: f32[2, 3], %c: f32[2, 4]) -> (%y) {
          %y = concat(%b, %b, %a, %c, %a, %b) axis=1 : f32[2, 17]
        }
        ");
        run.equal_within(0.0, 1);
    }

    #[test]
    fn refuses_another_reader() {
        let text = format!(
            "graph g({INPUTS}) -> (%k, %y) {{
              %k = concat(%a, %b) axis=1
              %y = concat(%c, %k) axis=1
            }}"
        );
        assert_eq!(run_rule(MergeConcats, &text).reasons(), ["output of `k` also read by `an output of the graph`"]);
    }

    #[test]
    fn an_input_that_comes_twice_is_no_match() {
        let text = format!("graph g({INPUTS}) -> (%y) {{ %k = concat(%a, %b) axis=1 %y = concat(%k, %c, %k) axis=1 }}");
        let run = run_rule(MergeConcats, &text);
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
    }

    #[test]
    fn another_axis_is_no_match() {
        let text = "
            graph g(%a: f32[2, 2], %b: f32[2, 2], %c: f32[2, 4]) -> (%y) {
              %k = concat(%a, %b) axis=1
              %y = concat(%c, %k) axis=0
            }";
        let run = run_rule(MergeConcats, text);
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
    }
}
