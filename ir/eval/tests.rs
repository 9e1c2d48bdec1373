//! Expected values come from onnxruntime 1.23, NumPy, or a formula that the test states.

use super::*;
use crate::DType;

mod arithmetic;
mod control;
mod data;
mod linear;
mod operators;
mod reductions;
mod windows;

fn f32s(dims: &[usize], elements: &[f32]) -> Tensor {
    Tensor::from_vec(dims, elements.to_vec()).unwrap()
}

fn i64s(dims: &[usize], elements: &[i64]) -> Tensor {
    Tensor::from_vec(dims, elements.to_vec()).unwrap()
}

/// 0, 1, 2, ...
fn counted(dims: &[usize]) -> Tensor {
    f32s(dims, &(0..dims.iter().product::<usize>()).map(|at| at as f32).collect::<Vec<_>>())
}

/// The operator of a node in the text form, of the inputs `%0`, `%1`, ...; with as many outputs as there are names.
fn parse(outputs: &str, node: &str, inputs: &[&Tensor]) -> Graph {
    let input = |(at, tensor): (usize, &&Tensor)| {
        let dims: Vec<String> = tensor.dims().iter().map(usize::to_string).collect();
        format!("%{at}: {}[{}]", tensor.dtype(), dims.join(", "))
    };
    let inputs: Vec<String> = inputs.iter().enumerate().map(input).collect();
    let text = format!("graph g({}) -> ({outputs}) {{\n  {outputs} = {node}\n}}", inputs.join(", "));
    text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The outputs of a node of two outputs.
fn eval2(node: &str, inputs: &[&Tensor]) -> Vec<Tensor> {
    let graph = parse("%y, %z", node, inputs);
    eval_graph(&graph, &inputs.iter().map(|tensor| (*tensor).clone()).collect::<Vec<_>>()).unwrap()
}

/// The output of a node.
fn eval(node: &str, inputs: &[&Tensor]) -> Tensor {
    try_eval(node, inputs, inputs).unwrap()
}

/// The output of the operator that a node has on inputs like `shaped`, applied to `inputs`: these need not fit.
fn try_eval(node: &str, shaped: &[&Tensor], inputs: &[&Tensor]) -> Result<Tensor, String> {
    let graph = parse("%y", node, shaped);
    let id = graph.outputs()[0].value.node;
    let slots: Vec<Option<&Tensor>> = graph
        .node_inputs(id)
        .iter()
        .map(|source| {
            let at = graph.inputs().iter().position(|input| Some((*input).into()) == *source)?;
            inputs.get(at).copied()
        })
        .collect();
    let context = EvalContext { outputs: 1, symbols: &Bindings::default() };
    eval_op(graph.op(id).unwrap(), &slots, &context).map(|mut outputs| outputs.remove(0))
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let integers = || Some(tensor.to_i64s()?.into_iter().map(|x| x as f64).collect());
    tensor.to_f64s().or_else(integers).unwrap()
}

#[track_caller]
fn assert_is(tensor: &Tensor, dims: &[usize], expected: &[f64]) {
    assert_eq!(tensor.dims(), dims);
    assert_eq!(values(tensor), expected);
}

#[track_caller]
fn assert_close(tensor: &Tensor, dims: &[usize], expected: &[f64]) {
    assert_eq!(tensor.dims(), dims);
    let found = values(tensor);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-6 + 2e-6 * expected.abs(), "{found} where {expected} was expected");
    }
}

