//! Operators that move data. They see bytes, so that they take every dtype of whole bytes; reshapes take all.

use bytes::Bytes;

use super::layout::{self, around, by_width, check_size, copy_strided, filled, product, splat_like, strides, units};
use super::number::{Number, for_number, load_int, load_ints, phrase, same_dtype};
use super::pad::{pad, roll};
use super::{EvalContext, Inputs, Tensors, one};
use crate::infer::{resolve_axes, resolve_axis};
use crate::{Dims, Op, Shape, Tensor, op};

pub(super) fn eval(op: &Op, inputs: Inputs<'_>, context: &EvalContext<'_>) -> Result<Tensors, String> {
    if let Op::Range = op {
        return one(range(inputs.required(0)?, inputs.required(1)?, inputs.required(2)?));
    }
    let x = inputs.required(0)?;
    match op {
        Op::Reshape(op) => one(reshape(op, x, inputs.optional(1), context)),
        Op::Flatten(op) => one(flatten(op, x)),
        Op::Squeeze(op) => one(squeeze(op, x, inputs.optional(1))),
        Op::Unsqueeze(op) => one(unsqueeze(op, x, inputs.optional(1))),
        Op::Transpose(op) => one(transpose(x, &op.perm)),
        Op::Shuffle(op) => one(shuffle(op, x, context)),
        Op::Expand(op) => one(expand(op, x, inputs.optional(1), context)),
        Op::Concat(op) => one(concat(op, inputs)),
        Op::Split(op) => split(op, x, inputs.optional(1), context),
        Op::Slice(op) => one(slice(op, inputs, context)),
        Op::Roll(op) => one(roll(op, x)),
        Op::Pad(op) => one(pad(op, inputs)),
        Op::Tile(_) => one(tile(x, inputs.required(1)?)),
        Op::ShapeOf(op) => one(Ok(shape_of(op, x))),
        Op::Size => one(i64::try_from(x.numel()).map(Tensor::scalar).map_err(phrase)),
        Op::ConstantOfShape(op) => one(constant_of_shape(op, x)),
        Op::DepthToSpace(op) => one(depth_to_space(op, x)),
        Op::EyeLike(op) => one(eye_like(op, x)),
        Op::Trilu(op) => one(trilu(op, x, inputs.optional(1))),
        op => Err(format!("{op} does not move data")),
    }
}

/// Sizes that must be fixed by now: a parameter of symbolic dimensions, or else an input.
fn ints(
    parameter: Option<&Shape>,
    input: Option<&Tensor>,
    what: &str,
    context: &EvalContext<'_>,
) -> Result<Vec<i64>, String> {
    match (parameter, input) {
        (Some(shape), _) => shape
            .iter()
            .map(|dim| {
                let value = dim.evaluate(&|name| context.symbols.get(name).copied());
                value.ok_or_else(|| format!("{what} has `{dim}`, which has no value"))
            })
            .collect(),
        (None, Some(tensor)) => load_ints(tensor, what),
        (None, None) => Err(format!("{what} is missing")),
    }
}

fn size(value: i64) -> Result<usize, String> {
    usize::try_from(value).map_err(|_| format!("a size of {value}"))
}

fn reshape(op: &op::Reshape, x: &Tensor, shape: Option<&Tensor>, context: &EvalContext<'_>) -> Result<Tensor, String> {
    let wanted = ints(op.shape.as_ref(), shape, "the shape", context)?;
    if op.shape.is_some() {
        let dims: Dims = wanted.iter().map(|dim| size(*dim)).collect::<Result<_, _>>()?;
        return x.reshaped(dims).map_err(phrase);
    }
    let mut open = None;
    let mut dims = Dims::new();
    for (axis, dim) in wanted.iter().enumerate() {
        dims.push(match *dim {
            -1 if open.is_none() => {
                open = Some(axis);
                1
            }
            0 if !op.allow_zero => {
                x.dims().get(axis).copied().ok_or_else(|| format!("no axis {axis} to take a size from"))?
            }
            dim => size(dim)?,
        });
    }
    if let Some(axis) = open {
        let rest = crate::numel(&dims).filter(|rest| *rest > 0 && x.numel().is_multiple_of(*rest));
        let rest = rest.ok_or_else(|| format!("{:?} does not fill {wanted:?}", x.dims()))?;
        if let Some(dim) = dims.get_mut(axis) {
            *dim = x.numel() / rest;
        }
    }
    x.reshaped(dims).map_err(phrase)
}

