//! Writes Flatten, Squeeze, Unsqueeze, and Transpose that moves only axes of size 1, as Reshape.
//!
//! ```text
//! %y = flatten(%x) axis=1                       %y = reshape(%x) shape=[n, 12]
//! %z = transpose(%x) perm=[0, 2, 3, 1]          %z = reshape(%x) shape=[n, 2, 3, 1]
//! ```
//!
//! Fires when the output's shape is known, symbols allowed.
//!
//! Refuses when the shape depends on data.
//!
//! Order: after `canonicalize_attributes`, before `merge_reshapes`.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::op::{Reshape, Transpose};
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::{Miss, Rule, RuleContext};

/// Writes what only names axes anew as Reshape.
#[derive(Debug, Default)]
pub(crate) struct CanonicalizeReshape;

impl Rule for CanonicalizeReshape {
    fn name(&self) -> &'static str {
        "canonicalize_reshape"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Flatten, OpKind::Squeeze, OpKind::Unsqueeze, OpKind::Transpose]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let x = graph.input(root, 0).ok_or(Miss::NoMatch)?;
        match graph.op(root) {
            Some(Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_)) => {}
            Some(Op::Transpose(transpose)) if moves_only_ones(graph, x, transpose) => {}
            _ => return Err(Miss::NoMatch),
        }
        let shape = graph.info(root.into()).and_then(|info| info.shape.clone());
        let shape = shape.filter(|shape| context.symbols.tell(shape));
        let shape = shape.ok_or(Miss::Blocked { reason: "the shape depends on data", at: root })?;
        let mut patch = Patch::new(self.name(), root);
        let reshape = patch.add(Reshape { shape: Some(shape), allow_zero: false }, &[Some(x)]);
        patch.replace(root.into(), reshape).absorb([root]);
        Ok(patch)
    }
}

/// Whether the axes that are not surely of size 1 stay in their order, and some axis moves.
fn moves_only_ones(graph: &Graph, x: ValueRef, transpose: &Transpose) -> bool {
    let Some(shape) = graph.info(x).and_then(|info| info.shape.as_ref()) else { return false };
    let is_one = |axis: i64| usize::try_from(axis).ok().and_then(|axis| shape.get(axis)).is_some_and(|dim| dim.is(1));
    let moved = transpose.perm.iter().zip(0..).any(|(from, to)| *from != to);
    moved && transpose.perm.iter().filter(|axis| !is_one(**axis)).is_sorted()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::CanonicalizeReshape;
    use crate::testing::run_rule;

    #[test]
    fn every_form_becomes_a_reshape() {
        let text = "
            graph g(%x: f32[n, 1, 3, 4]) -> (%a, %b, %c, %d) {
              %a = flatten(%x) axis=1
              %b = squeeze(%x) axes=[1]
              %c = unsqueeze(%x) axes=[-1]
              %d = transpose(%x) perm=[0, 2, 1, 3]
            }";
        let run = run_rule(CanonicalizeReshape, text);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 1, 3, 4]) -> (%a, %b, %c, %d) {
          %a = reshape(%x) shape=[n, 12] : f32[n, 12]
          %b = reshape(%x) shape=[n, 3, 4] : f32[n, 3, 4]
          %c = reshape(%x) shape=[n, 1, 3, 4, 1] : f32[n, 1, 3, 4, 1]
          %d = reshape(%x) shape=[n, 3, 1, 4] : f32[n, 3, 1, 4]
        }
        ");
        run.equal_within(0.0, 2);
    }

    #[test]
    fn a_transpose_that_moves_more_stays() {
        for perm in ["[0, 3, 2, 1]", "[1, 0, 3, 2]", "[0, 1, 2, 3]"] {
            let text = format!("graph g(%x: f32[n, 1, 3, 4]) -> (%y) {{ %y = transpose(%x) perm={perm} }}");
            let run = run_rule(CanonicalizeReshape, &text);
            assert_eq!((run.rewrites, run.reasons()), (0, vec![]), "{perm}");
        }
    }

    #[test]
    fn refuses_a_shape_that_depends_on_data() {
        let text = "graph g(%x: f32[4]) -> (%y) { %i = nonzero(%x) %y = flatten(%i) axis=0 }";
        assert_eq!(run_rule(CanonicalizeReshape, text).reasons(), ["the shape depends on data"]);
    }
}
