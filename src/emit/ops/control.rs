//! Control flow: conditionals and loops, whose bodies are walked like graphs.

use std::sync::Arc;

use rustc_hash::FxHashSet;
use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{Body, If, Loop, Scan};
use trt_fuse_ir::{DType, Dim, Graph, Op, ValueInfo, ValueRef};

use super::super::error::EmitError;
use super::super::layers::{self, DimsArg};
use super::super::sink::{NetworkSink, Outputs};
use super::super::site::Site;
use super::super::terms::{ElementwiseKind, LoopOutput, TripLimit};

/// An `IIfConditional`. Each value captured is one of its inputs, so that only the branch taken is computed.
pub(super) fn branch<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &'g If,
) -> Result<Outputs<S::Tensor>, EmitError> {
    let (then, otherwise) = (&*op.then_branch.0, &*op.else_branch.0);
    for (at, (a, b)) in then.outputs().iter().zip(otherwise.outputs()).enumerate() {
        let shape = |body: &'g Graph, value: ValueRef| body.info(value).and_then(|info| info.shape.as_ref());
        let (Some(a), Some(b)) = (shape(then, a.value), shape(otherwise, b.value)) else {
            return site.unsupported(format!("the rank of output {at} is not known in one of the branches"));
        };
        if a.len() != b.len() {
            let (a, b) = (a.len(), b.len());
            return site.unsupported(format!(
                "output {at} has {a} dimensions in one branch and {b} in the other, and its condition is only known at \
                 run time"
            ));
        }
        let fixed = |(a, b): (&Dim, &Dim)| Some((a.value()?, b.value()?));
        let other = a.iter().zip(b).filter_map(fixed).find(|(a, b)| a != b);
        // TensorRT-RTX 1.7.1 fails to build this.
        if let Some((x, y)) = other.filter(|_| a.iter().chain(b).any(|dim| dim.value().is_none())) {
            return site.unsupported(format!(
                "output {at} has a dimension of {x} in one branch and of {y} in the other, which TensorRT takes only \
                 where all dimensions are fixed"
            ));
        }
    }
    let condition = site.single(0, "scalar")?;
    let conditional = site.layer("", |sink, label| sink.conditional(label, condition))?;
    let mut captures = Vec::new();
    for slot in 1..site.node.arity as usize {
        let x = site.tensor(slot)?;
        let read = |body: &Graph| body.inputs().get(slot - 1).is_some_and(|id| body.is_used((*id).into()));
        captures.push(if read(then) || read(otherwise) {
            site.layer("capture", |sink, label| sink.conditional_input(label, conditional, x))?
        } else {
            x
        });
    }
    let (then, otherwise) = match (site.body(then, &captures), site.body(otherwise, &captures)) {
        (Err(EmitError::Unsupported(mut nodes)), Err(EmitError::Unsupported(more))) => {
            nodes.extend(more);
            return Err(EmitError::Unsupported(nodes));
        }
        (then, otherwise) => (then?, otherwise?),
    };
    let mut outputs = Outputs::new();
    for (a, b) in then.into_iter().zip(otherwise) {
        outputs.push(site.layer("output", |sink, label| sink.conditional_output(label, conditional, a, b))?);
    }
    Ok(outputs)
}

/// An `ILoop` of a count, a condition, or both.
pub(super) fn repeat<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &'g Loop,
) -> Result<Outputs<S::Tensor>, EmitError> {
    const OWN: usize = 2;
    let body = &*op.body.0;
    let goes_on = op.always_continues();
    let starts = site.source(1).is_none() || site.info(1).and_then(ValueInfo::known_ints).is_some_and(|all| all == [1]);
    let has_scan_outputs = (op.carried..site.node.outputs.len()).any(|slot| site.is_used(slot));
    if goes_on && site.source(0).is_none() {
        return site.unsupported("neither a trip count nor a condition ends it");
    }
    if has_scan_outputs && !goes_on {
        return site.unsupported(
            "its scan outputs are as long as its condition holds, and TensorRT needs their length before the loop",
        );
    }
    if has_scan_outputs && !is_shape(site.emitter.graph, site.source(0)) {
        return site.unsupported(
            "its trip count is computed from an input of floats, and TensorRT needs the length of its scan outputs as a shape",
        );
    }
    if has_scan_outputs && !starts && !is_shape(site.emitter.graph, site.source(1)) {
        return site.unsupported(
            "whether it begins is known only at run time, and TensorRT needs the length of its scan outputs before",
        );
    }
    check_carried(site, &op.body, op.carried, OWN, 1)?;

    // A loop that also has a condition counts in 32 bits.
    let mut trips = match site.source(0) {
        Some(_) if goes_on => Some(site.single(0, "scalar")?),
        Some(_) => Some(site.count_i32(0, "trips")?),
        None => None,
    };
    let condition = match site.source(1) {
        Some(_) if !starts => Some(site.single(1, "scalar")?),
        _ => None,
    };
    if let (Some(count), Some(condition), true) = (trips, condition, goes_on) {
        let none = site.scalar(site.info(0).map_or(DType::I64, |info| info.dtype), 0, 0.0, "none")?;
        trips = Some(site.layer("trips", |sink, label| sink.select(label, condition, count, none))?);
    }
    let looped = site.layer("", |sink, label| sink.start_loop(label))?;
    if let Some(trips) = trips {
        site.layer("count", |sink, label| sink.trip_limit(label, looped, trips, TripLimit::Count))?;
    }
    let holds = site.scalar(DType::Bool, 0, 1.0, "true")?;
    let condition = if goes_on {
        None
    } else {
        let first = condition.unwrap_or(holds);
        let condition = site.layer("condition", |sink, label| sink.recurrence(label, looped, first))?;
        site.layer("while", |sink, label| sink.trip_limit(label, looped, condition, TripLimit::While))?;
        Some(condition)
    };
    let mut inputs = vec![iteration(site, body, looped)?, holds];
    let carried = recurrences(site, looped, OWN, op.carried)?;
    inputs.extend(&carried);
    for slot in OWN + op.carried..site.node.arity as usize {
        inputs.push(site.tensor(slot)?);
    }
    let results = site.body(body, &inputs)?;
    if let (Some(condition), Some(next)) = (condition, results.first()) {
        site.emitter.sink.set_recurrence(condition, *next)?;
    }
    let mut outputs = last_values(site, looped, &carried, results.get(1..).unwrap_or_default())?;
    if let (Some(trips), true) = (trips, has_scan_outputs) {
        for x in results.into_iter().skip(1 + op.carried) {
            let kind = LoopOutput::Concatenate;
            outputs.push(site.layer("scan", |sink, label| sink.loop_output(label, looped, x, kind, 0, Some(trips)))?);
        }
    }
    Ok(outputs)
}

