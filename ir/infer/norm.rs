//! Normalisations: the input's shape, and parameters that must fit it.

use super::math::broadcasts_to;
use super::{InferContext, Infos, Inputs, one, resolve_axes, resolve_axis, shaped, unify};
use crate::op::{GroupNorm, LayerNorm};
use crate::{DType, Dim, Op, Shape, ValueInfo};

pub(super) fn infer(op: &Op, inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<Infos, String> {
    let x = inputs.required(0)?;
    match op {
        Op::BatchNorm(_) => {
            for slot in 1..5 {
                per_channel(x, inputs.required(slot)?, slot)?;
            }
        }
        Op::LayerNorm(op) => return layer_norm(op, inputs, context),
        Op::RmsNorm(op) => {
            axis_of(x, op.axis)?;
            spread(x, inputs.required(1)?)?;
        }
        Op::GroupNorm(op) => group_norm(op, inputs)?,
        Op::Lrn(op) => {
            if op.size < 1 {
                return Err(format!("window of {} channels", op.size));
            }
            at_least_rank(x, 2)?;
        }
        Op::LpNorm(op) => {
            axis_of(x, op.axis)?;
        }
        Op::MeanVarianceNorm(op) => {
            if let Some(rank) = x.rank() {
                resolve_axes(&op.axes, rank)?;
            }
        }
        op => return Err(format!("{op} is no normalisation")),
    }
    Ok(one(shaped(x.dtype, x.shape.clone())))
}

fn axis_of(x: &ValueInfo, axis: i64) -> Result<Option<usize>, String> {
    x.rank().map(|rank| resolve_axis(axis, rank)).transpose()
}

fn at_least_rank(x: &ValueInfo, least: usize) -> Result<(), String> {
    match x.rank() {
        Some(rank) if rank < least => Err(format!("data of rank {rank}")),
        _ => Ok(()),
    }
}

/// A parameter of one element a channel.
fn per_channel(x: &ValueInfo, parameter: &ValueInfo, slot: usize) -> Result<(), String> {
    let Some(shape) = &parameter.shape else { return Ok(()) };
    let [size] = shape.as_slice() else { return Err(format!("input {slot} of rank {}", shape.len())) };
    let Some(data) = &x.shape else { return Ok(()) };
    // Data of rank 1 has one channel.
    let channels = data.get(1).cloned().unwrap_or(Dim::fixed(1));
    unify(&channels, size).map(drop).map_err(|_| format!("input {slot} of {size} for {channels} channels"))
}

/// A parameter that broadcasts to the data.
fn spread(x: &ValueInfo, parameter: &ValueInfo) -> Result<(), String> {
    match (&parameter.shape, &x.shape) {
        (Some(parameter), Some(data)) => broadcasts_to(parameter, data),
        _ => Ok(()),
    }
}

fn layer_norm(op: &LayerNorm, inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<Infos, String> {
    let x = inputs.required(0)?;
    let axis = axis_of(x, op.axis)?;
    spread(x, inputs.required(1)?)?;
    if let Some(bias) = inputs.optional(2) {
        spread(x, bias)?;
    }
    let mut infos = one(shaped(x.dtype, x.shape.clone()));
    // Mean and inverse deviation are computed in f32 and have size 1 along the normalised axes.
    let statistics: Option<Shape> = x.shape.as_ref().zip(axis).map(|(data, axis)| {
        data.iter().enumerate().map(|(at, dim)| if at < axis { dim.clone() } else { Dim::fixed(1) }).collect()
    });
    for _ in 1..context.outputs.min(3) {
        infos.push(shaped(DType::F32, statistics.clone()));
    }
    Ok(infos)
}

fn group_norm(op: &GroupNorm, inputs: Inputs<'_>) -> Result<(), String> {
    let x = inputs.required(0)?;
    at_least_rank(x, 2)?;
    per_channel(x, inputs.required(1)?, 1)?;
    per_channel(x, inputs.required(2)?, 2)?;
    let channels = x.shape.as_ref().and_then(|data| data.get(1)?.value());
    match channels {
        _ if op.groups < 0 => Err(format!("{} groups", op.groups)),
        Some(channels) if op.groups > 0 && channels % op.groups != 0 => {
            Err(format!("{channels} channels in {} groups", op.groups))
        }
        _ => Ok(()),
    }
}
