//! Patterns that other tools get wrong, each a whole small model: as imported, after the passes, and in the operators
//! that targets have, the outputs are those worked out by hand; where it matters an engine is built too.

mod common;
#[path = "../src/import/tests/write.rs"]
#[allow(dead_code, reason = "the importer's own tests use the rest")]
mod write;

#[path = "patterns/control.rs"]
mod control;
#[path = "patterns/decoding.rs"]
mod decoding;
#[path = "patterns/fusions.rs"]
mod fusions;
#[path = "patterns/integers.rs"]
mod integers;
#[path = "patterns/interfaces.rs"]
mod interfaces;
#[path = "patterns/memory.rs"]
mod memory;
#[path = "patterns/quantized.rs"]
mod quantized;
#[path = "patterns/shapes.rs"]
mod shapes;

use onnx_protobuf as onnx;
use onnx_protobuf::Message as _;
use trt_fuse::import::{ImportError, ImportOptions, Model, import_bytes};
use trt_fuse::ir::eval::eval_graph;
use trt_fuse::ir::{Capabilities, DType, Element, Graph, Tensor};
use trt_fuse::passes::Pipeline;
use trt_fuse::{Options, build, optimize, record};

fn import(model: &onnx::ModelProto) -> Result<Model, ImportError> {
    import_bytes(model.write_to_bytes().unwrap(), &ImportOptions::default())
}

#[track_caller]
fn optimized(model: &onnx::ModelProto) -> Graph {
    let model = import(model).unwrap_or_else(|error| panic!("{error}"));
    optimize(model, &Options::default()).unwrap_or_else(|error| panic!("{error}")).graph
}

fn tensor<T: Element>(dims: &[usize], data: &[T]) -> Tensor {
    Tensor::from_vec(dims, data.to_vec()).unwrap()
}

/// Integers of a type as a constant.
fn integers(name: &str, data_type: i32, dims: &[i64], data: &[i32]) -> onnx::TensorProto {
    let (dims, int32_data) = (dims.to_vec(), data.to_vec());
    onnx::TensorProto { name: name.into(), dims, int32_data, data_type, ..Default::default() }
}

fn with_weights(version: i64, graph: onnx::GraphProto, initializer: Vec<onnx::TensorProto>) -> onnx::ModelProto {
    write::model(version, onnx::GraphProto { initializer, ..graph })
}

/// Fails unless a model gives these outputs in every stage. Returns the optimised graph.
#[track_caller]
fn gives(model: &onnx::ModelProto, inputs: &[Tensor], expected: &[Tensor]) -> Graph {
    let imported = import(model).unwrap_or_else(|error| panic!("{error}")).graph;
    let graph = optimized(model);
    let mut stages = vec![("as imported".to_owned(), imported), ("after the passes".to_owned(), graph.clone())];
    for capabilities in [Capabilities::rtx((1, 7, 1)), Capabilities::tensorrt((8, 6, 1))] {
        let (lowered, _) = Pipeline::lowering(&capabilities).run(graph.clone()).unwrap();
        stages.push((format!("for {:?}", capabilities.flavour), lowered));
    }
    for (stage, graph) in &stages {
        let found = eval_graph(graph, inputs).unwrap_or_else(|error| panic!("{stage}: {error}\n{graph}"));
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!(is_same(expected, found), "{stage}: {found:?} where {expected:?} was expected\n{graph}");
        }
    }
    graph
}

/// Floats within 1e-6 of the largest, others bit by bit.
fn is_same(expected: &Tensor, found: &Tensor) -> bool {
    if (expected.dtype(), expected.dims()) != (found.dtype(), found.dims()) {
        return false;
    }
    if expected.dtype() != DType::F32 {
        return expected == found;
    }
    let (a, b) = (expected.to_f64s().unwrap(), found.to_f64s().unwrap());
    let largest = a.iter().filter(|x| x.is_finite()).fold(0.0_f64, |largest, x| largest.max(x.abs()));
    a.iter().zip(&b).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-6 * largest)
}

/// Builds an engine of a graph if the library is there.
#[track_caller]
fn builds(graph: &Graph, ranges: &[&str]) {
    let Some(library) = common::library() else { return };
    let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
    let options = Options { ranges, ..Options::default() };
    if let Err(error) = build(graph, &library, &options, None) {
        panic!("{error}\n{graph}");
    }
}

/// The network of a graph as text, or why there is none.
fn network(graph: &Graph) -> Result<String, String> {
    record(graph, &Options::default()).map(|(network, _)| network.text().to_string()).map_err(|error| error.to_string())
}

/// Names of the operators of a graph, constants and inputs left out.
fn operators(graph: &Graph) -> Vec<String> {
    trt_fuse::passes::count_ops(graph).into_iter().flat_map(|(name, count)| vec![name; count]).collect()
}
