//! Real models with control flow and recurrent layers: what onnxruntime computes, before the passes and after, and an
//! engine. Without the models, each test prints why and passes: `make silero` gets them.

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::{assert_outputs, fetched, library, pattern};
use trt_fuse::import::{ImportOptions, import_file};
use trt_fuse::ir::eval::eval_graph;
use trt_fuse::ir::op::WITH_BODIES;
use trt_fuse::ir::{Graph, InputValues, Op, Tensor};
use trt_fuse::{Options, build, optimize};

const NAMES: &[&str] = &["silero_vad_16k_op15", "silero_vad_op18_ifless"];

fn path(name: &str) -> Option<PathBuf> {
    fetched(&format!("silero-vad-6.2.3/{name}.onnx"), "silero")
}

/// Sequences of 512 samples, as at 16 kHz: of other lengths, branches of the first model have different ranks.
fn options() -> Options {
    let import = ImportOptions { sizes: [("sequence".to_string(), 512)].into(), ..ImportOptions::default() };
    Options { import, ranges: vec!["batch=1:2:4".parse().unwrap()], ..Options::default() }
}

fn inputs(graph: &Graph) -> Vec<Tensor> {
    let names = graph.inputs().iter().map(|id| &*graph.value((*id).into()).unwrap().name);
    names
        .map(|name| match name {
            "input" => pattern(&[2, 512]),
            "state" => pattern(&[2, 2, 128]),
            "sr" => Tensor::scalar(16_000_i64),
            other => panic!("{other}"),
        })
        .collect()
}

fn check(name: &str, graph: &Graph) {
    assert_outputs(name, &eval_graph(graph, &inputs(graph)).unwrap());
}

#[test]
fn outputs_are_those_of_onnxruntime() {
    for name in NAMES {
        let Some(path) = path(name) else { return };
        for import in [ImportOptions::default(), options().import] {
            let model = import_file(&path, &import).unwrap();
            check(name, &model.graph);
            check(name, &optimize(model, &Options::default()).unwrap().graph);
        }
    }
}

#[test]
fn nothing_is_left_of_control_flow_where_the_length_is_known() {
    let Some(path) = path(NAMES[0]) else { return };
    let graph = optimize(import_file(&path, &options().import).unwrap(), &options()).unwrap().graph;
    let left = graph.node_ids().filter(|id| graph.op(*id).is_some_and(|op| !op.bodies().is_empty()));
    assert_eq!(left.map(|id| graph.node_name(id)).collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(graph.node_ids().any(|id| matches!(graph.op(id), Some(Op::MatMul(_)))));
}

#[test]
fn both_become_engines() {
    let Some(library) = library() else { return };
    for name in NAMES {
        let Some(path) = path(name) else { return };
        let graph = optimize(import_file(&path, &options().import).unwrap(), &options()).unwrap().graph;
        build(&graph, &library, &options(), None).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn branches_of_different_rank_are_refused_with_the_reason() {
    let Some(path) = path(NAMES[0]) else { return };
    let graph = optimize(import_file(&path, &ImportOptions::default()).unwrap(), &Options::default()).unwrap().graph;
    let refused = trt_fuse::unsupported(&graph, &Options::default()).unwrap();
    let reason =
        "output 0 has 2 dimensions in one branch and 3 in the other, and its condition is only known at run time";
    assert_eq!(
        refused.iter().map(|node| (&*node.node, &*node.reason)).collect::<Vec<_>>(),
        [("/model/decoder/If", reason)]
    );
}

/// The rate is an input of this one, and whole networks for 16 and 8 kHz are branches: fixed, one is left.
#[test]
fn a_fixed_rate_chooses_the_network() {
    let Some(path) = path("silero_vad") else { return };
    let import = |fixed: bool| ImportOptions {
        sizes: [("input.1".to_string(), 512)].into(),
        values: if fixed { [("sr".to_string(), InputValues::Each(vec![16_000]))].into() } else { BTreeMap::new() },
        ..ImportOptions::default()
    };
    let whole = import_file(&path, &import(false)).unwrap().graph;
    check("silero_vad", &whole);
    let findings = trt_fuse::check(import_file(&path, &import(false)).unwrap(), &Options::default()).unwrap().findings;
    let cure = findings.first().and_then(|finding| finding.workaround.as_deref()).unwrap_or_default();
    assert!(cure.contains("--range 'sr[0]=1'"), "{findings:?}");

    let model = import_file(&path, &import(true)).unwrap();
    check("silero_vad", &model.graph);
    let graph = optimize(model, &Options::default()).unwrap().graph;
    check("silero_vad", &graph);
    assert!(graph.live_of(&WITH_BODIES).is_empty());
    let ranges = ["input.0=1:2:4", "state.1=1:2:4"].map(|range| range.parse().unwrap());
    let options = Options { ranges: ranges.into(), ..Options::default() };
    let Some(library) = library() else { return };
    build(&graph, &library, &options, None).unwrap();
}