fn flatten(op: &op::Flatten, x: &Tensor) -> Result<Tensor, String> {
    // The axis may be the rank: all before it.
    let rank = i64::try_from(x.rank()).map_err(phrase)?;
    let axis = if op.axis == rank { x.rank() } else { resolve_axis(op.axis, x.rank())? };
    let (before, after) = x.dims().split_at(axis);
    x.reshaped([product(before), product(after)]).map_err(phrase)
}

/// Axes of a parameter or an input; `None` if neither is there.
fn axes(parameter: Option<&op::Ints>, input: Option<&Tensor>) -> Result<Option<Vec<i64>>, String> {
    match (parameter, input) {
        (Some(axes), _) => Ok(Some(axes.to_vec())),
        (None, Some(tensor)) => load_ints(tensor, "axes").map(Some),
        (None, None) => Ok(None),
    }
}

fn squeeze(op: &op::Squeeze, x: &Tensor, input: Option<&Tensor>) -> Result<Tensor, String> {
    let axes: Dims = match axes(op.axes.as_ref(), input)? {
        Some(axes) => resolve_axes(&axes, x.rank())?.iter().copied().collect(),
        None => (0..x.rank()).filter(|axis| x.dims()[*axis] == 1).collect(),
    };
    if let Some(axis) = axes.iter().find(|axis| x.dims().get(**axis) != Some(&1)) {
        return Err(format!("axis {axis} of {:?} is not of size 1", x.dims()));
    }
    let kept = x.dims().iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
    x.reshaped(kept.map(|(_, dim)| *dim).collect::<Dims>()).map_err(phrase)
}

fn unsqueeze(op: &op::Unsqueeze, x: &Tensor, input: Option<&Tensor>) -> Result<Tensor, String> {
    let axes = axes(op.axes.as_ref(), input)?.ok_or("no axes are given")?;
    let rank = x.rank() + axes.len();
    let axes = resolve_axes(&axes, rank)?;
    let mut left = x.dims().iter().copied();
    let dims: Dims = (0..rank).map(|axis| if axes.contains(&axis) { 1 } else { left.next().unwrap_or(1) }).collect();
    x.reshaped(dims).map_err(phrase)
}

/// The elements at `offset + sum(index * stride)`.
fn strided(x: &Tensor, offset: isize, dims: &[usize], strides: &[isize]) -> Result<Tensor, String> {
    if let Some(splat) = splat_like(x, dims) {
        return splat;
    }
    by_width!(x.dtype(), N => {
        layout::from_units(x.dtype(), dims, copy_strided(&units::<N>(x)?, offset, dims, strides)?)
    })
}

fn shuffle(op: &op::Shuffle, x: &Tensor, context: &EvalContext<'_>) -> Result<Tensor, String> {
    let mut x = x.clone();
    if let Some(perm) = &op.before {
        x = transpose(&x, perm)?;
    }
    if op.shape.is_some() {
        x = reshape(&op::Reshape { shape: op.shape.clone(), allow_zero: false }, &x, None, context)?;
    }
    op.after.as_ref().map_or(Ok(x.clone()), |perm| transpose(&x, perm))
}

fn transpose(x: &Tensor, perm: &[i64]) -> Result<Tensor, String> {
    let axes = resolve_axes(perm, x.rank())?;
    if axes.len() != x.rank() {
        return Err(format!("{perm:?} does not permute {} axes", x.rank()));
    }
    let all = strides(x.dims());
    let dims: Dims = axes.iter().map(|axis| x.dims()[*axis]).collect();
    let strides: layout::Strides = axes.iter().map(|axis| all[*axis]).collect();
    // Without an axis that passes another of more than one element the bytes stay.
    let moving: Dims = axes.iter().copied().filter(|axis| x.dims()[*axis] != 1).collect();
    if moving.is_sorted() {
        return x.reshaped(dims).map_err(phrase);
    }
    strided(x, 0, &dims, &strides)
}

fn expand(op: &op::Expand, x: &Tensor, shape: Option<&Tensor>, context: &EvalContext<'_>) -> Result<Tensor, String> {
    let wanted = ints(op.shape.as_ref(), shape, "the shape", context)?;
    let wanted: Dims = wanted.iter().map(|dim| size(*dim)).collect::<Result<_, _>>()?;
    broadcast_to(x, &layout::broadcast(x.dims(), &wanted)?)
}

