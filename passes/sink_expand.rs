//! Moves an expansion behind the elementwise operator that reads it.
//!
//! ```text
//! %e = expand(%row) shape=[n, m, 4] : f32[n, m, 4]      %y.1 = exp(%row) : f32[4]
//! %y = exp(%e) : f32[n, m, 4]                           %y = expand(%y.1) shape=[n, m, 4] : f32[n, m, 4]
//! ```
//!
//! Fires on operators of one element each, if what they make of the unexpanded operand broadcasts to their output and is no
//! such shape yet; and on the indices of a gather. The operator computes fewer elements, and the expansion comes to where
//! `drop_expand` drops it.
//!
//! Refuses when something else reads the expansion, unless it is of a constant. Indices of a gather that the expansion gives
//! another rank are no match, but in the first axis.
//!
//! Order: after `drop_expand`, which drops what the other operands broadcast anyway.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::infer::{broadcast, resolve_axis};
use trt_fuse_ir::op::{BinaryOp, Expand};
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, Shape, ValueRef};

use crate::pattern::{expanded, same_shape};
use crate::{Miss, Rule, RuleContext};

/// Moves an expansion behind the elementwise operator that reads it.
#[derive(Debug, Default)]
pub(crate) struct SinkExpand;

impl Rule for SinkExpand {
    fn name(&self) -> &'static str {
        "sink_expand"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Unary, OpKind::Activation, OpKind::Cast, OpKind::Binary, OpKind::Where, OpKind::Gather]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        if !graph.reads(root, OpKind::Expand) {
            return Err(Miss::NoMatch);
        }
        let inputs = graph.node_inputs(root);
        let op = graph.op(root).ok_or(Miss::NoMatch)?;
        let shape = graph.info(root.into()).and_then(|info| info.shape.clone()).ok_or(Miss::NoMatch)?;
        for slot in 0..inputs.len() {
            let Some((expansion, source)) = expansion(graph, root, op, slot) else { continue };
            let plain: Vec<_> =
                inputs.iter().enumerate().map(|(at, input)| if at == slot { Some(source) } else { *input }).collect();
            // Of a gather, fewer indices are fewer elements.
            if !matches!(op, Op::Gather(_)) && !is_smaller(graph, &plain, &shape) {
                continue;
            }
            if !context.symbols.tell(&shape) {
                return Err(Miss::NoMatch);
            }
            let is_shared = graph.sole_consumer(expansion).is_none();
            if is_shared && graph.constant(source).is_none() {
                return Err(Miss::Blocked { reason: "something else reads the expansion", at: expansion.node });
            }
            let mut patch = Patch::new(self.name(), root);
            let value = patch.add(op.clone(), &plain);
            let y = patch.add(Expand { shape: Some(shape) }, &[Some(value)]);
            patch.replace(root.into(), y).absorb([root]);
            if !is_shared {
                patch.absorb([expansion.node]);
            }
            return Ok(patch);
        }
        Err(Miss::NoMatch)
    }
}

/// The expansion that an operator reads, and what it expands.
fn expansion(graph: &Graph, root: NodeId, op: &Op, slot: usize) -> Option<(ValueRef, ValueRef)> {
    let value = graph.input(root, slot)?;
    let source = expanded(graph, value)?;
    if same_shape(graph.info(source), graph.info(value)) {
        return None;
    }
    let rank = |value| Some(graph.info(value)?.shape.as_ref()?.len());
    let is_broadcast = match op {
        // Of PRelu only the slope is broadcast, never to less.
        Op::Binary(op) => *op != BinaryOp::PRelu,
        Op::Where => true,
        Op::Gather(op) => {
            let data = graph.info(graph.input(root, 0)?)?.shape.as_ref()?;
            let axis = resolve_axis(op.axis, data.len()).ok()?;
            // An index expanded to no elements may be of an axis that has none.
            let has_rows = data.get(axis)?.at_least(1);
            slot == 1 && has_rows && (axis == 0 || rank(source)? == rank(value)?)
        }
        _ => slot == 0 && graph.node_inputs(root).iter().flatten().count() == 1,
    };
    is_broadcast.then_some((value, source))
}

