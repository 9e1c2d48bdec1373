use std::sync::Arc;

use super::*;
use crate::op::{Activation, Body, Constant, Conv, If, Opaque, Padding, Pool, PoolKind, Slice, TopK};
use crate::{Epilogue, Step, verify};

/// Printed, parsed and printed again, the text is the same, and the graph is sound.
#[track_caller]
fn check(graph: &Graph) {
    verify(graph).unwrap();
    let text = graph.to_string();
    let again: Graph = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
    verify(&again).unwrap();
    assert_eq!(again.to_string(), text);
}

fn ints(values: &[i64]) -> crate::Ints {
    values.iter().copied().collect()
}

#[test]
fn a_graph_of_many_operators_is_printed_and_parsed_back() {
    let mut builder = Builder::new("all kinds");
    let x = builder.input("x", ValueInfo::new(DType::F32, ["batch", "c", "`h 1`"].map(|dim| dim.trim_matches('`'))));
    let x4 = builder.input("image", ValueInfo::new(DType::F32, [1_usize, 4, 9, 9]));
    let open = builder.input("open", ValueInfo::unshaped(DType::F16));
    let weight = builder.constant("w", Tensor::full([8, 2, 3, 3], 0.1_f32).unwrap()).unwrap();
    let residual = builder.constant("r", Tensor::full([1, 8, 4, 4], f32::NEG_INFINITY).unwrap()).unwrap();
    let conv = Conv {
        strides: ints(&[2, 2]),
        dilations: ints(&[1, 1]),
        padding: Padding::none(2),
        groups: 2,
        epilogue: Epilogue::default()
            .with(Step::Add)
            .with(Step::Activation(Activation::Clip((-1.5).into(), f32::INFINITY.into()))),
    };
    let node = |builder: &mut Builder, op: Op, inputs: &[Option<ValueRef>], name: &str, outputs: &[&str]| {
        let outputs = outputs.iter().map(|name| Arc::from(*name)).collect();
        let origin = builder.source(name, "Test");
        let new = NewNode { op, inputs: inputs.to_vec(), name: name.into(), outputs, origin };
        builder.node(new).unwrap()
    };
    let conv =
        node(&mut builder, conv.into(), &[Some(x4), Some(weight), None, Some(residual)], "conv", &["conv/out:0"]);
    let pool = Pool {
        kind: PoolKind::Max,
        kernel: ints(&[2, 2]),
        strides: ints(&[1, 1]),
        dilations: ints(&[1, 1]),
        padding: Padding::SameLower,
        ceil_mode: true,
        p: None,
        column_major: true,
    };
    let pool = node(&mut builder, pool.into(), &[Some(conv.into())], "pool", &["//pool", "say \"hi\"\n\u{7f}é\0"]);
    let k = builder.constant("k", Tensor::vector(vec![3_i64])).unwrap();
    let topk = TopK { axis: -1, largest: true, sorted: false };
    let topk = node(&mut builder, topk.into(), &[Some(pool.into()), Some(k)], "topk", &["top.values", "top.indices"]);
    let slice = Slice {
        axes: Some(ints(&[2])),
        starts: Some(Shape::from_iter([Dim::fixed(1)])),
        ends: Some(Shape::from_iter([Dim::symbol("h 1")])),
        steps: Some(ints(&[2])),
    };
    let slice = node(&mut builder, slice.into(), &[Some(x)], "slice", &["slice"]);
    let opaque = Opaque {
        domain: "com.example".to_string(),
        op_type: "Frob nicate".to_string(),
        opset: 7,
        reason: "it is \"new\"".to_string(),
        attribute: Some("a".to_string()),
        attrs: vec!["a=1".to_string(), String::new(), "-inf".to_string()],
    };
    let opaque = node(&mut builder, opaque.into(), &[None, Some(open)], "opaque", &["o1", "o2"]);
    for (name, tensor) in [
        ("empty", Tensor::vector(Vec::<f32>::new())),
        ("odd", Tensor::from_vec([2, 2], vec![f32::NAN, -0.0, 1e-30, f32::MAX]).unwrap()),
        ("half", Tensor::vector(vec![half::f16::from_f32(0.1), half::f16::MAX])),
        ("brain", Tensor::vector(vec![half::bf16::from_f32(3.5)])),
        ("flags", Tensor::vector(vec![true, false])),
        ("big", Tensor::scalar(u64::MAX)),
        ("double", Tensor::vector(vec![0.1_f64, f64::MIN_POSITIVE])),
        ("bytes", Tensor::vector(vec![-128_i8, 127])),
    ] {
        let value = builder.constant(name, tensor).unwrap();
        builder.output(name, value);
    }
    for (name, value) in [
        ("as is", ValueRef::from(topk)),
        ("o2", ValueRef { node: opaque, slot: 1 }),
        ("slice", slice.into()),
        ("again \"quoted\"", slice.into()),
        ("x", x),
    ] {
        builder.output(name, value);
    }
    let graph = builder.finish();
    check(&graph);
    insta::assert_snapshot!(graph, @r#"
    graph "all kinds"(%x: f32[batch, c, `h 1`], %image: f32[1, 4, 9, 9], %open: f16[..]) -> (%empty, %odd, %half, %brain, %flags, %big, %double, %bytes, %top.values as "as is", %o2, %slice, %slice as "again \"quoted\"", %x) {
      %empty = constant() value=f32[0] {}
      %odd = constant() value=f32[2, 2] {NaN, -0.0, 1e-30, 3.4028235e38}
      %half = constant() value=f16[2] {0.099975586, 65504.0}
      %brain = constant() value=bf16[1] {3.5}
      %flags = constant() value=bool[2] {1, 0}
      %big = constant() value=u64[] {18446744073709551615}
      %double = constant() value=f64[2] {0.1, 2.2250738585072014e-308}
      %bytes = constant() value=i8[2] {-128, 127}
      %w = constant() value=f32[8, 2, 3, 3] splat 0.1
      %r = constant() value=f32[1, 8, 4, 4] splat -inf
      %"conv/out:0" = conv(%image, %w, _, %r) strides=[2, 2] dilations=[1, 1] groups=2 epilogue=[add, clip(-1.5, inf)] : f32[1, 8, 4, 4]
      %"//pool", %"say \"hi\"\n\u{7f}é\0" = pool(%"conv/out:0") kind=max kernel=[2, 2] strides=[1, 1] dilations=[1, 1] padding=same_lower ceil_mode=true column_major=true : f32[1, 8, 4, 4], i64[1, 8, 4, 4]
      %k = constant() value=i64[1] {3}
      %top.values, %top.indices = topk(%"//pool", %k) axis=-1 largest=true : f32[1, 8, 4, 3], i64[1, 8, 4, 3]
      %o1, %o2 = opaque(_, %open) domain=com.example op_type="Frob nicate" opset=7 reason="it is \"new\"" attribute=a attrs=["a=1", "", "-inf"] : unknown[..], unknown[..]
      %slice = slice(%x) axes=[2] starts=[1] ends=["h 1"] steps=[2] : f32[batch, c, (max(0, `h 1`-1)+1)/2]
    }
    "#);
}

#[test]
fn bodies_are_printed_and_parsed_back() {
    let branch = |text: &str| Body(Arc::new(text.parse::<Graph>().unwrap()));
    let inner = If {
        then_branch: branch("graph a(%x: f32[n]) -> (%x as \"result\") {\n}"),
        else_branch: branch("graph b(%x: f32[n]) -> (%y) {\n%y = relu(%x)\n}"),
    };
    let mut middle = Builder::new("middle");
    let condition = middle.constant("c", Tensor::scalar(true)).unwrap();
    let x = middle.input("x", ValueInfo::new(DType::F32, ["n"]));
    let y = middle.op("if", inner, &[condition, x]).unwrap();
    middle.output("y", y);
    let middle = Body(Arc::new(middle.finish()));
    let mut outer = Builder::new("outer");
    let condition = outer.input("c", ValueInfo::new(DType::Bool, [1_usize]));
    let x = outer.input("x", ValueInfo::new(DType::F32, ["n"]));
    let op = If { then_branch: middle.clone(), else_branch: middle };
    let y = outer.op("if", op, &[condition, x]).unwrap();
    outer.output("y", y);
    check(&outer.finish());
}

#[test]
fn data_too_long_to_print_is_not_parsed() {
    let mut builder = Builder::new("g");
    let long = Tensor::vector((0..100).map(|at| at as f32).collect());
    let value = builder.op("long", Constant { value: long }, &[]).unwrap();
    builder.output("long", value);
    let text = builder.finish().to_string();
    assert!(text.contains("value=f32[100] #"), "{text}");
    assert_eq!(text.parse::<Graph>().unwrap_err().line, 2);
}

#[test]
fn what_does_not_parse_says_where() {
    let cases = [
        ("graph g(%x: f99[2]) -> () {\n}", 1, "no type is called `f99`"),
        ("graph g() -> (%y) {\n}", 2, "output `%y` is not defined"),
        ("graph g(%x: f32[2]) -> () {\n\n%y = frobnicate(%x)\n}", 3, "no operator has this name"),
        ("graph g(%x: f32[2]) -> () {\n%y = relu(%z)\n}", 2, "`%z` is not defined"),
        ("graph g(%x: f32[2]) -> () {\n%y = exp(%x) axis=1\n}", 2, "`exp` has no attribute `axis`"),
        ("graph g(%x: f32[2]) -> () {\n%y = softmax(%x) axis=relu\n}", 2, "attribute `axis`: an integer expected"),
        ("graph g(%x: f32[2]) -> () {\n%y = exp(%x) : f32[3]\n}", 2, "`y` is stated as f32[3] but is f32[2]"),
        ("graph g(%x: f32[2]) -> () {\n%y = exp(%x)\n%y = exp(%x)\n}", 3, "`%y` is defined twice"),
        ("graph g(%x: f32[2]) -> () {\n%y = exp(%x)", 2, "expected"),
        ("graph g(%x: f32[2", 1, "expected"),
        ("graph \"g", 1, "a string without an end"),
        ("graph g() -> () {\n%c = constant() value=f32[2] {1}\n}", 2, "4 bytes of data"),
        ("graph g() -> () {\n%c = constant() value=i8[1] {300}\n}", 2, "number too large"),
    ];
    for (text, line, reason) in cases {
        let error = text.parse::<Graph>().unwrap_err();
        assert!(error.line == line && error.reason.contains(reason), "{text}\n{error}");
    }
}