fn broadcast_to(x: &Tensor, dims: &[usize]) -> Result<Tensor, String> {
    if x.dims() == dims {
        return Ok(x.clone());
    }
    if x.numel() == 1 && x.dtype().bits() >= 8 {
        let element = x.splat_element().unwrap_or_else(|| x.bytes());
        return Tensor::splat(x.dtype(), dims, Bytes::copy_from_slice(element)).map_err(phrase);
    }
    let mut steps = layout::Strides::from_elem(0, dims.len());
    let skipped = dims.len() - x.rank();
    for ((step, dim), stride) in steps.iter_mut().skip(skipped).zip(x.dims()).zip(strides(x.dims())) {
        *step = if *dim == 1 { 0 } else { stride };
    }
    strided(x, 0, dims, &steps)
}

fn concat(op: &op::Concat, inputs: Inputs<'_>) -> Result<Tensor, String> {
    let tensors: Vec<&Tensor> = (0..inputs.0.len()).map(|slot| inputs.required(slot)).collect::<Result<_, _>>()?;
    stack(&tensors, op.axis)
}

/// Tensors joined along an axis.
pub(super) fn stack(tensors: &[&Tensor], axis: i64) -> Result<Tensor, String> {
    let first = *tensors.first().ok_or("nothing to join")?;
    let axis = resolve_axis(axis, first.rank())?;
    let mut dims = Dims::from_slice(first.dims());
    dims[axis] = 0;
    for tensor in tensors {
        same_dtype(first, tensor)?;
        let others = |dims: &[usize]| {
            dims.iter().enumerate().filter(|(at, _)| *at != axis).map(|(_, dim)| *dim).collect::<Dims>()
        };
        if tensor.rank() != first.rank() || others(tensor.dims()) != others(first.dims()) {
            return Err(format!("{:?} and {:?} are not joined along axis {axis}", first.dims(), tensor.dims()));
        }
        dims[axis] = dims[axis].checked_add(tensor.dims()[axis]).ok_or("the sizes overflow")?;
    }
    let same =
        first.splat_element().filter(|element| tensors.iter().all(|tensor| tensor.splat_element() == Some(element)));
    if let Some(element) = same {
        return Tensor::splat(first.dtype(), dims, Bytes::copy_from_slice(element)).map_err(phrase);
    }
    let width = layout::width(first.dtype())?;
    check_size(&dims, width)?;
    let (outer, _, inner) = around(&dims, axis);
    let total = product(&dims) * width;
    let mut bytes = layout::reserved(&[total])?;
    for at in 0..outer {
        for tensor in tensors {
            let count = tensor.dims()[axis] * inner;
            match tensor.splat_element() {
                Some(element) => (0..count).for_each(|_| bytes.extend_from_slice(element)),
                None => {
                    let row = count * width;
                    bytes.extend_from_slice(tensor.bytes().get(at * row..(at + 1) * row).unwrap_or_default());
                }
            }
        }
    }
    Tensor::new(first.dtype(), dims, Bytes::from(bytes)).map_err(phrase)
}

fn split(op: &op::Split, x: &Tensor, input: Option<&Tensor>, context: &EvalContext<'_>) -> Result<Tensors, String> {
    let axis = resolve_axis(op.axis, x.rank())?;
    let whole = x.dims()[axis];
    let sizes: Vec<usize> = if op.sizes.is_none() && input.is_none() {
        let part = whole.div_ceil(context.outputs.max(1));
        (0..context.outputs).map(|at| part.min(whole.saturating_sub(at * part))).collect()
    } else {
        let sizes = ints(op.sizes.as_ref(), input, "the sizes", context)?;
        sizes.iter().map(|part| size(*part)).collect::<Result<_, _>>()?
    };
    if sizes.iter().try_fold(0_usize, |sum, part| sum.checked_add(*part)) != Some(whole) {
        return Err(format!("parts of {sizes:?} of {whole} elements"));
    }
    let all = strides(x.dims());
    let mut start = 0;
    let part = |part: &usize| {
        let mut dims = Dims::from_slice(x.dims());
        dims[axis] = *part;
        let offset = start * all[axis];
        start += *part as isize;
        strided(x, offset, &dims, &all)
    };
    sizes.iter().map(part).collect()
}

