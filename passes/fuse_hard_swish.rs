//! Finds `x * hard_sigmoid(x)` in the ways that exporters write it.
//!
//! ```text
//! %a = add(%x, 3)
//! %c = clip(%a) p=[0.0, 6.0]
//! %p = mul(%x, %c)
//! %y = div(%p, 6)
//! ```
//! becomes
//! ```text
//! %y = hard_swish(%x)
//! ```
//!
//! Fires on `x * clip(x + 3, 0, 6) / 6`, the division last, on x, or a product with 1/6; and on
//! `x * hard_sigmoid(1/6, 0.5)(x)`, which is what `fuse_hard_sigmoid` makes of `x * (clip(x + 3, 0, 6) / 6)`. Factors
//! come in either order.
//!
//! Refuses when: an inner value has another reader.
//!
//! Order: after `fuse_relu_clip` and `fuse_hard_sigmoid`; before `fuse_conv_scale`.
//!
//! Numerics: within 1e-6 in f32.

use trt_fuse_ir::op::{Activation, BinaryOp};
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::pass::{Miss, Rule, RuleContext};
use crate::pattern::{is_close, scaled, shifted};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseHardSwish;

impl Rule for FuseHardSwish {
    fn name(&self) -> &'static str {
        "fuse_hard_swish"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let (x, inner) = gated(graph, root)
            .or_else(|| scaled_data(graph, root))
            .or_else(|| scaled_product(graph, root))
            .ok_or(Miss::NoMatch)?;
        let mut patch = Patch::new(self.name(), root);
        let fused = patch.add(Op::Activation(Activation::HardSwish), &[Some(x)]);
        patch.replace(root.into(), fused).absorb([root]).absorb(inner);
        Ok(patch)
    }
}

/// What the pattern is computed of, and its inner nodes.
type Found = (ValueRef, Vec<NodeId>);

/// `x * hard_sigmoid(1/6, 0.5)(x)`
fn gated(graph: &Graph, root: NodeId) -> Option<Found> {
    factors(graph, root)?.into_iter().find_map(|(x, gate)| {
        let Op::Activation(Activation::HardSigmoid(alpha, beta)) = graph.op(gate.node)? else { return None };
        let dtype = graph.dtype(x);
        let is_sixth = is_close(f64::from(alpha.0), 1.0 / 6.0, dtype) && is_close(f64::from(beta.0), 0.5, dtype);
        (is_sixth && graph.input(gate.node, 0) == Some(x)).then(|| (x, vec![gate.node]))
    })
}

/// `(x / 6) * clip(x + 3, 0, 6)`
fn scaled_data(graph: &Graph, root: NodeId) -> Option<Found> {
    factors(graph, root)?.into_iter().find_map(|(data, gate)| {
        let (x, factor) = scaled(graph, data.node)?;
        let mut inner = relu6_of_shifted(graph, gate, x)?;
        inner.push(data.node);
        is_close(factor, 1.0 / 6.0, graph.dtype(x)).then_some((x, inner))
    })
}

/// `(x * clip(x + 3, 0, 6)) / 6`
fn scaled_product(graph: &Graph, root: NodeId) -> Option<Found> {
    let (product, factor) = scaled(graph, root)?;
    if !is_close(factor, 1.0 / 6.0, graph.dtype(product)) {
        return None;
    }
    factors(graph, product.node)?.into_iter().find_map(|(x, gate)| {
        let mut inner = relu6_of_shifted(graph, gate, x)?;
        inner.push(product.node);
        Some((x, inner))
    })
}

/// Both orders of a product's operands.
fn factors(graph: &Graph, id: NodeId) -> Option<[(ValueRef, ValueRef); 2]> {
    if graph.op(id)? != &Op::Binary(BinaryOp::Mul) {
        return None;
    }
    let (a, b) = (graph.input(id, 0)?, graph.input(id, 1)?);
    Some([(a, b), (b, a)])
}

