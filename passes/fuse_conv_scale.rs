//! Folds a product with constants, one a channel, into the weight and bias of the convolution before it.
//!
//! ```text
//! %c = conv(%x, %w, %b) ..
//! %y = mul(%c, %s)
//! ```
//! becomes, with `w' = w * s` for each output channel and `b' = b * s`,
//! ```text
//! %y = conv(%x, %w', %b') ..
//! ```
//!
//! Fires when the convolution (transposed too) has no epilogue and the constant is one value or one a channel
//! (`[C, 1, 1]`, `[1, C, 1, 1]`, `[1]` ..), on either side.
//!
//! Refuses when: broadcasting the constant enlarges the output; constant is not one value a channel; weight is not
//! constant; bias is not constant; folded constants leave the range of their type; the convolution's output has
//! another reader.
//!
//! Order: after the passes that look for a product inside an activation (`fuse_hard_swish`); before `fuse_residual` and
//! `fuse_activation`, which give convolutions an epilogue.
//!
//! Numerics: each new constant rounded once; outputs within 1e-5 of the largest in f32.

use trt_fuse_ir::op::BinaryOp;
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch};

use crate::channels::{Affine, conv_channels, fold_into_conv, per_channel};
use crate::pass::{Miss, Rule, RuleContext};
use crate::pattern::constant_operand;

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseConvScale;

