//! One operator across opsets: one internal form.

use insta::assert_snapshot;

use super::*;

/// Both forms of a node, which must come to the same text.
fn same(old: (i64, onnx::NodeProto), new: (i64, onnx::NodeProto), tensors: Vec<onnx::TensorProto>) -> String {
    let lines = |text: String| -> String {
        // Constants that nothing reads any more are left behind by the newer form.
        text.lines().filter(|line| !line.contains("= constant()")).map(|line| format!("{line}\n")).collect()
    };
    let (old, new) = (lines(one(old.0, old.1, Vec::new())), lines(one(new.0, new.1, tensors)));
    assert_eq!(old, new);
    new
}

#[test]
fn squeeze_and_unsqueeze() {
    let axes = || vec![ints("axes", &[1, -1])];
    let old = node("y = Unsqueeze(x)", vec![("axes", Ints(&[1, -1]))]);
    assert_snapshot!(same((11, old), (13, plain("y = Unsqueeze(x, axes)")), axes()), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y = unsqueeze(%x) axes=[1, -1] : f32[2, 1, 3, 4, 4, 1]
    }
    ");
    assert_snapshot!(one(13, plain("y = Squeeze(x)"), vec![]), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y = squeeze(%x) : f32[2, 3, 4, 4]
    }
    ");
}

#[test]
fn reductions() {
    let old = node("y = ReduceMean(x)", vec![("axes", Ints(&[2, 3])), ("keepdims", Int(0))]);
    let new = node("y = ReduceMean(x, axes)", vec![("keepdims", Int(0))]);
    assert_snapshot!(same((13, old), (18, new), vec![ints("axes", &[2, 3])]), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y = reduce(%x) kind=mean axes=[2, 3] : f32[2, 3]
    }
    ");
    // No axes: all of them, or none on request.
    assert_snapshot!(one(13, plain("y = ReduceMax(x)"), vec![]), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y = reduce(%x) kind=max keep_dims=true : f32[1, 1, 1, 1]
    }
    ");
    let noop = node("y = ReduceSum(x)", vec![("noop_with_empty_axes", Int(1))]);
    assert_snapshot!(one(13, noop, vec![]), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y = reduce(%x) kind=sum keep_dims=true noop_if_empty=true : f32[2, 3, 4, 4]
    }
    ");
}

#[test]
fn splits() {
    let old = node("a, b = Split(x)", vec![("axis", Int(1)), ("split", Ints(&[1, 2]))]);
    let new = node("a, b = Split(x, sizes)", vec![("axis", Int(1))]);
    assert_snapshot!(same((11, old), (18, new), vec![ints("sizes", &[1, 2])]), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%a, %b) {
      %a, %b = split(%x) axis=1 sizes=[1, 2] : f32[2, 1, 4, 4], f32[2, 2, 4, 4]
    }
    ");
    let count = node("a, b = Split(x)", vec![("axis", Int(2)), ("num_outputs", Int(2))]);
    assert_snapshot!(one(18, count, vec![]), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%a, %b) {
      %a, %b = split(%x) axis=2 : f32[2, 3, 2, 4], f32[2, 3, 2, 4]
    }
    ");
    let wrong = node("a, b = Split(x)", vec![("num_outputs", Int(3))]);
    assert_snapshot!(one(18, wrong, vec![]), @"node `a` (Split): attribute `num_outputs`: 3 found, the node has 2");
}

#[test]
fn pads() {
    let old = node("y = Pad(x)", vec![("pads", Ints(&[0, 0, 1, 2, 0, 0, 3, 4])), ("mode", Text("edge"))]);
    let new = node("y = Pad(x, pads, -, axes)", vec![("mode", Text("edge"))]);
    let tensors = vec![ints("pads", &[2, 1, 4, 3]), ints("axes", &[-1, 2])];
    assert_snapshot!(same((10, old), (19, new), tensors), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y = pad(%x) mode=edge pads=[0, 0, 1, 2, 0, 0, 3, 4] : f32[2, 3, 8, 10]
    }
    ");
    let old = node("y = Pad(x)", vec![("pads", Ints(&[0, 0, 1, 1, 0, 0, 1, 1])), ("value", Float(0.5))]);
    assert_snapshot!(one(10, old, vec![]), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y.value = constant() value=f32[] {0.5}
      %y = pad(%x, _, %y.value) mode=constant pads=[0, 0, 1, 1, 0, 0, 1, 1] : f32[2, 3, 6, 6]
    }
    ");
}

