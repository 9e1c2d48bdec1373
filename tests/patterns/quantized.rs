//! A convolution as onnxruntime quantizes it: u8 around 128, weights of i8 with a scale for each channel, one of them 0,
//! a bias of i32.

use onnx_protobuf as onnx;

use super::write::Value::Int;
use super::write::{floats, graph, node, plain};
use super::{builds, gives, integers, network, operators, optimized, tensor, with_weights};
use trt_fuse::ir::{Capabilities, DType};
use trt_fuse::passes::Pipeline;

const X_SCALE: f32 = 0.125;
const Y_SCALE: f32 = 0.5;
/// The second channel is dead.
const W_SCALES: [f32; 3] = [0.25, 0.0, 0.5];
/// Three filters of 2x1x1.
const W: [i32; 6] = [10, -20, 7, 9, -128, 127];
const BIAS: [i32; 3] = [40, 1000, -16];

fn weights(zero: i32) -> Vec<onnx::TensorProto> {
    let bias_scales = W_SCALES.map(|scale| scale * X_SCALE);
    vec![
        floats("x_scale", &[], &[X_SCALE]),
        integers("x_zero", 2, &[], &[zero]),
        floats("y_scale", &[], &[Y_SCALE]),
        integers("y_zero", 2, &[], &[128]),
        integers("w", 3, &[3, 2, 1, 1], &W),
        floats("w_scale", &[3], &W_SCALES),
        integers("w_zero", 3, &[3], &[0; 3]),
        integers("bias", 6, &[3], &BIAS),
        floats("bias_scale", &[3], &bias_scales),
        integers("bias_zero", 6, &[3], &[0; 3]),
    ]
}

fn pairs(zero: i32) -> onnx::ModelProto {
    let nodes = vec![
        plain("x_q = QuantizeLinear(x, x_scale, x_zero)"),
        plain("x_f = DequantizeLinear(x_q, x_scale, x_zero)"),
        node("w_f = DequantizeLinear(w, w_scale, w_zero)", vec![("axis", Int(0))]),
        node("bias_f = DequantizeLinear(bias, bias_scale, bias_zero)", vec![("axis", Int(0))]),
        plain("c = Conv(x_f, w_f, bias_f)"),
        plain("r = Relu(c)"),
        plain("y_q = QuantizeLinear(r, y_scale, y_zero)"),
        plain("y = DequantizeLinear(y_q, y_scale, y_zero)"),
    ];
    with_weights(17, graph(&["x: 1[1, 2, 1, 3]"], &["y"], nodes), weights(zero))
}

/// Two channels of three elements. 0.19 is between steps, 100 beyond the last.
const X: [f32; 6] = [0.5, -1.25, 0.19, 100.0, -2.0, 0.0];

/// Elements of an input in steps from zero.
fn steps(zero: i32) -> [i32; 6] {
    X.map(|x| ((x / X_SCALE).round_ties_even() as i32 + zero).clamp(0, 255) - zero)
}

/// The output in steps from zero; `floor` is where a step is cut off.
fn outputs(zero: i32, floor: i32) -> [i32; 9] {
    std::array::from_fn(|at| {
        let (channel, place) = (at / 3, at % 3);
        let steps = steps(zero);
        let sum = W[channel * 2] * steps[place] + W[channel * 2 + 1] * steps[3 + place] + BIAS[channel];
        let value = sum as f32 * X_SCALE * W_SCALES[channel];
        ((value / Y_SCALE).round_ties_even() as i32).clamp(floor, 127)
    })
}

fn x() -> super::Tensor {
    tensor(&[1, 2, 1, 3], &X)
}

#[test]
fn pairs_around_128_become_symmetric() {
    let y = outputs(128, 0).map(|step| step as f32 * Y_SCALE);
    // The dead channel is 0, a saturated input reaches its neighbours' limits.
    assert_eq!(y[3..6], [0.0; 3]);
    let model = pairs(128);
    let graph = gives(&model, &[x()], &[tensor(&[1, 3, 1, 3], &y)]);
    let (lowered, _) = Pipeline::lowering(&Capabilities::rtx((1, 7, 1))).run(graph.clone()).unwrap();
    for id in lowered.live() {
        assert_ne!(lowered.dtype(id.into()), DType::U8, "{lowered}");
    }
    let quantized = |op: &String| op == "quantize" || op == "dequantize";
    // Both pairs and the weights; the bias is a constant of floats.
    assert_eq!(operators(&lowered).iter().filter(|op| quantized(op)).count(), 5, "{lowered}");
    builds(&graph, &[]);
}

#[test]
fn another_zero_point_is_refused_with_its_cure() {
    let graph = optimized(&pairs(37));
    let error = network(&graph).unwrap_err();
    for part in ["`x_q`", "37 of u8", "ActivationSymmetric"] {
        assert!(error.contains(part), "{part} expected in: {error}");
    }
    // It means something all the same.
    let y = outputs(37, 0).map(|step| step as f32 * Y_SCALE);
    let found = trt_fuse::ir::eval::eval_graph(&graph, &[x()]).unwrap();
    assert_eq!(found, [tensor(&[1, 3, 1, 3], &y)]);
}

#[test]
fn the_twin_in_one_operator_gives_the_same() {
    let nodes = vec![
        plain("x_q = QuantizeLinear(x, x_scale, x_zero)"),
        plain("y_q = QLinearConv(x_q, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias)"),
        plain("y = DequantizeLinear(y_q, y_scale, y_zero)"),
    ];
    let model = with_weights(17, graph(&["x: 1[1, 2, 1, 3]"], &["y", "y_q"], nodes), weights(128));
    let steps = outputs(128, -128);
    let y = tensor(&[1, 3, 1, 3], &steps.map(|step| step as f32 * Y_SCALE));
    let y_q = tensor(&[1, 3, 1, 3], &steps.map(|step| (step + 128) as u8));
    gives(&model, &[x()], &[y, y_q]);
    let nodes = model.graph.node.clone();
    let alone = with_weights(17, graph(&["x: 1[1, 2, 1, 3]"], &["y"], nodes), weights(128));
    builds(&optimized(&alone), &[]);
}
