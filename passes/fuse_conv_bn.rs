//! Folds a BatchNorm into the weight and bias of the convolution before it.
//!
//! ```text
//! %c = conv(%x, %w, %b) ..
//! %y = batch_norm(%c, %scale, %bias, %mean, %var) epsilon=0.00001
//! ```
//! becomes, with `f = scale / sqrt(var + epsilon)`, `w' = w * f` for each output channel and
//! `b' = (b - mean) * f + bias`,
//! ```text
//! %y = conv(%x, %w', %b') ..
//! ```
//!
//! Fires when the convolution (transposed too) has no epilogue. Its weight stays as it is for other readers: two
//! convolutions that shared one get a copy each. A BatchNorm in front of a convolution is left alone.
//!
//! Refuses when: normalization parameters are not constant; normalization parameters give factors that are not finite;
//! weight is not constant; bias is not constant; folded constants leave the range of their type; the convolution's
//! output has another reader.
//!
//! Order: before `fuse_residual` and `fuse_activation`, which give convolutions an epilogue.
//!
//! Numerics: factors in f64, each new constant rounded once; outputs within 1e-5 of the largest in f32.

use trt_fuse_ir::{Graph, NodeId, OpKind, Patch};

use crate::channels::{Affine, conv_channels, fold_into_conv};
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseConvBn;

