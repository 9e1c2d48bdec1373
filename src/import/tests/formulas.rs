//! Operators that become formulas: what they compute, where ONNX's own tests do not look. Expected values are
//! onnxruntime's or NumPy's, or worked out by hand.

use insta::assert_snapshot;
use trt_fuse_ir::eval::eval_graph;
use trt_fuse_ir::{DType, Tensor};

use super::*;

/// A tensor of a data type's code and raw bytes.
fn raw(name: &str, data_type: i32, dims: &[i64], bytes: &[u8]) -> onnx::TensorProto {
    let (dims, raw_data) = (dims.to_vec(), bytes.to_vec());
    onnx::TensorProto { name: name.into(), dims, raw_data, data_type, ..Default::default() }
}

const U8: i32 = 2;
const I8: i32 = 3;
const I32: i32 = 6;
const I64: i32 = 7;

fn bytes(values: &[i8]) -> Vec<u8> {
    values.iter().map(|value| value.cast_unsigned()).collect()
}

fn scalar(name: &str, value: i64) -> onnx::TensorProto {
    raw(name, I64, &[], &value.to_le_bytes())
}

/// A graph of one node.
fn imported(
    version: i64,
    inputs: &[&str],
    node: onnx::NodeProto,
    initializer: Vec<onnx::TensorProto>,
) -> crate::import::Model {
    let outputs: Vec<String> = node.output.clone();
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let graph = graph(inputs, &outputs, vec![node]);
    let model = import(&model(version, onnx::GraphProto { initializer, ..graph })).unwrap();
    assert!(crate::unsupported_nodes(&model.graph).is_empty(), "{}", model.graph);
    model
}

/// The outputs of a graph of one node, computed from inputs; optimised and lowered, the graph must give the same.
fn run(
    version: i64,
    inputs: &[&str],
    node: onnx::NodeProto,
    initializer: Vec<onnx::TensorProto>,
    data: &[Tensor],
) -> Vec<Tensor> {
    let model = imported(version, inputs, node, initializer);
    let found = eval_graph(&model.graph, data).unwrap();
    let optimized = crate::optimize(model, &crate::Options::default()).unwrap().graph;
    let lowering = trt_fuse_passes::Pipeline::lowering(&trt_fuse_ir::Capabilities::default());
    let lowered = lowering.run(optimized.clone()).unwrap().0;
    for graph in [optimized, lowered] {
        for (found, again) in found.iter().zip(eval_graph(&graph, data).unwrap()) {
            match found.to_f64s() {
                Some(floats) => assert_close(&again, found.dims(), &floats),
                None => assert_eq!(&again, found),
            }
        }
    }
    found
}

/// Why a graph of one node is not taken.
fn refusal(version: i64, inputs: &[&str], node: onnx::NodeProto, initializer: Vec<onnx::TensorProto>) -> String {
    let graph = graph(inputs, &["y"], vec![node]);
    match import(&model(version, onnx::GraphProto { initializer, ..graph })) {
        Err(error) => error.to_string(),
        Ok(model) => crate::unsupported_nodes(&model.graph).first().map(|node| node.reason.clone()).unwrap_or_default(),
    }
}

fn tensor<T: trt_fuse_ir::Element>(dims: &[usize], data: &[T]) -> Tensor {
    Tensor::from_vec(dims, data.to_vec()).unwrap()
}

#[track_caller]
fn assert_close(found: &Tensor, dims: &[usize], expected: &[f64]) {
    assert_eq!(found.dims(), dims);
    let found = found.to_f64s().unwrap();
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 2e-6 * b.abs().max(1.0) || (a.is_nan() && b.is_nan());
    assert!(found.iter().zip(expected).all(close), "{found:?} where {expected:?} was expected");
}

fn count_up(dims: &[usize]) -> Tensor {
    let count = dims.iter().product::<usize>();
    tensor(dims, &(1..=count).map(|at| at as f32).collect::<Vec<_>>())
}

