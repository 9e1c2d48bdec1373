//! Chains that look like a fusion and are none, and a convolution with batch normalisation in every setting.

use onnx_protobuf as onnx;

use super::write::Value::{Float, Int, Ints, Tensor as Data};
use super::write::{floats, graph, ints, node, plain};
use super::{gives, operators, tensor, with_weights};

#[test]
fn a_normalisation_that_its_scale_widens_is_none() {
    let nodes = vec![
        node("mean = ReduceMean(x)", vec![("axes", Ints(&[-1]))]),
        plain("d = Sub(x, mean)"),
        plain("square = Pow(d, two)"),
        node("variance = ReduceMean(square)", vec![("axes", Ints(&[-1]))]),
        plain("shifted = Add(variance, epsilon)"),
        plain("deviation = Sqrt(shifted)"),
        plain("normal = Div(d, deviation)"),
        plain("scaled = Mul(normal, g)"),
        plain("y = Add(scaled, b)"),
    ];
    let weights = || {
        vec![
            floats("two", &[], &[2.0]),
            floats("epsilon", &[], &[1e-6]),
            floats("g", &[2], &[3.0, 5.0]),
            floats("b", &[2], &[0.5, -0.25]),
        ]
    };
    let narrow = with_weights(17, graph(&["x: 1[1, 1]"], &["y"], nodes.clone()), weights());
    // One number has no deviation: the bias is left, twice as wide as x.
    let found = gives(&narrow, &[tensor(&[1, 1], &[7.0_f32])], &[tensor(&[1, 2], &[0.5_f32, -0.25])]);
    assert!(!operators(&found).iter().any(|op| op == "layer_norm"), "{found}");
    // The same over two numbers is one: (1, 3) is (-1, 1) away from its mean, which is its deviation too.
    let wide = with_weights(17, graph(&["x: 1[1, 2]"], &["y"], nodes), weights());
    let deviation = (1.0_f32 + 1e-6).sqrt();
    let expected = tensor(&[1, 2], &[-3.0 / deviation + 0.5, 5.0 / deviation - 0.25]);
    let found = gives(&wide, &[tensor(&[1, 2], &[1.0_f32, 3.0])], &[expected]);
    assert_eq!(operators(&found), ["layer_norm"], "{found}");
}

/// Two numbers a group, deviations of 1 from a mean of 2; the epsilon makes the root 2.
#[test]
fn a_group_norm_is_one_only_with_scale_and_bias_of_the_channels() {
    let nodes = |scaled: &str| {
        vec![
            plain("grouped = Reshape(x, groups)"),
            node("normal = InstanceNormalization(grouped, ones, zeros)", vec![("epsilon", Float(3.0))]),
            plain("shape = Shape(x)"),
            plain("apart = Reshape(normal, shape)"),
            plain(scaled),
            plain("y = Add(scaled, b)"),
        ]
    };
    let model = |scaled: &str, outputs: &[&str], ones: [f32; 2]| {
        let weights = vec![
            ints("groups", &[0, 2, -1]),
            floats("ones", &[2], &ones),
            floats("zeros", &[2], &[0.0; 2]),
            floats("channels", &[4, 1], &[1.0, 2.0, 3.0, 4.0]),
            floats("columns", &[2], &[1.0, 10.0]),
            floats("b", &[4, 1], &[0.0, 1.0, 0.0, 1.0]),
        ];
        with_weights(17, graph(&["x: 1[n, 4, 1]"], outputs, nodes(scaled)), weights)
    };
    let x = [tensor(&[1, 4, 1], &[1.0_f32, 3.0, 5.0, 7.0])];
    let has_groups = |found: &super::Graph| found.to_string().contains("groups=2");
    let y = tensor(&[1, 4, 1], &[-0.5_f32, 2.0, -1.5, 3.0]);
    let found = gives(&model("scaled = Mul(apart, channels)", &["y"], [1.0; 2]), &x, std::slice::from_ref(&y));
    assert_eq!(operators(&found), ["group_norm"], "{found}");
    // The last axis is widened, not the channels scaled.
    let wide = tensor(&[1, 4, 2], &[-0.5_f32, -5.0, 1.5, 6.0, -0.5, -5.0, 1.5, 6.0]);
    let found = gives(&model("scaled = Mul(apart, columns)", &["y"], [1.0; 2]), &x, &[wide]);
    assert!(!has_groups(&found), "{found}");
    // What is between is an output of the model.
    let apart = tensor(&[1, 4, 1], &[-0.5_f32, 0.5, -0.5, 0.5]);
    let found = gives(&model("scaled = Mul(apart, channels)", &["y", "apart"], [1.0; 2]), &x, &[y, apart]);
    assert!(!has_groups(&found), "{found}");
    // The second group has a scale of its own.
    let y = tensor(&[1, 4, 1], &[-0.5_f32, 2.0, -3.0, 5.0]);
    let found = gives(&model("scaled = Mul(apart, channels)", &["y"], [1.0, 2.0]), &x, &[y]);
    assert!(!has_groups(&found), "{found}");
}

