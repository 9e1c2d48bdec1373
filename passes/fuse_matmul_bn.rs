//! Folds a BatchNorm into the weight and bias of the matrix product before it.
//!
//! ```text
//! %m = matmul(%a, %w) : f32[n, 64]
//! %y = batch_norm(%m, %scale, %bias, %mean, %var) epsilon=0.00001
//! ```
//! becomes, with `f = scale / sqrt(var + epsilon)`, `w' = w * f` for each column and `b' = bias - mean * f`,
//! ```text
//! %y = matmul(%a, %w', %b') epilogue=[add]
//! ```
//!
//! Fires when the output has two axes, so that columns are channels, and the matrix product has no epilogue, or a
//! constant bias and nothing else.
//!
//! Refuses when: normalization parameters are not constant; normalization parameters give factors that are not finite;
//! weight is not constant; folded constants leave the range of their type; the matrix product's output has another
//! reader.
//!
//! Order: before `fuse_residual` and `fuse_activation`.
//!
//! Numerics: factors in f64, each new constant rounded once; outputs within 1e-5 of the largest in f32.

use trt_fuse_ir::{Graph, NodeId, OpKind, Patch};

use crate::channels::{Affine, fold_into_matmul, matmul_columns};
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseMatmulBn;

impl Rule for FuseMatmulBn {
    fn name(&self) -> &'static str {
        "fuse_matmul_bn"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::BatchNorm]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let matmul = graph.input(root, 0).ok_or(Miss::NoMatch)?.node;
        let (rank, _, columns) = matmul_columns(graph, matmul).ok_or(Miss::NoMatch)?;
        if rank != 2 {
            return Err(Miss::NoMatch);
        }
        fold_into_matmul(self.name(), graph, matmul, root, &Affine::of_batch_norm(graph, root, columns)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run_rule;

    const PARAMETERS: &str = "
        %s = constant() value=f32[2] {1, 2}
        %o = constant() value=f32[2] {0.5, -0.5}
        %m = constant() value=f32[2] {1, -1}
        %v = constant() value=f32[2] {4, 0.25}
    ";

    #[test]
    fn fires_with_a_bias() {
        let run = run_rule(
            FuseMatmulBn,
            &format!(
                "graph g(%a: f32[batch, 3]) -> (%y) {{
                    %w = constant() value=f32[3, 2] {{1, 2, 3, 4, 5, 6}}
                    %b = constant() value=f32[2] {{10, 20}}
                    {PARAMETERS}
                    %p = matmul(%a, %w, %b) epilogue=[add]
                    %y = batch_norm(%p, %s, %o, %m, %v) epsilon=0
                }}"
            ),
        );
        // As for fuse_conv_bn: factors 0.5 and 4, biases (10 - 1) * 0.5 + 0.5 and (20 + 1) * 4 - 0.5.
        insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%a: f32[batch, 3]) -> (%y) {
          %p.fuse_matmul_bn = constant() value=f32[3, 2] {0.5, 8.0, 1.5, 16.0, 2.5, 24.0}
          %p.fuse_matmul_bn.1 = constant() value=f32[2] {5.0, 83.5}
          %y = matmul(%a, %p.fuse_matmul_bn, %p.fuse_matmul_bn.1) epilogue=[add] : f32[batch, 2]
        }
        ");
    }

    #[test]
    fn fires_without_a_bias_on_a_transposed_weight() {
        let run = run_rule(
            FuseMatmulBn,
            &format!(
                "graph g(%a: f32[batch, 3]) -> (%y) {{
                    %w = constant() value=f32[2, 3] {{1, 2, 3, 4, 5, 6}}
                    {PARAMETERS}
                    %p = matmul(%a, %w) transpose_b=true
                    %y = batch_norm(%p, %s, %o, %m, %v) epsilon=0
                }}"
            ),
        );
        // Factors 0.5 and 4 of the rows; biases 0.5 - 1 * 0.5 and -0.5 + 1 * 4.
        insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%a: f32[batch, 3]) -> (%y) {
          %p.fuse_matmul_bn = constant() value=f32[2, 3] {0.5, 1.0, 1.5, 16.0, 20.0, 24.0}
          %p.fuse_matmul_bn.1 = constant() value=f32[2] {0.0, 3.5}
          %y = matmul(%a, %p.fuse_matmul_bn, %p.fuse_matmul_bn.1) transpose_b=true epilogue=[add] : f32[batch, 2]
        }
        ");
    }

    /// The reasons for leaving a matrix product and a BatchNorm as they are.
    fn refuses(a: &str, weight: &str, parameters: &str, outputs: &str) -> Vec<String> {
        let run = run_rule(
            FuseMatmulBn,
            &format!(
                "graph g(%a: f32{a}, %i: f32[2], %j: f32[2, 2]) -> ({outputs}) {{
                    {weight}
                    {parameters}
                    %p = matmul(%a, %w)
                    %y = batch_norm(%p, %s, %o, %m, %v) epsilon=0
                }}"
            ),
        );
        assert_eq!(run.rewrites, 0);
        run.reasons().into_iter().map(String::from).collect()
    }

    const WEIGHT: &str = "%w = constant() value=f32[2, 2] {1, 2, 3, 4}";

    #[test]
    fn refuses_parameters_that_are_not_constant() {
        let parameters = PARAMETERS.replace("%m = constant() value=f32[2] {1, -1}", "%m = identity(%i)");
        assert_eq!(refuses("[4, 2]", WEIGHT, &parameters, "%y"), ["normalization parameters are not constant"]);
    }

    #[test]
    fn refuses_factors_that_are_not_finite() {
        let parameters = PARAMETERS.replace("{4, 0.25}", "{4, -1}");
        assert_eq!(
            refuses("[4, 2]", WEIGHT, &parameters, "%y"),
            ["normalization parameters give factors that are not finite"]
        );
    }

    #[test]
    fn refuses_a_weight_that_is_not_constant() {
        let run = run_rule(
            FuseMatmulBn,
            &format!(
                "graph g(%w: f32[2, 2]) -> (%y) {{
                    {PARAMETERS}
                    %a = constant() value=f32[4, 2] splat 1
                    %p = matmul(%a, %w)
                    %y = batch_norm(%p, %s, %o, %m, %v) epsilon=0
                }}"
            ),
        );
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["weight is not constant"]));
    }

    #[test]
    fn refuses_constants_out_of_range() {
        let weight = "%w = constant() value=f32[2, 2] splat 1e38";
        assert_eq!(refuses("[4, 2]", weight, PARAMETERS, "%y"), ["folded constants leave the range of their type"]);
    }

    #[test]
    fn refuses_an_output_with_another_reader() {
        assert_eq!(
            refuses("[4, 2]", WEIGHT, PARAMETERS, "%y, %p"),
            ["output of `p` also read by `an output of the graph`"]
        );
    }

    #[test]
    fn leaves_more_axes_alone() {
        assert!(refuses("[3, 2, 2]", WEIGHT, PARAMETERS, "%y").is_empty());
    }
}
