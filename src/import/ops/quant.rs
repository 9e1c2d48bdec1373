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
    // The type that the division is done in, which changes rounding alone.
    node.attrs.dtype("precision")?;
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
    node.emit_same(op)
}

/// The output has the type of the scale, unless opset 23 states another.
fn dequantize(node: &mut NodeContext<'_, '_>) -> Imported {
    let op = Dequantize { axis: node.attrs.int_or("axis", 1)?, block_size: block_size(node)? };
    let stated = node.attrs.dtype("output_dtype")?;
    let scale = node.input_info(1)?.dtype;
    let Some(to) = stated.filter(|stated| *stated != scale) else { return node.emit_same(op) };
    let inputs: Vec<_> = node.inputs.iter().copied().flatten().collect();
    let wide = node.helper("dequantized", op, inputs)?;
    node.emit(Cast { to, saturate: true, in_range: false }, [Some(wide)])
}
