//! Whole models: fewer nodes and layers than a stated bound, the same outputs as before and as onnxruntime's, and an
//! engine.

mod common;

use std::collections::BTreeMap;

use common::{
    difference, inputs_of_sizes, kept, library, model, optimized, packed, pattern_inputs, reference, unpacked,
};
use onnx_protobuf::Message as _;
use onnx_protobuf::{ModelProto, TensorProto};
use trt_fuse::import::{ImportOptions, Model, import_bytes};
use trt_fuse::ir::eval::eval_graph;
use trt_fuse::ir::{Capabilities, Graph};
use trt_fuse::passes::{Pipeline, Siblings, count_ops};
use trt_fuse::{Options, PassSelection, build, optimize, record};

/// Nodes after the passes, and layers without constants: at most these, in every exporter's form. Nodes are fewer than
/// onnxruntime, onnx-simplifier and others leave, layers no more than
/// OnnxParser of TensorRT-RTX 1.7.1 makes of the cleanest form.
const BOUNDS: &[(&str, usize, usize)] = &[
    ("resnet50", 57, 123),
    ("mobilenet_v2", 55, 101),
    ("mobilenet_v3_large", 111, 165),
    ("efficientnet_b0", 173, 241),
    ("googlenet", 81, 141),
    ("inception_v3", 120, 217),
    ("densenet121", 247, 370),
    ("squeezenet1_1", 38, 65),
    ("shufflenet_v2", 135, 188),
    ("convnext_tiny", 221, 260),
    ("vit_b_16", 390, 300),
    ("swin_t", 465, 600),
    ("bert_base", 346, 320),
    ("gpt2", 357, 320),
    ("llama_tiny", 180, 180),
    ("light_resnet50", 57, 124),
    ("light_inception_v1", 82, 142),
    ("light_squeezenet", 39, 66),
];

fn bound(name: &str) -> Option<(usize, usize)> {
    let family = name.split('.').next().unwrap();
    BOUNDS.iter().find(|row| row.0 == family).map(|row| (row.1, row.2))
}

