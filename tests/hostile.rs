//! Files that are no model, or a wrong or hostile one: one line that names the file and what is at fault, exit code 1,
//! no panic, bounded memory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use onnx_protobuf as onnx;
use onnx_protobuf::Message as _;
use trt_fuse::import::{ImportOptions, import_file};

#[path = "../src/import/tests/write.rs"]
#[allow(dead_code, reason = "the importer's own tests use the rest")]
mod write;

use write::Value::{Float, Graph, Int, Ints, Text};
use write::{floats, graph, ints, model, node, opset, plain, value};

/// Files in a folder of their own, each with what its error must say.
struct Corpus {
    folder: tempfile::TempDir,
    files: Vec<(PathBuf, &'static str)>,
}

impl Corpus {
    fn bytes(&mut self, name: &str, bytes: impl AsRef<[u8]>, expected: &'static str) {
        let path = self.folder.path().join("models").join(format!("{name}.onnx"));
        fs::write(&path, bytes).unwrap();
        self.files.push((path, expected));
    }

    fn model(&mut self, name: &str, model: &onnx::ModelProto, expected: &'static str) {
        self.bytes(name, model.write_to_bytes().unwrap(), expected);
    }

    /// A model of opset 17 with the input `x`, 2x3 of f32, and the output `y`.
    fn nodes(&mut self, name: &str, nodes: Vec<onnx::NodeProto>, expected: &'static str) {
        self.model(name, &model(17, graph(&["x: 1[2, 3]"], &["y"], nodes)), expected);
    }

    /// A model that adds the weight `w` to `x`.
    fn weight(&mut self, name: &str, weight: onnx::TensorProto, expected: &'static str) {
        let graph = graph(&["x: 1[2, 3]"], &["y"], vec![plain("y = Add(x, w)")]);
        self.model(name, &model(17, onnx::GraphProto { initializer: vec![weight], ..graph }), expected);
    }

    fn external(&mut self, name: &str, entries: &[(&str, &str)], expected: &'static str) {
        let entry = |(key, value): &(&str, &str)| onnx::StringStringEntryProto {
            key: (*key).into(),
            value: (*value).into(),
            ..Default::default()
        };
        let weight = onnx::TensorProto {
            external_data: entries.iter().map(entry).collect(),
            data_location: onnx::tensor_proto::DataLocation::EXTERNAL.into(),
            ..floats("w", &[2, 3], &[])
        };
        self.weight(name, weight, expected);
    }
}

fn function(name: &str, nodes: Vec<onnx::NodeProto>) -> onnx::FunctionProto {
    onnx::FunctionProto {
        name: name.into(),
        domain: "local".into(),
        input: vec!["a".into()],
        output: vec!["c".into()],
        node: nodes,
        opset_import: vec![opset("", 17), opset("local", 1)],
        ..Default::default()
    }
}

fn calling(functions: Vec<onnx::FunctionProto>) -> onnx::ModelProto {
    let mut model = model(17, graph(&["x: 1[2, 3]"], &["y"], vec![plain("y = local::F0(x)")]));
    model.opset_import.push(opset("local", 1));
    onnx::ModelProto { functions, ..model }
}

/// Bytes without a pattern.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..count).map(next).collect()
}

/// A field of protobuf that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

fn corpus() -> Corpus {
    let mut corpus = Corpus { folder: tempfile::tempdir().unwrap(), files: Vec::new() };
    fs::create_dir(corpus.folder.path().join("models")).unwrap();
    no_models(&mut corpus);
    bombs(&mut corpus);
    graphs(&mut corpus);
    weights(&mut corpus);
    external_data(&mut corpus);
    nodes(&mut corpus);
    bodies_and_functions(&mut corpus);
    corpus
}

fn no_models(corpus: &mut Corpus) {
    let sound = model(17, graph(&["x: 1[2, 3]"], &["y"], vec![plain("y = Relu(x)")])).write_to_bytes().unwrap();
    corpus.bytes("empty", b"", "the file is empty");
    corpus.bytes("dummy", b"dummy\n", "not an ONNX model");
    corpus.bytes("noise", noise(10_000), "not an ONNX model");
    corpus.bytes("zip", b"PK\x03\x04\x14\x00\x00\x00\x08\x00", "not an ONNX model");
    corpus.bytes("truncated", &sound[..sound.len() / 2], "not an ONNX model, or truncated");
    corpus.bytes("last_byte_lost", &sound[..sound.len() - 1], "not an ONNX model, or truncated");
    corpus.bytes("lfs_pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull");
    corpus.bytes("length_beyond_the_end", [0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f], "not an ONNX model");
    corpus.bytes("name_not_utf8", field(7, &field(2, b"\xff\xfe")), "not an ONNX model");
    corpus.model("no_graph", &onnx::ModelProto { ir_version: 8, ..Default::default() }, "the model has no graph");
}

