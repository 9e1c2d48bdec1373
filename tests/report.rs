//! The report that explains itself: remarks, provenance, bisecting, on whole models and through the program.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use common::{library, model, pattern_inputs, unpacked};
use onnx_protobuf as onnx;
use onnx_protobuf::Message as _;
use serde_json::Value;
use trt_fuse::Options;
use trt_fuse::ir::eval::random_inputs;
use trt_fuse::ir::op::Activation;
use trt_fuse::ir::{Capabilities, Graph, NodeId, Op, OpKind, Patch, Step, Tensor};
use trt_fuse::passes::{Miss, Pipeline, Rule, RuleContext, Rules};
use trt_fuse::report::{Provenance, bisect, bisect_pipelines};

#[path = "../src/import/tests/write.rs"]
#[allow(dead_code, reason = "each test binary uses a part")]
mod write;

fn fuse_report(model: &str, arguments: &[&str]) -> Output {
    let program = Command::new(env!("CARGO_BIN_EXE_fuse-report")).arg(unpacked(model)).args(arguments).output();
    program.unwrap()
}

fn printed(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(model: &str, arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(fuse_report(model, &[arguments, &["--json"]].concat()))).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The names in backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// What an ONNX model says of itself: the names of a node's readers, by the node's name.
fn readers(name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let model = onnx::ModelProto::parse_from_bytes(&std::fs::read(unpacked(name)).unwrap()).unwrap();
    let graph = model.graph.unwrap();
    let producers: BTreeMap<&str, &str> = graph
        .node
        .iter()
        .flat_map(|node| node.output.iter().map(|output| (output.as_str(), node.name.as_str())))
        .collect();
    let mut readers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in &graph.node {
        readers.entry(node.name.clone()).or_default();
        for producer in node.input.iter().filter_map(|input| producers.get(input.as_str())) {
            readers.entry((*producer).to_string()).or_default().insert(node.name.clone());
        }
    }
    readers
}

/// The rules and conditions for which a model has remarks, each remark checked against the model.
fn true_remarks(name: &str) -> BTreeSet<String> {
    let readers = readers(name);
    let report = json(name, &[]);
    assert_eq!(
        keys(&report),
        ["model", "nodes", "ops", "passes", "layers", "timings_ms", "notes", "remarks", "remark_groups"]
    );
    let remarks = report["remarks"].as_array().unwrap();
    for remark in remarks {
        assert_eq!(keys(remark), ["rule", "node", "op", "reason", "condition"]);
        assert!(readers.contains_key(remark["node"].as_str().unwrap()), "{remark}");
        // "output of `a` also read by `b`": the model says that b reads a, and something else does too.
        if remark["condition"] == "an inner output has another reader" {
            let [inner, reader] = quoted(remark["reason"].as_str().unwrap())[..] else { panic!("{remark}") };
            assert!(readers[inner].contains(reader) && readers[inner].len() > 1, "{remark}");
        }
    }
    let groups = report["remark_groups"].as_array().unwrap();
    let count = |group: &Value| group["count"].as_u64().unwrap();
    assert!(groups.iter().all(|group| keys(group) == ["rule", "condition", "count", "nodes"]));
    assert!(groups.iter().all(|group| group["nodes"].as_array().unwrap().len() as u64 == count(group)));
    assert_eq!(groups.iter().map(count).sum::<u64>(), remarks.len() as u64);
    assert!(groups.is_sorted_by_key(|group| std::cmp::Reverse(count(group))));
    let text = printed(fuse_report(name, &["--remarks"]));
    let title =
        |group: &Value| format!("{} ({})", group["condition"].as_str().unwrap(), group["rule"].as_str().unwrap());
    assert!(groups.iter().all(|group| text.contains(&title(group))), "{text}");
    groups.iter().map(title).collect()
}

#[test]
fn remarks_are_true_and_grouped() {
    let found: BTreeSet<String> = ["convnext_tiny", "swin_t"].iter().flat_map(|name| true_remarks(name)).collect();
    assert!(!found.is_empty());
}

#[test]
fn a_model_of_which_all_is_fused_has_no_remarks() {
    assert_eq!(json("resnet50.raw", &[])["remarks"], Value::Array(Vec::new()));
}

const BATCH_NORM: &str = "/features/features.1/conv/conv.0/conv.0.1/BatchNormalization";

/// What is one size for ours is none for OnnxParser, which takes the model as it is.
#[test]
fn a_model_of_fixed_sizes_is_compared_with_the_parsers() {
    if library().is_none() {
        return;
    }
    let report = json("resnet50.dyn", &["--range", "batch=2", "--build", "--compare-parser"]);
    let engine = |side: &Value| side["engine"].as_u64().unwrap();
    let (ours, parser) = (&report["layers"], &report["parser"]);
    assert!(engine(ours) > 0 && engine(ours) <= engine(parser), "{ours} {parser}");
    assert!(parser["build_ms"].as_f64().unwrap() > 0.0, "{parser}");
}

/// That it refuses a model is what the comparison tells.
#[test]
fn a_model_that_the_parser_refuses_is_reported() {
    if library().is_none() {
        return;
    }
    let nodes =
        vec![write::plain("mel = MelWeightMatrix(bins, length, rate, low, high)"), write::plain("y = MatMul(x, mel)")];
    let graph = write::graph(&["x: 1[n, 5]"], &["y: 1[n, 4]"], nodes);
    let number = |name: &str, value: i64| onnx::TensorProto { dims: vec![], ..write::ints(name, &[value]) };
    let mut weights = vec![number("bins", 4), number("length", 8), number("rate", 16_000)];
    weights.extend([("low", 0.0), ("high", 8000.0)].map(|(name, value)| write::floats(name, &[], &[value])));
    let model = write::model(17, onnx::GraphProto { initializer: weights, ..graph });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mel.onnx");
    std::fs::write(&path, model.write_to_bytes().unwrap()).unwrap();
    let report = |arguments: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_fuse-report"));
        printed(program.arg(&path).args(["--range", "n=1:2:4"]).args(arguments).output().unwrap())
    };
    let text = report(&["--build", "--compare-parser"]);
    let refused = text.lines().find(|line| line.starts_with("OnnxParser:    none, "));
    assert!(refused.is_some_and(|line| line.contains("MelWeightMatrix")), "{text}");
    let json: Value = serde_json::from_str(&report(&["--compare-parser", "--json"])).unwrap();
    assert!(json["parser_refusal"].as_str().unwrap().contains("MelWeightMatrix") && json["parser"].is_null(), "{json}");
    assert_eq!(json["nodes"]["after"], 1);
}

