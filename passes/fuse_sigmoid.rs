//! Finds the sigmoid in its parts: `1 / (1 + exp(-x))`.
//!
//! ```text
//! %1 = neg(%x)                    %1 = sigmoid(%x)
//! %2 = exp(%1)                    %y = mul(%z, %1)
//! %3 = add(%2, 1)
//! %y = div(%z, %3)
//! ```
//!
//! Fires on any dividend, which is a factor then, none where it is one; and on the reciprocal of the sum.
//!
//! Refuses when: a part of the formula has another reader.
//!
//! Order: before `fuse_swish`, which looks for it.
//!
//! Numerics: within 1e-6 in f32.

use trt_fuse_ir::op::{Activation, BinaryOp, UnaryOp};
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::pass::{Miss, Rule, RuleContext};
use crate::pattern::shifted;

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseSigmoid;

impl Rule for FuseSigmoid {
    fn name(&self) -> &'static str {
        "fuse_sigmoid"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary, OpKind::Unary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        found(graph, root).ok_or(Miss::NoMatch)
    }
}

fn found(graph: &Graph, root: NodeId) -> Option<Patch> {
    let (dividend, sum) = match graph.op(root)? {
        Op::Binary(BinaryOp::Div) => (Some(graph.input(root, 0)?), graph.input(root, 1)?),
        Op::Unary(UnaryOp::Reciprocal) => (None, graph.input(root, 0)?),
        _ => return None,
    };
    let (power, _) = shifted(graph, sum.node).filter(|(_, one)| *one == 1.0)?;
    let negative = input_of(graph, power, UnaryOp::Exp)?;
    let x = input_of(graph, negative, UnaryOp::Neg)?;
    let is_one = |value: ValueRef| {
        let constant = graph.constant(value).filter(|constant| constant.rank() == 0 || constant.dims() == [1]);
        constant.and_then(|constant| constant.uniform_f64()) == Some(1.0)
            && graph.info(x).and_then(|x| x.rank()) > Some(0)
    };
    let mut patch = Patch::new("fuse_sigmoid", root);
    let mut y = patch.add(Op::Activation(Activation::Sigmoid), &[Some(x)]);
    if let Some(dividend) = dividend.filter(|dividend| !is_one(*dividend)) {
        y = patch.add(Op::Binary(BinaryOp::Mul), &[Some(dividend), Some(y)]);
    }
    patch.replace(root.into(), y).absorb([root, sum.node, power.node, negative.node]);
    Some(patch)
}

fn input_of(graph: &Graph, value: ValueRef, op: UnaryOp) -> Option<ValueRef> {
    graph.input(value.node, 0).filter(|_| graph.op(value.node) == Some(&Op::Unary(op)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    const SUM: &str = "%n = neg(%x) %e = exp(%n) %s = add(%e, %one)";

    fn run(body: &str, outputs: &str) -> Run {
        let constants = "%one = constant() value=f32[] {1.0} %two = constant() value=f32[] {2.0}
            %ones = constant() value=f32[2, 1, 1] {1.0, 1.0} %unit = constant() value=f32[1] {1.0}";
        run_rule(FuseSigmoid, &format!("graph g(%x: f32[2, 3], %z: f32[3]) -> ({outputs}) {{ {constants} {body} }}"))
    }

    #[test]
    fn fires_on_one_and_on_the_reciprocal() {
        for root in ["div(%one, %s)", "div(%unit, %s)", "reciprocal(%s)"] {
            let run = run(&format!("{SUM} %y = {root}"), "%y");
            insta::allow_duplicates! {
                insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
                graph g(%x: f32[2, 3], %z: f32[3]) -> (%y) {
                  %y = sigmoid(%x) : f32[2, 3]
                }
                ");
            }
        }
    }

    #[test]
    fn fires_on_another_dividend() {
        for dividend in ["%x", "%z", "%two", "%ones"] {
            let run = run(&format!("{SUM} %y = div({dividend}, %s)"), "%y");
            assert!(run.equal_within(1e-6, 2).after.to_string().contains("mul("), "{}", run.after);
        }
    }

    /// A one of one axis gives the quotient that axis.
    #[test]
    fn fires_on_a_scalar() {
        let text = "graph g(%x: f32[]) -> (%y) { %unit = constant() value=f32[1] {1.0}
            %one = constant() value=f32[] {1.0} %n = neg(%x) %e = exp(%n) %s = add(%e, %one) %y = div(%unit, %s) }";
        let run = run_rule(FuseSigmoid, text);
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%x: f32[]) -> (%y) {
          %unit = constant() value=f32[1] {1.0}
          %y.1 = sigmoid(%x) : f32[]
          %y = mul(%unit, %y.1) : f32[1]
        }
        ");
    }

    #[test]
    fn refuses_a_part_with_another_reader() {
        let run = run(&format!("{SUM} %y = div(%one, %s)"), "%y, %s");
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["output of `s` also read by `an output of the graph`"]));
    }

    #[test]
    fn leaves_look_alikes_alone() {
        for body in [
            // Another number, no negation, no exponential, a sum that is larger than x, the sum divided.
            "%n = neg(%x) %e = exp(%n) %s = add(%e, %two) %y = div(%one, %s)",
            "%e = exp(%x) %s = add(%e, %one) %y = div(%one, %s)",
            "%n = abs(%x) %e = exp(%n) %s = add(%e, %one) %y = div(%one, %s)",
            "%n = neg(%x) %e = sqrt(%n) %s = add(%e, %one) %y = div(%one, %s)",
            "%n = neg(%x) %e = exp(%n) %s = add(%e, %ones) %y = div(%one, %s)",
            "%n = neg(%x) %e = exp(%n) %s = add(%e, %one) %y = div(%s, %one)",
        ] {
            assert_eq!(run(body, "%y").rewrites, 0, "{body}");
        }
    }
}
