//! Finds GELU written in parts, exact or with a hyperbolic tangent.
//!
//! ```text
//! %1 = mul(%x, 0.70710677)
//! %2 = erf(%1)
//! %3 = add(%2, 1.0)
//! %4 = mul(%x, %3)
//! %y = mul(%4, 0.5)
//! ```
//! becomes
//! ```text
//! %y = gelu(%x)
//! ```
//! and `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))` becomes `gelu_tanh`.
//! (Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016; ONNX `Gelu`.)
//!
//! Fires with the three factors x, 1/2 and the gate in every grouping and order, with the division by the square root of 2
//! as a product, and with the cube as a power, as products, or as x * (1 + 0.044715 * x^2).
//!
//! Refuses when: a part of the formula has another reader. Other constants are no match.
//!
//! Order: after `canonicalize_arithmetic`, before `fuse_activation` and the foldings into convolutions.
//!
//! Numerics: the same formula; constants may differ in the digits that f32, or a half type, does not hold.

use trt_fuse_ir::op::{Activation, BinaryOp, UnaryOp};
use trt_fuse_ir::{DType, Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::pass::{Miss, Rule, RuleContext};
use crate::pattern::{is_close, scaled, shifted, with_scalar};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseGelu;

impl Rule for FuseGelu {
    fn name(&self) -> &'static str {
        "fuse_gelu"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let dtype = graph.dtype(root.into());
        for product in products(graph, root) {
            if !is_close(product.factor, 0.5, dtype) {
                continue;
            }
            for (x, gate) in [(product.a, product.b), (product.b, product.a)] {
                let Some((op, parts)) = gate_of(graph, x, gate) else { continue };
                let mut patch = Patch::new(self.name(), root);
                let fused = patch.add(Op::Activation(op), &[Some(x)]);
                patch.replace(root.into(), fused).absorb(product.nodes).absorb(parts);
                return Ok(patch);
            }
        }
        Err(Miss::NoMatch)
    }
}

/// `a * b * factor`, and its nodes.
struct Product {
    a: ValueRef,
    b: ValueRef,
    factor: f64,
    nodes: Vec<NodeId>,
}

/// The ways to read a node as a product of two values and a constant.
fn products(graph: &Graph, root: NodeId) -> Vec<Product> {
    let mut found = Vec::new();
    if let Some((inner, factor)) = scaled(graph, root)
        && let Some((a, b)) = operands(graph, inner.node, BinaryOp::Mul)
    {
        found.push(Product { a, b, factor, nodes: vec![root, inner.node] });
    }
    if let Some((a, b)) = operands(graph, root, BinaryOp::Mul) {
        for (inner, other) in [(a, b), (b, a)] {
            if let Some((value, factor)) = scaled(graph, inner.node) {
                found.push(Product { a: value, b: other, factor, nodes: vec![root, inner.node] });
            }
        }
        found.push(Product { a, b, factor: 1.0, nodes: vec![root] });
    }
    found
}

fn operands(graph: &Graph, id: NodeId, op: BinaryOp) -> Option<(ValueRef, ValueRef)> {
    (graph.op(id)? == &Op::Binary(op)).then_some((graph.input(id, 0)?, graph.input(id, 1)?))
}

/// The activation whose gate `1 + erf(..)` or `1 + tanh(..)` of x a value is, and the gate's nodes.
fn gate_of(graph: &Graph, x: ValueRef, gate: ValueRef) -> Option<(Activation, Vec<NodeId>)> {
    let dtype = graph.dtype(x);
    let (function, one) = shifted(graph, gate.node)?;
    if one != 1.0 {
        return None;
    }
    let argument = graph.input(function.node, 0)?;
    let mut nodes = vec![gate.node, function.node];
    match graph.op(function.node)? {
        Op::Unary(UnaryOp::Erf) => {
            let (data, factor) = scaled(graph, argument.node)?;
            nodes.push(argument.node);
            let is_root = data == x && is_close(factor, std::f64::consts::FRAC_1_SQRT_2, dtype);
            is_root.then_some((Activation::GeluErf, nodes))
        }
        Op::Activation(Activation::Tanh) => {
            nodes.extend(polynomial(graph, x, argument, dtype)?);
            Some((Activation::GeluTanh, nodes))
        }
        _ => None,
    }
}