/// x = (2, 0), angles of nothing and a quarter: the cosines and sines are exact.
#[test]
fn a_rotation_that_its_table_widens_is_none() {
    let nodes = vec![
        node("a, b = Split(x)", vec![("axis", Int(-1))]),
        plain("ac = Mul(a, c)"),
        plain("bs = Mul(b, s)"),
        plain("p = Sub(ac, bs)"),
        plain("as = Mul(a, s)"),
        plain("bc = Mul(b, c)"),
        plain("q = Add(as, bc)"),
        node("y = Concat(p, q)", vec![("axis", Int(-1))]),
    ];
    let model = |rows: &str| {
        let weights = vec![floats("c", &[1, 1, 2, 1], &[1.0, 0.0]), floats("s", &[1, 1, 2, 1], &[0.0, 1.0])];
        with_weights(17, graph(&[&format!("x: 1[1, 1, {rows}, 2]")], &["y"], nodes.clone()), weights)
    };
    let y = tensor(&[1, 1, 2, 2], &[2.0_f32, 0.0, 0.0, 2.0]);
    let found = gives(&model("1"), &[tensor(&[1, 1, 1, 2], &[2.0_f32, 0.0])], std::slice::from_ref(&y));
    assert!(!operators(&found).iter().any(|op| op == "rotary_embedding"), "{found}");
    let found = gives(&model("2"), &[tensor(&[1, 1, 2, 2], &[2.0_f32, 0.0, 2.0, 0.0])], &[y]);
    assert!(operators(&found).iter().any(|op| op == "rotary_embedding"), "{found}");
}

/// The gate of a swish is an output too, and `x / (1 + exp(-z))` is no swish of x.
#[test]
fn a_sigmoid_in_parts_with_another_reader_or_another_factor_is_no_swish() {
    let nodes = vec![plain("m = Neg(z)"), plain("e = Exp(m)"), plain("s = Add(e, one)"), plain("y = Div(x, s)")];
    let model = |outputs: &[&str]| {
        with_weights(17, graph(&["x: 1[1]", "z: 1[1]"], outputs, nodes.clone()), vec![floats("one", &[], &[1.0])])
    };
    let inputs = [tensor(&[1], &[3.0_f32]), tensor(&[1], &[0.0_f32])];
    let y = tensor(&[1], &[1.5_f32]);
    let found = gives(&model(&["y"]), &inputs, std::slice::from_ref(&y));
    assert_eq!(operators(&found), ["mul", "sigmoid"], "{found}");
    let found = gives(&model(&["y", "s"]), &inputs, &[y, tensor(&[1], &[2.0_f32])]);
    assert!(!operators(&found).iter().any(|op| op == "sigmoid"), "{found}");
}

#[test]
fn an_addend_wider_than_the_product_is_no_bias() {
    let nodes = vec![plain("p = MatMul(a, b)"), plain("c2 = Mul(c, ones)"), plain("y = Add(p, c2)")];
    let weights = vec![floats("b", &[3, 1], &[1.0, 2.0, 3.0]), floats("ones", &[1, 4], &[1.0; 4])];
    let model = with_weights(17, graph(&["a: 1[3, 3]", "c: 1[1, 4]"], &["y"], nodes), weights);
    let a = tensor(&[3, 3], &[1.0_f32, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]);
    let c = tensor(&[1, 4], &[10.0_f32, 20.0, 30.0, 40.0]);
    // The product is (1, 2, 6).
    let rows = [11.0_f32, 21.0, 31.0, 41.0, 12.0, 22.0, 32.0, 42.0, 16.0, 26.0, 36.0, 46.0];
    let found = gives(&model, &[a, c], &[tensor(&[3, 4], &rows)]);
    assert!(!found.to_string().contains("epilogue"), "{found}");
}

#[test]
fn what_does_nothing_is_dropped_and_its_reader_stays_connected() {
    let nodes =
        vec![node("same = Cast(x)", vec![("to", Int(1))]), plain("still = Mul(same, one)"), plain("y = Abs(still)")];
    let model = with_weights(17, graph(&["x: 1[n]"], &["y"], nodes), vec![floats("one", &[], &[1.0])]);
    let found = gives(&model, &[tensor(&[3], &[-1.0_f32, 2.0, -3.0])], &[tensor(&[3], &[1.0_f32, 2.0, 3.0])]);
    assert_eq!(operators(&found), ["abs"]);
}

const X: [f32; 9] = [1.0, -2.0, 3.0, 0.5, -1.5, 2.5, -0.25, 4.0, 1.25];
const W: [f32; 4] = [0.5, -1.0, 2.0, 0.25];

