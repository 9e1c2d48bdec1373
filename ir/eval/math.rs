//! Elementwise operators.
//!
//! A tensor that repeats one element is computed once, so that folding what a `ConstantOfShape` fills is free.

use std::borrow::Cow;

use bytes::Bytes;
use num_traits::{AsPrimitive, PrimInt};

use super::layout::{self, Operand, by_width, in_pieces, repeated, zip_map};
use super::number::{Number, Real, for_integer, for_number, for_real, phrase, same_dtype, view};
use super::{Inputs, Tensors, activation, cast, one};
use crate::op::{BinaryOp, UnaryOp};
use crate::{DType, Dims, Op, Tensor};

pub(super) fn eval(op: &Op, inputs: Inputs<'_>) -> Result<Tensors, String> {
    match op {
        Op::Binary(op) => binary(*op, inputs.required(0)?, inputs.required(1)?),
        Op::Where => select(inputs.required(0)?, inputs.required(1)?, inputs.required(2)?),
        op => {
            let x = inputs.required(0)?;
            match repeated(x) {
                Some(element) => one(spread(&one_input(op, &element)?, x.dims())),
                None => one_input(op, x),
            }
        }
    }
}

fn one_input(op: &Op, x: &Tensor) -> Result<Tensors, String> {
    match op {
        Op::Unary(op) => one(unary(*op, x)),
        Op::Activation(op) => activation::eval(*op, x),
        Op::Cast(op) => one(cast::cast(x, op.to, op.saturate)),
        Op::BitCast(op) => one(Tensor::new(op.to, x.dims(), x.bytes().clone()).map_err(phrase)),
        op => Err(format!("{op} is not elementwise")),
    }
}

/// A tensor that repeats the one element of `outputs`.
fn spread(outputs: &Tensors, dims: &[usize]) -> Result<Tensor, String> {
    let element = outputs.first().ok_or("no output")?;
    if element.dtype().bits() < 8 {
        // Elements below a byte have no splat; their byte holds one element.
        let bits = element.bytes().first().copied().unwrap_or_default();
        let count = layout::check_size(dims, 1)?;
        return cast::packed(element.dtype(), dims, std::iter::repeat_n(bits, count));
    }
    Tensor::splat(element.dtype(), dims, Bytes::copy_from_slice(element.bytes())).map_err(phrase)
}

fn unary(op: UnaryOp, x: &Tensor) -> Result<Tensor, String> {
    match op {
        UnaryOp::Identity => Ok(x.clone()),
        UnaryOp::Not => {
            let elements = view::<bool>(x)?;
            Tensor::from_vec(x.dims(), elements.iter().map(|x| !x).collect()).map_err(phrase)
        }
        UnaryOp::BitwiseNot => for_integer!(x.dtype(), T => {
            T::store(x.dtype(), x.dims(), T::load(x)?.iter().map(|x| !x).collect())
        }),
        UnaryOp::IsNan | UnaryOp::IsInf | UnaryOp::IsPosInf | UnaryOp::IsNegInf => predicate(op, x),
        UnaryOp::Abs => for_number!(x.dtype(), T => map::<T>(x, absolute)),
        UnaryOp::Neg if x.dtype().is_signed_integer() => {
            for_integer!(x.dtype(), T => map::<T>(x, |x| T::ZERO.minus(x)))
        }
        UnaryOp::Sign => for_number!(x.dtype(), T => map::<T>(x, sign)),
        // Rounding an integer changes nothing.
        UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round if x.dtype().is_integer() => Ok(x.clone()),
        op => for_real!(x.dtype(), T => real::<T>(op, x)),
    }
}

/// The least integer has no absolute value; it wraps.
fn absolute<T: Number>(x: T) -> T {
    // A sum of zeros is the positive one.
    if x < T::ZERO { T::ZERO.minus(x) } else { x.plus(T::ZERO) }
}

fn sign<T: Number>(x: T) -> T {
    if x > T::ZERO {
        T::ONE
    } else if x < T::ZERO {
        T::ZERO.minus(T::ONE)
    } else {
        // 0 or NaN.
        x
    }
}

fn map<T: Number>(x: &Tensor, f: impl Fn(T) -> T + Sync + Send) -> Result<Tensor, String> {
    let mut elements = T::load(x)?.into_owned();
    in_pieces(&mut elements, &|_, piece| piece.iter_mut().for_each(|x| *x = f(*x)));
    T::store(x.dtype(), x.dims(), elements)
}