#[test]
fn the_fate_of_a_node_is_told() {
    let fate = json("mobilenet_v2.raw", &["--node", BATCH_NORM]);
    assert_eq!(keys(&fate), ["node", "op", "rewrites", "graph_nodes", "network_layers"]);
    assert_eq!(fate["op"], "BatchNormalization");
    let rules: Vec<&str> =
        fate["rewrites"].as_array().unwrap().iter().map(|step| step["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["fuse_conv_bn", "fuse_activation"]);
    let rewrite = &fate["rewrites"][0];
    assert_eq!(keys(rewrite), ["number", "pass", "rule", "ordinal", "round", "node", "before", "after", "instead"]);
    // The convolution before it, the clip after it, and itself.
    let onnx = ["Conv", "BatchNormalization", "Clip"];
    let of_graph = fate["graph_nodes"][0]["onnx_nodes"].as_array().unwrap();
    assert!(of_graph.iter().zip(onnx).all(|(node, op)| node.as_str().unwrap().contains(op)), "{of_graph:?}");
    let kinds: Vec<&Value> = fate["network_layers"].as_array().unwrap().iter().map(|layer| &layer["kind"]).collect();
    assert_eq!(kinds, ["convolution", "activation"]);

    let text = printed(fuse_report("mobilenet_v2.raw", &["--node", BATCH_NORM]));
    let first = text.lines().next().unwrap();
    assert_eq!(first, format!("BatchNormalization {BATCH_NORM}"));
    assert!(text.contains("fuse_conv_bn #") && text.contains("network: convolution"), "{text}");
}

/// Two equal operations become one, which stands for both.
#[test]
fn the_fate_of_each_of_two_equal_nodes_is_the_same_layer() {
    let named = |name: &str, text: &str| onnx::NodeProto { name: name.into(), ..write::plain(text) };
    let nodes = vec![
        named("first", "a = Exp(x)"),
        named("second", "b = Exp(x)"),
        named("sum", "s = MatMul(a, b)"),
        named("other", "y = Sub(s, b)"),
    ];
    let model = write::model(17, write::graph(&["x: 1[4, 4]"], &["y"], nodes));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, model.write_to_bytes().unwrap()).unwrap();
    let provenance = Provenance::of_file(&path, &Options::default(), false, None).unwrap();
    let fates = ["first", "second"].map(|name| provenance.node(name).unwrap());
    for fate in &fates {
        assert_eq!(fate.gone, None);
        let [node] = fate.graph_nodes[..] else { panic!("{fate:?}") };
        assert_eq!(node.onnx_nodes.iter().map(|name| &**name).collect::<Vec<_>>(), ["first", "second"]);
        assert!(fate.rewrites.iter().any(|rewrite| rewrite.rule == "merge_common") == (fate.node == "second"));
    }
    let [[first], [second]] = fates.each_ref().map(|fate| &fate.network_layers[..]) else { panic!("{fates:?}") };
    assert_eq!(first, second);
    assert_eq!(provenance.layer(&first.name).unwrap().onnx_nodes.len(), 2);
}

/// The way into the layers and back, for every node of a model, in the engine too where there is a library.
#[test]
fn every_node_comes_into_a_layer_and_every_layer_knows_its_nodes() {
    let build = library().is_some();
    let path = unpacked("squeezenet1_1");
    let provenance = Provenance::of_file(&path, &Options::default(), build, None).unwrap();
    let sources = model("squeezenet1_1").graph.sources().to_vec();
    for source in sources.iter().filter(|source| &*source.op_type != "Constant") {
        let fate = provenance.node(&source.name).unwrap();
        if let Some(gone) = &fate.gone {
            // Exported for inference: the dropout is an identity, the last reshape is none.
            assert!(fate.network_layers.is_empty() && !gone.is_empty(), "{source:?}: {gone}");
            continue;
        }
        assert!(!fate.graph_nodes.is_empty() && !fate.network_layers.is_empty(), "{source:?}");
        for layer in &fate.network_layers {
            let origin = provenance.layer(&layer.name).unwrap();
            assert!(origin.onnx_nodes.iter().any(|node| *node.name == *source.name), "{source:?}: {origin:?}");
        }
        let engine = fate.engine_layers.unwrap_or_default();
        // TensorRT writes the parts of a concatenation into one place, without a layer.
        assert_eq!(engine.is_empty(), !build || &*source.op_type == "Concat", "{source:?}");
    }
    let conv = provenance.layer("/features/features.0/Conv").unwrap();
    assert_eq!(conv.kind, "network convolution");
    let names: Vec<&str> = conv.onnx_nodes.iter().map(|node| node.op).collect();
    assert_eq!(names, ["Conv", "Relu"]);
}

#[test]
fn unknown_names_are_errors_with_the_nearest() {
    for (arguments, line) in [
        (
            ["--node", "features.0/conv"],
            "error: no ONNX node is called `features.0/conv`; the nearest are `/features/features.0/Conv`",
        ),
        (
            ["--layer", "/features/features.0/Cnv"],
            "error: no layer is called `/features/features.0/Cnv`; the nearest are `/features/features.0/Conv`",
        ),
    ] {
        let output = fuse_report("squeezenet1_1", &arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(error.starts_with(line) && error.lines().count() == 1, "{error}");
    }
}

/// Takes each relu into the convolution before it; at one of them it makes it a tanh.
#[derive(Debug)]
struct FuseRelu {
    wrong: String,
}

impl Rule for FuseRelu {
    fn name(&self) -> &'static str {
        "fuse_relu"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Activation]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let host = graph.input(root, 0).ok_or(Miss::NoMatch)?.node;
        let (op, epilogue) = graph.op(host).and_then(|op| Some((op, op.epilogue()?))).ok_or(Miss::NoMatch)?;
        let wrong = graph.node_name(root) == self.wrong;
        let step = Step::Activation(if wrong { Activation::Tanh } else { Activation::Relu });
        let mut patch = Patch::new(self.name(), host);
        let fused = patch.add(op.with_epilogue(epilogue.with(step)).ok_or(Miss::NoMatch)?, &graph.node_inputs(host));
        patch.replace(root.into(), fused).absorb([host, root]);
        Ok(patch)
    }
}