fn bombs(corpus: &mut Corpus) {
    // Each empty node is two bytes here and hundreds once decoded.
    corpus.bytes("many_nodes", field(7, &[0x0a, 0x00].repeat(8_000_001)), "records in the file: 8000001 exceeds");
    // Each empty name is two bytes too.
    let names = field(1, &[0x0a, 0x00].repeat(8_000_001));
    corpus.bytes("many_names", field(7, &names), "records in the file: 8000001 exceeds");
    let mut kind = Vec::new();
    for _ in 0..2_000 {
        // A sequence of a sequence of ...
        kind = field(4, &field(1, &kind));
    }
    let input = field(11, &[field(1, b"x"), field(2, &kind)].concat());
    corpus.bytes("deep_type", field(7, &input), "recursion limit");
    let mut bytes = Vec::new();
    for _ in 0..60 {
        // A graph of a node of an attribute of a graph.
        bytes = field(1, &field(5, &field(6, &bytes)));
    }
    corpus.bytes("deep_graph", field(7, &bytes), "depth of subgraphs: 33 exceeds the limit of 32");
    // Functions that call the next one twice: 2^31 nodes.
    let call =
        |at: usize| vec![plain(&format!("b = local::F{}(a)", at + 1)), plain(&format!("c = local::F{}(b)", at + 1))];
    let mut functions: Vec<_> = (0..31).map(|at| function(&format!("F{at}"), call(at))).collect();
    functions.push(function("F31", vec![plain("c = Abs(a)")]));
    corpus.model("function_bomb", &calling(functions), "exceeds the limit of");
    // A name that grows with each call, ten thousand times.
    let long = "n".repeat(4_000);
    let calls: Vec<_> = (0..100)
        .map(|at| onnx::NodeProto {
            name: format!("{long}{at}"),
            ..plain(&if at == 99 { format!("c = local::F1(v{at})") } else { format!("v{} = local::F1(v{at})", at + 1) })
        })
        .collect();
    let calls = [vec![plain("v0 = Abs(a)")], calls].concat();
    let inner: Vec<_> = (0..400)
        .map(|at| plain(&if at == 399 { format!("c = Abs(w{at})") } else { format!("w{} = Abs(w{at})", at + 1) }))
        .collect();
    let inner = [vec![plain("w0 = Abs(a)")], inner].concat();
    let functions = vec![function("F0", calls), function("F1", inner)];
    corpus.model("name_bomb", &calling(functions), "bytes of inlined functions");
}

