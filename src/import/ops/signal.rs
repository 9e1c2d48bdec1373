//! Signals: Fourier transforms as products with constant matrices, windows, mel weights.

use std::f64::consts::TAU;

use trt_fuse_ir::op::{BinaryOp, Cast, Constant, Conv, MatMul, UnaryOp};
use trt_fuse_ir::{DType, Dim, Epilogue, Ints, Op, Padding, ValueRef};

use super::Row;
use crate::import::ImportError;
use crate::import::attrs::fault;
use crate::import::formula::{Part, front_axis, numbers, to_shape};
use crate::import::node::{Fault, Imported, NodeContext};

pub(super) const ROWS: &[Row] = &[
    Row::new("BlackmanWindow", (1, 1), 1, |node| window(node, [0.42, -0.5, 0.08])),
    Row::new("DFT", (1, 3), 1, dft),
    Row::new("HammingWindow", (1, 1), 1, |node| window(node, [25.0 / 46.0, -21.0 / 46.0, 0.0])),
    Row::new("HannWindow", (1, 1), 1, |node| window(node, [0.5, -0.5, 0.0])),
    Row::new("MelWeightMatrix", (5, 5), 1, mel_weight_matrix),
    Row::new("STFT", (2, 4), 1, stft),
];

/// Most elements of a matrix that is written out.
const MAX_MATRIX: usize = 1 << 26;

/// Longest signal whose possible frames are tried, where run time gives them.
const MAX_SIGNAL: i64 = 1 << 20;

/// A Fourier transform along one axis.
#[derive(Clone, Copy)]
struct Transform {
    /// Its length.
    length: usize,
    /// Numbers of an element of the input: 1 for real ones, 2 for complex ones.
    parts: usize,
    inverse: bool,
    onesided: bool,
}

impl Transform {
    /// How many elements it reads at most.
    fn inputs(&self) -> usize {
        if self.inverse && self.onesided { self.length / 2 + 1 } else { self.length }
    }

    /// How many elements it gives, and the numbers of each.
    fn outputs(&self) -> (usize, usize) {
        match (self.inverse, self.onesided) {
            (true, true) => (self.length, 1),
            (false, true) => (self.length / 2 + 1, 2),
            (_, false) => (self.length, 2),
        }
    }

    /// The matrix from the first `rows` elements to the output: row `(n, part of n)`, column `(k, part of k)`.
    ///
    /// # Errors
    /// Unsupported if it is too large.
    fn matrix(&self, rows: usize) -> Result<Vec<f64>, Fault> {
        let (columns, parts) = self.outputs();
        let size = rows.checked_mul(self.parts).zip(columns.checked_mul(parts)).and_then(|(a, b)| a.checked_mul(b));
        let size = size.filter(|size| *size <= MAX_MATRIX).ok_or_else(|| {
            Fault::Unsupported(format!("a transform of length {} is too large for a matrix", self.length))
        })?;
        let mut matrix = Vec::with_capacity(size);
        for n in 0..rows {
            for of_n in 0..self.parts {
                for k in 0..columns {
                    let (sin, cos) = self.turn(n, k);
                    for of_k in 0..parts {
                        // (x + iy)(cos + i sin)
                        matrix.push(
                            self.share(n)
                                * match (of_n, of_k) {
                                    (0, 0) | (1, 1) => cos,
                                    (0, _) => sin,
                                    _ => -sin,
                                },
                        );
                    }
                }
            }
        }
        Ok(matrix)
    }

    /// What element n counts: in an inverse transform of one side it stands for its mirror image too.
    fn share(&self, n: usize) -> f64 {
        match (self.inverse, self.onesided) {
            (false, _) => 1.0,
            (true, true) if n != 0 && 2 * n != self.length => 2.0 / self.length as f64,
            (true, _) => 1.0 / self.length as f64,
        }
    }