#[test]
fn every_model_shrinks_to_its_bound() {
    let mut table = String::new();
    let mut failures = Vec::new();
    for name in packed("zoo").into_iter().chain(packed("light")) {
        let graph = optimized(&name);
        let (_, layers) = record(&graph, &Options::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (nodes, layers) = (graph.operation_count(), layers.without_constants);
        table.push_str(&format!("{name:28} nodes {nodes:4} layers {layers:4}\n"));
        if let Some((most_nodes, most_layers)) = bound(&name)
            && (nodes > most_nodes || layers > most_layers)
        {
            failures
                .push(format!("{name}: {nodes} nodes (at most {most_nodes}), {layers} layers (at most {most_layers})"));
        }
    }
    println!("{table}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let named = |family: &str| table.lines().any(|line| line.split(['.', ' ']).next() == Some(family));
    assert!(BOUNDS.iter().all(|row| named(row.0)), "a bound without a model");
}

fn outputs_agree(name: &str, model: Model) {
    let before = model.graph.clone();
    let inputs = pattern_inputs(&before);
    let after = optimize(model, &Options::default()).unwrap_or_else(|error| panic!("{name}: {error}")).graph;
    let expected = reference(name);
    let found_before = eval_graph(&before, &inputs).unwrap();
    let found_after = eval_graph(&after, &inputs).unwrap();
    for (a, b) in found_before.iter().zip(&found_after) {
        let gap = difference(a, b);
        assert!(gap <= 1e-4, "{name}: the passes change the outputs by {gap}");
    }
    let gap = difference(&expected, &kept(&found_after[0]));
    assert!(gap <= 1e-3, "{name}: {gap} from onnxruntime");
}

/// The 1x1 branches of each of GoogLeNet's nine blocks become one convolution and a split.
#[test]
fn siblings_are_merged_as_asked_for() {
    // Three convolutions become two nodes, in each of nine modules.
    let (apart, merged) = siblings_of("googlenet");
    let count = |graph: &Graph, op: &str| count_ops(graph).get(op).copied().unwrap_or(0);
    assert_eq!((count(&apart, "split"), count(&merged, "split")), (0, 9));
    assert_eq!(apart.operation_count() - merged.operation_count(), 9);
    // Of two convolutions and what joins them, one is left, in each of eight.
    let (apart, merged) = siblings_of("squeezenet1_1");
    assert_eq!((count(&apart, "concat"), count(&merged, "concat"), count(&merged, "split")), (8, 0, 0));
    assert_eq!(apart.operation_count() - merged.operation_count(), 16);
}

/// A model with all siblings apart, and with all merged, which gives the same.
fn siblings_of(name: &str) -> (Graph, Graph) {
    let before = model(name).graph;
    let inputs = pattern_inputs(&before);
    let expected = eval_graph(&before, &inputs).unwrap();
    let with = |siblings| {
        let options = Options { passes: PassSelection { siblings, ..Default::default() }, ..Default::default() };
        optimize(model(name), &options).unwrap().graph
    };
    let (apart, merged) = (with(Siblings::Never), with(Siblings::Always));
    let gap = difference(&expected[0], &eval_graph(&merged, &inputs).unwrap()[0]);
    assert!(gap <= 1e-4, "{name}: {gap}");
    (apart, merged)
}

#[test]
fn outputs_of_the_zoo_agree_before_after_and_with_onnxruntime() {
    packed("zoo").iter().for_each(|name| outputs_agree(name, model(name)));
}

#[test]
fn outputs_of_the_light_models_agree_before_after_and_with_onnxruntime() {
    packed("light").iter().for_each(|name| outputs_agree(name, weighted(name)));
}

/// The weights of scripts/weights.py.
fn weights(dims: &[i64], number: u64) -> Vec<f32> {
    let count: i64 = dims.iter().product();
    let scale = (2.0 / dims.iter().skip(1).product::<i64>() as f64).sqrt() as f32;
    let element = |at: u64| {
        let bits = (at + (number << 32) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let value = (bits >> 40) as f32 / 8_388_608.0 - 1.0;
        if dims.len() < 2 { 0.75 + value / 4.0 } else { value * scale }
    };
    (0..count as u64).map(element).collect()
}

/// A light model with weights for the constants that it makes, which are all 0.02: every class would get the same.
fn weighted(name: &str) -> Model {
    let mut proto = ModelProto::parse_from_bytes(&std::fs::read(unpacked(name)).unwrap()).unwrap();
    let graph = proto.graph.as_mut().unwrap();
    let shapes: BTreeMap<String, Vec<i64>> =
        graph.initializer.iter().map(|one| (one.name.clone(), integers(one))).collect();
    let (makers, others): (Vec<_>, Vec<_>) =
        std::mem::take(&mut graph.node).into_iter().partition(|node| node.op_type == "ConstantOfShape");
    assert!(makers.len() > 10, "{name} has weights of its own");
    graph.node = others;
    for (number, node) in makers.iter().enumerate() {
        let dims = shapes[&node.input[0]].clone();
        let raw_data = weights(&dims, number as u64).iter().flat_map(|value| value.to_le_bytes()).collect();
        let name = node.output[0].clone();
        graph.initializer.push(TensorProto { name, dims, data_type: 1, raw_data, ..TensorProto::default() });
    }
    import_bytes(proto.write_to_bytes().unwrap(), &ImportOptions::default()).unwrap()
}

fn integers(tensor: &TensorProto) -> Vec<i64> {
    let raw = tensor.raw_data.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()));
    tensor.int64_data.iter().copied().chain(raw).collect()
}

/// The references are of batch 2; here the batch is 1, and the graph is what targets get too.
#[test]
fn outputs_of_dynamic_models_agree_in_every_stage_at_another_size() {
    let mut dynamic = 0;
    for name in packed("zoo").into_iter().filter(|name| name.ends_with(".dyn")) {
        dynamic += 1;
        let before = model(&name).graph;
        let inputs = inputs_of_sizes(&before, |symbol| if symbol == "seq" { 8 } else { 1 });
        let expected = eval_graph(&before, &inputs).unwrap();
        let after = optimized(&name);
        let mut stages = vec![("after the passes", after.clone())];
        for (target, capabilities) in
            [("for RTX", Capabilities::default()), ("for 8.6", Capabilities::tensorrt((8, 6, 1)))]
        {
            stages.push((target, Pipeline::lowering(&capabilities).run(after.clone()).unwrap().0));
        }
        for (stage, graph) in stages {
            let found = eval_graph(&graph, &inputs).unwrap_or_else(|error| panic!("{name}, {stage}: {error}"));
            for (expected, found) in expected.iter().zip(&found) {
                let gap = difference(expected, found);
                assert!(gap <= 1e-4, "{name}, {stage}: the outputs change by {gap}");
            }
        }
    }
    assert!(dynamic > 0);
}

#[test]
fn every_model_builds() {
    let Some(library) = library() else { return };
    for name in packed("zoo") {
        let graph = optimized(&name);
        let mut options = Options::default();
        for (symbol, range) in [("batch", "batch=1:2:4"), ("seq", "seq=8:64:128")] {
            let shapes = graph.inputs().iter().filter_map(|id| graph.info((*id).into())?.shape.as_ref());
            if shapes.flatten().any(|dim| dim.as_symbol().is_some_and(|name| **name == *symbol)) {
                options.ranges.push(range.parse().unwrap());
            }
        }
        let built = build(&graph, &library, &options, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!built.plan.bytes().is_empty());
    }
}
