//! Quantization and back.

use half::{bf16, f16};

use super::cast::{cast, integers, packed};
use super::layout::around;
use super::number::{Number, Real, for_real, load_real};
use super::{Inputs, Tensors, float8, one};
use crate::infer::resolve_axis;
use crate::{DType, Op, Tensor};

pub(super) fn eval(op: &Op, inputs: Inputs<'_>) -> Result<Tensors, String> {
    let (x, scale, zero) = (inputs.required(0)?, inputs.required(1)?, inputs.optional(2));
    match op {
        Op::Quantize(op) => {
            let grid = Grid::new(x, scale, zero, op.axis, op.block_size)?;
            if scale.dtype() == DType::F64 {
                return one(quantize::<f64>(x, scale, zero, &grid, op.to, op.saturate));
            }
            one(quantize::<f32>(x, scale, zero, &grid, op.to, op.saturate))
        }
        Op::Dequantize(op) => {
            let grid = Grid::new(x, scale, zero, op.axis, op.block_size)?;
            for_real!(scale.dtype(), T => one(dequantize::<T>(x, scale, zero, &grid)))
        }
        op => Err(format!("{op} is no quantization")),
    }
}

/// Which scale an element has: one for all, one for each place along an axis, or one for each block along it.
enum Grid {
    Whole,
    Axis { size: usize, inner: usize },
    Blocks { size: usize, inner: usize, block: usize, blocks: usize },
}

impl Grid {
    fn new(
        x: &Tensor,
        scale: &Tensor,
        zero: Option<&Tensor>,
        axis: i64,
        block_size: Option<i64>,
    ) -> Result<Self, String> {
        if zero.is_some_and(|zero| zero.dims() != scale.dims() && !(zero.numel() == 1 && scale.numel() == 1)) {
            return Err(format!("scale {:?} and zero point {:?}", scale.dims(), zero.map(Tensor::dims)));
        }
        let wrong = || format!("a scale of {:?} for {:?} along axis {axis}", scale.dims(), x.dims());
        if scale.numel() == 1 && block_size.is_none_or(|block| block == 0) {
            return Ok(Self::Whole);
        }
        let at = resolve_axis(axis, x.rank())?;
        let (_, size, inner) = around(x.dims(), at);
        if scale.rank() == 1 && block_size.is_none_or(|block| block == 0) {
            return if scale.dims() == [size] { Ok(Self::Axis { size, inner }) } else { Err(wrong()) };
        }
        let block = block_size.and_then(|block| usize::try_from(block).ok()).filter(|block| *block > 0);
        let block = block.ok_or_else(wrong)?;
        let blocks = size.div_ceil(block);
        let fits = |(axis, (of_scale, of_x)): (usize, (&usize, &usize))| {
            if axis == at { *of_scale == blocks } else { of_scale == of_x }
        };
        if scale.rank() != x.rank() || !scale.dims().iter().zip(x.dims()).enumerate().all(fits) {
            return Err(wrong());
        }
        Ok(Self::Blocks { size, inner, block, blocks })
    }

    /// The index of the scale of element `flat`.
    fn at(&self, flat: usize) -> usize {
        match self {
            Self::Whole => 0,
            Self::Axis { size, inner } => flat / inner % size,
            Self::Blocks { size, inner, block, blocks } => {
                let (outer, along, within) = (flat / inner / size, flat / inner % size, flat % inner);
                (outer * blocks + along / block) * inner + within
            }
        }
    }
}

/// A number rounded to a 16-bit dtype, else as it is.
fn rounded<T: Real>(dtype: DType, value: T) -> T {
    let wide = num_traits::AsPrimitive::<f64>::as_(value);
    match dtype {
        DType::F16 => T::real(f16::from_f64(wide).to_f64()),
        DType::BF16 => T::real(bf16::from_f64(wide).to_f64()),
        _ => value,
    }
}