fn graphs(corpus: &mut Corpus) {
    let relu = || vec![plain("y = Relu(x)")];
    corpus.nodes("cycle", vec![plain("a = Add(x, y)"), plain("y = Relu(a)")], "the graph has a cycle");
    corpus.nodes("own_output", vec![plain("y = Add(x, y)")], "node `y` (Add): it needs its own output");
    corpus.nodes("dangling_input", vec![plain("y = Add(x, w)")], "node `y` (Add): it reads `w`");
    corpus.nodes("dangling_output", vec![plain("z = Relu(x)")], "output `y` is produced by nothing");
    corpus.nodes("value_twice", vec![plain("y = Relu(x)"), plain("y = Abs(x)")], "two values are called `y`");
    corpus.nodes("input_overwritten", vec![plain("x = Relu(x)"), plain("y = Abs(x)")], "two values are called `x`");
    corpus.model(
        "input_twice",
        &model(17, graph(&["x: 1[2]", "x: 1[2]"], &["y"], relu())),
        "two values are called `x`",
    );
    corpus.model("output_twice", &model(17, graph(&["x: 1[2]"], &["y", "y"], relu())), "two values are called `y`");
    corpus.model("no_outputs", &model(17, graph(&["x: 1[2]"], &[], relu())), "the graph has no outputs");
    corpus.model("no_type", &model(17, graph(&["x"], &["y"], relu())), "input `x` has no type");
    corpus.model("undefined_type", &model(17, graph(&["x: 0[2]"], &["y"], relu())), "data type 0 is not supported");
    corpus.model("negative_dim", &model(17, graph(&["x: 1[2, -5]"], &["y"], relu())), "`x`: dimension 1 is -5");
    let huge = "x: 1[9223372036854775807, 9223372036854775807]";
    corpus.model("huge_input", &model(17, graph(&[huge], &["y"], relu())), "tensor `x`: elements");
    corpus.model("old_opset", &model(0, graph(&["x: 1[2]"], &["y"], relu())), "opset 0 is not supported");
    corpus.model("future_opset", &model(999, graph(&["x: 1[2]"], &["y"], relu())), "opset 999 is not supported");
    let none = onnx::ModelProto { opset_import: Vec::new(), ..model(17, graph(&["x: 1[2]"], &["y"], relu())) };
    corpus.model("no_opset", &none, "imports no opset");
    let stated = onnx::GraphProto { value_info: vec![value("y: 6[2, 3]")], ..graph(&["x: 1[2, 3]"], &["y"], relu()) };
    corpus.model("contradiction", &model(17, stated), "tensor `y` is stated as i32[2, 3] but is f32[2, 3]");
    // Every step squares a dimension: n to the 2^60.
    let mut nodes = vec![plain("s = Shape(x)"), plain("v0 = Mul(s, s)")];
    nodes.extend((0..60).map(|at| plain(&format!("v{} = Mul(v{at}, v{at})", at + 1))));
    nodes.push(plain("z = Expand(x, v60)"));
    nodes.push(node("y = Conv(z, z)", vec![]));
    corpus.model("squared_shapes", &model(17, graph(&["x: 1[n]"], &["y"], nodes)), "(Conv)");
}

fn weights(corpus: &mut Corpus) {
    let raw = |dims: &[i64], bytes: usize| onnx::TensorProto { raw_data: vec![0; bytes], ..floats("w", dims, &[]) };
    corpus.weight("short_weight", raw(&[2, 3], 23), "tensor `w` of f32[2, 3] needs 24 bytes, found 23");
    corpus.weight("long_weight", raw(&[2, 3], 28), "tensor `w` of f32[2, 3] needs 24 bytes, found 28");
    corpus.weight("no_data", raw(&[1 << 30], 0), "needs 4294967296 bytes, found 0");
    corpus.weight("overflow", raw(&[1 << 40, 1 << 40], 8), "tensor `w`: elements");
    corpus.weight("wrapped_product", raw(&[1 << 32, 1 << 32], 0), "tensor `w`: elements");
    corpus.weight("negative_weight", raw(&[2, -3], 24), "tensor `w`: dimension 1 is -3");
    corpus.weight("many_dims", raw(&[1; 5000], 4), "tensor `w`: dimensions: 5000 exceeds");
    let untyped = onnx::TensorProto { data_type: 0, ..raw(&[2, 3], 24) };
    corpus.weight("untyped_weight", untyped, "tensor `w`: data type 0");
    let twice = onnx::TensorProto { float_data: vec![0.0; 6], ..raw(&[2, 3], 24) };
    corpus.weight("data_twice", twice, "data both in raw_data and in float_data");
    let wrong = onnx::TensorProto { int32_data: vec![0; 6], ..floats("w", &[2, 3], &[]) };
    corpus.weight("wrong_field", wrong, "f32 data belongs in float_data");
    let range = onnx::TensorProto { data_type: 3, int32_data: vec![300], ..floats("w", &[1], &[]) };
    corpus.weight("value_out_of_range", range, "value 300 at index 0");
    let segment = onnx::TensorProto { segment: Some(Default::default()).into(), ..raw(&[2, 3], 24) };
    corpus.weight("segment", segment, "segmented");
}

