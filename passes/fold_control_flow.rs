//! Replaces control flow whose way is known by the nodes of its bodies.
//!
//! ```text
//! %c = constant() value=bool[] {1}
//! %y = if(%c, %x) then_branch="graph t(%x: f32[n]) -> (%z) { %z = relu(%x) }" else_branch=".."
//! ```
//! becomes
//! ```text
//! %y = relu(%x)
//! ```
//!
//! Fires on
//! - an `if` whose condition is known, as a constant or by shape facts: the branch taken;
//! - a `loop` or `scan` of no round: the initial values, and empty scan outputs;
//! - a `loop` or `scan` of one round: the body;
//! - a `loop` that only its trip count ends, or a `scan`, of a known number of rounds, if the operations of all rounds
//!   are at most [`MAX_UNROLLED`]: the body once for each round. Of nested loops the innermost goes first, so that the
//!   bound is one on all rounds of all of them.
//!
//! Nodes keep the names and origins that they have in the body.
//!
//! Refuses when
//! - its rounds have too many operations to be unrolled;
//! - a loop inside of it could not be unrolled;
//! - a body has symbols of its own, which mean nothing outside;
//! - shapes inside depend on data, and there are several rounds: the same symbols would stand for different numbers;
//! - it has no round, and the shape of a scan output is not known;
//! - the body does not fit the values outside.
//!
//! Order: after `fold_constants`, which makes conditions and trip counts known, and `sink_captures`; before all that
//! looks for patterns.
//!
//! Numerics: bit-exact.

use rustc_hash::FxHashSet;
use std::sync::Arc;
use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{Body, Concat, Loop, Scan, Split, Squeeze, Unsqueeze};
use trt_fuse_ir::{Dim, Dims, Graph, GraphError, Ints, Known, NodeId, Op, Patch, Tensor, ValueInfo, ValueRef};

use crate::pass::{Miss, remark};
use crate::{Outcome, Pass, PassContext, PassError};

/// Most operations that several rounds of a loop become.
const MAX_UNROLLED: usize = 128;
/// Operations of a graph in which nothing is unrolled any more.
const MAX_OPERATIONS: usize = 1 << 16;

const TOO_MANY: &str = "its rounds have too many operations to be unrolled";
const LOOP_INSIDE: &str = "a loop inside of it could not be unrolled";
const OWN_SYMBOLS: &str = "a body has symbols of its own, which mean nothing outside";
const DATA_DEPENDENT: &str = "shapes inside depend on data, and there are several rounds";
const UNKNOWN_SHAPE: &str = "it has no round, and the shape of a scan output is not known";

/// Replaces control flow whose way is known by the nodes of its bodies.
#[derive(Debug, Default)]
pub(crate) struct FoldControlFlow;

impl Pass for FoldControlFlow {
    fn name(&self) -> &'static str {
        "fold_control_flow"
    }

    fn run(&self, graph: &mut Graph, context: &mut PassContext<'_>) -> Result<Outcome, PassError> {
        let mut rewrites = 0;
        // What one node becomes may tell the way of another. A node that did not fit once is left alone.
        let mut misfits: FxHashSet<Arc<str>> = FxHashSet::default();
        'again: loop {
            context.remarks.retain(|remark| misfits.contains(&remark.node));
            for id in graph.live() {
                if graph.op(id).is_none_or(|op| op.first_capture().is_none()) || misfits.contains(graph.node_name(id)) {
                    continue;
                }
                let patch = match fold(graph, id) {
                    Ok(patch) => patch,
                    Err(Miss::Blocked { reason, at }) => {
                        context.remarks.push(remark(graph, self.name(), at, reason.to_string()));
                        continue;
                    }
                    Err(Miss::NoMatch | Miss::NoEffect | Miss::AlsoRead { .. }) => continue,
                };
                match context.apply(self.name(), graph, &patch)? {
                    Ok(_) => {
                        rewrites += 1;
                        context.settle(self.name(), graph)?;
                        continue 'again;
                    }
                    Err(error @ (GraphError::Replacement { .. } | GraphError::Infer { .. })) => {
                        let reason = format!("the body does not fit the values outside: {error}");
                        context.remarks.push(remark(graph, self.name(), id, reason));
                        misfits.insert(graph.node_name(id).into());
                    }
                    Err(source) => {
                        return Err(PassError::Patch { pass: self.name(), node: graph.node_name(id).into(), source });
                    }
                }
            }
            return Ok(Outcome::of(rewrites));
        }
    }
}

