//! Merges a slice of a slice into one.
//!
//! ```text
//! %s = slice(%x) axes=[1] starts=[2] ends=[8] steps=[1]      %y = slice(%x) axes=[1] starts=[3] ends=[6] steps=[1]
//! %y = slice(%s) axes=[1] starts=[1] ends=[4] steps=[1]
//! ```
//!
//! Fires when both have their bounds as parameters: axes that only one cuts are taken over, bounds on the same axis
//! are added up. Other readers of the first one keep it.
//!
//! Refuses when both cut the same axis and
//! - an axis is walked backwards;
//! - an axis is cut in larger steps, at bounds that are not numbers.
//!
//! Order: after `canonicalize_attributes`, which makes bounds parameters within the size.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::op::Slice;
use trt_fuse_ir::{Dim, Graph, Ints, NodeId, Op, OpKind, Patch, Shape};

use crate::{Miss, Rule, RuleContext};

/// Merges a slice of a slice into one.
#[derive(Debug, Default)]
pub(crate) struct MergeSlices;

/// What a slice does to one axis.
struct Cut {
    axis: i64,
    start: Dim,
    end: Dim,
    step: i64,
}

impl Rule for MergeSlices {
    fn name(&self) -> &'static str {
        "merge_slices"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Slice]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let outer = cuts(graph, root).ok_or(Miss::NoMatch)?;
        let middle = graph.input(root, 0).ok_or(Miss::NoMatch)?;
        let mut merged = cuts(graph, middle.node).ok_or(Miss::NoMatch)?;
        let x = graph.input(middle.node, 0).ok_or(Miss::NoMatch)?;
        for cut in outer {
            match merged.iter_mut().find(|inner| inner.axis == cut.axis) {
                Some(inner) => *inner = compose(inner, &cut).map_err(|reason| Miss::Blocked { reason, at: root })?,
                None => merged.push(cut),
            }
        }
        merged.sort_by_key(|cut| cut.axis);
        let slice = Slice {
            axes: Some(merged.iter().map(|cut| cut.axis).collect::<Ints>()),
            starts: Some(merged.iter().map(|cut| cut.start.clone()).collect::<Shape>()),
            ends: Some(merged.iter().map(|cut| cut.end.clone()).collect::<Shape>()),
            steps: Some(merged.iter().map(|cut| cut.step).collect::<Ints>()),
        };
        let mut patch = Patch::new(self.name(), root);
        let value = patch.add(slice, &[Some(x)]);
        patch.replace(root.into(), value).absorb([root]);
        if graph.sole_consumer(middle).is_some() {
            patch.absorb([middle.node]);
        } else {
            patch.inherit([middle.node]);
        }
        Ok(patch)
    }
}

/// What a slice does to each axis, if its bounds are parameters.
fn cuts(graph: &Graph, id: NodeId) -> Option<Vec<Cut>> {
    let Some(Op::Slice(slice)) = graph.op(id) else { return None };
    let bounds = slice.starts.as_ref()?.iter().zip(slice.ends.as_ref()?);
    let axes = slice.axes.as_ref()?.iter().zip(slice.steps.as_ref()?);
    let cut = |((start, end), (axis, step)): ((&Dim, &Dim), (&i64, &i64))| Cut {
        axis: *axis,
        start: start.clone(),
        end: end.clone(),
        step: *step,
    };
    Some(bounds.zip(axes).map(cut).collect())
}

