//! Operators that move data without computing.

use ndarray::{Axis, IxDyn, concatenate};
use smallvec::SmallVec;

use super::elements::{Elements, elements, few, known, reshaped, single};
use super::math::broadcast;
use super::{InferContext, Infos, Inputs, join_dtypes, one, resolve_axes, resolve_axis, shaped, unify};
use crate::op::{Concat, ConstantOfShape, DepthToSpace, EyeLike, Pad, Reshape, Roll, ShapeOf, Shuffle, Split};
use crate::{DType, Dim, Ints, Op, Shape, Tensor, ValueInfo};

mod slice;

pub(super) fn infer(op: &Op, inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<Infos, String> {
    let x = inputs.required(0)?;
    Ok(one(match op {
        Op::Reshape(op) => reshape(op, inputs, context)?,
        Op::Flatten(op) => flatten(op.axis, x)?,
        Op::Squeeze(op) => squeeze(op.axes.as_ref(), inputs)?,
        Op::Unsqueeze(op) => unsqueeze(op.axes.as_ref(), inputs)?,
        Op::Transpose(op) => transpose(&op.perm, x)?,
        Op::Shuffle(op) => shuffle(op, x)?,
        Op::Expand(op) => expand(op.shape.as_ref(), inputs, context)?,
        Op::Concat(op) => concat(op, inputs, context)?,
        Op::Split(op) => return split(op, inputs, context),
        Op::Slice(op) => slice::slice(op, inputs, context)?,
        Op::Roll(op) => roll(op, x)?,
        Op::Pad(op) => pad(op, inputs, context)?,
        Op::Tile(_) => tile(x, inputs.required(1)?, context)?,
        Op::ShapeOf(op) => shape_of(op, x, context),
        Op::Size => {
            let count = x.numel().map(|count| Elements::from_elem(IxDyn(&[]), count));
            known(DType::I64, Some(Shape::new()), count)
        }
        Op::Range => range(x, inputs.required(1)?, inputs.required(2)?, context)?,
        Op::ConstantOfShape(op) => constant_of_shape(op, x, context)?,
        Op::DepthToSpace(op) => depth_to_space(op, x)?,
        Op::EyeLike(op) => eye_like(op, x)?,
        Op::Trilu(_) => match x.rank() {
            Some(rank) if rank < 2 => return Err(format!("a triangle of rank {rank}")),
            _ => shaped(x.dtype, x.shape.clone()),
        },
        op => return Err(format!("{op} moves no data")),
    }))
}

/// A shape of so many dimensions that only the data tells.
fn fresh_shape(rank: usize, context: &InferContext<'_>) -> Shape {
    (0..rank).map(|axis| context.fresh(&format!("d{axis}"))).collect()
}

/// The number of elements of a vector, if it is a number and a sensible rank.
fn vector_length(info: &ValueInfo) -> Option<usize> {
    let [length] = info.shape.as_deref()? else { return None };
    usize::try_from(length.value()?).ok().filter(|length| *length <= 64)
}

fn check_sizes(shape: &Shape) -> Result<(), String> {
    match shape.iter().find(|dim| dim.value().is_some_and(|size| size < 0)) {
        Some(size) => Err(format!("size of {size}")),
        None => Ok(()),
    }
}

fn check_same_count(data: &Shape, shape: &Shape) -> Result<(), String> {
    let (before, after) = (Dim::product(data), Dim::product(shape));
    match (&before - &after).value() {
        Some(gap) if gap != 0 => Err(format!("{before} elements into {after}")),
        _ => Ok(()),
    }
}

fn reshape(op: &Reshape, inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<ValueInfo, String> {
    let x = inputs.required(0)?;
    let shape = match (&op.shape, inputs.optional(1)) {
        (Some(shape), _) => Some(shape.clone()),
        (None, Some(wanted)) => match wanted.known_elements() {
            Some(wanted) => Some(resolve_reshape(&wanted, op.allow_zero, x.shape.as_ref(), context)?),
            None => vector_length(wanted).map(|rank| fresh_shape(rank, context)),
        },
        (None, None) => return Err("neither an attribute nor an input gives the shape".to_string()),
    };
    shape.map_or(Ok(moved(x, None)), |shape| reshaped_to(&shape, x))
}

fn reshaped_to(shape: &Shape, x: &ValueInfo) -> Result<ValueInfo, String> {
    check_sizes(shape)?;
    if let Some(data) = &x.shape {
        check_same_count(data, shape)?;
    }
    Ok(moved(x, Some(shape.clone())))
}

/// The input under another shape, its elements in the same order.
fn moved(x: &ValueInfo, shape: Option<Shape>) -> ValueInfo {
    let result = shape.as_ref().and_then(|shape| reshaped(&elements(x)?, shape));
    known(x.dtype, shape, result)
}

/// The shape that a Reshape's shape input asks for: 0 copies a dimension, -1 takes what is left. An expression is taken
/// for a size: it is some tensor's dimension, even where nothing proves that it is not negative.
fn resolve_reshape(
    wanted: &[Dim],
    allow_zero: bool,
    data: Option<&Shape>,
    context: &InferContext<'_>,
) -> Result<Shape, String> {
    let mut shape = Shape::new();
    let mut rest = None;
    for (axis, dim) in wanted.iter().enumerate() {
        shape.push(match dim.value() {
            Some(0) if !allow_zero => match data {
                Some(data) => {
                    data.get(axis).cloned().ok_or_else(|| format!("0 at axis {axis} of rank {}", data.len()))?
                }
                None => context.fresh(&format!("d{axis}")),
            },
            Some(-1) => {
                if rest.replace(axis).is_some() {
                    return Err("two sizes of -1".to_string());
                }
                Dim::fixed(1)
            }
            Some(size) if size < 0 => return Err(format!("size of {size}")),
            _ => dim.clone(),
        });
    }
    let Some(rest) = rest else { return Ok(shape) };
    let left = match data {
        Some(data) => {
            let (total, taken) = (Dim::product(data), Dim::product(&shape));
            if let (Some(total), Some(taken)) = (total.value(), taken.value())
                && taken != 0
                && total % taken != 0
            {
                return Err(format!("{total} elements in groups of {taken}"));
            }
            total.exact_div(&taken).or_else(|| total.floor_div(&taken))
        }
        None => None,
    };
    if let Some(dim) = shape.get_mut(rest) {
        *dim = left.unwrap_or_else(|| context.fresh(&format!("d{rest}")));
    }
    Ok(shape)
}

fn flatten(axis: i64, x: &ValueInfo) -> Result<ValueInfo, String> {
    let Some(data) = &x.shape else { return Ok(shaped(x.dtype, None)) };
    // The axis may be one past the last.
    let axis = if axis == data.len() as i64 { data.len() } else { resolve_axis(axis, data.len())? };
    let (before, after) = data.split_at(axis);
    Ok(moved(x, Some(Shape::from_iter([Dim::product(before), Dim::product(after)]))))
}

/// Axes from the attribute or input 1: `Some(None)` if neither is there, `None` if they are computed.
fn listed_axes(attribute: Option<&Ints>, inputs: Inputs<'_>) -> Option<Option<Ints>> {
    match (attribute, inputs.optional(1)) {
        (Some(axes), _) => Some(Some(axes.clone())),
        (None, Some(axes)) => Some(Some(axes.known_ints()?.into())),
        (None, None) => Some(None),
    }
}

fn squeeze(attribute: Option<&Ints>, inputs: Inputs<'_>) -> Result<ValueInfo, String> {
    let x = inputs.required(0)?;
    let (Some(data), Some(axes)) = (&x.shape, listed_axes(attribute, inputs)) else {
        return Ok(shaped(x.dtype, None));
    };
    let axes = match axes {
        Some(axes) => resolve_axes(&axes, data.len())?,
        // Whether a symbolic dimension goes is not known, unless it is surely more than 1.
        None if data.iter().any(|dim| dim.value().is_none() && !dim.at_least(2)) => return Ok(shaped(x.dtype, None)),
        None => (0..data.len()).filter(|axis| data.get(*axis).is_some_and(|dim| dim.is(1))).collect(),
    };
    for axis in &axes {
        if let Some(dim) = data.get(*axis).filter(|dim| dim.value().is_some_and(|size| size != 1) || dim.at_least(2)) {
            return Err(format!("axis {axis} has size {dim}, not 1"));
        }
    }
    let kept = data.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
    Ok(moved(x, Some(kept.map(|(_, dim)| dim.clone()).collect())))
}

fn unsqueeze(attribute: Option<&Ints>, inputs: Inputs<'_>) -> Result<ValueInfo, String> {
    let x = inputs.required(0)?;
    let (Some(data), Some(axes)) = (&x.shape, listed_axes(attribute, inputs)) else {
        return Ok(shaped(x.dtype, None));
    };
    let axes = axes.ok_or("neither an attribute nor an input gives the axes")?;
    let rank = data.len() + axes.len();
    let axes = resolve_axes(&axes, rank)?;
    let mut dims = data.iter().cloned();
    let shape: Option<Shape> =
        (0..rank).map(|axis| if axes.contains(&axis) { Some(Dim::fixed(1)) } else { dims.next() }).collect();
    Ok(moved(x, shape))
}

fn shuffle(op: &Shuffle, x: &ValueInfo) -> Result<ValueInfo, String> {
    let mut x = x.clone();
    if let Some(perm) = &op.before {
        x = transpose(perm, &x)?;
    }
    if let Some(shape) = &op.shape {
        x = reshaped_to(shape, &x)?;
    }
    op.after.as_ref().map_or(Ok(x.clone()), |perm| transpose(perm, &x))
}

fn roll(op: &Roll, x: &ValueInfo) -> Result<ValueInfo, String> {
    if op.axes.len() != op.shifts.len() {
        return Err(format!("{} axes and {} shifts", op.axes.len(), op.shifts.len()));
    }
    let Some(data) = &x.shape else { return Ok(shaped(x.dtype, None)) };
    let axes = resolve_axes(&op.axes, data.len())?;
    for (axis, shift) in axes.iter().zip(&op.shifts) {
        let size = data.get(*axis).and_then(Dim::value);
        if *shift < 0 || size.is_some_and(|size| *shift > size) {
            return Err(format!("axis {axis} of {data:?} is moved by {shift}"));
        }
    }
    Ok(shaped(x.dtype, Some(data.clone())))
}

fn transpose(perm: &[i64], x: &ValueInfo) -> Result<ValueInfo, String> {
    let Some(data) = &x.shape else { return Ok(shaped(x.dtype, None)) };
    let perm = resolve_axes(perm, data.len())?;
    if perm.len() != data.len() {
        return Err(format!("permutation of {} axes for rank {}", perm.len(), data.len()));
    }
    let shape = perm.iter().filter_map(|axis| data.get(*axis).cloned()).collect();
    let result = elements(x).map(|x| x.permuted_axes(IxDyn(&perm)));
    Ok(known(x.dtype, Some(shape), result))
}

fn expand(attribute: Option<&Shape>, inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<ValueInfo, String> {
    let x = inputs.required(0)?;
    let wanted: Option<Shape> = match (attribute, inputs.optional(1)) {
        (Some(shape), _) => Some(shape.clone()),
        (None, Some(wanted)) => match wanted.known_elements() {
            Some(wanted) => Some(wanted.into()),
            None => {
                let (Some(wanted), Some(own)) = (vector_length(wanted), &x.shape) else {
                    return Ok(shaped(x.dtype, None));
                };
                let mut shape = fresh_shape(wanted.max(own.len()), context);
                // A size other than 1 is not broadcast, nor one that nothing is wanted of.
                for (at, (dim, own)) in shape.iter_mut().rev().zip(own.iter().rev()).enumerate() {
                    if at >= wanted || own.value().is_some_and(|own| own != 1) {
                        *dim = own.clone();
                    }
                }
                return Ok(shaped(x.dtype, Some(shape)));
            }
        },
        (None, None) => return Err("neither an attribute nor an input gives the shape".to_string()),
    };
    let (Some(data), Some(wanted)) = (&x.shape, wanted) else { return Ok(shaped(x.dtype, None)) };
    check_sizes(&wanted)?;
    let shape = broadcast(data, &wanted)?;
    let result = few(&shape).and_then(|dims| Some(elements(x)?.broadcast(IxDyn(&dims))?.to_owned()));
    Ok(known(x.dtype, Some(shape), result))
}

fn concat(op: &Concat, inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<ValueInfo, String> {
    let mut dtype = DType::Unknown;
    let mut joined: Option<(Shape, usize)> = None;
    let mut complete = true;
    for slot in 0..inputs.len() {
        let input = inputs.required(slot)?;
        dtype = join_dtypes(dtype, input.dtype)?;
        let Some(shape) = &input.shape else {
            complete = false;
            continue;
        };
        let Some((total, axis)) = &mut joined else {
            joined = Some((shape.clone(), resolve_axis(op.axis, shape.len())?));
            continue;
        };
        if shape.len() != total.len() {
            return Err(format!("input {slot} of rank {}, others of rank {}", shape.len(), total.len()));
        }
        for (at, (total, dim)) in total.iter_mut().zip(shape).enumerate() {
            *total = if at == *axis {
                &*total + dim
            } else {
                unify(total, dim).map_err(|_| format!("input {slot}: {dim} along axis {at}, others {total}"))?
            };
        }
    }
    let Some((mut shape, axis)) = joined else { return Ok(shaped(dtype, None)) };
    if !complete {
        if let Some(dim) = shape.get_mut(axis) {
            *dim = context.fresh(&format!("d{axis}"));
        }
        return Ok(shaped(dtype, Some(shape)));
    }
    let result = few(&shape).and_then(|_| {
        let parts: Vec<Elements> =
            (0..inputs.len()).map(|slot| elements(inputs.optional(slot)?)).collect::<Option<_>>()?;
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        concatenate(Axis(axis), &views).ok()
    });
    Ok(known(dtype, Some(shape), result))
}

fn split(op: &Split, inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<Infos, String> {
    let x = inputs.required(0)?;
    let unshaped = || SmallVec::from_elem(shaped(x.dtype, None), context.outputs);
    let Some(data) = &x.shape else { return Ok(unshaped()) };
    let axis = resolve_axis(op.axis, data.len())?;
    let size = data.get(axis).cloned().unwrap_or(Dim::fixed(1));
    let sizes: Vec<Dim> = match (&op.sizes, inputs.optional(1)) {
        (Some(sizes), _) => sizes.to_vec(),
        (None, Some(sizes)) => match sizes.known_elements() {
            Some(sizes) => sizes,
            None => (0..context.outputs).map(|part| context.fresh(&format!("part{part}"))).collect(),
        },
        (None, None) => equal_parts(&size, context.outputs)?,
    };
    if sizes.len() != context.outputs {
        return Err(format!("{} sizes for {} outputs", sizes.len(), context.outputs));
    }
    let total = sizes.iter().fold(Dim::fixed(0), |total, size| &total + size);
    if (&total - &size).value().is_some_and(|gap| gap != 0) {
        return Err(format!("parts of {total} elements in all, axis {axis} has {size}"));
    }
    let whole = elements(x);
    let mut start = Some(0_usize);
    let parts = sizes.into_iter().map(|size| {
        let mut shape = data.clone();
        if let Some(dim) = shape.get_mut(axis) {
            *dim = size.clone();
        }
        check_sizes(&shape)?;
        let from = start;
        start = from.zip(size.value()).and_then(|(from, size)| from.checked_add(usize::try_from(size).ok()?));
        let part = from.zip(start).zip(whole.as_ref()).and_then(|((from, to), whole)| {
            let inside = to <= *whole.shape().get(axis)?;
            inside.then(|| whole.slice_axis(Axis(axis), ndarray::Slice::from(from..to)).to_owned())
        });
        Ok(known(x.dtype, Some(shape), part))
    });
    parts.collect()
}

/// Parts of equal size, the last one what is left.
fn equal_parts(size: &Dim, parts: usize) -> Result<Vec<Dim>, String> {
    let count = Dim::from(parts);
    let part = size.ceil_div(&count).ok_or("split into no parts")?;
    let last = size - &(&part * &(&count - &Dim::fixed(1)));
    if last.value().is_some_and(|last| last < 0) {
        return Err(format!("{size} elements in {parts} parts"));
    }
    let mut sizes = vec![part; parts];
    if let Some(size) = sizes.last_mut() {
        *size = last;
    }
    Ok(sizes)
}

fn pad(op: &Pad, inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<ValueInfo, String> {
    let x = inputs.required(0)?;
    let Some(data) = &x.shape else { return Ok(shaped(x.dtype, None)) };
    let axes = match inputs.optional(3) {
        None => (0..data.len()).collect(),
        Some(axes) => match axes.known_ints() {
            Some(axes) => resolve_axes(&axes, data.len())?,
            None => return Ok(shaped(x.dtype, Some(fresh_shape(data.len(), context)))),
        },
    };
    let pads: Option<Vec<Dim>> = match (&op.pads, inputs.optional(1)) {
        (Some(pads), _) => Some(pads.iter().copied().map(Dim::fixed).collect()),
        (None, Some(pads)) => pads.known_elements(),
        (None, None) => return Err("neither an attribute nor an input gives the pads".to_string()),
    };
    if let Some(pads) = &pads
        && pads.len() != 2 * axes.len()
    {
        return Err(format!("{} pads for {} axes", pads.len(), axes.len()));
    }
    let mut shape = data.clone();
    for (at, axis) in axes.iter().enumerate() {
        let Some(dim) = shape.get_mut(*axis) else { continue };
        let added = pads.as_ref().and_then(|pads| Some(pads.get(at)? + pads.get(at + axes.len())?));
        *dim = added.map_or_else(|| context.fresh(&format!("d{axis}")), |added| &*dim + &added);
    }
    check_sizes(&shape)?;
    Ok(shaped(x.dtype, Some(shape)))
}

fn tile(x: &ValueInfo, repeats: &ValueInfo, context: &InferContext<'_>) -> Result<ValueInfo, String> {
    let Some(data) = &x.shape else { return Ok(shaped(x.dtype, None)) };
    let Some(repeats) = repeats.known_elements() else {
        return Ok(shaped(x.dtype, Some(fresh_shape(data.len(), context))));
    };
    if repeats.len() != data.len() {
        return Err(format!("{} repeats for rank {}", repeats.len(), data.len()));
    }
    let shape: Shape = data.iter().zip(&repeats).map(|(dim, repeat)| dim * repeat).collect();
    check_sizes(&shape)?;
    let result = few(&shape).zip(elements(x)).filter(|(_, x)| !x.is_empty()).map(|(dims, x)| {
        Elements::from_shape_fn(IxDyn(&dims), |index| {
            let source: Vec<usize> = (0..x.ndim()).map(|axis| index[axis] % x.shape()[axis]).collect();
            x[IxDyn(&source)].clone()
        })
    });
    Ok(known(x.dtype, Some(shape), result))
}

fn shape_of(op: &ShapeOf, x: &ValueInfo, context: &InferContext<'_>) -> ValueInfo {
    let Some(data) = &x.shape else {
        return shaped(DType::I64, Some(Shape::from_iter([context.fresh("length")])));
    };
    let rank = data.len() as i64;
    let clamp = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
    let (start, end) = (clamp(op.start), op.end.map_or(data.len(), clamp));
    let dims = data.get(start..end).unwrap_or(&[]).to_vec();
    ValueInfo::elements(DType::I64, Shape::from_iter([Dim::from(dims.len())]), dims)
}

fn range(
    start: &ValueInfo,
    limit: &ValueInfo,
    step: &ValueInfo,
    context: &InferContext<'_>,
) -> Result<ValueInfo, String> {
    let dtype = join_dtypes(join_dtypes(start.dtype, limit.dtype)?, step.dtype)?;
    let float = |info: &ValueInfo| info.as_constant()?.uniform_f64();
    if let (Some(start), Some(limit), Some(step)) = (single(start), single(limit), single(step)) {
        let Some(length) = range_length(&start, &limit, &step)? else {
            return Ok(shaped(dtype, Some(Shape::from_iter([context.fresh("length")]))));
        };
        let shape = Shape::from_iter([length]);
        let result = few(&shape)
            .map(|dims| Elements::from_shape_fn(IxDyn(&dims), |index| &start + &(&Dim::from(index[0]) * &step)));
        return Ok(known(dtype, Some(shape), result));
    }
    let length = match (float(start), float(limit), float(step)) {
        (Some(start), Some(limit), Some(step)) => {
            let length = ((limit - start) / step).ceil();
            if length.is_nan() {
                return Err(format!("range from {start} to {limit} by {step}"));
            }
            Dim::fixed(length.max(0.0) as i64)
        }
        _ => context.fresh("length"),
    };
    Ok(shaped(dtype, Some(Shape::from_iter([length]))))
}

/// `max(ceil((limit - start) / step), 0)`, unless the step's sign is open.
fn range_length(start: &Dim, limit: &Dim, step: &Dim) -> Result<Option<Dim>, String> {
    if step.is(0) {
        return Err("step of 0".to_string());
    }
    let (distance, step) = if step.at_least(1) {
        (limit - start, step.clone())
    } else if (-step).at_least(1) {
        (start - limit, -step)
    } else {
        return Ok(None);
    };
    Ok(distance.maximum(&Dim::fixed(0)).ceil_div(&step))
}

/// The shape that a vector of dimensions tells; `None` if not even its rank is known.
pub(super) fn shape_from(dims: &ValueInfo, context: &InferContext<'_>) -> Result<Option<Shape>, String> {
    let Some(elements) = dims.known_elements() else {
        return Ok(vector_length(dims).map(|rank| fresh_shape(rank, context)));
    };
    let shape: Shape = elements.into();
    check_sizes(&shape)?;
    Ok(Some(shape))
}

fn constant_of_shape(op: &ConstantOfShape, x: &ValueInfo, context: &InferContext<'_>) -> Result<ValueInfo, String> {
    let dtype = op.value.dtype();
    let Some(shape) = shape_from(x, context)? else { return Ok(shaped(dtype, None)) };
    let result =
        few(&shape).zip(first_element(&op.value)).map(|(dims, value)| Elements::from_elem(IxDyn(&dims), value));
    Ok(known(dtype, Some(shape), result))
}

fn first_element(tensor: &Tensor) -> Option<Dim> {
    if tensor.numel() == 1 { Some(Dim::fixed(*tensor.to_i64s()?.first()?)) } else { None }
}

fn depth_to_space(op: &DepthToSpace, x: &ValueInfo) -> Result<ValueInfo, String> {
    let Some(data) = &x.shape else { return Ok(shaped(x.dtype, None)) };
    let [batch, channels, height, width] = data.as_slice() else {
        return Err(format!("data of rank {}, not 4", data.len()));
    };
    if op.block < 1 {
        return Err(format!("blocks of side {}", op.block));
    }
    let (side, area) = (Dim::fixed(op.block), Dim::fixed(op.block.saturating_mul(op.block)));
    let divide = |dim: &Dim, by: &Dim| {
        let whole = dim.modulo(by).and_then(|rest| rest.value()).is_none_or(|rest| rest == 0);
        dim.floor_div(by).filter(|_| whole).ok_or_else(|| format!("{dim} is no multiple of {by}"))
    };
    let shape = if op.inverse {
        [batch.clone(), channels * &area, divide(height, &side)?, divide(width, &side)?]
    } else {
        [batch.clone(), divide(channels, &area)?, height * &side, width * &side]
    };
    Ok(shaped(x.dtype, Some(shape.into_iter().collect())))
}

fn eye_like(op: &EyeLike, x: &ValueInfo) -> Result<ValueInfo, String> {
    match x.rank() {
        Some(rank) if rank != 2 => Err(format!("data of rank {rank}, not 2")),
        _ => Ok(shaped(op.dtype.unwrap_or(x.dtype), x.shape.clone())),
    }
}
