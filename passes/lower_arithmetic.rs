//! Writes elementwise operators that the target has no layer for in those that it has.
//!
//! ```text
//! %y = shrink(%x) p=[1.0, 1.5] : f32[n]
//! ```
//! becomes
//! ```text
//! %1 = where(less(%x, -1.0), add(%x, 1.5), 0.0) : f32[n]
//! %y = where(greater(%x, 1.0), sub(%x, 1.5), %1) : f32[n]
//! ```
//!
//! Fires on shifts (products with and quotients by powers of 2 from a table, in i64), on bitwise operators (arithmetic on
//! the bits along a new last axis, in i64), on `shrink`, and, where the target has no layer of theirs, on the questions for
//! NaN and infinities and on the forms of GELU, those of epilogues too.
//!
//! Refuses nothing.
//!
//! Order: before the types are legalised, as widths are those of the model.
//!
//! Numerics: integers bit-exact; GELU 1e-6 in f32.

use trt_fuse_ir::op::{Activation, BinaryOp, Gather, ReduceKind, UnaryOp};
use trt_fuse_ir::{DType, Epilogue, Graph, NodeId, Op, OpKind, Patch, Step, Tensor, ValueRef};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerArithmetic;

impl Rule for LowerArithmetic {
    fn name(&self) -> &'static str {
        "lower_arithmetic"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Unary, OpKind::Binary, OpKind::Activation, OpKind::Conv, OpKind::ConvTranspose, OpKind::MatMul]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let f = Formula::new(self.name(), graph, root);
        match graph.op(root) {
            Some(Op::Unary(UnaryOp::BitwiseNot)) => bitwise_not(f),
            Some(Op::Unary(op)) if !context.capabilities.float_tests => float_test(f, *op),
            Some(Op::Binary(op)) => match op {
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
            Some(op) if op.epilogue().is_some() && !context.capabilities.gelu => without_gelu(f, op),
            _ => Err(Miss::NoMatch),
        }
    }
}

/// Whether numbers are NaN or infinite, by comparisons.
fn float_test(mut f: Formula<'_>, op: UnaryOp) -> Result<Patch, Miss> {
    let (x, dtype) = (f.input(0)?, f.info(0)?.dtype);
    let y = match op {
        UnaryOp::IsNan => {
            let is_number = f.binary(BinaryOp::Equal, x, x);
            f.unary(UnaryOp::Not, is_number)
        }
        UnaryOp::IsInf => {
            let size = f.unary(UnaryOp::Abs, x);
            f.with_number(BinaryOp::Greater, size, dtype, largest(dtype)?)?
        }
        UnaryOp::IsPosInf => f.with_number(BinaryOp::Greater, x, dtype, largest(dtype)?)?,
        UnaryOp::IsNegInf => f.with_number(BinaryOp::Less, x, dtype, -largest(dtype)?)?,
        _ => return Err(Miss::NoMatch),
    };
    Ok(f.result(y))
}

/// The largest number of a float type: TensorRT 8.5 compares with it rightly, but not with an infinity. f64 is computed in f32,
/// which does not hold its own.
fn largest(dtype: DType) -> Result<f64, Miss> {
    dtype.normal_range().filter(|_| dtype != DType::F64).map(|(_, largest)| largest).ok_or(Miss::NoMatch)
}

