//! Conversions between dtypes.
//!
//! Every source is first read as f32, f64, i64 or u64, whichever holds it exactly; one conversion follows.

use std::borrow::Cow;

use bytes::Bytes;
use half::{bf16, f16};
use num_traits::AsPrimitive;

use super::number::{Number, phrase, view};
use super::{float8, layout};
use crate::{DType, Element, Tensor};

/// The tensor as another dtype. Floats become integers by truncation, saturated; integers wrap. `saturate` is for
/// float8.
pub(super) fn cast(x: &Tensor, to: DType, saturate: bool) -> Result<Tensor, String> {
    let from = x.dtype();
    match from {
        _ if from == to => Ok(x.clone()),
        DType::F32 | DType::F16 | DType::BF16 => convert(&f32::load(x)?, x.dims(), to, saturate),
        DType::F64 => convert(&f64::load(x)?, x.dims(), to, saturate),
        DType::U64 => convert(&u64::load(x)?, x.dims(), to, saturate),
        _ if from.is_float() => convert(&narrow_floats(x)?, x.dims(), to, saturate),
        _ => convert(&integers(x)?, x.dims(), to, saturate),
    }
}

/// A type that a source is read as.
trait Wide:
    Number
    + AsPrimitive<f32>
    + AsPrimitive<f16>
    + AsPrimitive<bf16>
    + AsPrimitive<i8>
    + AsPrimitive<i16>
    + AsPrimitive<i32>
    + AsPrimitive<i64>
    + AsPrimitive<u8>
    + AsPrimitive<u16>
    + AsPrimitive<u32>
    + AsPrimitive<u64>
{
}

impl Wide for f32 {}
impl Wide for f64 {}
impl Wide for i64 {}
impl Wide for u64 {}

fn convert<W: Wide>(from: &[W], dims: &[usize], to: DType, saturate: bool) -> Result<Tensor, String> {
    match to {
        DType::F32 => all(from, dims, |x| AsPrimitive::<f32>::as_(x)),
        DType::F64 => all(from, dims, |x| AsPrimitive::<f64>::as_(x)),
        DType::F16 => all(from, dims, |x| AsPrimitive::<f16>::as_(x)),
        DType::BF16 => all(from, dims, |x| AsPrimitive::<bf16>::as_(x)),
        DType::I8 => all(from, dims, |x| AsPrimitive::<i8>::as_(x)),
        DType::I16 => all(from, dims, |x| AsPrimitive::<i16>::as_(x)),
        DType::I32 => all(from, dims, |x| AsPrimitive::<i32>::as_(x)),
        DType::I64 => all(from, dims, |x| AsPrimitive::<i64>::as_(x)),
        DType::U8 => all(from, dims, |x| AsPrimitive::<u8>::as_(x)),
        DType::U16 => all(from, dims, |x| AsPrimitive::<u16>::as_(x)),
        DType::U32 => all(from, dims, |x| AsPrimitive::<u32>::as_(x)),
        DType::U64 => all(from, dims, |x| AsPrimitive::<u64>::as_(x)),
        DType::Bool => all(from, dims, |x| x != W::ZERO),
        _ if to.is_float() => {
            packed(to, dims, from.iter().map(|x| float8::encode(to, (*x).as_(), saturate).unwrap_or_default()))
        }
        _ if to.is_integer() => packed(to, dims, from.iter().map(|x| AsPrimitive::<i64>::as_(*x) as u8)),
        _ => Err(format!("no conversion to {to}")),
    }
}

fn all<W: Wide, T: Element>(from: &[W], dims: &[usize], f: impl Fn(W) -> T) -> Result<Tensor, String> {
    Tensor::from_vec(dims, layout::collected(from.len(), |at| f(from[at]))?).map_err(phrase)
}

/// A tensor of the low bits of each byte; of a type below a byte, the first element lies lowest.
pub(super) fn packed(dtype: DType, dims: &[usize], elements: impl Iterator<Item = u8>) -> Result<Tensor, String> {
    let bits = dtype.bits();
    let bytes: Vec<u8> = if bits >= 8 {
        elements.collect()
    } else {
        let mut bytes = vec![0_u8; dtype.byte_len(layout::check_size(dims, 1)?).unwrap_or(0)];
        let mask = (1_u8 << bits) - 1;
        for (at, element) in elements.enumerate() {
            let bit = at * bits;
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte |= (element & mask) << (bit % 8);
            }
        }
        bytes
    };
    Tensor::new(dtype, dims, Bytes::from(bytes)).map_err(phrase)
}

/// The low bits of each element of a type of at most 8 bits.
fn unpacked(x: &Tensor) -> Result<Vec<u8>, String> {
    let count = layout::check_size(x.dims(), 1)?;
    let bits = x.dtype().bits();
    if !(1..=8).contains(&bits) {
        return Err(format!("no conversion from {}", x.dtype()));
    }
    if bits == 8 {
        return Ok(layout::units::<1>(x)?.as_flattened().to_vec());
    }
    let mask = (1_u8 << bits) - 1;
    let element = |at: usize| x.bytes().get(at * bits / 8).map(|byte| byte >> (at * bits % 8) & mask);
    Ok((0..count).map(|at| element(at).unwrap_or_default()).collect())
}

/// The values of a tensor of 8- or 4-bit floats.
pub(super) fn narrow_floats(x: &Tensor) -> Result<Vec<f32>, String> {
    let table: Option<Vec<f32>> = (0..=255).map(|bits| float8::decode(x.dtype(), bits)).collect();
    let table = table.ok_or_else(|| format!("no conversion from {}", x.dtype()))?;
    Ok(unpacked(x)?.into_iter().filter_map(|bits| table.get(usize::from(bits)).copied()).collect())
}

/// The values of a tensor of integers of up to 64 bits with sign or 32 without, or of Bool.
pub(super) fn integers(x: &Tensor) -> Result<Cow<'_, [i64]>, String> {
    fn widened<T: Element + Into<i64>>(x: &Tensor) -> Result<Cow<'_, [i64]>, String> {
        let elements = view::<T>(x)?;
        layout::collected(elements.len(), |at| elements[at].into()).map(Cow::Owned)
    }
    match x.dtype() {
        DType::I64 => view(x),
        DType::I32 => widened::<i32>(x),
        DType::I16 => widened::<i16>(x),
        DType::I8 => widened::<i8>(x),
        DType::U32 => widened::<u32>(x),
        DType::U16 => widened::<u16>(x),
        DType::U8 => widened::<u8>(x),
        DType::Bool => widened::<bool>(x),
        DType::I4 | DType::I2 => {
            let shift = 8 - x.dtype().bits();
            Ok(unpacked(x)?.into_iter().map(|bits| i64::from((bits << shift) as i8 >> shift)).collect())
        }
        DType::U4 | DType::U2 => Ok(unpacked(x)?.into_iter().map(i64::from).collect()),
        dtype => Err(format!("no conversion from {dtype}")),
    }
}
