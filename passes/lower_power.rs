//! Writes powers in the types and operators in which targets compute them rightly.
//!
//! ```text
//! %y = pow(%a, 5) : i32[n]
//! ```
//! becomes
//! ```text
//! %1 = mul(%a, %a) : i32[n]
//! %2 = mul(%1, %1) : i32[n]
//! %y = mul(%a, %2) : i32[n]
//! ```
//!
//! Fires on powers of integers, which TensorRT computes in f32, and on those whose exponent has another type than their
//! base. An exponent that is not one constant is taken apart into its bits, each of which is a factor or none.
//!
//! Refuses nothing.
//!
//! Order: before the types are legalised, as widths are those of the model.
//!
//! Numerics: integers bit-exact where the power has a place in their type. A power of an integer by a float has f32's
//! precision; what is whole within it is whole.

use trt_fuse_ir::op::{BinaryOp, UnaryOp};
use trt_fuse_ir::{DType, Graph, NodeId, Op, OpKind, Patch, Tensor, ValueRef};

use crate::formula::Formula;
use crate::lower_types::holds;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerPower;

impl Rule for LowerPower {
    fn name(&self) -> &'static str {
        "lower_power"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let f = Formula::new(self.name(), graph, root);
        let (base, exponent) = (f.info(0)?.dtype, f.info(1).map_or(DType::Unknown, |info| info.dtype));
        match graph.op(root) {
            Some(Op::Binary(BinaryOp::Pow)) if base.is_integer() || base != exponent => power(f),
            _ => Err(Miss::NoMatch),
        }
    }
}

/// A power in one type that holds both operands. Of an integer by a float that is not known to be whole, it is computed in
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

#[cfg(test)]
mod tests {
    use trt_fuse_ir::eval::eval_graph;

    use super::*;
    use crate::testing::{run_elementwise, run_rule, run_rule_on};

    #[test]
    fn fires_on_powers_of_two_types() {
        let check = |base: &Tensor, exponent: &Tensor, expected: &[f64]| {
            let (n, a, b) = (base.numel(), base.dtype(), exponent.dtype());
            let text = format!("graph g(%a: {a}[{n}], %b: {b}[{n}]) -> (%y) {{ %y = pow(%a, %b) }}");
            let after = run_rule_on(LowerPower, &text, &[base.clone(), exponent.clone()]).after;
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
        run_elementwise(LowerPower, "pow", narrow(&all_bases), narrow(&all_exponents));
        run_elementwise(LowerPower, "pow", vec![3_u8, 2, 16, 255, 0, 1], vec![5, 7, 3, 2, 0, 200]);
        run_elementwise(LowerPower, "pow", vec![-3_i8, -1, -1, 2], vec![5, 127, -128, -1]);
        run_elementwise(LowerPower, "pow", all_bases, all_exponents);
        for exponent in [0, 1, 2, 7] {
            let text = format!(
                "graph g(%a: i64[2]) -> (%y) {{ %b = constant() value=i64[] {{{exponent}}} %y = pow(%a, %b) }}"
            );
            let after = run_rule_on(LowerPower, &text, &[Tensor::vector(vec![-511_i64, 3])]).after;
            assert!(!after.to_string().contains("pow("), "{after}");
        }
    }

    #[test]
    fn whole_exponents_keep_integers() {
        let text = "graph g(%a: i32[2]) -> (%y) { %b = constant() value=f32[] {2.0} %y = pow(%a, %b) }";
        let graph = run_rule_on(LowerPower, text, &[Tensor::vector(vec![46_340_i32, -3])]).after;
        insta::assert_snapshot!(graph, @"
        graph g(%a: i32[2]) -> (%y) {
          %y = mul(%a, %a) : i32[2]
        }
        ");
    }

    #[test]
    fn leaves_powers_of_floats_alone() {
        let text = "graph g(%a: f32[3], %b: f32[3]) -> (%y) { %y = pow(%a, %b) }";
        assert_eq!(run_rule(LowerPower, text).rewrites, 0);
    }
}
