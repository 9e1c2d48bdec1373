//! What rules ask of a graph when they look for a pattern.

use trt_fuse_ir::op::{BinaryOp, MatMul};
use trt_fuse_ir::{DType, Graph, NodeId, Op, OpKind, Tensor, ValueInfo, ValueRef};

/// Whether two values certainly have the same shape.
pub(crate) fn same_shape(a: Option<&ValueInfo>, b: Option<&ValueInfo>) -> bool {
    match (a.and_then(|a| a.shape.as_ref()), b.and_then(|b| b.shape.as_ref())) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// What a value is an expansion of.
pub(crate) fn expanded(graph: &Graph, value: ValueRef) -> Option<ValueRef> {
    (graph.kind(value.node) == Some(OpKind::Expand)).then(|| graph.input(value.node, 0))?
}

/// The constant operand of a binary node and, first, the other one. Either side may be the constant, but not both.
pub(crate) fn constant_operand(graph: &Graph, id: NodeId) -> Option<(ValueRef, &Tensor)> {
    let (a, b) = (graph.input(id, 0)?, graph.input(id, 1)?);
    match (graph.constant(a), graph.constant(b)) {
        (None, Some(constant)) => Some((a, constant)),
        (Some(constant), None) => Some((b, constant)),
        _ => None,
    }
}

/// `op(x, c)`, and `op(c, x)` where the operator is commutative: x and c. The constant is one float for all elements,
/// and broadcasting it does not enlarge x.
pub(crate) fn with_scalar(graph: &Graph, id: NodeId, op: BinaryOp) -> Option<(ValueRef, f64)> {
    if graph.op(id) != Some(&Op::Binary(op)) {
        return None;
    }
    let (x, constant) = constant_operand(graph, id)?;
    let constant_is_right = graph.input(id, 0) == Some(x);
    let keeps_shape = constant.rank() == 0 || same_shape(graph.info(x), graph.info(id.into()));
    if !constant.dtype().is_float() || !keeps_shape || !(constant_is_right || op.is_commutative()) {
        return None;
    }
    Some((x, constant.uniform_f64()?))
}

/// `x * c`, or `x / c` as `x * (1 / c)`: x and the factor.
pub(crate) fn scaled(graph: &Graph, id: NodeId) -> Option<(ValueRef, f64)> {
    with_scalar(graph, id, BinaryOp::Mul)
        .or_else(|| with_scalar(graph, id, BinaryOp::Div).map(|(x, divisor)| (x, divisor.recip())))
}

/// `x + c`, or `x - c` as `x + -c`: x and the summand.
pub(crate) fn shifted(graph: &Graph, id: NodeId) -> Option<(ValueRef, f64)> {
    with_scalar(graph, id, BinaryOp::Add).or_else(|| with_scalar(graph, id, BinaryOp::Sub).map(|(x, c)| (x, -c)))
}

/// Whether a constant of a model is `expected`, as exactly as its dtype can say it.
pub(crate) fn is_close(found: f64, expected: f64, dtype: DType) -> bool {
    let precision = match dtype {
        DType::BF16 => 1.0 / 128.0,
        DType::F16 => 1.0 / 1024.0,
        _ => 1e-6,
    };
    (found - expected).abs() <= precision * expected.abs()
}

/// A matrix product without an epilogue.
pub(crate) fn plain_matmul(graph: &Graph, id: NodeId) -> Option<&MatMul> {
    let Op::MatMul(op) = graph.op(id)? else { return None };
    op.epilogue.is_empty().then_some(op)
}

/// The transpose that exchanges just the last two axes, and what it reads.
pub(crate) fn swapped_matrix(graph: &Graph, value: ValueRef) -> Option<(NodeId, ValueRef)> {
    let Op::Transpose(op) = graph.op(value.node)? else { return None };
    let (lead, matrix) = op.perm.split_at_checked(op.perm.len().checked_sub(2)?)?;
    let keeps_lead = lead.iter().enumerate().all(|(at, axis)| i64::try_from(at) == Ok(*axis));
    let swaps = matches!(matrix, [a, b] if *a == b + 1 && i64::try_from(lead.len()) == Ok(*b));
    if !keeps_lead || !swaps {
        return None;
    }
    Some((value.node, graph.input(value.node, 0)?))
}
