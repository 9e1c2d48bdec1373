//! The standard pipeline on the blocks that convolutional networks are made of.

use proptest::prelude::*;
use trt_fuse_ir::eval::eval_graph;
use trt_fuse_ir::{Capabilities, Graph, Tensor, verify};
use trt_fuse_passes::{Options, Pipeline, Siblings};

/// Runs the standard pipeline, checks that it keeps outputs and that a second run changes nothing.
fn optimized(text: &str) -> Graph {
    optimized_with(Options::default(), text)
}

fn optimized_with(options: Options, text: &str) -> Graph {
    let before: Graph = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
    let pipeline = Pipeline::standard(&Capabilities::default()).with_options(options);
    let (after, _) = pipeline.run(before.clone()).unwrap();
    verify(&after).unwrap();
    let (again, report) = pipeline.run(after.clone()).unwrap();
    assert!(report.passes.iter().all(|pass| pass.rewrites == 0), "a second run changes the graph:\n{after}\n{again}");
    let inputs: Vec<Tensor> = before.inputs().iter().map(|id| ramp(&before, *id)).collect();
    let expected = eval_graph(&before, &inputs).unwrap();
    let found = eval_graph(&after, &inputs).unwrap();
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(expected.dims(), found.dims());
        let (expected, found) = (expected.to_f64s().unwrap(), found.to_f64s().unwrap());
        let largest = expected.iter().fold(1e-3_f64, |largest, x| largest.max(x.abs()));
        for (a, b) in expected.iter().zip(&found) {
            assert!((a - b).abs() <= 1e-5 * largest, "{a} became {b}\n{before}\n{after}");
        }
    }
    after
}

/// Values between -2 and 2 without a pattern; symbols count 2.
fn ramp(graph: &Graph, id: trt_fuse_ir::NodeId) -> Tensor {
    let shape = graph.info(id.into()).and_then(|info| info.shape.clone()).unwrap();
    let dims: Vec<usize> = shape.iter().map(|dim| dim.evaluate(&|_| Some(2)).unwrap() as usize).collect();
    let count: usize = dims.iter().product();
    Tensor::from_vec(dims, (0..count).map(|at| (at * 7919 % 401) as f32 / 100.0 - 2.0).collect()).unwrap()
}

#[test]
fn bottleneck_with_a_shortcut() {
    let after = optimized(
        "graph g(%x: f32[batch, 2, 4, 4]) -> (%y) {
            %w = constant() value=f32[2, 2, 1, 1] {1, 2, 3, 4}
            %one = constant() value=f32[2] splat 1
            %zero = constant() value=f32[2] splat 0
            %c1 = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1
            %n1 = batch_norm(%c1, %one, %one, %zero, %one) epsilon=0.00001
            %r1 = relu(%n1)
            %c2 = conv(%r1, %w) strides=[1, 1] dilations=[1, 1] groups=1
            %n2 = batch_norm(%c2, %one, %zero, %one, %one) epsilon=0.00001
            %c3 = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1
            %n3 = batch_norm(%c3, %one, %zero, %zero, %one) epsilon=0.00001
            %s = add(%n2, %n3)
            %r2 = relu(%s)
            %p = reduce(%r2) kind=mean axes=[2, 3] keep_dims=true
            %f = flatten(%p) axis=1
            %v = constant() value=f32[3, 2] {1, 2, 3, 4, 5, 6}
            %t = transpose(%v) perm=[1, 0]
            %m = matmul(%f, %t)
            %b = constant() value=f32[3] {1, 2, 3}
            %y = add(%m, %b)
        }",
    );
    // The first and the last convolution are equal before their normalizations go in, and must not be merged then.
    let operations: Vec<_> =
        after.to_string().lines().filter(|line| !line.contains("constant()")).map(String::from).collect();
    insta::assert_snapshot!(operations.join("\n"), @"
    graph g(%x: f32[batch, 2, 4, 4]) -> (%y) {
      %r1 = conv(%x, %c1.fuse_conv_bn, %c1.fuse_conv_bn.1) strides=[1, 1] dilations=[1, 1] groups=1 epilogue=[relu] : f32[batch, 2, 4, 4]
      %n2 = conv(%r1, %c1.fuse_conv_bn, %c2.fuse_conv_bn.1) strides=[1, 1] dilations=[1, 1] groups=1 : f32[batch, 2, 4, 4]
      %r2 = conv(%x, %c1.fuse_conv_bn, %c3.fuse_conv_bn.1, %n2) strides=[1, 1] dilations=[1, 1] groups=1 epilogue=[add, relu] : f32[batch, 2, 4, 4]
      %f = reduce(%r2) kind=mean axes=[2, 3] : f32[batch, 2]
      %y = matmul(%f, %v, %m.fuse_matmul_bias) transpose_b=true epilogue=[add] : f32[batch, 3]
    }
    ");
}

