//! Names, functions, bodies, statements, and what is wrong with a graph.

use insta::assert_snapshot;

use super::*;

#[test]
fn names_are_kept_made_and_made_unique() {
    let named = |name: &str, node: onnx::NodeProto| onnx::NodeProto { name: name.into(), ..node };
    let nodes = vec![
        named("n", plain("a = Relu(x)")),
        named("n", plain("b = Relu(a)")),
        // Its first output gives it a name, unless the model has that name.
        plain("c = Relu(b)"),
        named("d", plain("e = Relu(c)")),
        plain("d = Relu(e)"),
    ];
    let imported = import(&model(13, graph(&["x: 1[n, ?]"], &["d", "a"], nodes))).unwrap();
    let graph = imported.graph;
    assert_snapshot!(graph, @r"
    graph g(%x: f32[n, x.1]) -> (%d, %a) {
      %a = relu(%x) : f32[n, x.1]
      %b = relu(%a) : f32[n, x.1]
      %c = relu(%b) : f32[n, x.1]
      %e = relu(%c) : f32[n, x.1]
      %d = relu(%e) : f32[n, x.1]
    }
    ");
    let names: Vec<_> = graph.live().into_iter().map(|id| graph.node_name(id).to_owned()).collect();
    assert_eq!(names, ["x", "n", "n.1", "c", "d", "d.Relu"]);
    let last = graph.outputs()[0].value.node;
    assert_eq!(graph.origins(last).map(|source| source.name.to_string()).collect::<Vec<_>>(), ["d.Relu"]);
}

#[test]
fn nodes_may_come_in_any_order() {
    let nodes = vec![plain("c = Add(a, b)"), plain("b = Neg(a)"), plain("a = Abs(x)")];
    assert_snapshot!(text(&model(13, graph(&["x: 1[2]"], &["c"], nodes))), @r"
    graph g(%x: f32[2]) -> (%c) {
      %a = abs(%x) : f32[2]
      %b = neg(%a) : f32[2]
      %c = add(%a, %b) : f32[2]
    }
    ");
}

#[test]
fn domains_are_respected() {
    let mut other = model(
        13,
        graph(
            &["x: 1[2]"],
            &["z: 1[2]"],
            vec![
                node("y = foo.bar::Relu(x)", vec![("alpha", Float(0.5)), ("axes", Ints(&[1, 2]))]),
                plain("z = ai.onnx::Relu(y)"),
            ],
        ),
    );
    other.opset_import.push(opset("foo.bar", 3));
    assert_snapshot!(text(&other), @r#"
    graph g(%x: f32[2]) -> (%z) {
      %y = opaque(%x) domain=foo.bar op_type=Relu opset=3 reason="no operator of domain `foo.bar` is known" attrs=["alpha=0.5", "axes=[1, 2]"] : unknown[..]
      %z = relu(%y) : f32[2]
    }
    "#);
    let op = import(&other).unwrap().graph;
    let opaque = op.node_ids().find(|id| matches!(op.op(*id), Some(trt_fuse_ir::Op::Opaque(_)))).unwrap();
    assert_eq!(op.op(opaque).unwrap().to_string(), "foo.bar::Relu");
}

#[test]
fn inputs_with_a_default_are_constants() {
    let graph = graph(&["x: 1[2]", "w: 1[2]"], &["y"], vec![plain("y = Mul(x, w)")]);
    let with = |w| onnx::GraphProto { initializer: vec![w], ..graph.clone() };
    assert_snapshot!(text(&model(13, with(floats("w", &[2], &[1.0, 2.0])))), @r"
    graph g(%x: f32[2]) -> (%y) {
      %w = constant() value=f32[2] {1.0, 2.0}
      %y = mul(%x, %w) : f32[2]
    }
    ");
    assert_snapshot!(text(&model(13, with(floats("w", &[3], &[1.0; 3])))), @"tensor `w` is stated as f32[2] but is f32[3]; wrong value_info may be deleted from the model");
}

#[test]
fn weights_are_not_copied() {
    let raw = |name: &str| onnx::TensorProto { raw_data: vec![7; 4000], ..floats(name, &[1000], &[]) };
    let nodes = vec![node("c = Constant()", vec![("value", Tensor(raw("")))]), plain("y = Add(w, c)")];
    let graph = onnx::GraphProto { initializer: vec![raw("w")], ..graph(&[], &["y"], nodes) };
    let bytes = bytes::Bytes::from(model(13, graph).write_to_bytes().unwrap());
    let graph = import_bytes(bytes.clone(), &ImportOptions::default()).unwrap().graph;
    let constants: Vec<_> = graph.node_ids().filter_map(|id| graph.constant(id.into())).collect();
    assert_eq!(constants.len(), 2);
    assert!(constants.iter().all(|tensor| bytes.as_ptr_range().contains(&tensor.bytes().as_ptr())));
}

#[test]
fn external_data_lies_beside_the_model() {
    let entry = |key: &str, value: &str| onnx::StringStringEntryProto {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    };
    let weight = onnx::TensorProto {
        external_data: vec![entry("location", "w.bin"), entry("offset", "4"), entry("length", "8")],
        data_location: onnx::tensor_proto::DataLocation::EXTERNAL.into(),
        ..floats("w", &[2], &[])
    };
    let graph =
        onnx::GraphProto { initializer: vec![weight], ..graph(&["x: 1[2]"], &["y"], vec![plain("y = Add(x, w)")]) };
    let bytes = model(13, graph).write_to_bytes().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    std::fs::write(&path, &bytes).unwrap();
    // 1.0 and 2.0, after a number that is not read.
    std::fs::write(folder.path().join("w.bin"), [9, 9, 9, 9, 0, 0, 128, 63, 0, 0, 0, 64]).unwrap();
    let expected = "%w = constant() value=f32[2] {1.0, 2.0}";
    let from_file = crate::import::import_file(&path, &ImportOptions::default()).unwrap();
    assert!(from_file.graph.to_string().contains(expected));
    let options = ImportOptions { folder: Some(folder.path().to_owned()), ..ImportOptions::default() };
    assert!(import_bytes(bytes.clone(), &options).unwrap().graph.to_string().contains(expected));
    let nowhere = import_bytes(bytes, &ImportOptions::default()).unwrap_err();
    assert_snapshot!(nowhere, @"tensor `w`: external data `w.bin`: a model in memory has no folder: name one in ImportOptions::folder");
}

#[test]
fn constants_of_every_form() {
    let nodes = vec![
        node("a = Constant()", vec![("value", Tensor(floats("", &[2], &[1.0, 2.0])))]),
        node("b = Constant()", vec![("value_float", Float(1.5))]),
        node("c = Constant()", vec![("value_floats", Floats(&[1.5, -2.0]))]),
        node("d = Constant()", vec![("value_int", Int(7))]),
        node("e = Constant()", vec![("value_ints", Ints(&[7, 8]))]),
        node("f = Constant()", vec![("value_string", Text("text"))]),
    ];
    assert_snapshot!(text(&model(13, graph(&[], &["a", "b", "c", "d", "e", "f"], nodes))), @r#"
    graph g() -> (%a, %b, %c, %d, %e, %f) {
      %a = constant() value=f32[2] {1.0, 2.0}
      %b = constant() value=f32[] {1.5}
      %c = constant() value=f32[2] {1.5, -2.0}
      %d = constant() value=i64[] {7}
      %e = constant() value=i64[2] {7, 8}
      %f = opaque() domain="" op_type=Constant opset=13 reason="tensors of strings have no form in a network" attrs=["value_string=\"text\""] : unknown[..]
    }
    "#);
    assert_snapshot!(text(&model(13, graph(&[], &["a"], vec![plain("a = Constant()")]))), @"node `a` (Constant): attribute `value`: it is missing");
}

#[test]
fn statements_fill_gaps_and_must_not_contradict() {
    let stated = |stated: &str| {
        let graph = graph(&["x: 1[batch, 3]"], &["z"], vec![plain("y = foo::Bar(x)"), plain("z = Relu(y)")]);
        text(&model(13, onnx::GraphProto { value_info: vec![value(stated)], ..graph }))
    };
    assert_snapshot!(stated("y: 1[2*batch, ?, 5]"), @r#"
    graph g(%x: f32[batch, 3]) -> (%z) {
      %y = opaque(%x) domain=foo op_type=Bar opset=0 reason="no operator of domain `foo` is known" attrs=[] : f32[2*batch, y.0.1, 5]
      %z = relu(%y) : f32[2*batch, y.0.1, 5]
    }
    "#);
    assert_snapshot!(stated("z: 1[1, 3]"), @r#"
    graph g(%x: f32[batch, 3]) -> (%z) {
      %y = opaque(%x) domain=foo op_type=Bar opset=0 reason="no operator of domain `foo` is known" attrs=[] : unknown[..]
      %z = relu(%y) : f32[1, 3]
    }
    "#);
}

#[test]
fn wrong_shapes_of_tensors_inside_are_dropped_with_a_note() {
    let with = |stated: &[&str]| onnx::GraphProto {
        value_info: stated.iter().map(|stated| value(stated)).collect(),
        ..graph(&["x: 1[batch, 3]"], &["w"], vec![plain("y = Relu(x)"), plain("z = Exp(y)"), plain("w = Neg(z)")])
    };
    let taken = import(&model(13, with(&["y: 1[1, 4]", "z: 1[2]"]))).unwrap();
    assert_snapshot!(taken.graph, @r"
    graph g(%x: f32[batch, 3]) -> (%w) {
      %y = relu(%x) : f32[batch, 3]
      %z = exp(%y) : f32[batch, 3]
      %w = neg(%z) : f32[batch, 3]
    }
    ");
    let [note] = &taken.notes[..] else { panic!("{:?}", taken.notes) };
    assert_snapshot!(note, @"tensor `y` is stated as f32[batch, 4] but is f32[batch, 3], which is taken (and 1 more such)");
    assert!(import(&model(13, with(&["y: 6[batch, 3]"]))).unwrap_err().to_string().contains("is stated as i32"));
}

fn function(name: &str, inputs: &[&str], outputs: &[&str], node: Vec<onnx::NodeProto>) -> onnx::FunctionProto {
    let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    onnx::FunctionProto {
        name: name.into(),
        domain: "local".into(),
        input: strings(inputs),
        output: strings(outputs),
        node,
        opset_import: vec![opset("", 13), opset("local", 1)],
        ..Default::default()
    }
}

/// A model with functions in the domain `local`.
fn calling(graph: onnx::GraphProto, functions: Vec<onnx::FunctionProto>) -> onnx::ModelProto {
    let mut model = model(13, graph);
    model.opset_import.push(opset("local", 1));
    onnx::ModelProto { functions, ..model }
}

#[test]
fn functions_are_inlined() {
    let leaky = node("out = LeakyRelu(t)", vec![("alpha", Call("slope", AttributeType::FLOAT))]);
    let inner = onnx::FunctionProto {
        attribute_proto: vec![attribute("slope", Float(0.1))],
        ..function("Leak", &["in", "extra"], &["out"], vec![plain("t = Neg(in)"), leaky])
    };
    let again = node("d = local::Leak(c)", vec![("slope", Call("s", AttributeType::FLOAT))]);
    let outer = onnx::FunctionProto {
        attribute: vec!["s".into()],
        ..function("Twice", &["a"], &["d", "a"], vec![plain("c = local::Leak(a)"), again])
    };
    let call = onnx::NodeProto { name: "call".into(), ..node("y, z = local::Twice(x)", vec![("s", Float(0.3))]) };
    let model = calling(graph(&["x: 1[2]"], &["y", "z"], vec![call]), vec![inner, outer]);
    assert_snapshot!(text(&model), @r#"
    graph g(%x: f32[2]) -> (%y, %x as "z") {
      %call/c/t = neg(%x) : f32[2]
      %call/c = leaky_relu(%call/c/t) p=[0.1] : f32[2]
      %call/d/t = neg(%call/c) : f32[2]
      %y = leaky_relu(%call/d/t) p=[0.3] : f32[2]
    }
    "#);
    let graph = import(&model).unwrap().graph;
    let names: Vec<_> = graph.sources().iter().map(|source| source.name.to_string()).collect();
    assert_eq!(names, ["call/c/t", "call/c/out", "call/d/t", "call/d/out"]);
}

#[test]
fn overloads_are_told_apart() {
    let overload =
        |name: &str, body| onnx::FunctionProto { overload: name.into(), ..function("F", &["a"], &["b"], body) };
    let call = onnx::NodeProto { overload: "second".into(), ..plain("y = local::F(x)") };
    let functions = vec![overload("first", vec![plain("b = Abs(a)")]), overload("second", vec![plain("b = Exp(a)")])];
    assert_snapshot!(text(&calling(graph(&["x: 1[2]"], &["y"], vec![call]), functions)), @r"
    graph g(%x: f32[2]) -> (%y) {
      %y = exp(%x) : f32[2]
    }
    ");
}

#[test]
fn wrong_functions_are_refused() {
    let call = |functions| text(&calling(graph(&["x: 1[2]"], &["y"], vec![plain("y = local::F(x)")]), functions));
    let recursive = vec![
        function("F", &["a"], &["b"], vec![plain("b = local::G(a)")]),
        function("G", &["a"], &["b"], vec![plain("b = local::F(a)")]),
    ];
    assert_snapshot!(call(recursive), @"node `y` (local::F): node `b` (local::G): node `b` (local::F): function `local::F` calls itself");
    let twice = || function("F", &["a"], &["b"], vec![plain("b = Abs(a)")]);
    assert_snapshot!(call(vec![twice(), twice()]), @"two functions are called `local::F`");
    assert_snapshot!(call(vec![function("F", &[], &["b"], vec![plain("b = Abs(a)")])]), @"node `y` (local::F): 1 inputs, at most 0 expected");
    assert_snapshot!(call(vec![function("F", &["a"], &["c"], vec![plain("b = Abs(a)")])]), @"node `y` (local::F): output `c` is produced by nothing");
    let attributes = vec![("unknown", Int(1))];
    let graph = graph(&["x: 1[2]"], &["y"], vec![node("y = local::F(x)", attributes)]);
    assert_snapshot!(text(&calling(graph, vec![twice()])), @"node `y` (local::F): attribute `unknown`: the function has no such attribute");
}

#[test]
fn functions_that_grow_without_end_are_stopped() {
    // F0 calls F1 twice, and so on: 2^40 nodes of 40 functions.
    let names: Vec<String> = (0..=40).map(|at| format!("F{at}")).collect();
    let mut functions: Vec<_> = names
        .windows(2)
        .map(|pair| {
            let nodes =
                vec![plain(&format!("b = local::{}(a)", pair[1])), plain(&format!("c = local::{}(b)", pair[1]))];
            function(&pair[0], &["a"], &["c"], nodes)
        })
        .collect();
    functions.push(function("F40", &["a"], &["c"], vec![plain("c = Abs(a)")]));
    let model = calling(graph(&["x: 1[2]"], &["y"], vec![plain("y = local::F0(x)")]), functions);
    let error = import(&model).unwrap_err().to_string();
    assert!(error.ends_with("depth of subgraphs and calls: 33 exceeds the limit of 32"), "{error}");
    let deep = ImportOptions {
        limits: Limits { max_depth: 64, max_nodes: 5_000, ..Limits::default() },
        ..ImportOptions::default()
    };
    let error = import_bytes(model.write_to_bytes().unwrap(), &deep).unwrap_err().to_string();
    assert!(error.ends_with("nodes, functions inlined: 5001 exceeds the limit of 5000"), "{error}");
}

#[test]
fn bodies_take_what_they_read() {
    let constant = floats("two", &[], &[2.0]);
    let then_branch = graph(&[], &["t"], vec![plain("t = Mul(a, two)")]);
    // A name that the other body takes from outside may be its own here; an output may come from outside as it is.
    let inner = graph(&[], &["r"], vec![plain("r = Add(b, a)")]);
    let nested = node("e = If(cond)", vec![("then_branch", Graph(inner.clone())), ("else_branch", Graph(inner))]);
    let else_branch = graph(&[], &["e"], vec![nested]);
    let branches = vec![("then_branch", Graph(then_branch)), ("else_branch", Graph(else_branch))];
    let nodes = vec![plain("a = Neg(x)"), plain("b = Abs(x)"), node("y = If(cond)", branches)];
    let graph = graph(&["x: 1[n]", "cond: 9[]"], &["y"], nodes);
    assert_snapshot!(text(&model(13, onnx::GraphProto { initializer: vec![constant], ..graph })), @r#"
    graph g(%x: f32[n], %cond: bool[]) -> (%y) {
      %a = neg(%x) : f32[n]
      %b = abs(%x) : f32[n]
      %y = if(%cond, %a, %cond, %b) then_branch="graph g(%a: f32[n], %cond: bool[], %b: f32[n]) -> (%t) {\n  %two = constant() value=f32[] {2.0}\n  %t = mul(%a, %two) : f32[n]\n}\n" else_branch="graph g(%a: f32[n], %cond: bool[], %b: f32[n]) -> (%e) {\n  %e = if(%cond, %b, %a) then_branch=\"graph g(%b: f32[n], %a: f32[n]) -> (%r) {\\n  %r = add(%b, %a) : f32[n]\\n}\\n\" else_branch=\"graph g(%b: f32[n], %a: f32[n]) -> (%r) {\\n  %r = add(%b, %a) : f32[n]\\n}\\n\" : f32[n]\n}\n" : f32[n]
      %two = constant() value=f32[] {2.0}
    }
    "#);
}

#[test]
fn loops_and_scans() {
    let body = graph(
        &["i: 7[]", "c: 9[]", "s"],
        &["c2", "s2", "o"],
        vec![plain("c2 = Identity(c)"), plain("s2 = Add(s, x)"), plain("o = Neg(s2)")],
    );
    let nodes = vec![node("last, all = Loop(count, -, x)", vec![("body", Graph(body))])];
    let looped = graph(&["x: 1[n, 2]", "count: 7[]"], &["last", "all"], nodes);
    assert_snapshot!(text(&model(13, looped)), @r#"
    graph g(%x: f32[n, 2], %count: i64[]) -> (%last, %all) {
      %last, %all = loop(%count, _, %x, %x) body="graph g(%i: i64[], %c: bool[], %s: f32[n, 2], %x: f32[n, 2]) -> (%c2, %s2, %o) {\n  %c2 = identity(%c) : bool[]\n  %s2 = add(%s, %x) : f32[n, 2]\n  %o = neg(%s2) : f32[n, 2]\n}\n" carried=1 : f32[n, 2], f32[last.trips, n, 2]
    }
    "#);
    // A value that grows from one iteration to the next has no shape inside.
    let body = graph(&["i: 7[]", "c: 9[]", "s"], &["c", "s2"], vec![node("s2 = Concat(s, s)", vec![("axis", Int(0))])]);
    let nodes = vec![node("last = Loop(count, -, x)", vec![("body", Graph(body))])];
    assert_snapshot!(text(&model(13, graph(&["x: 1[n, 2]", "count: 7[]"], &["last"], nodes))), @r#"
    graph g(%x: f32[n, 2], %count: i64[]) -> (%last) {
      %last = loop(%count, _, %x) body="graph g(%i: i64[], %c: bool[], %s: f32[..]) -> (%c, %s2) {\n  %s2 = concat(%s, %s) axis=0 : f32[..]\n}\n" carried=1 : f32[..]
    }
    "#);
    // PaddlePaddle's condition and number of an iteration are vectors of one element.
    let mut nodes = vec![plain("c2 = Less(s, x)"), plain("s2 = Add(s, s)")];
    nodes.insert(0, plain("k = Identity(i)"));
    let body = graph(&["i: 7[1]", "c: 9[1]", "s"], &["c2", "s2"], nodes);
    let nodes = vec![node("last = Loop(count, -, x)", vec![("body", Graph(body))])];
    let taken = import(&model(13, graph(&["x: 1[1]", "count: 7[]"], &["last"], nodes))).unwrap();
    assert_snapshot!(taken.graph, @r#"
    graph g(%x: f32[1], %count: i64[]) -> (%last) {
      %last = loop(%count, _, %x, %x) body="graph g(%i: i64[], %c: bool[], %s: f32[1], %x: f32[1]) -> (%last.c2.scalar as \"c2\", %s2) {\n  %c2 = less(%s, %x) : bool[1]\n  %last.c2.scalar = reshape(%c2) shape=[] : bool[]\n  %s2 = add(%s, %s) : f32[1]\n  %k = identity(%i) : i64[]\n}\n" carried=1 : f32[1]
    }
    "#);
    assert_snapshot!(taken.notes[0], @"tensor `i` is stated as i64[1] but is i64[], which is taken (and 1 more such)");
    let body = graph(&["s", "e"], &["s2", "o"], vec![plain("s2 = Add(s, e)"), plain("o = Neg(e)")]);
    let attributes = vec![("body", Graph(body)), ("num_scan_inputs", Int(1)), ("scan_input_axes", Ints(&[1]))];
    let scanned = graph(&["x: 1[n, 5]", "s: 1[n]"], &["last", "all"], vec![node("last, all = Scan(s, x)", attributes)]);
    assert_snapshot!(text(&model(13, scanned)), @r#"
    graph g(%x: f32[n, 5], %s: f32[n]) -> (%last, %all) {
      %last, %all = scan(%s, %x) body="graph g(%s: f32[n], %e: f32[n]) -> (%s2, %o) {\n  %s2 = add(%s, %e) : f32[n]\n  %o = neg(%e) : f32[n]\n}\n" scan_inputs=1 carried=1 input_axes=[1] output_axes=[0] input_reversed=[0] output_reversed=[0] : f32[n], f32[5, n]
    }
    "#);
}

#[test]
fn the_scan_of_opset_8_is_a_scan_over_the_batch() {
    let body = || graph(&["s: 1[]", "e: 1[]"], &["s", "o"], vec![plain("o = Add(e, x)")]);
    let attributes = || vec![("body", Graph(body())), ("num_scan_inputs", Int(1))];
    let inputs = ["s: 1[1]", "e: 1[1, 5]", "x: 1[]"];
    let nodes = vec![node("last, all = Scan(-, s, e)", attributes())];
    assert_snapshot!(text(&model(8, graph(&inputs, &["last", "all"], nodes))), @r#"
    graph g(%s: f32[1], %e: f32[1, 5], %x: f32[]) -> (%last, %all) {
      %last, %all = scan(%s, %e, %x) body="graph last(%last.item: f32[], %last.item.1: f32[5], %last.captured: f32[]) -> (%last.time as \"last.0\", %last.time.1 as \"last.1\") {\n  %last.time, %last.time.1 = scan(%last.item, %last.item.1, %last.captured) body=\"graph g(%s: f32[], %e: f32[], %x: f32[]) -> (%s, %o) {\\n  %o = add(%e, %x) : f32[]\\n}\\n\" scan_inputs=1 carried=1 input_axes=[0] output_axes=[0] input_reversed=[0] output_reversed=[0] : f32[], f32[5]\n}\n" scan_inputs=2 carried=0 input_axes=[0, 0] output_axes=[0, 0] input_reversed=[0, 0] output_reversed=[0, 0] : f32[1], f32[1, 5]
    }
    "#);
    let nodes = vec![node("last, all = Scan(n, s, e)", attributes())];
    let lengths = [&inputs[..], &["n: 7[1]"]].concat();
    let text = text(&model(8, graph(&lengths, &["last", "all"], nodes)));
    assert!(text.contains("opaque") && text.contains("it has sequence lengths, a form of opset 8"), "{text}");
}

/// What is taken is known from the shape: the other branch is not even looked at.
#[test]
fn a_branch_that_shapes_choose_is_imported_alone() {
    let then_branch = graph(&[], &["t"], vec![plain("u = Relu(x)"), plain("t = Exp(u)")]);
    let else_branch = graph(&[], &["e"], vec![plain("e = NoSuchOperator(x)")]);
    let branches = vec![("then_branch", Graph(then_branch)), ("else_branch", Graph(else_branch))];
    let nodes = vec![
        plain("shape = Shape(x)"),
        plain("rank = Size(shape)"),
        plain("same = Equal(rank, rank)"),
        node("y = If(same)", branches),
        plain("z = Neg(y)"),
    ];
    assert_snapshot!(text(&model(13, graph(&["x: 1[n, 3]"], &["z"], nodes))), @r"
    graph g(%x: f32[n, 3]) -> (%z) {
      %u = relu(%x) : f32[n, 3]
      %y = exp(%u) : f32[n, 3]
      %z = neg(%y) : f32[n, 3]
      %shape = shape(%x) start=0 : i64[2]
      %rank = size(%shape) : i64[]
      %same = equal(%rank, %rank) : bool[]
    }
    ");
}

#[test]
fn a_dimension_may_be_given_a_size() {
    let nodes = vec![plain("y = Relu(x)")];
    let bytes = model(13, graph(&["x: 1[n, m, n]"], &["y"], nodes)).write_to_bytes().unwrap();
    let sized = |name: &str| {
        let sizes = [(name.to_owned(), 4)].into();
        import_bytes(bytes.clone(), &ImportOptions { sizes, ..ImportOptions::default() })
    };
    let graph = sized("n").unwrap().graph;
    assert_eq!(graph.info(graph.outputs()[0].value).unwrap().to_string(), "f32[4, m, 4]");
    assert_snapshot!(sized("k").unwrap_err().to_string(), @r"no input has a dimension `k`; there are: m, n");
}

/// The model's graph with `values` of inputs fixed, or why it has none.
fn fixed(model: &onnx::ModelProto, values: &[(&str, InputValues)]) -> String {
    let values = values.iter().map(|(name, values)| ((*name).to_owned(), values.clone())).collect();
    let options = ImportOptions { values, ..ImportOptions::default() };
    match import_bytes(model.write_to_bytes().unwrap(), &options) {
        Ok(model) => model.graph.to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn values_of_inputs_may_be_fixed() {
    use InputValues::{All, Each};
    let cast = node("c = Cast(mask)", vec![("to", Int(1))]);
    let nodes = vec![plain("s = ReduceSum(x, axes)"), cast, plain("y = Mul(s, c)")];
    let graph = graph(&["x: 1[n, 4]", "axes: 7[1]", "mask: 9[n, 1]", "k: 7[1]"], &["y"], nodes);
    let model = model(13, onnx::GraphProto { initializer: vec![ints("k", &[1])], ..graph });
    assert_snapshot!(fixed(&model, &[("axes", Each(vec![-1])), ("mask", All(1))]), @r"
    graph g(%x: f32[n, 4], %axes: i64[1], %mask: bool[n, 1]) -> (%y) {
      %s = reduce(%x) kind=sum axes=[-1] keep_dims=true : f32[n, 1]
      %mask.element = constant() value=bool[] {1}
      %mask.known = expand(%mask.element) shape=[n, 1] : bool[n, 1]
      %c = cast(%mask.known) to=f32 saturate=true : f32[n, 1]
      %y = mul(%s, %c) : f32[n, 1]
      %k = constant() value=i64[1] {1}
      %axes.known = constant() value=i64[1] {-1}
    }
    ");
    // Fewer than there are decide nothing.
    let few = ImportOptions { values: [("axes".to_owned(), Each(vec![]))].into(), ..ImportOptions::default() };
    let few = import_bytes(model.write_to_bytes().unwrap(), &few).unwrap();
    assert!(few.graph.to_string().contains("reduce(%x, %axes)") && few.graph.fixed_inputs().is_empty());
    assert_snapshot!(few.notes[0], @"input `axes` is not fixed: it has more than the 0 elements that were told");
    let refusals = [
        ("axes", Each(vec![0, 1])),
        ("x", All(1)),
        ("k", All(2)),
        ("mask", All(2)),
        ("mask", Each(vec![1])),
        ("flag", All(1)),
    ];
    let refusals = refusals.map(|refused| fixed(&model, &[refused]));
    assert_snapshot!(refusals.join("\n"), @r"
    the values of input `axes` cannot be fixed: 2 elements are told, it has 1
    the values of input `x` cannot be fixed: it is f32, not of integers or booleans
    the values of input `k` cannot be fixed: the model has a value for it, which is taken: it is no input of a network
    the values of input `mask` cannot be fixed: bool holds no such numbers
    the values of input `mask` cannot be fixed: the number of its elements is not known
    there is no input `flag`; there are: x, axes, mask
    ");
}

#[test]
fn a_loop_may_carry_nothing() {
    let body = graph(&["i: 7[]", "c: 9[]"], &["c", "i"], vec![]);
    let nodes = vec![node("all = Loop(count, -)", vec![("body", Graph(body))])];
    assert_snapshot!(text(&model(13, graph(&["count: 7[]"], &["all"], nodes))), @r#"
    graph g(%count: i64[]) -> (%all) {
      %all = loop(%count, _) body="graph g(%i: i64[], %c: bool[]) -> (%c, %i) {\n}\n" carried=0 : i64[all.trips]
    }
    "#);
}

#[test]
fn a_branch_never_taken_need_not_fit() {
    let then_branch = graph(&[], &["t"], vec![node("t = Squeeze(x, axes)", vec![])]);
    let else_branch = graph(&[], &["e"], vec![plain("e = Identity(x)")]);
    let branches = vec![("then_branch", Graph(then_branch)), ("else_branch", Graph(else_branch))];
    let graph = graph(&["x: 1[2, 3]", "cond: 9[]"], &["y"], vec![node("y = If(cond)", branches)]);
    assert_snapshot!(text(&model(13, onnx::GraphProto { initializer: vec![ints("axes", &[1])], ..graph })), @r#"
    graph g(%x: f32[2, 3], %cond: bool[]) -> (%y) {
      %y = if(%cond, %x) then_branch="graph g(%x: f32[..]) -> (%t) {\n  %t = squeeze(%x) axes=[1] : f32[..]\n  %axes = constant() value=i64[1] {1}\n}\n" else_branch="graph g(%x: f32[2, 3]) -> (%e) {\n  %e = identity(%x) : f32[2, 3]\n}\n" : f32[..]
      %axes = constant() value=i64[1] {1}
    }
    "#);
}

#[test]
fn what_is_wrong_names_the_node() {
    let wrong = |nodes: Vec<onnx::NodeProto>| text(&model(13, graph(&["x: 1[2, 3]"], &["y"], nodes)));
    assert_snapshot!(wrong(vec![plain("y = Relu(x, x)")]), @"node `y` (Relu): 2 inputs, 1 expected");
    assert_snapshot!(wrong(vec![plain("y = Add(x, -)")]), @"node `y` (Add): input 1 is missing");
    assert_snapshot!(wrong(vec![plain("y, z = Relu(x)")]), @"node `y` (Relu): 2 outputs, at most 1 expected");
    assert_snapshot!(wrong(vec![node("y = Relu(x)", vec![("alpha", Float(1.0))])]), @"node `y` (Relu): attribute `alpha`: the operator has no such attribute in this opset");
    assert_snapshot!(wrong(vec![node("y = Transpose(x)", vec![("perm", Ints(&[0, 0]))])]), @"node `y` (Transpose): axis 0 is named twice");
    assert_snapshot!(wrong(vec![plain("y = Add(x, q)")]), @"node `y` (Add): it reads `q`, which nothing produces");
    assert_snapshot!(wrong(vec![plain("z = Abs(x)")]), @"output `y` is produced by nothing");
    assert_snapshot!(wrong(vec![node("y = Cast(x)", vec![("to", Int(99))])]), @"node `y` (Cast): attribute `to`: data type 99 is not supported");
    assert_snapshot!(wrong(vec![plain("y = (x)")]), @"node `y` (): it has no op_type");
}

#[test]
fn versions_out_of_range_are_refused() {
    let with = |version| text(&model(version, graph(&["x: 1[2]"], &["y"], vec![plain("y = Abs(x)")])));
    assert_snapshot!(with(0), @"opset 0 is not supported, 1 to 28 are; onnx.version_converter.convert_version converts it");
    assert_snapshot!(with(29), @"opset 29 is not supported, 1 to 28 are; onnx.version_converter.convert_version converts it");
    assert!(with(7).starts_with("graph") && with(28).starts_with("graph"));
    let mut none = model(13, graph(&["x: 1[2]"], &["y"], vec![plain("y = Abs(x)")]));
    none.opset_import.clear();
    assert_snapshot!(text(&none), @"node `y` (Abs): the model imports no opset of ONNX's own domain");
}

/// onnxruntime warns of it and takes the shape that it infers.
#[test]
fn a_wrong_shape_of_an_output_is_dropped_with_a_note() {
    let declared = |output: &str| import(&model(13, graph(&["x: 1[batch, 3]"], &[output], vec![plain("y = Relu(x)")])));
    for output in ["y: 1[1, 4]", "y: 1[batch, 3, 1]"] {
        let model = declared(output).unwrap();
        assert_eq!(model.graph.info(model.graph.outputs()[0].value).unwrap().to_string(), "f32[batch, 3]");
        let [crate::import::ImportNote::OutputShape { inferred, .. }] = &model.notes[..] else { panic!() };
        assert_eq!(inferred, "f32[batch, 3]");
    }
    assert_eq!(declared("y: 1[batch, 3]").unwrap().notes, []);
    assert!(declared("y: 6[batch, 3]").unwrap_err().to_string().contains("is stated as i32[batch, 3]"));
}

/// The window's size is an input, and the model says how long it is.
#[test]
fn stated_shapes_that_stand_for_data_are_noted() {
    let with = |output: &str| {
        let nodes = vec![plain("w = HannWindow(size)"), plain("y = Relu(w)")];
        let graph = graph(&["size: 7[]"], &["y"], nodes);
        import(&model(17, onnx::GraphProto { value_info: vec![value(output)], ..graph })).unwrap()
    };
    let notes: Vec<String> = with("w: 1[8]").notes.into_iter().map(|note| note.to_string()).collect();
    assert_snapshot!(notes.join("\n"), @"node `w` (HannWindow): an input decides the shape of `w` at run time; the engine takes [8], as the model states, whatever that input says");
    assert_eq!(with("w: 1[n]").notes, []);
}