fn predicate(op: UnaryOp, x: &Tensor) -> Result<Tensor, String> {
    let holds = |x: f64| match op {
        UnaryOp::IsNan => x.is_nan(),
        UnaryOp::IsInf => x.is_infinite(),
        UnaryOp::IsPosInf => x == f64::INFINITY,
        _ => x == f64::NEG_INFINITY,
    };
    let elements: Vec<bool> = match x.dtype() {
        DType::F64 => f64::load(x)?.iter().map(|x| holds(*x)).collect(),
        DType::F32 | DType::F16 | DType::BF16 => f32::load(x)?.iter().map(|x| holds(f64::from(*x))).collect(),
        _ => cast::narrow_floats(x)?.iter().map(|x| holds(f64::from(*x))).collect(),
    };
    Tensor::from_vec(x.dims(), elements).map_err(phrase)
}

fn real<T: Real>(op: UnaryOp, x: &Tensor) -> Result<Tensor, String> {
    match op {
        UnaryOp::Neg => map::<T>(x, |x| -x),
        UnaryOp::Exp => map::<T>(x, |x| x.exp()),
        UnaryOp::Log => map::<T>(x, |x| x.ln()),
        UnaryOp::Sqrt => map::<T>(x, |x| x.sqrt()),
        UnaryOp::Reciprocal => map::<T>(x, |x| T::ONE / x),
        UnaryOp::Floor => map::<T>(x, |x| x.floor()),
        UnaryOp::Ceil => map::<T>(x, |x| x.ceil()),
        UnaryOp::Round => map::<T>(x, |x| x.round_even()),
        UnaryOp::Erf => map::<T>(x, |x| x.erf()),
        UnaryOp::Sin => map::<T>(x, |x| x.sin()),
        UnaryOp::Cos => map::<T>(x, |x| x.cos()),
        UnaryOp::Tan => map::<T>(x, |x| x.tan()),
        UnaryOp::Asin => map::<T>(x, |x| x.asin()),
        UnaryOp::Acos => map::<T>(x, |x| x.acos()),
        UnaryOp::Atan => map::<T>(x, |x| x.atan()),
        UnaryOp::Sinh => map::<T>(x, |x| x.sinh()),
        UnaryOp::Cosh => map::<T>(x, |x| x.cosh()),
        UnaryOp::Asinh => map::<T>(x, |x| x.asinh()),
        UnaryOp::Acosh => map::<T>(x, |x| x.acosh()),
        UnaryOp::Atanh => map::<T>(x, |x| x.atanh()),
        op => Err(format!("{} of {}", op.word(), x.dtype())),
    }
}

fn binary(op: BinaryOp, a: &Tensor, b: &Tensor) -> Result<Tensors, String> {
    let dims = layout::broadcast(a.dims(), b.dims())?;
    if op == BinaryOp::PRelu && dims.as_slice() != a.dims() {
        return Err(format!("the slope {:?} does not broadcast to {:?}", b.dims(), a.dims()));
    }
    let (one_a, one_b) = (repeated(a), repeated(b));
    let single = |x: &Tensor| (x.numel() == 1).then(|| x.clone());
    if let (true, Some(a), Some(b)) =
        (one_a.is_some() || one_b.is_some(), one_a.clone().or_else(|| single(a)), one_b.clone().or_else(|| single(b)))
    {
        return one(spread(&one(compute(op, &a, &b, &Dims::from_elem(1, dims.len())))?, &dims));
    }
    one(compute(op, one_a.as_ref().unwrap_or(a), one_b.as_ref().unwrap_or(b), &dims))
}

