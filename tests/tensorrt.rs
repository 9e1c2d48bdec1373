//! Small networks through the real library. Without one, each test prints why and passes: `make tensorrt` gets one.

mod common;

use std::borrow::Cow;

use bytes::Bytes;
use common::rtx_library;
use onnx_protobuf::{
    AttributeProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};
use trt_fuse::emit::layers::{Activation, Convolution, Input, Operand, Reduce};
use trt_fuse::emit::sink::{Label, LayerCounts, NetworkSink, Weights};
use trt_fuse::emit::terms::{ActivationKind, ElementwiseKind, MatrixOp, ReduceKind};
use trt_fuse::tensorrt::{
    BuilderConfig, ComputeCapability, EngineError, InputRange, Library, Plan, PlanHeader, Profile, RangeKind, Search,
    TrtNetwork, TrtTensor, parse_onnx,
};
use trt_fuse_ir::{DType, Tensor};

/// For one GPU that need not be there.
fn config() -> BuilderConfig {
    BuilderConfig {
        compute_capabilities: vec![ComputeCapability { major: 8, minor: 6 }],
        detailed: true,
        ..BuilderConfig::default()
    }
}

fn input(network: &mut TrtNetwork<'_>, dims: &[i64]) -> TrtTensor {
    network.input(&Input { name: "x", dtype: DType::F32, dims, symbols: &[] }).unwrap()
}

/// Values that differ, and hide no swapped axes.
fn ramp(dims: &[usize]) -> Tensor {
    let count: usize = dims.iter().product();
    Tensor::from_vec(dims, (0..count).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect()).unwrap()
}

/// 8 channels to 16 by a 3x3 kernel, and a bias.
fn convolution<'w>(kernel: Weights<'w>, bias: Weights<'w>) -> Convolution<'static, 'w, TrtTensor> {
    Convolution {
        maps: 16,
        kernel_size: &[3, 3],
        stride: &[2, 2],
        pre_padding: &[1, 1],
        post_padding: &[1, 1],
        dilation: &[1, 1],
        groups: 1,
        kernel: Operand::Weights(kernel),
        bias: Some(Operand::Weights(bias)),
    }
}

/// `relu(conv(x))` over `[batch, 8, 16, 16]`.
fn conv_relu<'w>(library: &Library, batch: i64, kernel: Weights<'w>, bias: Weights<'w>) -> TrtNetwork<'w> {
    let mut network = TrtNetwork::new(library).unwrap();
    let x = input(&mut network, &[batch, 8, 16, 16]);
    let label = Label { name: "conv1", metadata: "stem/Conv\u{1f}stem/BatchNormalization" };
    let y = network.convolution(label, x, convolution(kernel, bias)).unwrap();
    assert_eq!(network.dims(y).unwrap(), [batch, 16, 8, 8]);
    assert_eq!(network.dtype(y), Some(DType::F32));
    let relu = Activation { kind: ActivationKind::Relu, alpha: 0.0, beta: 0.0 };
    let y = network.activation(Label { name: "relu1", metadata: "stem/Relu" }, y, &relu).unwrap();
    network.mark_output(y, "y", DType::F32).unwrap();
    network
}

#[test]
fn a_convolution_becomes_one_engine_layer_that_knows_its_nodes() {
    let Some(library) = rtx_library() else { return };
    let (kernel, bias) = (ramp(&[16, 8, 3, 3]), ramp(&[16]));
    let network = conv_relu(&library, 1, Cow::Borrowed(&kernel), Cow::Borrowed(&bias));
    assert_eq!(network.layer_counts(), LayerCounts { all: 2, without_constants: 2 });
    let plan = network.build(&config(), None).unwrap();
    let with_origins: Vec<_> = plan.layers().iter().filter(|layer| !layer.origins.is_empty()).collect();
    assert_eq!(with_origins.len(), 1, "{:?}", plan.layers());
    let mut origins = with_origins[0].origins.clone();
    origins.sort();
    assert_eq!(origins, ["stem/BatchNormalization", "stem/Conv", "stem/Relu"]);
    assert_eq!(plan.layers().last().unwrap().outputs, ["y"]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.plan");
    plan.save(&path).unwrap();
    let file = std::fs::read(&path).unwrap();
    assert_eq!(PlanHeader::read(&file), Ok((plan.header().clone(), plan.bytes())));
    plan.save_bare(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), plan.bytes());
    assert_eq!(folder.path().read_dir().unwrap().count(), 1, "the temporary file stayed");
    let missing = plan.save(&folder.path().join("missing/model.plan")).unwrap_err();
    assert!(matches!(missing, EngineError::Save { .. }), "{missing}");
}

