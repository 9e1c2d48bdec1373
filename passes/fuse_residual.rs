//! Takes the sum with another tensor into the epilogue of a convolution or matrix product.
//!
//! ```text
//! %c = conv(%x, %w, %b) ..
//! %y = add(%c, %r)
//! ```
//! becomes
//! ```text
//! %y = conv(%x, %w, %b, %r) .. epilogue=[add]
//! ```
//!
//! Fires when the other tensor has the output's very shape, by symbols too. With a convolution on both sides the right
//! one takes the sum, being later in topological order. There is no cycle: as the sum is the only reader of the
//! convolution, the other tensor cannot depend on it.
//!
//! A host that `fold_constants` takes is no match: the sum is left a sum.
//!
//! Refuses when: output before the sum has another reader; residual comes after an activation; there is a residual
//! already; residual has another shape.
//!
//! Order: after the foldings into weights and biases, which look for sums with constants; before `fuse_activation`, so
//! that the order in the epilogue is bias, residual, activation, as in TensorRT's kernels.
//!
//! Numerics: bit-exact.

use smallvec::SmallVec;
use trt_fuse_ir::op::BinaryOp;
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, Step, ValueRef};

use crate::fold_constants::is_to_be_folded;
use crate::pass::{Miss, Rule, RuleContext};
use crate::pattern::same_shape;

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseResidual;

impl Rule for FuseResidual {
    fn name(&self) -> &'static str {
        "fuse_residual"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        if graph.op(root) != Some(&Op::Binary(BinaryOp::Add)) {
            return Err(Miss::NoMatch);
        }
        let (Some(a), Some(b)) = (graph.input(root, 0), graph.input(root, 1)) else { return Err(Miss::NoMatch) };
        if a == b {
            return Err(Miss::NoMatch);
        }
        self.fuse(graph, root, [b, a], context).or_else(|right| {
            // Of two reasons, the one of a convolution tells more.
            self.fuse(graph, root, [a, b], context).map_err(|left| if left == Miss::NoMatch { right } else { left })
        })
    }
}

impl FuseResidual {
    /// Lets `host` take the sum of both operands of `root`.
    fn fuse(
        &self,
        graph: &Graph,
        root: NodeId,
        [host, residual]: [ValueRef; 2],
        context: &RuleContext<'_>,
    ) -> Result<Patch, Miss> {
        let op = graph.op(host.node).ok_or(Miss::NoMatch)?;
        let (epilogue, own) = op.epilogue().zip(op.own_inputs()).ok_or(Miss::NoMatch)?;
        let blocked = |reason| Err(Miss::Blocked { reason, at: root });
        let mut inputs: SmallVec<[_; 4]> = graph.node_inputs(host.node);
        if graph.sole_consumer(host).is_none() {
            // Left to the patch's check, the other operand would not be tried.
            return Err(Miss::AlsoRead { value: host, within: root });
        }
        if is_to_be_folded(graph, host.node, context.options) {
            return Err(Miss::NoMatch);
        }
        let adds = inputs.get(own..).unwrap_or(&[]);
        if epilogue.0.iter().any(|step| matches!(step, Step::Activation(_))) {
            return blocked("residual comes after an activation");
        }
        if adds.iter().flatten().any(|input| graph.constant(*input).is_none()) {
            return blocked("there is a residual already");
        }
        let output = graph.info(root.into());
        if !same_shape(graph.info(residual), output) || !same_shape(graph.info(host), output) {
            // Of a constant, the passes that look for biases tell more.
            return if graph.constant(residual).is_some() {
                Err(Miss::NoMatch)
            } else {
                blocked("residual has another shape")
            };
        }
        let epilogue = epilogue.with(Step::Add);
        // Slots left out at the end have to be there as empty ones.
        while inputs.len() < own {
            inputs.push(None);
        }
        inputs.push(Some(residual));
        let mut patch = Patch::new(self.name(), host.node);
        let fused = patch.add(op.with_epilogue(epilogue).ok_or(Miss::NoMatch)?, &inputs);
        patch.replace(root.into(), fused).absorb([host.node, root]);
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pass::Options;
    use crate::testing::{run_rule, run_rule_with};

    #[test]
    fn fires_on_conv() {
        let run = run_rule(
            FuseResidual,
            "graph g(%x: f32[batch, 2, 3, 3], %w: f32[2, 2, 1, 1], %r: f32[batch, 2, 3, 3]) -> (%y) {
                %c = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1
                %y = add(%r, %c)
            }",
        );
        insta::assert_snapshot!(run.equal_within(0.0, 2).after, @"
        graph g(%x: f32[batch, 2, 3, 3], %w: f32[2, 2, 1, 1], %r: f32[batch, 2, 3, 3]) -> (%y) {
          %y = conv(%x, %w, _, %r) strides=[1, 1] dilations=[1, 1] groups=1 epilogue=[add] : f32[batch, 2, 3, 3]
        }
        ");
    }

    #[test]
    fn leaves_a_constant_product_to_the_folding() {
        let text = "graph g(%r: f32[2, 3]) -> (%y) {
            %a = constant() value=f32[2, 2] splat 1.5 %b = constant() value=f32[2, 3] splat 2.0
            %p = matmul(%a, %b)
            %y = add(%p, %r) }";
        assert_eq!(run_rule(FuseResidual, text).rewrites, 0);
        let none = Options { fold_budget: 0, ..Options::default() };
        assert_eq!(run_rule_with(FuseResidual, &none, text).rewrites, 1);
        assert_eq!(
            run_rule(FuseResidual, &text.replace("matmul(%a", "matmul(%r").replace("[2, 3]", "[2, 2]")).rewrites,
            1
        );
    }