/// The nodes of `clip(x + 3, 0, 6)`.
fn relu6_of_shifted(graph: &Graph, gate: ValueRef, x: ValueRef) -> Option<Vec<NodeId>> {
    let Op::Activation(Activation::Clip(low, high)) = graph.op(gate.node)? else { return None };
    let sum = graph.input(gate.node, 0)?;
    let (data, offset) = shifted(graph, sum.node)?;
    (low.0 == 0.0 && high.0 == 6.0 && offset == 3.0 && data == x).then(|| vec![gate.node, sum.node])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    const CONSTANTS: &str = "
        %three = constant() value=f32[] {3}
        %six = constant() value=f32[1] {6}
        %sixth = constant() value=f32[] {0.16666667}
    ";

    fn run(body: &str, outputs: &str) -> Run {
        run_rule(FuseHardSwish, &format!("graph g(%x: f32[2, 3]) -> ({outputs}) {{ {CONSTANTS} {body} }}"))
    }

    fn is_fused(body: &str) {
        let run = run(body, "%y");
        let text = run.equal_within(1e-6, 1).after.to_string();
        assert!(text.contains("%y = hard_swish(%x) : f32[2, 3]"), "{text}");
        assert_eq!(run.after.operation_count(), 1, "{text}");
    }

    #[test]
    fn fires_on_division_last() {
        let run = run("%a = add(%x, %three) %c = clip(%a) p=[0, 6] %p = mul(%x, %c) %y = div(%p, %six)", "%y");
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%x: f32[2, 3]) -> (%y) {
          %y = hard_swish(%x) : f32[2, 3]
        }
        ");
        is_fused("%a = add(%three, %x) %c = clip(%a) p=[0, 6] %p = mul(%c, %x) %y = div(%p, %six)");
    }

    #[test]
    fn fires_on_factor_last() {
        is_fused("%a = add(%x, %three) %c = clip(%a) p=[0, 6] %p = mul(%c, %x) %y = mul(%sixth, %p)");
    }

    #[test]
    fn fires_on_division_of_x() {
        is_fused("%a = add(%x, %three) %c = clip(%a) p=[0, 6] %d = div(%x, %six) %y = mul(%d, %c)");
        is_fused("%a = add(%x, %three) %c = clip(%a) p=[0, 6] %d = mul(%x, %sixth) %y = mul(%c, %d)");
    }

    #[test]
    fn fires_on_hard_sigmoid() {
        is_fused("%g = hard_sigmoid(%x) p=[0.16666667, 0.5] %y = mul(%x, %g)");
        is_fused("%g = hard_sigmoid(%x) p=[0.1666666, 0.5] %y = mul(%g, %x)");
    }

    #[test]
    fn fires_in_f16() {
        let run = run_rule(
            FuseHardSwish,
            "graph g(%x: f16[2, 3]) -> (%y) {
                %three = constant() value=f16[] {3}
                %sixth = constant() value=f16[] {0.16662598}
                %a = add(%x, %three)
                %c = clip(%a) p=[0, 6]
                %p = mul(%x, %c)
                %y = mul(%p, %sixth)
            }",
        );
        assert_eq!(run.equal_within(2e-3, 1).after.operation_count(), 1);
    }

    #[test]
    fn refuses_an_inner_value_with_another_reader() {
        let body = "%a = add(%x, %three) %c = clip(%a) p=[0, 6] %p = mul(%x, %c) %y = div(%p, %six)";
        for inner in ["a", "c", "p"] {
            let reasons = run(body, &format!("%y, %{inner}")).reasons().join("; ");
            assert_eq!(reasons, format!("output of `{inner}` also read by `an output of the graph`"));
        }
    }

    #[test]
    fn leaves_other_patterns_alone() {
        for body in [
            "%a = add(%x, %six) %c = clip(%a) p=[0, 6] %p = mul(%x, %c) %y = div(%p, %six)",
            "%a = add(%x, %three) %c = clip(%a) p=[0, 3] %p = mul(%x, %c) %y = div(%p, %six)",
            "%a = add(%x, %three) %c = clip(%a) p=[0, 6] %p = mul(%x, %c) %y = div(%p, %three)",
            "%n = neg(%x) %a = add(%x, %three) %c = clip(%a) p=[0, 6] %p = mul(%n, %c) %y = div(%p, %six)",
            "%a = add(%x, %three) %c = clip(%a) p=[-1, 6] %p = mul(%x, %c) %y = div(%p, %six)",
            "%a = add(%x, %three) %c = clip(%a) p=[0, 6] %p = add(%x, %c) %y = div(%p, %six)",
            "%g = hard_sigmoid(%x) p=[0.2, 0.5] %y = mul(%x, %g)",
            "%g = hard_sigmoid(%x) p=[0.16666667, 0.4] %y = mul(%x, %g)",
            "%n = neg(%x) %g = hard_sigmoid(%n) p=[0.16666667, 0.5] %y = mul(%x, %g)",
        ] {
            assert_eq!(run(body, "%y").rewrites, 0, "{body}");
        }
    }
}
