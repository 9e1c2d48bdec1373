//! Merges a transpose of a transpose into one.
//!
//! ```text
//! %t = transpose(%x) perm=[0, 2, 3, 1]      %y = transpose(%x) perm=[0, 3, 1, 2]
//! %y = transpose(%t) perm=[0, 2, 3, 1]
//! ```
//!
//! Fires when the data of a transpose is a transpose. If the two undo each other nothing is left. Other readers of the
//! first one keep it.
//!
//! Never refuses.
//!
//! Order: after `drop_identity`, which removes what may stand between the two.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::op::Transpose;
use trt_fuse_ir::{Graph, Ints, NodeId, Op, OpKind, Patch};

use crate::{Miss, Rule, RuleContext};

/// Merges a transpose of a transpose into one.
#[derive(Debug, Default)]
pub(crate) struct MergeTransposes;

impl Rule for MergeTransposes {
    fn name(&self) -> &'static str {
        "merge_transposes"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Transpose]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Transpose(outer)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let middle = graph.input(root, 0).ok_or(Miss::NoMatch)?;
        let Some(Op::Transpose(inner)) = graph.op(middle.node) else { return Err(Miss::NoMatch) };
        let x = graph.input(middle.node, 0).ok_or(Miss::NoMatch)?;
        let perm = compose(&inner.perm, &outer.perm).ok_or(Miss::NoMatch)?;
        let mut patch = Patch::new(self.name(), root);
        let merged = if perm.iter().zip(0..).all(|(from, to)| *from == to) {
            x
        } else {
            patch.add(Transpose { perm }, &[Some(x)])
        };
        patch.replace(root.into(), merged).absorb([root]);
        if graph.sole_consumer(middle).is_some() {
            patch.absorb([middle.node]);
        } else {
            patch.inherit([middle.node]);
        }
        Ok(patch)
    }
}

/// The permutation that `inner` and then `outer` make.
fn compose(inner: &Ints, outer: &Ints) -> Option<Ints> {
    outer.iter().map(|axis| inner.get(usize::try_from(*axis).ok()?).copied()).collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::MergeTransposes;
    use crate::testing::run_rule;

    #[test]
    fn permutations_are_composed() {
        let text = "
            graph g(%x: f32[n, 2, 3, 4]) -> (%y) {
              %a = transpose(%x) perm=[0, 2, 3, 1]
              %b = transpose(%a) perm=[3, 0, 1, 2]
              %y = transpose(%b) perm=[1, 0, 3, 2]
            }";
        let run = run_rule(MergeTransposes, text);
        assert_eq!(run.rewrites, 2);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 2, 3, 4]) -> (%y) {
          %y = transpose(%x) perm=[0, 1, 3, 2] : f32[n, 2, 4, 3]
        }
        ");
        run.equal_within(0.0, 2);
    }

    #[test]
    fn a_pair_that_undoes_itself_is_dropped() {
        let text = "
            graph g(%x: f32[n, 2, 3]) -> (%y) {
              %a = transpose(%x) perm=[1, 2, 0]
              %b = transpose(%a) perm=[2, 0, 1]
              %y = relu(%b)
            }";
        let run = run_rule(MergeTransposes, text);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 2, 3]) -> (%y) {
          %y = relu(%x) : f32[n, 2, 3]
        }
        ");
        run.equal_within(0.0, 2);
    }

    #[test]
    fn another_reader_keeps_the_first() {
        let text = "
            graph g(%x: f32[n, 2, 3]) -> (%a, %y) {
              %a = transpose(%x) perm=[1, 2, 0]
              %y = transpose(%a) perm=[1, 0, 2]
            }";
        let run = run_rule(MergeTransposes, text);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 2, 3]) -> (%a, %y) {
          %a = transpose(%x) perm=[1, 2, 0] : f32[2, 3, n]
          %y = transpose(%x) perm=[2, 1, 0] : f32[3, 2, n]
        }
        ");
        run.equal_within(0.0, 2);
    }

    #[test]
    fn a_transpose_of_something_else_stays() {
        let text = "graph g(%x: f32[n, 2]) -> (%y) { %a = relu(%x) %y = transpose(%a) perm=[1, 0] }";
        assert_eq!(run_rule(MergeTransposes, text).rewrites, 0);
    }
}