    #[test]
    fn fires_on_the_right_one_of_two() {
        let run = run_rule(
            FuseResidual,
            "graph g(%x: f32[1, 2, 3], %w: f32[2, 2, 1]) -> (%y) {
                %b = constant() value=f32[2] {1, 2}
                %c = conv_transpose(%x, %w, %b) strides=[1] dilations=[1] output_padding=[0] groups=1
                %d = conv(%x, %w, %b) strides=[1] dilations=[1] groups=1
                %y = add(%c, %d)
            }",
        );
        insta::assert_snapshot!(run.equal_within(0.0, 1).after, @"
        graph g(%x: f32[1, 2, 3], %w: f32[2, 2, 1]) -> (%y) {
          %b = constant() value=f32[2] {1.0, 2.0}
          %c = conv_transpose(%x, %w, %b) strides=[1] dilations=[1] output_padding=[0] groups=1 : f32[1, 2, 3]
          %y = conv(%x, %w, %b, %c) strides=[1] dilations=[1] groups=1 epilogue=[add] : f32[1, 2, 3]
        }
        ");
    }

    #[test]
    fn fires_on_the_left_one_if_the_right_one_cannot() {
        let run = run_rule(
            FuseResidual,
            "graph g(%x: f32[1, 2, 3], %w: f32[2, 2, 1]) -> (%y) {
                %d = conv(%x, %w) strides=[1] dilations=[1] groups=1 epilogue=[relu]
                %c = conv(%d, %w) strides=[1] dilations=[1] groups=1
                %y = add(%c, %d)
            }",
        );
        insta::assert_snapshot!(run.equal_within(0.0, 1).after, @"
        graph g(%x: f32[1, 2, 3], %w: f32[2, 2, 1]) -> (%y) {
          %d = conv(%x, %w) strides=[1] dilations=[1] groups=1 epilogue=[relu] : f32[1, 2, 3]
          %y = conv(%d, %w, _, %d) strides=[1] dilations=[1] groups=1 epilogue=[add] : f32[1, 2, 3]
        }
        ");
    }