fn stages(wrong: &str) -> [(&'static str, Pipeline); 2] {
    let capabilities = Capabilities::default();
    let first = Pipeline::standard(&capabilities).only(&["drop_dead", "drop_identity", "fuse_pad"]).unwrap();
    let rule = FuseRelu { wrong: wrong.to_string() };
    [("first", first), ("second", Pipeline::new(vec![Box::new(Rules::one(rule))], &capabilities))]
}

#[test]
fn bisecting_finds_the_very_rewrite_that_is_wrong() {
    let graph = model("squeezenet1_1").graph;
    let (first, _) = stages("").into_iter().next().unwrap().1.run(graph.clone()).unwrap();
    // Rules walk from the outputs to the inputs.
    let relus: Vec<NodeId> =
        first.live().into_iter().rev().filter(|id| matches!(first.op(*id), Some(Op::Activation(_)))).collect();
    let at = 18;
    let wrong = first.node_name(relus[at]).to_string();
    let onnx = first.origins(first.input(relus[at], 0).unwrap().node).next().unwrap().name.clone();
    let inputs = random_inputs(&graph, &|_| Some(2), 3).unwrap();
    let found = bisect_pipelines(&graph, &stages(&wrong), &inputs, 1e-4).unwrap();
    let culprit = found.culprit.as_ref().unwrap();
    assert_eq!((culprit.stage, culprit.rewrite.rule, culprit.rewrite.ordinal), ("second", "fuse_relu", at + 1));
    assert_eq!(culprit.rewrite.node, onnx);
    assert!(culprit.before <= 1e-4 && culprit.after > 1e-4, "{culprit:?}");
    assert!(culprit.rewrite.before.iter().any(|node| *node.name == *wrong && node.op == "relu"));
    assert!(culprit.rewrite.after[0].line.contains("epilogue=[tanh]"), "{culprit:?}");
    let text = found.text();
    assert!(text.contains(&format!("fuse_relu #{}, round 1, at ONNX node {onnx}", at + 1)), "{text}");

    let right = bisect_pipelines(&graph, &stages("none"), &inputs, 1e-4).unwrap();
    assert!(right.culprit.is_none() && right.stages.len() == 2 && right.stages[1].rewrites == 26, "{right:?}");
    assert!(right.text().ends_with("nothing differs by more than 1e-4\n"));
}

/// An array as NumPy's format has it.
fn write_npy(path: &Path, tensor: &Tensor) {
    let dims: String = tensor.dims().iter().map(|dim| format!("{dim}, ")).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims}), }}");
    header.push_str(&" ".repeat(63 - (10 + header.len()) % 64));
    header.push('\n');
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    std::fs::write(path, [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), tensor.bytes()].concat()).unwrap();
}