/// The nodes of `sqrt(2 / pi) * (x + 0.044715 * x^3)`.
fn polynomial(graph: &Graph, x: ValueRef, value: ValueRef, dtype: DType) -> Option<Vec<NodeId>> {
    let scale = (2.0 / std::f64::consts::PI).sqrt();
    if let Some((sum, factor)) = scaled(graph, value.node)
        && is_close(factor, scale, dtype)
        && let Some((a, b)) = operands(graph, sum.node, BinaryOp::Add)
    {
        let cubic = [(a, b), (b, a)].into_iter().find(|(linear, _)| *linear == x).map(|(_, cubic)| cubic)?;
        let mut nodes = vec![value.node, sum.node];
        nodes.extend(scaled_power(graph, x, cubic, 3, dtype)?);
        return Some(nodes);
    }
    products(graph, value.node).into_iter().filter(|product| is_close(product.factor, scale, dtype)).find_map(
        |product| {
            [(product.a, product.b), (product.b, product.a)].into_iter().filter(|(linear, _)| *linear == x).find_map(
                |(_, sum)| {
                    let (square, one) = shifted(graph, sum.node)?;
                    let mut nodes = product.nodes.clone();
                    nodes.push(sum.node);
                    nodes.extend(scaled_power(graph, x, square, 2, dtype)?);
                    (one == 1.0).then_some(nodes)
                },
            )
        },
    )
}