    #[test]
    fn fires_on_matmul_with_a_bias() {
        let run = run_rule(
            FuseResidual,
            "graph g(%a: f32[batch, 4, 2], %w: f32[2, 2], %r: f32[batch, 4, 2]) -> (%y) {
                %b = constant() value=f32[2] {1, 2}
                %m = matmul(%a, %w, %b) epilogue=[add]
                %y = add(%m, %r)
            }",
        );
        insta::assert_snapshot!(run.equal_within(0.0, 2).after, @"
        graph g(%a: f32[batch, 4, 2], %w: f32[2, 2], %r: f32[batch, 4, 2]) -> (%y) {
          %b = constant() value=f32[2] {1.0, 2.0}
          %y = matmul(%a, %w, %b, %r) epilogue=[add, add] : f32[batch, 4, 2]
        }
        ");
    }

    /// The reasons for leaving the sum of a convolution's output and `%r` as it is.
    fn refuses(residual: &str, conv: &str, outputs: &str) -> Vec<String> {
        let run = run_rule(
            FuseResidual,
            &format!(
                "graph g(%x: f32[n, 2, 3], %w: f32[2, 2, 1], %r: f32{residual}) -> ({outputs}) {{
                    %c = conv({conv}
                    %y = add(%c, %r)
                }}"
            ),
        );
        assert_eq!(run.rewrites, 0);
        run.reasons().into_iter().map(String::from).collect()
    }

    const PLAIN: &str = "%x, %w) strides=[1] dilations=[1] groups=1";

    #[test]
    fn refuses_an_output_with_another_reader() {
        assert_eq!(refuses("[n, 2, 3]", PLAIN, "%y, %c"), ["output of `c` also read by `an output of the graph`"]);
    }

    #[test]
    fn refuses_after_an_activation() {
        let conv = format!("{PLAIN} epilogue=[relu]");
        assert_eq!(refuses("[n, 2, 3]", &conv, "%y"), ["residual comes after an activation"]);
    }

    #[test]
    fn refuses_a_second_residual() {
        let conv = "%x, %w, _, %r) strides=[1] dilations=[1] groups=1 epilogue=[add]";
        assert_eq!(refuses("[n, 2, 3]", conv, "%y"), ["there is a residual already"]);
    }

    #[test]
    fn refuses_another_shape() {
        for shape in ["[n, 1, 3]", "[1, 2, 3]", "[2, 3]", "[m, 2, 3]"] {
            assert_eq!(refuses(shape, PLAIN, "%y"), ["residual has another shape"], "{shape}");
        }
    }

    #[test]
    fn refuses_a_residual_larger_than_the_output() {
        let text = "graph g(%x: f32[1, 2, 3], %w: f32[2, 2, 1], %r: f32[5, 2, 3]) -> (%y) {
            %c = conv(%x, %w) strides=[1] dilations=[1] groups=1 %y = add(%r, %c) }";
        let run = run_rule(FuseResidual, text);
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["residual has another shape"]));
    }

    /// Biases are another pass's.
    #[test]
    fn leaves_a_constant_of_another_shape_alone() {
        let text = "graph g(%x: f32[1, 2, 3], %w: f32[2, 2, 1]) -> (%y) { %b = constant() value=f32[2, 1] {1, 2}
            %c = conv(%x, %w) strides=[1] dilations=[1] groups=1 %y = add(%c, %b) }";
        let run = run_rule(FuseResidual, text);
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
    }

    #[test]
    fn fires_on_the_left_one_if_something_else_reads_the_right_one() {
        let text = "graph g(%x: f32[1, 2, 3], %w: f32[2, 2, 1]) -> (%y, %d) {
            %c = conv(%x, %w) strides=[1] dilations=[1] groups=1 %n = neg(%x)
            %d = conv(%n, %w) strides=[1] dilations=[1] groups=1 %y = add(%c, %d) }";
        let run = run_rule(FuseResidual, text);
        assert_eq!(run.equal_within(1e-6, 1).rewrites, 1);
        let text = run.after.to_string();
        assert!(text.contains("%y = conv(%x, %w, _, %d)"), "{text}");
    }

    #[test]
    fn leaves_the_sum_of_an_output_with_itself_alone() {
        let run = run_rule(
            FuseResidual,
            "graph g(%x: f32[1, 2, 3], %w: f32[2, 2, 1]) -> (%y) {
                %c = conv(%x, %w) strides=[1] dilations=[1] groups=1
                %y = add(%c, %c)
            }",
        );
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
    }
}