fn fold(graph: &Graph, id: NodeId) -> Result<Patch, Miss> {
    let node = graph.node(id).ok_or(Miss::NoMatch)?;
    let mut fold = Fold { graph, id, patch: Patch::new("fold_control_flow", id) };
    let outputs = match &node.op {
        Op::If(op) => {
            let branch = match fold.known(0).as_deref() {
                Some([0]) => &op.else_branch,
                Some([_]) => &op.then_branch,
                _ => return Err(Miss::NoMatch),
            };
            let captures = fold.operands(1)?;
            fold.check_symbols(branch)?;
            fold.inline(branch, &captures)?
        }
        Op::Loop(op) => fold.repeat(op)?,
        Op::Scan(op) => fold.scan(op)?,
        _ => return Err(Miss::NoMatch),
    };
    let Fold { mut patch, .. } = fold;
    if outputs.len() < node.outputs.len() {
        return Err(Miss::NoMatch);
    }
    for (slot, new) in (0..node.outputs.len() as u32).zip(outputs) {
        patch.replace(ValueRef { node: id, slot }, new);
    }
    patch.absorb([id]);
    Ok(patch)
}

struct Fold<'g> {
    graph: &'g Graph,
    id: NodeId,
    patch: Patch,
}

impl Fold<'_> {
    fn blocked<T>(&self, reason: &'static str) -> Result<T, Miss> {
        Err(Miss::Blocked { reason, at: self.id })
    }

    /// The elements of an input, if they are known.
    fn known(&self, slot: usize) -> Option<Vec<i64>> {
        self.graph.info(self.graph.input(self.id, slot)?)?.known_ints()
    }

    /// The inputs from a slot on.
    fn operands(&self, from: usize) -> Result<Vec<ValueRef>, Miss> {
        let inputs = self.graph.node_inputs(self.id);
        inputs.get(from..).unwrap_or_default().iter().map(|input| input.ok_or(Miss::NoMatch)).collect()
    }

    fn inline(&mut self, body: &Body, inputs: &[ValueRef]) -> Result<Vec<ValueRef>, Miss> {
        self.patch.inline(&body.0, inputs).map_err(|_| Miss::NoMatch)
    }

    /// Refuses a body whose inputs have symbols that the node's inputs do not tell.
    fn check_symbols(&self, body: &Body) -> Result<(), Miss> {
        let outside = symbols(self.graph.input_infos(self.id).into_iter().flatten());
        let inputs = body.0.inputs().iter().filter_map(|id| body.0.info((*id).into()));
        if symbols(inputs).is_subset(&outside) { Ok(()) } else { self.blocked(OWN_SYMBOLS) }
    }

    /// Refuses several rounds of a body that is large, or makes symbols of its own.
    fn check_rounds(&self, body: &Body, rounds: usize) -> Result<(), Miss> {
        self.check_symbols(body)?;
        if rounds == 1 {
            return Ok(());
        }
        // A round of nothing counts too: the rounds themselves are bounded.
        let all = operations(&body.0).max(1).saturating_mul(rounds);
        if all > MAX_UNROLLED || self.graph.operation_count() > MAX_OPERATIONS {
            return self.blocked(TOO_MANY);
        }
        if has_loop(&body.0) {
            return self.blocked(LOOP_INSIDE);
        }
        let infos = |ids: &mut dyn Iterator<Item = NodeId>| {
            symbols(ids.filter_map(|id| body.0.node(id)).flat_map(|node| &node.outputs).map(|value| &value.info))
        };
        let of_inputs = infos(&mut body.0.inputs().iter().copied());
        if infos(&mut body.0.node_ids()).is_subset(&of_inputs) { Ok(()) } else { self.blocked(DATA_DEPENDENT) }
    }

    fn repeat(&mut self, op: &Loop) -> Result<Vec<ValueRef>, Miss> {
        let starts = match self.graph.input(self.id, 1) {
            None => Some(true),
            Some(_) => self.known(1).map(|condition| condition != [0]),
        };
        let trips = match self.known(0).as_deref() {
            Some([trips]) => Some(usize::try_from(*trips).unwrap_or(0)),
            _ => None,
        };
        let operands = self.operands(2)?;
        let (initial, captures) = operands.split_at_checked(op.carried).ok_or(Miss::NoMatch)?;
        let mut carried = initial.to_vec();
        let mut items: Vec<Vec<ValueRef>> = Vec::new();
        match (starts, trips) {
            (Some(false), _) | (_, Some(0)) => return self.no_round(&op.body, carried, 1 + op.carried, &|_| 0),
            (Some(true), Some(1)) => {}
            (Some(true), Some(_)) if op.always_continues() => {}
            _ => return Err(Miss::NoMatch),
        }
        let rounds = trips.unwrap_or(0);
        self.check_rounds(&op.body, rounds)?;
        for round in 0..rounds {
            let number = self.patch.constant(Tensor::scalar(i64::try_from(round).unwrap_or(i64::MAX)));
            let holds = self.patch.constant(Tensor::scalar(true));
            let inputs: Vec<ValueRef> =
                [number, holds].into_iter().chain(carried).chain(captures.iter().copied()).collect();
            let mut outputs = self.inline(&op.body, &inputs)?.into_iter().skip(1);
            carried = outputs.by_ref().take(op.carried).collect();
            collect(&mut items, outputs);
        }
        let stacked: Vec<ValueRef> = items.into_iter().map(|items| self.stack(&items, 0)).collect();
        Ok(carried.into_iter().chain(stacked).collect())
    }

    fn scan(&mut self, op: &Scan) -> Result<Vec<ValueRef>, Miss> {
        let operands = self.operands(0)?;
        let (initial, rest) = operands.split_at_checked(op.carried).ok_or(Miss::NoMatch)?;
        let (scanned, captures) = rest.split_at_checked(op.scan_inputs).ok_or(Miss::NoMatch)?;
        let mut axes = Vec::new();
        let mut length = None;
        for (at, value) in scanned.iter().enumerate() {
            let shape = self.graph.info(*value).and_then(|info| info.shape.as_ref()).ok_or(Miss::NoMatch)?;
            let axis = resolve_axis(op.input_axes.get(at).copied().unwrap_or(0), shape.len());
            let axis = axis.map_err(|_| Miss::NoMatch)?;
            length = length.or_else(|| shape.get(axis).and_then(Dim::value));
            axes.push(axis as i64);
        }
        let rounds = length.and_then(|length| usize::try_from(length).ok()).ok_or(Miss::NoMatch)?;
        let mut carried = initial.to_vec();
        let output_axis = |slot: usize| op.output_axes.get(slot).copied().unwrap_or(0);
        if rounds == 0 {
            return self.no_round(&op.body, carried, op.carried, &output_axis);
        }
        self.check_rounds(&op.body, rounds)?;
        let mut slices: Vec<Vec<ValueRef>> = Vec::new();
        for (at, (value, axis)) in scanned.iter().zip(axes).enumerate() {
            let mut parts = self.slices(*value, axis, rounds);
            if flag(&op.input_reversed, at) {
                parts.reverse();
            }
            slices.push(parts);
        }
        let mut items: Vec<Vec<ValueRef>> = Vec::new();
        for round in 0..rounds {
            let slices = slices.iter().filter_map(|parts| parts.get(round)).copied();
            let inputs: Vec<ValueRef> = carried.into_iter().chain(slices).chain(captures.iter().copied()).collect();
            let mut outputs = self.inline(&op.body, &inputs)?.into_iter();
            carried = outputs.by_ref().take(op.carried).collect();
            collect(&mut items, outputs);
        }
        let mut stacked = Vec::new();
        for (at, mut items) in items.into_iter().enumerate() {
            if flag(&op.output_reversed, at) {
                items.reverse();
            }
            stacked.push(self.stack(&items, output_axis(at)));
        }
        Ok(carried.into_iter().chain(stacked).collect())
    }

    /// The slices of a value along an axis.
    fn slices(&mut self, value: ValueRef, axis: i64, count: usize) -> Vec<ValueRef> {
        let squeeze = Squeeze { axes: Some(Ints::from_slice(&[axis])) };
        if count == 1 {
            return vec![self.patch.add(squeeze, &[Some(value)])];
        }
        let sizes = std::iter::repeat_n(Dim::fixed(1), count).collect();
        let parts = self.patch.add_many(Split { axis, sizes: Some(sizes) }, &[Some(value)], count);
        let slice = |slot| self.patch.add(squeeze.clone(), &[Some(ValueRef { node: parts, slot })]);
        (0..count as u32).map(slice).collect()
    }

    /// Values joined along a new axis.
    fn stack(&mut self, items: &[ValueRef], axis: i64) -> ValueRef {
        let unsqueeze = Unsqueeze { axes: Some(Ints::from_slice(&[axis])) };
        let rows: Vec<Option<ValueRef>> =
            items.iter().map(|item| Some(self.patch.add(unsqueeze.clone(), &[Some(*item)]))).collect();
        match rows.as_slice() {
            [Some(row)] => *row,
            rows => self.patch.add(Concat { axis }, rows),
        }
    }

    /// The initial values, and empty scan outputs; the first of these in the body is `first`.
    fn no_round(
        &mut self,
        body: &Body,
        carried: Vec<ValueRef>,
        first: usize,
        axis: &dyn Fn(usize) -> i64,
    ) -> Result<Vec<ValueRef>, Miss> {
        let mut outputs = carried;
        for (at, output) in body.0.outputs().iter().skip(first).enumerate() {
            let empty = || {
                let info = body.0.info(output.value)?;
                let mut dims: Dims = info.fixed_dims()?;
                dims.insert(resolve_axis(axis(at), dims.len() + 1).ok()?, 0);
                Tensor::new(info.dtype, dims, Default::default()).ok()
            };
            match empty() {
                Some(tensor) => outputs.push(self.patch.constant(tensor)),
                None => return self.blocked(UNKNOWN_SHAPE),
            }
        }
        Ok(outputs)
    }
}