#[test]
fn quantized_convolutions() {
    let x = tensor::<u8>(&[1, 2, 3, 3], &[0, 9, 18, 27, 36, 45, 54, 0, 9, 18, 27, 36, 45, 54, 0, 9, 18, 27]);
    let w = || raw("w", I8, &[2, 1, 2, 2], &bytes(&[-20, -15, -10, -5, 0, 5, 10, 15]));
    let attributes = || vec![("group", Int(2)), ("pads", Ints(&[1, 0, 0, 0]))];
    let bias: Vec<u8> = [300_i32, -900].iter().flat_map(|value| value.to_le_bytes()).collect();
    let parameters = vec![
        floats("xs", &[], &[0.05]),
        raw("xz", U8, &[], &[20]),
        w(),
        floats("ws", &[2], &[0.1, 0.02]),
        raw("wz", I8, &[2], &[0, 0]),
        floats("ys", &[1], &[0.3]),
        raw("yz", U8, &[1], &[100]),
        raw("b", I32, &[2], &bias),
    ];
    let call = node("y = QLinearConv(x, xs, xz, w, ws, wz, ys, yz, b)", attributes());
    let y = run(10, &["x: 2[1, 2, 3, 3]"], call, parameters, std::slice::from_ref(&x));
    let expected = tensor::<u8>(&[1, 2, 3, 2], &[109, 107, 112, 104, 95, 98, 97, 98, 100, 97, 97, 97]);
    assert_eq!(y, [expected]);

    let zeros = vec![w(), raw("xz", U8, &[], &[20]), raw("wz", I8, &[2], &bytes(&[3, -4]))];
    let y = run(10, &["x: 2[1, 2, h, 3]"], node("y = ConvInteger(x, w, xz, wz)", attributes()), zeros, &[x]);
    let expected = [348, 159, 439, -119, -731, -470, 105, 402, 1051, 268, 214, 61];
    assert_eq!(y, [tensor::<i32>(&[1, 2, 3, 2], &expected)]);
}

#[test]
fn quantized_products() {
    let a = tensor::<u8>(&[2, 3], &[1, 200, 30, 255, 0, 7]);
    let b = || raw("b", I8, &[3, 2], &bytes(&[5, -128, 127, 3, -9, 60]));
    let zeros = || vec![raw("az", U8, &[2], &[10, 0]), b(), raw("bz", I8, &[2], &bytes(&[1, -2]))];
    let y = run(10, &["a: 2[n, 3]"], plain("y = MatMulInteger(a, b, az, bz)"), zeros(), std::slice::from_ref(&a));
    assert_eq!(y, [tensor::<i32>(&[2, 2], &[23704, 3324, 950, -31696])]);

    let output = || vec![floats("ys", &[], &[0.5]), raw("yz", I8, &[], &bytes(&[-3]))];
    let call = || plain("y = QLinearMatMul(a, as, az, b, bs, bz, ys, yz)");
    let vectors: Vec<_> = zeros().into_iter().chain(output()).collect();
    let scales = vec![floats("as", &[2], &[0.01, 0.02]), floats("bs", &[2], &[0.1, 0.05])];
    let rows = vectors.iter().cloned().chain(scales).collect();
    let expected = tensor::<i8>(&[2, 2], &[44, 0, 1, -66]);
    // 47.408, 3.324, 3.8, -63.392 and the zero point.
    assert_eq!(run(10, &["a: 2[2, 3]"], call(), rows, std::slice::from_ref(&a)), std::slice::from_ref(&expected));

    // The same of matrices in a stack, with parameters of their rank.
    let stacked = vec![
        floats("as", &[1, 2, 1], &[0.01, 0.02]),
        raw("az", U8, &[1, 2, 1], &[10, 0]),
        raw("b", I8, &[1, 3, 2], &bytes(&[5, -128, 127, 3, -9, 60])),
        floats("bs", &[1, 1, 2], &[0.1, 0.05]),
        raw("bz", I8, &[1, 1, 2], &bytes(&[1, -2])),
    ];
    let stacked = stacked.into_iter().chain(output()).collect();
    let a = a.reshaped([1, 2, 3]).unwrap();
    assert_eq!(run(21, &["a: 2[1, 2, 3]"], call(), stacked, &[a]), [expected.reshaped([1, 2, 2]).unwrap()]);
}

/// 399 * 255 * 255 + 254 * 255 = 26009745 is odd and above 2^24: no f32.
#[test]
fn integer_products_stay_exact() {
    let a = tensor::<u8>(&[1, 400], &[255; 400]);
    let mut column = [255_u8; 400];
    column[399] = 254;
    let call = || plain("y = MatMulInteger(a, b)");
    let expected = [tensor::<i32>(&[1, 1], &[26_009_745])];
    let constant = vec![raw("b", U8, &[400, 1], &column)];
    assert_eq!(run(10, &["a: 2[1, 400]"], call(), constant, std::slice::from_ref(&a)), expected);
    let b = tensor::<u8>(&[400, 1], &column);
    // 400 terms of a size known: one factor in digits. Of a size that only run time tells: both.
    assert_eq!(run(10, &["a: 2[1, 400]", "b: 2[400, 1]"], call(), vec![], &[a.clone(), b.clone()]), expected);
    assert_eq!(run(10, &["a: 2[1, k]", "b: 2[k, 1]"], call(), vec![], &[a, b]), expected);
    let reason = refusal(10, &["a: 2[1, 70000]", "b: 2[70000, 1]"], call(), vec![]);
    assert_snapshot!(reason, @"sums of 70000 products are not exact in f32");
}