fn external_data(corpus: &mut Corpus) {
    let root = corpus.folder.path().to_owned();
    fs::write(root.join("secret"), [0; 24]).unwrap();
    fs::write(root.join("models/small.bin"), [0; 10]).unwrap();
    symlink(root.join("secret"), root.join("models/link.bin")).unwrap();
    symlink(&root, root.join("models/up")).unwrap();
    corpus.external("traversal", &[("location", "../secret")], "must not contain `..`");
    corpus.external("hidden_traversal", &[("location", "a/../../secret")], "must not contain `..`");
    corpus.external("absolute", &[("location", "/etc/passwd")], "must be relative");
    corpus.external("link", &[("location", "link.bin")], "a link leads out of the model's folder");
    corpus.external("linked_folder", &[("location", "up/secret")], "a link leads out of the model's folder");
    corpus.external("missing", &[("location", "none.bin")], "cannot open");
    corpus.external("folder", &[("location", ".")], "not a regular file");
    corpus.external("no_location", &[("offset", "0")], "no location");
    let beyond = [("location", "small.bin"), ("length", "24")];
    corpus.external("beyond", &beyond, "24 bytes at offset 0 of a file of 10 bytes");
    let wrapped = [("location", "small.bin"), ("offset", "18446744073709551610"), ("length", "24")];
    corpus.external("wrapped_offset", &wrapped, "of a file of 10 bytes");
    let text = [("location", "small.bin"), ("offset", "0x10")];
    corpus.external("offset_no_number", &text, "is not a number of bytes");
}

fn nodes(corpus: &mut Corpus) {
    let conv = |attributes| vec![node("y = Conv(x, x)", attributes)];
    corpus.nodes(
        "attribute_type",
        vec![node("y = Flatten(x)", vec![("axis", Text("1"))])],
        "String found, Int expected",
    );
    corpus.nodes(
        "attribute_twice",
        vec![node("y = Elu(x)", vec![("alpha", Float(1.0)), ("alpha", Float(2.0))])],
        "twice",
    );
    corpus.nodes("unknown_attribute", vec![node("y = Relu(x)", vec![("slope", Float(0.1))])], "no such attribute");
    corpus.nodes("attribute_missing", vec![node("y = Concat(x, x)", vec![])], "attribute `axis`: it is missing");
    corpus.nodes("attribute_value", vec![node("y = Cast(x)", vec![("to", Int(1 << 40))])], "data type 1099511627776");
    let axes = vec![node("y = Transpose(x)", vec![("perm", Ints(&[0, 7]))])];
    corpus.nodes("axis_out_of_range", axes, "axis 7 is outside of rank 2");
    corpus.nodes("rank", conv(vec![]), "node `y` (Conv): input 1 has rank 2");
    corpus.nodes("few_inputs", vec![plain("y = Add(x)")], "node `y` (Add): 1 inputs, 2 expected");
    corpus.nodes("many_inputs", vec![plain("y = Relu(x, x, x)")], "node `y` (Relu): 3 inputs, 1 expected");
    corpus.nodes("left_out", vec![plain("y = MatMul(-, x)")], "input 0 is missing");
    corpus.nodes("no_op_type", vec![plain("y = (x)")], "it has no op_type");
    corpus.nodes("no_output", vec![plain("y = Relu(x)"), plain(" = Relu(x)")], "0 outputs, at least 1 expected");
    corpus.nodes("shapes", vec![plain("y = MatMul(x, x)")], "node `y` (MatMul)");
    // Nothing of a name may break the line or reach the terminal.
    let name = "evil\nname\u{1b}[2J\r";
    let node = onnx::NodeProto { name: name.into(), ..plain("y = Add(x, -)") };
    corpus.nodes("newline", vec![node], r"node `evil\nname\u{1b}[2J\r` (Add)");
    let long = onnx::NodeProto { name: "x".repeat(100_000), ..plain("y = Add(x, -)") };
    corpus.nodes("long_name", vec![long], "xxx...xxx");
    let reshape = graph(&["x: 1[2, 3]"], &["y"], vec![plain("y = Reshape(x, shape)")]);
    let reshape = onnx::GraphProto { initializer: vec![ints("shape", &[-1, -1])], ..reshape };
    corpus.model("two_unknown_dims", &model(17, reshape), "node `y` (Reshape)");
    let sized = |size: i64| {
        let crop = graph(&["x: 1[5]"], &["y"], vec![plain("y = CenterCropPad(x, size)")]);
        model(18, onnx::GraphProto { initializer: vec![ints("size", &[size])], ..crop })
    };
    corpus.model("negative_crop", &sized(-3), "node `y` (CenterCropPad): a size of -3");
    corpus.model("huge_crop", &sized(i64::MAX), "node `y` (CenterCropPad): tensor `y`: elements");
}