    /// Sine and cosine of `n * k / length` turns, backwards unless inverse; quarters are exact.
    fn turn(&self, n: usize, k: usize) -> (f64, f64) {
        let length = self.length as u128;
        let at = n as u128 * k as u128 % length;
        let (sin, cos) = match (4 * at / length, 4 * at % length) {
            (0, 0) => (0.0, 1.0),
            (1, 0) => (1.0, 0.0),
            (2, 0) => (0.0, -1.0),
            (3, 0) => (-1.0, 0.0),
            _ => (TAU * at as f64 / length as f64).sin_cos(),
        };
        (if self.inverse { sin } else { -sin }, cos)
    }
}

/// The one integer of an input, if it is known.
fn known_int(node: &NodeContext<'_, '_>, slot: usize) -> Option<i64> {
    let elements = node.info(node.input(slot)?).known_elements()?;
    match &elements[..] {
        [element] => element.value(),
        _ => None,
    }
}

/// The numbers of each element of input 0, real or complex: its last axis.
fn parts(shape: &[Dim]) -> Result<usize, Fault> {
    match shape.last().and_then(Dim::value) {
        Some(1) => Ok(1),
        Some(2) => Ok(2),
        Some(other) => {
            let reason = format!("the last axis has size {other}, 1 or 2 expected");
            Err(ImportError::Operands { reason }.into())
        }
        None => Err(Fault::Unsupported("whether its input is complex is known only at run time".to_owned())),
    }
}

/// The axis is an attribute before opset 20, an input from there on. One that run time gives is an axis whose output has
/// the shape that the model states; where there are several, all are computed.
fn dft(node: &mut NodeContext<'_, '_>) -> Imported {
    let (data, shape) = (node.required(0)?, node.shape(0)?);
    let rank = shape.len();
    let axes = match (node.opset >= 20, node.input(2)) {
        (false, _) => vec![node.attrs.int_or("axis", 1)?],
        (true, None) => vec![-2],
        (true, Some(_)) => match known_int(node, 2) {
            Some(axis) => vec![axis],
            None => (0..rank.saturating_sub(1) as i64).collect(),
        },
    };
    let mut found = Vec::new();
    for axis in &axes {
        let at = front_axis("axis", *axis, rank)?;
        if at + 1 == rank {
            return Err(fault("axis", format!("{axis} is the axis of real and imaginary parts")).into());
        }
        match transform(node, &shape, at) {
            Ok(transform) => found.push((at, transform)),
            // An axis that is only one of several may not fit.
            Err(_) if axes.len() > 1 => {}
            Err(fault) => return Err(fault),
        }
    }
    let output = |(axis, transform): &(usize, Transform)| {
        let mut dims = shape.to_vec();
        let (count, parts) = transform.outputs();
        for (at, size) in [(*axis, count), (rank - 1, parts)] {
            if let Some(dim) = dims.get_mut(at) {
                *dim = Dim::from(size);
            }
        }
        dims
    };
    if found.len() > 1
        && let Some(stated) = node.stated_dims(0)
    {
        found.retain(|candidate| output(candidate) == stated);
    }
    let Some((first, rest)) = found.split_first() else {
        return Err(Fault::Unsupported("the axis that it transforms is known only at run time".to_owned()));
    };
    if rest.iter().any(|other| output(other) != output(first)) {
        return Err(Fault::Unsupported("its output's shape depends on an axis known only at run time".to_owned()));
    }
    let mut y = transformed(node, data, first.0, first.1)?;
    if !rest.is_empty() {
        let axis = node.required(2)?;
        let from_end = node.with_number("axis.from_end", BinaryOp::Less, axis, 0.0)?;
        let counted = node.with_number("axis.counted", BinaryOp::Add, axis, rank as f64)?;
        let axis = node.select("axis.front", from_end, counted, axis)?;
        for (at, transform) in rest {
            let other = transformed(node, data, *at, *transform)?;
            let chosen = node.with_number("chosen", BinaryOp::Equal, axis, *at as f64)?;
            y = node.select("along", chosen, other, y)?;
        }
    }
    node.emit(Op::Unary(UnaryOp::Identity), [Some(y)])
}