/// The nodes of `0.044715 * x^power`, the constant anywhere among the factors.
fn scaled_power(graph: &Graph, x: ValueRef, value: ValueRef, power: u32, dtype: DType) -> Option<Vec<NodeId>> {
    let (mut factor, mut left, mut nodes) = (1.0, 0, Vec::new());
    let mut pending = vec![value];
    while let Some(value) = pending.pop() {
        if value == x {
            left += 1;
        } else if let Some((base, exponent)) = with_scalar(graph, value.node, BinaryOp::Pow) {
            nodes.push(value.node);
            if base != x || !matches!(exponent, 2.0 | 3.0) {
                return None;
            }
            left += exponent as u32;
        } else if let Some((inner, by)) = scaled(graph, value.node) {
            factor *= by;
            nodes.push(value.node);
            pending.push(inner);
        } else {
            let (a, b) = operands(graph, value.node, BinaryOp::Mul)?;
            nodes.push(value.node);
            pending.extend([a, b]);
        }
        if nodes.len() > 4 || left > power {
            return None;
        }
    }
    (left == power && is_close(factor, 0.044_715, dtype)).then_some(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    /// The formula over these constants, x of two dimensions.
    fn run(body: &str, outputs: &str) -> Run {
        let constants = "%half = constant() value=f32[] {0.5} %one = constant() value=f32[] {1.0}
            %root = constant() value=f32[] {0.70710677} %three = constant() value=f32[] {3.0}
            %sqrt2 = constant() value=f32[] {1.4142135} %c = constant() value=f32[] {0.044715}
            %s = constant() value=f32[] {0.7978846} %other = constant() value=f32[] {0.7}
            %odd = constant() value=f32[] {3.5}";
        run_rule(FuseGelu, &format!("graph g(%x: f32[n, 4]) -> ({outputs}) {{ {constants} {body} }}"))
    }

    #[test]
    fn fires_on_the_exact_form() {
        let body = "%1 = mul(%x, %root) %2 = erf(%1) %3 = add(%2, %one) %4 = mul(%x, %3) %y = mul(%4, %half)";
        insta::assert_snapshot!(run(body, "%y").equal_within(1e-6, 3).after, @"
        graph g(%x: f32[n, 4]) -> (%y) {
          %y = gelu(%x) : f32[n, 4]
        }
        ");
    }

    #[test]
    fn fires_in_every_grouping() {
        for body in [
            "%1 = div(%x, %sqrt2) %2 = erf(%1) %3 = add(%one, %2) %4 = mul(%3, %half) %y = mul(%x, %4)",
            "%1 = mul(%root, %x) %2 = erf(%1) %3 = add(%2, %one) %4 = mul(%half, %x) %y = mul(%4, %3)",
            "%1 = mul(%x, %root) %2 = erf(%1) %3 = add(%2, %one) %4 = mul(%x, %3) %y = mul(%half, %4)",
        ] {
            assert_eq!(run(body, "%y").equal_within(1e-6, 3).rewrites, 1, "{body}");
        }
    }

    #[test]
    fn fires_on_the_tangents_form() {
        for inner in [
            "%a = pow(%x, %three) %b = mul(%a, %c) %d = add(%x, %b) %e = mul(%d, %s)",
            "%q = mul(%x, %x) %a = mul(%q, %x) %b = mul(%c, %a) %d = add(%b, %x) %e = mul(%s, %d)",
            "%q = mul(%x, %x) %a = mul(%q, %c) %b = add(%a, %one) %d = mul(%x, %s) %e = mul(%d, %b)",
            "%q = mul(%x, %c) %a = mul(%q, %x) %b = add(%a, %one) %d = mul(%x, %b) %e = mul(%d, %s)",
        ] {
            let body = format!("{inner} %t = tanh(%e) %g = add(%t, %one) %h = mul(%x, %half) %y = mul(%h, %g)");
            let run = run(&body, "%y");
            assert_eq!(run.equal_within(1e-6, 3).rewrites, 1, "{body}");
            assert!(run.after.to_string().contains("gelu_tanh"), "{}", run.after);
        }
    }

    #[test]
    fn leaves_other_constants_alone() {
        for body in [
            "%1 = mul(%x, %other) %2 = erf(%1) %3 = add(%2, %one) %4 = mul(%x, %3) %y = mul(%4, %half)",
            "%1 = mul(%x, %root) %2 = erf(%1) %3 = add(%2, %half) %4 = mul(%x, %3) %y = mul(%4, %half)",
            "%1 = mul(%x, %root) %2 = erf(%1) %3 = add(%2, %one) %4 = mul(%x, %3) %y = mul(%4, %other)",
            "%1 = mul(%x, %root) %2 = erf(%1) %3 = add(%2, %one) %4 = mul(%1, %3) %y = mul(%4, %half)",
        ] {
            assert_eq!(run(body, "%y").rewrites, 0, "{body}");
        }
    }

    #[test]
    fn leaves_other_polynomials_alone() {
        for inner in [
            // Another scale, another data in the cube and beside it, another power, another factor.
            "%a = pow(%x, %three) %b = mul(%a, %c) %d = add(%x, %b) %e = mul(%d, %other)",
            "%n = neg(%x) %a = pow(%n, %three) %b = mul(%a, %c) %d = add(%x, %b) %e = mul(%d, %s)",
            "%n = neg(%x) %a = pow(%x, %three) %b = mul(%a, %c) %d = add(%n, %b) %e = mul(%d, %s)",
            "%a = pow(%x, %odd) %b = mul(%a, %c) %d = add(%x, %b) %e = mul(%d, %s)",
            "%a = mul(%x, %x) %b = mul(%a, %c) %d = add(%x, %b) %e = mul(%d, %s)",
            "%a = pow(%x, %three) %b = mul(%a, %other) %d = add(%x, %b) %e = mul(%d, %s)",
            // The same of the form with a square.
            "%q = mul(%x, %x) %a = mul(%q, %c) %b = add(%a, %one) %d = mul(%x, %other) %e = mul(%d, %b)",
            "%n = neg(%x) %q = mul(%x, %x) %a = mul(%q, %c) %b = add(%a, %one) %d = mul(%n, %s) %e = mul(%d, %b)",
            "%q = mul(%x, %x) %a = mul(%q, %c) %b = add(%a, %half) %d = mul(%x, %s) %e = mul(%d, %b)",
            "%q = mul(%x, %c) %b = add(%q, %one) %d = mul(%x, %s) %e = mul(%d, %b)",
        ] {
            let body = format!("{inner} %t = tanh(%e) %g = add(%t, %one) %h = mul(%x, %half) %y = mul(%h, %g)");
            assert_eq!(run(&body, "%y").rewrites, 0, "{body}");
        }
    }

    #[test]
    fn refuses_a_part_with_another_reader() {
        let body = "%1 = mul(%x, %root) %2 = erf(%1) %3 = add(%2, %one) %4 = mul(%x, %3) %y = mul(%4, %half)";
        let run = run(body, "%y, %2");
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["output of `2` also read by `an output of the graph`"]));
    }
}
