//! Operators whose indices are data.

use ndarray::{Axis, IxDyn};

use super::elements::{Elements, elements, known, single};
use super::{InferContext, Infos, Inputs, join_dtypes, one, resolve_axis, shaped, unify};
use crate::op::{Gather, GatherElements, GatherNd, OneHot, ReverseSequence, ScatterElements};
use crate::{DType, Dim, Op, Shape, ValueInfo};

pub(super) fn infer(op: &Op, inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<Infos, String> {
    let x = inputs.required(0)?;
    Ok(one(match op {
        Op::Gather(op) => gather(op, x, inputs.required(1)?)?,
        Op::GatherElements(op) => gather_elements(op, x, inputs.required(1)?)?,
        Op::GatherNd(op) => gather_nd(op, x, inputs.required(1)?)?,
        Op::ScatterElements(op) => scatter_elements(op, x, inputs)?,
        Op::ScatterNd(_) => scatter_nd(x, inputs)?,
        Op::OneHot(op) => one_hot(op, inputs, context)?,
        Op::ReverseSequence(op) => reverse_sequence(op, x, inputs.required(1)?)?,
        Op::NonZero => {
            let rank = x.rank().map_or_else(|| context.fresh("rank"), Dim::from);
            shaped(DType::I64, Some(Shape::from_iter([rank, context.fresh("count")])))
        }
        op => return Err(format!("{op} has no indices")),
    }))
}

fn expect_indices(indices: &ValueInfo) -> Result<(), String> {
    if indices.dtype.is_integer() || indices.dtype == DType::Unknown {
        Ok(())
    } else {
        Err(format!("indices of {}", indices.dtype))
    }
}

/// Indices in `0..size`, if all are known numbers.
fn resolved_indices(indices: &ValueInfo, size: &Dim) -> Result<Option<Vec<usize>>, String> {
    let (Some(indices), Some(size)) = (indices.known_ints(), size.value()) else { return Ok(None) };
    let resolve = |index: i64| {
        let from_start = if index < 0 { index.saturating_add(size) } else { index };
        let inside = (0..size).contains(&from_start);
        usize::try_from(from_start).ok().filter(|_| inside).ok_or_else(|| format!("index {index} on axis of {size}"))
    };
    indices.into_iter().map(resolve).collect::<Result<_, _>>().map(Some)
}

fn gather(op: &Gather, x: &ValueInfo, indices: &ValueInfo) -> Result<ValueInfo, String> {
    expect_indices(indices)?;
    let Some(data) = &x.shape else { return Ok(shaped(x.dtype, None)) };
    let axis = resolve_axis(op.axis, data.len())?;
    let size = data.get(axis).cloned().unwrap_or(Dim::fixed(0));
    let picked = resolved_indices(indices, &size)?;
    let Some(index_shape) = &indices.shape else { return Ok(shaped(x.dtype, None)) };
    let (before, after) = (data.iter().take(axis), data.iter().skip(axis + 1));
    let shape: Shape = before.chain(index_shape).chain(after).cloned().collect();
    let result = picked
        .zip(elements(x))
        .and_then(|(picked, x)| super::elements::reshaped(&x.select(Axis(axis), &picked), &shape));
    Ok(known(x.dtype, Some(shape), result))
}

fn gather_elements(op: &GatherElements, x: &ValueInfo, indices: &ValueInfo) -> Result<ValueInfo, String> {
    expect_indices(indices)?;
    let axis = match (x.rank(), indices.rank()) {
        (Some(data), Some(index)) if data != index => {
            return Err(format!("data of rank {data}, indices of rank {index}"));
        }
        (Some(rank), _) => Some(resolve_axis(op.axis, rank)?),
        _ => None,
    };
    let result = axis.and_then(|axis| gathered_elements(axis, &elements(x)?, &elements(indices)?));
    Ok(known(x.dtype, indices.shape.clone(), result))
}

fn gathered_elements(axis: usize, x: &Elements, indices: &Elements) -> Option<Elements> {
    let size = i64::try_from(*x.shape().get(axis)?).ok()?;
    let items: Vec<Dim> = indices
        .indexed_iter()
        .map(|(at, index)| {
            let index = index.value()?;
            let mut source: Vec<usize> = (0..indices.ndim()).map(|axis| at[axis]).collect();
            *source.get_mut(axis)? = usize::try_from(if index < 0 { index.checked_add(size)? } else { index }).ok()?;
            x.get(IxDyn(&source)).cloned()
        })
        .collect::<Option<_>>()?;
    Elements::from_shape_vec(indices.raw_dim(), items).ok()
}

/// The number of leading axes that an index tuple of GatherND and ScatterND addresses.
fn tuple_length(indices: &Shape) -> Result<Option<usize>, String> {
    let last = indices.last().ok_or("indices of rank 0")?;
    Ok(last.value().and_then(|length| usize::try_from(length).ok()))
}

fn gather_nd(op: &GatherNd, x: &ValueInfo, indices: &ValueInfo) -> Result<ValueInfo, String> {
    expect_indices(indices)?;
    let (Some(data), Some(index)) = (&x.shape, &indices.shape) else { return Ok(shaped(x.dtype, None)) };
    let Some(tuple) = tuple_length(index)? else { return Ok(shaped(x.dtype, None)) };
    let batch = usize::try_from(op.batch_dims).map_err(|_| format!("{} batch dimensions", op.batch_dims))?;
    let taken = batch.saturating_add(tuple);
    if taken > data.len() || batch >= index.len() {
        return Err(format!(
            "{batch} batch dimensions and tuples of {tuple} for ranks {} and {}",
            data.len(),
            index.len()
        ));
    }
    let mut shape = Shape::new();
    for (at, dim) in index.iter().take(index.len() - 1).enumerate() {
        shape.push(match data.get(at) {
            Some(shared) if at < batch => {
                unify(shared, dim).map_err(|_| format!("batch dimensions {shared} and {dim}"))?
            }
            _ => dim.clone(),
        });
    }
    shape.extend(data.iter().skip(taken).cloned());
    Ok(shaped(x.dtype, Some(shape)))
}

fn scatter_elements(op: &ScatterElements, x: &ValueInfo, inputs: Inputs<'_>) -> Result<ValueInfo, String> {
    let (indices, updates) = (inputs.required(1)?, inputs.required(2)?);
    expect_indices(indices)?;
    let dtype = join_dtypes(x.dtype, updates.dtype)?;
    if let Some(rank) = x.rank() {
        resolve_axis(op.axis, rank)?;
        if let Some(found) = indices.rank().filter(|found| *found != rank) {
            return Err(format!("data of rank {rank}, indices of rank {found}"));
        }
    }
    if let (Some(indices), Some(updates)) = (&indices.shape, &updates.shape) {
        check_equal("updates", updates, indices)?;
    }
    Ok(shaped(dtype, x.shape.clone()))
}

fn check_equal(what: &str, found: &Shape, expected: &Shape) -> Result<(), String> {
    let fits = found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| unify(a, b).is_ok());
    if fits { Ok(()) } else { Err(format!("{what} of {found:?}, {expected:?} expected")) }
}

