//! Data divided by the root of the mean of its squares, in the ways that exporters write it: the common part of the RMS
//! norm and, for data less its mean, the layer norm.

use trt_fuse_ir::op::{BinaryOp, Cast, ReduceKind, UnaryOp};
use trt_fuse_ir::{DType, Graph, NodeId, Op, ValueRef};

use crate::pattern::{same_shape, shifted, with_scalar};

/// `data / sqrt(mean(data^2) + epsilon)` over the axes from `axis` to the last.
pub(crate) struct Normal {
    /// The data.
    pub(crate) data: ValueRef,
    /// The first axis of the mean, from the front.
    pub(crate) axis: usize,
    /// Added to the mean.
    pub(crate) epsilon: f64,
    /// The nodes of the formula.
    pub(crate) nodes: Vec<NodeId>,
}

/// A value as such a quotient.
fn normal(graph: &Graph, value: ValueRef) -> Option<Normal> {
    let (a, b) = (graph.input(value.node, 0)?, graph.input(value.node, 1)?);
    let (data, mean, mut nodes) = match graph.op(value.node)? {
        Op::Binary(BinaryOp::Div) => {
            let mean = input_of(graph, b, UnaryOp::Sqrt)?;
            (a, mean, vec![value.node, b.node])
        }
        Op::Binary(BinaryOp::Mul) => {
            let (data, (mean, inner)) =
                [(a, b), (b, a)].into_iter().find_map(|(data, root)| Some((data, inverse_root(graph, root)?)))?;
            (data, mean, [vec![value.node], inner].concat())
        }
        _ => return None,
    };
    let (mean, epsilon) = shifted(graph, mean.node).map(|(inner, epsilon)| {
        nodes.push(mean.node);
        (inner, epsilon)
    })?;
    let (square, axis) = mean_of(graph, mean)?;
    nodes.extend([mean.node, square.node]);
    let base = match graph.op(square.node)? {
        Op::Binary(BinaryOp::Mul) => {
            let (a, b) = (graph.input(square.node, 0)?, graph.input(square.node, 1)?);
            (a == b).then_some(a)?
        }
        Op::Binary(BinaryOp::Pow) => {
            with_scalar(graph, square.node, BinaryOp::Pow).filter(|(_, power)| *power == 2.0)?.0
        }
        _ => return None,
    };
    (base == data && epsilon >= 0.0).then_some(Normal { data, axis, epsilon, nodes })
}

/// The value under the root, and the nodes of `1 / sqrt(value)`.
fn inverse_root(graph: &Graph, value: ValueRef) -> Option<(ValueRef, Vec<NodeId>)> {
    match graph.op(value.node)? {
        Op::Unary(UnaryOp::Reciprocal) => {
            let root = graph.input(value.node, 0)?;
            Some((input_of(graph, root, UnaryOp::Sqrt)?, vec![value.node, root.node]))
        }
        Op::Binary(BinaryOp::Div) => {
            let (one, root) = (graph.input(value.node, 0)?, graph.input(value.node, 1)?);
            let is_one = graph.constant(one).and_then(|one| one.uniform_f64()) == Some(1.0);
            // A one of more axes than the root gives the quotient as many.
            let keeps_shape = same_shape(graph.info(root), graph.info(value));
            let under = input_of(graph, root, UnaryOp::Sqrt)?;
            (is_one && keeps_shape).then_some((under, vec![value.node, root.node]))
        }
        Op::Binary(BinaryOp::Pow) => {
            let (under, power) = with_scalar(graph, value.node, BinaryOp::Pow)?;
            (power == -0.5).then_some((under, vec![value.node]))
        }
        _ => None,
    }
}

fn input_of(graph: &Graph, value: ValueRef, op: UnaryOp) -> Option<ValueRef> {
    graph.input(value.node, 0).filter(|_| graph.op(value.node) == Some(&Op::Unary(op)))
}

/// What a value is the mean of, and the first of the axes, which are the last ones and kept.
pub(crate) fn mean_of(graph: &Graph, value: ValueRef) -> Option<(ValueRef, usize)> {
    let Op::Reduce(op) = graph.op(value.node)? else { return None };
    let x = graph.input(value.node, 0)?;
    let rank = graph.info(x)?.rank()?;
    let axes = trt_fuse_ir::infer::resolve_axes(op.axes.as_ref()?, rank).ok()?;
    let first = rank.checked_sub(axes.len())?;
    let is_tail = !axes.is_empty() && (first..rank).all(|axis| axes.contains(&axis));
    (op.kind == ReduceKind::Mean && op.keep_dims && is_tail).then_some((x, first))
}

/// A value as such a quotient, perhaps of a half type and computed in f32 between two conversions, and the dtype of the
/// value, for [`half_of`].
pub(crate) fn converted_normal(graph: &Graph, value: ValueRef) -> Option<(Normal, Option<DType>)> {
    if !matches!(graph.op(value.node)?, Op::Cast(_)) {
        return Some((normal(graph, value)?, None));
    }
    let mut found = normal(graph, graph.input(value.node, 0)?)?;
    found.nodes.push(value.node);
    Some((found, Some(graph.dtype(value))))
}

/// The data of a norm: itself, or the value of the half type that it is a conversion of.
pub(crate) fn half_of(graph: &Graph, data: ValueRef, half: Option<DType>) -> Option<ValueRef> {
    let Some(half) = half else { return Some(data) };
    let Op::Cast(Cast { to: DType::F32, .. }) = graph.op(data.node)? else { return None };
    let x = graph.input(data.node, 0)?;
    (matches!(half, DType::F16 | DType::BF16) && graph.dtype(x) == half).then_some(x)
}

/// The operands of a product or sum of which one is a constant of the sizes from `axis` on: the other one, and the constant.
pub(crate) fn with_parameter(graph: &Graph, root: NodeId, op: BinaryOp, axis: usize) -> Option<(ValueRef, ValueRef)> {
    if graph.op(root)? != &Op::Binary(op) {
        return None;
    }
    let (a, b) = (graph.input(root, 0)?, graph.input(root, 1)?);
    let (x, parameter) = if graph.constant(b).is_some() { (a, b) } else { (b, a) };
    let sizes = graph.info(x)?.shape.as_ref()?.get(axis..)?;
    let dims = graph.constant(parameter)?.dims();
    let fits = dims.len() == sizes.len() && dims.iter().zip(sizes).all(|(dim, size)| size.is(*dim as i64));
    fits.then_some((x, parameter))
}

/// The operands of a product or sum of which one is a constant of the channels, axis 1: the other one, and the constant.
pub(crate) fn channel_parameter(graph: &Graph, root: NodeId, op: BinaryOp) -> Option<(ValueRef, ValueRef)> {
    if graph.op(root)? != &Op::Binary(op) {
        return None;
    }
    let (a, b) = (graph.input(root, 0)?, graph.input(root, 1)?);
    let (x, parameter) = if graph.constant(b).is_some() { (a, b) } else { (b, a) };
    let shape = graph.info(x)?.shape.as_ref()?;
    let channels = shape.get(1)?.value()?;
    let dims = graph.constant(parameter)?.dims();
    let (lead, rest) = dims.split_at_checked(dims.len().checked_sub(shape.len().checked_sub(1)?)?)?;
    let [found, ones @ ..] = rest else { return None };
    let fits =
        i64::try_from(*found) == Ok(channels) && lead.iter().chain(ones).all(|size| *size == 1) && lead.len() < 2;
    fits.then_some((x, parameter))
}
