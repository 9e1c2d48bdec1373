//! Finds a tensor that is cut in two along an axis and joined the other way round.
//!
//! ```text
//! %1 = slice(%x) axes=[1] starts=[3] ends=[n] steps=[1]
//! %2 = slice(%x) axes=[1] starts=[0] ends=[3] steps=[1]
//! %y = concat(%1, %2) axis=1
//! ```
//! becomes
//! ```text
//! %y = roll(%x) axes=[1] shifts=[3]
//! ```
//!
//! Fires on one axis at a time, and takes a roll in front of it in: shifts of one axis, whose size must be known for that,
//! are added. What comes back to where it was is dropped.
//!
//! Refuses when: a part has another reader; "the sum of two shifts may be larger than the axis" where the size is a symbol.
//! Parts that are not all of the axis are no match.
//!
//! Order: after `canonicalize_attributes`, which tells the slices' bounds; before `merge_slices`.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::Roll;
use trt_fuse_ir::{Dim, Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseRoll;

impl Rule for FuseRoll {
    fn name(&self) -> &'static str {
        "fuse_roll"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Concat, OpKind::Roll]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        match graph.op(root) {
            Some(Op::Concat(op)) => found(graph, root, op.axis).ok_or(Miss::NoMatch),
            Some(Op::Roll(outer)) => merged(graph, root, outer),
            _ => Err(Miss::NoMatch),
        }
    }
}

fn found(graph: &Graph, root: NodeId, axis: i64) -> Option<Patch> {
    let [Some(first), Some(second)] = *graph.node_inputs(root) else { return None };
    let (front, back) = (cut(graph, second)?, cut(graph, first)?);
    let rank = graph.info(front.x)?.rank()?;
    let axis = resolve_axis(axis, rank).ok()? as i64;
    let size = size(graph, front.x, axis)?;
    let is_whole = front.x == back.x
        && (front.axis, back.axis) == (axis, axis)
        && front.start.is(0)
        && front.end == back.start
        && back.end == size;
    if !is_whole {
        return None;
    }
    // Where the axis is shorter than the shift, the parts are no roll.
    let shift = if front.end == size { 0 } else { front.end.value().filter(|_| (size - front.end).at_least(0))? };
    let mut patch = Patch::new("fuse_roll", root);
    let y = rolled(&mut patch, front.x, &[(axis, shift)]);
    patch.replace(root.into(), y).absorb([root, first.node, second.node]);
    Some(patch)
}

fn size(graph: &Graph, value: ValueRef, axis: i64) -> Option<&Dim> {
    graph.info(value)?.shape.as_ref()?.get(usize::try_from(axis).ok()?)
}

/// A value with its axes rolled, those that are not left out.
fn rolled(patch: &mut Patch, x: ValueRef, shifts: &[(i64, i64)]) -> ValueRef {
    let moved: Vec<(i64, i64)> = shifts.iter().copied().filter(|(_, shift)| *shift != 0).collect();
    let op = Roll { axes: moved.iter().map(|m| m.0).collect(), shifts: moved.iter().map(|m| m.1).collect() };
    if moved.is_empty() { x } else { patch.add(op, &[Some(x)]) }
}

/// A slice of one axis.
struct Cut<'g> {
    x: ValueRef,
    axis: i64,
    start: &'g Dim,
    end: &'g Dim,
}

fn cut(graph: &Graph, value: ValueRef) -> Option<Cut<'_>> {
    let Op::Slice(op) = graph.op(value.node)? else { return None };
    let one = (op.axes.as_deref()?, op.starts.as_deref()?, op.ends.as_deref()?, op.steps.as_deref()?);
    let ([axis], [start], [end], [1]) = one else { return None };
    Some(Cut { x: graph.input(value.node, 0)?, axis: *axis, start, end })
}

