//! Control flow: bodies are graphs, evaluated with what they capture as inputs.

use bytes::Bytes;

use super::movement::stack;
use super::number::{load_int, phrase, view};
use super::{EvalContext, Inputs, Tensors, eval_with, layout};
use crate::infer::resolve_axis;
use crate::op::{self, Body};
use crate::{Dims, Op, Tensor};

/// Most iterations of a loop: one without end is an error.
const MAX_ITERATIONS: i64 = 1 << 24;

pub(super) fn eval(op: &Op, inputs: Inputs<'_>, context: &EvalContext<'_>) -> Result<Tensors, String> {
    match op {
        Op::If(op) => {
            let branch = if truth(inputs.required(0)?)? { &op.then_branch } else { &op.else_branch };
            run(branch, &all(inputs, 1)?, context).map(Tensors::from_vec)
        }
        Op::Loop(op) => repeat(op, inputs, context),
        Op::Scan(op) => scan(op, inputs, context),
        op => Err(format!("{op} has no body")),
    }
}

fn truth(tensor: &Tensor) -> Result<bool, String> {
    match view::<bool>(tensor)?.as_ref() {
        [truth] => Ok(*truth),
        elements => Err(format!("a condition of {} elements", elements.len())),
    }
}

/// The inputs from a slot on; none may be missing.
fn all(inputs: Inputs<'_>, from: usize) -> Result<Vec<Tensor>, String> {
    (from..inputs.0.len()).map(|slot| inputs.required(slot).cloned()).collect()
}

fn run(body: &Body, inputs: &[Tensor], context: &EvalContext<'_>) -> Result<Vec<Tensor>, String> {
    eval_with(&body.0, inputs, context.symbols, &mut |_, _| {}).map_err(phrase)
}

fn repeat(op: &op::Loop, inputs: Inputs<'_>, context: &EvalContext<'_>) -> Result<Tensors, String> {
    let trips = inputs.optional(0).map(|trips| load_int(trips, "the trip count")).transpose()?;
    let mut goes_on = inputs.optional(1).map_or(Ok(true), truth)?;
    let mut carried = all(inputs, 2)?;
    if carried.len() < op.carried {
        return Err(format!("{} carried values for {}", carried.len(), op.carried));
    }
    let captures = carried.split_off(op.carried);
    let mut scanned: Vec<Vec<Tensor>> = Vec::new();
    let mut at = 0_i64;
    while goes_on && trips.is_none_or(|trips| at < trips) {
        if at == MAX_ITERATIONS {
            return Err(format!("the loop does not end within {MAX_ITERATIONS} iterations"));
        }
        let head = [Tensor::scalar(at), Tensor::scalar(true)];
        let body_inputs: Vec<Tensor> = head.into_iter().chain(carried).chain(captures.iter().cloned()).collect();
        let mut outputs = run(&op.body, &body_inputs, context)?.into_iter();
        goes_on = truth(&outputs.next().ok_or("the body gives no condition")?)?;
        carried = outputs.by_ref().take(op.carried).collect();
        collect(&mut scanned, outputs);
        at += 1;
    }
    let first = op.carried + 1;
    finish(&op.body, carried, scanned, first, |_| (0, false), context)
}

fn collect(scanned: &mut Vec<Vec<Tensor>>, outputs: impl Iterator<Item = Tensor>) {
    for (slot, output) in outputs.enumerate() {
        match scanned.get_mut(slot) {
            Some(slices) => slices.push(output),
            None => scanned.push(vec![output]),
        }
    }
}

/// The carried values, then each scan output stacked along its axis, reversed where asked. `first` is the body's
/// first scan output.
fn finish(
    body: &Body,
    carried: Vec<Tensor>,
    mut scanned: Vec<Vec<Tensor>>,
    first: usize,
    place: impl Fn(usize) -> (i64, bool),
    context: &EvalContext<'_>,
) -> Result<Tensors, String> {
    let mut outputs = Tensors::from_vec(carried);
    for (slot, output) in body.0.outputs().iter().skip(first).enumerate() {
        let (axis, reversed) = place(slot);
        let Some(slices) = scanned.get_mut(slot) else {
            // Not one iteration: no slice tells the size of the axes that the body leaves open.
            let info = body.0.info(output.value).ok_or("a scan output is not there")?;
            let shape = info.shape.as_ref().ok_or("no iteration tells the rank of a scan output")?;
            let dim = |dim: &crate::Dim| dim.evaluate(&|name| context.symbols.get(name).copied());
            let mut dims: Dims =
                shape.iter().map(|size| dim(size).and_then(|dim| usize::try_from(dim).ok()).unwrap_or(0)).collect();
            dims.insert(resolve_axis(axis, dims.len() + 1)?, 0);
            outputs.push(Tensor::new(info.dtype, dims, Bytes::new()).map_err(phrase)?);
            continue;
        };
        if reversed {
            slices.reverse();
        }
        let rows = slices.iter().map(|slice| {
            let mut dims = Dims::from_slice(slice.dims());
            dims.insert(resolve_axis(axis, dims.len() + 1)?, 1);
            slice.reshaped(dims).map_err(phrase)
        });
        let rows: Vec<Tensor> = rows.collect::<Result<_, String>>()?;
        let axis = resolve_axis(axis, rows.first().map_or(1, Tensor::rank))?;
        outputs.push(stack(&rows.iter().collect::<Vec<_>>(), i64::try_from(axis).map_err(phrase)?)?);
    }
    Ok(outputs)
}

fn scan(op: &op::Scan, inputs: Inputs<'_>, context: &EvalContext<'_>) -> Result<Tensors, String> {
    let mut carried = all(inputs, 0)?;
    if carried.len() < op.carried + op.scan_inputs {
        return Err(format!("{} inputs for {} carried and {} scanned", carried.len(), op.carried, op.scan_inputs));
    }
    let captures = carried.split_off(op.carried + op.scan_inputs);
    let walked = carried.split_off(op.carried);
    let mut axes = Dims::new();
    for (slot, tensor) in walked.iter().enumerate() {
        axes.push(resolve_axis(op.input_axes.get(slot).copied().unwrap_or(0), tensor.rank())?);
    }
    let lengths: Dims = walked.iter().zip(&axes).map(|(tensor, axis)| tensor.dims()[*axis]).collect();
    let length = lengths.first().copied().ok_or("a scan without scan inputs")?;
    if lengths.iter().any(|other| *other != length) {
        return Err(format!("scan inputs of lengths {lengths:?}"));
    }
    let flag = |flags: &op::Ints, slot: usize| flags.get(slot).is_some_and(|flag| *flag != 0);
    let mut scanned: Vec<Vec<Tensor>> = Vec::new();
    for at in 0..length {
        let slice = |(slot, (tensor, axis)): (usize, (&Tensor, &usize))| {
            let at = if flag(&op.input_reversed, slot) { length - 1 - at } else { at };
            layout::slice_at(tensor, *axis, at)
        };
        let slices: Vec<Tensor> = walked.iter().zip(&axes).enumerate().map(slice).collect::<Result<_, _>>()?;
        let body_inputs: Vec<Tensor> = carried.into_iter().chain(slices).chain(captures.iter().cloned()).collect();
        let mut outputs = run(&op.body, &body_inputs, context)?.into_iter();
        carried = outputs.by_ref().take(op.carried).collect();
        collect(&mut scanned, outputs);
    }
    let place = |slot: usize| (op.output_axes.get(slot).copied().unwrap_or(0), flag(&op.output_reversed, slot));
    finish(&op.body, carried, scanned, op.carried, place, context)
}
