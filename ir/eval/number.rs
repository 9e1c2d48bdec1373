//! Numbers as the evaluator computes with them, and how they are read from tensors and written back.
//!
//! There are four such types, so that the evaluator is compiled four times and not twelve: f64; f32, which also stands
//! for f16 and bf16 (rounded when written); u64; and i64, which stands for the narrower integers (the high bits are
//! dropped when written, so that sums, differences and products wrap as they would in the narrow type).

use std::borrow::Cow;
use std::fmt::Display;

use bytemuck::Zeroable;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use num_traits::AsPrimitive;

use super::cast::integers;
use super::{activation, layout};
use crate::op::Activation;
use crate::{DType, Element, Tensor};

/// The phrase of an error.
pub(super) fn phrase(error: impl Display) -> String {
    error.to_string()
}

/// A type that arithmetic is done in.
pub(super) trait Number: Element + Zeroable + PartialOrd + AsPrimitive<f64> {
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;

    /// The least and the largest value of a dtype that this type stands for.
    fn limits(dtype: DType) -> (Self, Self);
    /// The elements, converted from a narrower type where this type stands for one.
    fn load(tensor: &Tensor) -> Result<Cow<'_, [Self]>, String>;
    /// A tensor of elements, converted to `dtype` where this type stands for it.
    fn store(dtype: DType, dims: &[usize], elements: Vec<Self>) -> Result<Tensor, String>;
    /// The number, rounded towards zero and saturated where this is an integer.
    fn from_f64(value: f64) -> Self;
    /// Sum; integers wrap.
    fn plus(self, other: Self) -> Self;
    /// Difference; integers wrap.
    fn minus(self, other: Self) -> Self;
    /// Product; integers wrap.
    fn times(self, other: Self) -> Self;
    /// Quotient; of integers, rounded towards zero, and 0 for a divisor of 0.
    fn over(self, other: Self) -> Self;
    /// Whether this is a NaN.
    fn unordered(self) -> bool;
    /// Applies an activation in place; integers know Relu and Clip.
    fn activate(activation: Activation, elements: &mut [Self]) -> Result<(), String>;

    /// The smaller; NaN if either is.
    fn smaller(self, other: Self) -> Self {
        if self.unordered() || self < other { self } else { other }
    }

    /// The larger; NaN if either is.
    fn larger(self, other: Self) -> Self {
        if self.unordered() || self > other { self } else { other }
    }
}

/// A floating-point type that arithmetic is done in.
pub(super) trait Real: Number + num_traits::Float + ndarray::LinalgScalar + AsPrimitive<f64> {
    /// Error function.
    fn erf(self) -> Self;
    /// Rounds, halves to even.
    fn round_even(self) -> Self;
    /// The nearest of this type.
    fn real(value: f64) -> Self;
}

/// The elements in their own type.
pub(super) fn view<T: Element>(tensor: &Tensor) -> Result<Cow<'_, [T]>, String> {
    if let (true, Some(element)) = (tensor.dtype() == T::DTYPE, tensor.splat_element()) {
        let element = T::read(element).first().copied().unwrap_or_default();
        return layout::filled(tensor.dims(), element).map(Cow::Owned);
    }
    tensor.view().map_err(phrase)
}

fn make<T: Element>(dtype: DType, dims: &[usize], elements: Vec<T>) -> Result<Tensor, String> {
    if dtype != T::DTYPE {
        return Err(format!("{} computed where {dtype} was expected", T::DTYPE));
    }
    Tensor::from_vec(dims, elements).map_err(phrase)
}

macro_rules! integers {
    ($($rust:ident, $load:path, $store:path;)*) => {$(
        impl Number for $rust {
            const ZERO: Self = 0;
            const ONE: Self = 1;

            fn limits(dtype: DType) -> (Self, Self) {
                let bits = (dtype.bits() as u32).clamp(1, 64);
                let unused = 64 - bits;
                if dtype.is_unsigned_integer() {
                    (0, (u64::MAX >> unused) as $rust)
                } else {
                    ($rust::MIN >> unused, $rust::MAX >> unused)
                }
            }
            fn load(tensor: &Tensor) -> Result<Cow<'_, [Self]>, String> {
                $load(tensor)
            }
            fn store(dtype: DType, dims: &[usize], elements: Vec<Self>) -> Result<Tensor, String> {
                $store(dtype, dims, elements)
            }
            fn from_f64(value: f64) -> Self {
                value as $rust
            }
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            fn times(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            fn over(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_div(other) }
            }
            fn unordered(self) -> bool {
                false
            }
            fn activate(activation: Activation, elements: &mut [Self]) -> Result<(), String> {
                let (low, high) = match activation {
                    Activation::Relu => (0, $rust::MAX),
                    Activation::Clip(low, high) => (low.0 as $rust, high.0 as $rust),
                    activation => return Err(format!("{} of integers", activation.parts().0)),
                };
                elements.iter_mut().for_each(|x| *x = (*x).max(low).min(high));
                Ok(())
            }
        }
    )*};
}

integers! {
    i64, integers, store_i64;
    u64, view, make;
}