#[test]
fn precision_of_quantization() {
    let scale = || vec![floats("s", &[], &[0.1])];
    let x = || tensor::<f32>(&[2], &[0.25, 23.54]);
    let steps = |attributes| {
        let model = imported(25, &["x: 1[2]"], node("y = QuantizeLinear(x, s)", attributes), scale());
        eval_graph(&model.graph, &[x()]).unwrap()[0].to_i64s().unwrap()
    };
    // 23.54 / 0.1 is 235.4 in f32; in f16 it is 235.5, a half that goes to even.
    assert_eq!(steps(vec![]), [2, 235]);
    assert_eq!(steps(vec![("precision", Int(10))]), [2, 236]);
    let refused = refusal(25, &["x: 1[2]"], node("y = QuantizeLinear(x, s)", vec![("precision", Int(6))]), scale());
    assert_snapshot!(refused, @"node `y` (QuantizeLinear): attribute `precision`: i32 is no type of a division");
}

#[test]
fn losses_of_symbolic_batches() {
    let scores = tensor::<f32>(&[2, 3], &[1.0, 2.0, 3.0, 3.0, 1.0, 2.0]);
    let classes = tensor::<i32>(&[2], &[2, -1]);
    let attributes = || vec![("ignore_index", Int(-1)), ("reduction", Text("mean"))];
    let call = node("y, p = SoftmaxCrossEntropyLoss(x, c, w)", attributes());
    let weights = vec![floats("w", &[3], &[1.0, 1.0, 0.5])];
    let y = run(13, &["x: 1[n, 3]", "c: 6[n]"], call, weights, &[scores, classes]);
    // -ln(e^3 / (e + e^2 + e^3)); the weight of the only sample that counts cancels.
    let loss = 0.407_605_964_444_380_1;
    assert_close(&y[0], &[], &[loss]);
    assert_close(&y[1], &[2, 3], &[-loss - 2.0, -loss - 1.0, -loss, -loss, -loss - 2.0, -loss - 1.0]);
    let wrong = node("y = NegativeLogLikelihoodLoss(x, c)", vec![("reduction", Text("max"))]);
    assert_snapshot!(refusal(13, &["x: 1[n, 3]", "c: 7[n]"], wrong, vec![]), @"node `y` (NegativeLogLikelihoodLoss): attribute `reduction`: `max` found, one of mean, sum, none expected");
}

#[test]
fn hardmax_over_axes_together() {
    let x = tensor::<f32>(&[2, 3, 2], &[1., 5., 5., 2., 0., 3., -1., -2., -3., -1., -4., -9.]);
    let y = run(11, &["x: 1[n, 3, 2]"], plain("y = Hardmax(x)"), vec![], std::slice::from_ref(&x));
    assert_close(&y[0], &[2, 3, 2], &[0., 1., 0., 0., 0., 0., 1., 0., 0., 0., 0., 0.]);
    let y = run(13, &["x: 1[2, n, 2]"], node("y = Hardmax(x)", vec![("axis", Int(1))]), vec![], &[x]);
    assert_close(&y[0], &[2, 3, 2], &[0., 1., 1., 0., 0., 0., 1., 0., 0., 1., 0., 0.]);
}

#[test]
fn compress_by_a_constant() {
    let condition = vec![raw("c", 9, &[2], &[0, 1])];
    let call = node("y = Compress(x, c)", vec![("axis", Int(-1))]);
    let y = run(11, &["x: 1[n, 3]"], call, condition, &[count_up(&[2, 3])]);
    assert_close(&y[0], &[2, 1], &[2.0, 5.0]);
}

