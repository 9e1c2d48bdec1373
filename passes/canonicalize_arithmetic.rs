//! Writes arithmetic with constants in one form: the constant on the right of a sum or product.
//!
//! ```text
//! %a = add(%c, %x)      %a = add(%x, %c)
//! %b = sub(%a, %c)      %b = add(%a, %d)       d = -c
//! %y = div(%b, %c)      %y = mul(%b, %e)       e = 1 / c
//! %z = pow(%y, %two)    %z = mul(%y, %y)
//! ```
//!
//! Fires when one operand is a constant and the other is not: a commutative operator with the constant on the left;
//! a difference with a constant subtrahend; a quotient of floats with a constant divisor; a power of floats to 2
//! (a product) or 0.5 (a square root).
//!
//! Refuses when
//! - the constant is larger than the fold budget: its negative or reciprocal would be held in memory;
//! - a reciprocal is not a normal number: it would lose digits, or the divisor is 0;
//! - a rounding reads the quotient, or a quantization does, perhaps in another shape: an error in the last place would
//!   become a whole step. Divisors that are powers of 2 divide exactly and are not refused;
//! - the exponent broadcasts the base.
//!
//! Of types that are only stored, floats below 16 bits and integers below 8, operands are exchanged and nothing else is
//! done.
//!
//! Order: after `fold_constants`, before the fusions, which know sums and products only.
//!
//! Numerics: exchanges, negation and powers of 2 are bit-exact. `x * (1 / c)` differs from `x / c` by one unit in the
//! last place, two for 16-bit floats. `x ^ 0.5` is infinite at minus infinity and 0 at -0, its square root is NaN and -0.

use trt_fuse_ir::op::{BinaryOp, UnaryOp};
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, Tensor, ValueRef};

use crate::fold_constants::evaluate_one;
use crate::pattern::same_shape;
use crate::{Miss, Rule, RuleContext};

/// Writes arithmetic with constants in one form.
#[derive(Debug, Default)]
pub(crate) struct CanonicalizeArithmetic;

impl Rule for CanonicalizeArithmetic {
    fn name(&self) -> &'static str {
        "canonicalize_arithmetic"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Binary(op)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let (Some(a), Some(b)) = (graph.input(root, 0), graph.input(root, 1)) else { return Err(Miss::NoMatch) };
        let blocked = |reason| Miss::Blocked { reason, at: root };
        let mut patch = Patch::new(self.name(), root);
        let result = match (graph.constant(a), graph.constant(b)) {
            (Some(_), None) if op.is_commutative() => patch.add(Op::Binary(*op), &[Some(b), Some(a)]),
            (None, Some(c)) => match op {
                BinaryOp::Sub if c.dtype().is_float() || c.dtype().is_signed_integer() => {
                    let negative = each_element(UnaryOp::Neg, c, root, context)?;
                    let negative = patch.constant(negative);
                    patch.add(Op::Binary(BinaryOp::Add), &[Some(a), Some(negative)])
                }
                BinaryOp::Div if c.dtype().is_float() => {
                    let reciprocal = each_element(UnaryOp::Reciprocal, c, root, context)?;
                    check_reciprocals(graph, root, c).map_err(blocked)?;
                    let reciprocal = patch.constant(reciprocal);
                    patch.add(Op::Binary(BinaryOp::Mul), &[Some(a), Some(reciprocal)])
                }
                BinaryOp::Pow if graph.dtype(a).is_float() => {
                    let (power, inputs): (Op, &[Option<ValueRef>]) = match c.uniform_f64() {
                        Some(2.0) => (Op::Binary(BinaryOp::Mul), &[Some(a), Some(a)]),
                        Some(0.5) => (Op::Unary(UnaryOp::Sqrt), &[Some(a)]),
                        _ => return Err(Miss::NoMatch),
                    };
                    if c.rank() > 0 && !same_shape(graph.info(a), graph.info(root.into())) {
                        return Err(blocked("the exponent broadcasts the base"));
                    }
                    patch.add(power, inputs)
                }
                _ => return Err(Miss::NoMatch),
            },
            _ => return Err(Miss::NoMatch),
        };
        patch.replace(root.into(), result).absorb([root]);
        Ok(patch)
    }
}

/// A constant with an operator applied to each element; one repeated element stays such.
fn each_element(op: UnaryOp, constant: &Tensor, root: NodeId, context: &RuleContext<'_>) -> Result<Tensor, Miss> {
    if constant.held_bytes() > context.options.fold_budget {
        return Err(Miss::Blocked { reason: "the constant is larger than the fold budget", at: root });
    }
    let evaluate = |tensor: &Tensor| evaluate_one(&Op::Unary(op), &[Some(tensor)]).ok_or(Miss::NoMatch);
    match constant.repeated() {
        Some(element) => {
            let element = evaluate(&element)?;
            let bytes = element.bytes().clone();
            Tensor::splat(element.dtype(), constant.dims(), bytes).map_err(|_| Miss::NoMatch)
        }
        None => evaluate(constant),
    }
}

