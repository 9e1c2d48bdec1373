//! Writes remainders that the target has no layer for in quotients and products.
//!
//! ```text
//! %y = fmod(%a, %b) : i32[n]
//! ```
//! becomes
//! ```text
//! %q = div(%a, %b) : i32[n]
//! %y = sub(%a, mul(%q, %b)) : i32[n]
//! ```
//!
//! Fires on remainders of floats, on C's remainder of integers, and on the other one of i8, which becomes one of i32.
//!
//! A remainder of floats is one of whole numbers: the power of 2 that makes the divisor an i64 of 24 to 26 bits makes one
//! of the dividend. Where that has no place in an i64, the remainder by a multiple of the divisor comes before.
//!
//! Refuses nothing.
//!
//! Order: before the types are legalised, as widths are those of the model.
//!
//! Numerics: integers bit-exact; unsigned 64-bit integers must be below 2^63. Floats are exact in f32 for divisors from
//! 2^-100 and quotients below 2^108; without i64 the error grows with the quotient.

use trt_fuse_ir::op::{BinaryOp, Gather, UnaryOp};
use trt_fuse_ir::{DType, Graph, NodeId, Op, OpKind, Patch, Tensor, ValueRef};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerRemainder;

impl Rule for LowerRemainder {
    fn name(&self) -> &'static str {
        "lower_remainder"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let f = Formula::new(self.name(), graph, root);
        match graph.op(root) {
            Some(Op::Binary(op @ (BinaryOp::Mod | BinaryOp::FMod))) if f.info(0)?.dtype.is_float() => {
                remainder(f, *op == BinaryOp::Mod, context.capabilities.dtypes.contains(&DType::I64))
            }
            Some(Op::Binary(BinaryOp::FMod)) => integer_remainder(f),
            Some(Op::Binary(BinaryOp::Mod)) if f.info(0)?.dtype == DType::I8 => widened_remainder(f),
            _ => Err(Miss::NoMatch),
        }
    }
}

/// `a - a / b * b`, the quotient rounded towards zero.
fn integer_remainder(mut f: Formula<'_>) -> Result<Patch, Miss> {
    let (a, b) = (f.input(0)?, f.input(1)?);
    let quotient = f.binary(BinaryOp::Div, a, b);
    let product = f.binary(BinaryOp::Mul, quotient, b);
    let y = f.binary(BinaryOp::Sub, a, product);
    Ok(f.result(y))
}

/// TensorRT's layers for it ask for a zero, and constants of i8 are quantized numbers to it.
fn widened_remainder(mut f: Formula<'_>) -> Result<Patch, Miss> {
    let [a, b] = [f.input(0)?, f.input(1)?].map(|x| f.cast(x, DType::I32));
    let y = f.binary(BinaryOp::Mod, a, b);
    let y = f.cast(y, DType::I8);
    Ok(f.result(y))
}

/// The remainder of floats, with the sign of the divisor if `floored`, else of the dividend.
fn remainder(mut f: Formula<'_>, floored: bool, has_i64: bool) -> Result<Patch, Miss> {
    use BinaryOp::{And, Greater, Less};
    const F32: DType = DType::F32;
    let dtype = f.info(0)?.dtype;
    let [a, b] = [f.input(0)?, f.input(1)?].map(|x| if dtype == F32 { x } else { f.cast(x, F32) });
    let (size, divisor) = (f.unary(UnaryOp::Abs, a), f.unary(UnaryOp::Abs, b));
    // None is, of a dividend or divisor that is NaN.
    let has_size = f.with_number(Less, size, F32, f64::INFINITY)?;
    let has_limit = f.with_number(Less, divisor, F32, f64::INFINITY)?;
    let divides = f.with_number(Greater, divisor, F32, 0.0)?;
    let (zero, one) = (f.number(F32, 0.0)?, f.number(F32, 1.0)?);
    let size = f.select(has_size, size, zero);
    let is_usual = f.binary(And, divides, has_limit);
    let divisor = f.select(is_usual, divisor, one);
    let rest = if has_i64 { whole_remainder(&mut f, size, divisor)? } else { rounded_remainder(&mut f, size, divisor) };
    let is_negative = f.with_number(Less, a, F32, 0.0)?;
    let opposite = f.unary(UnaryOp::Neg, rest);
    let y = f.select(is_negative, opposite, rest);
    let mut y = f.select(has_limit, y, a);
    if floored {
        let points_down = f.with_number(Less, b, F32, 0.0)?;
        let is_below = f.with_number(Less, y, F32, 0.0)?;
        let is_above = f.with_number(Greater, y, F32, 0.0)?;
        let other_side = f.select(points_down, is_above, is_below);
        let moved = f.binary(BinaryOp::Add, y, b);
        y = f.select(other_side, moved, y);
    }
    let is_defined = f.binary(And, has_size, divides);
    let nan = f.number(F32, f64::NAN)?;
    y = f.select(is_defined, y, nan);
    let y = if dtype == F32 { y } else { f.cast(y, dtype) };
    Ok(f.result(y))
}