/// A 2x2 window over 3x3 elements.
fn convolved() -> [f32; 4] {
    let at = |row: usize, column: usize| {
        let element = |down: usize, right: usize| X[(row + down) * 3 + column + right] * W[down * 2 + right];
        element(0, 0) + element(0, 1) + element(1, 0) + element(1, 1)
    };
    [at(0, 0), at(0, 1), at(1, 0), at(1, 1)]
}

/// A deviation of 2, a mean of 1, a scale, a bias; then what is below 0 is cut off.
fn normalised(scale: f32, bias: f32) -> [f32; 4] {
    convolved().map(|x| ((x - 1.0) / 2.0 * scale + bias).max(0.0))
}

fn statistics() -> Vec<onnx::TensorProto> {
    vec![
        floats("g", &[1], &[3.0]),
        floats("b", &[1], &[0.5]),
        floats("mean", &[1], &[1.0]),
        floats("variance", &[1], &[4.0]),
        floats("g2", &[1], &[-1.0]),
        floats("b2", &[1], &[0.25]),
    ]
}

fn block(from: &str, conv: &str, to: &str, scale: &str, bias: &str) -> Vec<onnx::NodeProto> {
    vec![
        plain(&format!("{conv} = Conv({from}, w)")),
        node(
            &format!("n_{to} = BatchNormalization({conv}, {scale}, {bias}, mean, variance)"),
            vec![("epsilon", Float(0.0))],
        ),
        plain(&format!("{to} = Relu(n_{to})")),
    ]
}

fn x() -> super::Tensor {
    tensor(&[1, 1, 3, 3], &X)
}

fn image(data: [f32; 4]) -> super::Tensor {
    tensor(&[1, 1, 2, 2], &data)
}

#[test]
fn batch_normalisation_folds_into_weights_of_an_initializer_or_a_node() {
    let w = floats("w", &[1, 1, 2, 2], &W);
    let nodes = block("x", "c", "y", "g", "b");
    let weights = [statistics(), vec![w.clone()]].concat();
    let initializer = with_weights(17, graph(&["x: 1[1, 1, 3, 3]"], &["y"], nodes.clone()), weights);
    let nodes = [vec![node("w = Constant()", vec![("value", Data(w))])], nodes].concat();
    let constant = with_weights(17, graph(&["x: 1[1, 1, 3, 3]"], &["y"], nodes), statistics());
    for model in [initializer, constant] {
        let found = gives(&model, &[x()], &[image(normalised(3.0, 0.5))]);
        assert_eq!(operators(&found), ["conv"], "{found}");
    }
}

#[test]
fn weights_of_two_convolutions_are_folded_for_each() {
    let nodes = [block("x", "c", "y", "g", "b"), block("x", "c2", "z", "g2", "b2")].concat();
    let weights = [statistics(), vec![floats("w", &[1, 1, 2, 2], &W)]].concat();
    let model = with_weights(17, graph(&["x: 1[1, 1, 3, 3]"], &["y", "z"], nodes), weights);
    let expected = [image(normalised(3.0, 0.5)), image(normalised(-1.0, 0.25))];
    let found = gives(&model, &[x()], &expected);
    assert_eq!(operators(&found), ["conv", "conv"], "{found}");
}

#[test]
fn a_convolution_that_is_an_output_keeps_its_weights() {
    let weights = [statistics(), vec![floats("w", &[1, 1, 2, 2], &W)]].concat();
    let nodes = block("x", "c", "y", "g", "b");
    let model = with_weights(17, graph(&["x: 1[1, 1, 3, 3]"], &["y", "c"], nodes), weights);
    gives(&model, &[x()], &[image(normalised(3.0, 0.5)), image(convolved())]);
}

#[test]
fn a_pad_with_two_readers_is_right_for_both() {
    let pads = ints("pads", &[0, 0, 1, 1, 0, 0, 1, 1]);
    let nodes = vec![plain("p = Pad(x, pads)"), plain("y = Conv(p, small)"), plain("z = Conv(p, large)")];
    let weights = vec![pads, floats("small", &[1, 1, 1, 1], &[2.0]), floats("large", &[1, 1, 3, 3], &[1.0; 9])];
    let model = with_weights(17, graph(&["x: 1[1, 1, 1, 2]"], &["y", "z"], nodes), weights);
    let y = [0.0, 0.0, 0.0, 0.0, 0.0, 6.0, 10.0, 0.0, 0.0, 0.0, 0.0, 0.0_f32];
    let z = [8.0_f32, 8.0];
    gives(&model, &[tensor(&[1, 1, 1, 2], &[3.0_f32, 5.0])], &[tensor(&[1, 1, 3, 4], &y), tensor(&[1, 1, 1, 2], &z)]);
}