#[test]
fn tensor_scatter_around_the_end() {
    let (cache, update) = (tensor::<f32>(&[2, 1, 3, 1], &[0.0; 6]), count_up(&[2, 1, 2, 1]));
    let write = tensor::<i64>(&[2], &[2, 0]);
    let call = node("y = TensorScatter(x, u, w)", vec![("mode", Text("circular"))]);
    let inputs = ["x: 1[n, 1, 3, 1]", "u: 1[n, 1, 2, 1]", "w: 7[n]"];
    let y = run(24, &inputs, call, vec![], &[cache, update, write]);
    assert_close(&y[0], &[2, 1, 3, 1], &[2., 0., 1., 3., 4., 0.]);
}

#[test]
fn middles_of_images() {
    let x = count_up(&[1, 4, 3]);
    let call = || node("y = CenterCropPad(x, s)", vec![("axes", Ints(&[-2, -1]))]);
    let y = run(18, &["x: 1[n, 4, 3]"], call(), vec![ints("s", &[1, 6])], std::slice::from_ref(&x));
    // Row 1 of 4, and of 3 more columns 1 before.
    assert_close(&y[0], &[1, 1, 6], &[0., 4., 5., 6., 0., 0.]);
    let reason = refusal(18, &["x: 1[n, h, 3]"], call(), vec![ints("s", &[4, 3])]);
    assert_snapshot!(reason, @"whether axis 1 of h is cut or padded to 4 is known only at run time");
}

#[test]
fn columns_to_images() {
    let attributes = vec![("strides", Ints(&[2, 1])), ("pads", Ints(&[0, 1, 1, 0])), ("dilations", Ints(&[1, 2]))];
    let sizes = vec![ints("i", &[4, 3]), ints("b", &[2, 2])];
    let y = run(18, &["x: 1[n, 8, 4]"], node("y = Col2Im(x, i, b)", attributes), sizes, &[count_up(&[1, 8, 4])]);
    let expected = [
        2., 5., 6., 10., 13., 14., 4., 7., 8., 12., 15., 16., 18., 21., 22., 26., 29., 30., 20., 23., 24., 28., 31.,
        32.,
    ];
    assert_close(&y[0], &[1, 2, 4, 3], &expected);

    // Blocks of 2 every 3 elements leave the last column of 6 empty, beyond any padding.
    let sizes = vec![ints("i", &[1, 6]), ints("b", &[1, 2])];
    let call = node("y = Col2Im(x, i, b)", vec![("strides", Ints(&[1, 3]))]);
    let y = run(18, &["x: 1[1, 2, 2]"], call, sizes, &[count_up(&[1, 2, 2])]);
    assert_close(&y[0], &[1, 1, 1, 6], &[1., 3., 0., 2., 4., 0.]);
    let reason = refusal(18, &["x: 1[1, 4, 4]", "b: 7[2]"], plain("y = Col2Im(x, i, b)"), vec![ints("i", &[3, 3])]);
    assert_snapshot!(reason, @"the size of its blocks is known only at run time");
}

#[test]
fn unpooled_maxima_of_a_symbolic_batch() {
    let (x, i) = (tensor::<f32>(&[2, 1, 2], &[1., 2., 3., 4.]), tensor::<i64>(&[2, 1, 2], &[1, 2, 5, 6]));
    let call = node("y = MaxUnpool(x, i)", vec![("kernel_shape", Ints(&[2])), ("strides", Ints(&[2]))]);
    let y = run(11, &["x: 1[n, 1, 2]", "i: 7[n, 1, 2]"], call, vec![], &[x, i]);
    assert_close(&y[0], &[2, 1, 4], &[0., 1., 2., 0., 0., 3., 4., 0.]);
}