/// An `ILoop` that counts the slices of the scan inputs.
pub(super) fn scan<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &'g Scan,
) -> Result<Outputs<S::Tensor>, EmitError> {
    let body = &*op.body.0;
    let flag = |flags: &[i64], at: usize| flags.get(at).is_some_and(|flag| *flag != 0);
    check_carried(site, &op.body, op.carried, 0, 0)?;
    let mut axes = Vec::new();
    for at in 0..op.scan_inputs {
        axes.push(axis(site, op.input_axes.get(at), site.rank(op.carried + at)?)?);
    }
    let length = length(site, op.carried, &axes)?;
    let length = scalar_dim(site, &length)?;
    let looped = site.layer("", |sink, label| sink.start_loop(label))?;
    site.layer("count", |sink, label| sink.trip_limit(label, looped, length, TripLimit::Count))?;
    let mut inputs = recurrences(site, looped, 0, op.carried)?;
    let carried = inputs.clone();
    for (at, axis) in axes.into_iter().enumerate() {
        let x = site.tensor(op.carried + at)?;
        let reverse = flag(&op.input_reversed, at);
        inputs.push(site.layer("slice", |sink, label| sink.iterator(label, looped, x, axis, reverse))?);
    }
    for slot in op.carried + op.scan_inputs..site.node.arity as usize {
        inputs.push(site.tensor(slot)?);
    }
    let results = site.body(body, &inputs)?;
    let mut outputs = last_values(site, looped, &carried, &results)?;
    for (at, x) in results.into_iter().skip(op.carried).enumerate() {
        let info = site.node.outputs.get(op.carried + at).map(|value| &value.info);
        let Some(rank) = info.and_then(ValueInfo::rank) else {
            return site.unsupported(format!("the rank of scan output {at} is not known"));
        };
        let axis = axis(site, op.output_axes.get(at), rank)?;
        let kind = if flag(&op.output_reversed, at) { LoopOutput::Reverse } else { LoopOutput::Concatenate };
        outputs.push(site.layer("scan", |sink, label| sink.loop_output(label, looped, x, kind, axis, Some(length)))?);
    }
    Ok(outputs)
}

/// Whether TensorRT can compute a value as a shape: from shapes and inputs of integers. On the way there may be floats
/// and Bools, but no input of them.
fn is_shape(graph: &Graph, value: Option<ValueRef>) -> bool {
    let mut pending: Vec<ValueRef> = value.into_iter().collect();
    let mut seen = FxHashSet::default();
    while let Some(value) = pending.pop() {
        if graph.constant(value).is_some() || !seen.insert(value) {
            continue;
        }
        if matches!(graph.op(value.node), Some(Op::Input)) && !graph.dtype(value).is_integer() {
            return false;
        }
        if !matches!(graph.op(value.node), Some(Op::ShapeOf(_) | Op::Size)) {
            pending.extend(graph.node_inputs(value.node).into_iter().flatten());
        }
    }
    true
}

/// A dimension as a tensor of rank zero.
fn scalar_dim<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>, dim: &Dim) -> Result<S::Tensor, EmitError> {
    match dim.value() {
        Some(value) => site.scalar(site.capabilities().index_dtype(), 0, value as f64, "length"),
        None => {
            let dim = site.dim_tensor(dim)?;
            site.shuffle(dim, None, Some(DimsArg::Fixed(&[])), None, "length")
        }
    }
}

