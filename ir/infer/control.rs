//! Control flow: what the bodies' outputs tell of the node's.

use std::sync::Arc;

use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::elements::single;
use super::math::expect_bool;
use super::{InferContext, Infos, Inputs, join_dtypes, resolve_axis, shaped, unify};
use crate::op::{If, Loop, Scan};
use crate::{Dim, Graph, Known, Op, Shape, ValueInfo, ValueRef};

pub(super) fn infer(op: &Op, inputs: Inputs<'_>, context: &InferContext<'_>) -> Result<Infos, String> {
    let scope = Scope::of(inputs);
    match op {
        Op::If(op) => branch(op, inputs, &scope, context),
        Op::Loop(op) => repeat(op, inputs, &scope, context),
        Op::Scan(op) => scan(op, inputs, &scope, context),
        op => Err(format!("{op} has no body")),
    }
}

/// The symbols that mean the same inside and outside of a body: those of the node's inputs.
struct Scope(FxHashSet<Arc<str>>);

impl Scope {
    fn of(inputs: Inputs<'_>) -> Self {
        let mut symbols = FxHashSet::default();
        let mut visit = |name: &Arc<str>| {
            symbols.insert(name.clone());
        };
        for input in (0..inputs.len()).filter_map(|slot| inputs.optional(slot)) {
            let elements = match &input.known {
                Known::Elements(elements) => &elements[..],
                Known::Nothing | Known::Constant(_) => &[],
            };
            for dim in input.shape.iter().flatten().chain(elements) {
                dim.visit_symbols(&mut visit);
            }
        }
        Self(symbols)
    }

    fn knows(&self, dim: &Dim) -> bool {
        let mut known = true;
        dim.visit_symbols(&mut |name| known &= self.0.contains(name));
        known
    }

    /// A body's shape as seen from outside: a dimension over symbols of the body's own is fresh.
    fn outside(&self, shape: &Shape, output: usize, context: &InferContext<'_>) -> Shape {
        let dims = shape.iter().enumerate();
        dims.map(|(axis, dim)| if self.knows(dim) { dim.clone() } else { fresh(output, axis, context) }).collect()
    }
}

fn fresh(output: usize, axis: usize, context: &InferContext<'_>) -> Dim {
    context.fresh(&format!("o{output}.d{axis}"))
}

fn body_outputs(body: &Graph) -> Result<Vec<&ValueInfo>, String> {
    let info = |value: ValueRef| body.info(value).ok_or_else(|| "a body's output does not exist".to_string());
    body.outputs().iter().map(|output| info(output.value)).collect()
}

/// A shape that is one of two: equal dimensions stay, others are fresh; of different ranks nothing is known.
fn either(a: Option<Shape>, b: Option<Shape>, output: usize, context: &InferContext<'_>) -> Option<Shape> {
    let (a, b) = (a?, b?);
    if a.len() != b.len() {
        return None;
    }
    let dims = a.into_iter().zip(b).enumerate();
    Some(dims.map(|(axis, (a, b))| if a == b { a } else { fresh(output, axis, context) }).collect())
}

fn branch(op: &If, inputs: Inputs<'_>, scope: &Scope, context: &InferContext<'_>) -> Result<Infos, String> {
    let condition = inputs.required(0)?;
    expect_bool(condition)?;
    let (then, otherwise) = (body_outputs(&op.then_branch.0)?, body_outputs(&op.else_branch.0)?);
    if then.len() != otherwise.len() {
        return Err(format!("{} and {} outputs of the branches", then.len(), otherwise.len()));
    }
    let taken = single(condition).and_then(|condition| condition.value());
    let outputs = then.into_iter().zip(otherwise).enumerate().map(|(at, (then, otherwise))| {
        let dtype = join_dtypes(then.dtype, otherwise.dtype)?;
        let seen = |info: &ValueInfo| info.shape.as_ref().map(|shape| scope.outside(shape, at, context));
        Ok(shaped(
            dtype,
            match taken {
                Some(0) => seen(otherwise),
                Some(_) => seen(then),
                None => either(seen(then), seen(otherwise), at, context),
            },
        ))
    });
    outputs.collect()
}