/// The same bytes, `offset` bytes off an address divisible by 16.
fn misaligned(tensor: &Tensor, offset: usize) -> Tensor {
    let mut bytes = vec![0_u8; tensor.byte_len() + 32];
    let start = bytes.as_ptr().align_offset(16) + offset;
    bytes[start..start + tensor.byte_len()].copy_from_slice(tensor.bytes());
    let data = Bytes::from(bytes).slice(start..start + tensor.byte_len());
    assert_eq!(data.as_ptr() as usize % 16, offset);
    Tensor::new(tensor.dtype(), tensor.dims(), data).unwrap()
}

#[test]
fn weights_need_no_alignment() {
    let Some(library) = rtx_library() else { return };
    let (kernel, bias) = (ramp(&[16, 8, 3, 3]), ramp(&[16]));
    let plan_at = |offset| {
        let (kernel, bias) = (misaligned(&kernel, offset), misaligned(&bias, offset));
        conv_relu(&library, 1, Cow::Borrowed(&kernel), Cow::Borrowed(&bias)).build(&config(), None).unwrap()
    };
    let aligned = plan_at(0);
    for offset in [1, 2, 3, 4, 7] {
        assert!(plan_at(offset).bytes() == aligned.bytes(), "another plan from weights {offset} bytes off");
    }
    // What the comparison rests on: other weights make another plan.
    let other = ramp(&[17]).view::<f32>().map(|values| Tensor::from_vec([16], values[1..].to_vec()).unwrap()).unwrap();
    let other = conv_relu(&library, 1, Cow::Borrowed(&kernel), Cow::Borrowed(&other)).build(&config(), None).unwrap();
    assert!(other.bytes() != aligned.bytes());
}

#[test]
fn a_splat_and_owned_weights_make_the_plan_of_their_borrowed_twins() {
    let Some(library) = rtx_library() else { return };
    let kernel = ramp(&[16, 8, 3, 3]);
    let dense = Tensor::from_vec([16], vec![0.25_f32; 16]).unwrap();
    let splat = Tensor::full([16], 0.25_f32).unwrap();
    let borrowed = conv_relu(&library, 1, Cow::Borrowed(&kernel), Cow::Borrowed(&dense));
    let kept = conv_relu(&library, 1, Cow::Owned(kernel.clone()), Cow::Owned(splat));
    let borrowed = borrowed.build(&config(), None).unwrap();
    assert!(kept.build(&config(), None).unwrap().bytes() == borrowed.bytes());
}

fn batch_profile(batches: [i64; 3]) -> Profile {
    let [min, opt, max] = batches.map(|batch| vec![batch, 8, 16, 16]);
    Profile { ranges: vec![InputRange { input: "x".to_owned(), kind: RangeKind::Extents, min, opt, max }] }
}

#[test]
fn a_dynamic_batch_builds_with_a_profile_only() {
    let Some(library) = rtx_library() else { return };
    let (kernel, bias) = (ramp(&[16, 8, 3, 3]), ramp(&[16]));
    let build = |profiles| {
        let network = conv_relu(&library, -1, Cow::Borrowed(&kernel), Cow::Borrowed(&bias));
        network.build(&BuilderConfig { profiles, ..config() }, None)
    };
    assert!(!build(vec![batch_profile([1, 8, 32])]).unwrap().bytes().is_empty());

    let without = build(Vec::new()).unwrap_err().to_string();
    assert!(without.contains("optimization profile"), "{without}");
    let reversed = build(vec![batch_profile([32, 8, 1])]).unwrap_err();
    assert!(matches!(reversed, EngineError::Range { .. } | EngineError::Build { .. }), "{reversed}");
}

#[test]
fn matrices_of_equal_rank_are_multiplied() {
    let Some(library) = rtx_library() else { return };
    let weights = ramp(&[1, 5, 4]);
    let mut network = TrtNetwork::new(&library).unwrap();
    let x = input(&mut network, &[2, 3, 4]);
    let w = network.constant(Label::new("w"), Cow::Borrowed(&weights)).unwrap();
    let y = network.matrix_multiply(Label::new("mm"), (x, MatrixOp::None), (w, MatrixOp::Transpose)).unwrap();
    assert_eq!(network.dims(y).unwrap(), [2, 3, 5]);
    let mean = Reduce { kind: ReduceKind::Avg, axes: &[1, 2], keep_dims: false };
    let y = network.reduce(Label::new("mean"), y, &mean).unwrap();
    assert_eq!(network.dims(y).unwrap(), [2]);
    assert_eq!(network.layer_counts(), LayerCounts { all: 3, without_constants: 2 });
    network.mark_output(y, "y", DType::F32).unwrap();
    network.build(&config(), None).unwrap();
}

