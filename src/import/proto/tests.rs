use onnx_protobuf as peer;
use onnx_protobuf::Message as _;
use proptest::prelude::*;

use super::*;

fn peer_entry(key: &str, value: &str) -> peer::StringStringEntryProto {
    peer::StringStringEntryProto { key: key.into(), value: value.into(), ..Default::default() }
}

fn peer_shape() -> peer::TensorShapeProto {
    use peer::tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |value| Dimension { value, ..Default::default() };
    let dims = [Some(Value::DimValue(0)), Some(Value::DimParam("batch".into())), None, Some(Value::DimValue(-1))];
    peer::TensorShapeProto { dim: dims.into_iter().map(dim).collect(), ..Default::default() }
}

fn peer_type(value: peer::type_proto::Value) -> peer::TypeProto {
    peer::TypeProto { value: Some(value), ..Default::default() }
}

/// A type of every kind.
fn peer_types() -> Vec<peer::TypeProto> {
    use peer::type_proto::{Map, Optional, Sequence, SparseTensor, Tensor, Value};
    let tensor =
        peer_type(Value::TensorType(Tensor { elem_type: 1, shape: Some(peer_shape()).into(), ..Default::default() }));
    let sequence = Value::SequenceType(Sequence { elem_type: Some(tensor.clone()).into(), ..Default::default() });
    let sequence = peer_type(sequence);
    let optional = Value::OptionalType(Optional { elem_type: Some(sequence.clone()).into(), ..Default::default() });
    let map = Value::MapType(Map { key_type: 7, value_type: Some(tensor.clone()).into(), ..Default::default() });
    let sparse = SparseTensor { elem_type: 11, shape: Some(peer_shape()).into(), ..Default::default() };
    let unknown_rank = Tensor { elem_type: 9, ..Default::default() };
    vec![
        tensor,
        sequence,
        peer_type(optional),
        peer_type(map),
        peer_type(Value::SparseTensorType(sparse)),
        peer_type(Value::TensorType(unknown_rank)),
        peer::TypeProto::default(),
    ]
}

/// A tensor with every field filled, whether or not they make sense together.
fn peer_tensor() -> peer::TensorProto {
    peer::TensorProto {
        dims: vec![2, 0, -1, i64::MAX],
        data_type: 16,
        segment: Some(peer::tensor_proto::Segment { begin: 3, end: -4, ..Default::default() }).into(),
        float_data: vec![1.5, -0.0, f32::MAX],
        int32_data: vec![i32::MIN, 0, 300],
        string_data: vec![b"\xff\0".to_vec(), Vec::new()],
        int64_data: vec![i64::MIN, 1 << 40],
        name: "tensor".into(),
        raw_data: (0..=255).collect(),
        external_data: vec![peer_entry("location", "w.bin"), peer_entry("offset", "4096")],
        data_location: peer::tensor_proto::DataLocation::EXTERNAL.into(),
        double_data: vec![f64::MIN_POSITIVE],
        uint64_data: vec![u64::MAX],
        ..Default::default()
    }
}

fn peer_sparse() -> peer::SparseTensorProto {
    peer::SparseTensorProto {
        values: Some(peer_tensor()).into(),
        indices: Some(peer_tensor()).into(),
        dims: vec![5, 6],
        ..Default::default()
    }
}

/// An attribute with every field filled.
fn peer_attribute(graph: peer::GraphProto) -> peer::AttributeProto {
    peer::AttributeProto {
        name: "attribute".into(),
        ref_attr_name: "outer".into(),
        type_: peer::attribute_proto::AttributeType::TYPE_PROTOS.into(),
        f: 0.25,
        i: -7,
        s: b"NOTSET".to_vec(),
        t: Some(peer_tensor()).into(),
        g: Some(graph.clone()).into(),
        sparse_tensor: Some(peer_sparse()).into(),
        tp: peer_types().into_iter().next().into(),
        floats: vec![1.0, 2.0],
        ints: vec![-1, 0, 1],
        strings: vec![b"a".to_vec(), b"\xfe".to_vec()],
        tensors: vec![peer_tensor()],
        graphs: vec![graph],
        sparse_tensors: vec![peer_sparse()],
        type_protos: peer_types(),
        ..Default::default()
    }
}

fn peer_value(name: &str, kind: peer::TypeProto) -> peer::ValueInfoProto {
    peer::ValueInfoProto { name: name.into(), type_: Some(kind).into(), ..Default::default() }
}

