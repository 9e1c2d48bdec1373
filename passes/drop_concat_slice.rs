//! Drops a slice that takes whole parts of a concatenation.
//!
//! ```text
//! %c = concat(%a, %b) axis=1                                     %y = relu(%b)
//! %s = slice(%c) axes=[1] starts=[2] ends=[5] steps=[1]
//! %y = relu(%s)
//! ```
//!
//! Fires when the slice cuts one axis, that of the concatenation, in steps of 1, from where one part begins to where
//! one ends, compared as expressions. Several parts become a concatenation of fewer parts. Other readers of the
//! concatenation keep it.
//!
//! Refuses when the slice cuts a part.
//!
//! Order: after `canonicalize_attributes`, which makes starts and ends parameters.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{Concat, Slice};
use trt_fuse_ir::{Dim, Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::{Miss, Rule, RuleContext};

/// Drops a slice that takes whole parts of a concatenation.
#[derive(Debug, Default)]
pub(crate) struct DropConcatSlice;

impl Rule for DropConcatSlice {
    fn name(&self) -> &'static str {
        "drop_concat_slice"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Slice]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Slice(slice)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let (axis, start, end) = one_axis(slice).ok_or(Miss::NoMatch)?;
        let whole = graph.input(root, 0).ok_or(Miss::NoMatch)?;
        let Some(Op::Concat(concat)) = graph.op(whole.node) else { return Err(Miss::NoMatch) };
        let rank = graph.info(whole).and_then(|info| info.rank()).ok_or(Miss::NoMatch)?;
        if resolve_axis(concat.axis, rank) != Ok(axis) {
            return Err(Miss::NoMatch);
        }
        let parts = graph.node_inputs(whole.node);
        let run = run_between(graph, &parts, axis, start, end)
            .ok_or(Miss::Blocked { reason: "the slice cuts a part", at: root })?;
        if run.len() == parts.len() {
            return Err(Miss::NoEffect);
        }
        let mut patch = Patch::new(self.name(), root);
        let value = match run {
            [Some(part)] => *part,
            run => patch.add(Concat { axis: concat.axis }, run),
        };
        patch.replace(root.into(), value).absorb([root]);
        Ok(patch)
    }
}

/// Axis, start and end of a slice of one axis in steps of 1.
fn one_axis(slice: &Slice) -> Option<(usize, &Dim, &Dim)> {
    let Slice { axes: Some(axes), starts: Some(starts), ends: Some(ends), steps: Some(steps) } = slice else {
        return None;
    };
    match (axes.as_slice(), starts.as_slice(), ends.as_slice(), steps.as_slice()) {
        ([axis], [start], [end], [1]) => Some((usize::try_from(*axis).ok()?, start, end)),
        _ => None,
    }
}

/// The parts from the offset `start` to the offset `end`, at least one.
fn run_between<'a>(
    graph: &Graph,
    parts: &'a [Option<ValueRef>],
    axis: usize,
    start: &Dim,
    end: &Dim,
) -> Option<&'a [Option<ValueRef>]> {
    let mut offset = Dim::fixed(0);
    let mut first = None;
    for (at, part) in parts.iter().enumerate() {
        if first.is_none() && offset == *start {
            first = Some(at);
        }
        offset = &offset + graph.info((*part)?)?.shape.as_ref()?.get(axis)?;
        if let Some(first) = first
            && offset == *end
        {
            return parts.get(first..=at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::DropConcatSlice;
    use crate::testing::run_rule;

    fn of_concat(start: &str, end: &str, step: &str) -> String {
        format!(
            "graph g(%a: f32[m, 2], %b: f32[m, n], %c: f32[m, 4]) -> (%y) {{
              %k = concat(%a, %b, %c) axis=1
              %s = slice(%k) axes=[1] starts=[{start}] ends=[{end}] steps=[{step}]
              %y = relu(%s)
            }}"
        )
    }

    #[test]
    fn one_part_passes_by() {
        let run = run_rule(DropConcatSlice, &of_concat("2", "(n+2)", "1"));
        assert_snapshot!(run.after, @r"
        graph g(%a: f32[m, 2], %b: f32[m, n], %c: f32[m, 4]) -> (%y) {
          %y = relu(%b) : f32[m, n]
        }
        ");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn several_parts_become_a_concatenation_of_fewer() {
        let run = run_rule(DropConcatSlice, &of_concat("2", "(n+6)", "1"));
        assert_snapshot!(run.after, @r"
        graph g(%a: f32[m, 2], %b: f32[m, n], %c: f32[m, 4]) -> (%y) {
          %s = concat(%b, %c) axis=1 : f32[m, n+4]
          %y = relu(%s) : f32[m, n+4]
        }
        ");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn refuses_a_cut_part() {
        assert_eq!(run_rule(DropConcatSlice, &of_concat("0", "1", "1")).reasons(), ["the slice cuts a part"]);
        assert_eq!(run_rule(DropConcatSlice, &of_concat("1", "(n+2)", "1")).reasons(), ["the slice cuts a part"]);
    }

    #[test]
    fn all_parts_and_other_steps_are_no_match() {
        let another_axis = of_concat("0", "m", "1").replace("slice(%k) axes=[1]", "slice(%k) axes=[0]");
        for text in [of_concat("0", "(n+6)", "1"), of_concat("0", "2", "2"), another_axis] {
            let run = run_rule(DropConcatSlice, &text);
            assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
        }
    }
}
