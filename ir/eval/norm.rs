//! Normalisations. Means and variances are made in f64.

use num_traits::AsPrimitive;

use super::activation::apply_epilogue;
use super::layout::{Operand, around, filled, in_rows, product, zip_assign};
use super::number::{Real, for_real, load_real, phrase};
use super::reduce::along_axis;
use super::{EvalContext, Inputs, Tensors, one};
use crate::infer::{resolve_axes, resolve_axis};
use crate::{Dims, Op, Tensor, op};

pub(super) fn eval(op: &Op, inputs: Inputs<'_>, context: &EvalContext<'_>) -> Result<Tensors, String> {
    let x = inputs.required(0)?;
    for_real!(x.dtype(), T => match op {
        Op::BatchNorm(op) => one(batch_norm::<T>(op, inputs)),
        Op::LayerNorm(op) => layer_norm::<T>(op, inputs, context),
        Op::RmsNorm(op) => one(rms_norm::<T>(op, inputs)),
        Op::GroupNorm(op) => one(group_norm::<T>(op, inputs)),
        Op::Lrn(op) => one(lrn::<T>(op, x)),
        Op::LpNorm(op) => one(lp_norm::<T>(op, x)),
        Op::MeanVarianceNorm(op) => one(mean_variance_norm::<T>(op, x)),
        op => Err(format!("{op} is no normalisation")),
    })
}

fn wide<T: Real>(x: &T) -> f64 {
    AsPrimitive::<f64>::as_(*x)
}

/// Mean and variance of a row.
fn moments<T: Real>(row: &[T]) -> (f64, f64) {
    let count = row.len() as f64;
    let mean = row.iter().map(wide).sum::<f64>() / count;
    let variance = row.iter().map(|x| (wide(x) - mean).powi(2)).sum::<f64>() / count;
    (mean, variance)
}

/// Scales and shifts each row (batch and channel, in that order) of `length` elements by its channel's numbers.
fn scale_channels<T: Real>(
    elements: &mut [T],
    length: usize,
    channels: usize,
    scale: &Tensor,
    shift: &Tensor,
) -> Result<(), String> {
    if scale.dims() != [channels] || shift.dims() != [channels] {
        return Err(format!("scale {:?} and bias {:?} for {channels} channels", scale.dims(), shift.dims()));
    }
    let (scale, shift) = (load_real::<T>(scale)?, load_real::<T>(shift)?);
    in_rows(elements, length, &|row, elements| {
        let (scale, shift) = (scale[row % channels], shift[row % channels]);
        elements.iter_mut().for_each(|x| *x = *x * scale + shift);
    });
    Ok(())
}

fn batch_norm<T: Real>(op: &op::BatchNorm, inputs: Inputs<'_>) -> Result<Tensor, String> {
    let x = inputs.required(0)?;
    // A batch of numbers is one channel.
    let (channels, length) = if x.rank() > 1 { (around(x.dims(), 1).1, around(x.dims(), 1).2) } else { (1, 1) };
    let per_channel = |slot: usize| {
        let tensor = inputs.required(slot)?;
        if tensor.dims() == [channels] {
            load_real::<f64>(tensor)
        } else {
            Err(format!("input {slot} is {:?} for {channels} channels", tensor.dims()))
        }
    };
    let (scale, bias, mean, variance) = (per_channel(1)?, per_channel(2)?, per_channel(3)?, per_channel(4)?);
    let epsilon = f64::from(op.epsilon.0);
    let mut elements = T::load(x)?.into_owned();
    in_rows(&mut elements, length, &|row, elements| {
        let channel = row % channels;
        let factor = T::real(scale[channel] / (variance[channel] + epsilon).sqrt());
        let (mean, bias) = (T::real(mean[channel]), T::real(bias[channel]));
        elements.iter_mut().for_each(|x| *x = (*x - mean) * factor + bias);
    });
    apply_epilogue(&op.epilogue, &mut elements, |_, _| Err("an operand that is added".to_string()))?;
    T::store(x.dtype(), x.dims(), elements)
}

/// Multiplies by or adds a tensor that broadcasts to `dims`.
fn join<T: Real>(elements: &mut [T], dims: &[usize], other: &Tensor, f: fn(T, T) -> T) -> Result<(), String> {
    zip_assign(elements, dims, &Operand::new(load_real::<T>(other)?, other.dims())?, f)
}

fn layer_norm<T: Real>(op: &op::LayerNorm, inputs: Inputs<'_>, context: &EvalContext<'_>) -> Result<Tensors, String> {
    let x = inputs.required(0)?;
    let axis = resolve_axis(op.axis, x.rank())?;
    let length = product(&x.dims()[axis..]);
    let epsilon = f64::from(op.epsilon.0);
    let mut elements = T::load(x)?.into_owned();
    let statistics: Vec<(f64, f64)> = elements
        .chunks(length.max(1))
        .map(moments)
        .map(|(mean, variance)| (mean, 1.0 / (variance + epsilon).sqrt()))
        .collect();
    in_rows(&mut elements, length, &|row, elements| {
        let (mean, inverse) = statistics[row];
        elements.iter_mut().for_each(|x| *x = T::real((wide(x) - mean) * inverse));
    });
    join(&mut elements, x.dims(), inputs.required(1)?, |x, scale| x * scale)?;
    if let Some(bias) = inputs.optional(2) {
        join(&mut elements, x.dims(), bias, |x, bias| x + bias)?;
    }
    let mut outputs = Tensors::from_iter([T::store(x.dtype(), x.dims(), elements)?]);
    if context.outputs > 1 {
        let dims: Dims = x.dims().iter().enumerate().map(|(at, dim)| if at < axis { *dim } else { 1 }).collect();
        let statistic = |pick: fn(&(f64, f64)) -> f64| {
            Tensor::from_vec(&dims, statistics.iter().map(|row| pick(row) as f32).collect()).map_err(phrase)
        };
        outputs.push(statistic(|row| row.0)?);
        outputs.push(statistic(|row| row.1)?);
    }
    Ok(outputs)
}

