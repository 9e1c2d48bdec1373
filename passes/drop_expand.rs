//! Drops an expansion where its reader broadcasts anyway.
//!
//! ```text
//! %e = expand(%row) shape=[n, 4] : f32[n, 4]      %y = add(%x, %row) : f32[n, 4]
//! %y = add(%x, %e) : f32[n, 4]
//! ```
//!
//! Fires on an elementwise operator of two inputs and on `where`, if each dimension of the output is that of what is
//! expanded or of another operand, compared as expressions; on a second expansion; and on the mask of attention, if the axis
//! of keys stays, which attention pads and does not broadcast. Other readers of the expansion keep it.
//!
//! Refuses nothing; an expansion that alone gives a dimension is no match.
//!
//! Order: after `fold_constants` and `canonicalize_attributes`, which make the expansion's shape known.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::op::BinaryOp;
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, Shape, ValueRef};

use crate::pattern::expanded;
use crate::{Miss, Rule, RuleContext};

/// Drops an expansion where its reader broadcasts anyway.
#[derive(Debug, Default)]
pub(crate) struct DropExpand;

impl Rule for DropExpand {
    fn name(&self) -> &'static str {
        "drop_expand"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary, OpKind::Where, OpKind::Expand, OpKind::Attention]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _context: &RuleContext<'_>) -> Result<Patch, Miss> {
        if !graph.reads(root, OpKind::Expand) {
            return Err(Miss::NoMatch);
        }
        let inputs = graph.node_inputs(root);
        for slot in 0..inputs.len() {
            let Some(source) = graph.input(root, slot).and_then(|value| expanded(graph, value)) else { continue };
            let plain: Vec<_> =
                inputs.iter().enumerate().map(|(at, input)| if at == slot { Some(source) } else { *input }).collect();
            let op = graph.op(root).ok_or(Miss::NoMatch)?.clone();
            let broadcasts = match &op {
                Op::Expand(op) => slot == 0 && op.shape.is_some() && op.shape.as_ref() == shape(graph, root.into()),
                // Only the slope is broadcast.
                Op::Binary(BinaryOp::PRelu) if slot == 0 => false,
                Op::Attention(_) => slot == MASK && keeps_keys(graph, root, source),
                _ => gives_each_dim(graph, root, &plain),
            };
            if !broadcasts {
                continue;
            }
            let mut patch = Patch::new(self.name(), root);
            let value = patch.add(op, &plain);
            patch.replace(root.into(), value).absorb([root]);
            return Ok(patch);
        }
        Err(Miss::NoMatch)
    }
}

/// The input of attention that masks.
const MASK: usize = 3;

/// Whether a mask has the axis of keys that its expansion has. Of rank 0 it has none.
fn keeps_keys(graph: &Graph, root: NodeId, source: ValueRef) -> bool {
    let last = |value| shape(graph, value)?.last();
    let expanded = graph.input(root, MASK);
    expanded.is_some_and(|expanded| last(source).is_some() && last(source) == last(expanded))
}

fn shape(graph: &Graph, value: ValueRef) -> Option<&Shape> {
    graph.info(value)?.shape.as_ref()
}