fn repeat(op: &Loop, inputs: Inputs<'_>, scope: &Scope, context: &InferContext<'_>) -> Result<Infos, String> {
    let outputs = body_outputs(&op.body.0)?;
    let Some((_, results)) = outputs.split_first().filter(|(_, results)| results.len() >= op.carried) else {
        return Err(format!("{} outputs of the body, {} values carried", outputs.len(), op.carried));
    };
    let (carried, scanned) = results.split_at(op.carried);
    let mut infos = Infos::new();
    for (at, last) in carried.iter().enumerate() {
        let first = inputs.required(2 + at)?;
        let entry = op.body.0.inputs().get(2 + at).and_then(|id| op.body.0.info((*id).into()));
        infos.push(carried_value(first, entry, last, scope, at, context)?);
    }
    let trips = trip_count(op, inputs).unwrap_or_else(|| context.fresh("trips"));
    for (at, item) in scanned.iter().enumerate() {
        let at = op.carried + at;
        let shape = item.shape.as_ref().map(|shape| {
            let mut stacked = scope.outside(shape, at, context);
            stacked.insert(0, trips.clone());
            stacked
        });
        infos.push(shaped(item.dtype, shape));
    }
    Ok(infos)
}

/// A carried value after no, one or many rounds: only what a round does not change is known.
fn carried_value(
    first: &ValueInfo,
    entry: Option<&ValueInfo>,
    last: &ValueInfo,
    scope: &Scope,
    output: usize,
    context: &InferContext<'_>,
) -> Result<ValueInfo, String> {
    let dtype = join_dtypes(first.dtype, last.dtype)?;
    let last = last.shape.as_ref().map(|shape| scope.outside(shape, output, context));
    let entry = entry.and_then(|entry| entry.shape.clone());
    // The body's result was inferred from its entry: it stands for every round only if the entry does.
    let stable = either(entry, last, output, context);
    Ok(shaped(dtype, either(first.shape.clone(), stable, output, context)))
}

/// The number of rounds, if nothing but the trip count ends the loop.
fn trip_count(op: &Loop, inputs: Inputs<'_>) -> Option<Dim> {
    let holds = |info: &ValueInfo| single(info).is_some_and(|condition| condition.is(1));
    if inputs.optional(1).is_some_and(|condition| !holds(condition)) {
        return None;
    }
    if op.always_continues() { single(inputs.optional(0)?).map(|trips| trips.maximum(&Dim::fixed(0))) } else { None }
}

fn scan(op: &Scan, inputs: Inputs<'_>, scope: &Scope, context: &InferContext<'_>) -> Result<Infos, String> {
    let outputs = body_outputs(&op.body.0)?;
    if outputs.len() < op.carried {
        return Err(format!("{} outputs of the body, {} values carried", outputs.len(), op.carried));
    }
    let mut length: Option<Dim> = None;
    for at in 0..op.scan_inputs {
        let Some(shape) = &inputs.required(op.carried.saturating_add(at))?.shape else { continue };
        let axis = resolve_axis(op.input_axes.get(at).copied().unwrap_or(0), shape.len())?;
        let Some(size) = shape.get(axis) else { continue };
        length = Some(match length {
            Some(length) => unify(&length, size).map_err(|_| format!("scans of {length} and {size} rounds"))?,
            None => size.clone(),
        });
    }
    let length = length.unwrap_or_else(|| context.fresh("length"));
    let (carried, scanned) = outputs.split_at(op.carried);
    let mut infos: SmallVec<[ValueInfo; 1]> = SmallVec::new();
    for (at, last) in carried.iter().enumerate() {
        let entry = op.body.0.inputs().get(at).and_then(|id| op.body.0.info((*id).into()));
        infos.push(carried_value(inputs.required(at)?, entry, last, scope, at, context)?);
    }
    for (at, item) in scanned.iter().enumerate() {
        let axis = op.output_axes.get(at).copied().unwrap_or(0);
        let shape = item.shape.as_ref().map(|shape| {
            let mut stacked = scope.outside(shape, op.carried + at, context);
            stacked.insert(resolve_axis(axis, stacked.len() + 1)?, length.clone());
            Ok::<_, String>(stacked)
        });
        infos.push(shaped(item.dtype, shape.transpose()?));
    }
    Ok(infos)
}