#[test]
fn a_refused_layer_is_named_with_what_tensorrt_says() {
    let Some(library) = rtx_library() else { return };
    let weights = ramp(&[1, 7, 5]);
    let mut network = TrtNetwork::new(&library).unwrap();
    let x = input(&mut network, &[2, 3, 4]);
    let w = network.constant(Label::new("w"), Cow::Borrowed(&weights)).unwrap();
    let label = Label::new("layer4/MatMul");
    let why = network.matrix_multiply(label, (x, MatrixOp::None), (w, MatrixOp::None)).unwrap_err().to_string();
    // 4 columns against 7 rows.
    assert!(why.contains("layer4/MatMul") && why.contains('4') && why.contains('7'), "{why}");

    let why = network.unary(Label::new("not"), x, trt_fuse::emit::terms::UnaryKind::Not);
    let why = why.map(|_| ()).unwrap_err().to_string();
    assert!(why.contains("'not'"), "{why}");
    let why = network.elementwise(Label::new("sum"), x, w, ElementwiseKind::Sum).unwrap_err().to_string();
    assert!(why.contains("'sum'") && why.contains("dimension"), "{why}");
}

#[test]
fn an_output_of_another_type_is_refused() {
    let Some(library) = rtx_library() else { return };
    let mut network = TrtNetwork::new(&library).unwrap();
    let x = input(&mut network, &[2]);
    let y = network.cast(Label::new("half"), x, DType::F16).unwrap();
    let why = network.mark_output(y, "y", DType::F32).unwrap_err().to_string();
    assert!(why.contains("'y'") && why.contains("type"), "{why}");
    assert!(network.cast(Label::new("double"), x, DType::F64).unwrap_err().to_string().contains("f64"));
}

#[test]
fn progress_is_told_and_can_stop_a_build() {
    let Some(library) = rtx_library() else { return };
    let (kernel, bias) = (ramp(&[16, 8, 3, 3]), ramp(&[16]));
    let network = || conv_relu(&library, 1, Cow::Borrowed(&kernel), Cow::Borrowed(&bias));
    let mut steps = Vec::new();
    let mut note = |phase: &str, step: i32, of: i32| {
        steps.push((phase.to_owned(), step, of));
        true
    };
    network().build(&config(), Some(&mut note)).unwrap();
    assert!(steps.iter().any(|(phase, step, of)| !phase.is_empty() && (0..*of).contains(step)), "{steps:?}");

    let stopped = network().build(&config(), Some(&mut |_, _, _| false)).unwrap_err();
    assert!(matches!(stopped, EngineError::Stopped), "{stopped}");
    let panicked = network().build(&config(), Some(&mut |_, _, _| panic!("in a callback"))).unwrap_err();
    assert!(matches!(panicked, EngineError::Stopped), "{panicked}");
}

#[test]
fn plans_are_the_same_every_time_and_with_detail() {
    let Some(library) = rtx_library() else { return };
    let (kernel, bias) = (ramp(&[16, 8, 3, 3]), ramp(&[16]));
    let plan = |detailed| -> Plan {
        let network = conv_relu(&library, 1, Cow::Borrowed(&kernel), Cow::Borrowed(&bias));
        network.build(&BuilderConfig { detailed, ..config() }, None).unwrap()
    };
    let plain = plan(false);
    assert!(plain.layers().is_empty());
    assert!(plan(false).bytes() == plain.bytes());
}
#[test]
fn builds_for_several_targets_at_once_do_not_mix() {
    let Some(library) = rtx_library() else { return };
    let (kernel, bias) = (ramp(&[16, 8, 3, 3]), ramp(&[16]));
    let plan = |library: &Library, minor| {
        let compute_capabilities = vec![ComputeCapability { major: 8, minor }];
        let network = conv_relu(library, 1, Cow::Borrowed(&kernel), Cow::Borrowed(&bias));
        network.build(&BuilderConfig { compute_capabilities, ..config() }, None).unwrap().bytes().to_vec()
    };
    let alone = [6, 9].map(|minor| plan(&library, minor));
    assert!(alone[0] != alone[1]);
    std::thread::scope(|scope| {
        for (minor, alone) in [6, 9].into_iter().zip(&alone) {
            scope.spawn(move || {
                let library = Search::usual(None).open().unwrap();
                for _ in 0..3 {
                    assert!(
                        plan(&library, minor) == *alone,
                        "another plan for 8.{minor} beside a build for another GPU"
                    );
                }
            });
        }
    });
}