#[test]
fn fourier_transforms_of_other_lengths() {
    let signal = || tensor::<f32>(&[1, 5, 1], &[1.0, -2.0, 3.0, 0.5, 4.0]);
    let forward = |length: i64, attributes| {
        let call = node("y = DFT(x, l)", attributes);
        run(17, &["x: 1[n, 5, 1]"], call, vec![scalar("l", length)], &[signal()]).remove(0)
    };
    let longer = [6.5, 0., -4.767767, -1.93934, 2., 2.5, -1.232233, 4.060660, 9.5, 0.];
    assert_close(&forward(8, vec![("onesided", Int(1))]), &[1, 5, 2], &longer);
    let shorter = [2.0, 0.0, 0.5, 4.3301272, 0.5, -4.3301272];
    assert_close(&forward(3, vec![("axis", Int(-2))]), &[1, 3, 2], &shorter);

    let spectrum = tensor::<f32>(&[1, 3, 2], &[1., 0., 2., -1., 0., 3.]);
    let inverse = |length: Option<i64>| {
        let attributes = vec![("inverse", Int(1)), ("onesided", Int(1))];
        let call = node(if length.is_some() { "y = DFT(x, l)" } else { "y = DFT(x)" }, attributes);
        let length = length.map(|length| scalar("l", length)).into_iter().collect();
        run(20, &["x: 1[n, 3, 2]"], call, length, std::slice::from_ref(&spectrum)).remove(0)
    };
    assert_close(&inverse(Some(5)), &[1, 5, 1], &[1.0, 0.12229393, 0.92916834, -1.8235956, 0.7721333]);
    assert_close(&inverse(None), &[1, 4, 1], &[1.25, 0.75, -0.75, -0.25]);

    let complex = tensor::<f32>(&[3, 2], &[1., 2., 0., -1., 3., 0.5]);
    let call = node("y = DFT(x)", vec![("inverse", Int(1))]);
    let y = run(20, &["x: 1[3, 2]"], call, vec![], &[complex]);
    let expected = [1.3333333, 0.5, 0.26634604, -0.11602537, -0.59967935, 1.6160253];
    assert_close(&y[0], &[3, 2], &expected);

    assert_snapshot!(refusal(17, &["x: 1[1, n, 1]"], plain("y = DFT(x)"), vec![]), @"the length of the transform is known only at run time");
    let last = node("y = DFT(x)", vec![("axis", Int(2))]);
    assert_snapshot!(refusal(17, &["x: 1[1, 4, 1]"], last, vec![]), @"node `y` (DFT): attribute `axis`: 2 is the axis of real and imaginary parts");
}

#[test]
fn short_time_transforms_of_any_length() {
    let signal: Vec<f32> = (0..8).map(|at| (at * at) as f32).collect();
    let parameters = vec![scalar("step", 2), floats("w", &[4], &[0.5, 1.0, 1.0, 0.25])];
    let call = plain("y = STFT(x, step, w)");
    let y = run(17, &["x: 1[n, t, 1]"], call, parameters, &[tensor(&[1, 8, 1], &signal)]);
    let expected = [7.25, 0., -4., 1.25, 0.75, 0., 33.25, 0., -14., -2.75, 2.75, 0., 81.25, 0., -28., -12.75, 6.75, 0.];
    assert_close(&y[0], &[1, 3, 3, 2], &expected);
}

#[test]
fn windows_of_constant_and_computed_sizes() {
    let hann = [0.0, 0.5, 1.0, 0.5, 0.0];
    let call = || node("y = HannWindow(s)", vec![("periodic", Int(0))]);
    assert_close(&run(17, &[], call(), vec![scalar("s", 5)], &[])[0], &[5], &hann);
    assert_close(&run(17, &["s: 7[]"], call(), vec![], &[Tensor::scalar(5_i64)])[0], &[5], &hann);
    let blackman = run(17, &["s: 6[]"], plain("y = BlackmanWindow(s)"), vec![], &[Tensor::scalar(4_i32)]);
    assert_close(&blackman[0], &[4], &[0.0, 0.34, 1.0, 0.34]);
    let call = node("y = HammingWindow(s)", vec![("output_datatype", Int(11))]);
    let hamming = run(17, &["s: 7[]"], call, vec![], &[Tensor::scalar(3_i64)]);
    assert_eq!(hamming[0].dtype(), DType::F64);
    assert_close(&hamming[0], &[3], &[0.08695652, 0.77173913, 0.77173913]);
}

#[test]
fn mel_weights() {
    let sizes = [scalar("a", 3), scalar("b", 8), scalar("c", 8000)];
    let edges = [floats("d", &[], &[0.0]), floats("e", &[], &[4000.0])];
    let parameters = sizes.into_iter().chain(edges).collect();
    let y = run(17, &[], plain("y = MelWeightMatrix(a, b, c, d, e)"), parameters, &[]);
    assert_close(&y[0], &[5, 3], &[1., 1., 0., 0., 0., 1., 0., 0., 0., 0., 0., 0., 0., 0., 0.]);
}

