//! Shapes that nodes compute from shapes.

use onnx_protobuf as onnx;

use super::write::Value::{Int, Text};
use super::write::{floats, graph, ints, node, plain};
use super::{Tensor, builds, gives, network, operators, tensor, with_weights};

/// The size of an axis as a vector of one element.
fn size(of: &str, at: &str) -> Vec<onnx::NodeProto> {
    vec![
        plain(&format!("{of}_shape_{at} = Shape({of})")),
        node(&format!("{of}_{at}_scalar = Gather({of}_shape_{at}, at_{at})"), vec![("axis", Int(0))]),
        plain(&format!("{of}_{at} = Unsqueeze({of}_{at}_scalar, zero)")),
    ]
}

fn scalar(name: &str, value: i64) -> onnx::TensorProto {
    onnx::TensorProto { dims: vec![], ..ints(name, &[value]) }
}

fn weights() -> Vec<onnx::TensorProto> {
    vec![scalar("at_0", 0), scalar("at_1", 1), ints("zero", &[0]), ints("heads", &[8, 128])]
}

fn rows(count: usize) -> Vec<f32> {
    (0..count * 1024).map(|at| at as f32).collect()
}

#[test]
fn scaffolding_becomes_a_reshape_to_known_sizes() {
    let nodes = [
        size("x", "0"),
        vec![node("shape = Concat(x_0, heads)", vec![("axis", Int(0))]), plain("y = Reshape(x, shape)")],
    ];
    let model = with_weights(17, graph(&["x: 1[batch, 1024]"], &["y"], nodes.concat()), weights());
    for batch in [1, 3] {
        let data = rows(batch);
        let graph = gives(&model, &[tensor(&[batch, 1024], &data)], &[tensor(&[batch, 8, 128], &data)]);
        assert_eq!(operators(&graph), ["reshape"], "{graph}");
        let text = network(&graph).unwrap();
        assert!(text.contains("reshape=[-1,8,128]") && !text.contains("= shape "), "{text}");
        builds(&graph, &["batch=1:2:3"]);
    }
}

#[test]
fn two_free_sizes_are_both_computed() {
    let nodes = [
        size("x", "0"),
        size("x", "1"),
        // Turned, so that neither size is that of the same axis.
        vec![node("shape = Concat(x_1, x_0, heads)", vec![("axis", Int(0))]), plain("y = Reshape(x, shape)")],
    ];
    let model = with_weights(17, graph(&["x: 1[batch, length, 1024]"], &["y"], nodes.concat()), weights());
    let data = rows(6);
    let graph = gives(&model, &[tensor(&[2, 3, 1024], &data)], &[tensor(&[3, 2, 8, 128], &data)]);
    let text = network(&graph).unwrap();
    assert!(!text.contains("reshape=[-1,-1,"), "{text}");
    builds(&graph, &["batch=1:2:3", "length=1:4:8"]);
}

#[test]
fn sizes_taken_from_another_input() {
    let nodes = vec![
        node("own = Shape(x)", vec![("end", Int(2))]),
        node("other = Shape(z)", vec![("start", Int(2)), ("end", Int(4))]),
        node("sizes = Concat(own, other)", vec![("axis", Int(0))]),
        node("y = Resize(x, -, -, sizes)", vec![("mode", Text("nearest"))]),
    ];
    let inputs = ["x: 1[batch, 1, h, w]", "z: 1[batch, 3, high, wide]"];
    let model = with_weights(17, graph(&inputs, &["y"], nodes), vec![floats("unused", &[], &[0.0])]);
    let z = Tensor::full([1, 3, 2, 6], 0.0_f32).unwrap();
    let x = tensor(&[1, 1, 1, 3], &[1.0_f32, 2.0, 3.0]);
    let row = [1.0_f32, 1.0, 2.0, 2.0, 3.0, 3.0];
    let graph = gives(&model, &[x, z], &[tensor(&[1, 1, 2, 6], &[row, row].concat())]);
    builds(&graph, &["batch=1:2:3", "h=1:4:8", "w=1:4:8", "high=1:8:16", "wide=1:8:16"]);
}

#[test]
fn a_slice_up_to_the_size_of_another_input() {
    let nodes =
        vec![node("end = Shape(z)", vec![("start", Int(0)), ("end", Int(1))]), plain("y = Slice(x, zero, end, zero)")];
    let model = with_weights(17, graph(&["x: 1[4, 2]", "z: 1[count]"], &["y"], nodes), vec![ints("zero", &[0])]);
    let x = tensor(&[4, 2], &[0.0_f32, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    let z = tensor(&[3], &[0.0_f32; 3]);
    let graph = gives(&model, &[x, z], &[tensor(&[3, 2], &[0.0_f32, 1.0, 2.0, 3.0, 4.0, 5.0])]);
    builds(&graph, &["count=1:2:4"]);
}
