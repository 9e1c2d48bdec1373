//! Convolution layers, and the layers of their epilogues.

use trt_fuse_ir::op::{Activation, Conv, ConvTranspose};
use trt_fuse_ir::{Dim, Epilogue, Step};

use super::super::error::EmitError;
use super::super::layers::{Convolution, DimsArg, Operand};
use super::super::sink::{NetworkSink, Weights};
use super::super::site::Site;
use super::super::terms::ElementwiseKind;
use super::math;

pub(super) fn conv<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>, op: &Conv) -> Result<S::Tensor, EmitError> {
    let Some((pre, post)) = op.padding.explicit() else {
        return site.unsupported("SAME padding of a size that is not known");
    };
    let window = Window { stride: &op.strides, dilation: &op.dilations, pre, post, groups: op.groups };
    let y = convolve(site, &window, false)?;
    epilogue(site, y, &op.epilogue, 3)
}

pub(super) fn conv_transpose<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &ConvTranspose,
) -> Result<S::Tensor, EmitError> {
    let Some((pre, post)) = op.padding.explicit() else {
        return site.unsupported("SAME padding of a size that is not known");
    };
    if op.output_shape.is_some() {
        return site.unsupported("a transposed convolution with an output_shape");
    }
    // What is added at the end is that much less taken away.
    let post: Vec<i64> =
        post.iter().enumerate().map(|(axis, pad)| pad - op.output_padding.get(axis).copied().unwrap_or(0)).collect();
    if post.iter().any(|pad| *pad < 0) {
        return site.unsupported("output_padding beyond the padding");
    }
    let window = Window { stride: &op.strides, dilation: &op.dilations, pre, post: &post, groups: op.groups };
    let y = convolve(site, &window, true)?;
    epilogue(site, y, &op.epilogue, 3)
}

/// What both kinds share.
struct Window<'a> {
    stride: &'a [i64],
    dilation: &'a [i64],
    pre: &'a [i64],
    post: &'a [i64],
    groups: i64,
}

fn convolve<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    window: &Window<'_>,
    transposed: bool,
) -> Result<S::Tensor, EmitError> {
    let Some(weight_dims) = site.info(1).and_then(|info| info.fixed_dims()) else {
        return site.unsupported("the weight's shape is not known");
    };
    let axes = weight_dims.len().saturating_sub(2);
    // TensorRT has no 1-D convolution: it becomes 2-D with a last axis of 1.
    let flat = axes == 1;
    let widened = |values: &[i64], fill: i64| -> Vec<i64> {
        let extra = if flat { Some(fill) } else { None };
        values.iter().copied().chain(extra).collect()
    };
    let kernel: Vec<i64> = weight_dims.iter().skip(2).map(|dim| *dim as i64).collect();
    let first = |at: usize| weight_dims.get(at).map_or(0, |dim| *dim as i64);
    let maps = if transposed { first(1) * window.groups } else { first(0) };

    let mut x = site.tensor(0)?;
    if flat {
        x = with_last_axis(site, x, 0)?;
    }
    let mut weight_shape: Vec<usize> = weight_dims.to_vec();
    if flat {
        weight_shape.push(1);
    }
    let weight = operand(site, 1, &weight_shape)?;
    let bias = match site.source(2) {
        None => None,
        Some(_) => Some(operand(site, 2, &[usize::try_from(maps).unwrap_or(0)])?),
    };
    let layer = Convolution {
        maps,
        kernel_size: &widened(&kernel, 1),
        stride: &widened(window.stride, 1),
        pre_padding: &widened(window.pre, 0),
        post_padding: &widened(window.post, 0),
        dilation: &widened(window.dilation, 1),
        groups: window.groups,
        kernel: weight,
        bias,
    };
    let y = if transposed {
        site.layer("", |sink, label| sink.deconvolution(label, x, layer))?
    } else {
        site.layer("", |sink, label| sink.convolution(label, x, layer))?
    };
    if flat { without_last_axis(site, y) } else { Ok(y) }
}

/// An input of a convolution: weights where it is constant.
fn operand<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    slot: usize,
    dims: &[usize],
) -> Result<Operand<'g, S::Tensor>, EmitError> {
    match site.constant(slot) {
        Some(constant) if constant.dims() == dims => Ok(Operand::Weights(Weights::Borrowed(constant))),
        Some(constant) => match constant.reshaped(dims) {
            Ok(tensor) => Ok(Operand::Weights(Weights::Owned(tensor))),
            Err(error) => site.unsupported(error.to_string()),
        },
        None if site.rank(slot)? == dims.len() => site.tensor(slot).map(Operand::Tensor),
        None => {
            let x = site.tensor(slot)?;
            let dims: Vec<i64> = dims.iter().map(|dim| *dim as i64).collect();
            site.shuffle(x, None, Some(DimsArg::Fixed(&dims)), None, "weight").map(Operand::Tensor)
        }
    }
}

/// `[N, C, L]` to `[N, C, L, 1]`.
pub(super) fn with_last_axis<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    x: S::Tensor,
    slot: usize,
) -> Result<S::Tensor, EmitError> {
    let mut shape = site.info(slot).and_then(|info| info.shape.clone()).unwrap_or_default();
    shape.push(Dim::fixed(1));
    site.reshape_to(x, &shape, "unsqueeze")
}

/// Back to the node's output shape.
pub(super) fn without_last_axis<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    y: S::Tensor,
) -> Result<S::Tensor, EmitError> {
    let Some(shape) = site.output().and_then(|info| info.shape.clone()) else {
        return site.unsupported("the output's shape is not known");
    };
    site.reshape_to(y, &shape, "squeeze")
}

/// The layers of an epilogue, whose inputs start at `slot`. The builder fuses them into the kernel again.
pub(super) fn epilogue<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    y: S::Tensor,
    epilogue: &Epilogue,
    slot: usize,
) -> Result<S::Tensor, EmitError> {
    let (mut y, mut slot) = (y, slot);
    let Some(rank) = site.output().and_then(|info| info.rank()) else {
        return site.unsupported("the output's rank is not known");
    };
    for step in &epilogue.0 {
        match step {
            Step::Add => {
                let other = site.aligned(slot, rank)?;
                slot += 1;
                y = site.layer_of(&["Add", "Sum", "Sub"], "add", |sink, label| {
                    sink.elementwise(label, y, other, ElementwiseKind::Sum)
                })?;
            }
            Step::Activation(activation) => y = math::apply(site, y, rank, *activation, activation_name(*activation))?,
        }
    }
    Ok(y)
}

fn activation_name(activation: Activation) -> &'static str {
    activation.parts().0
}
