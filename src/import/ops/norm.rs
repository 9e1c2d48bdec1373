//! Normalisations.

use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::{
    BatchNorm, Expand, GroupNorm, LayerNorm, LpNorm, Lrn, MeanVarianceNorm, Reshape, RmsNorm, Unsqueeze,
};
use trt_fuse_ir::{Dim, Epilogue, Shape, ValueRef};

use super::Row;
use crate::import::attrs::fault;
use crate::import::node::{Fault, Imported, NodeContext};

pub(super) const ROWS: &[Row] = &[
    Row::new("BatchNormalization", (5, 5), 5, batch_norm),
    Row::new("GroupNormalization", (3, 3), 1, group_norm),
    Row::new("InstanceNormalization", (3, 3), 1, instance_norm),
    Row::new("LRN", (1, 1), 1, lrn),
    Row::new("LayerNormalization", (2, 3), 3, layer_norm),
    Row::new("LpNormalization", (1, 1), 1, lp_norm),
    Row::new("MeanVarianceNormalization", (1, 1), 1, mean_variance_norm),
    Row::new("RMSNormalization", (2, 2), 1, rms_norm),
];

fn batch_norm(node: &mut NodeContext<'_, '_>) -> Imported {
    node.attrs.ignore("momentum");
    if node.opset < 7 {
        node.attrs.ignore("consumed_inputs");
        if !node.attrs.flag("is_test", false)? {
            return Err(Fault::attribute("is_test", "it is training"));
        }
    }
    if node.attrs.flag("training_mode", false)? {
        return Err(Fault::attribute("training_mode", "it is training"));
    }
    if (1..5).any(|output| node.is_used(output)) {
        return Err(Fault::Unsupported("it is training".to_owned()));
    }
    // Opsets 7 and 8 could have statistics of each element.
    if !node.attrs.flag("spatial", true)? {
        return Err(Fault::attribute("spatial", "its statistics are not of channels"));
    }
    let epsilon = F32(node.attrs.float("epsilon", 1e-5)?);
    node.emit_same(BatchNorm { epsilon, epilogue: Epilogue::default() })
}

/// The type that it computes in is that of the data or wider, which changes rounding alone.
fn check_stash_type(node: &NodeContext<'_, '_>) -> Result<(), Fault> {
    match node.attrs.dtype("stash_type")? {
        Some(dtype) if !dtype.is_float() => Err(fault("stash_type", format!("{dtype} is no float type")).into()),
        _ => Ok(()),
    }
}

fn layer_norm(node: &mut NodeContext<'_, '_>) -> Imported {
    check_stash_type(node)?;
    let op = LayerNorm { axis: node.attrs.int_or("axis", -1)?, epsilon: F32(node.attrs.float("epsilon", 1e-5)?) };
    node.emit_same(op)
}

fn rms_norm(node: &mut NodeContext<'_, '_>) -> Imported {
    check_stash_type(node)?;
    let op = RmsNorm { axis: node.attrs.int_or("axis", -1)?, epsilon: F32(node.attrs.float("epsilon", 1e-5)?) };
    node.emit_same(op)
}

fn instance_norm(node: &mut NodeContext<'_, '_>) -> Imported {
    let epsilon = F32(node.attrs.float("epsilon", 1e-5)?);
    node.emit_same(GroupNorm { groups: 0, epsilon })
}

/// Opset 18 has one scale and one bias a group, opset 21 one a channel.
fn group_norm(node: &mut NodeContext<'_, '_>) -> Imported {
    check_stash_type(node)?;
    let epsilon = F32(node.attrs.float("epsilon", 1e-5)?);
    node.attrs.required_int("num_groups")?;
    let groups = node.attrs.int_at_least("num_groups", 1, 1)?;
    let op = GroupNorm { groups, epsilon };
    if node.opset >= 21 {
        return node.emit_same(op);
    }
    let channels = node.input_info(0)?.shape.and_then(|shape| shape.get(1)?.value());
    let Some(channels) = channels.filter(|channels| channels % groups == 0) else {
        return Err(Fault::Unsupported(format!("its channels are not known to be a multiple of {groups}")));
    };
    let data = node.required(0)?;
    let scale = spread(node, 1, "scale", groups, channels)?;
    let bias = spread(node, 2, "bias", groups, channels)?;
    node.emit(op, [Some(data), Some(scale), Some(bias)])
}

/// One value a group to one value a channel.
fn spread(
    node: &mut NodeContext<'_, '_>,
    slot: usize,
    part: &str,
    groups: i64,
    channels: i64,
) -> Result<ValueRef, Fault> {
    let value = node.required(slot)?;
    let shape = |dims: &[i64]| Some(dims.iter().copied().map(Dim::fixed).collect::<Shape>());
    let column = Unsqueeze { axes: Some([1].into_iter().collect()) };
    let column = node.helper(&format!("{part}.column"), column, [value])?;
    let rows = Expand { shape: shape(&[groups, channels / groups]) };
    let rows = node.helper(&format!("{part}.rows"), rows, [column])?;
    node.helper(part, Reshape { shape: shape(&[channels]), allow_zero: false }, [rows])
}

fn lrn(node: &mut NodeContext<'_, '_>) -> Imported {
    let attrs = &node.attrs;
    attrs.required_int("size")?;
    let op = Lrn {
        alpha: F32(attrs.float("alpha", 1e-4)?),
        beta: F32(attrs.float("beta", 0.75)?),
        bias: F32(attrs.float("bias", 1.0)?),
        size: attrs.int_at_least("size", 1, 1)?,
    };
    node.emit_same(op)
}

fn lp_norm(node: &mut NodeContext<'_, '_>) -> Imported {
    let op = LpNorm { axis: node.attrs.int_or("axis", -1)?, p: node.attrs.int_at_least("p", 1, 2)? };
    node.emit_same(op)
}

fn mean_variance_norm(node: &mut NodeContext<'_, '_>) -> Imported {
    let axes = node.attrs.ints("axes")?.unwrap_or_else(|| [0, 2, 3].into_iter().collect());
    node.emit_same(MeanVarianceNorm { axes })
}