#[test]
fn bisecting_reads_inputs_and_says_that_nothing_differs() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = folder.path().to_str().unwrap();
    let arguments = ["--bisect", "--inputs", inputs];
    let missing = fuse_report("light_squeezenet", &arguments);
    let error = String::from_utf8(missing.stderr).unwrap();
    assert!(missing.status.code() == Some(1) && error.contains("no file for input `data_0`"), "{error}");

    let tensor = pattern_inputs(&model("light_squeezenet").graph).remove(0);
    write_npy(&folder.path().join("data_0.npy"), &tensor);
    let found = json("light_squeezenet", &arguments);
    assert_eq!(keys(&found), ["tolerance", "stages", "culprit"]);
    assert_eq!((&found["tolerance"], &found["culprit"]), (&Value::from(1e-4), &Value::Null));
    let names: Vec<&Value> = found["stages"].as_array().unwrap().iter().map(|stage| &stage["name"]).collect();
    assert_eq!(names, ["standard", "lowering"]);

    std::fs::remove_file(folder.path().join("data_0.npy")).unwrap();
    let proto = onnx::TensorProto {
        dims: tensor.dims().iter().map(|dim| *dim as i64).collect(),
        data_type: 1,
        raw_data: tensor.bytes().to_vec(),
        ..onnx::TensorProto::default()
    };
    std::fs::write(folder.path().join("input_0.pb"), proto.write_to_bytes().unwrap()).unwrap();
    let same = bisect(model("light_squeezenet"), &Options::default(), Some(folder.path()), 1e-4).unwrap();
    assert_eq!(same.stages[0].difference, found["stages"][0]["difference"].as_f64().unwrap());
    assert!(same.stages[0].rewrites > 0);
}
