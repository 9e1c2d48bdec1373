//! Moves a negation from a part of a concatenation into the constant that multiplies it.
//!
//! ```text
//! %1 = neg(%a)                                %1 = concat(%a, %b) axis=1
//! %2 = concat(%1, %b) axis=1                  %y = mul(%1, [-c, c]) : f32[n, 4]
//! %y = mul(%2, [c, c]) : f32[n, 4]
//! ```
//!
//! Fires where the constant is of floats and has every element of the axis, on either side of the product.
//!
//! Refuses when: the negation or the concatenation has another reader. Integers, a part that is another part's negation, and
//! an element repeated beyond [`Options::fold_budget`](crate::Options) are no match.
//!
//! Order: after `fuse_rotary_embedding`, which looks for the negation; before `fuse_roll`.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{BinaryOp, UnaryOp};
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, Tensor};

use crate::pass::{Miss, Rule, RuleContext};
use crate::pattern::constant_operand;

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct SinkNegation;

impl Rule for SinkNegation {
    fn name(&self) -> &'static str {
        "sink_negation"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        found(graph, root, context.options.fold_budget).ok_or(Miss::NoMatch)
    }
}

fn found(graph: &Graph, root: NodeId, budget: usize) -> Option<Patch> {
    if graph.op(root)? != &Op::Binary(BinaryOp::Mul) {
        return None;
    }
    let (joined, factor) = constant_operand(graph, root)?;
    // The negation of the lowest integer is itself, and large ones are no f64.
    if !factor.dtype().is_float() || factor.byte_len().saturating_sub(factor.held_bytes()) > budget {
        return None;
    }
    let Op::Concat(op) = graph.op(joined.node)? else { return None };
    let shape = graph.info(joined)?.shape.as_ref()?;
    let axis = resolve_axis(op.axis, shape.len()).ok()?;
    let size = usize::try_from(shape.get(axis)?.value()?).ok()?;
    // The axis as the constant counts it, from the end.
    let at = (factor.rank() + axis).checked_sub(shape.len())?;
    if factor.dims().get(at) != Some(&size) {
        return None;
    }
    let mut patch = Patch::new("sink_negation", root);
    let (mut parts, mut negative, mut start, mut taken) = (Vec::new(), vec![false; size], 0, Vec::new());
    for part in graph.node_inputs(joined.node) {
        let part = part?;
        let length = usize::try_from(graph.info(part)?.shape.as_ref()?.get(axis)?.value()?).ok()?;
        let data = graph.input(part.node, 0).filter(|_| graph.op(part.node) == Some(&Op::Unary(UnaryOp::Neg)));
        if data.is_some() {
            taken.push(part.node);
            negative.get_mut(start..start + length)?.fill(true);
        }
        parts.push(Some(data.unwrap_or(part)));
        start += length;
    }
    // A negated part may be a part as well.
    if taken.is_empty() || parts.iter().flatten().any(|part| taken.contains(&part.node)) {
        return None;
    }
    let factor = patch.constant(signed(factor, at, &negative)?);
    let joined_again = patch.add(op.clone(), &parts);
    let y = patch.add(Op::Binary(BinaryOp::Mul), &[Some(joined_again), Some(factor)]);
    patch.replace(root.into(), y).absorb([root, joined.node]).absorb(taken);
    Some(patch)
}

