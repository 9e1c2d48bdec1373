//! Operators that sample images: what onnxruntime computes, before the passes and after, and an engine.

mod common;

use common::{library, npy, pattern_inputs, testdata};
use trt_fuse::import::import_file;
use trt_fuse::ir::eval::eval_graph;
use trt_fuse::{Options, build, optimize};

const NAMES: [&str; 4] = ["max_roi_pool", "roi_align_10", "roi_align_average", "roi_align_max"];

#[test]
fn outputs_are_those_of_onnxruntime() {
    for name in NAMES {
        let path = |end: &str| testdata().join("sampling").join(format!("{name}.{end}"));
        let model = || import_file(&path("onnx"), &Options::default().import).unwrap();
        let expected = npy(&path("npy")).to_f64s().unwrap();
        for graph in [model().graph, optimize(model(), &Options::default()).unwrap().graph] {
            let found = eval_graph(&graph, &pattern_inputs(&graph)).unwrap().remove(0).to_f64s().unwrap();
            assert_eq!(found.len(), expected.len(), "{name}");
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!((found - expected).abs() <= 1e-5, "{name}: element {at} is {found}, {expected} was expected");
            }
        }
    }
}

#[test]
fn engines_are_built() {
    let Some(library) = library() else { return };
    for name in NAMES {
        let file = testdata().join("sampling").join(format!("{name}.onnx"));
        let options = Options { capabilities: Some(library.capabilities()), ..Options::default() };
        let graph = optimize(import_file(&file, &options.import).unwrap(), &options).unwrap().graph;
        build(&graph, &library, &options, None).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