fn slice(op: &op::Slice, inputs: Inputs<'_>, context: &EvalContext<'_>) -> Result<Tensor, String> {
    let x = inputs.required(0)?;
    let starts = ints(op.starts.as_ref(), inputs.optional(1), "starts", context)?;
    let ends = ints(op.ends.as_ref(), inputs.optional(2), "ends", context)?;
    let given = axes(op.axes.as_ref(), inputs.optional(3))?;
    let given = given.unwrap_or_else(|| (0..).take(starts.len()).collect());
    let steps = axes(op.steps.as_ref(), inputs.optional(4))?.unwrap_or_else(|| vec![1; starts.len()]);
    if starts.len() != ends.len() || starts.len() != given.len() || starts.len() != steps.len() {
        return Err(format!("starts {starts:?}, ends {ends:?}, axes {given:?}, steps {steps:?}"));
    }
    // In canonical form -1 is the place before the first element, not the last one.
    let canonical = op.starts.is_some();
    let mut dims = Dims::from_slice(x.dims());
    let mut strides = strides(x.dims());
    let mut offset = 0_isize;
    for (((axis, start), end), step) in resolve_axes(&given, x.rank())?.iter().zip(starts).zip(ends).zip(steps) {
        let whole = i64::try_from(x.dims()[*axis]).map_err(phrase)?;
        if step == 0 {
            return Err("a step of 0".to_string());
        }
        let place = |at: i64| if at < 0 && !canonical { at.saturating_add(whole) } else { at };
        let (low, high) = if step > 0 { (0, whole) } else { (-1, whole - 1) };
        let start = place(start).max(0).min(high);
        let end = place(end).max(low).min(high);
        let distance = if step > 0 { end - start } else { start - end };
        let count = if distance <= 0 { 0 } else { (distance - 1) / step.saturating_abs() + 1 };
        dims[*axis] = size(count)?;
        if count > 0 {
            offset += start as isize * strides[*axis];
        }
        strides[*axis] = strides[*axis].saturating_mul(step as isize);
    }
    if dims.as_slice() == x.dims() && strides == layout::strides(x.dims()) {
        return Ok(x.clone());
    }
    strided(x, offset, &dims, &strides)
}

fn tile(x: &Tensor, repeats: &Tensor) -> Result<Tensor, String> {
    let repeats = load_ints(repeats, "repeats")?;
    if repeats.len() != x.rank() {
        return Err(format!("repeats {repeats:?} of {} axes", x.rank()));
    }
    let repeats: Dims = repeats.iter().map(|repeat| size(*repeat)).collect::<Result<_, _>>()?;
    // As [r0, d0, r1, d1, ..], where the repeats stand still.
    let (mut pairs, mut steps, mut dims) = (Dims::new(), layout::Strides::new(), Dims::new());
    for ((repeat, dim), stride) in repeats.iter().zip(x.dims()).zip(strides(x.dims())) {
        pairs.extend([*repeat, *dim]);
        steps.extend([0, stride]);
        dims.push(repeat.checked_mul(*dim).ok_or_else(|| format!("{dim} elements {repeat} times"))?);
    }
    if let Some(splat) = splat_like(x, &dims) {
        return splat;
    }
    strided(x, 0, &pairs, &steps)?.reshaped(dims).map_err(phrase)
}

fn shape_of(op: &op::ShapeOf, x: &Tensor) -> Tensor {
    let rank = x.rank() as i64;
    let place = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
    let (start, end) = (place(op.start), op.end.map_or(x.rank(), place));
    let dims = x.dims().get(start..end).unwrap_or_default();
    Tensor::vector(dims.iter().map(|dim| *dim as i64).collect())
}

fn constant_of_shape(op: &op::ConstantOfShape, shape: &Tensor) -> Result<Tensor, String> {
    let dims: Dims = load_ints(shape, "the shape")?.iter().map(|dim| size(*dim)).collect::<Result<_, _>>()?;
    let element = op.value.splat_element().unwrap_or_else(|| op.value.bytes());
    Tensor::splat(op.value.dtype(), dims, Bytes::copy_from_slice(element)).map_err(phrase)
}