#[test]
fn weighted_n_grams() {
    let weighted = |mode| {
        let attributes = vec![
            ("mode", Text(mode)),
            ("min_gram_length", Int(1)),
            ("max_gram_length", Int(2)),
            ("max_skip_count", Int(1)),
            ("ngram_counts", Ints(&[0, 2])),
            ("ngram_indexes", Ints(&[1, 0, 2, 3])),
            ("pool_int64s", Ints(&[5, 7, 5, 7, 7, 5])),
            ("weights", write::Value::Floats(&[0.5, 2.0, 3.0, 0.25])),
        ];
        let x = tensor::<i64>(&[2, 4], &[5, 7, 7, 5, 7, 1, 5, 5]);
        run(9, &["x: 7[n, 4]"], node("y = TfIdfVectorizer(x)", attributes), vec![], &[x]).remove(0)
    };
    assert_close(&weighted("TF"), &[2, 4], &[2., 2., 2., 2., 1., 2., 0., 1.]);
    assert_close(&weighted("IDF"), &[2, 4], &[2., 0.5, 3., 0.25, 2., 0.5, 0., 0.25]);
    assert_close(&weighted("TFIDF"), &[2, 4], &[4., 1., 6., 0.5, 2., 1., 0., 0.25]);
}

#[test]
fn unique_slices_with_nans() {
    let nan = f32::NAN;
    let x = tensor::<f32>(&[2, 4], &[nan, 2.0, nan, 1.0, 0.0, 3.0, 0.0, 9.0]);
    let call = node("y, i, v, c = Unique(x)", vec![("axis", Int(1))]);
    let y = run(11, &["x: 1[2, n]"], call, vec![], &[x]);
    assert_eq!(y[0].dims(), [2, 3]);
    assert_eq!(y[0].to_f64s().unwrap()[3..], [9.0, 3.0, 0.0]);
    let indices: Vec<_> = y[1..].iter().map(|indices| indices.to_i64s().unwrap()).collect();
    assert_eq!(indices, [vec![3, 1, 0], vec![2, 1, 2, 0], vec![1, 1, 2]]);
}

#[test]
fn determinants() {
    let three = [2., -1., 0., 1., 3., 2., 0., 5., -4., 1., 0., 0., 0., 2., 0., 0., 0., 3.];
    let y = run(11, &["x: 1[n, 3, 3]"], plain("y = Det(x)"), vec![], &[tensor::<f32>(&[2, 3, 3], &three)]);
    assert_close(&y[0], &[2], &[-48.0, 6.0]);
    let four = [1., 2., 0., 1., 0., 1., 3., 1., 2., 0., 1., 1., 1., 1., 0., 2.];
    let y = run(11, &["x: 1[4, 4]"], plain("y = Det(x)"), vec![], &[tensor::<f32>(&[4, 4], &four)]);
    assert_close(&y[0], &[], &[17.0]);
    assert_snapshot!(refusal(11, &["x: 1[n, 5, 5]"], plain("y = Det(x)"), vec![]), @"determinants of 5 by 5 matrices are not written out, only up to 4");
}

#[test]
fn shrunk_integers_and_bits() {
    let call = node("y = Shrink(x)", vec![("lambd", Float(1.5)), ("bias", Float(1.0))]);
    assert_snapshot!(refusal(9, &["x: 6[4]"], call, vec![]), @"the number 1.5 has no form in i32");
    let call = node("y = Shrink(x)", vec![("lambd", Float(1.0)), ("bias", Float(1.0))]);
    let y = run(9, &["x: 6[4]"], call, vec![], &[tensor::<i32>(&[4], &[-3, -1, 1, 5])]);
    assert_eq!(y, [tensor::<i32>(&[4], &[-2, 0, 0, 4])]);
    let wide = node("y = BitCast(x)", vec![("to", Int(7))]);
    assert_snapshot!(refusal(26, &["x: 1[4]"], wide, vec![]), @"node `y` (BitCast): f32 has 32 bits, i64 has 64");
}