/// Whether each dimension of a node's output is one of an operand. An operand broadcasts to the output as it is known
/// to, so that the others may be 1.
fn gives_each_dim(graph: &Graph, id: NodeId, operands: &[Option<ValueRef>]) -> bool {
    let shapes: Option<Vec<&Shape>> = operands.iter().flatten().map(|value| shape(graph, *value)).collect();
    let (Some(output), Some(shapes)) = (shape(graph, id.into()), shapes) else { return false };
    let from_end = |shape: &Shape, at: usize| shape.len().checked_sub(at + 1).and_then(|at| shape.get(at).cloned());
    (0..output.len()).all(|at| shapes.iter().any(|shape| from_end(shape, at) == from_end(output, at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(inputs: &str, lines: &str) -> Run {
        run_rule(DropExpand, &format!("graph g({inputs}) -> (%y) {{ {lines} }}"))
    }

    #[test]
    fn fires_on_a_row_before_a_sum() {
        let run = run(
            "%x: f32[n, 4]",
            "%c = constant() value=f32[4] {1, 2, 3, 4} %e = expand(%c) shape=[n, 4] %y = add(%x, %e)",
        );
        insta::assert_snapshot!(run.equal_within(0.0, 3).after, @"
        graph g(%x: f32[n, 4]) -> (%y) {
          %c = constant() value=f32[4] {1.0, 2.0, 3.0, 4.0}
          %y = add(%x, %c) : f32[n, 4]
        }
        ");
    }

    #[test]
    fn fires_on_each_operand_of_a_selection() {
        let lines = "%a = expand(%c) shape=[n, 4] %b = expand(%x) shape=[n, 4] %y = where(%m, %a, %b)";
        let run = run("%m: bool[n, 1], %c: f32[1, 1], %x: f32[4]", lines);
        assert_eq!(run.equal_within(0.0, 3).rewrites, 2);
        assert_eq!(run.after.operation_count(), 1);
    }

    #[test]
    fn fires_on_a_second_expansion() {
        let lines = "%e = expand(%c) shape=[n, 4] %y = expand(%e) shape=[m, n, 4]";
        assert_eq!(run("%x: f32[n, m], %c: f32[1, 4]", lines).equal_within(0.0, 3).rewrites, 1);
        let run = run("%x: f32[n, m], %c: f32[1, 4]", "%e = expand(%c) shape=[n, 4] %y = expand(%e) shape=[1, 1]");
        assert_eq!(run.rewrites, 0);
    }

    #[test]
    fn leaves_an_expansion_to_unknown_sizes_alone() {
        let lines = "%e = expand(%x, %s) %y = expand(%e, %t)";
        assert_eq!(run("%x: f32[1], %s: i64[k], %t: i64[j]", lines).rewrites, 0);
        let lines = "%t = expand(%c) shape=[j] %y = expand(%x, %t)";
        assert_eq!(run("%z: f32[j], %c: i64[1], %x: f32[1]", lines).rewrites, 0);
    }

    #[test]
    fn drops_only_the_slope_of_prelu() {
        assert_eq!(run("%c: f32[4], %w: f32[3, 4]", "%e = expand(%c) shape=[3, 4] %y = prelu(%e, %w)").rewrites, 0);
        let run = run("%x: f32[3, 4], %c: f32[4]", "%e = expand(%c) shape=[3, 4] %y = prelu(%x, %e)");
        assert_eq!(run.equal_within(0.0, 3).rewrites, 1);
    }

    #[test]
    fn fires_on_a_mask() {
        let inputs = "%q: f32[n, 2, 3, 8], %k: f32[n, 2, 5, 8], %v: f32[n, 2, 5, 8]";
        let lines =
            "%e = expand(%m) shape=[n, 1, 3, 5] %y = attention(%q, %k, %v, %e) scale=0.5 causal=none scores=product";
        for mask in ["%m: bool[n, 1, 1, 5]", "%m: f32[1, 3, 5]", "%m: f32[5]"] {
            assert_eq!(run(&format!("{inputs}, {mask}"), lines).equal_within(1e-6, 3).rewrites, 1, "{mask}");
        }
        for mask in ["%m: bool[n, 1, 3, 1]", "%m: f32[1]", "%m: f32[]"] {
            assert_eq!(run(&format!("{inputs}, {mask}"), lines).rewrites, 0, "{mask}");
        }
    }

    #[test]
    fn other_readers_keep_the_expansion() {
        let lines = "%e = expand(%c) shape=[n, 4] %s = add(%x, %e) %r = relu(%e) %y = concat(%s, %r) axis=0";
        let run = run("%x: f32[n, 4], %c: f32[4]", lines);
        assert_eq!(run.equal_within(0.0, 3).rewrites, 1);
        assert_eq!(run.after.operation_count(), 4);
    }

    #[test]
    fn leaves_what_only_the_expansion_tells_alone() {
        for (inputs, lines) in [
            ("%x: f32[1, 4], %c: f32[4]", "%e = expand(%c) shape=[3, 4] %y = add(%x, %e)"),
            ("%x: f32[4], %c: f32[4]", "%e = expand(%c) shape=[1, 4] %y = add(%x, %e)"),
            // m may be 1.
            ("%x: f32[m, 4], %c: f32[1, 4], %s: i64[2]", "%e = expand(%c, %s) %y = add(%x, %e)"),
        ] {
            let run = run(inputs, lines);
            assert_eq!(run.rewrites, 0, "{lines}");
        }
    }

    #[test]
    fn leaves_readers_that_do_not_broadcast_alone() {
        let lines = "%e = expand(%c) shape=[n, 4] %y = concat(%x, %e) axis=0";
        assert_eq!(run("%x: f32[n, 4], %c: f32[4]", lines).rewrites, 0);
    }
}
