//! Takes the sum with constants, one a column, into the epilogue of the matrix product before it.
//!
//! ```text
//! %m = matmul(%a, %w)
//! %y = add(%m, %s)
//! ```
//! becomes
//! ```text
//! %y = matmul(%a, %w, %s) epilogue=[add]
//! ```
//! and a constant bias that is there already becomes `b + s`.
//!
//! Fires when the matrix product has no epilogue, or a constant bias and nothing else, and the constant is one value
//! or one a column (`[N]`, `[1, N]`, `[]` ..), on either side. The weight need not be constant.
//!
//! Refuses when: broadcasting the constant enlarges the output; constant is not one value a channel; folded constants
//! leave the range of their type; the matrix product's output has another reader.
//!
//! Order: before `fuse_residual` and `fuse_activation`.
//!
//! Numerics: bit-exact where there is no bias yet; else the same sums in another order, within 1e-6 of the largest in
//! f32.

use trt_fuse_ir::op::BinaryOp;
use trt_fuse_ir::{Graph, NodeId, OpKind, Patch};

use crate::channels::{Affine, fold_operand_into_matmul};
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseMatmulBias;

impl Rule for FuseMatmulBias {
    fn name(&self) -> &'static str {
        "fuse_matmul_bias"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        fold_operand_into_matmul(self.name(), graph, root, BinaryOp::Add, Affine::shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run_rule;

    #[test]
    fn fires_on_one_constant_a_column() {
        let run = run_rule(
            FuseMatmulBias,
            "graph g(%a: f32[batch, 3], %w: f32[3, 2]) -> (%y) {
                %m = matmul(%a, %w)
                %k = constant() value=f32[2] {2, 3}
                %y = add(%m, %k)
            }",
        );
        insta::assert_snapshot!(run.equal_within(0.0, 2).after, @"
        graph g(%a: f32[batch, 3], %w: f32[3, 2]) -> (%y) {
          %m.fuse_matmul_bias = constant() value=f32[2] {2.0, 3.0}
          %y = matmul(%a, %w, %m.fuse_matmul_bias) epilogue=[add] : f32[batch, 2]
        }
        ");
    }

    #[test]
    fn fires_on_one_constant_and_a_bias() {
        let run = run_rule(
            FuseMatmulBias,
            "graph g(%a: f32[4, 3], %w: f32[3, 2]) -> (%y) {
                %b = constant() value=f32[1, 2] {10, 20}
                %m = matmul(%a, %w, %b) epilogue=[add]
                %k = constant() value=f32[] {2}
                %y = add(%k, %m)
            }",
        );
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%a: f32[4, 3], %w: f32[3, 2]) -> (%y) {
          %m.fuse_matmul_bias = constant() value=f32[2] {12.0, 22.0}
          %y = matmul(%a, %w, %m.fuse_matmul_bias) epilogue=[add] : f32[4, 2]
        }
        ");
    }

    /// The reasons for leaving the sum of a matrix product and a constant as it is.
    fn refuses(a: &str, w: &str, constant: &str, outputs: &str) -> Vec<String> {
        let run = run_rule(
            FuseMatmulBias,
            &format!(
                "graph g(%a: f32{a}, %w: f32{w}) -> ({outputs}) {{
                    %m = matmul(%a, %w)
                    %k = constant() value={constant}
                    %y = add(%m, %k)
                }}"
            ),
        );
        assert_eq!(run.rewrites, 0);
        run.reasons().into_iter().map(String::from).collect()
    }

    #[test]
    fn refuses_to_enlarge_the_output() {
        let reason = ["broadcasting the constant enlarges the output"];
        assert_eq!(refuses("[1, 1]", "[1, 1]", "f32[2] {1, 2}", "%y"), reason);
        assert_eq!(refuses("[3, 3]", "[3, 1]", "f32[1, 4] {1, 2, 3, 4}", "%y"), reason);
        assert_eq!(refuses("[3, 3]", "[3, 2]", "f32[1, 1, 2] {1, 2}", "%y"), reason);
    }

    #[test]
    fn refuses_another_axis() {
        assert_eq!(refuses("[2, 3]", "[3, 4]", "f32[2, 1] {1, 2}", "%y"), ["constant is not one value a channel"]);
    }

    #[test]
    fn refuses_constants_out_of_range() {
        let run = run_rule(
            FuseMatmulBias,
            "graph g(%a: f16[4, 3], %w: f16[3, 1]) -> (%y) {
                %b = constant() value=f16[1] {60000}
                %m = matmul(%a, %w, %b) epilogue=[add]
                %k = constant() value=f16[] {60000}
                %y = add(%m, %k)
            }",
        );
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["folded constants leave the range of their type"]));
    }

    #[test]
    fn refuses_an_output_with_another_reader() {
        assert_eq!(
            refuses("[2, 3]", "[3, 4]", "f32[] {1}", "%y, %m"),
            ["output of `m` also read by `an output of the graph`"]
        );
    }

    #[test]
    fn leaves_an_activation_alone() {
        let run = run_rule(
            FuseMatmulBias,
            "graph g(%a: f32[4, 3], %w: f32[3, 1]) -> (%y) {
                %m = matmul(%a, %w) epilogue=[relu]
                %k = constant() value=f32[] {1}
                %y = add(%m, %k)
            }",
        );
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
    }
}