fn axis<'g, S: NetworkSink<'g>>(site: &Site<'_, '_, 'g, S>, axis: Option<&i64>, rank: usize) -> Result<i64, EmitError> {
    match resolve_axis(axis.copied().unwrap_or(0), rank) {
        Ok(axis) => Ok(axis as i64),
        Err(why) => site.unsupported(why),
    }
}

/// How many slices the scan inputs from a slot on have: a number if one of them tells it.
fn length<'g, S: NetworkSink<'g>>(site: &Site<'_, '_, 'g, S>, first: usize, axes: &[i64]) -> Result<Dim, EmitError> {
    let length = |(at, axis): (usize, &i64)| site.info(first + at)?.shape.as_ref()?.get(*axis as usize).cloned();
    let lengths: Vec<Dim> = axes.iter().enumerate().filter_map(length).collect();
    match lengths.iter().find(|length| length.value().is_some()).or(lengths.first()) {
        Some(length) => Ok(length.clone()),
        None => site.unsupported("it has no scan input"),
    }
}

/// Refuses carried values that TensorRT cannot carry: a recurrence keeps its shape. Those of the body start at
/// `input` and `output`.
fn check_carried<'g, S: NetworkSink<'g>>(
    site: &Site<'_, '_, 'g, S>,
    body: &Body,
    carried: usize,
    input: usize,
    output: usize,
) -> Result<(), EmitError> {
    let graph = &body.0;
    let mut told: FxHashSet<Arc<str>> = FxHashSet::default();
    for dim in graph.inputs().iter().filter_map(|id| graph.info((*id).into())?.shape.as_ref()).flatten() {
        dim.visit_symbols(&mut |name| {
            told.insert(name.clone());
        });
    }
    // Two expressions over symbols that are told differ, but for sizes that nobody uses. A symbol may be a number, and
    // what depends on data may be equal each time.
    let differ = |a: &Dim, b: &Dim| {
        let mut certain = a.value().is_some() == b.value().is_some();
        b.visit_symbols(&mut |name| certain &= told.contains(name));
        certain && a != b
    };
    let entries = graph.inputs().iter().skip(input).take(carried);
    for (entry, exit) in entries.zip(graph.outputs().iter().skip(output)) {
        let (Some(entry), Some(exit)) = (graph.value((*entry).into()), graph.info(exit.value)) else { continue };
        if entry.info.shape.is_none() || exit.shape.is_none() {
            return site.unsupported(format!(
                "carried value `{}` may change its shape from one round to the next: it comes in as {} and leaves as {exit}",
                entry.name, entry.info
            ));
        }
        let pairs = || entry.info.shape.iter().flatten().zip(exit.shape.iter().flatten());
        if entry.info.rank() != exit.rank() || pairs().any(|(a, b)| differ(a, b)) {
            return site.unsupported(format!(
                "carried value `{}` changes its shape: it comes in as {} and leaves as {exit}",
                entry.name, entry.info
            ));
        }
    }
    Ok(())
}

fn recurrences<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    looped: layers::Loop,
    first: usize,
    count: usize,
) -> Result<Vec<S::Tensor>, EmitError> {
    let mut carried = Vec::with_capacity(count);
    for slot in first..first + count {
        let initial = site.tensor(slot)?;
        carried.push(site.layer("carried", |sink, label| sink.recurrence(label, looped, initial))?);
    }
    Ok(carried)
}

/// Closes the recurrences, and gives their last values.
fn last_values<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    looped: layers::Loop,
    carried: &[S::Tensor],
    next: &[S::Tensor],
) -> Result<Outputs<S::Tensor>, EmitError> {
    let mut outputs = Outputs::new();
    for (recurrence, next) in carried.iter().zip(next) {
        site.emitter.sink.set_recurrence(*recurrence, *next)?;
        let kind = LoopOutput::LastValue;
        outputs.push(site.layer("last", |sink, label| sink.loop_output(label, looped, *recurrence, kind, 0, None))?);
    }
    Ok(outputs)
}

/// The number of the round, which TensorRT's loops do not tell: a recurrence that counts, if the body reads it.
fn iteration<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    body: &Graph,
    looped: layers::Loop,
) -> Result<S::Tensor, EmitError> {
    let input = body.inputs().first().map(|id| ValueRef::from(*id));
    let dtype = input.map_or(DType::I64, |input| body.dtype(input));
    let zero = site.scalar(dtype, 0, 0.0, "zero")?;
    if !input.is_some_and(|input| body.is_used(input)) {
        return Ok(zero);
    }
    let one = site.scalar(dtype, 0, 1.0, "one")?;
    let number = site.layer("iteration", |sink, label| sink.recurrence(label, looped, zero))?;
    let next = site.elementwise(number, one, ElementwiseKind::Sum, "next")?;
    site.emitter.sink.set_recurrence(number, next)?;
    Ok(number)
}

#[cfg(test)]
mod tests;