#[test]
fn sizes_beyond_memory_are_refused() {
    let shape = i64s(&[2], &[1 << 20, 1 << 20]);
    let one = f32s(&[], &[1.0]);
    // A splat costs nothing; written out it would be 4 TiB.
    let huge = eval("constant_of_shape(%0) value=f32[1] {1}", &[&shape]);
    assert_eq!(huge.numel(), 1 << 40);
    assert_eq!(eval("add(%0, %1)", &[&huge, &one]).uniform_f64(), Some(2.0));
    let row = counted(&[1 << 20]);
    let error = try_eval("add(%0, %1)", &[&row, &row], &[&huge, &row]).unwrap_err();
    assert!(error.contains("too large"), "{error}");
    let overflow = i64s(&[3], &[i64::MAX, i64::MAX, 2]);
    let node = "constant_of_shape(%0) value=f32[1] {1}";
    assert!(try_eval(node, &[&i64s(&[3], &[1, 1, 1])], &[&overflow]).is_err());
    let repeats = i64s(&[1], &[1 << 40]);
    assert!(try_eval("tile(%0, %1)", &[&row, &i64s(&[1], &[2])], &[&row, &repeats]).is_err());
}

#[test]
fn what_is_missing_is_named() {
    let x = counted(&[2]);
    let error = try_eval("add(%0, %1)", &[&x, &x], &[&x]).unwrap_err();
    assert_eq!(error, "input 1 is missing");
}

#[test]
fn symbols_get_their_values_from_the_inputs() {
    let text = "graph g(%x: f32[batch, 6]) -> (%y) {\n  %y = reshape(%x) shape=[(2*batch), 3] : f32[(2*batch), 3]\n}";
    let graph: Graph = text.parse().unwrap();
    let outputs = eval_graph(&graph, &[counted(&[4, 6])]).unwrap();
    assert_eq!(outputs[0].dims(), [8, 3]);
    // Without an input that shows it the symbol has no value.
    let context = EvalContext { outputs: 1, symbols: &Bindings::default() };
    let op = graph.op(graph.outputs()[0].value.node).unwrap();
    let error = eval_op(op, &[Some(&counted(&[4, 6]))], &context).unwrap_err();
    assert_eq!(error, "the shape has `2*batch`, which has no value");
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let graph: Graph = "graph g(%x: f32[n, n]) -> (%y) {\n  %y = relu(%x)\n}".parse().unwrap();
    assert!(eval_graph(&graph, &[counted(&[2, 2])]).is_ok());
    assert!(matches!(eval_graph(&graph, &[counted(&[2, 3])]), Err(EvalError::Input { .. })));
    assert!(matches!(eval_graph(&graph, &[i64s(&[1, 1], &[0])]), Err(EvalError::Input { .. })));
    assert!(matches!(eval_graph(&graph, &[]), Err(EvalError::Input { .. })));
}

#[test]
fn tensors_are_seen_as_they_are_made() {
    let graph: Graph = "graph g(%x: f32[2]) -> (%z) {\n  %y = neg(%x)\n  %z = abs(%y)\n}".parse().unwrap();
    let mut seen = Vec::new();
    let mut observe = |value: ValueRef, tensor: &Tensor| {
        seen.push((graph.value(value).unwrap().name.to_string(), values(tensor)));
    };
    eval_with(&graph, &[f32s(&[2], &[1.0, -2.0])], &Bindings::default(), &mut observe).unwrap();
    assert_eq!(seen, [("y".to_string(), vec![-1.0, 2.0]), ("z".to_string(), vec![1.0, 2.0])]);
}

#[test]
fn sixteen_bit_floats_are_rounded_once() {
    use half::f16;
    let half = |x: f32| Tensor::from_vec([1], vec![f16::from_f32(x)]).unwrap();
    // 2048 + 1 is no f16: a sum of three that is rounded twice gives 2048, once 2050.
    let (x, w) = (f32s(&[1, 2, 1, 1], &[1.0, 1.0]), f32s(&[1, 2, 1, 1], &[2048.0, 1.0]));
    let narrow = |tensor: &Tensor| eval("cast(%0) to=f16", &[tensor]);
    let y = eval("conv(%0, %1, %2) strides=[1, 1] dilations=[1, 1] groups=1", &[&narrow(&x), &narrow(&w), &half(1.0)]);
    assert_eq!(y.dtype(), DType::F16);
    assert_is(&y, &[1, 1, 1, 1], &[2050.0]);
}
