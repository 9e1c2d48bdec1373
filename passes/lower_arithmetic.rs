//! Writes elementwise operators that the target has no layer for in those that it has.
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
//! Fires on remainders of floats and C's remainder of integers, on powers of integers (products, as TensorRT computes them
//! in f32) and those whose exponent has another type than their base, on shifts (products with and quotients by powers of 2 from a table, in i64), on bitwise operators (arithmetic on
//! the bits along a new last axis, in i64), on `shrink`, and on the forms of GELU where the target has no layer of theirs.
//!
//! A remainder of floats is one of whole numbers: the power of 2 that makes the divisor an i64 of 24 to 26 bits makes one
//! of the dividend. Where that has no place in an i64, the remainder by a multiple of the divisor comes before.
//!
//! Refuses nothing.
//!
//! Order: before the types are legalised, as widths are those of the model.
//!
//! Numerics: integers bit-exact, but powers beyond their type, and remainders of unsigned ones from 2^63 on. Remainders of floats are exact in f32 for
//! divisors from 2^-100 and quotients below 2^108; without i64 their error grows with the quotient. A power of an integer
//! by a float has f32's precision.

use trt_fuse_ir::op::{Activation, BinaryOp, Gather, ReduceKind, UnaryOp};
use trt_fuse_ir::{DType, Graph, NodeId, Op, OpKind, Patch, Tensor, ValueRef};

use crate::formula::Formula;
use crate::lower_types::holds;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerArithmetic;

