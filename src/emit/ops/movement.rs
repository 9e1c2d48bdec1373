//! Layers that move data.

use trt_fuse_ir::op::{
    Concat, ConstantOfShape, DepthToSpace, Pad, PadMode, Roll, ShapeOf, Shuffle, Slice, Split, Transpose,
};
use trt_fuse_ir::{DType, Dim, Shape};

use super::super::error::EmitError;
use super::super::layers::{DimsArg, Fill, FillArg, Slice as SliceLayer};
use super::super::sink::{NetworkSink, Outputs, Weights};
use super::super::site::Site;
use super::super::terms::{FillKind, SampleMode};
use super::runtime;

fn output_shape<'g, S: NetworkSink<'g>>(site: &Site<'_, '_, 'g, S>) -> Result<Shape, EmitError> {
    match site.output().and_then(|info| info.shape.clone()) {
        Some(shape) => Ok(shape),
        None => site.unsupported("the output's rank is not known"),
    }
}

fn input_shape<'g, S: NetworkSink<'g>>(site: &Site<'_, '_, 'g, S>) -> Result<Shape, EmitError> {
    match site.info(0).and_then(|info| info.shape.clone()) {
        Some(shape) => Ok(shape),
        None => site.unsupported("the input's rank is not known"),
    }
}

/// Every reshape whose output shape inference knows, whatever the operator's form.
pub(super) fn reshape<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>) -> Result<S::Tensor, EmitError> {
    let shape = output_shape(site)?;
    let x = site.tensor(0)?;
    let is_told = |dim: &Dim| dim.as_symbol().is_none() || !site.is_unbound(dim);
    match site.source(1) {
        // The sizes are the shape input's elements, -1 among them perhaps; lowering has left no 0 that means another size.
        Some(_) if !shape.iter().all(is_told) => {
            let dims = site.tensor(1)?;
            site.shuffle(x, None, Some(DimsArg::Tensor(dims)), None, "")
        }
        _ => site.reshape_to(x, &shape, ""),
    }
}

/// One element in a shape that an input gives.
pub(super) fn constant_of_shape<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &ConstantOfShape,
) -> Result<S::Tensor, EmitError> {
    runtime::sizes(site, 0, None)?;
    let size = output_shape(site)?;
    let element = op.value.reshaped(vec![1; size.len()]);
    let Ok(element) = element else { return site.unsupported("a value that is not one element") };
    let x = site.layer("value", |sink, label| sink.constant(label, Weights::Owned(element)))?;
    let start = Shape::from_elem(Dim::fixed(0), size.len());
    let stride = Shape::from_elem(Dim::fixed(0), size.len());
    cut(site, x, Region::inside(&start, &size, &stride), "")
}

/// Integers one step apart.
pub(super) fn range<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>) -> Result<S::Tensor, EmitError> {
    let dtype = site.dtype();
    let size = output_shape(site)?;
    let unbound = size.iter().any(|dim| site.is_unbound(dim));
    if unbound && !dtype.is_integer() {
        return site.unsupported("a number of floats that is known only at run time");
    }
    runtime::range(site)?;
    let fixed: Option<Vec<i64>> = size.iter().map(Dim::value).collect();
    let dims = match &fixed {
        Some(dims) => DimsArg::Fixed(dims),
        None => DimsArg::Tensor(site.dims_tensor(&size)?),
    };
    let start = site.tensor(0)?;
    let step = site.tensor(2)?;
    let step = site.shuffle(step, None, Some(DimsArg::Fixed(&[1])), None, "step")?;
    // Half types are counted in f32.
    let counted = if dtype.is_float() { DType::F32 } else { dtype };
    let (mut start, mut step) = (start, step);
    if counted != dtype {
        start = site.layer("start", |sink, label| sink.cast(label, start, counted))?;
        step = site.layer("step", |sink, label| sink.cast(label, step, counted))?;
    }
    let (alpha, beta) = (FillArg::Tensor(start), FillArg::Tensor(step));
    let layer = Fill { kind: FillKind::Linspace, dims, dtype: counted, alpha, beta };
    if counted == dtype {
        return site.layer("", |sink, label| sink.fill(label, &layer));
    }
    let y = site.layer("counted", |sink, label| sink.fill(label, &layer))?;
    site.layer("", |sink, label| sink.cast(label, y, dtype))
}

