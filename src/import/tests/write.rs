//! Models in few words, through the messages of an independent crate. The integration tests read this file too.

use onnx_protobuf as onnx;
use onnx_protobuf::attribute_proto::AttributeType;

/// Attributes by what they hold.
pub(crate) enum Value {
    Int(i64),
    Float(f32),
    Text(&'static str),
    Ints(&'static [i64]),
    Floats(&'static [f32]),
    Tensor(onnx::TensorProto),
    Graph(onnx::GraphProto),
    /// In a function: the attribute of the call.
    Call(&'static str, AttributeType),
}

pub(crate) fn attribute(name: &str, value: Value) -> onnx::AttributeProto {
    let mut proto = onnx::AttributeProto { name: name.into(), ..Default::default() };
    proto.type_ = match value {
        Value::Int(i) => {
            proto.i = i;
            AttributeType::INT
        }
        Value::Float(f) => {
            proto.f = f;
            AttributeType::FLOAT
        }
        Value::Text(text) => {
            proto.s = text.into();
            AttributeType::STRING
        }
        Value::Ints(ints) => {
            proto.ints = ints.to_vec();
            AttributeType::INTS
        }
        Value::Floats(floats) => {
            proto.floats = floats.to_vec();
            AttributeType::FLOATS
        }
        Value::Tensor(tensor) => {
            proto.t = Some(tensor).into();
            AttributeType::TENSOR
        }
        Value::Graph(graph) => {
            proto.g = Some(graph).into();
            AttributeType::GRAPH
        }
        Value::Call(name, kind) => {
            proto.ref_attr_name = name.into();
            kind
        }
    }
    .into();
    proto
}

/// `y, z = Op(a, b)`: names apart by blanks, `-` for one left out.
pub(crate) fn node(text: &str, attributes: Vec<(&str, Value)>) -> onnx::NodeProto {
    let (outputs, call) = text.split_once(" = ").unwrap();
    let (op, inputs) = call.split_once('(').unwrap();
    let (domain, op) = op.split_once("::").unwrap_or(("", op));
    let names = |list: &str| {
        let names = list.split(", ").filter(|name| !name.is_empty());
        names.map(|name| if name == "-" { String::new() } else { name.to_owned() }).collect()
    };
    onnx::NodeProto {
        input: names(inputs.trim_end_matches(')')),
        output: names(outputs),
        op_type: op.into(),
        domain: domain.into(),
        attribute: attributes.into_iter().map(|(name, value)| attribute(name, value)).collect(),
        ..Default::default()
    }
}

pub(crate) fn plain(text: &str) -> onnx::NodeProto {
    node(text, Vec::new())
}

/// `x: 1[n, 3, ?]`: a data type's code and dimensions; `x` for a value without a type.
pub(crate) fn value(text: &str) -> onnx::ValueInfoProto {
    use onnx::tensor_shape_proto::{Dimension, dimension};
    use onnx::type_proto;
    let Some((name, kind)) = text.split_once(": ") else {
        return onnx::ValueInfoProto { name: text.into(), ..Default::default() };
    };
    let (code, shape) = kind.split_once('[').map_or((kind, None), |(code, shape)| (code, Some(shape)));
    let dim = |text: &str| Dimension {
        value: match text.parse() {
            _ if text == "?" => None,
            Ok(number) => Some(dimension::Value::DimValue(number)),
            Err(_) => Some(dimension::Value::DimParam(text.into())),
        },
        ..Default::default()
    };
    let shape = shape.map(|shape| onnx::TensorShapeProto {
        dim: shape.trim_end_matches(']').split(", ").filter(|dim| !dim.is_empty()).map(dim).collect(),
        ..Default::default()
    });
    let tensor = type_proto::Tensor { elem_type: code.parse().unwrap(), shape: shape.into(), ..Default::default() };
    let kind = onnx::TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    onnx::ValueInfoProto { name: name.into(), type_: Some(kind).into(), ..Default::default() }
}

pub(crate) fn floats(name: &str, dims: &[i64], data: &[f32]) -> onnx::TensorProto {
    let (dims, float_data) = (dims.to_vec(), data.to_vec());
    onnx::TensorProto { name: name.into(), dims, float_data, data_type: 1, ..Default::default() }
}

pub(crate) fn ints(name: &str, data: &[i64]) -> onnx::TensorProto {
    let (dims, int64_data) = (vec![data.len() as i64], data.to_vec());
    onnx::TensorProto { name: name.into(), dims, int64_data, data_type: 7, ..Default::default() }
}

pub(crate) fn graph(inputs: &[&str], outputs: &[&str], node: Vec<onnx::NodeProto>) -> onnx::GraphProto {
    onnx::GraphProto {
        name: "g".into(),
        input: inputs.iter().map(|text| value(text)).collect(),
        output: outputs.iter().map(|text| value(text)).collect(),
        node,
        ..Default::default()
    }
}

pub(crate) fn opset(domain: &str, version: i64) -> onnx::OperatorSetIdProto {
    onnx::OperatorSetIdProto { domain: domain.into(), version, ..Default::default() }
}

pub(crate) fn model(version: i64, graph: onnx::GraphProto) -> onnx::ModelProto {
    let opset_import = vec![opset("", version)];
    onnx::ModelProto { ir_version: 10, opset_import, graph: Some(graph).into(), ..Default::default() }
}