fn peer_node(attribute: Vec<peer::AttributeProto>) -> peer::NodeProto {
    peer::NodeProto {
        input: vec!["x".into(), String::new(), "w".into()],
        output: vec!["y".into()],
        name: "node".into(),
        op_type: "Conv".into(),
        domain: "ai.onnx".into(),
        overload: "fast".into(),
        attribute,
        metadata_props: vec![peer_entry("scope", "layer1.0")],
        ..Default::default()
    }
}

fn peer_graph(node: Vec<peer::NodeProto>) -> peer::GraphProto {
    peer::GraphProto {
        node,
        name: "graph".into(),
        initializer: vec![peer_tensor()],
        sparse_initializer: vec![peer_sparse()],
        input: peer_types().into_iter().map(|kind| peer_value("x", kind)).collect(),
        output: vec![peer_value("y", peer::TypeProto::default())],
        value_info: vec![peer_value("v", peer::TypeProto::default())],
        metadata_props: vec![peer_entry("a", "b")],
        ..Default::default()
    }
}

fn peer_opset(domain: &str, version: i64) -> peer::OperatorSetIdProto {
    peer::OperatorSetIdProto { domain: domain.into(), version, ..Default::default() }
}

/// A model with every field that [`super`] declares filled.
fn peer_model() -> peer::ModelProto {
    let body = peer_graph(vec![peer_node(Vec::new())]);
    let attribute = peer_attribute(body);
    let function = peer::FunctionProto {
        name: "function".into(),
        input: vec!["a".into(), "b".into()],
        output: vec!["c".into()],
        attribute: vec!["alpha".into()],
        attribute_proto: vec![attribute.clone()],
        node: vec![peer_node(vec![attribute.clone()])],
        opset_import: vec![peer_opset("", 18)],
        domain: "local".into(),
        overload: "fast".into(),
        value_info: vec![peer_value("v", peer::TypeProto::default())],
        metadata_props: vec![peer_entry("k", "v")],
        ..Default::default()
    };
    peer::ModelProto {
        ir_version: 10,
        opset_import: vec![peer_opset("", 21), peer_opset("com.microsoft", 1)],
        producer_name: "pytorch".into(),
        producer_version: "2.9".into(),
        graph: Some(peer_graph(vec![peer_node(vec![attribute]), peer_node(Vec::new())])).into(),
        metadata_props: vec![peer_entry("author", "é")],
        functions: vec![function],
        ..Default::default()
    }
}

/// An independent decoder finds in our encoding what it wrote itself: a field with a wrong number, type or packing
/// would be lost or land among its unknown fields.
#[test]
fn another_decoder_agrees_on_every_field() {
    let model = peer_model();
    let ours = ModelProto::decode(Bytes::from(model.write_to_bytes().unwrap())).unwrap();
    let back = peer::ModelProto::parse_from_bytes(&ours.encode_to_vec()).unwrap();
    assert_eq!(back, model);
}