/// The transform that the attributes and the length describe, along an axis.
fn transform(node: &NodeContext<'_, '_>, shape: &[Dim], axis: usize) -> Result<Transform, Fault> {
    let (inverse, onesided) = (node.attrs.flag("inverse", false)?, node.attrs.flag("onesided", false)?);
    let size = shape.get(axis).and_then(Dim::value);
    let length = match node.input(1) {
        Some(_) => known_int(node, 1),
        None if inverse && onesided => size.map(|size| size.saturating_sub(1).saturating_mul(2)),
        None => size,
    };
    let (Some(length), Some(_)) = (length, size) else {
        return Err(Fault::Unsupported("the length of the transform is known only at run time".to_owned()));
    };
    let length = usize::try_from(length).ok().filter(|length| *length > 0);
    let length = length.ok_or_else(|| ImportError::Operands { reason: "a transform of no elements".to_owned() })?;
    Ok(Transform { length, parts: parts(shape)?, inverse, onesided })
}

/// Rows of the axis times the matrix. Elements beyond the length are cut off; missing ones would be zeros, and have no
/// rows in the matrix.
fn transformed(node: &mut NodeContext<'_, '_>, data: ValueRef, axis: usize, transform: Transform) -> Part {
    let (shape, dtype) = (node.shape(0)?, node.dtype(0)?);
    let last = shape.len().saturating_sub(1);
    let size = shape.get(axis).and_then(|size| usize::try_from(size.value()?).ok()).unwrap_or(0);
    let rows = size.min(transform.inputs());
    let (columns, parts) = transform.outputs();
    // Refuses sizes whose products could overflow.
    let matrix = transform.matrix(rows)?;
    let matrix = node.numbers_part("matrix", dtype, &[rows * transform.parts, columns * parts], &matrix)?;

    let used = node.slice("used", data, axis, Dim::fixed(0), Dim::from(rows))?;
    let outer: Vec<usize> = (0..last).filter(|at| *at != axis).collect();
    let order: Vec<usize> = outer.iter().copied().chain([axis, last]).collect();
    let moved = node.transpose("moved", used, &order)?;
    let batch: Vec<Dim> = outer.iter().filter_map(|at| shape.get(*at).cloned()).collect();
    let flat = [Dim::product(&batch), Dim::from(rows * transform.parts)];
    let flat = node.reshape("flat", moved, flat)?;
    let product = node.helper("product", MatMul::new(false, false), [flat, matrix])?;
    let wide = node.reshape("wide", product, batch.into_iter().chain([Dim::from(columns), Dim::from(parts)]))?;
    let mut back: Vec<usize> = (0..outer.len()).collect();
    back.insert(axis, outer.len());
    back.push(last);
    node.transpose("transformed", wide, &back)
}

