//! Writes slices that cut an axis into parts, without a gap, as one Split.
//!
//! ```text
//! %a = slice(%x) axes=[1] starts=[0] ends=[4] steps=[1]      %a, %b = split(%x) axis=1 sizes=[4, n+1]
//! %b = slice(%x) axes=[1] starts=[4] ends=[n+5] steps=[1]
//! ```
//!
//! Fires on two slices or more of one axis each, if they follow each other from the first element to the last.
//!
//! Never refuses: slices that overlap or leave something out, a part that may be empty, and a value of more than
//! [`MOST`] readers are no match.
//!
//! Order: after `fuse_roll` and `fuse_rotary_embedding`, which look for slices, and after `merge_slices`; before `sink_parts`.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::op::Split;
use trt_fuse_ir::{Dim, Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseSplit;

/// Readers of one value that are looked through for parts.
const MOST: usize = 64;

impl Rule for FuseSplit {
    fn name(&self) -> &'static str {
        "fuse_split"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Slice]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let (axis, start, _) = part(graph, root).ok_or(Miss::NoMatch)?;
        if !start.is(0) {
            return Err(Miss::NoMatch);
        }
        let x = graph.input(root, 0).ok_or(Miss::NoMatch)?;
        if graph.reader_count(x) > MOST {
            return Err(Miss::NoMatch);
        }
        let readers = graph.consumers(x);
        let cuts = readers.iter().filter_map(|reader| Some((reader.node, part(graph, reader.node)?)));
        let cuts: Vec<_> = cuts.filter(|(_, (along, ..))| *along == axis).collect();
        let size = graph.info(x).and_then(|info| info.shape.as_ref()?.get(usize::try_from(axis).ok()?));
        let parts = in_a_row(cuts, size.ok_or(Miss::NoMatch)?).ok_or(Miss::NoMatch)?;
        let sizes = parts.iter().map(|(_, size)| size.clone()).collect();
        if parts.len() < 2 || !context.symbols.tell(parts.iter().map(|(_, size)| size)) {
            return Err(Miss::NoMatch);
        }
        let mut patch = Patch::new(self.name(), root);
        let split = patch.add_many(Split { axis, sizes: Some(sizes) }, &[Some(x)], parts.len());
        for (slot, (slice, _)) in parts.iter().enumerate() {
            patch.replace((*slice).into(), ValueRef { node: split, slot: slot as u32 });
        }
        patch.absorb(parts.into_iter().map(|(slice, _)| slice));
        Ok(patch)
    }
}

/// The axis, start and end of a slice of one axis.
fn part(graph: &Graph, id: NodeId) -> Option<(i64, &Dim, &Dim)> {
    let Op::Slice(op) = graph.op(id)? else { return None };
    match (op.axes.as_deref()?, op.starts.as_deref()?, op.ends.as_deref()?, op.steps.as_deref()?) {
        ([axis], [start], [end], [1]) => Some((*axis, start, end)),
        _ => None,
    }
}