pub(super) fn transpose<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &Transpose,
) -> Result<S::Tensor, EmitError> {
    let x = site.tensor(0)?;
    site.shuffle(x, Some(&op.perm), None, None, "")
}

pub(super) fn shuffle<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &Shuffle,
) -> Result<S::Tensor, EmitError> {
    let x = site.tensor(0)?;
    match &op.shape {
        Some(shape) => site.reshape_between(x, op.before.as_deref(), shape, op.after.as_deref(), ""),
        None => site.shuffle(x, op.before.as_deref(), None, op.after.as_deref(), ""),
    }
}

pub(super) fn concat<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &Concat,
) -> Result<S::Tensor, EmitError> {
    let rank = site.rank(0)?;
    let axis = if op.axis < 0 { op.axis + rank as i64 } else { op.axis };
    let mut inputs = Vec::new();
    for slot in 0..site.node.arity as usize {
        inputs.push(site.tensor(slot)?);
    }
    site.layer("", |sink, label| sink.concatenation(label, &inputs, axis))
}

/// What a slice layer reads, its extents known or symbolic.
struct Region<'a, T> {
    start: &'a Shape,
    size: &'a Shape,
    stride: &'a Shape,
    mode: SampleMode,
    fill: Option<T>,
}

impl<'a, T> Region<'a, T> {
    /// Elements one step apart, all inside the input.
    fn inside(start: &'a Shape, size: &'a Shape, stride: &'a Shape) -> Self {
        Self { start, size, stride, mode: SampleMode::StrictBounds, fill: None }
    }
}

fn cut<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    x: S::Tensor,
    region: Region<'_, S::Tensor>,
    what: &str,
) -> Result<S::Tensor, EmitError> {
    let Region { start, size, stride, mode, fill } = region;
    let fixed = |shape: &Shape| shape.iter().map(Dim::value).collect::<Option<Vec<i64>>>();
    let (fixed_start, fixed_size, fixed_stride) = (fixed(start), fixed(size), fixed(stride));
    let start = match &fixed_start {
        Some(start) => DimsArg::Fixed(start),
        None => DimsArg::Tensor(site.dims_tensor(start)?),
    };
    let size = match &fixed_size {
        Some(size) => DimsArg::Fixed(size),
        None => DimsArg::Tensor(site.dims_tensor(size)?),
    };
    let stride = match &fixed_stride {
        Some(stride) => DimsArg::Fixed(stride),
        None => DimsArg::Tensor(site.dims_tensor(stride)?),
    };
    let layer = SliceLayer { start, size, stride, mode, fill };
    site.layer(what, |sink, label| sink.slice(label, x, &layer))
}

pub(super) fn slice<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &Slice,
) -> Result<S::Tensor, EmitError> {
    let size = output_shape(site)?;
    let (Some(axes), Some(starts), Some(steps)) = (&op.axes, &op.starts, &op.steps) else {
        let (start, stride) = runtime::slice(site)?;
        let x = site.tensor(0)?;
        // A slice of nothing may start behind the last element.
        return cut(site, x, Region { mode: SampleMode::Clamp, ..Region::inside(&start, &size, &stride) }, "");
    };
    // And backwards from the last of none.
    let mode = if starts.iter().all(|start| start.at_least(0)) { SampleMode::StrictBounds } else { SampleMode::Clamp };
    let mut start = Shape::from_elem(Dim::fixed(0), size.len());
    let mut stride = Shape::from_elem(Dim::fixed(1), size.len());
    for ((axis, first), step) in axes.iter().zip(starts).zip(steps) {
        let at = usize::try_from(*axis).unwrap_or(usize::MAX);
        let (Some(start), Some(stride)) = (start.get_mut(at), stride.get_mut(at)) else {
            return site.unsupported(format!("axis {axis} of a tensor of rank {}", size.len()));
        };
        *start = first.clone();
        *stride = Dim::fixed(*step);
    }
    let x = site.tensor(0)?;
    cut(site, x, Region { mode, ..Region::inside(&start, &size, &stride) }, "")
}

