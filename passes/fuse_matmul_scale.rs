//! Folds a product with constants, one a column, into the weight and bias of the matrix product before it.
//!
//! ```text
//! %m = matmul(%a, %w, %b) epilogue=[add]
//! %y = mul(%m, %s)
//! ```
//! becomes, with `w' = w * s` for each column and `b' = b * s`,
//! ```text
//! %y = matmul(%a, %w', %b') epilogue=[add]
//! ```
//!
//! Fires when the matrix product has no epilogue, or a constant bias and nothing else, and the constant is one value
//! or one a column (`[N]`, `[1, N]`, `[]` ..), on either side. The product of two activations, as in attention, is no
//! match.
//!
//! Refuses when: broadcasting the constant enlarges the output; constant is not one value a channel; weight is not
//! constant; folded constants leave the range of their type; the matrix product's output has another reader.
//!
//! Order: before `fuse_residual` and `fuse_activation`.
//!
//! Numerics: each new constant rounded once; outputs within 1e-5 of the largest in f32.

use trt_fuse_ir::op::BinaryOp;
use trt_fuse_ir::{Graph, NodeId, OpKind, Patch};

use crate::channels::{Affine, fold_operand_into_matmul};
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseMatmulScale;

impl Rule for FuseMatmulScale {
    fn name(&self) -> &'static str {
        "fuse_matmul_scale"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        fold_operand_into_matmul(self.name(), graph, root, BinaryOp::Mul, Affine::scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run_rule;

    #[test]
    fn fires_on_one_constant_a_column() {
        let run = run_rule(
            FuseMatmulScale,
            "graph g(%a: f32[batch, 4, 3]) -> (%y) {
                %w = constant() value=f32[3, 2] {1, 2, 3, 4, 5, 6}
                %b = constant() value=f32[2] {10, 20}
                %m = matmul(%a, %w, %b) epilogue=[add]
                %k = constant() value=f32[1, 2] {2, 3}
                %y = mul(%m, %k)
            }",
        );
        insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%a: f32[batch, 4, 3]) -> (%y) {
          %m.fuse_matmul_scale = constant() value=f32[3, 2] {2.0, 6.0, 6.0, 12.0, 10.0, 18.0}
          %m.fuse_matmul_scale.1 = constant() value=f32[2] {20.0, 60.0}
          %y = matmul(%a, %m.fuse_matmul_scale, %m.fuse_matmul_scale.1) epilogue=[add] : f32[batch, 4, 2]
        }
        ");
    }

    #[test]
    fn fires_on_a_transposed_weight() {
        let run = run_rule(
            FuseMatmulScale,
            "graph g(%a: f32[4, 3]) -> (%y) {
                %w = constant() value=f32[2, 3] {1, 2, 3, 4, 5, 6}
                %m = matmul(%a, %w) transpose_b=true
                %k = constant() value=f32[2] {2, 3}
                %y = mul(%k, %m)
            }",
        );
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%a: f32[4, 3]) -> (%y) {
          %m.fuse_matmul_scale = constant() value=f32[2, 3] {2.0, 4.0, 6.0, 12.0, 15.0, 18.0}
          %y = matmul(%a, %m.fuse_matmul_scale) transpose_b=true : f32[4, 2]
        }
        ");
    }

    #[test]
    fn fires_on_one_constant_and_a_batch_of_weights() {
        let run = run_rule(
            FuseMatmulScale,
            "graph g(%a: f32[2, 1, 2]) -> (%y) {
                %w = constant() value=f32[2, 2, 2] {1, 2, 3, 4, 5, 6, 7, 8}
                %m = matmul(%a, %w)
                %k = constant() value=f32[] {2}
                %y = mul(%m, %k)
            }",
        );
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%a: f32[2, 1, 2]) -> (%y) {
          %m.fuse_matmul_scale = constant() value=f32[2, 2, 2] {2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0}
          %y = matmul(%a, %m.fuse_matmul_scale) : f32[2, 1, 2]
        }
        ");
    }

    /// The reasons for leaving the product of a matrix product `[4, columns]` and a constant as it is.
    fn refuses(weight: &str, operands: &str, constant: &str, outputs: &str) -> Vec<String> {
        let run = run_rule(
            FuseMatmulScale,
            &format!(
                "graph g(%a: f32[4, 2], %i: f32[2, 2]) -> ({outputs}) {{
                    %w = constant() value={weight}
                    %m = matmul({operands})
                    %k = constant() value={constant}
                    %y = mul(%m, %k)
                }}"
            ),
        );
        assert_eq!(run.rewrites, 0);
        run.reasons().into_iter().map(String::from).collect()
    }

    const SQUARE: &str = "f32[2, 2] {1, 2, 3, 4}";

    #[test]
    fn refuses_to_enlarge_the_output() {
        let reason = ["broadcasting the constant enlarges the output"];
        assert_eq!(refuses("f32[2, 1] {1, 2}", "%a, %w", "f32[4] {1, 2, 3, 4}", "%y"), reason);
        assert_eq!(refuses(SQUARE, "%a, %w", "f32[1, 1, 1] {1}", "%y"), reason);
    }

    #[test]
    fn refuses_another_axis() {
        assert_eq!(refuses(SQUARE, "%a, %w", "f32[4, 1] {1, 2, 3, 4}", "%y"), ["constant is not one value a channel"]);
    }

    #[test]
    fn refuses_a_weight_that_is_not_constant() {
        assert_eq!(refuses("f32[4, 2] splat 1", "%w, %i", "f32[] {2}", "%y"), ["weight is not constant"]);
    }

    #[test]
    fn leaves_attention_alone() {
        assert!(refuses(SQUARE, "%a, %i", "f32[] {2}", "%y").is_empty());
    }

    #[test]
    fn leaves_an_activation_and_a_bias_of_run_time_alone() {
        for operands in ["%a, %w) epilogue=[relu]", "%a, %w, %j) epilogue=[add]"] {
            let text = format!(
                "graph g(%a: f32[4, 2], %j: f32[2]) -> (%y) {{ %w = constant() value={SQUARE}
                %k = constant() value=f32[] {{2}} %m = matmul({operands} %y = mul(%m, %k) }}"
            );
            let run = run_rule(FuseMatmulScale, &text);
            assert_eq!((run.rewrites, run.reasons()), (0, vec![]), "{operands}");
        }
    }

    #[test]
    fn refuses_constants_out_of_range() {
        assert_eq!(refuses(SQUARE, "%a, %w", "f32[] {3e38}", "%y"), ["folded constants leave the range of their type"]);
    }

    #[test]
    fn refuses_an_output_with_another_reader() {
        assert_eq!(
            refuses(SQUARE, "%a, %w", "f32[] {2}", "%y, %m"),
            ["output of `m` also read by `an output of the graph`"]
        );
    }
}
