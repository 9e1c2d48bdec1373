//! Drops a split that cuts a concatenation where its parts meet.
//!
//! ```text
//! %c = concat(%a, %b) axis=1                  %y = relu(%a)
//! %p, %q = split(%c) axis=1 sizes=[2, 3]      %z = relu(%b)
//! %y = relu(%p)
//! %z = relu(%q)
//! ```
//!
//! Fires when both are along one axis and each output of the split is a run of whole parts, sizes compared as
//! expressions. A run of several parts becomes a concatenation of its own. Other readers of the concatenation keep it.
//!
//! Refuses when
//! - the split cuts a part;
//! - the runs would need more concatenations than are saved.
//!
//! Order: none needed.
//!
//! Numerics: bit-exact.

use smallvec::SmallVec;
use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::Concat;
use trt_fuse_ir::{Dim, Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::{Miss, Rule, RuleContext};

/// Drops a split that cuts a concatenation where its parts meet.
#[derive(Debug, Default)]
pub(crate) struct DropConcatSplit;

impl Rule for DropConcatSplit {
    fn name(&self) -> &'static str {
        "drop_concat_split"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Split]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Split(split)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let whole = graph.input(root, 0).ok_or(Miss::NoMatch)?;
        let Some(Op::Concat(concat)) = graph.op(whole.node) else { return Err(Miss::NoMatch) };
        let rank = graph.info(whole).and_then(|info| info.rank()).ok_or(Miss::NoMatch)?;
        let axis = resolve_axis(split.axis, rank).map_err(|_| Miss::NoMatch)?;
        if resolve_axis(concat.axis, rank) != Ok(axis) {
            return Err(Miss::NoMatch);
        }
        let size = |value: ValueRef| graph.info(value)?.shape.as_ref()?.get(axis).cloned();
        let parts: Option<Vec<(ValueRef, Dim)>> =
            graph.node_inputs(whole.node).into_iter().map(|part| Some((part?, size(part?)?))).collect();
        let outputs = graph.node(root).map_or(0, |node| node.outputs.len()) as u32;
        let sizes: Option<Vec<Dim>> = (0..outputs).map(|slot| size(ValueRef { node: root, slot })).collect();
        let (parts, sizes) = (parts.ok_or(Miss::NoMatch)?, sizes.ok_or(Miss::NoMatch)?);
        let runs = runs(&parts, &sizes).ok_or(Miss::Blocked { reason: "the split cuts a part", at: root })?;

        let sole = graph.sole_consumer(whole).is_some();
        let concats = runs.iter().filter(|run| run.len() > 1).count();
        if concats > 1 + usize::from(sole) {
            return Err(Miss::Blocked { reason: "the runs would need more concatenations than are saved", at: root });
        }
        let mut patch = Patch::new(self.name(), root);
        for (run, slot) in runs.iter().zip(0..) {
            let value = match run.as_slice() {
                [part] => *part,
                run => {
                    let inputs: Vec<Option<ValueRef>> = run.iter().copied().map(Some).collect();
                    patch.add(Concat { axis: concat.axis }, &inputs)
                }
            };
            patch.replace(ValueRef { node: root, slot }, value);
        }
        patch.absorb([root]);
        if sole {
            patch.absorb([whole.node]);
        }
        Ok(patch)
    }
}

/// The parts that make up each size, if every size is a run of whole parts.
fn runs(parts: &[(ValueRef, Dim)], sizes: &[Dim]) -> Option<Vec<SmallVec<[ValueRef; 2]>>> {
    let mut left = parts.iter();
    let mut runs = Vec::with_capacity(sizes.len());
    for size in sizes {
        let mut run = SmallVec::new();
        let mut total = Dim::fixed(0);
        while run.is_empty() || total != *size {
            let (part, size) = left.next()?;
            run.push(*part);
            total = &total + size;
        }
        runs.push(run);
    }
    left.next().is_none().then_some(runs)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::DropConcatSplit;
    use crate::testing::run_rule;

    const INPUTS: &str = "%a: f32[n, 2], %b: f32[n, 3], %c: f32[n, 4]";

    #[test]
    fn parts_pass_by() {
        let text = format!(
            "graph g({INPUTS}) -> (%y, %z, %w) {{
              %k = concat(%a, %b, %c) axis=1
              %p, %q, %r = split(%k) axis=-1 sizes=[2, 3, 4]
              %y = relu(%p)
              %z = relu(%q)
              %w = relu(%r)
            }}"
        );
        let run = run_rule(DropConcatSplit, &text);
        assert_snapshot!(run.after, @r"
        graph g(%a: f32[n, 2], %b: f32[n, 3], %c: f32[n, 4]) -> (%y, %z, %w) {
          %y = relu(%a) : f32[n, 2]
          %z = relu(%b) : f32[n, 3]
          %w = relu(%c) : f32[n, 4]
        }
        ");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn a_run_of_parts_becomes_a_concatenation() {
        let text = format!(
            "graph g({INPUTS}) -> (%y, %z) {{
              %k = concat(%a, %b, %c) axis=1
              %p, %q = split(%k) axis=1 sizes=[2, 7]
              %y = relu(%p)
              %z = relu(%q)
            }}"
        );
        let run = run_rule(DropConcatSplit, &text);
        assert_snapshot!(run.after, @r"
        graph g(%a: f32[n, 2], %b: f32[n, 3], %c: f32[n, 4]) -> (%y, %z) {
          %y = relu(%a) : f32[n, 2]
          %q = concat(%b, %c) axis=1 : f32[n, 7]
          %z = relu(%q) : f32[n, 7]
        }
        ");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn symbolic_parts_are_compared_as_expressions() {
        let text = "graph g(%a: f32[n], %b: f32[m]) -> (%y, %z) {
              %k = concat(%a, %b, %a) axis=0
              %p, %q = split(%k) axis=0 sizes=[n, (m+n)]
              %y = relu(%p)
              %z = relu(%q)
            }";
        let run = run_rule(DropConcatSplit, text);
        assert_snapshot!(run.after, @r"
        graph g(%a: f32[n], %b: f32[m]) -> (%y, %z) {
          %y = relu(%a) : f32[n]
          %q = concat(%b, %a) axis=0 : f32[m+n]
          %z = relu(%q) : f32[m+n]
        }
        ");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn refuses_a_cut_part() {
        let text = format!(
            "graph g({INPUTS}) -> (%p, %q) {{
              %k = concat(%a, %b, %c) axis=1
              %p, %q = split(%k) axis=1 sizes=[4, 5]
            }}"
        );
        assert_eq!(run_rule(DropConcatSplit, &text).reasons(), ["the split cuts a part"]);
    }

    #[test]
    fn refuses_more_concatenations_than_are_saved() {
        let text = format!(
            "graph g({INPUTS}) -> (%k, %p, %q) {{
              %k = concat(%a, %b, %c, %b) axis=1
              %p, %q = split(%k) axis=1 sizes=[5, 7]
            }}"
        );
        let reason = "the runs would need more concatenations than are saved";
        assert_eq!(run_rule(DropConcatSplit, &text).reasons(), [reason]);
    }

    #[test]
    fn another_axis_is_no_match() {
        let text = "graph g(%a: f32[2, 2], %b: f32[2, 2]) -> (%p, %q) {
              %k = concat(%a, %b) axis=1
              %p, %q = split(%k) axis=0 sizes=[1, 1]
            }";
        let run = run_rule(DropConcatSplit, text);
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
    }
}