fn compute(op: BinaryOp, a: &Tensor, b: &Tensor, dims: &[usize]) -> Result<Tensor, String> {
    match op {
        BinaryOp::Pow => pow(a, b, dims),
        BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => logical(op, a, b, dims),
        BinaryOp::Equal if same_dtype(a, b)? == DType::Bool => logical(op, a, b, dims),
        op if op.is_comparison() => for_number!(same_dtype(a, b)?, T => compare::<T>(op, a, b, dims)),
        BinaryOp::BitwiseAnd
        | BinaryOp::BitwiseOr
        | BinaryOp::BitwiseXor
        | BinaryOp::ShiftLeft
        | BinaryOp::ShiftRight => for_integer!(same_dtype(a, b)?, T => bitwise::<T>(op, a, b, dims)),
        BinaryOp::Div | BinaryOp::Mod | BinaryOp::FMod if a.dtype().is_integer() => {
            for_integer!(same_dtype(a, b)?, T => divide::<T>(op, a, b, dims))
        }
        BinaryOp::Div => for_real!(same_dtype(a, b)?, T => zip::<T>(a, b, dims, |a, b| a / b)),
        BinaryOp::FMod => for_real!(same_dtype(a, b)?, T => zip::<T>(a, b, dims, |a, b| a % b)),
        BinaryOp::Mod => for_real!(same_dtype(a, b)?, T => zip::<T>(a, b, dims, floored_remainder)),
        op => for_number!(same_dtype(a, b)?, T => arithmetic::<T>(op, a, b, dims)),
    }
}

fn operand<T: Number>(x: &Tensor) -> Result<Operand<'_, T>, String> {
    Operand::new(T::load(x)?, x.dims())
}

fn zip<T: Number>(
    a: &Tensor,
    b: &Tensor,
    dims: &[usize],
    f: impl Fn(T, T) -> T + Sync + Send,
) -> Result<Tensor, String> {
    T::store(a.dtype(), dims, zip_map(&operand(a)?, &operand(b)?, dims, f)?)
}

fn arithmetic<T: Number>(op: BinaryOp, a: &Tensor, b: &Tensor, dims: &[usize]) -> Result<Tensor, String> {
    match op {
        BinaryOp::Add => zip::<T>(a, b, dims, T::plus),
        BinaryOp::Sub => zip::<T>(a, b, dims, T::minus),
        BinaryOp::Mul => zip::<T>(a, b, dims, T::times),
        BinaryOp::Min => zip::<T>(a, b, dims, T::smaller),
        BinaryOp::Max => zip::<T>(a, b, dims, T::larger),
        BinaryOp::PRelu => zip::<T>(a, b, dims, |x, slope| if x < T::ZERO { x.times(slope) } else { x }),
        op => Err(format!("{} of {}", op.word(), a.dtype())),
    }
}

fn compare<T: Number>(op: BinaryOp, a: &Tensor, b: &Tensor, dims: &[usize]) -> Result<Tensor, String> {
    let (a, b) = (operand::<T>(a)?, operand::<T>(b)?);
    let elements = match op {
        BinaryOp::Equal => zip_map(&a, &b, dims, |a, b| a == b),
        BinaryOp::Greater => zip_map(&a, &b, dims, |a, b| a > b),
        BinaryOp::GreaterOrEqual => zip_map(&a, &b, dims, |a, b| a >= b),
        BinaryOp::Less => zip_map(&a, &b, dims, |a, b| a < b),
        _ => zip_map(&a, &b, dims, |a, b| a <= b),
    };
    Tensor::from_vec(dims, elements?).map_err(phrase)
}

fn logical(op: BinaryOp, a: &Tensor, b: &Tensor, dims: &[usize]) -> Result<Tensor, String> {
    let operand = |x| view::<bool>(x).and_then(|elements| Operand::new(elements, x.dims()));
    let (a, b) = (operand(a)?, operand(b)?);
    let elements = match op {
        BinaryOp::And => zip_map(&a, &b, dims, |a, b| a & b),
        BinaryOp::Or => zip_map(&a, &b, dims, |a, b| a | b),
        BinaryOp::Xor => zip_map(&a, &b, dims, |a, b| a ^ b),
        _ => zip_map(&a, &b, dims, |a, b| a == b),
    };
    Tensor::from_vec(dims, elements?).map_err(phrase)
}

fn bitwise<T: Number + PrimInt>(op: BinaryOp, a: &Tensor, b: &Tensor, dims: &[usize]) -> Result<Tensor, String> {
    // A shift by the type's width or more leaves nothing but the sign; so does a negative one, which ONNX leaves open.
    let bits = T::ONE.count_zeros() + 1;
    let amount = |b: T| b.to_u32().filter(|amount| *amount < bits);
    match op {
        BinaryOp::BitwiseAnd => zip::<T>(a, b, dims, |a, b| a & b),
        BinaryOp::BitwiseOr => zip::<T>(a, b, dims, |a, b| a | b),
        BinaryOp::BitwiseXor => zip::<T>(a, b, dims, |a, b| a ^ b),
        BinaryOp::ShiftLeft => zip::<T>(a, b, dims, |a, b| amount(b).map_or(T::ZERO, |by| a << by as usize)),
        _ => {
            zip::<T>(a, b, dims, |a, b| a >> amount(b).unwrap_or(bits - 1) as usize >> usize::from(amount(b).is_none()))
        }
    }
}

