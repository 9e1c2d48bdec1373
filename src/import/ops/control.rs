//! Control flow: bodies become graphs, what they capture becomes inputs.

use trt_fuse_ir::op::{Body, If, Loop, Scan};
use trt_fuse_ir::{DType, Dim, Ints, Known, ValueInfo, ValueRef};

use super::{ANY, Row};
use crate::import::ImportError;
use crate::import::attrs::fault;
use crate::import::body::Captured;
use crate::import::node::{Fault, Imported, NodeContext};
use crate::import::proto::GraphProto;

pub(super) const ROWS: &[Row] = &[
    Row::new("If", (1, 1), ANY, if_), // Both of the first two inputs may be left out, yet have a slot.
    Row::new("Loop", (0, ANY), ANY, loop_),
    // Opset 8 may leave the first one out.
    Row::new("Scan", (0, ANY), ANY, scan),
];

fn if_(node: &mut NodeContext<'_, '_>) -> Imported {
    let (then_branch, else_branch) = (node.attrs.graph("then_branch")?, node.attrs.graph("else_branch")?);
    // The branch that is never taken may not fit the shapes at hand, and nothing after it would be known.
    match node.input_info(0)?.known_ints().as_deref() {
        Some([0]) => return node.inline(else_branch),
        Some([_]) => return node.inline(then_branch),
        _ => {}
    }
    let captured = node.captured(&[then_branch, else_branch])?;
    let condition = node.required(0)?;
    let then_branch = branch(node, then_branch, &captured)?;
    let else_branch = branch(node, else_branch, &captured)?;
    let inputs = std::iter::once(Some(condition)).chain(captured.inputs());
    node.emit_all(If { then_branch, else_branch }, inputs)
}

/// A branch. One that is there for other shapes, and never taken with those at hand, need not fit them.
fn branch<'m>(node: &mut NodeContext<'_, 'm>, proto: &'m GraphProto, captured: &Captured<'m>) -> Result<Body, Fault> {
    let (mark, outputs) = (node.importer.names.mark(), node.outputs.len());
    let shaped = node.body(proto, &[], outputs, 0, captured);
    if shaped.is_ok() || !node.importer.may_retry() {
        return shaped;
    }
    node.importer.names.roll_back(mark);
    node.body(proto, &[], outputs, 0, &captured.unshaped())
}

/// Scalars, as the number of an iteration and its condition are.
fn scalar(dtype: DType) -> ValueInfo {
    ValueInfo::new(dtype, std::iter::empty::<Dim>())
}

fn loop_(node: &mut NodeContext<'_, '_>) -> Imported {
    let proto = node.attrs.graph("body")?;
    if node.inputs.len() < 2 {
        return Err(crate::import::model::arity("inputs", node.inputs.len(), "at least 2".to_owned()).into());
    }
    let captured = node.captured(&[proto])?;
    let first: Vec<ValueRef> = (2..node.inputs.len()).map(|slot| node.required(slot)).collect::<Result<_, _>>()?;
    let carried = first.len();
    if node.outputs.len() < carried {
        let expected = format!("at least {carried}");
        return Err(crate::import::model::arity("outputs", node.outputs.len(), expected).into());
    }
    let body = loop_body(node, proto, &first, &captured)?;
    let inputs: Vec<_> = node.inputs.iter().copied().chain(captured.inputs()).collect();
    node.emit_all(Loop { body, carried }, inputs)
}

/// The body of a loop. A carried value may change its shape from one iteration to the next: the body is imported on
/// the assumption that none does, and once more without it if that turns out wrong.
fn loop_body<'m>(
    node: &mut NodeContext<'_, 'm>,
    proto: &'m GraphProto,
    first: &[ValueRef],
    captured: &Captured<'m>,
) -> Result<Body, Fault> {
    // The condition, carried values and scan outputs.
    const CONDITION: usize = 1;
    let outputs = node.outputs.len() + CONDITION;
    let inputs = |shaped: bool, node: &NodeContext<'_, 'm>| {
        let carried = first.iter().map(|value| {
            let info = node.info(*value);
            if shaped { ValueInfo { known: Known::Nothing, ..info } } else { ValueInfo::unshaped(info.dtype) }
        });
        let own = [scalar(DType::I64), scalar(DType::Bool)];
        own.into_iter().chain(carried).collect::<Vec<_>>()
    };
    let mark = node.importer.names.mark();
    if node.importer.may_retry() {
        let assumed = inputs(true, node);
        if let Ok(body) = node.body(proto, &assumed, outputs, CONDITION, captured)
            && is_invariant(&body, first.len())
        {
            return Ok(body);
        }
        node.importer.names.roll_back(mark);
    }
    let open = inputs(false, node);
    node.body(proto, &open, outputs, CONDITION, captured)
}

/// Whether each carried value leaves the body with the shape that it came in with.
fn is_invariant(body: &Body, carried: usize) -> bool {
    let graph = &body.0;
    let pairs = graph.inputs().iter().skip(2).zip(graph.outputs().iter().skip(1)).take(carried);
    let shape = |value: ValueRef| graph.info(value).and_then(|info| info.shape.clone());
    pairs.into_iter().all(|(input, output)| shape((*input).into()) == shape(output.value))
}