fn scatter_nd(x: &ValueInfo, inputs: Inputs<'_>) -> Result<ValueInfo, String> {
    let (indices, updates) = (inputs.required(1)?, inputs.required(2)?);
    expect_indices(indices)?;
    let dtype = join_dtypes(x.dtype, updates.dtype)?;
    if let (Some(data), Some(index)) = (&x.shape, &indices.shape)
        && let Some(tuple) = tuple_length(index)?
    {
        if tuple > data.len() {
            return Err(format!("tuples of {tuple} for rank {}", data.len()));
        }
        if let Some(updates) = &updates.shape {
            let expected = index.iter().take(index.len() - 1).chain(data.iter().skip(tuple)).cloned().collect();
            check_equal("updates", updates, &expected)?;
        }
    }
    Ok(shaped(dtype, x.shape.clone()))
}

fn one_hot(op: &OneHot, inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<ValueInfo, String> {
    let (indices, depth, values) = (inputs.required(0)?, inputs.required(1)?, inputs.required(2)?);
    if let Some([count]) = values.shape.as_deref() {
        unify(count, &Dim::fixed(2)).map_err(|_| format!("{count} values, not 2"))?;
    }
    let Some(shape) = &indices.shape else { return Ok(shaped(values.dtype, None)) };
    let axis = resolve_axis(op.axis, shape.len() + 1)?;
    // The depth may be a float.
    let float = || Some(Dim::fixed(depth.as_constant()?.uniform_f64()? as i64));
    let depth = single(depth).or_else(float).unwrap_or_else(|| context.fresh("depth"));
    if depth.value().is_some_and(|depth| depth < 0) {
        return Err(format!("depth of {depth}"));
    }
    let mut shape = shape.clone();
    shape.insert(axis, depth);
    Ok(shaped(values.dtype, Some(shape)))
}

fn reverse_sequence(op: &ReverseSequence, x: &ValueInfo, lengths: &ValueInfo) -> Result<ValueInfo, String> {
    expect_indices(lengths)?;
    let Some(data) = &x.shape else { return Ok(shaped(x.dtype, None)) };
    let (batch, time) = (resolve_axis(op.batch_axis, data.len())?, resolve_axis(op.time_axis, data.len())?);
    if batch == time {
        return Err(format!("axis {batch} is both of batch and time"));
    }
    if let Some(shape) = &lengths.shape {
        let [count] = shape.as_slice() else { return Err(format!("lengths of rank {}", shape.len())) };
        let size = data.get(batch).cloned().unwrap_or(Dim::fixed(0));
        unify(&size, count).map_err(|_| format!("{count} lengths for {size} sequences"))?;
    }
    Ok(shaped(x.dtype, x.shape.clone()))
}
