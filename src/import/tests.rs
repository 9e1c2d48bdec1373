//! Whole models, written with the messages of an independent crate, to the text of their graphs.

use onnx_protobuf as onnx;
use onnx_protobuf::Message as _;
use onnx_protobuf::attribute_proto::AttributeType;

use super::{ImportError, ImportOptions, InputValues, Limits, import_bytes};
use write::Value::{Call, Float, Floats, Graph, Int, Ints, Tensor, Text};
use write::{attribute, floats, graph, ints, model, node, opset, plain, value};

fn import(model: &onnx::ModelProto) -> Result<super::Model, ImportError> {
    let imported = import_bytes(model.write_to_bytes().unwrap(), &ImportOptions::default())?;
    trt_fuse_ir::verify(&imported.graph).unwrap();
    Ok(imported)
}

/// The graph's text, or the error's.
fn text(model: &onnx::ModelProto) -> String {
    match import(model) {
        Ok(model) => model.graph.to_string(),
        Err(error) => error.to_string(),
    }
}

/// The text of a graph of one node, whose inputs are f32 `x` of 2x3x4x4 and the tensors given.
fn one(version: i64, node: onnx::NodeProto, tensors: Vec<onnx::TensorProto>) -> String {
    let outputs: Vec<String> = node.output.iter().filter(|name| !name.is_empty()).cloned().collect();
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let graph = graph(&["x: 1[2, 3, 4, 4]"], &outputs, vec![node]);
    text(&model(version, onnx::GraphProto { initializer: tensors, ..graph }))
}

mod formulas;
mod graphs;
mod opsets;
mod write;
