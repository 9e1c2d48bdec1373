//! Moves the reshapes and transposes of equal parts of a tensor in front of the split, where they are one.
//!
//! ```text
//! %q, %k = split(%x) axis=1 sizes=[6, 6]      %1 = reshape(%x) shape=[n, 2, 3, 2]
//! %1 = reshape(%q) shape=[n, 3, 2]            %2 = transpose(%1) perm=[1, 0, 2, 3]
//! %2 = reshape(%k) shape=[n, 3, 2]            %3 = gather(%2, 0) axis=0
//!                                             %4 = gather(%2, 1) axis=0
//! ```
//!
//! Fires on the outputs of a Split of equal parts, and on Gathers of every single index of an axis, each read only by the
//! same reshape or transpose; where that leaves fewer nodes.
//!
//! Never refuses.
//!
//! Order: after `fuse_attention`, which gives queries, keys and values one form.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::Gather;
use trt_fuse_ir::{Dim, Graph, NodeId, Op, OpKind, Patch, Shape, Tensor, ValueRef};

use crate::layout::{Layout, Step, is_told};
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct SinkParts;

impl Rule for SinkParts {
    fn name(&self) -> &'static str {
        "sink_parts"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Split, OpKind::Gather]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let parts = split(graph, root).or_else(|| gathers(graph, root)).ok_or(Miss::NoMatch)?;
        let readers: Option<Vec<NodeId>> =
            parts.values.iter().map(|value| graph.sole_consumer(*value).map(|reader| reader.node)).collect();
        let readers = readers.ok_or(Miss::NoMatch)?;
        let step = readers.first().and_then(|reader| Step::of(graph, *reader)).ok_or(Miss::NoMatch)?;
        if readers.len() < 2 || readers.iter().any(|reader| Step::of(graph, *reader).as_ref() != Some(&step)) {
            return Err(Miss::NoMatch);
        }
        let steps = parts.layout.then(&in_front(&step, readers.len())).ok_or(Miss::NoMatch)?.steps();
        if steps.len() >= readers.len() || !steps.iter().all(|step| is_told(step, context)) {
            return Err(Miss::NoMatch);
        }
        let mut patch = Patch::new(self.name(), root);
        let all = steps.into_iter().fold(parts.x, |x, step| step.add(&mut patch, x));
        for (at, reader) in readers.iter().enumerate() {
            let index = patch.constant(Tensor::scalar(at as i64));
            let part = patch.add(Gather { axis: 0 }, &[Some(all), Some(index)]);
            patch.replace((*reader).into(), part);
        }
        let mut nodes: Vec<NodeId> = parts.values.iter().map(|value| value.node).collect();
        nodes.dedup();
        patch.absorb(readers).absorb(nodes);
        Ok(patch)
    }
}

/// Equal parts of a value.
pub(crate) struct Parts {
    pub(crate) x: ValueRef,
    /// The parts, stacked along a first axis.
    pub(crate) layout: Layout,
    pub(crate) values: Vec<ValueRef>,
}

