//! Turns the transpose of an operand's last two axes into a flag of the matrix product that reads it.
//!
//! ```text
//! %t = transpose(%b) perm=[0, 2, 1]
//! %y = matmul(%a, %t)
//! ```
//! becomes
//! ```text
//! %y = matmul(%a, %b) transpose_b=true
//! ```
//!
//! Fires on either operand, and turns a flag that is set off again. The transpose stays where something else reads it.
//!
//! Refuses nothing: a permutation that moves another axis is no match.
//!
//! Order: before `fold_constants`, which would make a transposed copy of a constant weight; so also before
//! `fuse_matmul_scale` and `fuse_matmul_bn`, which want the constant itself.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::op::MatMul;
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch};

use crate::pass::{Miss, Rule, RuleContext};
use crate::pattern::swapped_matrix;

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseTransposeMatmul;

impl Rule for FuseTransposeMatmul {
    fn name(&self) -> &'static str {
        "fuse_transpose_matmul"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::MatMul]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::MatMul(op)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let mut inputs = graph.node_inputs(root);
        let mut op: MatMul = op.clone();
        let mut transposes = Vec::new();
        for (input, flag) in inputs.iter_mut().zip([&mut op.transpose_a, &mut op.transpose_b]) {
            let Some((transpose, data)) = input.and_then(|input| swapped_matrix(graph, input)) else { continue };
            *input = Some(data);
            *flag = !*flag;
            transposes.push(transpose);
        }
        if transposes.is_empty() {
            return Err(Miss::NoMatch);
        }
        let mut patch = Patch::new(self.name(), root);
        let fused = patch.add(op, &inputs);
        patch.replace(root.into(), fused).absorb([root]).inherit(transposes);
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run_rule;

    #[test]
    fn fires_on_the_right() {
        let run = run_rule(
            FuseTransposeMatmul,
            "graph g(%a: f32[2, n, 3], %b: f32[2, 4, 3]) -> (%y) {
                %t = transpose(%b) perm=[0, 2, 1]
                %y = matmul(%a, %t)
            }",
        );
        insta::assert_snapshot!(run.equal_within(0.0, 5).after, @"
        graph g(%a: f32[2, n, 3], %b: f32[2, 4, 3]) -> (%y) {
          %y = matmul(%a, %b) transpose_b=true : f32[2, n, 4]
        }
        ");
    }

    #[test]
    fn fires_on_both_sides() {
        let run = run_rule(
            FuseTransposeMatmul,
            "graph g(%a: f32[3, 2], %b: f32[4, 3]) -> (%y) {
                %s = transpose(%a) perm=[1, 0]
                %t = transpose(%b) perm=[1, 0]
                %y = matmul(%s, %t)
            }",
        );
        insta::assert_snapshot!(run.equal_within(0.0, 1).after, @"
        graph g(%a: f32[3, 2], %b: f32[4, 3]) -> (%y) {
          %y = matmul(%a, %b) transpose_a=true transpose_b=true : f32[2, 4]
        }
        ");
    }

    #[test]
    fn turns_a_flag_off() {
        let run = run_rule(
            FuseTransposeMatmul,
            "graph g(%a: f32[2, 3], %b: f32[3, 4]) -> (%y) {
                %t = transpose(%b) perm=[1, 0]
                %y = matmul(%a, %t) transpose_b=true
            }",
        );
        insta::assert_snapshot!(run.equal_within(0.0, 1).after, @"
        graph g(%a: f32[2, 3], %b: f32[3, 4]) -> (%y) {
          %y = matmul(%a, %b) : f32[2, 4]
        }
        ");
    }

    #[test]
    fn a_transpose_with_another_reader_stays() {
        let run = run_rule(
            FuseTransposeMatmul,
            "graph g(%a: f32[2, 3], %b: f32[4, 3]) -> (%y, %t) {
                %t = transpose(%b) perm=[1, 0]
                %y = matmul(%a, %t)
            }",
        );
        insta::assert_snapshot!(run.equal_within(0.0, 1).after, @"
        graph g(%a: f32[2, 3], %b: f32[4, 3]) -> (%y, %t) {
          %y = matmul(%a, %b) transpose_b=true : f32[2, 4]
          %t = transpose(%b) perm=[1, 0] : f32[3, 4]
        }
        ");
    }

    #[test]
    fn leaves_other_permutations_alone() {
        let run = run_rule(
            FuseTransposeMatmul,
            "graph g(%a: f32[2, 3, 4], %b: f32[5, 3, 4]) -> (%y) {
                %s = transpose(%a) perm=[1, 0, 2]
                %t = transpose(%b) perm=[1, 2, 0]
                %y = matmul(%s, %t)
            }",
        );
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
    }

    /// In a square, any permutation has the types of the right one.
    #[test]
    fn leaves_other_permutations_of_squares_alone() {
        for (perm, rewrites) in [("[0, 1, 3, 2]", 1), ("[0, 1, 2, 3]", 0), ("[1, 0, 3, 2]", 0), ("[0, 3, 2, 1]", 0)] {
            let text = format!(
                "graph g(%a: f32[3, 3, 3, 3], %b: f32[3, 3, 3, 3]) -> (%y) {{
                %t = transpose(%b) perm={perm} %y = matmul(%a, %t) }}"
            );
            assert_eq!(run_rule(FuseTransposeMatmul, &text).rewrites, rewrites, "{perm}");
        }
    }
}