impl Rule for FuseConvScale {
    fn name(&self) -> &'static str {
        "fuse_conv_scale"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        if graph.op(root) != Some(&Op::Binary(BinaryOp::Mul)) {
            return Err(Miss::NoMatch);
        }
        let (conv, constant) = constant_operand(graph, root).ok_or(Miss::NoMatch)?;
        let channels = conv_channels(graph, conv.node).ok_or(Miss::NoMatch)?;
        let affine = Affine::scale(per_channel(constant, channels, root)?);
        fold_into_conv(self.name(), graph, conv.node, root, &affine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    const WEIGHT: &str = "%w = constant() value=f32[2, 2, 1, 1] {1, 2, 3, 4}";
    const BIAS: &str = "%b = constant() value=f32[2] {10, 20}";

    /// A convolution of two output channels, 3 by 3, and the product with a constant after it.
    fn scaled_conv(constants: &str, product: &str) -> Run {
        run_rule(
            FuseConvScale,
            &format!(
                "graph g(%x: f32[1, 2, 3, 3], %i: f32[2]) -> (%y) {{
                    {constants}
                    %c = conv(%x, %w, %b) strides=[1, 1] dilations=[1, 1] groups=1
                    %y = {product}
                }}"
            ),
        )
    }

    #[test]
    fn fires_on_one_constant_a_channel() {
        let run = scaled_conv(&format!("{WEIGHT} {BIAS} %k = constant() value=f32[2, 1, 1] {{2, 3}}"), "mul(%c, %k)");
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%x: f32[1, 2, 3, 3], %i: f32[2]) -> (%y) {
          %c.fuse_conv_scale = constant() value=f32[2, 2, 1, 1] {2.0, 4.0, 9.0, 12.0}
          %c.fuse_conv_scale.1 = constant() value=f32[2] {20.0, 60.0}
          %y = conv(%x, %c.fuse_conv_scale, %c.fuse_conv_scale.1) strides=[1, 1] dilations=[1, 1] groups=1 : f32[1, 2, 3, 3]
        }
        ");
    }

    #[test]
    fn fires_on_one_constant_on_the_left() {
        let run = scaled_conv(&format!("{WEIGHT} {BIAS} %k = constant() value=f32[1] {{2}}"), "mul(%k, %c)");
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%x: f32[1, 2, 3, 3], %i: f32[2]) -> (%y) {
          %c.fuse_conv_scale = constant() value=f32[2, 2, 1, 1] {2.0, 4.0, 6.0, 8.0}
          %c.fuse_conv_scale.1 = constant() value=f32[2] {20.0, 40.0}
          %y = conv(%x, %c.fuse_conv_scale, %c.fuse_conv_scale.1) strides=[1, 1] dilations=[1, 1] groups=1 : f32[1, 2, 3, 3]
        }
        ");
    }

    #[test]
    fn fires_on_a_transposed_conv_without_bias() {
        let run = run_rule(
            FuseConvScale,
            "graph g(%x: f32[1, 2, 3, 3]) -> (%y) {
                %w = constant() value=f32[2, 2, 1, 1] {1, 2, 3, 4}
                %k = constant() value=f32[1, 2, 1, 1] {2, 3}
                %c = conv_transpose(%x, %w) strides=[1, 1] dilations=[1, 1] output_padding=[0, 0] groups=1
                %y = mul(%c, %k)
            }",
        );
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%x: f32[1, 2, 3, 3]) -> (%y) {
          %c.fuse_conv_scale = constant() value=f32[2, 2, 1, 1] {2.0, 6.0, 6.0, 12.0}
          %y = conv_transpose(%x, %c.fuse_conv_scale) strides=[1, 1] dilations=[1, 1] output_padding=[0, 0] groups=1 : f32[1, 2, 3, 3]
        }
        ");
    }

    #[test]
    fn refuses_to_enlarge_the_output() {
        let run = run_rule(
            FuseConvScale,
            "graph g(%x: f32[1, 2, 3, 3]) -> (%y) {
                %w = constant() value=f32[1, 2, 1, 1] {1, 2}
                %c = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1
                %k = constant() value=f32[2, 1, 1] {1, 2}
                %y = mul(%c, %k)
            }",
        );
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["broadcasting the constant enlarges the output"]));
        let more_axes =
            scaled_conv(&format!("{WEIGHT} {BIAS} %k = constant() value=f32[1, 1, 1, 1, 1] {{2}}"), "mul(%c, %k)");
        assert_eq!(
            (more_axes.rewrites, more_axes.reasons()),
            (0, vec!["broadcasting the constant enlarges the output"])
        );
    }

    #[test]
    fn refuses_another_axis() {
        let run = scaled_conv(&format!("{WEIGHT} {BIAS} %k = constant() value=f32[3] {{1, 2, 3}}"), "mul(%c, %k)");
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["constant is not one value a channel"]));
    }

    #[test]
    fn refuses_a_weight_that_is_not_constant() {
        let run = run_rule(
            FuseConvScale,
            "graph g(%x: f32[1, 2, 3, 3], %w: f32[2, 2, 1, 1]) -> (%y) {
                %c = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1
                %k = constant() value=f32[] {2}
                %y = mul(%c, %k)
            }",
        );
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["weight is not constant"]));
    }

    #[test]
    fn refuses_a_bias_that_is_not_constant() {
        let run = scaled_conv(&format!("{WEIGHT} %b = identity(%i) %k = constant() value=f32[] {{2}}"), "mul(%c, %k)");
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["bias is not constant"]));
    }

    #[test]
    fn refuses_constants_out_of_range() {
        let run = scaled_conv(&format!("{WEIGHT} {BIAS} %k = constant() value=f32[] {{3e38}}"), "mul(%c, %k)");
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["folded constants leave the range of their type"]));
    }

    #[test]
    fn refuses_an_output_with_another_reader() {
        let run = run_rule(
            FuseConvScale,
            "graph g(%x: f32[1, 2, 3, 3]) -> (%y, %z) {
                %w = constant() value=f32[2, 2, 1, 1] {1, 2, 3, 4}
                %c = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1
                %k = constant() value=f32[] {2}
                %y = mul(%c, %k)
                %z = relu(%c)
            }",
        );
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["output of `c` also read by `z`"]));
    }

    #[test]
    fn leaves_an_epilogue_and_other_operators_alone() {
        for body in [
            "%c = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1 epilogue=[relu] %y = mul(%c, %k)",
            "%c = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1 %y = max(%c, %k)",
            "%c = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1 %y = mul(%c, %x)",
        ] {
            let text =
                format!("graph g(%x: f32[1, 2, 3, 3]) -> (%y) {{ {WEIGHT} %k = constant() value=f32[] {{2}} {body} }}");
            let run = run_rule(FuseConvScale, &text);
            assert_eq!((run.rewrites, run.reasons()), (0, vec![]), "{body}");
        }
    }
}
