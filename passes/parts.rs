//! The parts that a tensor is cut into: outputs of a Split, or Gathers of every single index of an axis.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::{Graph, NodeId, Op, Shape, ValueRef};

use crate::layout::{Layout, Step};

/// Equal parts of a value.
pub(crate) struct Parts {
    pub(crate) x: ValueRef,
    /// The parts, stacked along a first axis.
    pub(crate) layout: Layout,
    pub(crate) values: Vec<ValueRef>,
}

/// Most steps between a part and the attention that reads it.
pub(crate) const MOST_STEPS: usize = 4;

/// Whether a part is the queries, keys or values of an attention, through so many steps or fewer that nothing else reads.
pub(crate) fn is_of_attention(graph: &Graph, part: ValueRef, most: usize) -> bool {
    let (mut value, mut left) = (part, most);
    loop {
        let Some(reader) = graph.sole_consumer(value) else { return false };
        let steps = match graph.op(reader.node) {
            Some(Op::Attention(_)) => return reader.slot < 3,
            Some(Op::Reshape(_) | Op::Transpose(_)) => 1,
            // As many as it was made of.
            Some(Op::Shuffle(op)) => {
                [op.before.is_some(), op.shape.is_some(), op.after.is_some()].into_iter().filter(|step| *step).count()
            }
            _ => return false,
        };
        match left.checked_sub(steps) {
            Some(rest) => (value, left) = (reader.node.into(), rest),
            None => return false,
        }
    }
}

/// The permutation that brings an axis to the front.
fn to_front(axis: usize, rank: usize) -> Step {
    Step::Transpose(
        [axis].into_iter().chain((0..rank).filter(|other| *other != axis)).map(|axis| axis as i64).collect(),
    )
}

/// The outputs of a Split, if they are equal.
pub(crate) fn split(graph: &Graph, root: NodeId) -> Option<Parts> {
    let Op::Split(op) = graph.op(root)? else { return None };
    let x = graph.input(root, 0)?;
    let shape = graph.info(x)?.shape.as_ref()?;
    let axis = resolve_axis(op.axis, shape.len()).ok()?;
    let values: Vec<ValueRef> =
        (0..graph.node(root)?.outputs.len() as u32).map(|slot| ValueRef { node: root, slot }).collect();
    let size = |value: &ValueRef| graph.info(*value)?.shape.as_ref()?.get(axis);
    let part = values.first().and_then(size)?;
    if values.iter().any(|value| size(value) != Some(part)) {
        return None;
    }
    let (lead, tail) = (shape.get(..axis)?, shape.get(axis + 1..)?);
    let apart: Shape =
        lead.iter().cloned().chain([values.len().into(), part.clone()]).chain(tail.iter().cloned()).collect();
    let rank = apart.len();
    let layout = Layout::identity(shape).then(&Step::Reshape(apart))?.then(&to_front(axis, rank))?;
    Some(Parts { x, layout, values })
}

/// Gathers of every single index of an axis, the first of them `root`.
pub(crate) fn gathers(graph: &Graph, root: NodeId) -> Option<Parts> {
    // The first part stands for all.
    let (x, axis, _) = single_index(graph, root).filter(|(_, _, index)| *index == 0)?;
    let shape = graph.info(x)?.shape.as_ref()?;
    let count = usize::try_from(shape.get(axis)?.value()?).ok()?;
    if graph.reader_count(x) != count || graph.is_output(x) {
        return None;
    }
    let mut values = vec![None; count];
    for reader in graph.uses(x) {
        let (data, along, index) = single_index(graph, reader.node)?;
        let place = values.get_mut(index).filter(|place| place.is_none() && data == x && along == axis)?;
        *place = Some(ValueRef::from(reader.node));
    }
    let layout = Layout::identity(shape).then(&to_front(axis, shape.len()))?;
    Some(Parts { x, layout, values: values.into_iter().collect::<Option<_>>()? })
}

/// A Gather of one index that is a constant of rank 0: its data, its axis and the index, both from the front.
fn single_index(graph: &Graph, id: NodeId) -> Option<(ValueRef, usize, usize)> {
    let Op::Gather(op) = graph.op(id)? else { return None };
    let x = graph.input(id, 0)?;
    let index = graph.constant(graph.input(id, 1)?).filter(|index| index.rank() == 0)?;
    let shape = graph.info(x)?.shape.as_ref()?;
    let axis = resolve_axis(op.axis, shape.len()).ok()?;
    let (at, size) = (*index.to_i64s()?.first()?, shape.get(axis)?.value()?);
    let at = usize::try_from(if at < 0 { at + size } else { at }).ok()?;
    Some((x, axis, at))
}
