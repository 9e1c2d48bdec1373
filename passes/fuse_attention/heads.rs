//! The queries, keys and values of attention, each head of keys and values once.

use trt_fuse_ir::op::{Reshape, Transpose};
use trt_fuse_ir::{Dim, Graph, Ints, NodeId, Op, Patch, Shape, ValueRef};

use super::Operand;
use crate::pass::Miss;
use crate::pattern::swapped_matrix;

/// Operands that fit an attention.
pub(super) struct Heads {
    operands: [Operand; 3],
    rank: usize,
    /// The shape of keys and values before heads were repeated, each with its last two axes as the operand has them.
    shared: Option<[Shape; 2]>,
}

impl Heads {
    /// Checks that batch and heads agree, and takes the repetition off keys and values that both have it.
    pub(super) fn of(graph: &Graph, operands: [Operand; 3], root: NodeId) -> Result<Self, Miss> {
        let mut operands = operands.map(|operand| match swapped_matrix(graph, operand.value) {
            Some((_, value)) => Operand { value, transposed: !operand.transposed },
            None => operand,
        });
        let shapes = operands.map(|operand| graph.info(operand.value)?.shape.as_ref());
        let [Some(query), Some(key), Some(value)] = shapes else { return Err(Miss::NoMatch) };
        let lead = |shape: &Shape| shape.len().checked_sub(2).and_then(|lead| shape.get(..lead).map(<[Dim]>::to_vec));
        let batch = lead(query);
        if query.len() != key.len() || lead(key) != batch || lead(value) != batch {
            let reason = "batch or heads of queries, keys and values are not known to be equal";
            return Err(Miss::Blocked { reason, at: root });
        }
        let rank = query.len();
        let [_, keys, values] = &mut operands;
        let shared = match (repeated(graph, keys.value), repeated(graph, values.value)) {
            (Some((key, times, key_shape)), Some((value, value_times, value_shape))) if times == value_times => {
                (keys.value, values.value) = (key, value);
                Some([key_shape, value_shape])
            }
            _ => None,
        };
        Ok(Self { operands, rank, shared })
    }

    /// What queries, keys and values are computed of.
    pub(super) fn operands(&self) -> [ValueRef; 3] {
        self.operands.map(|operand| operand.value)
    }

    /// Rows and columns of each operand, if no heads were repeated.
    pub(super) fn matrices(&self, graph: &Graph) -> Option<[[Dim; 2]; 3]> {
        let matrix = |operand: &Operand| match dims(graph, operand.value)? {
            [.., columns, rows] if operand.transposed => Some([rows.clone(), columns.clone()]),
            [.., rows, columns] => Some([rows.clone(), columns.clone()]),
            _ => None,
        };
        let [query, key, value] = &self.operands;
        self.shared.is_none().then_some([matrix(query)?, matrix(key)?, matrix(value)?])
    }

    /// The operands with their rows before their columns.
    pub(super) fn values(self, patch: &mut Patch) -> [ValueRef; 3] {
        let [query, key, value] = self.operands;
        let (key_shape, value_shape) = match self.shared {
            Some([key, value]) => (Some(key), Some(value)),
            None => (None, None),
        };
        [(query, None), (key, key_shape), (value, value_shape)].map(|(operand, shape)| {
            let mut value = operand.value;
            if let Some(shape) = shape {
                value = patch.add(Reshape { shape: Some(shape), allow_zero: false }, &[Some(value)]);
            }
            if operand.transposed {
                let mut perm: Ints = (0..self.rank as i64).collect();
                perm.swap(self.rank.saturating_sub(2), self.rank.saturating_sub(1));
                value = patch.add(Transpose { perm }, &[Some(value)]);
            }
            value
        })
    }
}

/// A value `[b, g * r, ..]` as `[b, g, 1, ..]` repeated r times: what is repeated, r, and the shape `[b, g, ..]`.
fn repeated(graph: &Graph, value: ValueRef) -> Option<(ValueRef, Dim, Shape)> {
    let (Op::Reshape(_), [batch, heads, rows, columns]) = (graph.op(value.node)?, dims(graph, value)?) else {
        return None;
    };
    let expanded = graph.input(value.node, 0)?;
    let Op::Expand(_) = graph.op(expanded.node)? else { return None };
    let once = graph.input(expanded.node, 0)?;
    let [b, g, r, t, e] = dims(graph, expanded)? else { return None };
    let [_, _, one, ..] = dims(graph, once)? else { return None };
    let stays = [b.clone(), g.clone(), Dim::fixed(1), t.clone(), e.clone()];
    let is_repetition = one.is(1) && dims(graph, once)? == stays.as_slice();
    let is_merged = b == batch && t == rows && e == columns && &(g * r) == heads;
    let shape = [b, g, t, e].into_iter().cloned().collect();
    (is_repetition && is_merged).then(|| (once, r.clone(), shape))
}

fn dims(graph: &Graph, value: ValueRef) -> Option<&[Dim]> {
    Some(graph.info(value)?.shape.as_ref()?.as_slice())
}
