//! Branches and loops.

use onnx_protobuf as onnx;

use super::write::Value::{Graph as Body, Int, Ints, Text};
use super::write::{floats, graph, ints, node, plain};
use super::{builds, gives, import, network, operators, tensor, with_weights};

fn scalar(name: &str, value: i64) -> onnx::TensorProto {
    onnx::TensorProto { dims: vec![], ..ints(name, &[value]) }
}

/// `Equal(Shape(x)[1], 1) ? Squeeze(x, 1) : x`
fn squeezed(input: &str) -> onnx::ModelProto {
    let then = graph(&[], &["t"], vec![plain("t = Squeeze(x, one)")]);
    let other = graph(&[], &["e"], vec![plain("e = Identity(x)")]);
    let nodes = vec![
        plain("shape = Shape(x)"),
        node("size = Gather(shape, at)", vec![("axis", Int(0))]),
        plain("is_one = Equal(size, at)"),
        node("y = If(is_one)", vec![("then_branch", Body(then)), ("else_branch", Body(other))]),
    ];
    with_weights(17, graph(&[input], &["y"], nodes), vec![scalar("at", 1), ints("one", &[1])])
}

#[test]
fn a_branch_that_shapes_choose_may_have_another_rank() {
    let data = [1.0_f32, 2.0, 3.0, 4.0];
    let one = gives(&squeezed("x: 1[n, 1, 2, 1]"), &[tensor(&[2, 1, 2, 1], &data)], &[tensor(&[2, 2, 1], &data)]);
    let two = gives(&squeezed("x: 1[n, 2, 1, 1]"), &[tensor(&[2, 2, 1, 1], &data)], &[tensor(&[2, 2, 1, 1], &data)]);
    assert!(!operators(&one).iter().chain(&operators(&two)).any(|op| op == "if"), "{one}\n{two}");
    builds(&one, &["n=1:2:4"]);
    builds(&two, &["n=1:2:4"]);
}

#[test]
fn branches_of_ranks_that_only_run_time_tells_are_refused_with_the_reason() {
    let model = import(&squeezed("x: 1[n, c, 2, 1]")).unwrap();
    let error = network(&model.graph).unwrap_err();
    assert!(error.contains("'y' (If): output 0 has 3 dimensions in one branch and 4 in the other"), "{error}");
}

/// `condition ? a constant of the branch : a value from outside`
#[test]
fn branches_without_nodes() {
    let then = graph(&[], &["k"], vec![]);
    let then = onnx::GraphProto { initializer: vec![floats("k", &[2], &[5.0, 6.0])], ..then };
    let other = graph(&[], &["r"], vec![]);
    let nodes =
        vec![plain("r = Relu(x)"), node("y = If(c)", vec![("then_branch", Body(then)), ("else_branch", Body(other))])];
    let model = with_weights(17, graph(&["c: 9[]", "x: 1[2]"], &["y"], nodes), vec![]);
    let x = tensor(&[2], &[-1.0_f32, 2.0]);
    gives(&model, &[tensor(&[], &[true]), x.clone()], &[tensor(&[2], &[5.0_f32, 6.0])]);
    builds(&gives(&model, &[tensor(&[], &[false]), x], &[tensor(&[2], &[0.0_f32, 2.0])]), &[]);
}

#[test]
fn a_run_time_condition_before_layers_that_move_and_resample() {
    let then = graph(&[], &["t"], vec![node("t = Transpose(x)", vec![("perm", Ints(&[0, 1, 3, 2]))])]);
    let other = graph(&[], &["e"], vec![plain("e = Neg(x)")]);
    let nodes = vec![
        node("chosen = If(c)", vec![("then_branch", Body(then)), ("else_branch", Body(other))]),
        node("turned = Transpose(chosen)", vec![("perm", Ints(&[0, 1, 3, 2]))]),
        node("y = Resize(turned, -, scales)", vec![("mode", Text("nearest"))]),
    ];
    let scales = floats("scales", &[4], &[1.0, 1.0, 1.0, 2.0]);
    let model = with_weights(17, graph(&["c: 9[]", "x: 1[1, 1, 2, 2]"], &["y"], nodes), vec![scales]);
    let x = tensor(&[1, 1, 2, 2], &[1.0_f32, 2.0, 3.0, 4.0]);
    let found = [1.0_f32, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0];
    gives(&model, &[tensor(&[], &[true]), x.clone()], &[tensor(&[1, 1, 2, 4], &found)]);
    let found = [-1.0_f32, -1.0, -3.0, -3.0, -2.0, -2.0, -4.0, -4.0];
    builds(&gives(&model, &[tensor(&[], &[false]), x], &[tensor(&[1, 1, 2, 4], &found)]), &[]);
}