fn quantize<T: Real>(
    x: &Tensor,
    scale: &Tensor,
    zero: Option<&Tensor>,
    grid: &Grid,
    to: DType,
    saturate: bool,
) -> Result<Tensor, String> {
    let wide = if x.dtype().is_integer() { cast(x, T::DTYPE, true)? } else { x.clone() };
    let (elements, scales) = (load_real::<T>(&wide)?, load_real::<T>(scale)?);
    // The scale's type tells how precise the division is.
    let quotient = |flat: usize, x: &T| rounded(scale.dtype(), *x / scales[grid.at(flat)]);
    let quotients = elements.iter().enumerate().map(|(flat, x)| (flat, quotient(flat, x)));
    if to.is_float() {
        let zeros = zero.map(|zero| cast(zero, DType::F32, true)).transpose()?;
        let zeros = zeros.as_ref().map(f32::load).transpose()?;
        let shift = |flat| zeros.as_ref().map_or(0.0, |zeros| zeros[grid.at(flat)]);
        let element = |(flat, x): (usize, T)| {
            let x = num_traits::AsPrimitive::<f64>::as_(x) as f32 + shift(flat);
            float8::encode(to, x, saturate).unwrap_or_default()
        };
        if float8::encode(to, 0.0, saturate).is_none() {
            return Err(format!("no quantization to {to}"));
        }
        return packed(to, x.dims(), quotients.map(element));
    }
    let (low, high) = integer_range(to)?;
    let zeros = zero.map(integers).transpose()?;
    let shift = |flat| zeros.as_ref().map_or(0, |zeros| zeros[grid.at(flat)]);
    let element = |(flat, x): (usize, T)| {
        // Saturates, and makes 0 of a NaN.
        (num_traits::AsPrimitive::<f64>::as_(x.round_even()) as i64).saturating_add(shift(flat)).clamp(low, high)
    };
    if to.bits() < 8 {
        return packed(to, x.dims(), quotients.map(|quotient| element(quotient) as u8));
    }
    cast(&Tensor::from_vec(x.dims(), quotients.map(element).collect()).map_err(super::number::phrase)?, to, true)
}

fn integer_range(dtype: DType) -> Result<(i64, i64), String> {
    let bits = dtype.bits();
    match dtype {
        _ if bits == 0 || bits > 32 => Err(format!("no quantization to {dtype}")),
        dtype if dtype.is_signed_integer() => Ok((-(1 << (bits - 1)), (1 << (bits - 1)) - 1)),
        dtype if dtype.is_unsigned_integer() => Ok((0, (1 << bits) - 1)),
        dtype => Err(format!("no quantization to {dtype}")),
    }
}

fn dequantize<T: Real>(x: &Tensor, scale: &Tensor, zero: Option<&Tensor>, grid: &Grid) -> Result<Tensor, String> {
    let scales = load_real::<T>(scale)?;
    let scaled = |flat: usize, x: f64| T::real(x) * scales[grid.at(flat)];
    let elements = if x.dtype().is_float() {
        let floats = |tensor| cast(tensor, DType::F32, true);
        let (x, zero) = (floats(x)?, zero.map(floats).transpose()?);
        let zeros = zero.as_ref().map(f32::load).transpose()?;
        let shift = |flat| zeros.as_ref().map_or(0.0, |zeros| f64::from(zeros[grid.at(flat)]));
        f32::load(&x)?.iter().enumerate().map(|(flat, x)| scaled(flat, f64::from(*x) - shift(flat))).collect()
    } else {
        let zeros = zero.map(integers).transpose()?;
        let shift = |flat| zeros.as_ref().map_or(0, |zeros| zeros[grid.at(flat)]);
        let difference = |flat, x: i64| x.saturating_sub(shift(flat)) as f64;
        integers(x)?.iter().enumerate().map(|(flat, x)| scaled(flat, difference(flat, *x))).collect()
    };
    T::store(scale.dtype(), x.dims(), elements)
}