/// The steps of an epilogue from a GELU on as operators of their own.
fn without_gelu(mut f: Formula<'_>, op: &Op) -> Result<Patch, Miss> {
    let (Some(epilogue), Some(own)) = (op.epilogue(), op.own_inputs()) else { return Err(Miss::NoMatch) };
    let is_gelu = |step: &Step| matches!(step, Step::Activation(Activation::GeluErf | Activation::GeluTanh));
    let at = epilogue.0.iter().position(is_gelu).ok_or(Miss::NoMatch)?;
    let (kept, rest) = epilogue.0.split_at(at);
    let kept = Epilogue(kept.into());
    let inputs = f.graph().node_inputs(f.root());
    let (inputs, mut added) = inputs.split_at_checked(own + kept.adds()).ok_or(Miss::NoMatch)?;
    let head = op.with_epilogue(kept).ok_or(Miss::NoMatch)?;
    let mut y = *f.many(head, inputs, 1).first().ok_or(Miss::NoMatch)?;
    for step in rest {
        y = match step {
            Step::Activation(activation) => f.op(Op::Activation(*activation), &[y]),
            Step::Add => {
                let (first, others) = added.split_first().ok_or(Miss::NoMatch)?;
                added = others;
                f.binary(BinaryOp::Add, y, first.ok_or(Miss::NoMatch)?)
            }
        };
    }
    Ok(f.result(y))
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
    use trt_fuse_ir::{Capabilities, Element, Graph};

    use super::*;
    use crate::testing::{run_elementwise, run_for, run_rule, run_rule_on};

    fn check(text: &str, inputs: &[Tensor]) {
        run_rule_on(LowerArithmetic, text, inputs);
    }

    fn on<T: Element>(op: &str, a: Vec<T>, b: Vec<T>) {
        run_elementwise(LowerArithmetic, op, a, b);
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
    fn fires_on_questions_that_the_target_cannot_ask() {
        let old = Capabilities::tensorrt((8, 5, 3));
        for dtype in [DType::F32, DType::F16] {
            for question in ["is_nan", "is_inf", "is_pos_inf", "is_neg_inf"] {
                let text = format!("graph g(%x: {dtype}[6]) -> (%y) {{ %y = {question}(%x) }}");
                let before: Graph = text.parse().unwrap();
                let after = run_for(LowerArithmetic, &before, &old);
                let is_asked = |id: &NodeId| matches!(after.op(*id), Some(Op::Unary(op)) if op.word() == question);
                assert!(!after.live().iter().any(is_asked), "{after}");
                let numbers = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -1.5, 65504.0];
                let x = trt_fuse_ir::eval::convert(&Tensor::vector(numbers), dtype).unwrap();
                let inputs = std::slice::from_ref(&x);
                assert_eq!(eval_graph(&before, inputs).unwrap(), eval_graph(&after, inputs).unwrap(), "{after}");
                assert_eq!(run_for(LowerArithmetic, &before, &Capabilities::default()).to_string(), before.to_string());
            }
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
            let after = run_for(LowerArithmetic, &before, &old);
            assert!(after.operation_count() > 1);
            let x = [Tensor::vector(vec![-2.0_f32, -1.0, 0.5, 1.0, 3.0])];
            let (a, b) = (eval_graph(&before, &x).unwrap(), eval_graph(&after, &x).unwrap());
            assert!(crate::testing::difference(&a[0], &b[0]) < 1e-6);
        }
    }

    #[test]
    fn takes_gelu_out_of_epilogues() {
        let old = trt_fuse_ir::Capabilities::tensorrt((8, 5, 3));
        let text = "graph g(%x: f32[2, 2], %w: f32[2, 2], %b: f32[2], %r: f32[2, 2]) -> (%y) {
            %y = matmul(%x, %w, %b, %r) transpose_a=false transpose_b=false epilogue=[add, gelu, add, relu] }";
        let before: Graph = text.parse().unwrap();
        let after = run_for(LowerArithmetic, &before, &old);
        insta::assert_snapshot!(after, @"
        graph g(%x: f32[2, 2], %w: f32[2, 2], %b: f32[2], %r: f32[2, 2]) -> (%y) {
          %y.1 = matmul(%x, %w, %b) epilogue=[add] : f32[2, 2]
          %y.2.lower_arithmetic.2 = constant() value=f32[] {0.5}
          %y.2.4 = mul(%y.1, %y.2.lower_arithmetic.2) : f32[2, 2]
          %y.2.lower_arithmetic = constant() value=f32[] {0.70710677}
          %y.2.1 = mul(%y.1, %y.2.lower_arithmetic) : f32[2, 2]
          %y.2.2 = erf(%y.2.1) : f32[2, 2]
          %y.2.lower_arithmetic.1 = constant() value=f32[] {1.0}
          %y.2.3 = add(%y.2.2, %y.2.lower_arithmetic.1) : f32[2, 2]
          %y.2 = mul(%y.2.4, %y.2.3) : f32[2, 2]
          %y.3 = add(%y.2, %r) : f32[2, 2]
          %y = relu(%y.3) : f32[2, 2]
        }
        ");
        let x = crate::testing::random_inputs(&before, 1, 1);
        let (a, b) = (eval_graph(&before, &x).unwrap(), eval_graph(&after, &x).unwrap());
        assert!(crate::testing::difference(&a[0], &b[0]) < 1e-6);
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
