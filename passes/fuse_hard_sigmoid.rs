//! Finds the hard sigmoid in its parts.
//!
//! ```text
//! %a = add(%x, 3)
//! %c = clip(%a) p=[0.0, 6.0]
//! %y = div(%c, 6)
//! ```
//! becomes
//! ```text
//! %y = hard_sigmoid(%x) p=[0.16666667, 0.5]
//! ```
//! and so does `clip(x * a + b, 0, 1)` become `hard_sigmoid(a, b)`.
//!
//! Fires on `clip(x + b, 0, h) * s` with `h * s` = 1 (`/ h` too), and on `clip(x * a + b, 0, 1)`; the constants are one
//! float for all elements, on either side.
//!
//! Refuses when: an inner value has another reader.
//!
//! Order: after `fuse_relu_clip`; before `fuse_hard_swish`; before `fuse_conv_bias` and `fuse_conv_scale`, which would
//! take the sum away and leave the rest.
//!
//! Numerics: within 1e-6 in f32, as the factor is multiplied before the sum.

use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::Activation;
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::pass::{Miss, Rule, RuleContext};
use crate::pattern::{is_close, scaled, shifted};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseHardSigmoid;

impl Rule for FuseHardSigmoid {
    fn name(&self) -> &'static str {
        "fuse_hard_sigmoid"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Activation, OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let found = scaled_after(graph, root).or_else(|| scaled_before(graph, root)).ok_or(Miss::NoMatch)?;
        let mut patch = Patch::new(self.name(), root);
        let op = Activation::HardSigmoid(F32(found.alpha as f32), F32(found.beta as f32));
        let fused = patch.add(Op::Activation(op), &[Some(found.x)]);
        patch.replace(root.into(), fused).absorb(found.nodes);
        Ok(patch)
    }
}

struct Found {
    x: ValueRef,
    alpha: f64,
    beta: f64,
    nodes: [NodeId; 3],
}

/// `clip(x + b, 0, h) * s` with `h * s = 1`.
fn scaled_after(graph: &Graph, root: NodeId) -> Option<Found> {
    let (clip, scale) = scaled(graph, root)?;
    let high = upper_limit(graph, clip.node)?;
    if !is_close(high * scale, 1.0, graph.dtype(clip)) {
        return None;
    }
    let sum = graph.input(clip.node, 0)?;
    let (x, offset) = shifted(graph, sum.node)?;
    Some(Found { x, alpha: high.recip(), beta: offset / high, nodes: [root, clip.node, sum.node] })
}

/// `clip(x * a + b, 0, 1)`.
fn scaled_before(graph: &Graph, root: NodeId) -> Option<Found> {
    if upper_limit(graph, root)? != 1.0 {
        return None;
    }
    let sum = graph.input(root, 0)?;
    let (product, beta) = shifted(graph, sum.node)?;
    let (x, alpha) = scaled(graph, product.node)?;
    Some(Found { x, alpha, beta, nodes: [root, sum.node, product.node] })
}

/// The upper limit of a `clip` from 0.
fn upper_limit(graph: &Graph, id: NodeId) -> Option<f64> {
    match graph.op(id)? {
        Op::Activation(Activation::Clip(low, high)) if low.0 == 0.0 && high.0 > 0.0 => Some(f64::from(high.0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    const CONSTANTS: &str = "
        %three = constant() value=f32[] {3}
        %six = constant() value=f32[1] {6}
        %sixth = constant() value=f32[] {0.16666667}
        %half = constant() value=f32[] {0.5}
        %minus = constant() value=f32[] {-0.5}
    ";

    fn run(body: &str, outputs: &str) -> Run {
        run_rule(FuseHardSigmoid, &format!("graph g(%x: f32[2, 3]) -> ({outputs}) {{ {CONSTANTS} {body} }}"))
    }

    /// The one operation left.
    fn fused(body: &str) -> String {
        let run = run(body, "%y");
        assert_eq!(run.after.operation_count(), 1);
        run.equal_within(1e-6, 1).after.to_string().lines().nth(1).unwrap().trim().to_string()
    }

    #[test]
    fn division_after() {
        let body = "%a = add(%x, %three) %c = clip(%a) p=[0, 6] %y = div(%c, %six)";
        insta::assert_snapshot!(fused(body), @"%y = hard_sigmoid(%x) p=[0.16666667, 0.5] : f32[2, 3]");
    }

    #[test]
    fn factor_after_and_constants_on_the_left() {
        let body = "%a = add(%three, %x) %c = clip(%a) p=[0, 6] %y = mul(%sixth, %c)";
        insta::assert_snapshot!(fused(body), @"%y = hard_sigmoid(%x) p=[0.16666667, 0.5] : f32[2, 3]");
    }

    #[test]
    fn factor_before() {
        let body = "%p = mul(%x, %sixth) %a = add(%p, %half) %y = clip(%a) p=[0, 1]";
        insta::assert_snapshot!(fused(body), @"%y = hard_sigmoid(%x) p=[0.16666667, 0.5] : f32[2, 3]");
    }

    #[test]
    fn division_before_and_difference() {
        let body = "%p = div(%x, %six) %a = sub(%p, %half) %y = clip(%a) p=[0, 1]";
        insta::assert_snapshot!(fused(body), @"%y = hard_sigmoid(%x) p=[0.16666667, -0.5] : f32[2, 3]");
    }

    #[test]
    fn refuses_an_inner_value_with_another_reader() {
        let body = "%a = add(%x, %three) %c = clip(%a) p=[0, 6] %y = div(%c, %six)";
        let reason = |value| format!("output of `{value}` also read by `an output of the graph`");
        assert_eq!(run(body, "%y, %a").reasons(), [reason("a")]);
        assert_eq!(run(body, "%y, %c").reasons(), [reason("c")]);
    }

    #[test]
    fn leaves_other_numbers_alone() {
        for body in [
            "%a = add(%x, %three) %c = clip(%a) p=[0, 6] %y = div(%c, %three)",
            "%a = add(%x, %three) %c = clip(%a) p=[-1, 6] %y = div(%c, %six)",
            "%p = mul(%x, %sixth) %a = add(%p, %half) %y = clip(%a) p=[0, 2]",
            "%a = add(%x, %half) %y = clip(%a) p=[0, 1]",
            // Limits that have nothing between them.
            "%a = add(%x, %three) %c = clip(%a) p=[0, -2] %y = mul(%c, %minus)",
        ] {
            assert_eq!(run(body, "%y").rewrites, 0, "{body}");
        }
    }
}
