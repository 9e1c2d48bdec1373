//! Finds `x * sigmoid(beta * x)`.
//!
//! ```text
//! %s = sigmoid(%x)
//! %y = mul(%x, %s)
//! ```
//! becomes
//! ```text
//! %y = swish(%x) p=[1.0]
//! ```
//!
//! Fires with the factors in either order, and with a constant factor inside the sigmoid, which becomes beta.
//!
//! Refuses when: the sigmoid or the product inside it has another reader.
//!
//! Order: before `fuse_activation` and the foldings into convolutions.
//!
//! Numerics: the same formula.

use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::{Activation, BinaryOp};
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::pass::{Miss, Rule, RuleContext};
use crate::pattern::scaled;

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseSwish;

impl Rule for FuseSwish {
    fn name(&self) -> &'static str {
        "fuse_swish"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        if graph.op(root) != Some(&Op::Binary(BinaryOp::Mul)) {
            return Err(Miss::NoMatch);
        }
        let (Some(a), Some(b)) = (graph.input(root, 0), graph.input(root, 1)) else { return Err(Miss::NoMatch) };
        let (x, gate, beta) = gate_of(graph, a, b).or_else(|| gate_of(graph, b, a)).ok_or(Miss::NoMatch)?;
        let mut patch = Patch::new(self.name(), root);
        let fused = patch.add(Op::Activation(Activation::Swish(F32(beta as f32))), &[Some(x)]);
        patch.replace(root.into(), fused).absorb([root]).absorb(gate);
        Ok(patch)
    }
}

/// x, the nodes of `sigmoid(beta * x)`, and beta.
fn gate_of(graph: &Graph, x: ValueRef, gate: ValueRef) -> Option<(ValueRef, Vec<NodeId>, f64)> {
    if graph.op(gate.node)? != &Op::Activation(Activation::Sigmoid) {
        return None;
    }
    let argument = graph.input(gate.node, 0)?;
    if argument == x {
        return Some((x, vec![gate.node], 1.0));
    }
    let (data, beta) = scaled(graph, argument.node)?;
    (data == x).then(|| (x, vec![gate.node, argument.node], beta))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(body: &str, outputs: &str) -> Run {
        let beta = "%beta = constant() value=f32[] {1.702}";
        run_rule(FuseSwish, &format!("graph g(%x: f32[2, 3], %z: f32[2, 3]) -> ({outputs}) {{ {beta} {body} }}"))
    }

    #[test]
    fn fires_in_either_order() {
        for body in ["%s = sigmoid(%x) %y = mul(%x, %s)", "%s = sigmoid(%x) %y = mul(%s, %x)"] {
            let run = run(body, "%y");
            let text = run.equal_within(1e-6, 1).after.to_string();
            assert!(text.contains("%y = swish(%x) p=[1.0] : f32[2, 3]"), "{text}");
            assert_eq!(run.after.operation_count(), 1);
        }
    }

    #[test]
    fn fires_with_beta() {
        let run = run("%b = mul(%x, %beta) %s = sigmoid(%b) %y = mul(%x, %s)", "%y");
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%x: f32[2, 3], %z: f32[2, 3]) -> (%y) {
          %y = swish(%x) p=[1.702] : f32[2, 3]
        }
        ");
    }

    #[test]
    fn refuses_an_inner_value_with_another_reader() {
        let body = "%b = mul(%x, %beta) %s = sigmoid(%b) %y = mul(%x, %s)";
        for inner in ["b", "s"] {
            let reasons = run(body, &format!("%y, %{inner}")).reasons().join("; ");
            assert_eq!(reasons, format!("output of `{inner}` also read by `an output of the graph`"));
        }
    }

    #[test]
    fn leaves_the_gate_of_another_value_alone() {
        assert_eq!(run("%s = sigmoid(%z) %y = mul(%x, %s)", "%y").rewrites, 0);
        assert_eq!(run("%b = mul(%x, %z) %s = sigmoid(%b) %y = mul(%x, %s)", "%y").rewrites, 0);
        assert_eq!(run("%b = mul(%z, %beta) %s = sigmoid(%b) %y = mul(%x, %s)", "%y").rewrites, 0);
    }

    #[test]
    fn leaves_other_operators_alone() {
        assert_eq!(run("%s = tanh(%x) %y = mul(%x, %s)", "%y").rewrites, 0);
        assert_eq!(run("%s = sigmoid(%x) %y = add(%x, %s)", "%y").rewrites, 0);
    }
}