/// The cuts in their order with their sizes, if each begins where the one before ends and the last one at the axis's end.
/// Every cut has its place.
fn in_a_row(mut cuts: Vec<(NodeId, (i64, &Dim, &Dim))>, size: &Dim) -> Option<Vec<(NodeId, Dim)>> {
    let (mut parts, mut at) = (Vec::new(), Dim::fixed(0));
    while !cuts.is_empty() {
        let next = cuts.iter().position(|(_, (_, start, _))| **start == at)?;
        let (id, (_, start, end)) = cuts.swap_remove(next);
        let length = end - start;
        if !length.at_least(1) {
            return None;
        }
        parts.push((id, length));
        at = end.clone();
    }
    (at == *size).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(body: &str, outputs: &str) -> Run {
        run_rule(FuseSplit, &format!("graph g(%x: f32[n, 6]) -> ({outputs}) {{ {body} }}"))
    }

    #[test]
    fn fires_on_parts_in_any_order() {
        let body = "%b = slice(%x) axes=[1] starts=[2] ends=[5] steps=[1] %a = slice(%x) axes=[1] starts=[0] ends=[2] steps=[1]
            %c = slice(%x) axes=[1] starts=[5] ends=[6] steps=[1] %d = relu(%x)";
        insta::assert_snapshot!(run(body, "%a, %b, %c, %d").equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 6]) -> (%a, %b, %c, %d) {
          %a, %b, %c = split(%x) axis=1 sizes=[2, 3, 1] : f32[n, 2], f32[n, 3], f32[n, 1]
          %d = relu(%x) : f32[n, 6]
        }
        ");
    }

    #[test]
    fn fires_on_symbolic_parts_that_are_not_empty() {
        let text = |size: &str| {
            format!(
                "graph g(%x: f32[m, {size}], %z: f32[n]) -> (%a, %b) {{ %a = slice(%x) axes=[1] starts=[0] ends=[4] steps=[1]
                %b = slice(%x) axes=[1] starts=[4] ends=[({size})] steps=[1] }}"
            )
        };
        let run = run_rule(FuseSplit, &text("n+5"));
        insta::assert_snapshot!(run.equal_within(0.0, 2).after, @"
        graph g(%x: f32[m, n+5], %z: f32[n]) -> (%a, %b) {
          %a, %b = split(%x) axis=1 sizes=[4, (n+1)] : f32[m, 4], f32[m, n+1]
        }
        ");
        assert_eq!(run_rule(FuseSplit, &text("n+4")).rewrites, 0);
    }

    #[test]
    fn a_slice_along_another_axis_stays() {
        let body = "%a = slice(%x) axes=[1] starts=[0] ends=[2] steps=[1] %b = slice(%x) axes=[1] starts=[2] ends=[6] steps=[1]
            %c = slice(%x) axes=[0] starts=[0] ends=[1] steps=[1]";
        insta::assert_snapshot!(run(body, "%a, %b, %c").equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 6]) -> (%a, %b, %c) {
          %a, %b = split(%x) axis=1 sizes=[2, 4] : f32[n, 2], f32[n, 4]
          %c = slice(%x) axes=[0] starts=[0] ends=[1] steps=[1] : f32[min(1, n), 6]
        }
        ");
    }

    #[test]
    fn leaves_a_value_of_very_many_readers_alone() {
        let text = |readers: usize| {
            let others: String = (0..readers - 2).map(|at| format!("%r{at} = relu(%x) ")).collect();
            let outputs: String = (0..readers - 2).map(|at| format!(", %r{at}")).collect();
            format!(
                "graph g(%x: f32[6]) -> (%a, %b{outputs}) {{ %a = slice(%x) axes=[0] starts=[0] ends=[4] steps=[1]
                %b = slice(%x) axes=[0] starts=[4] ends=[6] steps=[1] {others} }}"
            )
        };
        assert_eq!([64, 65].map(|readers| run_rule(FuseSplit, &text(readers)).rewrites), [1, 0]);
    }

    #[test]
    fn leaves_others_alone() {
        for (body, outputs) in [
            // A gap, an overlap, an end that is missing, steps, another axis.
            (
                "%a = slice(%x) axes=[1] starts=[0] ends=[2] steps=[1] %b = slice(%x) axes=[1] starts=[3] ends=[6] steps=[1]",
                "%a, %b",
            ),
            (
                "%a = slice(%x) axes=[1] starts=[0] ends=[4] steps=[1] %b = slice(%x) axes=[1] starts=[3] ends=[6] steps=[1]",
                "%a, %b",
            ),
            (
                "%a = slice(%x) axes=[1] starts=[0] ends=[2] steps=[1] %b = slice(%x) axes=[1] starts=[2] ends=[5] steps=[1]",
                "%a, %b",
            ),
            (
                "%a = slice(%x) axes=[1] starts=[0] ends=[2] steps=[1] %b = slice(%x) axes=[1] starts=[2] ends=[6] steps=[2]",
                "%a, %b",
            ),
            (
                "%a = slice(%x) axes=[1] starts=[0] ends=[2] steps=[1] %b = slice(%x) axes=[0] starts=[0] ends=[n] steps=[1]",
                "%a, %b",
            ),
            // The whole is no part.
            ("%a = slice(%x) axes=[1] starts=[0] ends=[6] steps=[1]", "%a"),
        ] {
            assert_eq!(run(body, outputs).rewrites, 0, "{body}");
        }
    }
}