fn bodies_and_functions(corpus: &mut Corpus) {
    let call = |callee: &str| vec![plain(&format!("c = local::{callee}(a)"))];
    corpus.model("recursion", &calling(vec![function("F0", call("F0"))]), "function `local::F0` calls itself");
    let mutual = vec![function("F0", call("F1")), function("F1", call("F0"))];
    corpus.model("mutual_recursion", &calling(mutual), "function `local::F0` calls itself");
    let twice = vec![function("F0", vec![plain("c = Abs(a)")]), function("F0", vec![plain("c = Abs(a)")])];
    corpus.model("function_twice", &calling(twice), "two functions are called");
    let outside = vec![function("F0", vec![plain("c = Add(a, x)")])];
    corpus.model("function_reads_outside", &calling(outside), "node `c` (Add): it reads `x`");
    let branch = |outputs: &[&str]| Graph(graph(&[], outputs, vec![plain("t = Abs(x)")]));
    let one_branch = vec![("then_branch", branch(&["t"]))];
    corpus.nodes("missing_branch", vec![node("y = If(x)", one_branch)], "attribute `else_branch`: it is missing");
    let uneven = vec![("then_branch", branch(&["t"])), ("else_branch", branch(&["t", "x"]))];
    corpus.nodes("uneven_branches", vec![node("y = If(x)", uneven)], "2 outputs of the body, 1 expected");
    let dangling = || Graph(graph(&[], &["t"], vec![plain("t = Abs(nothing)")]));
    let dangling = vec![("then_branch", dangling()), ("else_branch", dangling())];
    corpus.nodes("dangling_capture", vec![node("y = If(x)", dangling)], "it reads `nothing`");
    let cycle = Graph(graph(&[], &["t"], vec![plain("t = Abs(y)")]));
    let cycle = vec![("then_branch", branch(&["t"])), ("else_branch", cycle)];
    corpus.nodes("cycle_through_a_body", vec![node("y = If(x)", cycle)], "the graph has a cycle");
    let body = vec![("body", Graph(graph(&["i: 7[]"], &["i"], vec![])))];
    corpus.nodes("loop_body", vec![node("y = Loop(-, -, x)", body)], "1 inputs of the body, 3 expected");
}

#[test]
fn every_file_is_refused_in_one_line() {
    let corpus = corpus();
    assert!(corpus.files.len() >= 25);
    for (path, expected) in &corpus.files {
        let error = match import_file(path, &ImportOptions::default()) {
            Ok(_) => panic!("{} was imported", path.display()),
            Err(error) => error.to_string(),
        };
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(error.contains(name), "the file is not named: {error}");
        assert!(error.contains(expected), "{name}: `{expected}` expected in: {error}");
        assert!(!error.contains(char::is_control), "{name}: {error:?}");
    }
}

/// Small models that are sound and ask for constants, layers or rounds without end: each is refused with its node, or
/// taken at a cost that its size allows.
fn greedy() -> Vec<(&'static str, onnx::ModelProto, Option<&'static str>)> {
    let one = |inputs: &[&str], node| model(22, graph(inputs, &["y"], vec![node]));
    let deform = node(
        "y = DeformConv(x, w, o)",
        vec![("strides", Ints(&[1 << 62; 2])), ("dilations", Ints(&[1 << 62; 2])), ("pads", Ints(&[1 << 62; 4]))],
    );
    let align = ["output_height", "output_width", "sampling_ratio"].map(|name| (name, Int(1 << 40))).into();
    let rois = ["x: 1[1, 1, 4, 4]", "rois: 1[1, 4]", "images: 7[1]"];
    let pool = vec![("pooled_shape", Ints(&[10_000_000_000; 2]))];
    let dilated = vec![("kernel_shape", Ints(&[1_000_000])), ("dilations", Ints(&[2]))];
    let mut symmetric = one(
        &["x: 1[1, 1, 65536]"],
        node(
            "y = Resize(x, -, scales)",
            vec![("mode", Text("linear")), ("coordinate_transformation_mode", Text("half_pixel_symmetric"))],
        ),
    );
    symmetric.graph.as_mut().unwrap().initializer.push(floats("scales", &[3], &[1.0, 1.0, 1.5]));
    vec![
        ("deform", one(&["x: 1[1, 1, 4, 4]", "w: 1[1, 1, 3, 3]", "o: 1[1, 18, 4, 4]"], deform), None),
        ("roi_align", one(&rois, node("y = RoiAlign(x, rois, images)", align)), Some("samples along an axis")),
        ("max_roi", one(&["x: 1[1, 1, 4, 4]", "r: 1[1, 5]"], node("y = MaxRoiPool(x, r)", pool)), Some("bins along")),
        ("max_pool", one(&["x: 1[1, 1, 3000000]"], node("y = MaxPool(x)", dilated)), Some("too many elements")),
        ("resize", symmetric, Some("matrices of interpolation are too large")),
        ("trilu", one(&["x: 1[1, 10000000000]"], plain("y = Trilu(x)")), None),
        ("causal", one(&["x: 1[1, 1, 100000, 1]"], node("y = Attention(x, x, x)", vec![("is_causal", Int(1))])), None),
        ("rounds", nested_loops(14), None),
    ]
}

