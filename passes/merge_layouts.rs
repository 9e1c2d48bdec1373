//! Merges a chain of reshapes and transposes into the shortest that moves elements in the same way.
//!
//! ```text
//! %1 = reshape(%x) shape=[197, 12*b, 64]      %1 = reshape(%x) shape=[197, b, 12, 64]
//! %2 = transpose(%1) perm=[1, 0, 2]           %y = transpose(%1) perm=[1, 2, 0, 3]
//! %y = reshape(%2) shape=[b, 12, 197, 64]
//! ```
//!
//! Fires on two nodes or more where fewer do, none among them, and where one that something else reads can be passed over:
//! by the last of a chain of less than eight.
//!
//! Never refuses: a chain whose sizes do not factor is no match.
//!
//! Order: after `canonicalize_attributes` and `canonicalize_reshape`, so that every form of reshape is one.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::layout::{Layout, Step, is_told};
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct MergeLayouts;

/// Nodes of a chain that are looked at together.
const LONGEST: usize = 8;

impl Rule for MergeLayouts {
    fn name(&self) -> &'static str {
        "merge_layouts"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Reshape, OpKind::Transpose]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let chain = chain(graph, root);
        // Nodes that go when the last one reads something else.
        let owned = 1 + chain.iter().skip(1).take_while(|link| graph.sole_consumer(link.node.into()).is_some()).count();
        // Passing over is for the ends of a chain that is seen whole: inside, and step by step along a longer one, it would
        // be done again for each node and come to the same.
        // A Shuffle is what `fuse_layout` makes of steps.
        let is_step = |node| Step::of(graph, node).is_some() || matches!(graph.op(node), Some(Op::Shuffle(_)));
        let is_last = || !graph.consumers(root.into()).iter().any(|reader| is_step(reader.node));
        let may_pass = chain.len() > owned && chain.len() < LONGEST && is_last();
        for length in (2..=chain.len()).rev() {
            let Some(links) = chain.get(..length) else { continue };
            let Some((x, steps)) = shortest(graph, links) else { continue };
            let going = owned.min(length);
            let passes_over = steps.len() == going && length > going && may_pass;
            let is_better = steps.len() < going || passes_over;
            if !is_better || !steps.iter().all(|step| is_told(step, context)) {
                continue;
            }
            let mut patch = Patch::new(self.name(), root);
            let merged = steps.into_iter().fold(x, |x, step| step.add(&mut patch, x));
            patch.replace(root.into(), merged);
            for (at, link) in links.iter().enumerate() {
                if at < owned {
                    patch.absorb([link.node]);
                } else {
                    patch.inherit([link.node]);
                }
            }
            return Ok(patch);
        }
        Err(Miss::NoMatch)
    }
}

struct Link {
    node: NodeId,
    data: ValueRef,
    step: Step,
}

/// Reshapes and transposes from a node towards the inputs.
fn chain(graph: &Graph, root: NodeId) -> Vec<Link> {
    let mut chain = Vec::new();
    let mut node = root;
    while chain.len() < LONGEST {
        let (Some(step), Some(data)) = (Step::of(graph, node), graph.input(node, 0)) else { break };
        chain.push(Link { node, data, step });
        node = data.node;
    }
    chain
}

