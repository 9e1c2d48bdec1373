//! Which elements of a head a value holds.

use trt_fuse_ir::{Dim, Graph, Op, Shape, ValueRef};

use super::dims;

/// Slices and splits in a row that are looked through.
const DEEPEST: usize = 4;

/// Every `step`-th element of the last axis of a value, `count` of them from `start`. The last two of five axes, the
/// second of them a pair, count as one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cut {
    pub(super) x: ValueRef,
    pub(super) start: i64,
    pub(super) step: i64,
    pub(super) count: i64,
}

impl Cut {
    /// What a value of four axes, or of five with the last of size 1, is a cut of.
    pub(super) fn of(graph: &Graph, value: ValueRef) -> Option<Self> {
        let mut cut = match dims(graph, value)? {
            [_, _, _, size] => Self { x: value, start: 0, step: 1, count: size.value()? },
            [_, _, _, count, one] if one.is(1) => element_of_pairs(graph, value, count.value()?)?,
            _ => return None,
        };
        for _ in 0..DEEPEST {
            let Some(outer) = cut.outer(graph) else { break };
            cut = outer;
        }
        Some(cut)
    }

    /// The same elements as a cut of what this one's value is a cut of.
    fn outer(self, graph: &Graph) -> Option<Self> {
        let [_, _, _, size] = dims(graph, self.x)? else {
            let flat = graph.input(self.x.node, 0)?;
            let is_flat = matches!(graph.op(self.x.node)?, Op::Reshape(_)) && is_pairs_of(graph, self.x, flat);
            return is_flat.then_some(Self { x: flat, ..self });
        };
        let inner = last_part(graph, self.x, 3).or_else(|| {
            let count = size.value()?;
            match graph.op(self.x.node)? {
                Op::Gather(_) => element_of_pairs(graph, self.x, count),
                Op::Reshape(_) => {
                    let column = graph.input(self.x.node, 0)?;
                    let found = dims(graph, column)?;
                    let is_column = found.len() == 5 && found.last()?.is(1) && found[..4] == *dims(graph, self.x)?;
                    is_column.then(|| element_of_pairs(graph, column, count)).flatten()
                }
                _ => None,
            }
        })?;
        let start = inner.start.checked_add(self.start.checked_mul(inner.step)?)?;
        Some(Self { x: inner.x, start, step: inner.step.checked_mul(self.step)?, count: self.count })
    }
}

/// Whether five axes are four with the last taken apart into pairs.
fn is_pairs_of(graph: &Graph, pairs: ValueRef, flat: ValueRef) -> bool {
    match (dims(graph, pairs), dims(graph, flat)) {
        (Some([lead @ .., count, two]), Some([flat @ .., size])) if two.is(2) && flat.len() == 3 => {
            lead == flat
                && count.value().zip(size.value()).is_some_and(|(count, size)| count.checked_mul(2) == Some(size))
        }
        _ => false,
    }
}

/// One element of each pair of a value of five axes.
fn element_of_pairs(graph: &Graph, value: ValueRef, count: i64) -> Option<Cut> {
    let (x, start) = match graph.op(value.node)? {
        Op::Gather(op) if matches!(op.axis, 4 | -1) => {
            let index = graph.constant(graph.input(value.node, 1)?)?;
            let start = index.uniform_f64().filter(|_| index.rank() == 0)?;
            (graph.input(value.node, 0)?, if start < 0.0 { start + 2.0 } else { start } as i64)
        }
        _ => {
            let part = last_part(graph, value, 4)?;
            (part.x, part.start)
        }
    };
    let is_pairs = matches!(dims(graph, x)?, [_, _, _, found, two] if two.is(2) && found.is(count));
    is_pairs.then_some(Cut { x, start, step: 2, count })
}

/// What a Slice of just the last axis, or a Split of it, cuts out.
fn last_part(graph: &Graph, value: ValueRef, axis: i64) -> Option<Cut> {
    let x = graph.input(value.node, 0)?;
    let count = dims(graph, value)?.get(usize::try_from(axis).ok()?)?.value()?;
    match graph.op(value.node)? {
        Op::Slice(op) => {
            let only = |dims: &Option<Shape>| dims.as_deref().and_then(|dims| dims.first()).and_then(Dim::value);
            let (start, step) = (only(&op.starts)?, *op.steps.as_deref()?.first()?);
            let fits = op.axes.as_deref() == Some(&[axis]) && start >= 0 && step > 0;
            fits.then_some(Cut { x, start, step, count })
        }
        Op::Split(op) if matches!(op.axis, at if at == axis || at == -1) => {
            let before = op.sizes.as_ref()?.get(..usize::try_from(value.slot).ok()?)?;
            let start = before.iter().map(Dim::value).sum::<Option<i64>>()?;
            Some(Cut { x, start, step: 1, count })
        }
        _ => None,
    }
}