#[test]
fn random_numbers_follow_their_distribution() {
    let attributes = vec![("shape", Ints(&[1000])), ("low", Float(-2.0)), ("high", Float(4.0)), ("seed", Float(7.0))];
    let uniform = run(1 + 7, &[], node("y = RandomUniform()", attributes), vec![], &[]);
    let uniform = uniform[0].to_f64s().unwrap();
    assert!(uniform.iter().all(|x| (-2.0..4.0).contains(x)));
    let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / numbers.len() as f64;
    assert!((mean(&uniform) - 1.0).abs() < 0.2);
    let attributes = vec![("mean", Float(10.0)), ("scale", Float(2.0)), ("dtype", Int(11))];
    let call = node("y = RandomNormalLike(x)", attributes);
    let normal = run(8, &["x: 6[n]"], call, vec![], &[tensor::<i32>(&[1000], &[0; 1000])]);
    let normal = normal[0].to_f64s().unwrap();
    let variance: Vec<f64> = normal.iter().map(|x| (x - mean(&normal)).powi(2)).collect();
    assert!((mean(&normal) - 10.0).abs() < 0.3 && (mean(&variance) - 4.0).abs() < 0.6);

    // One class that takes all.
    let call = node("y = Multinomial(x)", vec![("sample_size", Int(50)), ("dtype", Int(7))]);
    let x = tensor::<f32>(&[2, 3], &[0., -1e9, -1e9, -1e9, -1e9, 0.]);
    let drawn = run(7, &["x: 1[n, 3]"], call, vec![], &[x]);
    assert_eq!(drawn[0].to_i64s().unwrap(), [vec![0; 50], vec![2; 50]].concat());
    let call = node("y = Bernoulli(x)", vec![("dtype", Int(9))]);
    let sure = run(15, &["x: 1[2]"], call, vec![], &[tensor::<f32>(&[2], &[0.0, 1.0])]);
    assert_eq!(sure, [tensor::<bool>(&[2], &[false, true])]);
}

/// Half of the elements are dropped, the others doubled; at inference none are.
#[test]
fn dropout_told_by_an_input() {
    let x = tensor::<f32>(&[1000], &[1.0; 1000]);
    let inputs = ["x: 1[n]", "t: 9[]"];
    let dropped = |training: bool| {
        let data = [x.clone(), Tensor::scalar(training)];
        run(13, &inputs, plain("y, m = Dropout(x, -, t)"), vec![], &data)
    };
    let [y, mask] = &dropped(true)[..] else { panic!() };
    let kept = mask.to_i64s().unwrap();
    assert!((400..600).contains(&kept.iter().sum::<i64>()));
    let doubled = kept.iter().zip(y.to_f64s().unwrap()).all(|(kept, y)| y == 2.0 * *kept as f64);
    assert!(doubled);
    assert_eq!(dropped(false), [x.clone(), tensor::<bool>(&[1000], &[true; 1000])]);
}

/// One query of 2, keys of 1 and 3: scores of -1 and -3.
#[test]
fn flex_attention_with_a_negative_scale() {
    let same = graph(&["s: 1"], &["o: 1"], vec![plain("o = Identity(s)")]);
    let attributes = vec![("scale", Float(-0.5)), ("score_mod", Graph(same))];
    let call = node("y = ai.onnx.preview::FlexAttention(q, k, v)", attributes);
    let graph = graph(&["q: 1[1, 1, 1, 1]", "k: 1[1, 1, 2, 1]", "v: 1[1, 1, 2, 1]"], &["y"], vec![call]);
    let mut model = model(25, graph);
    model.opset_import.push(opset("ai.onnx.preview", 1));
    let model = import(&model).unwrap();
    let [q, k, v] = [(1, vec![2.0_f32]), (2, vec![1.0, 3.0]), (2, vec![10.0, 20.0])]
        .map(|(length, data)| tensor(&[1, 1, length, 1], &data));
    let y = eval_graph(&model.graph, &[q, k, v]).unwrap();
    assert_close(&y[0], &[1, 1, 1, 1], &[11.192_029]);
}

#[test]
fn infinities_that_are_not_looked_for_are_not_found() {
    let call = node("y = IsInf(x)", vec![("detect_negative", Int(0)), ("detect_positive", Int(0))]);
    let y = run(20, &["x: 1[n]"], call, vec![], &[tensor::<f32>(&[2], &[f32::INFINITY, 1.0])]);
    assert_eq!(y, [tensor::<bool>(&[2], &[false, false])]);
}

/// As NumPy's unique of an empty array.
#[test]
fn nothing_is_unique_in_nothing() {
    let empty = || tensor::<i64>(&[0], &[]);
    let y = run(11, &["x: 1[2, 0]"], plain("y, i, j, c = Unique(x)"), vec![], &[tensor::<f32>(&[2, 0], &[])]);
    assert_eq!(y, [tensor::<f32>(&[0], &[]), empty(), empty(), empty()]);
    let call = node("y, i = Unique(x)", vec![("axis", Int(1))]);
    let y = run(11, &["x: 1[2, 0]"], call, vec![], &[tensor::<f32>(&[2, 0], &[])]);
    assert_eq!(y, [tensor::<f32>(&[2, 0], &[]), empty()]);
}

