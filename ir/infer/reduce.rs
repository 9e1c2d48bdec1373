//! Reductions along axes, and what normalises along one.

use ndarray::{Axis, IxDyn};
use smallvec::SmallVec;

use super::elements::{Elements, elements, known, reshaped, single};
use super::math::{product, sum};
use super::{InferContext, Infos, Inputs, one, resolve_axes, resolve_axis, shaped};
use crate::op::{ArgReduce, Reduce, ReduceKind, TopK};
use crate::{DType, Dim, Op, Shape, ValueInfo};

pub(super) fn infer(op: &Op, inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<Infos, String> {
    let x = inputs.required(0)?;
    match op {
        Op::Reduce(op) => reduce(op, inputs, context).map(one),
        Op::ArgReduce(op) => arg_reduce(op, x).map(one),
        Op::TopK(op) => top_k(op, x, inputs.required(1)?, context),
        Op::Softmax(op) => same_shape(x, Some(op.axis)),
        Op::Cumulative(_) => same_shape(x, inputs.required(1)?.known_ints().and_then(|axis| axis.first().copied())),
        op => Err(format!("{op} is no reduction")),
    }
}

/// The input's type and shape; an axis, if any, must exist.
fn same_shape(x: &ValueInfo, axis: Option<i64>) -> Result<Infos, String> {
    if let (Some(axis), Some(rank)) = (axis, x.rank()) {
        // Softmax of a scalar is allowed by exporters: axis -1 or 0 of rank 0.
        resolve_axis(axis, rank.max(1))?;
    }
    Ok(one(shaped(x.dtype, x.shape.clone())))
}

/// Which axes a reduction is over.
enum Axes {
    All,
    None,
    These(SmallVec<[usize; 4]>),
    /// Computed; so many, if that is known.
    Computed(Option<usize>),
}

fn reduced_axes(op: &Reduce, inputs: Inputs<'_>, rank: usize) -> Result<Axes, String> {
    let listed = match (&op.axes, inputs.optional(1)) {
        (Some(axes), _) => Some(axes.to_vec()),
        (None, Some(axes)) => match axes.known_ints() {
            Some(axes) => Some(axes),
            None => match axes.numel().and_then(|count| usize::try_from(count.value()?).ok()) {
                Some(0) => None,
                count => return Ok(Axes::Computed(count)),
            },
        },
        (None, None) => None,
    };
    match listed {
        Some(axes) if !axes.is_empty() => resolve_axes(&axes, rank).map(Axes::These),
        _ if op.noop_if_empty => Ok(Axes::None),
        _ => Ok(Axes::All),
    }
}

fn reduce(op: &Reduce, inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<ValueInfo, String> {
    let x = inputs.required(0)?;
    let Some(data) = &x.shape else { return unshaped_reduce(op, inputs, x) };
    let axes = match reduced_axes(op, inputs, data.len())? {
        Axes::All => (0..data.len()).collect(),
        Axes::None => SmallVec::new(),
        Axes::These(axes) => axes,
        Axes::Computed(count) => {
            let rank =
                if op.keep_dims { Some(data.len()) } else { count.and_then(|count| data.len().checked_sub(count)) };
            let shape = rank.map(|rank| (0..rank).map(|axis| context.fresh(&format!("d{axis}"))).collect());
            return Ok(shaped(x.dtype, shape));
        }
    };
    let shape = without(data, &axes, op.keep_dims);
    let result = elements(x).and_then(|x| reshaped(&reduced_elements(op.kind, x, &axes)?, &shape));
    Ok(known(x.dtype, Some(shape), result))
}

/// A reduction over all axes without keeping them is a scalar whatever the rank.
fn unshaped_reduce(op: &Reduce, inputs: Inputs<'_>, x: &ValueInfo) -> Result<ValueInfo, String> {
    let all = op.axes.as_ref().is_none_or(|axes| axes.is_empty()) && inputs.optional(1).is_none() && !op.noop_if_empty;
    Ok(shaped(x.dtype, (all && !op.keep_dims).then(Shape::new)))
}

/// The shape with some axes of size 1, or without them.
fn without(data: &Shape, axes: &[usize], keep: bool) -> Shape {
    let dims = data.iter().enumerate().filter(|(axis, _)| keep || !axes.contains(axis));
    dims.map(|(axis, dim)| if axes.contains(&axis) { Dim::fixed(1) } else { dim.clone() }).collect()
}

/// The elements reduced, the axes kept as size 1.
fn reduced_elements(kind: ReduceKind, mut x: Elements, axes: &[usize]) -> Option<Elements> {
    let combine: fn(&Dim, &Dim) -> Option<Dim> = match kind {
        ReduceKind::Sum => sum,
        ReduceKind::Prod => product,
        ReduceKind::Max => |a, b| Some(a.maximum(b)),
        ReduceKind::Min => |a, b| Some(a.minimum(b)),
        _ => return None,
    };
    let first = match kind {
        ReduceKind::Sum => Some(Dim::fixed(0)),
        ReduceKind::Prod => Some(Dim::fixed(1)),
        _ => None,
    };
    for axis in axes {
        let lanes = x.lanes(Axis(*axis));
        let reduced = lanes.into_iter().map(|lane| {
            let mut items = lane.iter();
            let start = first.clone().or_else(|| items.next().cloned())?;
            items.try_fold(start, |total, item| combine(&total, item))
        });
        let items: Vec<Dim> = reduced.collect::<Option<_>>()?;
        let mut dims = x.shape().to_vec();
        *dims.get_mut(*axis)? = 1;
        x = Elements::from_shape_vec(IxDyn(&dims), items).ok()?;
    }
    Some(x)
}

fn arg_reduce(op: &ArgReduce, x: &ValueInfo) -> Result<ValueInfo, String> {
    let Some(data) = &x.shape else { return Ok(shaped(DType::I64, None)) };
    let axis = resolve_axis(op.axis, data.len())?;
    Ok(shaped(DType::I64, Some(without(data, &[axis], op.keep_dims))))
}

fn top_k(op: &TopK, x: &ValueInfo, k: &ValueInfo, context: &InferContext<'_>) -> Result<Infos, String> {
    let mut shape = x.shape.clone();
    if let Some(shape) = &mut shape {
        let axis = resolve_axis(op.axis, shape.len())?;
        if let Some(dim) = shape.get_mut(axis) {
            let k = single(k).unwrap_or_else(|| context.fresh("k"));
            if k.value().is_some_and(|k| k < 0) || (&k - &*dim).value().is_some_and(|excess| excess > 0) {
                return Err(format!("k of {k} on axis {axis} of {dim}"));
            }
            *dim = k;
        }
    }
    Ok(SmallVec::from_iter([shaped(x.dtype, shape.clone()), shaped(DType::I64, shape)]))
}