/// A convolution with the rows of the transform, times the window: `[N, length, parts]` to `[N, frames, bins, 2]`.
fn stft(node: &mut NodeContext<'_, '_>) -> Imported {
    let onesided = node.attrs.flag("onesided", true)?;
    let (data, shape, dtype) = (node.required(0)?, node.shape(0)?, node.dtype(0)?);
    if shape.len() != 3 {
        let reason = format!("a signal of rank {}, 3 expected", shape.len());
        return Err(ImportError::Operands { reason }.into());
    }
    let parts = parts(&shape)?;
    let window = node.input(2);
    let of_window = window.and_then(|window| node.info(window).shape?.first()?.value());
    let length = match (node.input(3), of_window) {
        (None, None) => shape.get(1).and_then(Dim::value),
        (_, of_window) => known_int(node, 3).or(of_window),
    };
    let (step, length) = match (known_int(node, 1), length) {
        (Some(step), Some(length)) => (step, length),
        (step, length) => stated_frames(node, &shape, onesided, step, length).ok_or_else(|| {
            Fault::Unsupported("how long its frames are and how far apart is known only at run time".to_owned())
        })?,
    };
    let wrong = || ImportError::Operands { reason: format!("frames of {length} every {step} elements") };
    let length = usize::try_from(length).ok().filter(|length| *length > 0 && step > 0).ok_or_else(wrong)?;

    let transform = Transform { length, parts, inverse: false, onesided };
    let (bins, of_bin) = transform.outputs();
    let matrix = transform.matrix(length)?;
    // From `[(n, part), channel]` to `[channel, part, n]`.
    let channels = bins * of_bin;
    let element = |channel: usize, part: usize, n: usize| matrix.get((n * parts + part) * channels + channel).copied();
    let kernel: Vec<f64> = (0..channels)
        .flat_map(|channel| (0..parts).map(move |part| (channel, part)))
        .flat_map(|(channel, part)| (0..length).map(move |n| (channel, part, n)))
        .filter_map(|(channel, part, n)| element(channel, part, n))
        .collect();
    let mut kernel = node.numbers_part("kernel", dtype, &[channels, parts, length], &kernel)?;
    if let Some(window) = window {
        kernel = node.binary("windowed", BinaryOp::Mul, kernel, window)?;
    }
    let signal = node.transpose("signal", data, &[0, 2, 1])?;
    let op = Conv {
        strides: Ints::from_elem(step, 1),
        dilations: Ints::from_elem(1, 1),
        padding: Padding::none(1),
        groups: 1,
        epilogue: Epilogue::default(),
    };
    let frames = node.helper("frames", op, [signal, kernel])?;
    let frames = node.transpose("by_frame", frames, &[0, 2, 1])?;
    let dims = node.info(frames).shape.unwrap_or_default();
    let outer = dims.iter().take(2).cloned();
    node.emit(to_shape(outer.chain([Dim::from(bins), Dim::from(of_bin)])), [Some(frames)])
}

/// The distance and length of frames that give an output of the shape that the model states, if only one pair does. The
/// parts that are known are given.
fn stated_frames(
    node: &mut NodeContext<'_, '_>,
    shape: &[Dim],
    onesided: bool,
    step: Option<i64>,
    length: Option<i64>,
) -> Option<(i64, i64)> {
    let stated = node.stated_dims(0)?;
    let (frames, bins) = (stated.get(1)?.value()?, stated.get(2)?.value()?);
    let whole = shape.get(1)?.value().filter(|whole| *whole <= MAX_SIGNAL)?;
    let step = match step {
        Some(step) if step < 1 => return None,
        step => step,
    };
    let lengths = match length {
        Some(length) => vec![length],
        None if onesided => {
            let twice = bins.saturating_mul(2);
            vec![twice.saturating_sub(2), twice.saturating_sub(1)]
        }
        None => vec![bins],
    };
    let mut fits = lengths.into_iter().filter(|length| (1..=whole).contains(length)).flat_map(|length| {
        let steps = step.map_or(1..=whole, |step| step..=step);
        steps.filter(move |step| (whole - length) / step + 1 == frames).map(move |step| (step, length))
    });
    let first = fits.next()?;
    fits.next().is_none().then_some(first)
}