#[test]
fn a_gpu_that_is_not_supported_is_refused() {
    let Some(library) = rtx_library() else { return };
    let (kernel, bias) = (ramp(&[16, 8, 3, 3]), ramp(&[16]));
    let network = conv_relu(&library, 1, Cow::Borrowed(&kernel), Cow::Borrowed(&bias));
    let compute_capabilities = vec![ComputeCapability { major: 7, minor: 0 }];
    let why = network.build(&BuilderConfig { compute_capabilities, ..config() }, None).unwrap_err().to_string();
    assert!(why.contains("setComputeCapability(70)"), "{why}");
}

/// The model of `conv_relu`, as an ONNX file.
fn onnx_conv_relu(kernel: &Tensor, bias: &Tensor) -> ModelProto {
    let initializer = |name: &str, tensor: &Tensor| TensorProto {
        name: name.to_owned(),
        data_type: 1,
        dims: tensor.dims().iter().map(|extent| *extent as i64).collect(),
        raw_data: tensor.bytes().to_vec(),
        ..TensorProto::default()
    };
    let value = |name: &str, dims: [i64; 4]| {
        let mut value = ValueInfoProto { name: name.to_owned(), ..ValueInfoProto::default() };
        let tensor = value.type_.mut_or_insert_default().mut_tensor_type();
        tensor.elem_type = 1;
        for extent in dims {
            let mut dim = onnx_protobuf::tensor_shape_proto::Dimension::default();
            dim.set_dim_value(extent);
            tensor.shape.mut_or_insert_default().dim.push(dim);
        }
        value
    };
    let node = |op: &str, inputs: &[&str], output: &str| NodeProto {
        op_type: op.to_owned(),
        name: op.to_lowercase(),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    };
    let ints = |name: &str, ints: &[i64]| AttributeProto {
        name: name.to_owned(),
        type_: onnx_protobuf::attribute_proto::AttributeType::INTS.into(),
        ints: ints.to_vec(),
        ..AttributeProto::default()
    };
    let mut conv = node("Conv", &["x", "kernel", "bias"], "c");
    conv.attribute = vec![ints("strides", &[2, 2]), ints("pads", &[1, 1, 1, 1])];
    let graph = GraphProto {
        name: "g".to_owned(),
        node: vec![conv, node("Relu", &["c"], "y")],
        input: vec![value("x", [1, 8, 16, 16])],
        output: vec![value("y", [1, 16, 8, 8])],
        initializer: vec![initializer("kernel", kernel), initializer("bias", bias)],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { version: 17, ..OperatorSetIdProto::default() };
    ModelProto { ir_version: 8, graph: Some(graph).into(), opset_import: vec![opset], ..ModelProto::default() }
}

#[test]
fn nvidias_parser_makes_the_same_engine_layers() {
    let Some(library) = rtx_library() else { return };
    let (kernel, bias) = (ramp(&[16, 8, 3, 3]), ramp(&[16]));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, onnx_conv_relu(&kernel, &bias).write_to_bytes().unwrap()).unwrap();
    let parsed = parse_onnx(&library, &path).unwrap();
    assert_eq!(parsed.layer_counts(), LayerCounts { all: 2, without_constants: 2 });
    let theirs = parsed.build(&config(), None).unwrap();
    let ours = conv_relu(&library, 1, Cow::Borrowed(&kernel), Cow::Borrowed(&bias)).build(&config(), None).unwrap();
    let types = |plan: &Plan| plan.layers().iter().map(|layer| layer.layer_type.clone()).collect::<Vec<_>>();
    assert_eq!(types(&ours), types(&theirs));
    assert!(theirs.layers().iter().any(|layer| layer.origins == ["conv", "relu"]), "{:?}", theirs.layers());

    std::fs::write(&path, "not a model").unwrap();
    let why = parse_onnx(&library, &path).unwrap_err();
    assert!(matches!(why, EngineError::Parser { .. }), "{why}");
}
