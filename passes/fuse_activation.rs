//! Takes an activation into the epilogue of the convolution, matrix product or batch normalization before it.
//!
//! ```text
//! %c = conv(%x, %w, %b, %r) .. epilogue=[add]
//! %y = relu(%c)
//! ```
//! becomes
//! ```text
//! %y = conv(%x, %w, %b, %r) .. epilogue=[add, relu]
//! ```
//!
//! Fires on every activation; an epilogue has one at most.
//!
//! Refuses when: there is an activation already; the output before the activation has another reader.
//!
//! Order: after everything that folds into weights and biases, and after `fuse_residual`.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, Step};

use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseActivation;

impl Rule for FuseActivation {
    fn name(&self) -> &'static str {
        "fuse_activation"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Activation]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Activation(activation)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let host = graph.input(root, 0).ok_or(Miss::NoMatch)?.node;
        let op = graph.op(host).ok_or(Miss::NoMatch)?;
        let epilogue = op.epilogue().ok_or(Miss::NoMatch)?;
        if epilogue.0.iter().any(|step| matches!(step, Step::Activation(_))) {
            return Err(Miss::Blocked { reason: "there is an activation already", at: root });
        }
        let fused = op.with_epilogue(epilogue.with(Step::Activation(*activation))).ok_or(Miss::NoMatch)?;
        let mut patch = Patch::new(self.name(), host);
        let fused = patch.add(fused, &graph.node_inputs(host));
        patch.replace(root.into(), fused).absorb([host, root]);
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run_rule;

    #[test]
    fn fires_after_a_residual() {
        let run = run_rule(
            FuseActivation,
            "graph g(%x: f32[1, 2, 3], %w: f32[2, 2, 1], %r: f32[1, 2, 3]) -> (%y) {
                %c = conv(%x, %w, _, %r) strides=[1] dilations=[1] groups=1 epilogue=[add]
                %y = clip(%c) p=[0, 6]
            }",
        );
        insta::assert_snapshot!(run.equal_within(0.0, 1).after, @"
        graph g(%x: f32[1, 2, 3], %w: f32[2, 2, 1], %r: f32[1, 2, 3]) -> (%y) {
          %y = conv(%x, %w, _, %r) strides=[1] dilations=[1] groups=1 epilogue=[add, clip(0.0, 6.0)] : f32[1, 2, 3]
        }
        ");
    }

    #[test]
    fn fires_on_transposed_conv_and_matmul() {
        let run = run_rule(
            FuseActivation,
            "graph g(%x: f32[1, 2, 3], %w: f32[2, 2, 1], %v: f32[3, 4]) -> (%y) {
                %c = conv_transpose(%x, %w) strides=[1] dilations=[1] output_padding=[0] groups=1
                %d = hard_swish(%c)
                %m = matmul(%d, %v)
                %y = sigmoid(%m)
            }",
        );
        insta::assert_snapshot!(run.equal_within(0.0, 1).after, @"
        graph g(%x: f32[1, 2, 3], %w: f32[2, 2, 1], %v: f32[3, 4]) -> (%y) {
          %d = conv_transpose(%x, %w) strides=[1] dilations=[1] output_padding=[0] groups=1 epilogue=[hard_swish] : f32[1, 2, 3]
          %y = matmul(%d, %v) epilogue=[sigmoid] : f32[1, 2, 4]
        }
        ");
    }

    #[test]
    fn fires_on_a_normalization() {
        let text = "graph g(%x: f32[n, 2, 3]) -> (%y) {
            %s = constant() value=f32[2] {1.5, -0.5} %b = constant() value=f32[2] {0.25, 1.0}
            %m = constant() value=f32[2] {0.5, 0.0} %v = constant() value=f32[2] {1.0, 4.0}
            %n = batch_norm(%x, %s, %b, %m, %v) epsilon=1e-3 %y = relu(%n) }";
        let run = run_rule(FuseActivation, text);
        assert_eq!(run.equal_within(0.0, 2).rewrites, 1);
        assert!(run.after.to_string().contains("epilogue=[relu]"), "{}", run.after);
    }

    /// The reasons for leaving an activation after a matrix product as it is.
    fn refuses(matmul: &str, outputs: &str) -> Vec<String> {
        let run = run_rule(
            FuseActivation,
            &format!(
                "graph g(%a: f32[2, 3], %b: f32[3, 4]) -> ({outputs}) {{
                    %m = matmul(%a, %b) {matmul}
                    %y = tanh(%m)
                }}"
            ),
        );
        assert_eq!(run.rewrites, 0);
        run.reasons().into_iter().map(String::from).collect()
    }

    #[test]
    fn refuses_a_second_activation() {
        assert_eq!(refuses("epilogue=[relu]", "%y"), ["there is an activation already"]);
    }

    #[test]
    fn refuses_an_output_with_another_reader() {
        assert_eq!(refuses("", "%y, %m"), ["output of `m` also read by `an output of the graph`"]);
    }
}
