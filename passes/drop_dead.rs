//! Drops nodes that no output of the graph needs.
//!
//! ```text
//! %y = relu(%x)                  %y = relu(%x)
//! %z = exp(%x)
//! ```
//!
//! Fires when no path leads from a node to an output. Inputs of the graph stay, read or not. Constants go with their
//! last reader and are not counted as rewrites.
//!
//! Never refuses.
//!
//! Order: first, so that what nothing needs does not count as a reader in any other pass. The pipeline itself prunes
//! after each pass that changes something.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::Graph;

use crate::{Outcome, Pass, PassContext, PassError};

/// Drops nodes that no output of the graph needs.
#[derive(Debug, Default)]
pub(crate) struct DropDead;

impl Pass for DropDead {
    fn name(&self) -> &'static str {
        "drop_dead"
    }

    fn run(&self, graph: &mut Graph, context: &mut PassContext<'_>) -> Result<Outcome, PassError> {
        Ok(Outcome::of(context.prune(self.name(), graph)))
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use trt_fuse_ir::Op;

    use super::DropDead;
    use crate::testing::run_pass;

    const BRANCH: &str = "
        graph g(%x: f32[2], %unread: f32[3]) -> (%y) {
          %w = constant() value=f32[2] {1, 2}
          %a = add(%x, %w)
          %b = exp(%a)
          %y = relu(%x)
        }";

    #[test]
    fn a_branch_that_no_output_needs_is_dropped() {
        let run = run_pass(&DropDead, BRANCH);
        assert_eq!(run.rewrites, 2);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[2], %unread: f32[3]) -> (%y) {
          %y = relu(%x) : f32[2]
        }
        ");
        run.equal_within(0.0, 1);
    }

    #[test]
    fn inputs_stay_in_their_order() {
        let run = run_pass(&DropDead, BRANCH);
        let names: Vec<&str> = run.after.inputs().iter().map(|id| run.after.node_name(*id)).collect();
        assert_eq!(names, ["x", "unread"]);
        assert!(!run.after.node_ids().any(|id| matches!(run.after.op(id), Some(Op::Constant(_)))));
    }
}
