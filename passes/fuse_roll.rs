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
//! Fires on one axis at a time, and takes a roll of another axis in front of it in.
//!
//! Refuses when: a part has another reader. Parts that are not all of the axis are no match.
//!
//! Order: after `canonicalize_attributes`, which tells the slices' bounds; before `merge_slices`.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::Roll;
use trt_fuse_ir::{Dim, Graph, Ints, NodeId, Op, OpKind, Patch, ValueRef};

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
        found(graph, root).or_else(|| merged(graph, root)).ok_or(Miss::NoMatch)
    }
}

fn found(graph: &Graph, root: NodeId) -> Option<Patch> {
    let Op::Concat(op) = graph.op(root)? else { return None };
    let [Some(first), Some(second)] = *graph.node_inputs(root) else { return None };
    let (front, back) = (cut(graph, second)?, cut(graph, first)?);
    let rank = graph.info(front.x)?.rank()?;
    let axis = resolve_axis(op.axis, rank).ok()?;
    let size = graph.info(front.x)?.shape.as_ref()?.get(axis)?;
    let axis = axis as i64;
    let is_whole = front.x == back.x
        && (front.axis, back.axis) == (axis, axis)
        && front.start.is(0)
        && front.end == back.start
        && back.end == size;
    let shift = front.end.value().filter(|_| is_whole)?;
    let mut patch = Patch::new("fuse_roll", root);
    let op = Roll { axes: [axis].into_iter().collect(), shifts: [shift].into_iter().collect() };
    let y = patch.add(op, &[Some(front.x)]);
    patch.replace(root.into(), y).absorb([root, first.node, second.node]);
    Some(patch)
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

/// A roll of a roll of other axes.
fn merged(graph: &Graph, root: NodeId) -> Option<Patch> {
    let Op::Roll(outer) = graph.op(root)? else { return None };
    let middle = graph.input(root, 0)?;
    let Op::Roll(inner) = graph.op(middle.node)? else { return None };
    if graph.sole_consumer(middle).is_none() || outer.axes.iter().any(|axis| inner.axes.contains(axis)) {
        return None;
    }
    let joined = |a: &Ints, b: &Ints| a.iter().chain(b).copied().collect();
    let op = Roll { axes: joined(&inner.axes, &outer.axes), shifts: joined(&inner.shifts, &outer.shifts) };
    let mut patch = Patch::new("fuse_roll", root);
    let y = patch.add(op, &[Some(graph.input(middle.node, 0)?)]);
    patch.replace(root.into(), y).absorb([root, middle.node]);
    Some(patch)
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
        let body = "%1 = slice(%x) axes=[0] starts=[1] ends=[n] steps=[1]
            %2 = slice(%x) axes=[0] starts=[0] ends=[1] steps=[1] %y = concat(%1, %2) axis=0";
        assert_eq!(run(body, "%y").equal_within(0.0, 3).rewrites, 1);
    }

    #[test]
    fn refuses_a_part_with_another_reader() {
        let run = run(&format!("{ROWS} %y = concat(%1, %2) axis=1"), "%y, %2");
        assert_eq!((run.rewrites, run.reasons().len()), (0, 1));
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
        ] {
            assert_eq!(run(body, "%y").rewrites, 0, "{body}");
        }
    }
}
