//! Normalisations.

use trt_fuse_ir::op::{BatchNorm, GroupNorm, LayerNorm, Lrn};
use trt_fuse_ir::{DType, Dims, Tensor};

use super::super::error::EmitError;
use super::super::layers::{Normalization, Scale};
use super::super::sink::{NetworkSink, Weights};
use super::super::site::Site;
use super::super::terms::{ElementwiseKind, ScaleMode, UnaryKind};
use super::conv::epilogue;

/// IScaleLayer takes no less.
const LEAST_SCALE_RANK: usize = 4;

/// One scale layer where the parameters are constant, arithmetic where they are not.
pub(super) fn batch_norm<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &BatchNorm,
) -> Result<S::Tensor, EmitError> {
    let y = normalized(site, op)?;
    epilogue(site, y, &op.epilogue, 5)
}

fn normalized<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>, op: &BatchNorm) -> Result<S::Tensor, EmitError> {
    let rank = site.rank(0)?;
    let parameters = [1, 2, 3, 4].map(|slot| site.constant(slot).and_then(Tensor::to_f64s));
    if let [Some(scale), Some(bias), Some(mean), Some(variance)] = parameters
        && rank >= LEAST_SCALE_RANK
        && site.dtype() == DType::F32
    {
        let factors: Vec<f64> = scale
            .iter()
            .zip(&variance)
            .map(|(scale, variance)| scale / (variance + f64::from(op.epsilon.0)).sqrt())
            .collect();
        let shifts: Vec<f32> =
            bias.iter().zip(&mean).zip(&factors).map(|((bias, mean), factor)| (bias - mean * factor) as f32).collect();
        let factors: Vec<f32> = factors.into_iter().map(|factor| factor as f32).collect();
        let x = site.tensor(0)?;
        let layer = Scale {
            mode: ScaleMode::Channel,
            channel_axis: 1,
            shift: Some(Weights::Owned(Tensor::vector(shifts))),
            scale: Some(Weights::Owned(Tensor::vector(factors))),
            power: None,
        };
        return site.layer("", |sink, label| sink.scale(label, x, layer));
    }
    let x = site.tensor(0)?;
    let mut channels = Vec::new();
    for slot in 1..5 {
        channels.push(per_channel(site, slot, rank)?);
    }
    let [scale, bias, mean, variance] = channels[..] else { return site.unsupported("a parameter is missing") };
    let epsilon = site.scalar(site.dtype(), rank, f64::from(op.epsilon.0), "epsilon")?;
    let variance = site.elementwise(variance, epsilon, ElementwiseKind::Sum, "variance")?;
    let deviation = site.unary(variance, UnaryKind::Sqrt, "deviation")?;
    let factor = site.elementwise(scale, deviation, ElementwiseKind::Div, "factor")?;
    let centred = site.elementwise(x, mean, ElementwiseKind::Sub, "centred")?;
    let scaled = site.elementwise(centred, factor, ElementwiseKind::Prod, "scaled")?;
    site.elementwise(scaled, bias, ElementwiseKind::Sum, "")
}

/// A vector `[C]` as `[1, C, 1...]`.
fn per_channel<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    slot: usize,
    rank: usize,
) -> Result<S::Tensor, EmitError> {
    if let Some(constant) = site.constant(slot) {
        let mut dims = Dims::from_elem(1, rank);
        if let Some(channels) = dims.get_mut(1) {
            *channels = constant.numel();
        }
        return site.constant_layer(slot, dims);
    }
    let Some(channels) = site.info(slot).and_then(|info| info.shape.as_ref()?.first().cloned()) else {
        return site.unsupported(format!("input {slot} is no vector of a known size"));
    };
    let mut shape = trt_fuse_ir::Shape::from_elem(trt_fuse_ir::Dim::fixed(1), rank);
    if let Some(dim) = shape.get_mut(1) {
        *dim = channels;
    }
    let x = site.tensor(slot)?;
    site.reshape_to(x, &shape, "channels")
}

pub(super) fn layer_norm<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &LayerNorm,
) -> Result<S::Tensor, EmitError> {
    if site.node.outputs.len() > 1 {
        return site.unsupported("TensorRT's normalization gives no mean and deviation");
    }
    if !site.capabilities().normalization {
        return site.unsupported("this TensorRT has no normalization layer");
    }
    let rank = site.rank(0)?;
    let first = if op.axis < 0 { op.axis + rank as i64 } else { op.axis };
    let axes: Vec<i64> = (first..rank as i64).collect();
    let x = site.tensor(0)?;
    let scale = site.aligned(1, rank)?;
    let bias = match site.source(2) {
        Some(_) => site.aligned(2, rank)?,
        None => {
            let zeros = site.info(1).and_then(|info| info.fixed_dims());
            let Some(mut dims) = zeros else { return site.unsupported("the scale's shape is not known") };
            while dims.len() < rank {
                dims.insert(0, 1);
            }
            let zeros = match site.dtype() {
                DType::F16 => Tensor::full(&dims, half::f16::ZERO),
                DType::BF16 => Tensor::full(&dims, half::bf16::ZERO),
                _ => Tensor::full(&dims, 0_f32),
            };
            match zeros {
                Ok(zeros) => site.layer("bias", |sink, label| sink.constant(label, Weights::Owned(zeros)))?,
                Err(error) => return site.unsupported(error.to_string()),
            }
        }
    };
    let layer = Normalization { axes: &axes, epsilon: op.epsilon.0, groups: 1 };
    site.layer("", |sink, label| sink.normalization(label, x, scale, bias, &layer))
}

pub(super) fn group_norm<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &GroupNorm,
) -> Result<S::Tensor, EmitError> {
    if !site.capabilities().normalization {
        return site.unsupported("this TensorRT has no normalization layer");
    }
    let rank = site.rank(0)?;
    let x = site.tensor(0)?;
    let (scale, bias) = (per_channel(site, 1, rank)?, per_channel(site, 2, rank)?);
    // An instance norm normalises each channel by itself. One group is all channels: to the layer, one group is none.
    let first = if op.groups == 1 { 1 } else { 2 };
    let axes: Vec<i64> = (first..rank as i64).collect();
    let layer = Normalization { axes: &axes, epsilon: op.epsilon.0, groups: op.groups.max(1) };
    site.layer("", |sink, label| sink.normalization(label, x, scale, bias, &layer))
}

pub(super) fn lrn<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>, op: &Lrn) -> Result<S::Tensor, EmitError> {
    let x = site.tensor(0)?;
    site.layer("", |sink, label| sink.lrn(label, x, op.size, op.alpha.0, op.beta.0, op.bias.0))
}
