//! Folds a sum with constants, one a channel, into the bias of the convolution before it.
//!
//! ```text
//! %c = conv(%x, %w) ..
//! %y = add(%c, %s)
//! ```
//! becomes
//! ```text
//! %y = conv(%x, %w, %s) ..
//! ```
//! and a bias that is there already becomes `b + s`.
//!
//! Fires when the convolution (transposed too) has no epilogue and the constant is one value or one a channel
//! (`[C, 1, 1]`, `[1, C, 1, 1]`, `[1]` ..), on either side. The weight need not be constant.
//!
//! Refuses when: broadcasting the constant enlarges the output; constant is not one value a channel; bias is not
//! constant; folded constants leave the range of their type; the convolution's output has another reader.
//!
//! Order: after the passes that look for a sum inside an activation (`fuse_hard_sigmoid`), and after `fuse_conv_scale`
//! within a round; before `fuse_residual` and `fuse_activation`, which give convolutions an epilogue.
//!
//! Numerics: the same sums in another order; outputs within 1e-6 of the largest in f32.

use trt_fuse_ir::op::BinaryOp;
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch};

use crate::channels::{Affine, conv_channels, fold_into_conv, per_channel};
use crate::pass::{Miss, Rule, RuleContext};
use crate::pattern::constant_operand;

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseConvBias;

impl Rule for FuseConvBias {
    fn name(&self) -> &'static str {
        "fuse_conv_bias"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        if graph.op(root) != Some(&Op::Binary(BinaryOp::Add)) {
            return Err(Miss::NoMatch);
        }
        let (conv, constant) = constant_operand(graph, root).ok_or(Miss::NoMatch)?;
        let channels = conv_channels(graph, conv.node).ok_or(Miss::NoMatch)?;
        let affine = Affine::shift(per_channel(constant, channels, root)?);
        fold_into_conv(self.name(), graph, conv.node, root, &affine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run_rule;

    #[test]
    fn fires_on_one_constant_a_channel() {
        let run = run_rule(
            FuseConvBias,
            "graph g(%x: f32[1, 2, 3, 3], %w: f32[2, 2, 1, 1]) -> (%y) {
                %c = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1
                %k = constant() value=f32[1, 2, 1, 1] {2, 3}
                %y = add(%c, %k)
            }",
        );
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%x: f32[1, 2, 3, 3], %w: f32[2, 2, 1, 1]) -> (%y) {
          %c.fuse_conv_bias = constant() value=f32[2] {2.0, 3.0}
          %y = conv(%x, %w, %c.fuse_conv_bias) strides=[1, 1] dilations=[1, 1] groups=1 : f32[1, 2, 3, 3]
        }
        ");
    }

    #[test]
    fn fires_on_one_constant_and_a_bias() {
        let run = run_rule(
            FuseConvBias,
            "graph g(%x: f32[1, 2, 3], %w: f32[2, 2, 1]) -> (%y) {
                %b = constant() value=f32[2] {10, 20}
                %c = conv_transpose(%x, %w, %b) strides=[1] dilations=[1] output_padding=[0] groups=1
                %k = constant() value=f32[] {2}
                %y = add(%k, %c)
            }",
        );
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%x: f32[1, 2, 3], %w: f32[2, 2, 1]) -> (%y) {
          %c.fuse_conv_bias = constant() value=f32[2] {12.0, 22.0}
          %y = conv_transpose(%x, %w, %c.fuse_conv_bias) strides=[1] dilations=[1] output_padding=[0] groups=1 : f32[1, 2, 3]
        }
        ");
    }

    #[test]
    fn fires_on_several_in_a_row() {
        let run = run_rule(
            FuseConvBias,
            "graph g(%x: f32[1, 2, 3], %w: f32[2, 2, 1]) -> (%y) {
                %c = conv(%x, %w) strides=[1] dilations=[1] groups=1
                %k = constant() value=f32[] {2}
                %l = constant() value=f32[2, 1] {1, 2}
                %d = add(%k, %c)
                %y = add(%d, %l)
            }",
        );
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%x: f32[1, 2, 3], %w: f32[2, 2, 1]) -> (%y) {
          %c.fuse_conv_bias.1 = constant() value=f32[2] {3.0, 4.0}
          %y = conv(%x, %w, %c.fuse_conv_bias.1) strides=[1] dilations=[1] groups=1 : f32[1, 2, 3]
        }
        ");
    }

    /// The reasons for leaving the sum of a convolution's output, `[1, channels, 3, 3]`, and a constant as it is.
    fn refuses(channels: usize, bias: &str, constant: &str, outputs: &str) -> String {
        let run = run_rule(
            FuseConvBias,
            &format!(
                "graph g(%x: f32[1, 2, 3, 3], %w: f32[{channels}, 2, 1, 1], %i: f32[{channels}]) -> ({outputs}) {{
                    {bias}
                    %c = conv(%x, %w, %b) strides=[1, 1] dilations=[1, 1] groups=1
                    %k = constant() value={constant}
                    %y = add(%c, %k)
                }}"
            ),
        );
        assert_eq!(run.rewrites, 0);
        run.reasons().join("; ")
    }

    const ONE: &str = "%b = constant() value=f32[1] {1}";
    const TWO: &str = "%b = constant() value=f32[2] {1, 2}";

    #[test]
    fn refuses_to_enlarge_the_output() {
        let reason = "broadcasting the constant enlarges the output";
        assert_eq!(refuses(1, ONE, "f32[2, 1, 1] {1, 2}", "%y"), reason);
        assert_eq!(refuses(1, ONE, "f32[1, 1, 1, 1, 1] {1}", "%y"), reason);
    }

    #[test]
    fn refuses_another_axis() {
        assert_eq!(refuses(2, TWO, "f32[3] {1, 2, 3}", "%y"), "constant is not one value a channel");
    }

    #[test]
    fn refuses_a_bias_that_is_not_constant() {
        assert_eq!(refuses(2, "%b = identity(%i)", "f32[] {1}", "%y"), "bias is not constant");
    }

    #[test]
    fn refuses_constants_out_of_range() {
        let bias = "%b = constant() value=f32[2] splat 3e38";
        assert_eq!(refuses(2, bias, "f32[] {3e38}", "%y"), "folded constants leave the range of their type");
    }

    #[test]
    fn refuses_an_output_with_another_reader() {
        assert_eq!(refuses(2, TWO, "f32[] {1}", "%y, %c"), "output of `c` also read by `an output of the graph`");
    }

    #[test]
    fn leaves_an_epilogue_and_other_operators_alone() {
        for body in [
            "%c = conv(%x, %w) strides=[1] dilations=[1] groups=1 epilogue=[relu] %y = add(%c, %k)",
            "%c = conv(%x, %w) strides=[1] dilations=[1] groups=1 %y = max(%c, %k)",
            "%c = conv(%x, %w) strides=[1] dilations=[1] groups=1 %y = add(%c, %x)",
        ] {
            let text = format!(
                "graph g(%x: f32[1, 2, 3], %w: f32[2, 2, 1]) -> (%y) {{ %k = constant() value=f32[] {{2}} {body} }}"
            );
            let run = run_rule(FuseConvBias, &text);
            assert_eq!((run.rewrites, run.reasons()), (0, vec![]), "{body}");
        }
    }
}