pub(super) fn split<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &Split,
) -> Result<Outputs<S::Tensor>, EmitError> {
    let rank = site.rank(0)?;
    let axis = usize::try_from(if op.axis < 0 { op.axis + rank as i64 } else { op.axis }).unwrap_or(usize::MAX);
    runtime::split(site)?;
    let x = site.tensor(0)?;
    let mut start = Shape::from_elem(Dim::fixed(0), rank);
    let mut outputs = Outputs::new();
    for (slot, value) in site.node.outputs.iter().enumerate() {
        let Some(size) = &value.info.shape else { return site.unsupported("the parts' sizes are not known") };
        let stride = Shape::from_elem(Dim::fixed(1), rank);
        let what = if slot == 0 { String::new() } else { format!("part{slot}") };
        outputs.push(cut(site, x, Region::inside(&start, size, &stride), &what)?);
        if let (Some(first), Some(length)) = (start.get_mut(axis), size.get(axis)) {
            *first = &*first + length;
        }
    }
    Ok(outputs)
}

/// A slice of the whole that begins at the shift and goes on at the other end.
pub(super) fn roll<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>, op: &Roll) -> Result<S::Tensor, EmitError> {
    let size = output_shape(site)?;
    let mut start = Shape::from_elem(Dim::fixed(0), size.len());
    for (axis, shift) in op.axes.iter().zip(&op.shifts) {
        let at = usize::try_from(*axis).unwrap_or(usize::MAX);
        match start.get_mut(at) {
            Some(start) => *start = Dim::fixed(*shift),
            None => return site.unsupported(format!("axis {axis} of a tensor of rank {}", size.len())),
        }
    }
    let x = site.tensor(0)?;
    let stride = Shape::from_elem(Dim::fixed(1), size.len());
    cut(site, x, Region { mode: SampleMode::Wrap, ..Region::inside(&start, &size, &stride) }, "")
}

pub(super) fn pad<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>, op: &Pad) -> Result<S::Tensor, EmitError> {
    let size = output_shape(site)?;
    let start: Shape = match &op.pads {
        Some(pads) => pads.iter().take(size.len()).map(|pad| Dim::fixed(-pad)).collect(),
        None => runtime::pad(site)?,
    };
    let mode = match op.mode {
        PadMode::Constant => SampleMode::Fill,
        PadMode::Reflect => SampleMode::Reflect,
        PadMode::Edge => SampleMode::Clamp,
        PadMode::Wrap => SampleMode::Wrap,
        other => return site.unsupported(format!("TensorRT has no `{}` padding", other.word())),
    };
    let x = site.tensor(0)?;
    let fill = match (op.mode, site.source(2)) {
        (PadMode::Constant, Some(_)) => {
            let value = site.tensor(2)?;
            // A scalar, where a model may have a vector of one.
            if site.rank(2)? == 0 {
                Some(value)
            } else {
                Some(site.shuffle(value, None, Some(DimsArg::Fixed(&[])), None, "value")?)
            }
        }
        _ => None,
    };
    let stride = Shape::from_elem(Dim::fixed(1), size.len());
    cut(site, x, Region { start: &start, size: &size, stride: &stride, mode, fill }, "")
}

