//! Operators that move data: joins, cuts, padding, blocks.

use trt_fuse_ir::op::{Concat, DepthToSpace, Pad, PadMode, Slice, Split};
use trt_fuse_ir::{Dim, Ints, Shape};

use super::{ANY, Row};
use crate::import::attrs::fault;
use crate::import::node::{Fault, Imported, NodeContext};

pub(super) const ROWS: &[Row] = &[
    Row::new("Concat", (1, ANY), 1, concat),
    Row::new("DepthToSpace", (1, 1), 1, |node| depth_to_space(node, false)),
    Row::new("Pad", (1, 4), 1, pad),
    Row::new("Slice", (1, 5), 1, slice),
    Row::new("SpaceToDepth", (1, 1), 1, |node| depth_to_space(node, true)),
    Row::new("Split", (1, 2), ANY, split),
];

fn concat(node: &mut NodeContext<'_, '_>) -> Imported {
    let axis = node.attrs.required_int("axis")?;
    node.emit_same(Concat { axis })
}

/// Sizes are an attribute before opset 13, an input from there on.
fn split(node: &mut NodeContext<'_, '_>) -> Imported {
    let axis = node.attrs.int_or("axis", 0)?;
    let data = node.required(0)?;
    if let Some(count) = node.attrs.int("num_outputs")? {
        if node.input(1).is_some() {
            return Err(fault("num_outputs", "the sizes are given too").into());
        }
        if usize::try_from(count).ok() != Some(node.outputs.len()) {
            return Err(fault("num_outputs", format!("{count} found, the node has {}", node.outputs.len())).into());
        }
    }
    let sizes: Option<Ints> = match node.input(1) {
        None => node.attrs.ints("split")?,
        Some(_) if node.attrs.has("split") => return Err(fault("split", "the sizes are an input too").into()),
        Some(sizes) => match node.constant_ints(1) {
            None => return node.emit_all(Split { axis, sizes: None }, [Some(data), Some(sizes)]),
            Some(sizes) => Some(sizes.into_iter().collect()),
        },
    };
    let Some(sizes) = sizes.filter(|sizes| !sizes.is_empty()) else {
        return node.emit_all(Split { axis, sizes: None }, [Some(data)]);
    };
    if sizes.len() != node.outputs.len() || sizes.iter().any(|size| *size < 0) {
        let reason = format!("{:?} found, {} sizes expected", sizes.as_slice(), node.outputs.len());
        return Err(fault("split", reason).into());
    }
    let sizes: Shape = sizes.into_iter().map(Dim::fixed).collect();
    node.emit_all(Split { axis, sizes: Some(sizes) }, [Some(data)])
}

/// Bounds are attributes before opset 10.
fn slice(node: &mut NodeContext<'_, '_>) -> Imported {
    let op = Slice { axes: None, starts: None, ends: None, steps: None };
    if node.opset >= 10 {
        node.required(1)?;
        node.required(2)?;
        return node.emit_same(op);
    }
    let data = node.required(0)?;
    let bound = |name| node.attrs.ints(name)?.ok_or_else(|| fault(name, "it is missing"));
    let (starts, ends, axes) = (bound("starts")?, bound("ends")?, node.attrs.ints("axes")?);
    if starts.len() != ends.len() || axes.as_ref().is_some_and(|axes| axes.len() != starts.len()) {
        return Err(fault("ends", "starts, ends and axes differ in length").into());
    }
    let starts = node.ints_part("starts", &starts)?;
    let ends = node.ints_part("ends", &ends)?;
    let axes = axes.map(|axes| node.ints_part("axes", &axes)).transpose()?;
    node.emit(op, [Some(data), Some(starts), Some(ends), axes])
}

/// Pads and value are attributes before opset 11.
fn pad(node: &mut NodeContext<'_, '_>) -> Imported {
    let modes = [
        ("constant", PadMode::Constant),
        ("reflect", PadMode::Reflect),
        ("edge", PadMode::Edge),
        ("wrap", PadMode::Wrap),
    ];
    let mode = node.attrs.choice("mode", &modes)?;
    let data = node.required(0)?;
    if node.opset < 11 {
        let pads = node.attrs.ints("pads")?.ok_or_else(|| fault("pads", "it is missing"))?;
        let value = match node.attrs.float("value", 0.0)? {
            0.0 => None,
            value => {
                let dtype = node.dtype(0)?;
                Some(node.scalar_part("value", dtype, value.into())?)
            }
        };
        return node.emit(Pad { mode, pads: Some(pads) }, [Some(data), None, value]);
    }
    node.required(1)?;
    let value = node.input(2);
    match constant_pads(node)? {
        Some(pads) => node.emit(Pad { mode, pads: Some(pads) }, [Some(data), None, value]),
        None => node.emit_same(Pad { mode, pads: None }),
    }
}

/// Pads of all axes, if they are constants.
fn constant_pads(node: &NodeContext<'_, '_>) -> Result<Option<Ints>, Fault> {
    let Some(pads) = node.constant_ints(1) else { return Ok(None) };
    if node.input(3).is_none() {
        return Ok(Some(pads.into_iter().collect()));
    }
    let (Some(axes), Some(rank)) = (node.constant_ints(3), node.input_info(0)?.rank()) else { return Ok(None) };
    let (before, after) = pads.split_at(pads.len() / 2);
    if before.len() != axes.len() || after.len() != axes.len() {
        let reason = format!("{} pads found for {} axes", pads.len(), axes.len());
        return Err(crate::import::ImportError::Operands { reason }.into());
    }
    let mut all = Ints::from_elem(0, 2 * rank);
    for ((axis, before), after) in axes.iter().zip(before).zip(after) {
        let resolved = if *axis < 0 { axis.saturating_add(rank as i64) } else { *axis };
        let at = usize::try_from(resolved).ok().filter(|at| *at < rank);
        let (Some(first), Some(last)) = (at, at.map(|at| at + rank)) else {
            let reason = format!("axis {axis} is outside of rank {rank}");
            return Err(crate::import::ImportError::Operands { reason }.into());
        };
        for (slot, count) in [(first, before), (last, after)] {
            if let Some(slot) = all.get_mut(slot) {
                *slot = *count;
            }
        }
    }
    Ok(Some(all))
}

fn depth_to_space(node: &mut NodeContext<'_, '_>, inverse: bool) -> Imported {
    let crd = node.attrs.choice("mode", &[("DCR", false), ("CRD", true)])?;
    node.attrs.required_int("blocksize")?;
    let block = node.attrs.int_at_least("blocksize", 1, 1)?;
    node.emit_same(DepthToSpace { block, crd, inverse })
}