fn divide<T: Number + PrimInt>(op: BinaryOp, a: &Tensor, b: &Tensor, dims: &[usize]) -> Result<Tensor, String> {
    if T::load(b)?.contains(&T::ZERO) {
        return Err("an integer is divided by 0".to_string());
    }
    // Of the least integer by -1 there is no quotient; it wraps, and the remainder is 0.
    let remainder = |a: T, b: T| a.minus(a.over(b).times(b));
    match op {
        BinaryOp::Div => zip::<T>(a, b, dims, T::over),
        BinaryOp::FMod => zip::<T>(a, b, dims, remainder),
        _ => zip::<T>(a, b, dims, |a, b| {
            let rest = remainder(a, b);
            if rest != T::ZERO && (rest < T::ZERO) != (b < T::ZERO) { rest.plus(b) } else { rest }
        }),
    }
}

fn floored_remainder<T: Real>(a: T, b: T) -> T {
    let rest = a % b;
    if rest != T::ZERO && (rest < T::ZERO) != (b < T::ZERO) { rest + b } else { rest }
}

/// The base's dtype stays; the exponent may have another.
fn pow(a: &Tensor, b: &Tensor, dims: &[usize]) -> Result<Tensor, String> {
    if a.dtype().is_integer() && b.dtype().is_integer() {
        let exponents: Cow<'_, [i64]> = match b.dtype() {
            DType::U64 => u64::load(b)?.iter().map(|b| i64::try_from(*b).unwrap_or(i64::MAX)).collect(),
            _ => cast::integers(b)?,
        };
        let exponents = Operand::new(exponents, b.dims())?;
        return for_integer!(a.dtype(), T => {
            T::store(a.dtype(), dims, zip_map(&operand::<T>(a)?, &exponents, dims, integer_power)?)
        });
    }
    if a.dtype() == b.dtype() && a.dtype() != DType::F64 {
        return zip::<f32>(a, b, dims, real_power);
    }
    // Of mixed types the widest: exact for what ONNX's types hold, and rounded once.
    let exponents = cast::cast(b, DType::F64, true)?;
    let exponents = operand::<f64>(&exponents)?;
    for_number!(a.dtype(), T => {
        let power = |a: T, b: f64| T::from_f64(real_power(AsPrimitive::<f64>::as_(a), b));
        T::store(a.dtype(), dims, zip_map(&operand::<T>(a)?, &exponents, dims, power)?)
    })
}

fn real_power<T: Real>(a: T, b: T) -> T {
    if b == T::ONE + T::ONE { a * a } else { a.powf(b) }
}

/// Wraps. A negative exponent gives the truncated quotient: 0 but for bases of 1 and -1.
fn integer_power<T: Number>(base: T, exponent: i64) -> T {
    let minus_one = T::ZERO.minus(T::ONE);
    if exponent < 0 && base != T::ONE && (base != minus_one || minus_one > T::ZERO) {
        return T::ZERO;
    }
    let (mut power, mut square, mut left) = (T::ONE, base, exponent.unsigned_abs());
    while left > 0 {
        if left & 1 == 1 {
            power = power.times(square);
        }
        square = square.times(square);
        left >>= 1;
    }
    power
}

fn select(condition: &Tensor, b: &Tensor, c: &Tensor) -> Result<Tensors, String> {
    let dtype = same_dtype(b, c)?;
    let dims = layout::broadcast(condition.dims(), &layout::broadcast(b.dims(), c.dims())?)?;
    let (one_b, one_c) = (repeated(b), repeated(c));
    let (b, c) = (one_b.as_ref().unwrap_or(b), one_c.as_ref().unwrap_or(c));
    let holds = view::<bool>(condition)?;
    let holds = Operand::new(holds, condition.dims())?;
    by_width!(dtype, N => {
        let b = Operand::new(layout::units::<N>(b)?, b.dims())?;
        let c = Operand::new(layout::units::<N>(c)?, c.dims())?;
        one(layout::from_units(dtype, &dims, layout::select(&holds, &b, &c, &dims)?))
    })
}