impl Rule for LowerArithmetic {
    fn name(&self) -> &'static str {
        "lower_arithmetic"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Unary, OpKind::Binary, OpKind::Activation]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let f = Formula::new(self.name(), graph, root);
        match graph.op(root) {
            Some(Op::Unary(UnaryOp::BitwiseNot)) => bitwise_not(f),
            Some(Op::Binary(op)) => match op {
                BinaryOp::Mod | BinaryOp::FMod if f.info(0)?.dtype.is_float() => {
                    remainder(f, *op == BinaryOp::Mod, context.capabilities.dtypes.contains(&DType::I64))
                }
                BinaryOp::FMod => integer_remainder(f),
                BinaryOp::Pow if f.info(0)?.dtype.is_integer() || f.info(0)?.dtype != f.info(1)?.dtype => power(f),
                BinaryOp::ShiftLeft | BinaryOp::ShiftRight => shift(f, *op),
                BinaryOp::BitwiseAnd | BinaryOp::BitwiseOr | BinaryOp::BitwiseXor => bitwise(f, *op),
                _ => Err(Miss::NoMatch),
            },
            Some(Op::Activation(op)) => match op {
                Activation::Shrink(lambd, bias) => shrink(f, f64::from(lambd.0), f64::from(bias.0)),
                Activation::GeluErf if !context.capabilities.gelu => gelu_erf(f),
                Activation::GeluTanh if !context.capabilities.gelu => gelu_tanh(f),
                _ => Err(Miss::NoMatch),
            },
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

/// A power of two types in one that holds both. Of an integer by a float that is not known to be whole, it is computed in
/// floats and rounded towards zero.
fn power(mut f: Formula<'_>) -> Result<Patch, Miss> {
    let (base, own) = (f.info(0)?.dtype, f.info(1)?.dtype);
    let is_small_and_whole = |x: &f64| x.fract() == 0.0 && x.abs() <= 64.0;
    let exponents = f.constant_input(1).and_then(numbers);
    let dtype = match (base, own) {
        (DType::F64, _) => base,
        _ if base.is_float() => DType::F32,
        _ if exponents.is_some_and(|all| all.iter().all(is_small_and_whole)) => base,
        _ if own.is_float() => DType::F32,
        _ if holds(base, own) => base,
        _ if holds(own, base) => own,
        _ => DType::I64,
    };
    let mut operand = |slot: usize, own: DType| {
        let x = f.input(slot)?;
        Ok(if own == dtype { x } else { f.cast(x, dtype) })
    };
    let (x, exponent) = (operand(0, base)?, operand(1, own)?);
    let y = if dtype.is_integer() {
        match single_exponent(&f)? {
            Some(times) => repeated_product(&mut f, x, dtype, times)?,
            None => integer_power(&mut f, x, exponent, dtype)?,
        }
    } else {
        let y = f.binary(BinaryOp::Pow, x, exponent);
        if base.is_integer() { snapped(&mut f, y)? } else { y }
    };
    let y = if dtype == base { y } else { f.cast(y, base) };
    Ok(f.result(y))
}

/// An exponent that is one small number for all elements of the base.
fn single_exponent(f: &Formula<'_>) -> Result<Option<u32>, Miss> {
    let Some(exponent) = f.constant_input(1).filter(|exponent| exponent.numel() == 1) else { return Ok(None) };
    if exponent.rank() > f.shape(0)?.len() {
        return Ok(None);
    }
    let number = numbers(exponent).and_then(|numbers| numbers.first().copied());
    Ok(number.filter(|number| (0.0..=64.0).contains(number)).map(|number| number as u32))
}

/// `x` as often as a factor.
fn repeated_product(f: &mut Formula<'_>, x: ValueRef, dtype: DType, mut times: u32) -> Result<ValueRef, Miss> {
    let (mut square, mut product) = (x, None);
    while times > 0 {
        if times % 2 == 1 {
            product = Some(product.map_or(square, |product| f.binary(BinaryOp::Mul, product, square)));
        }
        times /= 2;
        if times > 0 {
            square = f.binary(BinaryOp::Mul, square, square);
        }
    }
    match product {
        Some(product) => Ok(product),
        None => {
            let zeros = f.with_number(BinaryOp::Mul, x, dtype, 0.0)?;
            f.with_number(BinaryOp::Add, zeros, dtype, 1.0)
        }
    }
}

/// The product of the squares of squares that the bits of an exponent name. Seven bits are enough: a power of more factors
/// has overflowed unless its base is 0, 1 or -1, of which the parity tells the power. So it does for negative exponents.
fn integer_power(f: &mut Formula<'_>, x: ValueRef, exponent: ValueRef, dtype: DType) -> Result<ValueRef, Miss> {
    use BinaryOp::{Add, And, Div, Equal, Greater, Less, Mod, Mul};
    const BITS: u32 = 7;
    const MOST: f64 = ((1 << BITS) - 1) as f64;
    let (zero, one) = (f.number(dtype, 0.0)?, f.number(dtype, 1.0)?);
    let parity = f.with_number(Mod, exponent, dtype, 2.0)?;
    let is_beyond = f.with_number(Greater, exponent, dtype, MOST)?;
    let shortened = f.with_number(Add, parity, dtype, MOST - 1.0)?;
    let mut left = f.select(is_beyond, shortened, exponent);
    let is_negative = f.binary(Less, exponent, zero);
    if dtype.is_signed_integer() {
        left = f.select(is_negative, parity, left);
    }
    let (mut square, mut y) = (x, one);
    for bit in 0..BITS {
        let rest = f.with_number(Mod, left, dtype, 2.0)?;
        let is_odd = f.binary(Equal, rest, one);
        let product = f.binary(Mul, y, square);
        y = f.select(is_odd, product, y);
        if bit + 1 < BITS {
            left = f.with_number(Div, left, dtype, 2.0)?;
            square = f.binary(Mul, square, square);
        }
    }
    if dtype.is_signed_integer() {
        let size = f.unary(UnaryOp::Abs, x);
        let is_unit = f.binary(Equal, size, one);
        let is_other = f.unary(UnaryOp::Not, is_unit);
        let vanishes = f.binary(And, is_negative, is_other);
        y = f.select(vanishes, zero, y);
    }
    Ok(y)
}

/// The elements of a constant.
fn numbers(constant: &Tensor) -> Option<Vec<f64>> {
    constant.to_f64s().or_else(|| Some(constant.to_i64s()?.into_iter().map(|number| number as f64).collect()))
}

/// Whole numbers in the place of f32 that are within their precision of one.
fn snapped(f: &mut Formula<'_>, x: ValueRef) -> Result<ValueRef, Miss> {
    let near = f.unary(UnaryOp::Round, x);
    let gap = f.binary(BinaryOp::Sub, x, near);
    let gap = f.unary(UnaryOp::Abs, gap);
    let size = f.unary(UnaryOp::Abs, near);
    let most = f.with_number(BinaryOp::Mul, size, DType::F32, 4.0 * f64::from(f32::EPSILON))?;
    let is_near = f.binary(BinaryOp::LessOrEqual, gap, most);
    Ok(f.select(is_near, near, x))
}

/// Powers of 2 from 2^0; 2^63 as the i64 of that bit.
fn powers(count: u32) -> Tensor {
    Tensor::vector((0..count).map(|bit| 1_i64.wrapping_shl(bit)).collect())
}

fn widened(f: &mut Formula<'_>, slot: usize) -> Result<ValueRef, Miss> {
    let x = f.input(slot)?;
    Ok(if f.info(slot)?.dtype == DType::I64 { x } else { f.cast(x, DType::I64) })
}

fn narrowed(f: &mut Formula<'_>, x: ValueRef, dtype: DType) -> ValueRef {
    if dtype == DType::I64 { x } else { f.cast(x, dtype) }
}

/// The quotient by a positive number rounded down: integer division rounds towards zero.
fn floor_div(f: &mut Formula<'_>, a: ValueRef, b: ValueRef) -> ValueRef {
    let rest = f.binary(BinaryOp::Mod, a, b);
    let whole = f.binary(BinaryOp::Sub, a, rest);
    f.binary(BinaryOp::Div, whole, b)
}

/// A shift by the width or more, or by a negative amount, leaves nothing but the sign.
fn shift(mut f: Formula<'_>, op: BinaryOp) -> Result<Patch, Miss> {
    let dtype = f.info(0)?.dtype;
    let width = dtype.bits() as u32;
    let (a, amount) = (widened(&mut f, 0)?, widened(&mut f, 1)?);
    if dtype == DType::U64 && op == BinaryOp::ShiftRight {
        return long_shift(f, a, amount);
    }
    // An i64 has no positive 2^63 to divide by; what is right of it is the sign alone.
    let steps = if op == BinaryOp::ShiftRight { width.min(63) } else { width };
    let low = f.with_number(BinaryOp::GreaterOrEqual, amount, DType::I64, 0.0)?;
    let high = f.with_number(BinaryOp::Less, amount, DType::I64, f64::from(steps))?;
    let in_range = f.binary(BinaryOp::And, low, high);
    let zero = f.number(DType::I64, 0.0)?;
    let index = f.select(in_range, amount, zero);
    let table = f.constant(powers(steps));
    let power = f.op(Gather { axis: 0 }, &[table, index]);
    let (shifted, beyond) = if op == BinaryOp::ShiftLeft {
        let product = f.binary(BinaryOp::Mul, a, power);
        (f.wrapped(product, DType::I64, dtype)?, zero)
    } else {
        let minus_one = f.number(DType::I64, -1.0)?;
        let is_negative = f.with_number(BinaryOp::Less, a, DType::I64, 0.0)?;
        (floor_div(&mut f, a, power), f.select(is_negative, minus_one, zero))
    };
    let y = f.select(in_range, shifted, beyond);
    let y = narrowed(&mut f, y, dtype);
    Ok(f.result(y))
}

/// A shift to the right of the bits of an unsigned integer of 64 bits: by 1, which leaves an i64, and by the rest.
fn long_shift(mut f: Formula<'_>, a: ValueRef, amount: ValueRef) -> Result<Patch, Miss> {
    const I64: DType = DType::I64;
    let zero = f.number(I64, 0.0)?;
    let two = f.number(I64, 2.0)?;
    let least = f.number(I64, i64::MIN as f64)?;
    let half = floor_div(&mut f, a, two);
    let without_first_bit = f.binary(BinaryOp::Sub, half, least);
    let has_first_bit = f.with_number(BinaryOp::Less, a, I64, 0.0)?;
    let half = f.select(has_first_bit, without_first_bit, half);
    let rest = f.with_number(BinaryOp::Sub, amount, I64, 1.0)?;
    let low = f.with_number(BinaryOp::GreaterOrEqual, rest, I64, 0.0)?;
    let high = f.with_number(BinaryOp::Less, rest, I64, 63.0)?;
    let in_range = f.binary(BinaryOp::And, low, high);
    let index = f.select(in_range, rest, zero);
    let table = f.constant(powers(63));
    let power = f.op(Gather { axis: 0 }, &[table, index]);
    let shifted = f.binary(BinaryOp::Div, half, power);
    let y = f.select(in_range, shifted, zero);
    let stays = f.with_number(BinaryOp::Equal, amount, I64, 0.0)?;
    let y = f.select(stays, a, y);
    let y = narrowed(&mut f, y, DType::U64);
    Ok(f.result(y))
}

/// The bits of an integer of `width` bits along a new last axis, each 0 or 1.
fn bits(f: &mut Formula<'_>, x: ValueRef, width: u32) -> Result<ValueRef, Miss> {
    let column = f.unsqueeze(x, &[-1]);
    let table = f.constant(powers(width.min(63)));
    let shifted = floor_div(f, column, table);
    let low = f.with_number(BinaryOp::Mod, shifted, DType::I64, 2.0)?;
    if width < 64 {
        return Ok(low);
    }
    let is_negative = f.with_number(BinaryOp::Less, column, DType::I64, 0.0)?;
    let sign = f.cast(is_negative, DType::I64);
    Ok(f.concat(&[low, sign], -1))
}

fn bitwise(mut f: Formula<'_>, op: BinaryOp) -> Result<Patch, Miss> {
    let dtype = f.info(0)?.dtype;
    let rank = f.shape(0)?.len().max(f.shape(1)?.len());
    let width = dtype.bits() as u32;
    let (a, b) = (widened(&mut f, 0)?, widened(&mut f, 1)?);
    let (a, b) = (bits(&mut f, a, width)?, bits(&mut f, b, width)?);
    let y = match op {
        BinaryOp::BitwiseAnd => f.binary(BinaryOp::Mul, a, b),
        BinaryOp::BitwiseOr => f.binary(BinaryOp::Max, a, b),
        _ => {
            let sum = f.binary(BinaryOp::Add, a, b);
            f.with_number(BinaryOp::Mod, sum, DType::I64, 2.0)?
        }
    };
    let mut weights: Vec<i64> = (0..width).map(|bit| 1_i64.wrapping_shl(bit)).collect();
    // The first bit of a signed type counts negative.
    if let (Some(last), true) = (weights.last_mut(), dtype.is_signed_integer()) {
        *last = last.wrapping_neg();
    }
    let weights = f.ints(&weights);
    let y = f.binary(BinaryOp::Mul, y, weights);
    let y = f.op(
        trt_fuse_ir::op::Reduce {
            kind: ReduceKind::Sum,
            axes: Some(trt_fuse_ir::Ints::from_slice(&[rank as i64])),
            keep_dims: false,
            noop_if_empty: true,
        },
        &[y],
    );
    let y = narrowed(&mut f, y, dtype);
    Ok(f.result(y))
}

/// `-1 - x`, or the largest number less x.
fn bitwise_not(mut f: Formula<'_>) -> Result<Patch, Miss> {
    let dtype = f.info(0)?.dtype;
    let x = widened(&mut f, 0)?;
    let ones = match dtype {
        // As an i64, its bits are all ones too.
        DType::U64 => -1.0,
        dtype if dtype.is_unsigned_integer() => ((1_i64 << dtype.bits()) - 1) as f64,
        _ => -1.0,
    };
    let ones = f.number(DType::I64, ones)?;
    let y = f.binary(BinaryOp::Sub, ones, x);
    let y = narrowed(&mut f, y, dtype);
    Ok(f.result(y))
}

fn shrink(mut f: Formula<'_>, lambd: f64, bias: f64) -> Result<Patch, Miss> {
    let (x, dtype) = (f.input(0)?, f.info(0)?.dtype);
    let above = f.with_number(BinaryOp::Greater, x, dtype, lambd)?;
    let below = f.with_number(BinaryOp::Less, x, dtype, -lambd)?;
    let less = f.with_number(BinaryOp::Sub, x, dtype, bias)?;
    let more = f.with_number(BinaryOp::Add, x, dtype, bias)?;
    let zero = f.number(dtype, 0.0)?;
    let y = f.select(below, more, zero);
    let y = f.select(above, less, y);
    Ok(f.result(y))
}

fn gelu_erf(mut f: Formula<'_>) -> Result<Patch, Miss> {
    let (x, dtype) = (f.input(0)?, f.info(0)?.dtype);
    let inner = f.with_number(BinaryOp::Mul, x, dtype, std::f64::consts::FRAC_1_SQRT_2)?;
    let gate = f.unary(UnaryOp::Erf, inner);
    half_gated(f, x, gate, dtype)
}

fn gelu_tanh(mut f: Formula<'_>) -> Result<Patch, Miss> {
    let (x, dtype) = (f.input(0)?, f.info(0)?.dtype);
    let square = f.binary(BinaryOp::Mul, x, x);
    let cubic = f.with_number(BinaryOp::Mul, square, dtype, 0.044_715)?;
    let cubic = f.with_number(BinaryOp::Add, cubic, dtype, 1.0)?;
    let inner = f.binary(BinaryOp::Mul, x, cubic);
    // sqrt(2 / pi)
    let inner = f.with_number(BinaryOp::Mul, inner, dtype, (2.0 / std::f64::consts::PI).sqrt())?;
    let gate = f.op(Op::Activation(Activation::Tanh), &[inner]);
    half_gated(f, x, gate, dtype)
}

/// `x / 2 * (1 + gate)`
fn half_gated(mut f: Formula<'_>, x: ValueRef, gate: ValueRef, dtype: DType) -> Result<Patch, Miss> {
    let gate = f.with_number(BinaryOp::Add, gate, dtype, 1.0)?;
    let half = f.with_number(BinaryOp::Mul, x, dtype, 0.5)?;
    let y = f.binary(BinaryOp::Mul, half, gate);
    Ok(f.result(y))
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::eval::eval_graph;
    use trt_fuse_ir::{Element, Graph};

    use super::*;
    use crate::testing::run_rule;

    /// Outputs of the graph before and after on the same inputs, equal.
    fn check(text: &str, inputs: &[Tensor]) -> Graph {
        let run = run_rule(LowerArithmetic, text);
        assert_eq!(run.rewrites, 1, "{text}");
        assert_eq!(
            eval_graph(&run.before, inputs).unwrap(),
            eval_graph(&run.after, inputs).unwrap(),
            "{text}\n{}",
            run.after
        );
        run.after
    }

    /// The graph after the rule for another target.
    fn rewritten(before: &Graph, target: &trt_fuse_ir::Capabilities) -> Graph {
        let mut after = before.clone();
        let options = crate::Options::default();
        let mut context = crate::PassContext::new(target, &options);
        crate::Pass::run(&crate::Rules::one(LowerArithmetic), &mut after, &mut context).unwrap();
        after
    }

    fn on<T: Element>(op: &str, a: Vec<T>, b: Vec<T>) -> Graph {
        let (dtype, n) = (T::DTYPE, a.len());
        let text = format!("graph g(%a: {dtype}[{n}], %b: {dtype}[{n}]) -> (%y) {{ %y = {op}(%a, %b) }}");
        check(&text, &[Tensor::vector(a), Tensor::vector(b)])
    }

    #[test]
    fn fires_on_remainders() {
        let graph = on("fmod", vec![5_i32, -5, 5, -5], vec![3, 3, -3, -3]);
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
                let run = run_rule(LowerArithmetic, &text);
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
        let after = rewritten(&before, &old);
        assert!(!after.to_string().contains("i64"), "{after}");
        let inputs = [
            Tensor::vector(vec![5.5_f32, -5.5, 5.5, -5.0, 7.0]),
            Tensor::vector(vec![2.0, 2.0, -2.0, f32::INFINITY, f32::NEG_INFINITY]),
        ];
        assert_eq!(eval_graph(&before, &inputs).unwrap(), eval_graph(&after, &inputs).unwrap());
    }

    #[test]
    fn fires_on_powers_of_two_types() {
        let check = |base: &Tensor, exponent: &Tensor, expected: &[f64]| {
            let (n, a, b) = (base.numel(), base.dtype(), exponent.dtype());
            let text = format!("graph g(%a: {a}[{n}], %b: {b}[{n}]) -> (%y) {{ %y = pow(%a, %b) }}");
            let after = self::check(&text, &[base.clone(), exponent.clone()]);
            let found = eval_graph(&after, &[base.clone(), exponent.clone()]).unwrap();
            assert_eq!(numbers(&found[0]).unwrap(), expected, "{after}");
        };
        let base = Tensor::vector(vec![9_i32, 5, 10, -3, 7]);
        check(&base, &Tensor::vector(vec![0.5_f32, 2.0, -1.0, 3.0, 1.5]), &[3.0, 25.0, 0.0, -27.0, 18.0]);
        // Even and beyond 32 bits.
        check(&Tensor::vector(vec![-1_i32, 1, 2]), &Tensor::vector(vec![1_i64 << 40; 3]), &[1.0, 1.0, 0.0]);
        check(&Tensor::vector(vec![3_u8, 2]), &Tensor::vector(vec![6_i32, 7]), &[217.0, 128.0]);
        check(&Tensor::vector(vec![2.0_f32, 3.0]), &Tensor::vector(vec![-1_i64, 2]), &[0.5, 9.0]);
    }

    #[test]
    fn powers_of_integers_have_all_digits() {
        let exponents = [0, 1, 2, 3, 5, 20, 64, -1, -2, 100];
        let bases = [3037000499_i64, -7, 2, 1, -1, 0];
        let (all_bases, all_exponents): (Vec<i64>, Vec<i64>) =
            bases.iter().flat_map(|base| exponents.map(|exponent| (*base, exponent))).unzip();
        let narrow = |numbers: &[i64]| numbers.iter().map(|number| *number as i32).collect::<Vec<_>>();
        on("pow", narrow(&all_bases), narrow(&all_exponents));
        on("pow", vec![3_u8, 2, 16, 255, 0, 1], vec![5, 7, 3, 2, 0, 200]);
        on("pow", vec![-3_i8, -1, -1, 2], vec![5, 127, -128, -1]);
        on("pow", all_bases, all_exponents);
        for exponent in [0, 1, 2, 7] {
            let text = format!(
                "graph g(%a: i64[2]) -> (%y) {{ %b = constant() value=i64[] {{{exponent}}} %y = pow(%a, %b) }}"
            );
            let after = check(&text, &[Tensor::vector(vec![-511_i64, 3])]);
            assert!(!after.to_string().contains("pow"), "{after}");
        }
    }

    #[test]
    fn whole_exponents_keep_integers() {
        let text = "graph g(%a: i32[2]) -> (%y) { %b = constant() value=f32[] {2.0} %y = pow(%a, %b) }";
        let graph = check(text, &[Tensor::vector(vec![46_340_i32, -3])]);
        insta::assert_snapshot!(graph, @"
        graph g(%a: i32[2]) -> (%y) {
          %y = mul(%a, %a) : i32[2]
        }
        ");
    }

    #[test]
    fn fires_on_shifts() {
        for op in ["shift_left", "shift_right"] {
            on(op, vec![200_u8, 3, 255, 7, 1], vec![1, 2, 7, 8, 9]);
            on(op, vec![-100_i8, 3, -1, 7, -128], vec![1, 2, 7, 8, -1]);
            on(op, vec![u32::MAX, 3, 1 << 31, 7], vec![31, 2, 1, 32]);
            on(op, vec![i64::MIN, 3, -1, 7, 1], vec![62, 2, 63, 64, 63]);
            on(op, vec![u64::MAX, 1 << 63, 1 << 63, u64::MAX, 7, 1], vec![1, 62, 63, 0, 64, 1]);
        }
    }

    #[test]
    fn fires_on_bitwise_operators() {
        for op in ["bitwise_and", "bitwise_or", "bitwise_xor"] {
            on(op, vec![0b1100_u8, 255, 0, 129], vec![0b1010, 1, 77, 128]);
            on(op, vec![-100_i8, 3, -1, 7], vec![1, -128, 127, -7]);
            on(op, vec![i32::MIN, -3, i32::MAX], vec![-1, 5, -77]);
            on(op, vec![i64::MIN, -3, i64::MAX, 12], vec![-1, 5, -77, 10]);
        }
        let text = "graph g(%a: u8[2, 1], %b: u8[3]) -> (%y) { %y = bitwise_xor(%a, %b) }";
        let a = Tensor::vector(vec![0x0f_u8, 0xf0]).reshaped([2, 1]).unwrap();
        check(text, &[a, Tensor::vector(vec![0x55_u8, 0xaa, 0xff])]);
    }

    #[test]
    fn fires_on_bitwise_not() {
        check("graph g(%a: u8[3]) -> (%y) { %y = bitwise_not(%a) }", &[Tensor::vector(vec![0_u8, 5, 255])]);
        check("graph g(%a: u64[2]) -> (%y) { %y = bitwise_not(%a) }", &[Tensor::vector(vec![5_u64, u64::MAX])]);
        check("graph g(%a: i32[3]) -> (%y) { %y = bitwise_not(%a) }", &[Tensor::vector(vec![0, i32::MIN, 255])]);
    }

    #[test]
    fn fires_on_shrink() {
        let x = Tensor::vector(vec![-2.0_f32, -1.0, 0.5, 1.0, 3.0]);
        check("graph g(%x: f32[5]) -> (%y) { %y = shrink(%x) p=[1.0, 1.5] }", &[x]);
    }

    #[test]
    fn fires_on_gelu_where_the_target_has_none() {
        let old = trt_fuse_ir::Capabilities::tensorrt((8, 5, 3));
        for op in ["gelu", "gelu_tanh"] {
            let before: Graph = format!("graph g(%x: f32[5]) -> (%y) {{ %y = {op}(%x) }}").parse().unwrap();
            let after = rewritten(&before, &old);
            assert!(after.operation_count() > 1);
            let x = [Tensor::vector(vec![-2.0_f32, -1.0, 0.5, 1.0, 3.0])];
            let (a, b) = (eval_graph(&before, &x).unwrap(), eval_graph(&after, &x).unwrap());
            assert!(crate::testing::difference(&a[0], &b[0]) < 1e-6);
        }
    }

    #[test]
    fn leaves_what_the_target_has_alone() {
        for text in [
            "graph g(%a: i32[3], %b: i32[3]) -> (%y) { %y = mod(%a, %b) }",
            "graph g(%a: f32[3]) -> (%y) { %y = gelu(%a) }",
        ] {
            assert_eq!(run_rule(LowerArithmetic, text).rewrites, 0, "{text}");
        }
    }
}
