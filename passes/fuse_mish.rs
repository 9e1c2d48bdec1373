//! Finds `x * tanh(softplus(x))`.
//!
//! ```text
//! %s = softplus(%x)
//! %t = tanh(%s)
//! %y = mul(%x, %t)
//! ```
//! becomes
//! ```text
//! %y = mish(%x)
//! ```
//!
//! Fires with the factors in either order.
//!
//! Refuses when: an inner value has another reader.
//!
//! Order: before `fuse_activation`.
//!
//! Numerics: the same formula.

use trt_fuse_ir::op::{Activation, BinaryOp};
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseMish;

impl Rule for FuseMish {
    fn name(&self) -> &'static str {
        "fuse_mish"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        if graph.op(root) != Some(&Op::Binary(BinaryOp::Mul)) {
            return Err(Miss::NoMatch);
        }
        let (Some(a), Some(b)) = (graph.input(root, 0), graph.input(root, 1)) else { return Err(Miss::NoMatch) };
        let (x, gate) = gate_of(graph, a, b).or_else(|| gate_of(graph, b, a)).ok_or(Miss::NoMatch)?;
        let mut patch = Patch::new(self.name(), root);
        let fused = patch.add(Op::Activation(Activation::Mish), &[Some(x)]);
        patch.replace(root.into(), fused).absorb([root]).absorb(gate);
        Ok(patch)
    }
}

/// x and the nodes of `tanh(softplus(x))`.
fn gate_of(graph: &Graph, x: ValueRef, tanh: ValueRef) -> Option<(ValueRef, [NodeId; 2])> {
    let input_of = |value: ValueRef, wanted: Activation| {
        graph.input(value.node, 0).filter(|_| graph.op(value.node) == Some(&Op::Activation(wanted)))
    };
    let softplus = input_of(tanh, Activation::Tanh)?;
    let argument = input_of(softplus, Activation::Softplus)?;
    (argument == x).then_some((x, [tanh.node, softplus.node]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(body: &str, outputs: &str) -> Run {
        run_rule(FuseMish, &format!("graph g(%x: f32[2, 3], %z: f32[2, 3]) -> ({outputs}) {{ {body} }}"))
    }

    #[test]
    fn fires_in_either_order() {
        for product in ["mul(%x, %t)", "mul(%t, %x)"] {
            let run = run(&format!("%s = softplus(%x) %t = tanh(%s) %y = {product}"), "%y");
            insta::allow_duplicates! {
                insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
                graph g(%x: f32[2, 3], %z: f32[2, 3]) -> (%y) {
                  %y = mish(%x) : f32[2, 3]
                }
                ");
            }
        }
    }

    #[test]
    fn refuses_an_inner_value_with_another_reader() {
        for inner in ["s", "t"] {
            let body = "%s = softplus(%x) %t = tanh(%s) %y = mul(%x, %t)";
            let reasons = run(body, &format!("%y, %{inner}")).reasons().join("; ");
            assert_eq!(reasons, format!("output of `{inner}` also read by `an output of the graph`"));
        }
    }

    #[test]
    fn leaves_a_sum_alone() {
        assert_eq!(run("%s = softplus(%x) %t = tanh(%s) %y = add(%x, %t)", "%y").rewrites, 0);
    }

    #[test]
    fn leaves_the_gate_of_another_value_alone() {
        assert_eq!(run("%s = softplus(%z) %t = tanh(%s) %y = mul(%x, %t)", "%y").rewrites, 0);
        assert_eq!(run("%s = sigmoid(%x) %t = tanh(%s) %y = mul(%x, %t)", "%y").rewrites, 0);
    }
}