#[test]
fn a_loop_that_carries_nothing_and_reads_what_is_outside() {
    let body = graph(
        &["i: 7[]", "on: 9[]"],
        &["on_again", "row"],
        vec![
            plain("on_again = Identity(on)"),
            node("step = Cast(i)", vec![("to", Int(1))]),
            plain("row = Add(r, step)"),
        ],
    );
    let nodes = vec![plain("r = Relu(x)"), node("y = Loop(count, -)", vec![("body", Body(body))])];
    let model = with_weights(17, graph(&["x: 1[2]"], &["y"], nodes), vec![scalar("count", 3)]);
    let expected = tensor(&[3, 2], &[0.0_f32, 2.0, 1.0, 3.0, 2.0, 4.0]);
    builds(&gives(&model, &[tensor(&[2], &[-1.0_f32, 2.0])], &[expected]), &[]);
}

/// As tf2onnx writes a loop of TensorFlow over the rows of a tensor: its counter goes on while it is less than their number.
#[test]
fn a_loop_of_tensorflow_has_a_trip_count() {
    let body = graph(
        &["r: 7[]", "c: 9[]", "i: 6[]", "sum: 1[2]", "limit: 6[]"],
        &["more", "next", "added", "limit", "seen"],
        vec![
            plain("next = Add(i, one)"),
            node("row = Gather(x, i)", vec![("axis", Int(0))]),
            plain("added = Add(sum, row)"),
            plain("seen = Identity(added)"),
            node("counter = Cast(next)", vec![("to", Int(1))]),
            node("end = Cast(limit)", vec![("to", Int(1))]),
            plain("more = Less(counter, end)"),
        ],
    );
    let nodes = vec![
        plain("shape = Shape(x)"),
        node("rows = Gather(shape, first)", vec![("axis", Int(0))]),
        node("count = Cast(rows)", vec![("to", Int(6))]),
        node("end_before = Cast(count)", vec![("to", Int(1))]),
        plain("begins = Less(none, end_before)"),
        node("start = Cast(first)", vec![("to", Int(6))]),
        node("last, total, same, y = Loop(-, begins, start, zeros, count)", vec![("body", Body(body))]),
    ];
    let mut weights = vec![scalar("first", 0), floats("none", &[], &[0.0]), floats("zeros", &[2], &[0.0, 0.0])];
    weights.push(onnx::TensorProto { data_type: 6, int64_data: vec![], int32_data: vec![1], ..scalar("one", 1) });
    let model = with_weights(15, graph(&["x: 1[n, 2]"], &["total", "y"], nodes), weights);
    let x = tensor(&[3, 2], &[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let sums = tensor(&[3, 2], &[1.0_f32, 2.0, 4.0, 6.0, 9.0, 12.0]);
    let found = gives(&model, &[x], &[tensor(&[2], &[9.0_f32, 12.0]), sums]);
    assert!(
        found.outputs().iter().any(|output| found.info(output.value).unwrap().to_string() == "f32[n, 2]"),
        "{found}"
    );
    builds(&found, &["n=1:2:4"]);
}

/// TensorRT-RTX 1.7.1 crashes while it builds its attention layer in such a network.
#[test]
fn attention_beside_a_recurrent_layer_of_any_length() {
    let nodes = vec![
        node("turned = Transpose(k)", vec![("perm", Ints(&[0, 1, 3, 2]))]),
        plain("product = MatMul(q, turned)"),
        plain("scaled = Mul(product, half)"),
        node("weights = Softmax(scaled)", vec![("axis", Int(-1))]),
        plain("heads = MatMul(weights, v)"),
        node("steps = Transpose(heads)", vec![("perm", Ints(&[2, 0, 1, 3]))]),
        plain("rows = Reshape(steps, joined)"),
        node("states = GRU(rows, w, r)", vec![("hidden_size", Int(2))]),
        plain("y = Add(states, half)"),
    ];
    let inputs = ["q: 1[1, 2, s, 2]", "k: 1[1, 2, s, 2]", "v: 1[1, 2, s, 2]"];
    let weights = vec![
        floats("half", &[], &[0.5]),
        ints("joined", &[0, 0, 4]),
        floats("w", &[1, 6, 4], &[0.0; 24]),
        floats("r", &[1, 6, 2], &[0.0; 12]),
    ];
    let model = with_weights(17, graph(&inputs, &["y"], nodes), weights);
    let x = tensor(&[1, 2, 3, 2], &[1.0_f32; 12]);
    let found = gives(&model, &[x.clone(), x.clone(), x], &[tensor(&[3, 1, 1, 2], &[0.5_f32; 6])]);
    assert!(operators(&found).iter().any(|op| op == "attention"), "{found}");
    assert!(!network(&found).unwrap().contains(" = attention "), "{found}");
    builds(&found, &["s=2:12:100"]);
}