#[test]
fn slices() {
    let old = node("y = Slice(x)", vec![("starts", Ints(&[1])), ("ends", Ints(&[3])), ("axes", Ints(&[2]))]);
    assert_snapshot!(one(9, old, vec![]), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y.starts = constant() value=i64[1] {1}
      %y.ends = constant() value=i64[1] {3}
      %y.axes = constant() value=i64[1] {2}
      %y = slice(%x, %y.starts, %y.ends, %y.axes) : f32[2, 3, 2, 4]
    }
    ");
    let tensors = vec![ints("starts", &[-1]), ints("ends", &[-9]), ints("axes", &[3]), ints("steps", &[-2])];
    assert_snapshot!(one(13, plain("y = Slice(x, starts, ends, axes, steps)"), tensors), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %starts = constant() value=i64[1] {-1}
      %ends = constant() value=i64[1] {-9}
      %axes = constant() value=i64[1] {3}
      %steps = constant() value=i64[1] {-2}
      %y = slice(%x, %starts, %ends, %axes, %steps) : f32[2, 3, 4, 2]
    }
    ");
}

#[test]
fn clips() {
    let old = node("y = Clip(x)", vec![("min", Float(0.0)), ("max", Float(6.0))]);
    let bounds = vec![floats("low", &[], &[0.0]), floats("high", &[], &[6.0])];
    assert_snapshot!(same((6 + 1, old), (13, plain("y = Clip(x, low, high)")), bounds), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y = clip(%x) p=[0.0, 6.0] : f32[2, 3, 4, 4]
    }
    ");
    // A bound that is computed.
    let bounds = vec![floats("high", &[], &[6.0])];
    let graph = graph(&["x: 1[2]", "low: 1[]"], &["y"], vec![plain("y = Clip(x, low, high)")]);
    assert_snapshot!(text(&model(13, onnx::GraphProto { initializer: bounds, ..graph })), @r"
    graph g(%x: f32[2], %low: f32[]) -> (%y) {
      %y.max = max(%x, %low) : f32[2]
      %high = constant() value=f32[] {6.0}
      %y = min(%y.max, %high) : f32[2]
    }
    ");
}

#[test]
fn softmaxes() {
    // Over the last axis alone, and over all axes from the first on.
    let last = node("y = Softmax(x)", vec![("axis", Int(3))]);
    let new = node("y = Softmax(x)", vec![("axis", Int(3))]);
    assert_snapshot!(same((11, last), (13, new), vec![]), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y = softmax(%x) axis=3 : f32[2, 3, 4, 4]
    }
    ");
    assert_snapshot!(one(11, plain("y = LogSoftmax(x)"), vec![]), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y.flat = flatten(%x) axis=1 : f32[2, 48]
      %y.softmax = softmax(%y.flat) axis=1 log=true : f32[2, 48]
      %y.shape = shape(%x) start=0 : i64[4]
      %y = reshape(%y.softmax, %y.shape) allow_zero=true : f32[2, 3, 4, 4]
    }
    ");
    // Axes of size 1 after it make no difference.
    let graph = graph(&["x: 1[n, 10, 1, 1]"], &["y"], vec![plain("y = Softmax(x)")]);
    assert_snapshot!(text(&model(11, graph)), @r"
    graph g(%x: f32[n, 10, 1, 1]) -> (%y) {
      %y = softmax(%x) axis=1 : f32[n, 10, 1, 1]
    }
    ");
}

#[test]
fn resamplings() {
    let old = node("y = Upsample(x)", vec![("scales", Floats(&[1.0, 1.0, 2.0, 2.0])), ("mode", Text("linear"))]);
    let scales = vec![floats("y.scales", &[4], &[1.0, 1.0, 2.0, 2.0])];
    let new = node("y = Upsample(x, y.scales)", vec![("mode", Text("linear"))]);
    assert_snapshot!(same((7, old), (9, new), scales.clone()), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y = resize(%x, _, %y.scales) mode=linear coordinates=asymmetric nearest=floor cubic_coeff=-0.75 extrapolation=0.0 aspect=stretch : f32[2, 3, 8, 8]
    }
    ");
    assert_snapshot!(one(10, plain("y = Resize(x, y.scales)"), scales.clone()), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y.scales = constant() value=f32[4] {1.0, 1.0, 2.0, 2.0}
      %y = resize(%x, _, %y.scales) mode=nearest coordinates=asymmetric nearest=floor cubic_coeff=-0.75 extrapolation=0.0 aspect=stretch : f32[2, 3, 8, 8]
    }
    ");
    // Opset 11 has no empty slot for the region.
    let tensors = vec![floats("none", &[0], &[]), scales[0].clone()];
    let attributes = vec![("mode", Text("cubic")), ("coordinate_transformation_mode", Text("align_corners"))];
    assert_snapshot!(one(11, node("y = Resize(x, none, y.scales)", attributes), tensors), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y.scales = constant() value=f32[4] {1.0, 1.0, 2.0, 2.0}
      %y = resize(%x, _, %y.scales) mode=cubic coordinates=align_corners nearest=round_prefer_floor cubic_coeff=-0.75 extrapolation=0.0 aspect=stretch : f32[2, 3, 8, 8]
      %none = constant() value=f32[0] {}
    }
    ");
    let both = vec![scales[0].clone(), ints("sizes", &[2, 3, 8, 8])];
    assert_snapshot!(one(13, plain("y = Resize(x, -, y.scales, sizes)"), both), @"node `y` (Resize): either scales or sizes expected");
}

#[test]
fn top_k_and_dropout() {
    let old = node("v, i = TopK(x)", vec![("k", Int(2)), ("axis", Int(1))]);
    let new = node("v, i = TopK(x, v.k)", vec![("axis", Int(1))]);
    assert_snapshot!(same((7, old), (11, new), vec![ints("v.k", &[2])]), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%v, %i) {
      %v, %i = topk(%x, %v.k) axis=1 largest=true sorted=true : f32[2, 2, 4, 4], i64[2, 2, 4, 4]
    }
    ");
    let old = node("y = Dropout(x)", vec![("ratio", Float(0.3))]);
    assert_snapshot!(same((7, old), (13, plain("y = Dropout(x, ratio)")), vec![floats("ratio", &[], &[0.3])]), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y = identity(%x) : f32[2, 3, 4, 4]
    }
    ");
    assert_snapshot!(one(13, plain("y, mask = Dropout(x)"), vec![]), @r#"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y, %y.mask as "mask") {
      %y = identity(%x) : f32[2, 3, 4, 4]
      %y.shape = shape(%x) start=0 : i64[4]
      %y.mask = constant_of_shape(%y.shape) value=bool[1] {1} : bool[2, 3, 4, 4]
    }
    "#);
}

#[test]
fn gemms() {
    let gemm = |attributes, initializer| {
        let graph = graph(&["x: 1[n, 3]"], &["y"], vec![node("y = Gemm(x, w, b)", attributes)]);
        text(&model(13, onnx::GraphProto { initializer, ..graph }))
    };
    let weights = || vec![floats("w", &[2, 3], &[1.0; 6]), floats("b", &[2], &[0.5, 0.25])];
    assert_snapshot!(gemm(vec![("transB", Int(1))], weights()), @r"
    graph g(%x: f32[n, 3]) -> (%y) {
      %w = constant() value=f32[2, 3] {1.0, 1.0, 1.0, 1.0, 1.0, 1.0}
      %y.matmul = matmul(%x, %w) transpose_b=true : f32[n, 2]
      %b = constant() value=f32[2] {0.5, 0.25}
      %y = add(%y.matmul, %b) : f32[n, 2]
    }
    ");
    let attributes = vec![("transB", Int(1)), ("alpha", Float(2.0)), ("beta", Float(0.5))];
    assert_snapshot!(gemm(attributes, weights()), @r"
    graph g(%x: f32[n, 3]) -> (%y) {
      %w = constant() value=f32[2, 3] {1.0, 1.0, 1.0, 1.0, 1.0, 1.0}
      %y.matmul = matmul(%x, %w) transpose_b=true : f32[n, 2]
      %y.alpha = constant() value=f32[] {2.0}
      %y.scaled = mul(%y.matmul, %y.alpha) : f32[n, 2]
      %b = constant() value=f32[2] {0.5, 0.25}
      %y.beta = constant() value=f32[] {0.5}
      %y.bias = mul(%b, %y.beta) : f32[2]
      %y = add(%y.scaled, %y.bias) : f32[n, 2]
    }
    ");
    let attributes = vec![("transB", Int(1)), ("beta", Float(0.0))];
    assert_snapshot!(gemm(attributes, weights()), @r"
    graph g(%x: f32[n, 3]) -> (%y) {
      %w = constant() value=f32[2, 3] {1.0, 1.0, 1.0, 1.0, 1.0, 1.0}
      %y = matmul(%x, %w) transpose_b=true : f32[n, 2]
      %b = constant() value=f32[2] {0.5, 0.25}
    }
    ");
}

#[test]
fn windows() {
    let weight = vec![floats("w", &[4, 3, 3, 3], &[0.5; 108])];
    let attributes =
        vec![("auto_pad", Text("SAME_UPPER")), ("strides", Ints(&[2, 2])), ("kernel_shape", Ints(&[3, 3]))];
    assert_snapshot!(one(11, node("y = Conv(x, w)", attributes), weight.clone()), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %w = constant() value=f32[4, 3, 3, 3] #eaf844efbda9929a
      %y = conv(%x, %w) strides=[2, 2] dilations=[1, 1] padding=same_upper groups=1 : f32[2, 4, 2, 2]
    }
    ");
    let attributes = vec![("pads", Ints(&[1, 1, 0, 0])), ("dilations", Ints(&[2, 1]))];
    assert_snapshot!(one(22, node("y = Conv(x, w)", attributes), weight.clone()), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %w = constant() value=f32[4, 3, 3, 3] #eaf844efbda9929a
      %y = conv(%x, %w) strides=[1, 1] dilations=[2, 1] padding=[1, 1, 0, 0] groups=1 : f32[2, 4, 1, 3]
    }
    ");
    let pool = node("y = AveragePool(x)", vec![("kernel_shape", Ints(&[2, 2])), ("count_include_pad", Int(1))]);
    assert_snapshot!(one(7, pool, vec![]), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y = pool(%x) kind=average_include_pad kernel=[2, 2] strides=[1, 1] dilations=[1, 1] : f32[2, 3, 3, 3]
    }
    ");
    assert_snapshot!(one(7, plain("y = GlobalAveragePool(x)"), vec![]), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y = reduce(%x) kind=mean axes=[2, 3] keep_dims=true noop_if_empty=true : f32[2, 3, 1, 1]
    }
    ");
    let wrong = node("y = Conv(x, w)", vec![("kernel_shape", Ints(&[5, 5]))]);
    assert_snapshot!(one(11, wrong, weight.clone()), @"node `y` (Conv): attribute `kernel_shape`: [5, 5] found, the weight is f32[4, 3, 3, 3]");
    let wrong = node("y = Conv(x, w)", vec![("pads", Ints(&[1, 1]))]);
    assert_snapshot!(one(11, wrong, weight.clone()), @"node `y` (Conv): attribute `pads`: 2 numbers found, 4 expected");
    let wrong = node("y = Conv(x, w)", vec![("auto_pad", Text("SAME"))]);
    assert_snapshot!(one(11, wrong, weight), @"node `y` (Conv): attribute `auto_pad`: `SAME` found, one of NOTSET, VALID, SAME_UPPER, SAME_LOWER expected");
}

#[test]
fn normalisations() {
    let vectors = |names: &[&str]| names.iter().map(|name| floats(name, &[3], &[1.0, 2.0, 3.0])).collect::<Vec<_>>();
    let attributes = || vec![("epsilon", Float(0.001)), ("momentum", Float(0.9))];
    let old = node("y = BatchNormalization(x, s, b, m, v)", attributes());
    assert_snapshot!(one(7, old, vectors(&["s", "b", "m", "v"])), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %s = constant() value=f32[3] {1.0, 2.0, 3.0}
      %b = constant() value=f32[3] {1.0, 2.0, 3.0}
      %m = constant() value=f32[3] {1.0, 2.0, 3.0}
      %v = constant() value=f32[3] {1.0, 2.0, 3.0}
      %y = batch_norm(%x, %s, %b, %m, %v) epsilon=0.001 : f32[2, 3, 4, 4]
    }
    ");
    let training = node("y = BatchNormalization(x, s, b, m, v)", vec![("training_mode", Int(1))]);
    assert_snapshot!(one(15, training, vectors(&["s", "b", "m", "v"])), @r#"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %s = constant() value=f32[3] {1.0, 2.0, 3.0}
      %b = constant() value=f32[3] {1.0, 2.0, 3.0}
      %m = constant() value=f32[3] {1.0, 2.0, 3.0}
      %v = constant() value=f32[3] {1.0, 2.0, 3.0}
      %y = opaque(%x, %s, %b, %m, %v) domain="" op_type=BatchNormalization opset=15 reason="it is training" attribute=training_mode attrs=["training_mode=1"] : unknown[..]
    }
    "#);
    // One scale a group becomes one a channel.
    let groups = node("y = GroupNormalization(x, s, b)", vec![("num_groups", Int(3))]);
    assert_snapshot!(one(18, groups, vectors(&["s", "b"])), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %s = constant() value=f32[3] {1.0, 2.0, 3.0}
      %y.scale.column = unsqueeze(%s) axes=[1] : f32[3, 1]
      %y.scale.rows = expand(%y.scale.column) shape=[3, 1] : f32[3, 1]
      %y.scale = reshape(%y.scale.rows) shape=[3] : f32[3]
      %b = constant() value=f32[3] {1.0, 2.0, 3.0}
      %y.bias.column = unsqueeze(%b) axes=[1] : f32[3, 1]
      %y.bias.rows = expand(%y.bias.column) shape=[3, 1] : f32[3, 1]
      %y.bias = reshape(%y.bias.rows) shape=[3] : f32[3]
      %y = group_norm(%x, %y.scale, %y.bias) groups=3 epsilon=1e-5 : f32[2, 3, 4, 4]
    }
    ");
}

#[test]
fn quantizations() {
    let scale = || vec![floats("s", &[], &[0.5])];
    assert_snapshot!(one(10, plain("y = QuantizeLinear(x, s)"), scale()), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %s = constant() value=f32[] {0.5}
      %y = quantize(%x, %s) axis=1 to=u8 saturate=true : u8[2, 3, 4, 4]
    }
    ");
    let attributes = vec![("output_dtype", Int(17)), ("axis", Int(0))];
    assert_snapshot!(one(21, node("y = QuantizeLinear(x, s)", attributes), scale()), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %s = constant() value=f32[] {0.5}
      %y = quantize(%x, %s) axis=0 to=f8e4m3 saturate=true : f8e4m3[2, 3, 4, 4]
    }
    ");
}

#[test]
fn sums_of_many_and_integers() {
    assert_snapshot!(one(8, plain("y = Sum(x, x, x)"), vec![]), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y.add = add(%x, %x) : f32[2, 3, 4, 4]
      %y = add(%y.add, %x) : f32[2, 3, 4, 4]
    }
    ");
    assert_snapshot!(one(8, plain("y = Max(x)"), vec![]), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y = identity(%x) : f32[2, 3, 4, 4]
    }
    ");
    assert_snapshot!(one(13, plain("y = Mean(x, x)"), vec![]), @r"
    graph g(%x: f32[2, 3, 4, 4]) -> (%y) {
      %y.add = add(%x, %x) : f32[2, 3, 4, 4]
      %y.count = constant() value=f32[] {2.0}
      %y = div(%y.add, %y.count) : f32[2, 3, 4, 4]
    }
    ");
    let graph = graph(&["x: 6[3]"], &["y"], vec![plain("y = Relu(x)")]);
    assert_snapshot!(text(&model(14, graph)), @r"
    graph g(%x: i32[3]) -> (%y) {
      %y.zero = constant() value=i32[] {0}
      %y = max(%x, %y.zero) : i32[3]
    }
    ");
}
