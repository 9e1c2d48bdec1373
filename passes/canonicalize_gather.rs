//! Writes Gather and GatherND of neighbours as Slice and Reshape.
//!
//! ```text
//! %y = gather(%x, [[4, 5, 6, 7]]) axis=1 : f32[n, 1, 4]
//! ```
//! becomes
//! ```text
//! %1 = slice(%x) axes=[1] starts=[4] ends=[8] steps=[1] : f32[n, 4]
//! %y = reshape(%1) shape=[n, 1, 4] : f32[n, 1, 4]
//! ```
//!
//! Fires on constant indices of rank 1 or more that count up by one, wherever in the axis; if they are all of the axis, on
//! the reshape alone. Computed indices of a Gather that are all places of the axis in order are known too, whatever the
//! sizes: `range(0, n) * m + range(0, m)` of an axis of `n*m`. The tuples of a GatherND are taken as places in the leading
//! axes that they index.
//!
//! Never refuses: other indices, and a single one of rank 0, are no match.
//!
//! Order: before `merge_slices` and `merge_layouts`, which merge what this gives.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{Reshape, Slice};
use trt_fuse_ir::{Dim, Graph, NodeId, Op, OpKind, Patch, Shape, Tensor, ValueRef};

use crate::pass::{Miss, Rule, RuleContext};
use crate::progression::Progression;

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct CanonicalizeGather;

impl Rule for CanonicalizeGather {
    fn name(&self) -> &'static str {
        "canonicalize_gather"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Gather, OpKind::GatherNd]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let x = graph.input(root, 0).ok_or(Miss::NoMatch)?;
        let shape = |value| graph.info(value).and_then(|info| info.shape.as_ref());
        let (data, result) = (shape(x).ok_or(Miss::NoMatch)?, shape(root.into()).ok_or(Miss::NoMatch)?);
        let indices = graph.input(root, 1).ok_or(Miss::NoMatch)?;
        let Some(indices) = graph.constant(indices) else {
            let is_all = matches!(graph.op(root), Some(Op::Gather(op)) if counts_axis(graph, data, op.axis, indices));
            if !is_all || !context.symbols.tell(result) {
                return Err(Miss::NoMatch);
            }
            let mut patch = Patch::new(self.name(), root);
            let y = patch.add(Reshape { shape: Some(result.clone()), allow_zero: false }, &[Some(x)]);
            patch.replace(root.into(), y).absorb([root]);
            return Ok(patch);
        };
        let run = match graph.op(root) {
            Some(Op::Gather(op)) => along_axis(data, op.axis, indices),
            Some(Op::GatherNd(op)) if op.batch_dims == 0 => along_leading_axes(data, indices),
            _ => None,
        };
        let run = run.filter(|_| context.symbols.tell(result)).ok_or(Miss::NoMatch)?;
        let mut patch = Patch::new(self.name(), root);
        let reshape = |x: ValueRef, from: &Shape, to: &Shape, patch: &mut Patch| {
            if from == to { x } else { patch.add(Reshape { shape: Some(to.clone()), allow_zero: false }, &[Some(x)]) }
        };
        let mut y = reshape(x, data, &run.folded, &mut patch);
        let mut cut = run.folded.clone();
        let size = cut.get_mut(run.axis).ok_or(Miss::NoMatch)?;
        if !(run.start == 0 && size.is(run.length)) {
            *size = Dim::fixed(run.length);
            let bound = |bound| Some([Dim::fixed(bound)].into_iter().collect());
            let slice = Slice {
                axes: Some([run.axis as i64].into_iter().collect()),
                starts: bound(run.start),
                ends: bound(run.start + run.length),
                steps: Some([1].into_iter().collect()),
            };
            y = patch.add(slice, &[Some(y)]);
        }
        let y = reshape(y, &cut, result, &mut patch);
        patch.replace(root.into(), y).absorb([root]);
        Ok(patch)
    }
}

/// Neighbours along an axis.
struct Run {
    /// The shape of the data in which they are neighbours.
    folded: Shape,
    axis: usize,
    start: i64,
    length: i64,
}