/// A roll of a roll.
fn merged(graph: &Graph, root: NodeId, outer: &Roll) -> Result<Patch, Miss> {
    let middle = graph.input(root, 0).ok_or(Miss::NoMatch)?;
    let Some(Op::Roll(inner)) = graph.op(middle.node) else { return Err(Miss::NoMatch) };
    let mut shifts: Vec<(i64, i64)> = inner.axes.iter().copied().zip(inner.shifts.iter().copied()).collect();
    for (axis, shift) in outer.axes.iter().zip(&outer.shifts) {
        let Some((_, before)) = shifts.iter_mut().find(|(found, _)| found == axis) else {
            shifts.push((*axis, *shift));
            continue;
        };
        let size = size(graph, middle, *axis).and_then(Dim::value).filter(|size| *size > 0);
        let sum = before.checked_add(*shift).zip(size).and_then(|(sum, size)| sum.checked_rem_euclid(size));
        let reason = "the sum of two shifts may be larger than the axis";
        *before = sum.ok_or(Miss::Blocked { reason, at: root })?;
    }
    let x = graph.input(middle.node, 0).ok_or(Miss::NoMatch)?;
    let mut patch = Patch::new("fuse_roll", root);
    let y = rolled(&mut patch, x, &shifts);
    patch.replace(root.into(), y).absorb([root, middle.node]);
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(body: &str, outputs: &str) -> Run {
        run_rule(FuseRoll, &format!("graph g(%x: f32[n, 6, 4]) -> ({outputs}) {{ {body} }}"))
    }

    const ROWS: &str = "%1 = slice(%x) axes=[1] starts=[2] ends=[6] steps=[1]
        %2 = slice(%x) axes=[1] starts=[0] ends=[2] steps=[1]";

    #[test]
    fn fires_on_two_axes() {
        let columns = "%4 = slice(%3) axes=[2] starts=[1] ends=[4] steps=[1]
            %5 = slice(%3) axes=[2] starts=[0] ends=[1] steps=[1] %y = concat(%4, %5) axis=-1";
        let run = run(&format!("{ROWS} %3 = concat(%1, %2) axis=1 {columns}"), "%y");
        insta::assert_snapshot!(run.equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 6, 4]) -> (%y) {
          %y = roll(%x) axes=[1, 2] shifts=[2, 1] : f32[n, 6, 4]
        }
        ");
    }

    #[test]
    fn fires_on_a_symbolic_axis() {
        let text = |shift: i64| {
            format!(
                "graph g(%x: f32[n+1, 4]) -> (%y) {{
                %1 = slice(%x) axes=[0] starts=[{shift}] ends=[(n+1)] steps=[1]
                %2 = slice(%x) axes=[0] starts=[0] ends=[{shift}] steps=[1] %y = concat(%1, %2) axis=0 }}"
            )
        };
        assert_eq!(run_rule(FuseRoll, &text(1)).rewrites, 1);
        // Of two rows, two is no roll by two.
        assert_eq!(run_rule(FuseRoll, &text(2)).rewrites, 0);
    }

    #[test]
    fn shifts_of_one_axis_are_added() {
        let again = "%4 = slice(%3) axes=[1] starts=[3] ends=[6] steps=[1]
            %5 = slice(%3) axes=[1] starts=[0] ends=[3] steps=[1] %y = concat(%4, %5) axis=1";
        let run = run(&format!("{ROWS} %3 = concat(%1, %2) axis=1 {again}"), "%y");
        insta::assert_snapshot!(run.equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 6, 4]) -> (%y) {
          %y = roll(%x) axes=[1] shifts=[5] : f32[n, 6, 4]
        }
        ");
    }

    #[test]
    fn what_comes_back_is_dropped() {
        for rolls in [
            "%2 = roll(%1) axes=[1] shifts=[4] %3 = roll(%2) axes=[1] shifts=[2]",
            "%2 = roll(%1) axes=[2, 1] shifts=[1, 4] %3 = roll(%2) axes=[1, 2] shifts=[2, 3]",
            "%a = slice(%1) axes=[1] starts=[0] ends=[6] steps=[1] %b = slice(%1) axes=[1] starts=[0] ends=[0] steps=[1]
                %3 = concat(%a, %b) axis=1",
            "%a = slice(%1) axes=[0] starts=[n] ends=[n] steps=[1] %b = slice(%1) axes=[0] starts=[0] ends=[n] steps=[1]
                %3 = concat(%a, %b) axis=0",
        ] {
            let run = run(&format!("%1 = relu(%x) {rolls} %y = neg(%3)"), "%y");
            let after = run.equal_within(0.0, 2).after.to_string();
            assert!(run.rewrites == 1 && !after.contains("roll") && !after.contains("concat"), "{after}");
        }
    }

    #[test]
    fn refuses_to_add_shifts_of_a_symbolic_axis() {
        let body = "%1 = roll(%x) axes=[0] shifts=[1] %y = roll(%1) axes=[0] shifts=[1]";
        let run = run(body, "%y");
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["the sum of two shifts may be larger than the axis"]));
    }

    #[test]
    fn refuses_a_part_with_another_reader() {
        let run = run(&format!("{ROWS} %y = concat(%1, %2) axis=1"), "%y, %2");
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["output of `2` also read by `an output of the graph`"]));
    }

    #[test]
    fn leaves_parts_that_are_joined_along_another_axis_alone() {
        let text = |axis: i64| {
            format!(
                "graph g(%x: f32[6, 6]) -> (%y) {{ %1 = slice(%x) axes=[1] starts=[3] ends=[6] steps=[1]
                %2 = slice(%x) axes=[1] starts=[0] ends=[3] steps=[1] %y = concat(%1, %2) axis={axis} }}"
            )
        };
        assert_eq!([0, 1].map(|axis| run_rule(FuseRoll, &text(axis)).rewrites), [0, 1]);
    }

    #[test]
    fn leaves_others_alone() {
        for body in [
            &format!("{ROWS} %y = concat(%2, %1) axis=1"),
            "%1 = slice(%x) axes=[1] starts=[3] ends=[6] steps=[1] %2 = slice(%x) axes=[1] starts=[0] ends=[2] steps=[1]
                %y = concat(%1, %2) axis=1",
            "%1 = slice(%x) axes=[1] starts=[3] ends=[6] steps=[1] %2 = slice(%x) axes=[1] starts=[0] ends=[3] steps=[1]
                %y = concat(%1, %2) axis=0",
            "%1 = slice(%x) axes=[1] starts=[2] ends=[6] steps=[2] %2 = slice(%x) axes=[1] starts=[0] ends=[2] steps=[1]
                %y = concat(%1, %2) axis=1",
            // Less than the axis at its end, and at its beginning.
            "%1 = slice(%x) axes=[1] starts=[2] ends=[5] steps=[1] %2 = slice(%x) axes=[1] starts=[0] ends=[2] steps=[1]
                %y = concat(%1, %2) axis=1",
            "%1 = slice(%x) axes=[1] starts=[2] ends=[6] steps=[1] %2 = slice(%x) axes=[1] starts=[1] ends=[2] steps=[1]
                %y = concat(%1, %2) axis=1",
            // Of two tensors.
            "%z = neg(%x) %1 = slice(%x) axes=[1] starts=[2] ends=[6] steps=[1]
                %2 = slice(%z) axes=[1] starts=[0] ends=[2] steps=[1] %y = concat(%1, %2) axis=1",
        ] {
            assert_eq!(run(body, "%y").rewrites, 0, "{body}");
        }
    }
}