fn flag(flags: &Ints, at: usize) -> bool {
    flags.get(at).is_some_and(|flag| *flag != 0)
}

/// Adds the scan outputs of a round to those of the rounds before.
fn collect(items: &mut Vec<Vec<ValueRef>>, outputs: impl Iterator<Item = ValueRef>) {
    for (at, output) in outputs.enumerate() {
        match items.get_mut(at) {
            Some(items) => items.push(output),
            None => items.push(vec![output]),
        }
    }
}

/// Operations of a graph and of the bodies in it.
fn operations(graph: &Graph) -> usize {
    let inside = graph.node_ids().filter_map(|id| graph.op(id)).flat_map(Op::bodies);
    graph.operation_count() + inside.map(|body| operations(&body.0)).sum::<usize>()
}

/// Whether there is a loop in a graph or in a branch of it.
fn has_loop(graph: &Graph) -> bool {
    graph.node_ids().filter_map(|id| graph.op(id)).any(|op| match op {
        Op::Loop(_) | Op::Scan(_) => true,
        op => op.bodies().iter().any(|body| has_loop(&body.0)),
    })
}

/// The symbols in shapes and known elements.
fn symbols<'i>(infos: impl Iterator<Item = &'i ValueInfo>) -> FxHashSet<Arc<str>> {
    let mut symbols = FxHashSet::default();
    for info in infos {
        let elements = match &info.known {
            Known::Elements(elements) => &elements[..],
            Known::Nothing | Known::Constant(_) => &[],
        };
        for dim in info.shape.iter().flatten().chain(elements) {
            dim.visit_symbols(&mut |name| {
                symbols.insert(name.clone());
            });
        }
    }
    symbols
}

#[cfg(test)]
mod tests;
