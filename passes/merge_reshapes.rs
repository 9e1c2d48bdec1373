//! Merges a reshape of a reshape into the second.
//!
//! ```text
//! %r = reshape(%x) shape=[n, 12]      %y = reshape(%x) shape=[n, 2, 6]
//! %y = reshape(%r) shape=[n, 2, 6]
//! ```
//!
//! Fires when the data of a reshape whose shape is a parameter is a reshape. Other readers of the first one keep it.
//!
//! Never refuses.
//!
//! Order: after `canonicalize_attributes` and `canonicalize_reshape`, so that every form of reshape is one.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch};

use crate::{Miss, Rule, RuleContext};

/// Merges a reshape of a reshape into the second.
#[derive(Debug, Default)]
pub(crate) struct MergeReshapes;

impl Rule for MergeReshapes {
    fn name(&self) -> &'static str {
        "merge_reshapes"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Reshape]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Reshape(outer)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let middle = graph.input(root, 0).ok_or(Miss::NoMatch)?;
        if outer.shape.is_none() || !matches!(graph.op(middle.node), Some(Op::Reshape(_))) {
            return Err(Miss::NoMatch);
        }
        let x = graph.input(middle.node, 0).ok_or(Miss::NoMatch)?;
        let mut patch = Patch::new(self.name(), root);
        let merged = patch.add(outer.clone(), &[Some(x)]);
        patch.replace(root.into(), merged).absorb([root]);
        if graph.sole_consumer(middle).is_some() {
            patch.absorb([middle.node]);
        } else {
            patch.inherit([middle.node]);
        }
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::MergeReshapes;
    use crate::testing::run_rule;

    #[test]
    fn the_last_shape_of_a_chain_stays() {
        let text = "
            graph g(%x: f32[n, 3, 4]) -> (%y) {
              %a = reshape(%x) shape=[n, 12]
              %b = reshape(%a) shape=[(n*12)]
              %y = reshape(%b) shape=[n, 2, 6]
            }";
        let run = run_rule(MergeReshapes, text);
        assert_eq!(run.rewrites, 2);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 3, 4]) -> (%y) {
          %y = reshape(%x) shape=[n, 2, 6] : f32[n, 2, 6]
        }
        ");
        run.equal_within(0.0, 2);
    }

    #[test]
    fn another_reader_keeps_the_first() {
        let text = "
            graph g(%x: f32[n, 3, 4]) -> (%a, %y) {
              %a = reshape(%x) shape=[n, 12]
              %y = reshape(%a) shape=[n, 2, 6]
            }";
        let run = run_rule(MergeReshapes, text);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 3, 4]) -> (%a, %y) {
          %a = reshape(%x) shape=[n, 12] : f32[n, 12]
          %y = reshape(%x) shape=[n, 2, 6] : f32[n, 2, 6]
        }
        ");
        run.equal_within(0.0, 2);
    }

    #[test]
    fn a_shape_that_is_computed_is_another_pass() {
        let text = "
            graph g(%x: f32[n, 3, 4], %s: i64[2]) -> (%y) {
              %a = reshape(%x) shape=[n, 12]
              %y = reshape(%a, %s)
            }";
        let run = run_rule(MergeReshapes, text);
        assert_eq!(run.rewrites, 0);
    }
}