fn scan(node: &mut NodeContext<'_, '_>) -> Imported {
    if node.opset < 9 {
        return batched_scan(node);
    }
    let proto = node.attrs.graph("body")?;
    node.attrs.required_int("num_scan_inputs")?;
    let count = node.attrs.int_at_least("num_scan_inputs", 1, 1)?;
    let wrong = || fault("num_scan_inputs", format!("{count} found, the node has {} inputs", node.inputs.len()));
    let scan_inputs = usize::try_from(count).map_err(|_| wrong())?;
    let carried = node.inputs.len().checked_sub(scan_inputs).ok_or_else(wrong)?;
    let Some(scan_outputs) = node.outputs.len().checked_sub(carried) else {
        let expected = format!("at least {carried}");
        return Err(crate::import::model::arity("outputs", node.outputs.len(), expected).into());
    };
    let list = |name, count| node.attrs.ints_of(name, count, i64::MIN, 0);
    let (input_axes, output_axes) = (list("scan_input_axes", scan_inputs)?, list("scan_output_axes", scan_outputs)?);
    let input_reversed = list("scan_input_directions", scan_inputs)?;
    let output_reversed = list("scan_output_directions", scan_outputs)?;
    let captured = node.captured(&[proto])?;
    let mut inputs = Vec::with_capacity(node.inputs.len());
    for slot in 0..node.inputs.len() {
        let info = ValueInfo { known: Known::Nothing, ..node.input_info(slot)? };
        inputs.push(match slot.checked_sub(carried).and_then(|at| input_axes.get(at)) {
            None => info,
            Some(axis) => slice_of(info, *axis)?,
        });
    }
    let body = node.body(proto, &inputs, node.outputs.len(), 0, &captured)?;
    let op = Scan { body, scan_inputs, carried, input_axes, output_axes, input_reversed, output_reversed };
    let inputs: Vec<_> = node.inputs.iter().copied().chain(captured.inputs()).collect();
    node.emit_all(op, inputs)
}

/// Scan of opset 8: sequence lengths or an empty slot, then values with a batch axis, then a time axis. It is a scan
/// over the batch, of scans over time.
fn batched_scan(node: &mut NodeContext<'_, '_>) -> Imported {
    if node.input(0).is_some() {
        return Err(Fault::Unsupported("it has sequence lengths, a form of opset 8".to_owned()));
    }
    let proto = node.attrs.graph("body")?;
    node.attrs.required_int("num_scan_inputs")?;
    let count = node.attrs.int_at_least("num_scan_inputs", 1, 1)?;
    let operands: Vec<ValueRef> = (1..node.inputs.len()).map(|slot| node.required(slot)).collect::<Result<_, _>>()?;
    let wrong = || fault("num_scan_inputs", format!("{count} found, the node has {} values", operands.len()));
    let scan_inputs = usize::try_from(count).map_err(|_| wrong())?;
    let carried = operands.len().checked_sub(scan_inputs).ok_or_else(wrong)?;
    let outputs = node.outputs.len();
    let Some(scan_outputs) = outputs.checked_sub(carried) else {
        return Err(crate::import::model::arity("outputs", outputs, format!("at least {carried}")).into());
    };
    let input_reversed = node.attrs.ints_of("directions", scan_inputs, 0, 0)?;
    let captured = node.captured(&[proto])?;
    let (mut of_one, mut of_step) = (Vec::new(), Vec::new());
    for (at, operand) in operands.iter().enumerate() {
        let info = slice_of(ValueInfo { known: Known::Nothing, ..node.info(*operand) }, 0)?;
        of_step.push(if at < carried { info.clone() } else { slice_of(info.clone(), 0)? });
        of_one.push(("item", info));
    }
    let body = node.body(proto, &of_step, outputs, 0, &captured)?;
    of_one.extend(captured.inputs().flatten().map(|value| ("captured", node.info(value))));
    let over_time = Scan {
        body,
        scan_inputs,
        carried,
        input_axes: Ints::from_elem(0, scan_inputs),
        output_axes: Ints::from_elem(0, scan_outputs),
        input_reversed,
        output_reversed: Ints::from_elem(0, scan_outputs),
    };
    let body = node.own_body(&of_one, |node, values| {
        Ok(node.helper_many("time", over_time, values.to_vec(), outputs)?.to_vec())
    })?;
    let op = Scan {
        body,
        scan_inputs: operands.len(),
        carried: 0,
        input_axes: Ints::from_elem(0, operands.len()),
        output_axes: Ints::from_elem(0, outputs),
        input_reversed: Ints::from_elem(0, operands.len()),
        output_reversed: Ints::from_elem(0, outputs),
    };
    let inputs: Vec<_> = operands.into_iter().map(Some).chain(captured.inputs()).collect();
    node.emit_all(op, inputs)
}

/// What is known of one slice along an axis.
fn slice_of(info: ValueInfo, axis: i64) -> Result<ValueInfo, ImportError> {
    let Some(mut shape) = info.shape else { return Ok(info) };
    let rank = shape.len();
    let resolved = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    let Some(at) = usize::try_from(resolved).ok().filter(|at| *at < rank) else {
        return Err(fault("scan_input_axes", format!("{axis} is outside of rank {rank}")));
    };
    shape.remove(at);
    Ok(ValueInfo { shape: Some(shape), ..info })
}