/// The cut that `inner` and then `outer` make on one axis. Bounds lie within the size of what they cut.
fn compose(inner: &Cut, outer: &Cut) -> Result<Cut, &'static str> {
    if inner.step < 0 || outer.step < 0 {
        return Err("an axis is walked backwards");
    }
    if inner.step == 1 {
        return Ok(Cut {
            axis: inner.axis,
            start: &inner.start + &outer.start,
            end: &inner.start + &outer.end,
            step: outer.step,
        });
    }
    let bounds = (inner.start.value(), outer.start.value(), outer.end.value());
    let (Some(base), Some(start), Some(end)) = bounds else {
        return Err("an axis is cut in larger steps, at bounds that are not numbers");
    };
    let place = |at: i64| base.saturating_add(at.saturating_mul(inner.step));
    // One past the last element taken, which may lie well before the end of its step.
    let end = if end > start { place(end - 1).saturating_add(1) } else { place(start) };
    let step = inner.step.saturating_mul(outer.step);
    Ok(Cut { axis: inner.axis, start: Dim::fixed(place(start)), end: Dim::fixed(end), step })
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::MergeSlices;
    use crate::testing::run_rule;

    fn two(inner: &str, outer: &str) -> String {
        format!("graph g(%x: f32[n, 12]) -> (%y) {{ %s = slice(%x) {inner} %y = slice(%s) {outer} }}")
    }

    #[test]
    fn bounds_are_added_up() {
        let text = two("axes=[1] starts=[2] ends=[8] steps=[1]", "axes=[1] starts=[1] ends=[4] steps=[2]");
        let run = run_rule(MergeSlices, &text);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 12]) -> (%y) {
          %y = slice(%x) axes=[1] starts=[3] ends=[6] steps=[2] : f32[n, 2]
        }
        ");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn symbolic_bounds_are_added_up() {
        let text =
            "graph g(%x: f32[n+6], %z: f32[n]) -> (%y) { %s = slice(%x) axes=[0] starts=[1] ends=[(n+6)] steps=[1]
            %y = slice(%s) axes=[0] starts=[2] ends=[(n+4)] steps=[1] }";
        let run = run_rule(MergeSlices, text);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n+6], %z: f32[n]) -> (%y) {
          %y = slice(%x) axes=[0] starts=[3] ends=[(n+5)] steps=[1] : f32[n+2]
        }
        ");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn larger_steps_multiply() {
        // Elements 1, 4, 7, 10, of which the second and the fourth.
        let text = two("axes=[1] starts=[1] ends=[12] steps=[3]", "axes=[1] starts=[1] ends=[4] steps=[2]");
        let run = run_rule(MergeSlices, &text);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 12]) -> (%y) {
          %y = slice(%x) axes=[1] starts=[4] ends=[11] steps=[6] : f32[n, 2]
        }
        ");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn other_axes_are_taken_over() {
        let text = two("axes=[1] starts=[1] ends=[5] steps=[1]", "axes=[0] starts=[0] ends=[n] steps=[2]");
        let run = run_rule(MergeSlices, &text);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 12]) -> (%y) {
          %y = slice(%x) axes=[0, 1] starts=[0, 1] ends=[n, 5] steps=[2, 1] : f32[(n+1)/2, 4]
        }
        ");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn another_reader_keeps_the_first() {
        let text = "
            graph g(%x: f32[n, 12]) -> (%s, %y) {
              %s = slice(%x) axes=[1] starts=[2] ends=[8] steps=[1]
              %y = slice(%s) axes=[1] starts=[1] ends=[4] steps=[1]
            }";
        let run = run_rule(MergeSlices, text);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 12]) -> (%s, %y) {
          %s = slice(%x) axes=[1] starts=[2] ends=[8] steps=[1] : f32[n, 6]
          %y = slice(%x) axes=[1] starts=[3] ends=[6] steps=[1] : f32[n, 3]
        }
        ");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn refuses_an_axis_walked_backwards() {
        let text = two("axes=[1] starts=[11] ends=[-1] steps=[-1]", "axes=[1] starts=[1] ends=[4] steps=[1]");
        assert_eq!(run_rule(MergeSlices, &text).reasons(), ["an axis is walked backwards"]);
        let text = two("axes=[1] starts=[1] ends=[9] steps=[1]", "axes=[1] starts=[7] ends=[-1] steps=[-1]");
        assert_eq!(run_rule(MergeSlices, &text).reasons(), ["an axis is walked backwards"]);
    }

    #[test]
    fn an_axis_that_one_walks_backwards_is_taken_over() {
        let text = two("axes=[1] starts=[11] ends=[-1] steps=[-1]", "axes=[0] starts=[0] ends=[n] steps=[2]");
        let run = run_rule(MergeSlices, &text);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 12]) -> (%y) {
          %y = slice(%x) axes=[0, 1] starts=[0, 11] ends=[n, -1] steps=[2, -1] : f32[(n+1)/2, 12]
        }
        ");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn refuses_larger_steps_at_bounds_that_are_not_numbers() {
        let text = two("axes=[0] starts=[0] ends=[n] steps=[2]", "axes=[0] starts=[0] ends=[(n/4)] steps=[1]");
        let reason = "an axis is cut in larger steps, at bounds that are not numbers";
        assert_eq!(run_rule(MergeSlices, &text).reasons(), [reason]);
    }
}