#[test]
fn fields_have_the_values_that_another_encoder_wrote() {
    let model = ModelProto::decode(Bytes::from(peer_model().write_to_bytes().unwrap())).unwrap();
    assert_eq!((model.ir_version, model.producer_name.as_str()), (10, "pytorch"));
    assert_eq!((model.opset_import[1].domain.as_str(), model.opset_import[1].version), ("com.microsoft", 1));
    let graph = model.graph.unwrap();
    let node = &graph.node[0];
    assert_eq!(node.input, ["x", "", "w"]);
    assert_eq!((node.op_type.as_str(), node.domain.as_str(), node.overload.as_str()), ("Conv", "ai.onnx", "fast"));
    let attribute = &node.attribute[0];
    assert_eq!((attribute.i, attribute.f, attribute.ints.as_slice()), (-7, 0.25, [-1, 0, 1].as_slice()));
    assert_eq!(attribute.r#type(), AttributeType::TypeProtos);
    assert_eq!(attribute.g.as_ref().unwrap().node[0].output, ["y"]);
    let tensor = &graph.initializer[0];
    assert_eq!(tensor.dims, [2, 0, -1, i64::MAX]);
    assert_eq!(tensor.data_location(), DataLocation::External);
    assert_eq!(tensor.raw_data.len(), 256);
    let Some(TypeValue::Tensor(kind)) = graph.input[0].r#type.as_ref().unwrap().value.as_ref() else { panic!() };
    let dims: Vec<_> = kind.shape.as_ref().unwrap().dim.iter().map(|dim| dim.value.clone()).collect();
    let param = DimensionValue::DimParam("batch".into());
    assert_eq!(dims, [Some(DimensionValue::DimValue(0)), Some(param), None, Some(DimensionValue::DimValue(-1))]);
    assert_eq!(model.functions[0].overload, "fast");
    assert_eq!(model.functions[0].attribute_proto[0].ref_attr_name, "outer");
}

/// Codes of enumerations, by name.
#[test]
fn enumerations_have_the_codes_of_the_specification() {
    use peer::attribute_proto::AttributeType as Peer;
    let pairs = [
        (AttributeType::Float, Peer::FLOAT),
        (AttributeType::Int, Peer::INT),
        (AttributeType::String, Peer::STRING),
        (AttributeType::Tensor, Peer::TENSOR),
        (AttributeType::Graph, Peer::GRAPH),
        (AttributeType::Floats, Peer::FLOATS),
        (AttributeType::Ints, Peer::INTS),
        (AttributeType::Strings, Peer::STRINGS),
        (AttributeType::Tensors, Peer::TENSORS),
        (AttributeType::Graphs, Peer::GRAPHS),
        (AttributeType::SparseTensor, Peer::SPARSE_TENSOR),
        (AttributeType::SparseTensors, Peer::SPARSE_TENSORS),
        (AttributeType::TypeProto, Peer::TYPE_PROTO),
        (AttributeType::TypeProtos, Peer::TYPE_PROTOS),
    ];
    for (ours, theirs) in pairs {
        assert_eq!(ours as i32, theirs as i32);
    }
}

#[test]
fn raw_data_is_a_slice_of_the_input() {
    let bytes = Bytes::from(peer_model().write_to_bytes().unwrap());
    let range = bytes.as_ptr_range();
    let graph = ModelProto::decode(bytes.clone()).unwrap().graph.unwrap();
    let inside = |raw: &Bytes| range.contains(&raw.as_ptr());
    assert!(inside(&graph.initializer[0].raw_data));
    // At any depth.
    assert!(inside(&graph.node[0].attribute[0].g.as_ref().unwrap().initializer[0].raw_data));
}

#[test]
fn deep_types_are_refused() {
    let mut kind = TypeProto::default();
    for _ in 0..200 {
        let element = ElementTypeProto { elem_type: Some(Box::new(kind)) };
        kind = TypeProto { value: Some(TypeValue::Sequence(Box::new(element))) };
    }
    let bytes = Bytes::from(kind.encode_to_vec());
    assert!(TypeProto::decode(bytes).unwrap_err().to_string().contains("recursion limit"));
}

fn any_tensor() -> impl Strategy<Value = TensorProto> {
    let fields = (any::<Vec<i64>>(), any::<i32>(), any::<Vec<f32>>(), any::<Vec<i32>>(), any::<Vec<u8>>(), ".*");
    fields.prop_map(|(dims, data_type, float_data, int32_data, raw, name)| TensorProto {
        dims,
        data_type,
        float_data,
        int32_data,
        raw_data: raw.into(),
        name,
        ..Default::default()
    })
}

fn any_node() -> impl Strategy<Value = NodeProto> {
    let attribute = (".*", any::<i64>(), any::<f32>(), any::<Vec<i64>>(), 0..15_i32, any_tensor()).prop_map(
        |(name, i, f, ints, kind, tensor)| AttributeProto {
            name,
            i,
            f,
            ints,
            r#type: kind,
            t: Some(tensor),
            ..Default::default()
        },
    );
    let fields = (any::<Vec<String>>(), any::<Vec<String>>(), ".*", ".*", proptest::collection::vec(attribute, 0..3));
    fields.prop_map(|(input, output, name, op_type, attribute)| NodeProto {
        input,
        output,
        name,
        op_type,
        attribute,
        ..Default::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_written_is_read_by_both(nodes in proptest::collection::vec(any_node(), 0..4)) {
        let model = ModelProto { graph: Some(GraphProto { node: nodes, ..Default::default() }), ..Default::default() };
        let bytes = model.encode_to_vec();
        // NaN equals nothing, so the comparison is of bytes.
        let back = ModelProto::decode(Bytes::from(bytes.clone())).unwrap();
        prop_assert_eq!(back.encode_to_vec(), bytes.clone());
        let theirs = peer::ModelProto::parse_from_bytes(&bytes).unwrap();
        let back = ModelProto::decode(Bytes::from(theirs.write_to_bytes().unwrap())).unwrap();
        prop_assert_eq!(back.encode_to_vec(), bytes);
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = ModelProto::decode(Bytes::from(bytes));
    }
}