/// `a + b cos(x) + c cos(2x)`, where x goes once around: a constant if the size is known, from the input or from what the
/// model states of the output.
fn window(node: &mut NodeContext<'_, '_>, [a, b, c]: [f64; 3]) -> Imported {
    let periodic = node.attrs.flag("periodic", true)?;
    let dtype = node.attrs.dtype("output_datatype")?.unwrap_or(DType::F32);
    let known = known_int(node, 0);
    if let Some(size) = known.or_else(|| node.stated_dims(0)?.first()?.value()) {
        let size = usize::try_from(size).ok().filter(|size| *size <= MAX_MATRIX);
        let size = size.ok_or_else(|| ImportError::Operands { reason: "a window of no sensible size".to_owned() })?;
        let turn = if periodic { size } else { size.saturating_sub(1) }.max(1) as f64;
        let element = |at: usize| a + b * (TAU * at as f64 / turn).cos() + c * (2.0 * TAU * at as f64 / turn).cos();
        return constant(node, dtype, &[size], &(0..size).map(element).collect::<Vec<_>>());
    }
    let size = node.required(0)?;
    let size = node.reshape("size", size, [])?;
    let at = node.count_up("at", size)?;
    let at = node.cast("at.f32", at, DType::F32)?;
    let mut turn = node.cast("turn.f32", size, DType::F32)?;
    if !periodic {
        let less = node.with_number("turn.less", BinaryOp::Sub, turn, 1.0)?;
        turn = node.with_number("turn", BinaryOp::Max, less, 1.0)?;
    }
    let share = node.binary("share", BinaryOp::Div, at, turn)?;
    let mut total = None;
    for (times, factor) in [(1.0, b), (2.0, c)] {
        if factor == 0.0 {
            continue;
        }
        let angle = node.with_number("angle", BinaryOp::Mul, share, times * TAU)?;
        let cos = node.unary("cos", UnaryOp::Cos, angle)?;
        let term = node.with_number("term", BinaryOp::Mul, cos, factor)?;
        total = Some(match total {
            None => node.with_number("sum", BinaryOp::Add, term, a)?,
            Some(total) => node.binary("sum", BinaryOp::Add, total, term)?,
        });
    }
    node.emit(Cast::new(dtype), [total])
}

/// Numbers as the node's output. What is no float of 16 bits or more is rounded from f64.
fn constant(node: &mut NodeContext<'_, '_>, dtype: DType, dims: &[usize], values: &[f64]) -> Imported {
    match numbers(dtype, dims, values) {
        Some(value) => node.emit(Constant { value }, []),
        None => {
            let exact = node.numbers_part("exact", DType::F64, dims, values)?;
            node.emit(Cast::new(dtype), [Some(exact)])
        }
    }
}

/// Triangles over the bins of a spectrum, their corners evenly spaced in mel.
fn mel_weight_matrix(node: &mut NodeContext<'_, '_>) -> Imported {
    let dtype = node.attrs.dtype("output_datatype")?.unwrap_or(DType::F32);
    let edge = |slot| node.constant(slot).and_then(|edge| edge.to_f64s()?.first().copied());
    let (Some(bands), Some(length), Some(rate), Some(low), Some(high)) =
        (known_int(node, 0), known_int(node, 1), known_int(node, 2), edge(3), edge(4))
    else {
        return Err(Fault::Unsupported("its inputs are known only at run time".to_owned()));
    };
    let sensible = |size: i64| usize::try_from(size).ok().filter(|size| *size <= MAX_MATRIX);
    let wrong = || ImportError::Operands { reason: format!("{bands} bands of a spectrum of {length} at {rate} Hz") };
    let (bands, length) = sensible(bands).zip(sensible(length)).filter(|_| rate > 0).ok_or_else(wrong)?;
    let bins = length / 2 + 1;
    let size = bins.checked_mul(bands).filter(|size| *size <= MAX_MATRIX).ok_or_else(wrong)?;
    let mel = |hertz: f64| 2595.0 * (hertz / 700.0).ln_1p() / std::f64::consts::LN_10;
    let hertz = |mel: f64| 700.0 * (mel / 2595.0 * std::f64::consts::LN_10).exp_m1();
    let corners = bands + 2;
    let corner = |at: usize| -> f64 {
        let mel = at as f64 * ((mel(high) - mel(low)) / corners as f64) + mel(low);
        ((length + 1) as f64 * hertz(mel) / rate as f64).floor()
    };
    let corners: Vec<f64> = (0..corners).map(corner).collect();
    let mut matrix = Vec::with_capacity(size);
    for bin in 0..bins {
        let bin = bin as f64;
        for corners in corners.windows(3) {
            let [left, centre, right] = *corners else { continue };
            matrix.push(if bin == centre {
                1.0
            } else if left <= bin && bin < centre {
                (bin - left) / (centre - left)
            } else if centre < bin && bin < right {
                (right - bin) / (right - centre)
            } else {
                0.0
            });
        }
    }
    constant(node, dtype, &[bins, bands], &matrix)
}