/// The positions of a dynamic feature map as PyTorch exports them: `torch.arange(size, dtype=float)`.
#[test]
fn ranges_of_converted_integers_have_the_shape_that_the_integers_tell() {
    let nodes = || {
        vec![
            plain("s = Shape(x)"),
            plain("w = Gather(s, at)"),
            node("limit = Cast(w)", vec![("to", Int(1))]),
            plain("r = Range(zero, limit, step)"),
            plain("y = Add(x, r)"),
        ]
    };
    let with = |step: f32| {
        let initializer = vec![scalar("at", 1), floats("zero", &[], &[0.0]), floats("step", &[], &[step])];
        model(17, onnx::GraphProto { initializer, ..graph(&["x: 1[h, w]"], &["y"], nodes()) })
    };
    assert_snapshot!(text(&with(1.0)), @"
    graph g(%x: f32[h, w]) -> (%y) {
      %r.start = constant() value=i64[] {0}
      %s = shape(%x) start=0 : i64[2]
      %at = constant() value=i64[] {1}
      %w = gather(%s, %at) axis=0 : i64[]
      %r.step = constant() value=i64[] {1}
      %r.counted = range(%r.start, %w, %r.step) : i64[w]
      %r = cast(%r.counted) to=f32 saturate=true : f32[w]
      %y = add(%x, %r) : f32[h, w]
      %zero = constant() value=f32[] {0.0}
      %step = constant() value=f32[] {1.0}
      %limit = cast(%w) to=f32 saturate=true : f32[]
    }
    ");
    let graph = import(&with(1.0)).unwrap().graph;
    let found = eval_graph(&graph, &[tensor::<f32>(&[1, 3], &[0.5; 3])]).unwrap();
    assert_eq!(found, [tensor::<f32>(&[1, 3], &[0.5, 1.5, 2.5])]);
    // Steps that are not whole are left alone.
    assert!(text(&with(0.5)).contains("range(%zero, %limit, %step)"));
}

/// Weights of one direction would be broadcast to both, and further axes taken for others.
#[test]
fn recurrent_layers_need_weights_of_their_shapes() {
    let refused = |w: &[i64], r: &[i64], b: &[i64]| {
        let call = node("y = RNN(x, w, r, b)", vec![("direction", Text("bidirectional")), ("hidden_size", Int(3))]);
        let zeros = |name: &str, dims: &[i64]| {
            floats(name, dims, &vec![0.0; usize::try_from(dims.iter().product::<i64>()).unwrap()])
        };
        let weights = vec![zeros("w", w), zeros("r", r), zeros("b", b)];
        refusal(22, &["x: 1[4, n, 2]"], call, weights)
    };
    let (w, r, b) = (&[2, 3, 2][..], &[2, 3, 3][..], &[2, 6][..]);
    assert_eq!(refused(w, r, b), "");
    for (reason, expected) in [
        (refused(&[1, 3, 2], r, b), "input 1 is f32[1, 3, 2], [2, 3, any] expected"),
        (refused(&[2, 3, 2, 1], r, b), "input 1 is f32[2, 3, 2, 1], [2, 3, any] expected"),
        (refused(w, &[1, 3, 3], b), "input 2 is f32[1, 3, 3], [2, 3, 3] expected"),
        (refused(w, &[2, 1, 3], b), "input 2 is f32[2, 1, 3], [2, 3, 3] expected"),
        (refused(w, r, &[1, 6]), "input 3 is f32[1, 6], [2, 6] expected"),
        (refused(w, r, &[2, 6, 1]), "input 3 is f32[2, 6, 1], [2, 6] expected"),
    ] {
        assert!(reason.contains(expected), "{reason}");
    }
}

/// What has one direction would be broadcast to both.
#[test]
fn directions_are_one_scan_where_all_inputs_are_known_to_have_two() {
    let scans = |state: &str| {
        let call =
            node("y = RNN(x, w, r, -, -, h)", vec![("direction", Text("bidirectional")), ("hidden_size", Int(3))]);
        let initializer = vec![floats("w", &[2, 3, 2], &[0.5; 12]), floats("r", &[2, 3, 3], &[0.5; 18])];
        let graph = graph(&["x: 1[4, n, 2]", state], &["y"], vec![call]);
        let model = import(&model(22, onnx::GraphProto { initializer, ..graph })).unwrap();
        model.graph.to_string().matches("= scan(").count()
    };
    assert_eq!(["h: 1[2, n, 3]", "h: 1[d, n, 3]"].map(scans), [1, 2]);
}