#[test]
fn squeeze_and_excitation_with_hard_activations() {
    let after = optimized(
        "graph g(%x: f32[1, 2, 4, 4]) -> (%y) {
            %w = constant() value=f32[2, 1, 3, 3] splat 0.25
            %v = constant() value=f32[2, 2, 1, 1] {1, 2, 3, 4}
            %three = constant() value=f32[] {3}
            %six = constant() value=f32[] {6}
            %zero = constant() value=f32[] {0}
            %c = conv(%x, %w) strides=[1, 1] dilations=[1, 1] padding=[1, 1, 1, 1] groups=2
            %a = add(%c, %three)
            %a1 = max(%a, %zero)
            %a2 = min(%a1, %six)
            %a3 = mul(%c, %a2)
            %h = div(%a3, %six)
            %p = pool(%h) kind=average kernel=[4, 4] strides=[1, 1] dilations=[1, 1]
            %d = conv(%p, %v) strides=[1, 1] dilations=[1, 1] groups=1
            %e = add(%d, %three)
            %e1 = clip(%e) p=[0, 6]
            %e2 = div(%e1, %six)
            %y = mul(%h, %e2)
        }",
    );
    let operations: Vec<_> =
        after.to_string().lines().filter(|line| !line.contains("constant()")).map(String::from).collect();
    insta::assert_snapshot!(operations.join("\n"), @"
    graph g(%x: f32[1, 2, 4, 4]) -> (%y) {
      %h = conv(%x, %w) strides=[1, 1] dilations=[1, 1] padding=[1, 1, 1, 1] groups=2 epilogue=[hard_swish] : f32[1, 2, 4, 4]
      %p = reduce(%h) kind=mean axes=[2, 3] keep_dims=true : f32[1, 2, 1, 1]
      %e2 = conv(%p, %v) strides=[1, 1] dilations=[1, 1] groups=1 epilogue=[hard_sigmoid(0.16666667, 0.5)] : f32[1, 2, 1, 1]
      %y = mul(%h, %e2) : f32[1, 2, 4, 4]
    }
    ");
}

/// A block of GoogLeNet: three branches begin with one element of the input, the fourth with a pooling.
const INCEPTION: &str = "graph g(%x: f32[n, 2, 4, 4]) -> (%y) {
    %w1 = constant() value=f32[2, 2, 1, 1] {1, 2, -3, 4}
    %w2 = constant() value=f32[3, 2, 1, 1] {0.5, 2, 1, -1, 0.25, 1}
    %w3 = constant() value=f32[1, 2, 1, 1] {-0.5, 1}
    %w4 = constant() value=f32[2, 2, 1, 1] {1, 1, 2, -1}
    %k2 = constant() value=f32[2, 3, 3, 3] splat 0.125
    %k3 = constant() value=f32[2, 1, 3, 3] splat -0.25
    %scale = constant() value=f32[3] {1, 2, 0.5}
    %zero = constant() value=f32[3] splat 0
    %one = constant() value=f32[3] splat 1
    %a = conv(%x, %w1) strides=[1, 1] dilations=[1, 1] groups=1
    %a1 = relu(%a)
    %b = conv(%x, %w2) strides=[1, 1] dilations=[1, 1] groups=1
    %b1 = batch_norm(%b, %scale, %one, %zero, %one) epsilon=0.001
    %b2 = relu(%b1)
    %b3 = conv(%b2, %k2) strides=[1, 1] dilations=[1, 1] padding=[1, 1, 1, 1] groups=1
    %c = conv(%x, %w3) strides=[1, 1] dilations=[1, 1] groups=1
    %c1 = relu(%c)
    %c2 = conv(%c1, %k3) strides=[1, 1] dilations=[1, 1] padding=[1, 1, 1, 1] groups=1
    %d = pool(%x) kind=max kernel=[3, 3] strides=[1, 1] dilations=[1, 1] padding=[1, 1, 1, 1]
    %d1 = conv(%d, %w4) strides=[1, 1] dilations=[1, 1] groups=1
    %y = concat(%a1, %b3, %c2, %d1) axis=1
}";