/// A constant with the sign of some places of an axis turned.
fn signed(constant: &Tensor, axis: usize, negative: &[bool]) -> Option<Tensor> {
    let inner: usize = constant.dims().get(axis + 1..)?.iter().product();
    let numbers = constant.to_f64s()?;
    let turned = numbers.iter().enumerate().map(|(at, number)| {
        if negative.get(at / inner.max(1) % negative.len().max(1)) == Some(&true) { -number } else { *number }
    });
    let numbers = Tensor::from_vec(constant.dims(), turned.collect::<Vec<f64>>()).ok()?;
    trt_fuse_ir::eval::convert(&numbers, constant.dtype()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(body: &str, outputs: &str) -> Run {
        let constants = "%c = constant() value=f32[2, 4] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}
            %one = constant() value=f32[2, 1] {1.0, 2.0}";
        let text = format!("graph g(%a: f32[n, 2, 3], %b: f32[n, 2, 1]) -> ({outputs}) {{ {constants} {body} }}");
        run_rule(SinkNegation, &text)
    }

    #[test]
    fn fires_on_either_side() {
        let body = "%1 = neg(%a) %2 = concat(%1, %b) axis=2 %y = mul(%2, %c)";
        insta::assert_snapshot!(run(body, "%y").equal_within(0.0, 2).after, @"
        graph g(%a: f32[n, 2, 3], %b: f32[n, 2, 1]) -> (%y) {
          %y.1 = concat(%a, %b) axis=2 : f32[n, 2, 4]
          %y.sink_negation = constant() value=f32[2, 4] {-1.0, -2.0, -3.0, 4.0, -5.0, -6.0, -7.0, 8.0}
          %y = mul(%y.1, %y.sink_negation) : f32[n, 2, 4]
        }
        ");
        let body = "%1 = neg(%b) %2 = concat(%a, %1) axis=-1 %y = mul(%c, %2)";
        assert_eq!(run(body, "%y").equal_within(0.0, 2).rewrites, 1);
    }

    #[test]
    fn other_functions_stay_in_their_parts() {
        let run = run("%1 = neg(%a) %2 = abs(%b) %3 = concat(%1, %2) axis=2 %y = mul(%3, %c)", "%y");
        let after = run.equal_within(0.0, 2).after.to_string();
        assert!(run.rewrites == 1 && after.contains("concat(%a, %2)"), "{after}");
    }

    #[test]
    fn refuses_another_reader() {
        for part in ["1", "2"] {
            let run = run("%1 = neg(%a) %2 = concat(%1, %b) axis=2 %y = mul(%2, %c)", &format!("%y, %{part}"));
            let reason = format!("output of `{part}` also read by `an output of the graph`");
            assert_eq!((run.rewrites, run.reasons()), (0, vec![reason.as_str()]));
        }
    }

    #[test]
    fn leaves_others_alone() {
        for body in [
            "%2 = concat(%a, %b) axis=2 %y = mul(%2, %c)",
            "%1 = neg(%a) %2 = concat(%1, %b) axis=2 %y = mul(%2, %one)",
            "%1 = neg(%a) %2 = concat(%1, %b) axis=2 %y = add(%2, %c)",
            "%1 = neg(%b) %3 = neg(%1) %2 = concat(%1, %3, %1, %3) axis=2 %y = mul(%2, %c)",
        ] {
            assert_eq!(run(body, "%y").rewrites, 0, "{body}");
        }
    }

    #[test]
    fn leaves_an_element_repeated_beyond_the_budget_alone() {
        let text =
            "graph g(%a: f32[1, 2], %b: f32[1, 2]) -> (%y) { %c = constant() value=f32[1099511627776, 4] splat 2.0
            %1 = neg(%a) %2 = concat(%1, %b) axis=1 %y = mul(%2, %c) }";
        assert_eq!(run_rule(SinkNegation, text).rewrites, 0);
    }

    #[test]
    fn leaves_integers_alone() {
        for (dtype, number) in [("i64", "9007199254740993"), ("i8", "-128")] {
            let text = format!(
                "graph g(%a: {dtype}[n, 1], %b: {dtype}[n, 1]) -> (%y) {{ %c = constant() value={dtype}[2] {{{number}, 1}}
                %1 = neg(%a) %2 = concat(%1, %b) axis=1 %y = mul(%2, %c) }}"
            );
            assert_eq!(run_rule(SinkNegation, &text).rewrites, 0, "{text}");
        }
    }
}