/// The remainder of finite positive floats, with the rounding of their quotient.
fn rounded_remainder(f: &mut Formula<'_>, a: ValueRef, b: ValueRef) -> ValueRef {
    let quotient = f.binary(BinaryOp::Div, a, b);
    let quotient = f.unary(UnaryOp::Floor, quotient);
    let product = f.binary(BinaryOp::Mul, quotient, b);
    f.binary(BinaryOp::Sub, a, product)
}

/// The remainder of finite positive f32, through i64.
fn whole_remainder(f: &mut Formula<'_>, a: ValueRef, b: ValueRef) -> Result<ValueRef, Miss> {
    use BinaryOp::{Add, FMod, Less, Max, Min, Mul, Sub};
    const F32: DType = DType::F32;
    // Exponents of the powers of 2 that are normal in f32 and whose inverses are.
    const MOST: i32 = 126;
    // Bits that a divisor has at least as a whole number.
    const BITS: f64 = 24.0;
    // Bits of the quotient that one round takes away, and the rounds.
    const STEP: i32 = 36;
    const ROUNDS: i32 = 3;
    // Which of the two nearest whole numbers the logarithm gives makes no difference.
    let exponent = f.unary(UnaryOp::Log, b);
    let exponent = f.with_number(Mul, exponent, F32, -std::f64::consts::LOG2_E)?;
    let exponent = f.unary(UnaryOp::Ceil, exponent);
    let place = f.with_number(Add, exponent, F32, BITS + f64::from(MOST))?;
    let place = f.with_number(Max, place, F32, 0.0)?;
    let place = f.with_number(Min, place, F32, f64::from(2 * MOST))?;
    let place = f.cast(place, DType::I64);
    let last = f.number(DType::I64, f64::from(2 * MOST))?;
    let mirrored = f.binary(Sub, last, place);
    let powers = f.constant(Tensor::vector((-MOST..=MOST).map(|power| 2_f32.powi(power)).collect()));
    let scale = f.op(Gather { axis: 0 }, &[powers, place]);
    let inverse = f.op(Gather { axis: 0 }, &[powers, mirrored]);
    let whole = f.binary(Mul, b, scale);
    let whole = f.cast(whole, DType::I64);
    let whole = f.with_number(Max, whole, DType::I64, 1.0)?;
    let mut rest = a;
    for round in (0..ROUNDS).rev() {
        let multiple = 2_f64.powi(STEP * round);
        let least = f.with_number(Mul, b, F32, multiple)?;
        let is_rest = f.binary(Less, rest, least);
        let down = f.with_number(Mul, scale, F32, 1.0 / multiple)?;
        let up = f.with_number(Mul, inverse, F32, multiple)?;
        let dividend = f.binary(Mul, rest, down);
        let dividend = f.cast(dividend, DType::I64);
        let left = f.binary(FMod, dividend, whole);
        let left = f.cast(left, F32);
        let left = f.binary(Mul, left, up);
        rest = f.select(is_rest, rest, left);
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::Graph;
    use trt_fuse_ir::eval::eval_graph;

    use super::*;
    use crate::testing::{run_elementwise, run_for, run_rule};

    #[test]
    fn fires_on_remainders() {
        let graph = run_elementwise(LowerRemainder, "fmod", vec![5_i32, -5, 5, -5], vec![3, 3, -3, -3]).after;
        insta::assert_snapshot!(graph, @"
        graph g(%a: i32[4], %b: i32[4]) -> (%y) {
          %y.1 = div(%a, %b) : i32[4]
          %y.2 = mul(%y.1, %b) : i32[4]
          %y = sub(%a, %y.2) : i32[4]
        }
        ");
    }

    /// Remainders of floats are those of the evaluator, which has C's `fmod`.
    #[test]
    fn remainders_of_floats_are_exact() {
        let infinite = f64::INFINITY;
        let mut pairs = vec![(5.5, 2.0), (-5.5, 2.0), (5.5, -2.0), (-5.5, -2.0), (0.0, 3.0), (-6.0, 3.0)];
        pairs.extend([(5.0, infinite), (-5.0, infinite), (7.0, -infinite), (infinite, 2.0), (infinite, infinite)]);
        pairs.extend([(1.0, 0.0), (f64::NAN, 2.0), (2.0, f64::NAN), (0.0, -infinite), (0.0, infinite)]);
        pairs.extend([(65000.0, 0.001), (100.0, 0.3), (3000.0, 0.7), (12345.6, 0.7), (1.0, 3.0), (4096.0, 4096.0)]);
        let wide = [(1e30, 3.0), (1e6, 0.37), (3e38, 1.1e7), (1e-20, 3e-27), (2e38, 1.7e38), (-98765.4, 1e-20)];
        let check = |dtype: DType, pairs: &[(f64, f64)]| {
            let operand = |of: fn(&(f64, f64)) -> f64| {
                let numbers = Tensor::vector(pairs.iter().map(of).collect::<Vec<f64>>());
                trt_fuse_ir::eval::convert(&trt_fuse_ir::eval::convert(&numbers, DType::F32).unwrap(), dtype).unwrap()
            };
            let (inputs, n) = ([operand(|pair| pair.0), operand(|pair| pair.1)], pairs.len());
            for op in ["fmod", "mod"] {
                let text = format!("graph g(%a: {dtype}[{n}], %b: {dtype}[{n}]) -> (%y) {{ %y = {op}(%a, %b) }}");
                let run = run_rule(LowerRemainder, &text);
                let expected = eval_graph(&run.before, &inputs).unwrap()[0].to_f64s().unwrap();
                let found = eval_graph(&run.after, &inputs).unwrap()[0].to_f64s().unwrap();
                for ((pair, a), b) in pairs.iter().zip(expected).zip(found) {
                    assert!(a == b || (a.is_nan() && b.is_nan()), "{op} of {dtype} {pair:?}: {b}, not {a}");
                }
            }
        };
        for dtype in [DType::F16, DType::BF16, DType::F32] {
            check(dtype, &pairs);
        }
        check(DType::F32, &wide);
        // All exponents that the lowering states, and all digits.
        let mut state = 1_u64;
        let mut next = |bound: u64| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 33) % bound
        };
        let mut float = |least: i32, most: i32| {
            let power = least + next((most - least) as u64) as i32;
            let digits = 1.0 + next(1 << 23) as f64 / f64::from(1 << 23);
            if next(2) == 0 { digits * 2_f64.powi(power) } else { -digits * 2_f64.powi(power) }
        };
        let pairs: Vec<(f64, f64)> = (0..2000)
            .map(|_| {
                let divisor = float(-100, 127);
                let power = divisor.abs().log2() as i32;
                (float((power - 30).max(-120), (power + 107).min(127)), divisor)
            })
            .collect();
        check(DType::F32, &pairs);
    }

    #[test]
    fn remainders_without_i64_are_near() {
        let old = trt_fuse_ir::Capabilities::tensorrt((8, 6, 1));
        let before: Graph = "graph g(%a: f32[5], %b: f32[5]) -> (%y) { %y = mod(%a, %b) }".parse().unwrap();
        let after = run_for(LowerRemainder, &before, &old);
        assert!(!after.to_string().contains("i64"), "{after}");
        let inputs = [
            Tensor::vector(vec![5.5_f32, -5.5, 5.5, -5.0, 7.0]),
            Tensor::vector(vec![2.0, 2.0, -2.0, f32::INFINITY, f32::NEG_INFINITY]),
        ];
        assert_eq!(eval_graph(&before, &inputs).unwrap(), eval_graph(&after, &inputs).unwrap());
    }

    #[test]
    fn fires_on_narrow_integers() {
        let run = run_elementwise(LowerRemainder, "mod", vec![-128_i8, 127, -7, 7], vec![-1, 2, 3, -3]);
        insta::assert_snapshot!(run.after, @"
        graph g(%a: i8[4], %b: i8[4]) -> (%y) {
          %y.1 = cast(%a) to=i32 saturate=true : i32[4]
          %y.2 = cast(%b) to=i32 saturate=true : i32[4]
          %y.3 = mod(%y.1, %y.2) : i32[4]
          %y = cast(%y.3) to=i8 saturate=true : i8[4]
        }
        ");
    }

    #[test]
    fn leaves_the_remainder_of_integers_that_is_floored_alone() {
        let text = "graph g(%a: i32[3], %b: i32[3]) -> (%y) { %y = mod(%a, %b) }";
        assert_eq!(run_rule(LowerRemainder, text).rewrites, 0);
    }
}