/// A step of each of `count` parts, as a step of all stacked along a first axis.
fn in_front(step: &Step, count: usize) -> Step {
    match step {
        Step::Reshape(shape) => Step::Reshape([Dim::from(count)].into_iter().chain(shape.iter().cloned()).collect()),
        Step::Transpose(perm) => Step::Transpose([0].into_iter().chain(perm.iter().map(|axis| axis + 1)).collect()),
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

fn gathers(graph: &Graph, root: NodeId) -> Option<Parts> {
    // The first part stands for all.
    let (x, axis, _) = single_index(graph, root).filter(|(_, _, index)| *index == 0)?;
    let shape = graph.info(x)?.shape.as_ref()?;
    let count = usize::try_from(shape.get(axis)?.value()?).ok()?;
    if graph.reader_count(x) != count || graph.is_output(x) {
        return None;
    }
    let readers = graph.consumers(x);
    let mut values = vec![None; count];
    for reader in readers {
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

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::testing::run_rule;

    #[test]
    fn fires_on_a_split() {
        let text = "graph g(%x: f32[n, 5, 12]) -> (%a, %b, %c) {
            %q, %k, %v = split(%x) axis=2 sizes=[4, 4, 4]
            %a = reshape(%q) shape=[n, 5, 2, 2]
            %b = reshape(%k) shape=[n, 5, 2, 2]
            %c = reshape(%v) shape=[n, 5, 2, 2] }";
        assert_snapshot!(run_rule(SinkParts, text).equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 5, 12]) -> (%a, %b, %c) {
          %q.1 = reshape(%x) shape=[n, 5, 3, 2, 2] : f32[n, 5, 3, 2, 2]
          %q.2 = transpose(%q.1) perm=[2, 0, 1, 3, 4] : f32[3, n, 5, 2, 2]
          %q.sink_parts = constant() value=i64[] {0}
          %a = gather(%q.2, %q.sink_parts) axis=0 : f32[n, 5, 2, 2]
          %q.sink_parts.1 = constant() value=i64[] {1}
          %b = gather(%q.2, %q.sink_parts.1) axis=0 : f32[n, 5, 2, 2]
          %q.sink_parts.2 = constant() value=i64[] {2}
          %c = gather(%q.2, %q.sink_parts.2) axis=0 : f32[n, 5, 2, 2]
        }
        ");
    }

    #[test]
    fn fires_on_gathers() {
        let text = "graph g(%x: f32[3, 7, n, 8]) -> (%a, %b, %c) {
            %zero = constant() value=i64[] {0} %one = constant() value=i64[] {1} %last = constant() value=i64[] {-1}
            %q = gather(%x, %zero) axis=0 %k = gather(%x, %one) axis=0 %v = gather(%x, %last) axis=0
            %a = transpose(%q) perm=[1, 0, 2] %b = transpose(%k) perm=[1, 0, 2] %c = transpose(%v) perm=[1, 0, 2] }";
        assert_snapshot!(run_rule(SinkParts, text).equal_within(0.0, 2).after, @"
        graph g(%x: f32[3, 7, n, 8]) -> (%a, %b, %c) {
          %q.1 = transpose(%x) perm=[0, 2, 1, 3] : f32[3, n, 7, 8]
          %q.sink_parts = constant() value=i64[] {0}
          %a = gather(%q.1, %q.sink_parts) axis=0 : f32[n, 7, 8]
          %q.sink_parts.1 = constant() value=i64[] {1}
          %b = gather(%q.1, %q.sink_parts.1) axis=0 : f32[n, 7, 8]
          %q.sink_parts.2 = constant() value=i64[] {2}
          %c = gather(%q.1, %q.sink_parts.2) axis=0 : f32[n, 7, 8]
        }
        ");
    }

    #[test]
    fn leaves_others_alone() {
        for body in [
            // Unequal parts, different steps, a part that something else reads, a part that nothing reads.
            "%q, %k = split(%x) axis=1 sizes=[2, 4] %a = reshape(%q) shape=[(2*n)] %b = reshape(%k) shape=[(4*n)]",
            "%q, %k = split(%x) axis=1 sizes=[3, 3] %a = reshape(%q) shape=[(3*n)] %b = reshape(%k) shape=[(3*n), 1]",
            "%q, %k = split(%x) axis=1 sizes=[3, 3] %a = reshape(%q) shape=[(3*n)] %c = reshape(%k) shape=[(3*n)] %b = relu(%k)",
            "%z = constant() value=i64[] {0} %o = constant() value=i64[] {1} %q = gather(%x, %z) axis=1
                %k = gather(%x, %o) axis=1 %a = reshape(%q) shape=[1, n] %b = reshape(%k) shape=[1, n]",
            // As many nodes as before.
            "%q, %k = split(%x) axis=1 sizes=[3, 3] %a = reshape(%q) shape=[(3*n)] %b = reshape(%k) shape=[(3*n)]",
            // Axes from the end.
            "%q, %k = split(%x) axis=1 sizes=[3, 3] %a = transpose(%q) perm=[-1, 0] %b = transpose(%k) perm=[-1, 0]",
        ] {
            let text = format!("graph g(%x: f32[n, 6]) -> (%a, %b) {{ {body} }}");
            assert_eq!(run_rule(SinkParts, &text).rewrites, 0, "{body}");
        }
    }

    #[test]
    fn leaves_gathers_of_an_output_alone() {
        let text = |outputs: &str| {
            format!(
                "graph g(%z: f32[3, 7, 8]) -> ({outputs}) {{ %x = relu(%z) %0 = constant() value=i64[] {{0}}
                %1 = constant() value=i64[] {{1}} %2 = constant() value=i64[] {{2}} %q = gather(%x, %0) axis=0
                %k = gather(%x, %1) axis=0 %v = gather(%x, %2) axis=0 %a = reshape(%q) shape=[56] %b = reshape(%k) shape=[56]
                %c = reshape(%v) shape=[56] }}"
            )
        };
        let rewrites = ["%a, %b, %c", "%a, %b, %c, %x"].map(|outputs| run_rule(SinkParts, &text(outputs)).rewrites);
        assert_eq!(rewrites, [1, 0]);
    }

    #[test]
    fn leaves_gathers_along_two_axes_alone() {
        let text = |axis: i64| {
            format!(
                "graph g(%x: f32[2, 2, 3]) -> (%a, %b) {{
                %z = constant() value=i64[] {{0}} %o = constant() value=i64[] {{1}} %q = gather(%x, %z) axis=0
                %k = gather(%x, %o) axis={axis} %a = transpose(%q) perm=[1, 0] %b = transpose(%k) perm=[1, 0] }}"
            )
        };
        assert_eq!([0, 1].map(|axis| run_rule(SinkParts, &text(axis)).rewrites), [1, 0]);
    }
}
