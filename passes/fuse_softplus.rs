//! Finds `log(1 + exp(x))`.
//!
//! ```text
//! %1 = exp(%x)
//! %2 = add(%1, 1)
//! %y = log(%2)
//! ```
//! becomes
//! ```text
//! %y = softplus(%x)
//! ```
//!
//! Fires with the one on either side.
//!
//! Refuses when: the exponential or the sum has another reader.
//!
//! Order: before `fuse_mish`, which looks for it, and `fuse_activation`.
//!
//! Numerics: within 1e-6 in f32 of what the formula gives where its exponential is finite; where it is not, the formula
//! gives infinity and the operator x.

use trt_fuse_ir::op::{Activation, UnaryOp};
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch};

use crate::pass::{Miss, Rule, RuleContext};
use crate::pattern::shifted;

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseSoftplus;

impl Rule for FuseSoftplus {
    fn name(&self) -> &'static str {
        "fuse_softplus"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Unary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        found(graph, root).ok_or(Miss::NoMatch)
    }
}

fn found(graph: &Graph, root: NodeId) -> Option<Patch> {
    if graph.op(root)? != &Op::Unary(UnaryOp::Log) {
        return None;
    }
    let sum = graph.input(root, 0)?;
    let (power, _) = shifted(graph, sum.node).filter(|(_, one)| *one == 1.0)?;
    if graph.op(power.node)? != &Op::Unary(UnaryOp::Exp) {
        return None;
    }
    let x = graph.input(power.node, 0)?;
    let mut patch = Patch::new("fuse_softplus", root);
    let y = patch.add(Op::Activation(Activation::Softplus), &[Some(x)]);
    patch.replace(root.into(), y).absorb([root, sum.node, power.node]);
    Some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(body: &str, outputs: &str) -> Run {
        let constants = "%one = constant() value=f32[] {1.0} %two = constant() value=f32[] {2.0}
            %ones = constant() value=f32[2, 1, 1] {1.0, 1.0}";
        run_rule(FuseSoftplus, &format!("graph g(%x: f32[2, 3]) -> ({outputs}) {{ {constants} {body} }}"))
    }

    #[test]
    fn fires_with_the_one_on_either_side() {
        for sum in ["add(%e, %one)", "add(%one, %e)"] {
            let run = run(&format!("%e = exp(%x) %s = {sum} %y = log(%s)"), "%y");
            insta::allow_duplicates! {
                insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
                graph g(%x: f32[2, 3]) -> (%y) {
                  %y = softplus(%x) : f32[2, 3]
                }
                ");
            }
        }
    }

    #[test]
    fn refuses_a_part_with_another_reader() {
        for part in ["e", "s"] {
            let run = run("%e = exp(%x) %s = add(%e, %one) %y = log(%s)", &format!("%y, %{part}"));
            let reason = format!("output of `{part}` also read by `an output of the graph`");
            assert_eq!((run.rewrites, run.reasons()), (0, vec![reason.as_str()]));
        }
    }

    #[test]
    fn leaves_look_alikes_alone() {
        for body in [
            // Another number, a product, one that makes the tensor larger, the exponential of the logarithm,
            // a root in the place of either.
            "%e = exp(%x) %s = add(%e, %two) %y = log(%s)",
            "%e = exp(%x) %s = mul(%e, %one) %y = log(%s)",
            "%e = exp(%x) %s = add(%e, %ones) %y = log(%s)",
            "%e = log(%x) %s = add(%e, %one) %y = exp(%s)",
            "%e = sqrt(%x) %s = add(%e, %one) %y = log(%s)",
            "%e = exp(%x) %s = add(%e, %one) %y = sqrt(%s)",
        ] {
            assert_eq!(run(body, "%y").rewrites, 0, "{body}");
        }
    }
}
