//! `trt-fuse check`: what cannot be taken of a model, through the program itself.

use std::path::Path;
use std::process::{Command, Output};

use onnx_protobuf as onnx;
use onnx_protobuf::Message as _;

#[path = "../src/import/tests/write.rs"]
#[allow(dead_code, reason = "each test binary uses a part")]
mod write;

use write::Value::{Graph, Int, Ints};
use write::{floats, graph, ints, model, node, opset, plain};

fn check(model: &onnx::ModelProto, options: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    std::fs::write(&file, model.write_to_bytes().unwrap()).unwrap();
    run(&file, options)
}

fn run(file: &Path, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trt-fuse")).arg("check").arg(file).args(options).output().unwrap()
}

/// Five operators that TensorRT-RTX cannot take, one of them twice and one in the branches of an If.
fn five() -> onnx::ModelProto {
    let branch = |op: &str| {
        let body = plain(&format!("{op}.y = {op}(x)"));
        Graph(graph(&[], &[&format!("{op}.y")], vec![body]))
    };
    let train = || vec![("training_mode", Int(1))];
    let nodes = vec![
        node("a = BatchNormalization(x, c, c, c, c)", train()),
        node("b = BatchNormalization(a, c, c, c, c)", train()),
        node("d = RoiAlign(x, rois, images)", vec![("sampling_ratio", Int(0))]),
        plain("e = com.microsoft::BiasGelu(d, c)"),
        node("f = If(flag)", vec![("then_branch", branch("ai.onnx.ml::Normalizer")), ("else_branch", branch("Relu"))]),
        plain("s = NonMaxSuppression(boxes, scores, most)"),
    ];
    let inputs = [
        "x: 1[2, 3, 4, 4]",
        "flag: 9[]",
        "boxes: 1[1, 9, 4]",
        "scores: 1[1, 1, 9]",
        "most: 7[1]",
        "n: 1[batch]",
        "rois: 1[2, 4]",
        "images: 7[2]",
    ];
    let mut graph = graph(&inputs, &["e", "f", "s", "n", "b"], nodes);
    graph.initializer = vec![floats("c", &[3], &[1.0, 2.0, 3.0])];
    let mut model = model(17, graph);
    model.opset_import.extend([opset("com.microsoft", 1), opset("ai.onnx.ml", 3)]);
    model
}

#[test]
fn each_operator_and_reason_is_one_line() {
    let output = check(&five(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    let mut lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    insta::assert_snapshot!(lines.join("\n"), @"
    1 x NonMaxSuppression (opset 17): TensorRT-RTX has no kernel for its layer of non-maximum suppression; at `s`; try: end the model before it (onnx.utils.extract_model) and select boxes on the host, or build with TensorRT instead of TensorRT-RTX
    1 x RoiAlign (opset 17), attribute `sampling_ratio`: its number of samples follows from each region: sampling_ratio is 0; at `d`; try: set sampling_ratio to a number, e.g. 2
    1 x ai.onnx.ml::Normalizer (opset 3): no operator of domain `ai.onnx.ml` is known; at `ai.onnx.ml::Normalizer.y`; try: run it outside of the engine; onnx.utils.extract_model cuts the model
    1 x com.microsoft::BiasGelu (opset 1): no operator of domain `com.microsoft` is known; at `e`; try: onnxruntime makes it when it saves an optimised model: take the model from before, or save it with graph_optimization_level = ORT_ENABLE_BASIC
    2 x BatchNormalization (opset 17), attribute `training_mode`: it is training; first at `a`; try: export for inference: model.eval() before torch.onnx.export
    ");
}

#[test]
fn json_has_stable_keys() {
    let output = check(&five(), &["--json"]);
    assert_eq!(output.status.code(), Some(2));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = found["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 5);
    let norm = findings.iter().find(|finding| finding["op"] == "BatchNormalization").unwrap();
    let keys: Vec<&String> = norm.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["op", "opset", "attribute", "reason", "count", "first_node", "workaround"]);
    assert_eq!((&norm["opset"], &norm["attribute"], &norm["count"]), (&17.into(), &"training_mode".into(), &2.into()));
    assert_eq!(found["notes"], serde_json::json!([]));
}

#[test]
fn inputs_of_types_that_the_target_lacks_are_told() {
    // 20 is float8e5m2fnuz, 8 a string.
    let output = check(&model(21, graph(&["x: 20[2]", "s: 8[2]"], &["y", "s"], vec![plain("y = Identity(x)")])), &[]);
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r"
    1 x input: the target has no element type f8e5m2fnuz; at `x`; try: give the input another type, and convert before the engine
    1 x input: the target has no element type string; at `s`; try: give the input another type, and convert before the engine
    ");
}

#[test]
fn a_model_that_can_be_taken_has_no_findings() {
    let clean = model(17, graph(&["x: 11[2]"], &["y"], vec![plain("y = Relu(x)")]));
    let output = check(&clean, &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().ends_with("model.onnx: every node can be taken\n"));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "warning: f64 computed as f32 (2 tensors)\n");
    let output = run(Path::new("no/such/model.onnx"), &[]);
    assert_eq!(output.status.code(), Some(1));
}

/// Where lowering could have written a node out, its reason is told, not that TensorRT has no layer.
#[test]
fn limits_are_told_as_such() {
    let nodes = vec![
        plain("a, i = TopK(x, k)"),
        plain("b = CumProd(x, axis)"),
        node("c = MaxPool(z)", vec![("kernel_shape", Ints(&[2000])), ("dilations", Ints(&[2]))]),
    ];
    let mut graph = graph(&["x: 1[2, n]", "z: 1[1, 1, 5000]"], &["a", "b", "c"], nodes);
    graph.initializer = vec![ints("k", &[4500]), ints("axis", &[1])];
    let output = check(&model(26, graph), &[]);
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @"
    1 x TopK (opset 26): TensorRT finds at most 3840 largest or smallest elements, not 4500; at `a`
    1 x CumProd (opset 26): the size of its axis is known only at run time; at `b`; try: if it follows from the inputs' sizes, fix them, e.g. --range n=1
    1 x MaxPool (opset 26): its windows have too many elements to be written out; at `c`
    ");
}