/// Whether a quotient by `divisor` may become a product with its reciprocal.
fn check_reciprocals(graph: &Graph, quotient: NodeId, divisor: &Tensor) -> Result<(), &'static str> {
    let Some((smallest, largest)) = divisor.dtype().normal_range() else {
        return Err("a reciprocal is not a normal number");
    };
    let element = divisor.repeated();
    let elements = element.as_ref().unwrap_or(divisor).to_f64s().unwrap_or_default();
    if !elements.iter().all(|element| (smallest..=largest).contains(&(1.0 / element).abs())) {
        return Err("a reciprocal is not a normal number");
    }
    let exact = |element: &f64| element.to_bits() & ((1 << 52) - 1) == 0;
    if !elements.iter().all(exact) && is_rounded(graph, quotient, MAX_MOVES) {
        return Err("a rounding reads the quotient");
    }
    Ok(())
}

/// Operators between a quotient and its rounding that only move elements.
const MAX_MOVES: usize = 4;

/// Whether something that reads a value makes a step of an error in the last place.
fn is_rounded(graph: &Graph, id: NodeId, moves: usize) -> bool {
    graph.consumers(id.into()).iter().any(|reader| {
        let only_moves = matches!(
            graph.op(reader.node),
            Some(Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_) | Op::Transpose(_))
        );
        rounds(graph, reader.node) || (only_moves && moves > 0 && is_rounded(graph, reader.node, moves - 1))
    })
}