/// What a chain reads, and the shortest steps that do the same.
fn shortest(graph: &Graph, links: &[Link]) -> Option<(ValueRef, Vec<Step>)> {
    let x = links.last()?.data;
    let start = Layout::identity(graph.info(x)?.shape.as_ref()?);
    let layout = links.iter().rev().try_fold(start, |layout, link| layout.then(&link.step))?;
    Some((x, layout.steps()))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::testing::run_rule;

    #[test]
    fn permutations_are_composed() {
        let text = "
            graph g(%x: f32[n, 2, 3, 4]) -> (%y) {
              %a = transpose(%x) perm=[0, 2, 3, 1]
              %b = transpose(%a) perm=[3, 0, 1, 2]
              %y = transpose(%b) perm=[1, 0, 3, 2]
            }";
        let run = run_rule(MergeLayouts, text);
        assert_eq!(run.rewrites, 1);
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
        let run = run_rule(MergeLayouts, text);
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
        let run = run_rule(MergeLayouts, text);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 2, 3]) -> (%a, %y) {
          %a = transpose(%x) perm=[1, 2, 0] : f32[2, 3, n]
          %y = transpose(%x) perm=[2, 1, 0] : f32[3, 2, n]
        }
        ");
        run.equal_within(0.0, 2);
    }

    #[test]
    fn what_a_shuffle_reads_is_inside_a_chain() {
        let text = "
            graph g(%x: f32[n, 2, 4]) -> (%a, %y, %z) {
              %a = transpose(%x) perm=[0, 2, 1]
              %b = transpose(%a) perm=[1, 0, 2]
              %y = shuffle(%b) before=[2, 1, 0] shape=[2, n, 2, 2]
              %z = relu(%b)
            }";
        assert_eq!(run_rule(MergeLayouts, text).rewrites, 0);
    }

    #[test]
    fn a_transpose_of_something_else_stays() {
        let text = "graph g(%x: f32[n, 2]) -> (%y) { %a = relu(%x) %y = transpose(%a) perm=[1, 0] }";
        assert_eq!(run_rule(MergeLayouts, text).rewrites, 0);
    }

    #[test]
    fn windows_and_heads_are_merged() {
        let text = "
            graph g(%x: f32[197, b, 768]) -> (%y) {
              %a = reshape(%x) shape=[197, (12*b), 64]
              %c = transpose(%a) perm=[1, 0, 2]
              %y = reshape(%c) shape=[b, 12, 197, 64]
            }";
        let run = run_rule(MergeLayouts, text);
        assert_snapshot!(run.after, @"
        graph g(%x: f32[197, b, 768]) -> (%y) {
          %y.1 = reshape(%x) shape=[197, b, 12, 64] : f32[197, b, 12, 64]
          %y = transpose(%y.1) perm=[1, 2, 0, 3] : f32[b, 12, 197, 64]
        }
        ");
        run.equal_within(0.0, 2);
    }

    #[test]
    fn a_chain_that_undoes_itself_is_dropped() {
        let text = "
            graph g(%x: f32[n, 4, 6]) -> (%y) {
              %a = transpose(%x) perm=[1, 0, 2]
              %b = reshape(%a) shape=[4, n, 3, 2]
              %c = transpose(%b) perm=[1, 0, 2, 3]
              %d = reshape(%c) shape=[n, 4, 6]
              %y = relu(%d)
            }";
        let run = run_rule(MergeLayouts, text);
        assert_snapshot!(run.after, @"
        graph g(%x: f32[n, 4, 6]) -> (%y) {
          %y = relu(%x) : f32[n, 4, 6]
        }
        ");
        run.equal_within(0.0, 2);
    }

    #[test]
    fn a_chain_that_is_the_shortest_stays() {
        let text = "
            graph g(%x: f32[n, 6, 5]) -> (%y) {
              %a = reshape(%x) shape=[n, 2, 3, 5]
              %b = transpose(%a) perm=[0, 2, 1, 3]
              %y = reshape(%b) shape=[n, 6, 5]
            }";
        assert_eq!(run_rule(MergeLayouts, text).rewrites, 0);
    }

    #[test]
    fn a_longer_chain_behind_another_reader_stays() {
        let text = "
            graph g(%x: f32[n, 6, 5]) -> (%b, %y) {
              %a = reshape(%x) shape=[n, 2, 3, 5]
              %b = transpose(%a) perm=[0, 2, 1, 3]
              %y = reshape(%b) shape=[n, 6, 5]
            }";
        assert_eq!(run_rule(MergeLayouts, text).rewrites, 0);
    }

    #[test]
    fn a_long_chain_that_others_read_comes_to_an_end() {
        // Each of 2000 transposes has a reader, and none of the chains up to it undoes itself within eight.
        let lines = (0..2000).map(|at| {
            let from = if at == 0 { "x".to_string() } else { format!("t{}", at - 1) };
            format!("%t{at} = transpose(%{from}) perm=[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0] %r{at} = relu(%t{at})\n")
        });
        let outputs: Vec<String> = (0..2000).map(|at| format!("%r{at}")).collect();
        let (lines, outputs) = (lines.collect::<String>(), outputs.join(", "));
        let text = format!("graph g(%x: f32[2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]) -> ({outputs}) {{ {lines} }}");
        assert_eq!(run_rule(MergeLayouts, &text).rewrites, 0);
    }

    #[test]
    fn sizes_that_do_not_factor_stay() {
        let text = "
            graph g(%x: f32[4, 6]) -> (%y) {
              %a = transpose(%x) perm=[1, 0]
              %b = reshape(%a) shape=[8, 3]
              %y = transpose(%b) perm=[1, 0]
            }";
        assert_eq!(run_rule(MergeLayouts, text).rewrites, 0);
    }
}