impl Rule for FuseConvBn {
    fn name(&self) -> &'static str {
        "fuse_conv_bn"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::BatchNorm]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let conv = graph.input(root, 0).ok_or(Miss::NoMatch)?.node;
        let (_, _, channels) = conv_channels(graph, conv).ok_or(Miss::NoMatch)?;
        fold_into_conv(self.name(), graph, conv, root, &Affine::of_batch_norm(graph, root, channels)?)
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
    fn fires_on_conv() {
        let run = run_rule(
            FuseConvBn,
            &format!(
                "graph g(%x: f32[batch, 2, 5, 5]) -> (%y) {{
                    %w = constant() value=f32[2, 2, 1, 1] {{1, 2, 3, 4}}
                    %b = constant() value=f32[2] {{10, 20}}
                    {PARAMETERS}
                    %c = conv(%x, %w, %b) strides=[1, 1] dilations=[1, 1] groups=1
                    %y = batch_norm(%c, %s, %o, %m, %v) epsilon=0
                }}"
            ),
        );
        // Factors 1 / sqrt(4) and 2 / sqrt(0.25); biases (10 - 1) * 0.5 + 0.5 and (20 + 1) * 4 - 0.5.
        insta::assert_snapshot!(run.equal_within(1e-6, 3).after, @"
        graph g(%x: f32[batch, 2, 5, 5]) -> (%y) {
          %c.fuse_conv_bn = constant() value=f32[2, 2, 1, 1] {0.5, 1.0, 12.0, 16.0}
          %c.fuse_conv_bn.1 = constant() value=f32[2] {5.0, 83.5}
          %y = conv(%x, %c.fuse_conv_bn, %c.fuse_conv_bn.1) strides=[1, 1] dilations=[1, 1] groups=1 : f32[batch, 2, 5, 5]
        }
        ");
    }

    #[test]
    fn fires_without_bias_in_f16() {
        let run = run_rule(
            FuseConvBn,
            "graph g(%x: f16[1, 2, 5]) -> (%y) {
                %w = constant() value=f16[2, 1, 3] {1, 2, 3, 4, 5, 6}
                %s = constant() value=f16[2] {1, 2}
                %o = constant() value=f16[2] {0.5, -0.5}
                %m = constant() value=f32[2] {1, -1}
                %v = constant() value=f32[2] {4, 0.25}
                %c = conv(%x, %w) strides=[2] dilations=[1] groups=2 padding=same_upper
                %y = batch_norm(%c, %s, %o, %m, %v) epsilon=0
            }",
        );
        insta::assert_snapshot!(run.equal_within(2e-3, 1).after, @"
        graph g(%x: f16[1, 2, 5]) -> (%y) {
          %c.fuse_conv_bn = constant() value=f16[2, 1, 3] {0.5, 1.0, 1.5, 16.0, 20.0, 24.0}
          %c.fuse_conv_bn.1 = constant() value=f16[2] {0.0, 3.5}
          %y = conv(%x, %c.fuse_conv_bn, %c.fuse_conv_bn.1) strides=[2] dilations=[1] padding=same_upper groups=2 : f16[1, 2, 3]
        }
        ");
    }

    #[test]
    fn fires_on_transposed_conv_of_groups() {
        // Output channels 0 and 1 come from input channels 0 and 1, 2 and 3 from 2 and 3.
        let run = run_rule(
            FuseConvBn,
            "graph g(%x: f32[1, 4, 3]) -> (%y) {
                %w = constant() value=f32[4, 2, 1] {1, 1, 1, 1, 1, 1, 1, 1}
                %s = constant() value=f32[4] {1, 2, 3, 4}
                %o = constant() value=f32[4] {0, 0, 0, 1}
                %m = constant() value=f32[4] splat 0
                %v = constant() value=f32[4] splat 1
                %c = conv_transpose(%x, %w) strides=[2] dilations=[1] output_padding=[0] groups=2
                %y = batch_norm(%c, %s, %o, %m, %v) epsilon=0
            }",
        );
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%x: f32[1, 4, 3]) -> (%y) {
          %c.fuse_conv_bn = constant() value=f32[4, 2, 1] {1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0}
          %c.fuse_conv_bn.1 = constant() value=f32[4] {0.0, 0.0, 0.0, 1.0}
          %y = conv_transpose(%x, %c.fuse_conv_bn, %c.fuse_conv_bn.1) strides=[2] dilations=[1] output_padding=[0] groups=2 : f32[1, 4, 5]
        }
        ");
    }

    #[test]
    fn splats_stay_splats() {
        let run = run_rule(
            FuseConvBn,
            "graph g(%x: f32[1, 8, 4, 4]) -> (%y) {
                %w = constant() value=f32[8, 8, 3, 3] splat 0.5
                %s = constant() value=f32[8] splat 2
                %o = constant() value=f32[8] splat 1
                %m = constant() value=f32[8] splat 0
                %v = constant() value=f32[8] splat 1
                %c = conv(%x, %w) strides=[1, 1] dilations=[1, 1] padding=[1, 1, 1, 1] groups=1
                %y = batch_norm(%c, %s, %o, %m, %v) epsilon=0
            }",
        );
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%x: f32[1, 8, 4, 4]) -> (%y) {
          %c.fuse_conv_bn = constant() value=f32[8, 8, 3, 3] splat 1.0
          %c.fuse_conv_bn.1 = constant() value=f32[8] {1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0}
          %y = conv(%x, %c.fuse_conv_bn, %c.fuse_conv_bn.1) strides=[1, 1] dilations=[1, 1] padding=[1, 1, 1, 1] groups=1 : f32[1, 8, 4, 4]
        }
        ");
    }

    #[test]
    fn a_shared_weight_is_copied() {
        let run = run_rule(
            FuseConvBn,
            &format!(
                "graph g(%x: f32[1, 2, 2, 2]) -> (%y, %c2) {{
                    %w = constant() value=f32[2, 2, 1, 1] {{1, 2, 3, 4}}
                    {PARAMETERS}
                    %c = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1
                    %c2 = conv(%x, %w) strides=[2, 2] dilations=[1, 1] groups=1
                    %y = batch_norm(%c, %s, %o, %m, %v) epsilon=0
                }}"
            ),
        );
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%x: f32[1, 2, 2, 2]) -> (%y, %c2) {
          %c.fuse_conv_bn = constant() value=f32[2, 2, 1, 1] {0.5, 1.0, 12.0, 16.0}
          %c.fuse_conv_bn.1 = constant() value=f32[2] {0.0, 3.5}
          %y = conv(%x, %c.fuse_conv_bn, %c.fuse_conv_bn.1) strides=[1, 1] dilations=[1, 1] groups=1 : f32[1, 2, 2, 2]
          %w = constant() value=f32[2, 2, 1, 1] {1.0, 2.0, 3.0, 4.0}
          %c2 = conv(%x, %w) strides=[2, 2] dilations=[1, 1] groups=1 : f32[1, 2, 1, 1]
        }
        ");
        assert!(run.remarks.is_empty());
    }

    /// The reasons for leaving a graph whose first nodes are `constants`, a convolution and a BatchNorm as it is.
    fn refuses(inputs: &str, outputs: &str, constants: &str) -> String {
        let run = run_rule(
            FuseConvBn,
            &format!(
                "graph g(%x: f32[1, 2, 2, 2]{inputs}) -> ({outputs}) {{
                    {constants}
                    %c = conv(%x, %w, %b) strides=[1, 1] dilations=[1, 1] groups=1
                    %y = batch_norm(%c, %s, %o, %m, %v) epsilon=0
                }}"
            ),
        );
        assert_eq!(run.rewrites, 0);
        run.reasons().join("; ")
    }

    const WEIGHT: &str = "%w = constant() value=f32[2, 2, 1, 1] {1, 2, 3, 4}";
    const BIAS: &str = "%b = constant() value=f32[2] {1, 2}";

    #[test]
    fn refuses_parameters_that_are_not_constant() {
        let constants =
            format!("{WEIGHT} {BIAS} {}", PARAMETERS.replace("%o = constant() value=f32[2] {0.5, -0.5}", ""));
        assert_eq!(refuses(", %o: f32[2]", "%y", &constants), "normalization parameters are not constant");
    }

    #[test]
    fn refuses_factors_that_are_not_finite() {
        let constants = format!("{WEIGHT} {BIAS} {}", PARAMETERS.replace("{4, 0.25}", "{4, 0}"));
        assert_eq!(refuses("", "%y", &constants), "normalization parameters give factors that are not finite");
    }

    #[test]
    fn refuses_a_weight_that_is_not_constant() {
        let constants = format!("{BIAS} {PARAMETERS}");
        assert_eq!(refuses(", %w: f32[2, 2, 1, 1]", "%y", &constants), "weight is not constant");
    }

    #[test]
    fn refuses_a_bias_that_is_not_constant() {
        let constants = format!("{WEIGHT} {PARAMETERS}");
        assert_eq!(refuses(", %b: f32[2]", "%y", &constants), "bias is not constant");
    }

    #[test]
    fn refuses_constants_out_of_range() {
        let constants = format!("{WEIGHT} {BIAS} {}", PARAMETERS.replace("{1, 2}", "{3e38, 2}"));
        let constants = constants.replace("{4, 0.25}", "{0.01, 0.25}");
        assert_eq!(refuses("", "%y", &constants), "folded constants leave the range of their type");
    }

    #[test]
    fn refuses_an_output_with_another_reader() {
        let constants = format!("{WEIGHT} {BIAS} {PARAMETERS}");
        assert_eq!(refuses("", "%y, %c", &constants), "output of `c` also read by `an output of the graph`");
    }

    #[test]
    fn leaves_a_norm_in_front_alone() {
        let run = run_rule(
            FuseConvBn,
            &format!(
                "graph g(%x: f32[1, 2, 2, 2]) -> (%y) {{
                    {WEIGHT} {PARAMETERS}
                    %n = batch_norm(%x, %s, %o, %m, %v) epsilon=0
                    %y = conv(%n, %w) strides=[1, 1] dilations=[1, 1] groups=1
                }}"
            ),
        );
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
    }

    #[test]
    fn leaves_an_epilogue_alone() {
        let run = run_rule(
            FuseConvBn,
            &format!(
                "graph g(%x: f32[1, 2, 2, 2]) -> (%y) {{
                    {WEIGHT} {PARAMETERS}
                    %c = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1 epilogue=[relu]
                    %y = batch_norm(%c, %s, %o, %m, %v) epsilon=0
                }}"
            ),
        );
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
    }
}