fn rms_norm<T: Real>(op: &op::RmsNorm, inputs: Inputs<'_>) -> Result<Tensor, String> {
    let x = inputs.required(0)?;
    let axis = resolve_axis(op.axis, x.rank())?;
    let length = product(&x.dims()[axis..]);
    let mut elements = T::load(x)?.into_owned();
    in_rows(&mut elements, length, &|_, row| {
        let square = row.iter().map(|x| wide(x).powi(2)).sum::<f64>() / row.len() as f64;
        let inverse = 1.0 / (square + f64::from(op.epsilon.0)).sqrt();
        row.iter_mut().for_each(|x| *x = T::real(wide(x) * inverse));
    });
    join(&mut elements, x.dims(), inputs.required(1)?, |x, scale| x * scale)?;
    T::store(x.dtype(), x.dims(), elements)
}

fn group_norm<T: Real>(op: &op::GroupNorm, inputs: Inputs<'_>) -> Result<Tensor, String> {
    let x = inputs.required(0)?;
    let [_, channels, sizes @ ..] = x.dims() else { return Err(format!("data of shape {:?}", x.dims())) };
    let (channels, plane) = (*channels, product(sizes));
    let groups = if op.groups == 0 { Some(channels) } else { usize::try_from(op.groups).ok() };
    let groups = groups
        .filter(|groups| *groups > 0 && channels % groups == 0)
        .ok_or_else(|| format!("{channels} channels in {} groups", op.groups))?;
    let mut elements = T::load(x)?.into_owned();
    in_rows(&mut elements, channels / groups * plane, &|_, row| {
        let (mean, variance) = moments(row);
        let inverse = 1.0 / (variance + f64::from(op.epsilon.0)).sqrt();
        row.iter_mut().for_each(|x| *x = T::real((wide(x) - mean) * inverse));
    });
    scale_channels(&mut elements, plane, channels, inputs.required(1)?, inputs.required(2)?)?;
    T::store(x.dtype(), x.dims(), elements)
}

fn lrn<T: Real>(op: &op::Lrn, x: &Tensor) -> Result<Tensor, String> {
    if x.rank() < 2 {
        return Err(format!("data of shape {:?}", x.dims()));
    }
    let size = usize::try_from(op.size).ok().filter(|size| *size > 0).ok_or_else(|| format!("size {}", op.size))?;
    let (_, channels, plane) = around(x.dims(), 1);
    let (alpha, beta, bias) = (f64::from(op.alpha.0) / size as f64, f64::from(op.beta.0), f64::from(op.bias.0));
    let elements = T::load(x)?;
    let mut output = filled(x.dims(), T::ZERO)?;
    in_rows(&mut output, plane, &|row, output| {
        let channel = row % channels;
        let first = channel.saturating_sub((size - 1) / 2);
        let end = channel.saturating_add(size / 2 + 1).min(channels);
        let base = row - channel;
        for (at, to) in output.iter_mut().enumerate() {
            let element = |channel: usize| wide(&elements[(base + channel) * plane + at]);
            let squares: f64 = (first..end).map(|channel| element(channel).powi(2)).sum();
            *to = T::real(element(channel) / (bias + alpha * squares).powf(beta));
        }
    });
    T::store(x.dtype(), x.dims(), output)
}

fn lp_norm<T: Real>(op: &op::LpNorm, x: &Tensor) -> Result<Tensor, String> {
    let p = op.p as f64;
    along_axis::<T>(x, op.axis, &|row| {
        let norm = row.iter().map(|x| wide(x).abs().powf(p)).sum::<f64>().powf(1.0 / p);
        // A row of zeros stays one.
        let norm = if norm == 0.0 { 1.0 } else { norm };
        row.iter_mut().for_each(|x| *x = T::real(wide(x) / norm));
    })
}

/// As ONNX's function body: the deviation is kept from 0 by 1e-9.
fn mean_variance_norm<T: Real>(op: &op::MeanVarianceNorm, x: &Tensor) -> Result<Tensor, String> {
    let axes = resolve_axes(&op.axes, x.rank())?;
    let order: Dims = (0..x.rank()).filter(|axis| !axes.contains(axis)).chain(axes.iter().copied()).collect();
    let (dims, mut elements) = super::layout::permuted(&T::load(x)?, x.dims(), &order)?;
    let length = product(&dims[x.rank() - axes.len()..]);
    in_rows(&mut elements, length, &|_, row| {
        let (mean, variance) = moments(row);
        let deviation = variance.sqrt() + 1e-9;
        row.iter_mut().for_each(|x| *x = T::real((wide(x) - mean) / deviation));
    });
    let mut back = Dims::from_elem(0, x.rank());
    for (at, axis) in order.iter().enumerate() {
        back[*axis] = at;
    }
    T::store(x.dtype(), x.dims(), super::layout::permuted(&elements, &dims, &back)?.1)
}