/// Whether operands broadcast to less than a shape.
fn is_smaller(graph: &Graph, operands: &[Option<ValueRef>], shape: &Shape) -> bool {
    let mut shapes = operands.iter().flatten().map(|value| graph.info(*value)?.shape.clone());
    let first = shapes.next().flatten();
    let joined = shapes.fold(first, |joined, shape| broadcast(&joined?, &shape?).ok());
    joined.is_some_and(|joined| joined != *shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(inputs: &str, lines: &str) -> Run {
        run_rule(SinkExpand, &format!("graph g({inputs}) -> (%y) {{ {lines} }}"))
    }

    #[test]
    fn fires_on_a_row() {
        let run = run("%row: f32[4], %x: f32[n, m]", "%e = expand(%row) shape=[n, m, 4] %y = exp(%e)");
        insta::assert_snapshot!(run.equal_within(0.0, 3).after, @r"
        graph g(%row: f32[4], %x: f32[n, m]) -> (%y) {
          %y.1 = exp(%row) : f32[4]
          %y = expand(%y.1) shape=[n, m, 4] : f32[n, m, 4]
        }
        ");
    }

    #[test]
    fn fires_on_a_chain() {
        let lines = "%e = expand(%m) shape=[n, 1, k, k] %c = cast(%e) to=bool %zero = constant() value=f32[] {0}
            %low = constant() value=f32[] {-3} %y = where(%c, %zero, %low)";
        let run = run("%m: i64[n, 1, 1, k]", lines);
        insta::assert_snapshot!(run.equal_within(0.0, 3).after, @r"
        graph g(%m: i64[n, 1, 1, k]) -> (%y) {
          %c.1 = cast(%m) to=bool : bool[n, 1, 1, k]
          %zero = constant() value=f32[] {0.0}
          %low = constant() value=f32[] {-3.0}
          %y.1 = where(%c.1, %zero, %low) : f32[n, 1, 1, k]
          %y = expand(%y.1) shape=[n, 1, k, k] : f32[n, 1, k, k]
        }
        ");
    }

    #[test]
    fn fires_on_indices() {
        let lines = "%e = expand(%i) shape=[n, 3] %y = gather(%x, %e) axis=0";
        for indices in ["%i: i64[1, 3]", "%i: i64[1, 1]", "%i: i64[1]"] {
            assert_eq!(run(&format!("%x: f32[1, 4], {indices}, %z: f32[n]"), lines).rewrites, 1, "{indices}");
        }
        let lines = "%zero = constant() value=i64[1] {0} %e = expand(%zero) shape=[n, 3] %y = gather(%x, %e) axis=0";
        run("%x: f32[2, 4], %z: f32[n]", lines).equal_within(0.0, 3);
        let lines = "%zero = constant() value=i64[1, 1] {1} %e = expand(%zero) shape=[n, 3] %y = gather(%x, %e) axis=1";
        let run = run("%x: f32[2, 4], %z: f32[n]", lines);
        assert_eq!(run.equal_within(0.0, 3).rewrites, 1);
    }

    #[test]
    fn leaves_indices_that_get_another_rank_alone() {
        let lines = "%zero = constant() value=i64[1] {1} %e = expand(%zero) shape=[n, 3] %y = gather(%x, %e) axis=1";
        assert_eq!(run("%x: f32[2, 4], %z: f32[n]", lines).rewrites, 0);
        assert_eq!(
            run("%x: f32[1, 4], %i: i64[n]", "%e = expand(%x) shape=[n, 4] %y = gather(%e, %i) axis=0").rewrites,
            0
        );
    }

    #[test]
    fn leaves_prelu_and_what_may_have_no_rows_alone() {
        assert_eq!(run("%c: f32[4], %w: f32[3, 1]", "%e = expand(%c) shape=[7, 3, 4] %y = prelu(%e, %w)").rewrites, 0);
        let lines = "%zero = constant() value=i64[1] {0} %e = expand(%zero) shape=[n] %y = gather(%x, %e) axis=0";
        assert_eq!(run("%x: f32[n, 4]", lines).rewrites, 0);
    }

    #[test]
    fn refuses_what_has_another_reader() {
        let lines = "%e = expand(%x) shape=[n, 4] %a = exp(%e) %y = concat(%a, %e) axis=0";
        let run = run("%x: f32[4], %z: f32[n]", lines);
        assert_eq!(run.reasons(), ["something else reads the expansion"]);
    }

    #[test]
    fn a_constant_may_have_other_readers() {
        let lines =
            "%c = constant() value=f32[1] {3} %e = expand(%c) shape=[n, 4] %a = exp(%e) %y = concat(%a, %e) axis=0";
        assert_eq!(run("%z: f32[n]", lines).equal_within(0.0, 3).rewrites, 1);
    }

    #[test]
    fn leaves_what_the_other_operands_broadcast_alone() {
        let lines = "%e = expand(%c) shape=[n, 4] %y = add(%e, %x)";
        assert_eq!(run("%x: f32[n, 4], %c: f32[4]", lines).rewrites, 0);
    }

    #[test]
    fn leaves_other_operators_alone() {
        let lines = "%e = expand(%c) shape=[n, 4] %y = softmax(%e) axis=1";
        assert_eq!(run("%c: f32[4], %z: f32[n]", lines).rewrites, 0);
    }
}