/// Whether computed indices are all places of an axis in order.
fn counts_axis(graph: &Graph, data: &Shape, axis: i64, indices: ValueRef) -> bool {
    let size = resolve_axis(axis, data.len()).ok().and_then(|axis| data.get(axis));
    let count = graph.info(indices).and_then(|info| info.numel());
    size.is_some() && size == count.as_ref() && Progression::of(graph, indices).is_some_and(|found| found.is_count())
}

/// The first of numbers that count up by one.
fn first_of_run(places: &[i64]) -> Option<i64> {
    places
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.checked_add(1) == Some(*b)))
        .then(|| places.first().copied())?
}

fn along_axis(data: &Shape, axis: i64, indices: &Tensor) -> Option<Run> {
    let axis = resolve_axis(axis, data.len()).ok()?;
    let size = data.get(axis)?.value()?;
    if indices.splat_element().is_some() && indices.numel() > 1 {
        return None;
    }
    let places: Vec<i64> = indices.to_i64s()?.iter().map(|at| if *at < 0 { at + size } else { *at }).collect();
    let start = first_of_run(&places)?;
    let length = places.len() as i64;
    let is_inside = indices.rank() > 0 && start >= 0 && start.checked_add(length)? <= size;
    is_inside.then(|| Run { folded: data.clone(), axis, start, length })
}

