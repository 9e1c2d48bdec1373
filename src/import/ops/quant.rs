//! Quantization.

use trt_fuse_ir::DType;
use trt_fuse_ir::op::{Cast, Dequantize, Quantize};

use super::Row;
use crate::import::attrs::fault;
use crate::import::node::{Fault, Imported, NodeContext};

pub(super) const ROWS: &[Row] =
    &[Row::new("DequantizeLinear", (2, 3), 1, dequantize), Row::new("QuantizeLinear", (2, 3), 1, quantize)];

/// 0 stands for no blocks.
fn block_size(node: &NodeContext<'_, '_>) -> Result<Option<i64>, Fault> {
    Ok(Some(node.attrs.int_at_least("block_size", 0, 0)?).filter(|size| *size > 0))
}

fn quantize(node: &mut NodeContext<'_, '_>) -> Imported {
    let stated = node.attrs.dtype("output_dtype")?;
    let to = match node.input(2) {
        None => stated.unwrap_or(DType::U8),
        Some(_) => node.dtype(2)?,
    };
    if let Some(stated) = stated.filter(|stated| *stated != to) {
        return Err(fault("output_dtype", format!("{stated} found, the zero point is {to}")).into());
    }
    let op = Quantize {
        axis: node.attrs.int_or("axis", 1)?,
        block_size: block_size(node)?,
        to,
        saturate: node.attrs.flag("saturate", true)?,
    };
    let stated = node.attrs.dtype("precision")?;
    if let Some(precision) = stated.filter(|precision| !is_real(*precision)) {
        return Err(fault("precision", format!("{precision} is no type of a division")).into());
    }
    let (mut x, scale, zero) = (node.required(0)?, node.required(1)?, node.input(2));
    let scale_dtype = node.dtype(1)?;
    let precision = stated.unwrap_or(if is_real(scale_dtype) { scale_dtype } else { DType::F32 });
    // The scale's type is that of the division.
    let scale = node.cast("scale", scale, precision)?;
    if stated.is_some() {
        x = node.cast("x", x, precision)?;
    }
    node.emit(op, [Some(x), Some(scale), zero])
}

/// Whether arithmetic is done in the type; in narrower floats it is not.
fn is_real(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16 | DType::F64)
}

/// The output has the type of the scale, unless opset 23 states another.
fn dequantize(node: &mut NodeContext<'_, '_>) -> Imported {
    let op = Dequantize { axis: node.attrs.int_or("axis", 1)?, block_size: block_size(node)? };
    let stated = node.attrs.dtype("output_dtype")?;
    let (x, mut scale, zero) = (node.required(0)?, node.required(1)?, node.input(2));
    if matches!(node.info(scale).dtype, DType::F8E8M0) {
        scale = node.cast("scale", scale, DType::F32)?;
    }
    let to = stated.unwrap_or(node.input_info(1)?.dtype);
    if to == node.info(scale).dtype {
        return node.emit(op, [Some(x), Some(scale), zero]);
    }
    let inputs: Vec<_> = [Some(x), Some(scale), zero].into_iter().flatten().collect();
    let wide = node.helper("dequantized", op, inputs)?;
    node.emit(Cast::new(to), [Some(wide)])
}