#[test]
fn branches_become_one_convolution_if_asked_for() {
    let after = optimized_with(Options { siblings: Siblings::Always, ..Options::default() }, INCEPTION);
    let operations: Vec<_> =
        after.to_string().lines().filter(|line| !line.contains("constant()")).map(String::from).collect();
    insta::assert_snapshot!(operations.join("\n"), @"
    graph g(%x: f32[n, 2, 4, 4]) -> (%y) {
      %c.2 = conv(%x, %c, %c.1) strides=[1, 1] dilations=[1, 1] groups=1 epilogue=[relu] : f32[n, 6, 4, 4]
      %c1, %b2, %a1 = split(%c.2) axis=1 sizes=[1, 3, 2] : f32[n, 1, 4, 4], f32[n, 3, 4, 4], f32[n, 2, 4, 4]
      %b3 = conv(%b2, %k2) strides=[1, 1] dilations=[1, 1] padding=[1, 1, 1, 1] groups=1 : f32[n, 2, 4, 4]
      %c2 = conv(%c1, %k3) strides=[1, 1] dilations=[1, 1] padding=[1, 1, 1, 1] groups=1 : f32[n, 2, 4, 4]
      %d = pool(%x) kind=max kernel=[3, 3] strides=[1, 1] dilations=[1, 1] padding=[1, 1, 1, 1] : f32[n, 2, 4, 4]
      %d1 = conv(%d, %w4) strides=[1, 1] dilations=[1, 1] groups=1 : f32[n, 2, 4, 4]
      %y = concat(%a1, %b3, %c2, %d1) axis=1 : f32[n, 8, 4, 4]
    }
    ");
    let nodes = |siblings| optimized_with(Options { siblings, ..Options::default() }, INCEPTION).operation_count();
    assert_eq!((nodes(Siblings::Auto), nodes(Siblings::Never)), (8, 8));
}

/// What may follow a convolution, reading `%in` and giving `%out`; `{c}` stands for the number of channels.
const STEPS: [&str; 10] = [
    "%OUT = batch_norm(%IN, %s, %o, %m, %v) epsilon=0.001",
    "%OUT = mul(%IN, %k)",
    "%OUT = add(%k, %IN)",
    "%OUT = mul(%q, %IN)",
    "%OUT = add(%IN, %q)",
    "%OUT = relu(%IN)",
    "%OUT = clip(%IN) p=[-1, 1.5]",
    "%OUT = add(%IN, %first)",
    "%OUT.g = sigmoid(%IN) %OUT = mul(%IN, %OUT.g)",
    "%OUT.a = add(%IN, %q) %OUT = max(%OUT.a, %zero)",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Chains of what exporters put after a convolution compute the same after the pipeline.
    #[test]
    fn any_chain_keeps_its_outputs(
        groups in 1_usize..=2,
        transposed: bool,
        biased: bool,
        steps in prop::collection::vec(0..STEPS.len(), 0..7),
        values in prop::collection::vec(-1.5_f32..1.5, 64),
        shown in 0_usize..8,
    ) {
        let channels = 4;
        let mut values = values.into_iter().cycle();
        let mut constant = |name: &str, dims: &str, count: usize, least: f32| {
            let items: Vec<String> = values.by_ref().take(count).map(|x| format!("{:?}", x.abs().max(least).copysign(x + least))).collect();
            format!("%{name} = constant() value=f32[{dims}] {{{}}}\n", items.join(", "))
        };
        let mut text = "graph g(%x: f32[n, 4, 3, 3]) -> (OUTPUTS) {\n".to_string();
        text += &constant("w", &format!("4, {}, 2, 2", channels / groups), channels * channels / groups * 4, 0.0);
        text += &constant("b", "4", 4, 0.0);
        text += &constant("s", "4", 4, 0.1);
        text += &constant("o", "4", 4, 0.0);
        text += &constant("m", "4", 4, 0.0);
        text += "%v = constant() value=f32[4] {0.5, 1.0, 2.0, 0.25}\n";
        text += &constant("k", "4, 1, 1", 4, 0.1);
        text += &constant("q", "1, 1", 1, 0.1);
        text += "%zero = constant() value=f32[] {0}\n";
        let (op, extra) = if transposed { ("conv_transpose", "output_padding=[0, 0]") } else { ("conv", "") };
        let bias = if biased { ", %b" } else { "" };
        text += &format!("%first = {op}(%x, %w{bias}) strides=[1, 1] dilations=[1, 1] groups={groups} {extra}\n");
        let mut last = "first".to_string();
        let mut outputs = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            let out = format!("t{at}");
            text += &STEPS[*step].replace("%IN", &format!("%{last}")).replace("%OUT", &format!("%{out}"));
            text += "\n";
            if at == shown {
                outputs.push(format!("%{last}"));
            }
            last = out;
        }
        outputs.push(format!("%{last}"));
        text += "}\n";
        optimized(&text.replace("OUTPUTS", &outputs.join(", ")));
    }
}