/// Tuples of indices as places in the axes that they index, folded to one.
fn along_leading_axes(data: &Shape, indices: &Tensor) -> Option<Run> {
    let width = *indices.dims().last()?;
    let (indexed, rest) = data.split_at_checked(width)?;
    let sizes: Vec<i64> = indexed.iter().map(Dim::value).collect::<Option<_>>()?;
    let mut places = Vec::new();
    for tuple in indices.to_i64s()?.chunks(width.max(1)) {
        let mut place = 0i64;
        for (at, size) in tuple.iter().zip(&sizes) {
            let at = if *at < 0 { at + size } else { *at };
            if !(0..*size).contains(&at) {
                return None;
            }
            place = place.checked_mul(*size)?.checked_add(at)?;
        }
        places.push(place);
    }
    let start = first_of_run(&places)?;
    let folded = [Dim::product(indexed)].into_iter().chain(rest.iter().cloned()).collect();
    (width > 0).then(|| Run { folded, axis: 0, start, length: places.len() as i64 })
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(indices: &str, op: &str) -> Run {
        let text = format!("graph g(%x: f32[n, 8]) -> (%y) {{ %i = constant() value={indices} %y = {op} }}");
        run_rule(CanonicalizeGather, &text)
    }

    #[test]
    fn neighbours_are_a_slice() {
        let run = run("i64[1, 3] {4, 5, 6}", "gather(%x, %i) axis=1");
        assert_snapshot!(run.equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 8]) -> (%y) {
          %y.1 = slice(%x) axes=[1] starts=[4] ends=[7] steps=[1] : f32[n, 3]
          %y = reshape(%y.1) shape=[n, 1, 3] : f32[n, 1, 3]
        }
        ");
        assert_eq!(self::run("i64[2] {0, 1}", "gather(%x, %i) axis=1").equal_within(0.0, 2).rewrites, 1);
        assert_eq!(self::run("i64[2] {-2, -1}", "gather(%x, %i) axis=-1").equal_within(0.0, 2).rewrites, 1);
    }

    #[test]
    fn all_of_an_axis_are_a_reshape() {
        let run = run("i64[2, 4] {0, 1, 2, 3, 4, 5, 6, 7}", "gather(%x, %i) axis=1");
        assert_snapshot!(run.equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 8]) -> (%y) {
          %y = reshape(%x) shape=[n, 2, 4] : f32[n, 2, 4]
        }
        ");
    }

    #[test]
    fn tuples_are_places() {
        let text = "graph g(%x: f32[2, 3, n]) -> (%y) {
            %i = constant() value=i64[1, 3, 2] {0, 2, 1, 0, 1, -2} %y = gather_nd(%x, %i) batch_dims=0 }";
        assert_snapshot!(run_rule(CanonicalizeGather, text).equal_within(0.0, 2).after, @"
        graph g(%x: f32[2, 3, n]) -> (%y) {
          %y.1 = reshape(%x) shape=[6, n] : f32[6, n]
          %y.2 = slice(%y.1) axes=[0] starts=[2] ends=[5] steps=[1] : f32[3, n]
          %y = reshape(%y.2) shape=[1, 3, n] : f32[1, 3, n]
        }
        ");
    }

    #[test]
    fn tuples_outside_or_of_a_batch_stay() {
        for (indices, batch_dims, rewrites) in [
            ("i64[2, 2] {0, 1, 0, 2}", 0, 1),
            // A place after the row's end would be the next row's first.
            ("i64[2, 2] {0, 2, 0, 3}", 0, 0),
            ("i64[2, 1] {0, 1}", 1, 0),
        ] {
            let text = format!(
                "graph g(%x: f32[2, 3]) -> (%y) {{
                %i = constant() value={indices} %y = gather_nd(%x, %i) batch_dims={batch_dims} }}"
            );
            assert_eq!(run_rule(CanonicalizeGather, &text).rewrites, rewrites, "{indices}");
        }
    }

    #[test]
    fn computed_places_of_another_axis_stay() {
        let text = |size: &str| {
            format!(
                "graph g(%x: f32[n, {size}]) -> (%y) {{ %zero = constant() value=i64[] {{0}}
                %one = constant() value=i64[] {{1}} %s = shape(%x) start=0 %n = gather(%s, %zero) axis=0
                %i = range(%zero, %n, %one) %y = gather(%x, %i) axis=1 }}"
            )
        };
        assert_eq!(["m", "n"].map(|size| run_rule(CanonicalizeGather, &text(size)).rewrites), [0, 1]);
    }

    /// Rows of a matrix, each gathered by its place among all: how an exporter indexes a mask by batch and position.
    fn indexed(width: &str) -> Run {
        let text = format!(
            "graph g(%x: f32[n, m], %w: i64[]) -> (%y) {{
            %zero = constant() value=i64[] {{0}} %one = constant() value=i64[] {{1}}
            %s = shape(%x) start=0 %n = gather(%s, %zero) axis=0 %m = gather(%s, %one) axis=0
            %a = range(%zero, %n, %one) %rows = reshape(%a) shape=[n, 1, 1] %b = range(%zero, %m, %one)
            %columns = reshape(%b) shape=[1, 1, m] %c = mul(%rows, {width}) %i = add(%c, %columns)
            %flat = reshape(%x) shape=[(n*m), 1] %y = gather(%flat, %i) axis=0 }}"
        );
        run_rule(CanonicalizeGather, &text)
    }

    #[test]
    fn computed_places_of_a_whole_axis_are_a_reshape() {
        let run = indexed("%m");
        let after = run.equal_within(0.0, 3).after.to_string();
        assert!(run.rewrites == 1 && after.contains("%y = reshape(%flat) shape=[n, 1, m, 1]"), "{after}");
    }

    #[test]
    fn computed_places_in_another_order_stay() {
        for width in ["%n", "%one", "%w"] {
            assert_eq!(indexed(width).rewrites, 0, "{width}");
        }
    }

    #[test]
    fn leaves_others_alone() {
        for (indices, op) in [
            ("i64[] {4}", "gather(%x, %i) axis=1"),
            ("i64[2] {4, 6}", "gather(%x, %i) axis=1"),
            ("i64[2] {5, 4}", "gather(%x, %i) axis=1"),
            ("i64[2] {0, 1}", "gather(%x, %i) axis=0"),
            ("i64[2, 1] {0, 1}", "gather_nd(%x, %i) batch_dims=0"),
        ] {
            assert_eq!(run(indices, op).rewrites, 0, "{indices} {op}");
        }
    }
}
