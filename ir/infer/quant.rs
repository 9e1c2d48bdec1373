//! Quantization.

use super::{Infos, Inputs, join_dtypes, one, resolve_axis, shaped, unify};
use crate::{DType, Dim, Op, ValueInfo};

pub(super) fn infer(op: &Op, inputs: Inputs<'_>) -> Result<Infos, String> {
    let (x, scale) = (inputs.required(0)?, inputs.required(1)?);
    let (dtype, axis, block) = match op {
        Op::Quantize(op) => {
            if let Some(zero_point) = inputs.optional(2) {
                join_dtypes(zero_point.dtype, op.to)?;
            }
            (op.to, op.axis, op.block_size)
        }
        Op::Dequantize(op) => {
            if let Some(zero_point) = inputs.optional(2) {
                join_dtypes(zero_point.dtype, x.dtype)?;
            }
            if !scale.dtype.is_float() && scale.dtype != DType::Unknown {
                return Err(format!("scale of {}", scale.dtype));
            }
            (scale.dtype, op.axis, op.block_size)
        }
        op => return Err(format!("{op} does not quantize")),
    };
    check_scale(x, scale, axis, block.unwrap_or(0))?;
    if let Some(zero_point) = inputs.optional(2)
        && let (Some(zero_point), Some(scale)) = (&zero_point.shape, &scale.shape)
        && zero_point.len() != scale.len()
        // One element serves for all, whatever its rank.
        && !(Dim::product(zero_point).is(1) && Dim::product(scale).is(1))
    {
        return Err(format!("zero point of rank {}, scale of rank {}", zero_point.len(), scale.len()));
    }
    Ok(one(shaped(dtype, x.shape.clone())))
}

/// One scale for all, one for each index of the axis, or one for each block along it.
fn check_scale(x: &ValueInfo, scale: &ValueInfo, axis: i64, block: i64) -> Result<(), String> {
    let (Some(data), Some(scales)) = (&x.shape, &scale.shape) else { return Ok(()) };
    if block < 0 {
        return Err(format!("blocks of {block}"));
    }
    if block > 0 {
        let axis = resolve_axis(axis, data.len())?;
        if scales.len() != data.len() {
            return Err(format!("scale of rank {} for blocks of rank {}", scales.len(), data.len()));
        }
        for (at, (size, count)) in data.iter().zip(scales).enumerate() {
            let expected = if at == axis { size.ceil_div(&Dim::fixed(block)) } else { Some(size.clone()) };
            if let Some(expected) = expected {
                unify(&expected, count).map_err(|_| format!("{count} scales along axis {at}, {expected} expected"))?;
            }
        }
        return Ok(());
    }
    match scales.as_slice() {
        // One element serves for all, whatever the axis.
        scales if Dim::product(scales).is(1) => Ok(()),
        [count] => {
            let axis = resolve_axis(axis, data.len())?;
            let size = data.get(axis).cloned().unwrap_or(Dim::fixed(1));
            unify(&size, count).map(drop).map_err(|_| format!("{count} scales for {size} indices of axis {axis}"))
        }
        scales => Err(format!("scale of rank {}", scales.len())),
    }
}