/// Whether an operator makes a step of an error in the last place.
fn rounds(graph: &Graph, id: NodeId) -> bool {
    match graph.op(id) {
        Some(Op::Unary(op)) => matches!(op, UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round | UnaryOp::Sign),
        Some(Op::Binary(op)) => op.is_comparison() || matches!(op, BinaryOp::Mod | BinaryOp::FMod),
        Some(Op::Cast(op)) => !op.to.is_float(),
        Some(Op::Quantize(_)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use trt_fuse_ir::op::BinaryOp;
    use trt_fuse_ir::{Builder, DType, Op, Tensor, ValueInfo};

    use super::CanonicalizeArithmetic;
    use crate::Rules;
    use crate::testing::{Run, run_on, run_rule};

    fn run(lines: &str) -> Run {
        run_rule(CanonicalizeArithmetic, &format!("graph g(%x: f32[n, 2]) -> (%y) {{ {lines} }}"))
    }

    #[test]
    fn constants_go_to_the_right() {
        let run = run("%c = constant() value=f32[2] {3, 5} %a = mul(%c, %x) %y = add(%c, %a)");
        assert_eq!(run.rewrites, 2);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 2]) -> (%y) {
          %c = constant() value=f32[2] {3.0, 5.0}
          %a = mul(%x, %c) : f32[n, 2]
          %y = add(%a, %c) : f32[n, 2]
        }
        ");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn a_difference_becomes_a_sum() {
        let run = run("%c = constant() value=f32[2] {3, -5} %y = sub(%x, %c)");
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 2]) -> (%y) {
          %y.canonicalize_arithmetic = constant() value=f32[2] {-3.0, 5.0}
          %y = add(%x, %y.canonicalize_arithmetic) : f32[n, 2]
        }
        ");
        run.equal_within(0.0, 3);
        let text = "graph g(%x: i64[n]) -> (%y) { %c = constant() value=i64[] {7} %y = sub(%x, %c) }";
        run_rule(CanonicalizeArithmetic, text).equal_within(0.0, 3);
    }

    #[test]
    fn a_quotient_becomes_a_product() {
        let run = run("%c = constant() value=f32[4096, 1, 1, 2] splat 8 %y = div(%x, %c)");
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 2]) -> (%y) {
          %y.canonicalize_arithmetic = constant() value=f32[4096, 1, 1, 2] splat 0.125
          %y = mul(%x, %y.canonicalize_arithmetic) : f32[4096, 1, n, 2]
        }
        ");
        let run = self::run("%c = constant() value=f32[2] {3, -7} %y = div(%x, %c)");
        assert_eq!(run.rewrites, 1);
        run.equal_within(1e-7, 3);
    }

    #[test]
    fn powers_to_two_and_one_half() {
        let run =
            run("%c = constant() value=f32[] {2} %h = constant() value=f32[1] {0.5} %a = pow(%x, %c) %y = pow(%a, %h)");
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 2]) -> (%y) {
          %a = mul(%x, %x) : f32[n, 2]
          %y = sqrt(%a) : f32[n, 2]
        }
        ");
        run.equal_within(0.0, 3);
    }

    #[test]
    fn what_is_in_form_or_has_none_stays() {
        for lines in [
            "%c = constant() value=f32[] {3} %y = add(%x, %c)",
            "%c = constant() value=f32[] {3} %y = sub(%c, %x)",
            "%c = constant() value=f32[] {3} %y = div(%c, %x)",
            "%c = constant() value=f32[] {3} %y = pow(%x, %c)",
            "%y = sub(%x, %x)",
        ] {
            let run = run(lines);
            assert_eq!((run.rewrites, run.reasons()), (0, vec![]), "{lines}");
        }
        let text = "graph g(%x: i32[n]) -> (%y) { %c = constant() value=i32[] {3} %y = div(%x, %c) }";
        assert_eq!(run_rule(CanonicalizeArithmetic, text).rewrites, 0);
    }

    #[test]
    fn refuses_a_constant_beyond_the_budget() {
        let mut builder = Builder::new("g");
        let data: Vec<f32> = (0..1 << 19).map(|x| x as f32).collect();
        let x = builder.input("x", ValueInfo::new(DType::F32, [1_i64 << 19]));
        let c = builder.constant("c", Tensor::vector(data)).unwrap();
        let y = builder.op("y", Op::Binary(BinaryOp::Sub), &[x, c]).unwrap();
        builder.output("y", y);
        let run = run_on(&Rules::one(CanonicalizeArithmetic), builder.finish());
        assert_eq!(run.reasons(), ["the constant is larger than the fold budget"]);
    }

    #[test]
    fn refuses_reciprocals_that_are_not_normal() {
        for divisor in ["0", "3e38", "1e-39"] {
            let run = run(&format!("%c = constant() value=f32[2] {{2, {divisor}}} %y = div(%x, %c)"));
            assert_eq!(run.reasons(), ["a reciprocal is not a normal number"]);
        }
        let text = "graph g(%x: f16[n]) -> (%y) { %c = constant() value=f16[] {60000} %y = div(%x, %c) }";
        assert_eq!(run_rule(CanonicalizeArithmetic, text).reasons(), ["a reciprocal is not a normal number"]);
    }

    #[test]
    fn refuses_a_quotient_that_is_rounded() {
        let reason = "a rounding reads the quotient";
        let floor =
            |divisor: &str| run(&format!("%c = constant() value=f32[] {{{divisor}}} %q = div(%x, %c) %y = floor(%q)"));
        assert_eq!(floor("3").reasons(), [reason]);
        assert_eq!(floor("4").rewrites, 1);
        assert_eq!(run("%c = constant() value=f32[] {3} %q = div(%x, %c) %y = cast(%q) to=i32").reasons(), [reason]);
        assert_eq!(run("%c = constant() value=f32[] {3} %q = div(%x, %c) %y = greater(%q, %x)").reasons(), [reason]);
        assert_eq!(run("%c = constant() value=f32[] {3} %q = div(%x, %c) %y = fmod(%q, %x)").reasons(), [reason]);
        let quantized = run("%c = constant() value=f32[] {255} %s = constant() value=f32[] {0.5}
            %q = div(%x, %c) %t = transpose(%q) perm=[1, 0] %y = quantize(%t, %s) axis=1 to=i8 saturate=true");
        assert_eq!(quantized.reasons(), [reason]);
    }

    #[test]
    fn leaves_types_that_are_only_stored_alone() {
        for op in [BinaryOp::Sub, BinaryOp::Div] {
            let mut builder = Builder::new("g");
            let x = builder.input("x", ValueInfo::new(DType::F8E4M3, [2_i64]));
            // 1.0 twice, as a tensor and as one repeated element.
            let two = Tensor::new(DType::F8E4M3, [2], vec![0x38, 0x38].into()).unwrap();
            let splat = Tensor::splat(DType::F8E4M3, [2], vec![0x38].into()).unwrap();
            for (name, value) in [("two", two), ("splat", splat)] {
                let c = builder.constant(name, value).unwrap();
                let y = builder.op(format!("by_{name}"), Op::Binary(op), &[x, c]).unwrap();
                builder.output(format!("by_{name}"), y);
            }
            let run = run_on(&Rules::one(CanonicalizeArithmetic), builder.finish());
            assert_eq!((run.rewrites, run.reasons()), (0, vec![]), "{op:?}");
        }
    }

    #[test]
    fn refuses_an_exponent_that_broadcasts() {
        let run = run("%c = constant() value=f32[3, 1, 1] splat 2 %y = pow(%x, %c)");
        assert_eq!(run.reasons(), ["the exponent broadcasts the base"]);
    }
}