fn depth_to_space(op: &op::DepthToSpace, x: &Tensor) -> Result<Tensor, String> {
    let [batch, channels, height, width] = x.dims() else { return Err(format!("data of shape {:?}", x.dims())) };
    let (batch, channels, height, width) = (*batch, *channels, *height, *width);
    let block = usize::try_from(op.block).ok().filter(|block| (1..1 << 20).contains(block));
    let block = block.ok_or_else(|| format!("a block of {}", op.block))?;
    let wrong = || format!("{:?} in blocks of {block}", x.dims());
    if op.inverse {
        if height % block != 0 || width % block != 0 {
            return Err(wrong());
        }
        let (rows, columns) = (height / block, width / block);
        let split = x.reshaped([batch, channels, rows, block, columns, block]).map_err(phrase)?;
        let moved = transpose(&split, if op.crd { &[0, 1, 3, 5, 2, 4] } else { &[0, 3, 5, 1, 2, 4] })?;
        return moved.reshaped([batch, channels * block * block, rows, columns]).map_err(phrase);
    }
    if channels % (block * block) != 0 {
        return Err(wrong());
    }
    let depth = channels / (block * block);
    let dims = [batch, depth, height * block, width * block];
    if op.crd {
        let split = x.reshaped([batch, depth, block, block, height, width]).map_err(phrase)?;
        return transpose(&split, &[0, 1, 4, 2, 5, 3])?.reshaped(dims).map_err(phrase);
    }
    let split = x.reshaped([batch, block, block, depth, height, width]).map_err(phrase)?;
    transpose(&split, &[0, 3, 4, 1, 5, 2])?.reshaped(dims).map_err(phrase)
}

/// Whether column `column` of row `row` lies on or above diagonal `k`.
fn above(row: usize, column: usize, k: i64) -> bool {
    column as i128 - row as i128 >= i128::from(k)
}

fn eye_like(op: &op::EyeLike, x: &Tensor) -> Result<Tensor, String> {
    let [rows, columns] = x.dims() else { return Err(format!("{:?} is no matrix", x.dims())) };
    let mut eye = filled(&[*rows, *columns], 0_u8)?;
    for (row, elements) in eye.chunks_mut((*columns).max(1)).enumerate() {
        for (column, element) in elements.iter_mut().enumerate() {
            *element = u8::from(above(row, column, op.k) && !above(row, column, op.k.saturating_add(1)));
        }
    }
    let eye = Tensor::from_vec([*rows, *columns], eye).map_err(phrase)?;
    super::cast::cast(&eye, op.dtype.unwrap_or(x.dtype()), true)
}

fn trilu(op: &op::Trilu, x: &Tensor, k: Option<&Tensor>) -> Result<Tensor, String> {
    let [.., rows, columns] = x.dims() else { return Err(format!("{:?} is no matrix", x.dims())) };
    let (rows, columns) = (*rows, *columns);
    let k = k.map_or(Ok(0), |k| load_int(k, "k"))?;
    by_width!(x.dtype(), N => {
        let mut elements = units::<N>(x)?.into_owned();
        for (row, elements) in elements.chunks_mut(columns.max(1)).enumerate() {
            for (column, element) in elements.iter_mut().enumerate() {
                let row = row % rows.max(1);
                let stays = if op.upper { above(row, column, k) } else { !above(row, column, k.saturating_add(1)) };
                if !stays {
                    *element = [0; N];
                }
            }
        }
        layout::from_units(x.dtype(), x.dims(), elements)
    })
}

fn range(start: &Tensor, limit: &Tensor, step: &Tensor) -> Result<Tensor, String> {
    same_dtype(start, limit)?;
    same_dtype(start, step)?;
    for_number!(start.dtype(), T => {
        let one = |tensor: &Tensor| match T::load(tensor)?.as_ref() {
            [element] => Ok(*element),
            elements => Err(format!("{} elements where one was expected", elements.len())),
        };
        let (start_at, limit, step) = (one(start)?, one(limit)?, one(step)?);
        let wide = |x: T| num_traits::AsPrimitive::<f64>::as_(x);
        let count = ((wide(limit) - wide(start_at)) / wide(step)).ceil().max(0.0);
        if step == T::ZERO || !count.is_finite() {
            return Err("a range without end".to_string());
        }
        let count = check_size(&[count as usize], size_of::<T>())?;
        // Not by adding up, so that rounding does not grow.
        let element = |at: usize| start_at.plus(T::from_f64(at as f64).times(step));
        T::store(start.dtype(), &[count], layout::collected(count, element)?)
    })
}
