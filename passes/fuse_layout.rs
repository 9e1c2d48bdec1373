//! Writes a reshape between transposes as one Shuffle.
//!
//! ```text
//! %1 = reshape(%x) shape=[n, 128, 12, 64]     %y = shuffle(%x) shape=[n, 128, 12, 64] after=[0, 2, 1, 3]
//! %y = transpose(%1) perm=[0, 2, 1, 3]
//! ```
//!
//! Fires on a reshape of known shape with a transpose in front of it, behind it or both, which nothing else reads, and on a
//! transpose behind such a Shuffle.
//!
//! Never refuses.
//!
//! Order: when all others have come to an end, because they look at reshapes and transposes.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::op::Shuffle;
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::layout::Step;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseLayout;

impl Rule for FuseLayout {
    fn name(&self) -> &'static str {
        "fuse_layout"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Reshape, OpKind::Transpose]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        if let Some(patch) = behind_shuffle(graph, root) {
            return Ok(patch);
        }
        let mut x = ValueRef::from(root);
        let mut nodes = Vec::new();
        // From the back: a transpose, a reshape, a transpose.
        let after = taken(graph, &mut x, &mut nodes, |step| match step {
            Step::Transpose(perm) => Some(perm),
            Step::Reshape(_) => None,
        });
        let shape = taken(graph, &mut x, &mut nodes, |step| match step {
            Step::Reshape(shape) => Some(shape),
            Step::Transpose(_) => None,
        });
        let shape = Some(shape.ok_or(Miss::NoMatch)?);
        let before = taken(graph, &mut x, &mut nodes, |step| match step {
            Step::Transpose(perm) => Some(perm),
            Step::Reshape(_) => None,
        });
        if nodes.len() < 2 {
            return Err(Miss::NoMatch);
        }
        let mut patch = Patch::new(self.name(), root);
        let y = patch.add(Shuffle { before, shape, after }, &[Some(x)]);
        patch.replace(root.into(), y).absorb(nodes);
        Ok(patch)
    }
}

/// A transpose of what a Shuffle gives, as that Shuffle.
fn behind_shuffle(graph: &Graph, root: NodeId) -> Option<Patch> {
    let Some(Step::Transpose(perm)) = Step::of(graph, root) else { return None };
    let inner = graph.input(root, 0)?;
    let Some(Op::Shuffle(shuffle)) = graph.op(inner.node) else { return None };
    graph.sole_consumer(inner)?;
    let after = match &shuffle.after {
        None => perm,
        Some(first) => {
            perm.iter().map(|axis| first.get(usize::try_from(*axis).ok()?).copied()).collect::<Option<_>>()?
        }
    };
    let after = Some(after).filter(|after| !after.iter().copied().eq(0..after.len() as i64));
    let mut patch = Patch::new(FuseLayout.name(), root);
    let y = patch.add(Shuffle { after, ..Shuffle::clone(shuffle) }, &[graph.input(inner.node, 0)]);
    patch.replace(root.into(), y).absorb([root, inner.node]);
    Some(patch)
}

/// The parameter of the node that gives a value, if it is a step of the kind, and the value before it. Only the first node
/// may have other readers: they read what takes its place.
fn taken<T>(graph: &Graph, x: &mut ValueRef, nodes: &mut Vec<NodeId>, kind: impl Fn(Step) -> Option<T>) -> Option<T> {
    if !nodes.is_empty() && graph.sole_consumer(*x).is_none() {
        return None;
    }
    let parameter = Step::of(graph, x.node).and_then(kind)?;
    let data = graph.input(x.node, 0)?;
    nodes.push(x.node);
    *x = data;
    Some(parameter)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(body: &str, outputs: &str) -> Run {
        run_rule(FuseLayout, &format!("graph g(%x: f32[n, 6, 4]) -> ({outputs}) {{ {body} }}"))
    }

    #[test]
    fn fires_on_two_and_three() {
        let heads = "%1 = reshape(%x) shape=[n, 2, 3, 4] %y = transpose(%1) perm=[0, 2, 1, 3]";
        assert_snapshot!(run(heads, "%y").equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 6, 4]) -> (%y) {
          %y = shuffle(%x) shape=[n, 2, 3, 4] after=[0, 2, 1, 3] : f32[n, 3, 2, 4]
        }
        ");
        let merged = "%1 = transpose(%x) perm=[0, 2, 1] %y = reshape(%1) shape=[n, 24]";
        assert_eq!(run(merged, "%y").equal_within(0.0, 2).rewrites, 1);
        let all =
            "%1 = transpose(%x) perm=[0, 2, 1] %2 = reshape(%1) shape=[n, 8, 3] %y = transpose(%2) perm=[1, 0, 2]";
        assert_snapshot!(run(all, "%y").equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 6, 4]) -> (%y) {
          %y = shuffle(%x) before=[0, 2, 1] shape=[n, 8, 3] after=[1, 0, 2] : f32[8, n, 3]
        }
        ");
    }

    #[test]
    fn a_chain_of_more_is_cut_from_the_back() {
        let body =
            "%1 = reshape(%x) shape=[n, 2, 3, 4] %2 = transpose(%1) perm=[0, 2, 1, 3] %y = reshape(%2) shape=[n, 6, 4]";
        assert_snapshot!(run(body, "%y").equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 6, 4]) -> (%y) {
          %1 = reshape(%x) shape=[n, 2, 3, 4] : f32[n, 2, 3, 4]
          %y = shuffle(%1) before=[0, 2, 1, 3] shape=[n, 6, 4] : f32[n, 6, 4]
        }
        ");
    }

    #[test]
    fn fires_behind_a_shuffle() {
        let body = "%1 = shuffle(%x) shape=[n, 6, 2, 2] after=[0, 2, 3, 1] %y = transpose(%1) perm=[0, 1, 3, 2]";
        assert_snapshot!(run(body, "%y").equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 6, 4]) -> (%y) {
          %y = shuffle(%x) shape=[n, 6, 2, 2] after=[0, 2, 1, 3] : f32[n, 2, 6, 2]
        }
        ");
        let body = "%1 = shuffle(%x) before=[0, 2, 1] shape=[n, 8, 3] %y = transpose(%1) perm=[1, 0, 2]";
        assert_snapshot!(run(body, "%y").equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 6, 4]) -> (%y) {
          %y = shuffle(%x) before=[0, 2, 1] shape=[n, 8, 3] after=[1, 0, 2] : f32[8, n, 3]
        }
        ");
    }

    #[test]
    fn two_transposes_that_undo_each_other_are_none() {
        let body =
            "%1 = shuffle(%x) before=[0, 2, 1] shape=[n, 8, 3] after=[0, 2, 1] %y = transpose(%1) perm=[0, 2, 1]";
        assert_snapshot!(run(body, "%y").equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 6, 4]) -> (%y) {
          %y = shuffle(%x) before=[0, 2, 1] shape=[n, 8, 3] : f32[n, 8, 3]
        }
        ");
    }

    #[test]
    fn leaves_others_alone() {
        for (body, outputs) in [
            ("%1 = reshape(%x) shape=[n, 2, 3, 4] %y = transpose(%1) perm=[0, 2, 1, 3]", "%y, %1"),
            ("%y = transpose(%x) perm=[0, 2, 1]", "%y"),
            ("%y = reshape(%x) shape=[n, 24]", "%y"),
            ("%1 = shuffle(%x) shape=[n, 6, 2, 2] after=[0, 2, 3, 1] %y = transpose(%1) perm=[0, 1, 3, 2]", "%y, %1"),
        ] {
            assert_eq!(run(body, outputs).rewrites, 0, "{body}");
        }
    }
}