/// Loops of two rounds around each other: 2^depth rounds of the innermost.
fn nested_loops(depth: usize) -> onnx::ModelProto {
    let mut inner = vec![plain("w0 = Exp(v0)"), plain("d0 = Identity(c0)")];
    for at in 0..depth {
        let (inputs, outputs) = ([format!("i{at}: 7[]"), format!("c{at}: 9[]"), format!("v{at}: 1[2]")], ["d", "w"]);
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let outputs = outputs.map(|name| format!("{name}{at}"));
        let body = graph(&inputs, &[outputs[0].as_str(), outputs[1].as_str()], inner);
        let (of, to) = match at + 1 == depth {
            true => ("x".to_string(), "y".to_string()),
            false => (format!("v{}", at + 1), format!("w{}", at + 1)),
        };
        inner = vec![node(&format!("{to} = Loop(two, -, {of})"), vec![("body", Graph(body))])];
        if at + 1 < depth {
            inner.push(plain(&format!("d{next} = Identity(c{next})", next = at + 1)));
        }
    }
    let whole = graph(&["x: 1[2]"], &["y"], inner);
    let two = onnx::TensorProto { dims: Vec::new(), ..ints("two", &[2]) };
    model(22, onnx::GraphProto { initializer: vec![two], ..whole })
}

#[test]
fn small_models_cost_little() {
    let folder = tempfile::tempdir().unwrap();
    for (name, model, expected) in greedy() {
        let path = folder.path().join(format!("{name}.onnx"));
        fs::write(&path, model.write_to_bytes().unwrap()).unwrap();
        // The limits are on memory, and on seconds of the processor.
        let limited = format!("ulimit -v {MEMORY_KIB} && ulimit -t 60 && exec \"$0\" check \"$1\"");
        let program = env!("CARGO_BIN_EXE_trt-fuse");
        let output = Command::new("sh").args(["-c", &limited, program]).arg(&path).output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        match expected {
            None => assert!(output.status.success(), "{name}: {told}{}", String::from_utf8_lossy(&output.stderr)),
            Some(expected) => {
                assert_eq!(output.status.code(), Some(2), "{name}: {}", String::from_utf8_lossy(&output.stderr));
                assert!(told.contains(expected) && told.contains("at `y`"), "{name}: {told}");
            }
        }
    }
}

/// Address space that the program may take; a decoded bomb would take gigabytes.
const MEMORY_KIB: u32 = 512 * 1024;

#[test]
fn the_program_says_so_within_bounded_memory() {
    let corpus = corpus();
    let folder = corpus.folder.path().join("models");
    let others = [(folder.join("absent.onnx"), "cannot read"), (folder, "is not a regular file")];
    for (path, expected) in corpus.files.iter().chain(&others) {
        let (code, lines) = run(path);
        assert_eq!(code, Some(1), "{}: {lines:?}", path.display());
        assert_eq!(lines.len(), 1, "{}: {lines:?}", path.display());
        assert!(lines[0].contains(path.to_str().unwrap()) && lines[0].contains(expected), "{lines:?}");
    }
}

/// Exit code of the program, and what it writes to stderr.
fn run(path: &Path) -> (Option<i32>, Vec<String>) {
    let limited = format!("ulimit -v {MEMORY_KIB} && exec \"$0\" \"$1\"");
    let program = env!("CARGO_BIN_EXE_fuse-report");
    let output = Command::new("sh").args(["-c", &limited, program]).arg(path).output().unwrap();
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), text.lines().map(str::to_owned).collect())
}