macro_rules! reals {
    ($($rust:ident, $erf:path, $load:path, $store:path;)*) => {$(
        impl Number for $rust {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;

            fn limits(_: DType) -> (Self, Self) {
                ($rust::NEG_INFINITY, $rust::INFINITY)
            }
            fn load(tensor: &Tensor) -> Result<Cow<'_, [Self]>, String> {
                $load(tensor)
            }
            fn store(dtype: DType, dims: &[usize], elements: Vec<Self>) -> Result<Tensor, String> {
                $store(dtype, dims, elements)
            }
            fn from_f64(value: f64) -> Self {
                value as $rust
            }
            fn plus(self, other: Self) -> Self {
                self + other
            }
            fn minus(self, other: Self) -> Self {
                self - other
            }
            fn times(self, other: Self) -> Self {
                self * other
            }
            fn over(self, other: Self) -> Self {
                self / other
            }
            fn unordered(self) -> bool {
                self.is_nan()
            }
            fn activate(activation: Activation, elements: &mut [Self]) -> Result<(), String> {
                activation::apply(activation, elements)
            }
        }

        impl Real for $rust {
            fn erf(self) -> Self {
                $erf(self)
            }
            fn round_even(self) -> Self {
                self.round_ties_even()
            }
            fn real(value: f64) -> Self {
                value as $rust
            }
        }
    )*};
}

reals! {
    f32, libm::erff, load_f32, store_f32;
    f64, libm::erf, view, make;
}

fn load_f32(tensor: &Tensor) -> Result<Cow<'_, [f32]>, String> {
    match tensor.dtype() {
        DType::F16 => Ok(Cow::Owned(view::<f16>(tensor)?.to_f32_vec())),
        DType::BF16 => Ok(Cow::Owned(view::<bf16>(tensor)?.to_f32_vec())),
        _ => view(tensor),
    }
}

fn store_f32(dtype: DType, dims: &[usize], elements: Vec<f32>) -> Result<Tensor, String> {
    match dtype {
        DType::F16 => make(dtype, dims, round_all::<f16>(&elements)),
        DType::BF16 => make(dtype, dims, round_all::<bf16>(&elements)),
        _ => make(dtype, dims, elements),
    }
}

/// The low bits of each element.
fn store_i64(dtype: DType, dims: &[usize], elements: Vec<i64>) -> Result<Tensor, String> {
    fn narrowed<T: Element>(dims: &[usize], elements: &[i64]) -> Result<Tensor, String>
    where
        i64: AsPrimitive<T>,
    {
        make(T::DTYPE, dims, elements.iter().map(|x| x.as_()).collect())
    }
    match dtype {
        DType::I32 => narrowed::<i32>(dims, &elements),
        DType::I16 => narrowed::<i16>(dims, &elements),
        DType::I8 => narrowed::<i8>(dims, &elements),
        DType::U32 => narrowed::<u32>(dims, &elements),
        DType::U16 => narrowed::<u16>(dims, &elements),
        DType::U8 => narrowed::<u8>(dims, &elements),
        dtype => make(dtype, dims, elements),
    }
}

fn round_all<H: Copy + Default>(elements: &[f32]) -> Vec<H>
where
    [H]: HalfFloatSliceExt,
{
    let mut rounded = vec![H::default(); elements.len()];
    rounded.convert_from_f32_slice(elements);
    rounded
}

/// Elements of any float tensor of 16 bits or more as `T`.
pub(super) fn load_real<T: Real>(tensor: &Tensor) -> Result<Cow<'_, [T]>, String> {
    match (tensor.dtype(), T::DTYPE) {
        (DType::F64, DType::F32) => Ok(Cow::Owned(view::<f64>(tensor)?.iter().map(|x| T::real(*x)).collect())),
        (DType::F32 | DType::F16 | DType::BF16, DType::F64) => {
            Ok(Cow::Owned(load_f32(tensor)?.iter().map(|x| T::real(f64::from(*x))).collect()))
        }
        _ => T::load(tensor),
    }
}

/// Elements that are data but steer the operator (axes, sizes, indices), as i64.
pub(super) fn load_ints(tensor: &Tensor, what: &str) -> Result<Vec<i64>, String> {
    layout::check_size(tensor.dims(), size_of::<i64>())?;
    tensor.to_i64s().ok_or_else(|| format!("{what} cannot be {tensor:?}"))
}

/// The one element of an integer tensor.
pub(super) fn load_int(tensor: &Tensor, what: &str) -> Result<i64, String> {
    if tensor.numel() != 1 {
        return Err(format!("{what} has {} elements, not one", tensor.numel()));
    }
    load_ints(tensor, what)?.first().copied().ok_or_else(|| format!("{what} is empty"))
}

/// Refuses inputs of different dtypes.
pub(super) fn same_dtype(a: &Tensor, b: &Tensor) -> Result<DType, String> {
    if a.dtype() == b.dtype() { Ok(a.dtype()) } else { Err(format!("inputs are {} and {}", a.dtype(), b.dtype())) }
}

/// Runs a block with `$T` the type that `$dtype` is computed in, if that is a float type.
macro_rules! for_real {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 | $crate::DType::F16 | $crate::DType::BF16 => {
                type $T = f32;
                $body
            }
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            dtype => Err(format!("not defined for {dtype}")),
        }
    };
}

/// Runs a block with `$T` the type that `$dtype` is computed in, if that is an integer type.
macro_rules! for_integer {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::U64 => {
                type $T = u64;
                $body
            }
            dtype if dtype.is_integer() && dtype.bits() >= 8 => {
                type $T = i64;
                $body
            }
            dtype => Err(format!("not defined for {dtype}")),
        }
    };
}

/// Runs a block with `$T` the type that `$dtype` is computed in.
macro_rules! for_number {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            dtype if dtype.is_integer() => $crate::eval::number::for_integer!(dtype, $T => $body),
            dtype => $crate::eval::number::for_real!(dtype, $T => $body),
        }
    };
}

pub(super) use {for_integer, for_number, for_real};
