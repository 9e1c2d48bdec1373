//! Recurrent layers: what onnxruntime computes, before the passes and after, and an engine.

mod common;

use std::path::Path;

use common::{library, npy, pattern_inputs, testdata};
use trt_fuse::import::import_file;
use trt_fuse::ir::Graph;
use trt_fuse::ir::eval::eval_graph;
use trt_fuse::{Options, build, optimize};

fn names() -> Vec<String> {
    let entries = std::fs::read_dir(testdata().join("recurrent")).unwrap();
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".onnx")?.to_owned()))
        .collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

fn path(name: &str) -> std::path::PathBuf {
    testdata().join("recurrent").join(name)
}

fn options(name: &str) -> Options {
    let ranges = if name.contains("dynamic") { vec!["time=1:2:4", "batch=1:2:3"] } else { Vec::new() };
    Options { ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(), ..Options::default() }
}

fn optimized(name: &str) -> Graph {
    let model = import_file(&path(&format!("{name}.onnx")), &Options::default().import).unwrap();
    optimize(model, &Options::default()).unwrap_or_else(|error| panic!("{name}: {error}")).graph
}

/// The largest difference of all outputs, in one row.
fn gap(graph: &Graph, expected: &Path) -> f64 {
    let found = eval_graph(graph, &pattern_inputs(graph)).unwrap();
    let found: Vec<f64> = found.iter().flat_map(|output| output.to_f64s().unwrap()).collect();
    let expected = npy(expected).to_f64s().unwrap();
    assert_eq!(found.len(), expected.len());
    found.iter().zip(&expected).fold(0.0, |worst, (a, b)| {
        assert!(a.is_finite());
        f64::max(worst, (a - b).abs())
    })
}

#[test]
fn outputs_are_those_of_onnxruntime() {
    for name in names() {
        let expected = path(&format!("{name}.npy"));
        let before = import_file(&path(&format!("{name}.onnx")), &Options::default().import).unwrap().graph;
        for (graph, when) in [(&before, "before"), (&optimized(&name), "after")] {
            let gap = gap(graph, &expected);
            assert!(gap < 2e-6, "{name}, {when} the passes: outputs differ by {gap}\n{graph}");
        }
    }
}

#[test]
fn every_form_becomes_an_engine() {
    let Some(library) = library() else { return };
    for name in names() {
        build(&optimized(&name), &library, &options(&name), None).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
