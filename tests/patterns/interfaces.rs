//! Inputs, outputs and names at their limits.

use onnx_protobuf as onnx;

use super::write::Value::{Int, Ints};
use super::write::{floats, graph, ints, node, plain};
use trt_fuse::ir::Capabilities;
use trt_fuse::{Options, record};

use super::{Tensor, builds, gives, network, optimized, tensor, with_weights};

/// Rows of the data where x is not 0.
#[test]
fn no_hits_are_an_empty_result() {
    let nodes = vec![
        plain("hits = NonZero(x)"),
        node("places = Transpose(hits)", vec![("perm", Ints(&[1, 0]))]),
        node("y = Gather(data, places)", vec![("axis", Int(0))]),
    ];
    let data = floats("data", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let model = with_weights(17, graph(&["x: 1[3]"], &["y"], nodes), vec![data]);
    gives(&model, &[tensor(&[3], &[0.0_f32; 3])], &[tensor::<f32>(&[0, 1, 2], &[])]);
    let hits = tensor(&[3], &[0.0_f32, 1.0, -2.0]);
    let found = gives(&model, &[hits], &[tensor(&[2, 1, 2], &[3.0_f32, 4.0, 5.0, 6.0])]);
    // TensorRT has a layer for it, TensorRT-RTX has none.
    let options = Options { capabilities: Some(Capabilities::tensorrt((10, 14, 0))), ..Options::default() };
    record(&found, &options).unwrap();
    assert!(network(&found).unwrap_err().contains("'hits' (NonZero)"));
}

#[test]
fn an_input_may_be_an_output_several_times() {
    let nodes = vec![plain("y = Identity(x)"), plain("z = Identity(x)")];
    let model = with_weights(17, graph(&["x: 1[n]"], &["y", "z"], nodes), vec![]);
    let x = tensor(&[2], &[1.0_f32, -2.0]);
    let found = gives(&model, std::slice::from_ref(&x), &[x.clone(), x.clone()]);
    let names: Vec<&str> = found.outputs().iter().map(|output| &*output.name).collect();
    assert_eq!(names, ["y", "z"]);
    builds(&found, &["n=1:2:4"]);
}

#[test]
fn an_output_may_be_a_constant() {
    let model =
        with_weights(17, graph(&["x: 1[2]"], &["y", "w"], vec![plain("y = Neg(x)")]), vec![floats("w", &[1], &[4.0])]);
    let found =
        gives(&model, &[tensor(&[2], &[1.0_f32, -2.0])], &[tensor(&[2], &[-1.0_f32, 2.0]), tensor(&[1], &[4.0_f32])]);
    builds(&found, &[]);
}

#[test]
fn an_input_with_a_default_is_a_constant() {
    let nodes = vec![plain("y = Mul(x, w)")];
    let model = with_weights(8, graph(&["w: 1[2]", "x: 1[2]"], &["y"], nodes), vec![floats("w", &[2], &[2.0, 3.0])]);
    builds(&gives(&model, &[tensor(&[2], &[5.0_f32, 7.0])], &[tensor(&[2], &[10.0_f32, 21.0])]), &[]);
}

#[test]
fn names_that_repeat_or_are_empty() {
    let named = |name: &str, text: &str| onnx::NodeProto { name: name.into(), ..plain(text) };
    let nodes = vec![
        named("layer", "a = Exp(x)"),
        named("layer_1", "b = Softsign(a)"),
        named("layer", "c = Sin(b)"),
        named("", "d = Cos(c)"),
        named("", "y = Atan(d)"),
    ];
    let model = with_weights(17, graph(&["x: 1[1]"], &["y"], nodes), vec![]);
    let softsign = |x: f32| x / (1.0 + x.abs());
    let expected = softsign(0.5_f32.exp()).sin().cos().atan();
    let found = gives(&model, &[tensor(&[1], &[0.5_f32])], &[tensor(&[1], &[expected])]);
    // TensorRT wants each name once.
    let text = network(&found).unwrap();
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split_once(" = ")?.1.split('"').nth(1)).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "{text}");
    builds(&found, &[]);
}

#[test]
fn sizes_of_zero() {
    let nodes = vec![
        node("joined = Concat(x, none)", vec![("axis", Int(0))]),
        plain("y = Neg(joined)"),
        plain("cut = Slice(x, end, end)"),
        plain("z = Exp(cut)"),
        node("sum = ReduceSum(cut, axis)", vec![("keepdims", Int(0))]),
    ];
    let weights = vec![floats("none", &[0, 2], &[]), ints("end", &[1]), ints("axis", &[0])];
    let model = with_weights(17, graph(&["x: 1[1, 2]"], &["y", "z", "sum"], nodes), weights);
    let expected = [tensor(&[1, 2], &[-1.0_f32, -2.0]), tensor::<f32>(&[0, 2], &[]), tensor(&[2], &[0.0_f32, 0.0])];
    builds(&gives(&model, &[tensor(&[1, 2], &[1.0_f32, 2.0])], &expected), &[]);
}

#[test]
fn nodes_in_any_order() {
    let mut nodes = vec![plain("a = Neg(x)"), plain("b = Exp(a)"), plain("y = Add(a, b)")];
    nodes.reverse();
    let model = with_weights(17, graph(&["x: 1[1]"], &["y"], nodes), vec![]);
    builds(&gives(&model, &[tensor(&[1], &[0.0_f32])], &[tensor(&[1], &[1.0_f32])]), &[]);
}

#[test]
fn a_model_without_nodes_or_inputs() {
    let nothing = with_weights(17, graph(&["x: 1[2]"], &["x"], vec![]), vec![]);
    let x = tensor(&[2], &[1.0_f32, -2.0]);
    gives(&nothing, std::slice::from_ref(&x), std::slice::from_ref(&x));
    let constant = with_weights(17, graph(&[], &["w"], vec![]), vec![floats("w", &[2], &[1.0, 2.0])]);
    let none: &[Tensor] = &[];
    gives(&constant, none, &[tensor(&[2], &[1.0_f32, 2.0])]);
    builds(&optimized(&constant), &[]);
}
