//! Tables of cosines and sines.

use trt_fuse_ir::op::{Reshape, Slice};
use trt_fuse_ir::{Dim, Graph, Op, Patch, Shape, Tensor, ValueRef};

use super::dims;

/// Operators that are looked through for angles written twice.
const DEEPEST: usize = 8;

/// How a head's angles are in a table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Angles {
    /// Each once.
    Once,
    /// All of them twice.
    Halves,
    /// Each twice in a row.
    Pairs,
}

/// The order of positions and heads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Order {
    HeadsFirst,
    PositionsFirst,
}

/// A table of the angles of `size` elements of a head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    pub(super) value: ValueRef,
    pub(super) angles: Angles,
    pub(super) size: i64,
}

impl Table {
    /// Whether the angles are written as is said.
    pub(super) fn holds(self, graph: &Graph) -> bool {
        match self.angles {
            Angles::Once => true,
            angles => is_twice(graph, self.value, self.size, angles, DEEPEST),
        }
    }

    /// `[1 or b, s]` of a table that is one for all heads of data of some shape.
    pub(super) fn lead(self, graph: &Graph, data: &[Dim], order: Order) -> Option<[Dim; 2]> {
        let ([batch, second, third, _], [found @ .., width]) = (data, dims(graph, self.value)?) else { return None };
        let one = || Dim::fixed(1);
        let [a, b, c] = match found {
            [c] => [one(), one(), c.clone()],
            [b, c] => [one(), b.clone(), c.clone()],
            [a, b, c] => [a.clone(), b.clone(), c.clone()],
            _ => return None,
        };
        let (heads, rows, length) = match order {
            Order::HeadsFirst => (b, c, third),
            Order::PositionsFirst => (c, b, second),
        };
        let wanted = if self.angles == Angles::Once { self.size / 2 } else { self.size };
        let fits = heads.is(1) && rows == *length && (a.is(1) || a == *batch) && width.is(wanted);
        fits.then_some([a, rows])
    }

    /// The table as `[1 or b, s, size / 2]`.
    pub(super) fn add(self, graph: &Graph, patch: &mut Patch, lead: [Dim; 2]) -> Option<ValueRef> {
        let axis = i64::try_from(dims(graph, self.value)?.len()).ok()?.checked_sub(1)?;
        let slice = |end: i64, step: i64| Slice {
            axes: Some([axis].into_iter().collect()),
            starts: Some([Dim::fixed(0)].into_iter().collect()),
            ends: Some([Dim::fixed(end)].into_iter().collect()),
            steps: Some([step].into_iter().collect()),
        };
        let once = match self.angles {
            Angles::Once => self.value,
            Angles::Halves => patch.add(slice(self.size / 2, 1), &[Some(self.value)]),
            Angles::Pairs => patch.add(slice(self.size, 2), &[Some(self.value)]),
        };
        let shape: Shape = lead.into_iter().chain([Dim::fixed(self.size / 2)]).collect();
        if dims(graph, self.value)? == shape.as_slice() {
            return Some(once);
        }
        Some(patch.add(Reshape { shape: Some(shape), allow_zero: false }, &[Some(once)]))
    }
}

/// Whether the last axis of a value holds each number twice, as halves or as pairs.
fn is_twice(graph: &Graph, value: ValueRef, size: i64, angles: Angles, left: usize) -> bool {
    let Some(found) = dims(graph, value) else { return false };
    if left == 0 || !found.last().is_some_and(|last| last.is(size)) {
        return false;
    }
    if let Some(constant) = graph.constant(value) {
        return has_rows_of_twice(constant, size, angles);
    }
    let input = |slot| graph.input(value.node, slot);
    let Some(x) = input(0) else { return false };
    let within = |x| is_twice(graph, x, size, angles, left - 1);
    match graph.op(value.node) {
        Some(Op::Concat(op)) if angles == Angles::Halves => {
            let parts = graph.node_inputs(value.node);
            let is_last = op.axis == -1 || usize::try_from(op.axis) == Ok(found.len() - 1);
            is_last && parts.len() == 2 && parts.first() == parts.get(1)
        }
        Some(Op::Reshape(_)) => within(x) || (angles == Angles::Pairs && is_repeated(graph, x, size / 2)),
        Some(Op::Unary(_) | Op::Cast(_) | Op::Unsqueeze(_)) => within(x),
        Some(Op::Binary(_)) => [input(0), input(1)].into_iter().flatten().all(|x| {
            let is_uniform = graph.constant(x).is_some_and(|constant| constant.numel() == 1);
            is_uniform || within(x)
        }),
        Some(Op::Gather(op)) => {
            let rank = graph.info(x).and_then(|info| info.rank()).unwrap_or(0);
            let indices = input(1).and_then(|indices| graph.constant(indices));
            match usize::try_from(op.axis) {
                // Rows of a table.
                Ok(axis) if axis + 1 < rank => within(x),
                Ok(axis) if axis + 1 == rank => {
                    indices.is_some_and(|indices| indices.rank() == 1 && has_rows_of_twice(indices, size, angles))
                }
                _ => false,
            }
        }
        _ => false,
    }
}

/// Whether each row of so many numbers of a constant holds them twice, bit by bit.
fn has_rows_of_twice(constant: &Tensor, size: i64, angles: Angles) -> bool {
    if constant.splat_element().is_some() {
        return true;
    }
    let width = constant.dtype().bits() / 8;
    let row = usize::try_from(size).ok().and_then(|size| size.checked_mul(width)).filter(|row| *row > 0);
    let Some(row) = row else { return false };
    constant.bytes().chunks_exact(row).all(|row| match angles {
        Angles::Once => true,
        Angles::Halves => row.get(..row.len() / 2) == row.get(row.len() / 2..),
        Angles::Pairs => row.chunks(2 * width).all(|pair| pair.get(..width) == pair.get(width..)),
    })
}

/// Whether a value is `[.., count, 2]` with both elements of each pair the same: an expansion, or a concatenation of a
/// column with itself.
fn is_repeated(graph: &Graph, value: ValueRef, count: i64) -> bool {
    let is_column = |x: ValueRef| dims(graph, x).and_then(<[Dim]>::last).is_some_and(|last| last.is(1));
    let is_pairs = matches!(dims(graph, value), Some([.., found, two]) if two.is(2) && found.is(count));
    let parts = graph.node_inputs(value.node);
    let columns = parts.iter().flatten().copied();
    is_pairs
        && match graph.op(value.node) {
            Some(Op::Expand(_)) => parts.first().copied().flatten().is_some_and(is_column),
            Some(Op::Concat(_)) => {
                parts.len() == 2 && parts.first() == parts.get(1) && columns.into_iter().all(is_column)
            }
            _ => false,
        }
}