/// Repeats by reading extents of one with a stride of 0.
pub(super) fn expand<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>) -> Result<S::Tensor, EmitError> {
    runtime::expand(site)?;
    let size = output_shape(site)?;
    let own = input_shape(site)?;
    let x = site.aligned(0, size.len())?;
    let lead = size.len().saturating_sub(own.len());
    let mut stride = Shape::new();
    for (axis, dim) in size.iter().enumerate() {
        let from = axis.checked_sub(lead).and_then(|axis| own.get(axis)).cloned().unwrap_or(Dim::fixed(1));
        // Whether a size is 1, and so broadcast, may be known only at run time.
        stride.push(match from.value() {
            Some(1) if !dim.is(1) => Dim::fixed(0),
            _ if from == *dim || from.value().is_some() => Dim::fixed(1),
            _ => (&from - &Dim::fixed(1)).minimum(&Dim::fixed(1)),
        });
    }
    let start = Shape::from_elem(Dim::fixed(0), size.len());
    cut(site, x, Region::inside(&start, &size, &stride), "")
}

pub(super) fn tile<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>) -> Result<S::Tensor, EmitError> {
    runtime::tile(site)?;
    let size = output_shape(site)?;
    let x = site.tensor(0)?;
    let start = Shape::from_elem(Dim::fixed(0), size.len());
    let stride = Shape::from_elem(Dim::fixed(1), size.len());
    cut(site, x, Region { mode: SampleMode::Wrap, ..Region::inside(&start, &size, &stride) }, "")
}

pub(super) fn shape_of<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &ShapeOf,
) -> Result<S::Tensor, EmitError> {
    let rank = site.rank(0)? as i64;
    let clamp = |value: i64| if value < 0 { value + rank } else { value }.clamp(0, rank);
    let (start, end) = (clamp(op.start), clamp(op.end.unwrap_or(rank)));
    let x = site.tensor(0)?;
    let mut y = site.layer("", |sink, label| sink.shape(label, x))?;
    if start != 0 || end != rank {
        let size = Shape::from_iter([Dim::fixed((end - start).max(0))]);
        let start = Shape::from_iter([Dim::fixed(start)]);
        y = cut(site, y, Region::inside(&start, &size, &Shape::from_iter([Dim::fixed(1)])), "range")?;
    }
    // Before TensorRT 10 extents are Int32.
    if site.capabilities().index_dtype() != site.dtype() {
        let dtype = site.dtype();
        y = site.layer("cast", |sink, label| sink.cast(label, y, dtype))?;
    }
    Ok(y)
}

/// Reshape, transpose, reshape: two shuffle layers.
pub(super) fn depth_to_space<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &DepthToSpace,
) -> Result<S::Tensor, EmitError> {
    let shape = input_shape(site)?;
    let [n, c, h, w] = &shape[..] else { return site.unsupported("an input that is not of rank 4") };
    let block = Dim::fixed(op.block);
    if op.block <= 0 {
        return site.unsupported(format!("blocks of {}", op.block));
    }
    let divided = |dim: &Dim, by: &Dim| dim.floor_div(by).unwrap_or(Dim::fixed(0));
    let square = &block * &block;
    let (split, perm): (Vec<Dim>, [i64; 6]) = if op.inverse {
        let split = vec![n.clone(), c.clone(), divided(h, &block), block.clone(), divided(w, &block), block.clone()];
        (split, if op.crd { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] })
    } else if op.crd {
        let split = vec![n.clone(), divided(c, &square), block.clone(), block.clone(), h.clone(), w.clone()];
        (split, [0, 1, 4, 2, 5, 3])
    } else {
        let split = vec![n.clone(), block.clone(), block.clone(), divided(c, &square), h.clone(), w.clone()];
        (split, [0, 3, 4, 1, 5, 2])
    };
    let x = site.tensor(0)?;
    let split = site.reshape_to(x, &split.into_iter().collect(), "split")?;
    let moved = site.shuffle(split, Some(&perm), None, None, "transpose")?;
    let out = output_shape(site)?;
    site.reshape_to(moved, &out, "")
}
