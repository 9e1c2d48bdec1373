//! Windows, resampling, normalisation, quantization, recurrence.

use crate::Family;
use crate::maker::{Attr, Attrs, F32, I8, I32, Maker, U8, attrs};

pub(crate) const FAMILIES: &[Family] = &[
    ("conv", conv),
    ("conv_transpose", conv_transpose),
    ("max_pool", max_pool),
    ("average_pool", average_pool),
    ("lp_pool", lp_pool),
    ("global_pool", global_pool),
    ("resize_nearest", resize_nearest),
    ("resize_linear", resize_linear),
    ("resize_cubic", resize_cubic),
    ("grid_sample", grid_sample),
    ("col2im", col2im),
    ("batch_norm", batch_norm),
    ("layer_norm", layer_norm),
    ("instance_norm", instance_norm),
    ("group_norm", group_norm),
    ("other_norms", other_norms),
    ("quantize", quantize),
    ("dequantize", dequantize),
    ("dynamic_quantize", dynamic_quantize),
    ("qlinear_conv", qlinear_conv),
    ("integer_products", integer_products),
    ("lstm", lstm),
    ("gru", gru),
    ("rnn", rnn),
];

/// Windows over `axes` axes, each no larger than an input that has at least 6 elements on each.
struct Windows {
    kernel: Vec<i64>,
    attrs: Attrs,
}

/// Padding below the kernel's size, or told by name; a name goes without dilations, as onnxruntime wants it.
fn windows(m: &mut Maker, axes: usize, dilated: bool) -> Windows {
    let kernel = m.ints(axes, 1, 3);
    let mut attrs = attrs! { "kernel_shape" => kernel.clone() };
    let named = m.int(0, 3) == 0;
    if m.chance() {
        // Named padding is negative where a stride is larger than its window: onnxruntime's pools cut there, ours do not.
        let strides: Vec<i64> = kernel.iter().map(|size| m.int(1, if named { *size } else { 3 })).collect();
        attrs.push(("strides", strides.into()));
    }
    if named {
        attrs.push(("auto_pad", m.pick(&["SAME_UPPER", "SAME_LOWER", "VALID"]).into()));
    } else {
        let pads: Vec<i64> = [&kernel, &kernel].into_iter().flatten().map(|size| m.int(0, size - 1)).collect();
        attrs.push(("pads", pads.into()));
        if dilated && m.chance() {
            attrs.push(("dilations", m.ints(axes, 1, 2).into()));
        }
    }
    Windows { kernel, attrs }
}

fn image(m: &mut Maker, axes: usize, channels: i64) -> Vec<i64> {
    [vec![m.int(1, 3), channels], m.ints(axes, 6, 9)].concat()
}

fn conv(m: &mut Maker) {
    let axes = m.int(1, 3) as usize;
    let (group, per_group, out_per_group) = (m.int(1, 3), m.int(1, 2), m.int(1, 3));
    let Windows { kernel, mut attrs } = windows(m, axes, true);
    let shape = image(m, axes, group * per_group);
    let x = m.random(F32, &shape);
    let w = m.weight(&[vec![group * out_per_group, per_group], kernel].concat());
    let b = if m.chance() { m.weight(&[group * out_per_group]) } else { String::new() };
    attrs.push(("group", group.into()));
    m.last("Conv", &[&x, &w, &b], 1, attrs);
}

fn conv_transpose(m: &mut Maker) {
    let axes = m.int(1, 2) as usize;
    let (group, per_group, out_per_group) = (m.int(1, 2), m.int(1, 2), m.int(1, 3));
    let kernel = m.ints(axes, 2, 3);
    let form = m.int(0, 3);
    // As for other windows, no name for negative padding.
    let strides: Vec<i64> = kernel.iter().map(|size| m.int(1, if form == 0 { *size } else { 3 })).collect();
    let mut attrs = attrs! { "kernel_shape" => kernel.clone(), "strides" => strides.clone(), "group" => group };
    match form {
        0 => attrs.push(("auto_pad", m.pick(&["SAME_UPPER", "SAME_LOWER", "VALID"]).into())),
        1 => {
            attrs.push(("pads", m.ints(2 * axes, 0, 1).into()));
            attrs.push(("dilations", m.ints(axes, 1, 2).into()));
        }
        _ => {
            attrs.push(("pads", m.ints(2 * axes, 0, 1).into()));
            let most = strides.iter().min().unwrap() - 1;
            attrs.push(("output_padding", m.ints(axes, 0, most).into()));
        }
    }
    let shape = image(m, axes, group * per_group);
    let x = m.random(F32, &shape);
    let w = m.weight(&[vec![group * per_group, out_per_group], kernel].concat());
    let b = if m.chance() { m.weight(&[group * out_per_group]) } else { String::new() };
    m.last("ConvTranspose", &[&x, &w, &b], 1, attrs);
}

fn max_pool(m: &mut Maker) {
    let axes = m.int(1, 3) as usize;
    let Windows { mut attrs, .. } = windows(m, axes, true);
    attrs.push(("ceil_mode", m.chance().into()));
    let channels = m.int(1, 3);
    let shape = image(m, axes, channels);
    let x = m.random(F32, &shape);
    let outputs = m.int(1, 2) as usize;
    if outputs == 2 && m.chance() {
        attrs.push(("storage_order", 1.into()));
    }
    m.last("MaxPool", &[&x], outputs, attrs);
}

fn average_pool(m: &mut Maker) {
    m.opset(&[11, 19, 22]);
    let axes = m.int(1, 3) as usize;
    let dilated = m.is_opset(19);
    let Windows { mut attrs, .. } = windows(m, axes, dilated);
    attrs.push(("ceil_mode", m.chance().into()));
    attrs.push(("count_include_pad", m.chance().into()));
    let channels = m.int(1, 3);
    let shape = image(m, axes, channels);
    let x = m.random(F32, &shape);
    m.last("AveragePool", &[&x], 1, attrs);
}

fn lp_pool(m: &mut Maker) {
    let axes = m.int(1, 2) as usize;
    let Windows { mut attrs, .. } = windows(m, axes, true);
    attrs.push(("p", m.int(1, 3).into()));
    let channels = m.int(1, 3);
    let shape = image(m, axes, channels);
    let x = m.random(F32, &shape);
    m.last("LpPool", &[&x], 1, attrs);
}

fn global_pool(m: &mut Maker) {
    let op = m.pick(&["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"]);
    let axes = m.int(1, 3) as usize;
    let shape = image(m, axes, 3);
    let x = m.random(F32, &shape);
    let attrs = if op == "GlobalLpPool" {
        attrs! { "p" => m.int(1, 3) }
    } else {
        attrs! {}
    };
    m.last(op, &[&x], 1, attrs);
}

/// The inputs and attributes that say to what size: of the last `axes` of a shape.
fn resize(m: &mut Maker, axes: usize, attrs: Attrs) {
    m.opset(&[13, 18, 19]);
    let shape: Vec<i64> = [vec![m.int(1, 2), m.int(1, 2)], m.ints(axes, 2, 6)].concat();
    let x = m.random(F32, &shape);
    if m.chance() {
        // Of a size cut short, onnxruntime aligns the corners; ONNX's own tests those of the size before.
        let aligned = attrs.iter().any(|(_, value)| matches!(value, Attr::Text(text) if text == "align_corners"));
        let scales = if aligned { &[1.0, 2.0, 3.0][..] } else { &[0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0] };
        let scales: Vec<f64> = (0..axes).map(|_| m.pick(scales)).collect();
        let scales = [vec![1.0, 1.0], scales].concat();
        let scales = m.constant(F32, &[scales.len() as i64], &scales);
        m.last("Resize", &[&x, "", &scales], 1, attrs);
    } else {
        let sizes = [shape[..2].to_vec(), m.ints(axes, 1, 12)].concat();
        let sizes = m.list(&sizes);
        m.last("Resize", &[&x, "", "", &sizes], 1, attrs);
    }
}

const COORDINATES: &[&str] = &["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"];

fn resize_nearest(m: &mut Maker) {
    let axes = m.int(1, 2) as usize;
    let attrs = attrs! {
        "mode" => "nearest", "coordinate_transformation_mode" => m.pick(COORDINATES),
        "nearest_mode" => m.pick(&["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    };
    resize(m, axes, attrs);
}

fn resize_linear(m: &mut Maker) {
    let axes = m.int(1, 2) as usize;
    let attrs = attrs! { "mode" => "linear", "coordinate_transformation_mode" => m.pick(COORDINATES) };
    resize(m, axes, attrs);
}

fn resize_cubic(m: &mut Maker) {
    let mut attrs = attrs! {
        "mode" => "cubic", "coordinate_transformation_mode" => m.pick(COORDINATES), "exclude_outside" => m.chance(),
    };
    if m.chance() {
        attrs.push(("cubic_coeff_a", (-0.5).into()));
    }
    resize(m, 2, attrs);
}

fn grid_sample(m: &mut Maker) {
    m.opset(&[16, 20]);
    let modes: &[&str] =
        if m.is_opset(20) { &["linear", "nearest", "cubic"] } else { &["bilinear", "nearest", "bicubic"] };
    let (batch, channels) = (m.int(1, 2), m.int(1, 3));
    let x = m.ints(2, 1, 6);
    let x = m.random(F32, &[vec![batch, channels], x].concat());
    let shape = [vec![batch], m.ints(2, 1, 4), vec![2]].concat();
    let count = shape.iter().product();
    // Beyond the edges too, never on the way between two of a nearest.
    let data: Vec<f64> = m.numbers(count, -1.4, 1.4).into_iter().map(|place| place + 0.0123).collect();
    let grid = m.feed(F32, &shape, &data);
    let attrs = attrs! {
        "mode" => m.pick(modes), "padding_mode" => m.pick(&["zeros", "border", "reflection"]),
        "align_corners" => m.chance(),
    };
    m.last("GridSample", &[&x, &grid], 1, attrs);
}

fn col2im(m: &mut Maker) {
    let image = m.ints(2, 4, 6);
    let block = m.ints(2, 1, 3);
    let (pads, strides, dilations) = (m.ints(4, 0, 1), m.ints(2, 1, 2), m.ints(2, 1, 1));
    let places: i64 = (0..2).map(|at| (image[at] + pads[at] + pads[at + 2] - block[at]) / strides[at] + 1).product();
    let channels = m.int(1, 2);
    let batch = m.int(1, 2);
    let x = m.random(F32, &[batch, channels * block[0] * block[1], places]);
    let (image, block) = (m.list(&image), m.list(&block));
    let attrs = attrs! { "pads" => pads, "strides" => strides, "dilations" => dilations };
    m.last("Col2Im", &[&x, &image, &block], 1, attrs);
}

/// Floats above 0.
fn positive(m: &mut Maker, dims: &[i64]) -> String {
    let data = m.numbers(dims.iter().product(), 0.5, 2.0);
    m.either(F32, dims, &data)
}

fn batch_norm(m: &mut Maker) {
    let shape = [vec![m.int(1, 3), m.int(1, 4)], m.shape(0, 3)].concat();
    let x = m.random(F32, &shape);
    let (scale, bias, mean) = (m.weight(&shape[1..2]), m.weight(&shape[1..2]), m.weight(&shape[1..2]));
    let variance = positive(m, &shape[1..2]);
    let attrs = if m.chance() {
        attrs! { "epsilon" => 0.01 }
    } else {
        attrs! {}
    };
    m.last("BatchNormalization", &[&x, &scale, &bias, &mean, &variance], 1, attrs);
}

fn layer_norm(m: &mut Maker) {
    let shape = m.shape(1, 4);
    let axis = m.axis(shape.len());
    let of_scale = shape[axis.rem_euclid(shape.len() as i64) as usize..].to_vec();
    let x = m.random(F32, &shape);
    let scale = m.weight(&of_scale);
    let bias = if m.chance() { m.weight(&of_scale) } else { String::new() };
    let outputs = m.pick(&[1, 3]);
    m.last("LayerNormalization", &[&x, &scale, &bias], outputs, attrs! { "axis" => axis, "epsilon" => 0.01 });
}

fn instance_norm(m: &mut Maker) {
    let axes = m.int(1, 3) as usize;
    let shape = image(m, axes, 3);
    let x = m.random(F32, &shape);
    let (scale, bias) = (m.weight(&[3]), m.weight(&[3]));
    m.last("InstanceNormalization", &[&x, &scale, &bias], 1, attrs! { "epsilon" => 0.01 });
}

fn group_norm(m: &mut Maker) {
    m.opset(&[18, 21]);
    let (groups, per_group) = (m.int(1, 3), m.int(1, 3));
    let axes = m.int(1, 2) as usize;
    let shape = image(m, axes, groups * per_group);
    let x = m.random(F32, &shape);
    let of_scale = if m.is_opset(21) { groups * per_group } else { groups };
    let (scale, bias) = (m.weight(&[of_scale]), m.weight(&[of_scale]));
    m.last("GroupNormalization", &[&x, &scale, &bias], 1, attrs! { "num_groups" => groups, "epsilon" => 0.01 });
}

fn other_norms(m: &mut Maker) {
    let op = m.pick(&["LRN", "LpNormalization", "MeanVarianceNormalization"]);
    let channels = m.int(2, 6);
    let shape = image(m, 2, channels);
    let x = m.random(F32, &shape);
    let attrs = match op {
        "LRN" => attrs! { "size" => m.pick(&[1, 3, 5]), "alpha" => 0.5, "beta" => 0.6, "bias" => 1.5 },
        "LpNormalization" => attrs! { "axis" => m.axis(4), "p" => m.int(1, 2) },
        _ => attrs! {},
    };
    m.last(op, &[&x], 1, attrs);
}

/// Scale and zero point of a type, for the whole or for each step of an axis.
fn scales(m: &mut Maker, dtype: i32, count: Option<i64>) -> (String, String) {
    let dims: Vec<i64> = count.into_iter().collect();
    let count = count.unwrap_or(1);
    // Powers of two, so that quotients are exact and ties are ties.
    let data: Vec<f64> = (0..count).map(|_| m.pick(&[0.0625, 0.125, 0.25])).collect();
    let scale = m.constant(F32, &dims, &data);
    let zeros = match (dtype, m.int(0, 2)) {
        (_, 0) => vec![0.0; count as usize],
        (U8, 1) => vec![128.0; count as usize],
        (U8, _) => m.integers(count, 0, 255),
        _ => m.integers(count, -20, 20),
    };
    let zero = m.constant(dtype, &dims, &zeros);
    (scale, zero)
}

fn quantize(m: &mut Maker) {
    let shape = m.shape(1, 4);
    let dtype = m.pick(&[U8, I8]);
    let x = m.data(F32, &shape).into_iter().map(|x| x * 8.0).collect::<Vec<f64>>();
    let x = m.feed(F32, &shape, &x);
    let axis = m.axis(shape.len());
    let count = m.chance().then(|| shape[axis.rem_euclid(shape.len() as i64) as usize]);
    let (scale, zero) = scales(m, dtype, count);
    let zero = if dtype == U8 && m.int(0, 3) == 0 { String::new() } else { zero };
    m.last("QuantizeLinear", &[&x, &scale, &zero], 1, attrs! { "axis" => axis });
}

fn dequantize(m: &mut Maker) {
    let shape = m.shape(1, 4);
    let dtype = m.pick(&[U8, I8]);
    let axis = m.axis(shape.len());
    let count = m.chance().then(|| shape[axis.rem_euclid(shape.len() as i64) as usize]);
    let (low, high) = if dtype == U8 { (0, 255) } else { (-128, 127) };
    let data = m.integers(shape.iter().product(), low, high);
    let x = m.feed(dtype, &shape, &data);
    let (scale, zero) = scales(m, dtype, count);
    let y = m.op("DequantizeLinear", &[&x, &scale, &zero], attrs! { "axis" => axis });
    m.output(&y);
    if m.chance() {
        // And there again.
        m.last("QuantizeLinear", &[&y, &scale, &zero], 1, attrs! { "axis" => axis });
    }
}

fn dynamic_quantize(m: &mut Maker) {
    let shape = m.shape(1, 3);
    // Off any grid: the scale is rounded, and a tie would be one only for some.
    let data: Vec<f64> = m.data(F32, &shape).into_iter().map(|x| x * 1.237 + 0.0417).collect();
    let x = m.feed(F32, &shape, &data);
    m.last("DynamicQuantizeLinear", &[&x], 3, attrs! {});
}

/// Weights have 7 bits: without VNNI, onnxruntime's sums of two products of more saturate at 16 bits.
fn qlinear_conv(m: &mut Maker) {
    let Windows { kernel, attrs } = windows(m, 2, true);
    let (channels, outputs) = (m.int(1, 3), m.int(1, 3));
    let shape = image(m, 2, channels);
    let data = m.integers(shape.iter().product(), 0, 255);
    let x = m.feed(U8, &shape, &data);
    let of_w = [vec![outputs, channels], kernel].concat();
    let data = m.integers(of_w.iter().product(), -64, 63);
    let w = m.constant(I8, &of_w, &data);
    let (x_scale, x_zero) = scales(m, U8, None);
    let (w_scale, _) = scales(m, I8, Some(outputs));
    let w_zero = m.constant(I8, &[outputs], &vec![0.0; outputs as usize]);
    let y_scale = m.constant(F32, &[], &[8.0]);
    let y_zero = m.constant(U8, &[], &[111.0]);
    let bias = m.integers(outputs, -900, 900);
    let bias = if m.chance() { m.constant(I32, &[outputs], &bias) } else { String::new() };
    let inputs = [&x, &x_scale, &x_zero, &w, &w_scale, &w_zero, &y_scale, &y_zero, &bias];
    let inputs: Vec<&str> = inputs.into_iter().map(String::as_str).collect();
    m.last("QLinearConv", &inputs, 1, attrs);
}

fn integer_products(m: &mut Maker) {
    let zero_of_a = m.int(0, 255) as f64;
    if m.chance() {
        let (rows, inner, columns) = (m.int(1, 5), m.int(1, 300), m.int(1, 5));
        let a = m.integers(rows * inner, 0, 255);
        let b = m.integers(inner * columns, -64, 63);
        let (a, b) = (m.feed(U8, &[rows, inner], &a), m.either(I8, &[inner, columns], &b));
        let zero = m.either(U8, &[], &[zero_of_a]);
        return m.last("MatMulInteger", &[&a, &b, &zero], 1, attrs! {});
    }
    let Windows { kernel, attrs } = windows(m, 2, true);
    let shape = image(m, 2, 2);
    let data = m.integers(shape.iter().product(), 0, 255);
    let x = m.feed(U8, &shape, &data);
    let of_w = [vec![3, 2], kernel].concat();
    let data = m.integers(of_w.iter().product(), 0, 255);
    let w = m.constant(U8, &of_w, &data);
    let zero = m.either(U8, &[], &[zero_of_a]);
    m.last("ConvInteger", &[&x, &w, &zero], 1, attrs);
}

fn lstm(m: &mut Maker) {
    recurrent(m, "LSTM", 4);
}

fn gru(m: &mut Maker) {
    recurrent(m, "GRU", 3);
}

fn rnn(m: &mut Maker) {
    recurrent(m, "RNN", 1);
}

fn recurrent(m: &mut Maker, op: &str, gates: i64) {
    let (time, batch, size, hidden) = (m.int(1, 5), m.int(1, 3), m.int(1, 4), m.int(1, 4));
    let direction = m.pick(&["forward", "reverse", "bidirectional"]);
    let directions = if direction == "bidirectional" { 2 } else { 1 };
    let x = m.random(F32, &[time, batch, size]);
    let (w, r) = (m.weight(&[directions, gates * hidden, size]), m.weight(&[directions, gates * hidden, hidden]));
    let given = |m: &mut Maker, dims: &[i64]| if m.chance() { m.weight(dims) } else { String::new() };
    let b = given(m, &[directions, 2 * gates * hidden]);
    let lengths = if m.int(0, 2) == 0 {
        let lengths = m.integers(batch, 1, time);
        m.either(I32, &[batch], &lengths)
    } else {
        String::new()
    };
    let h = given(m, &[directions, batch, hidden]);
    let mut attrs = attrs! { "hidden_size" => hidden, "direction" => direction };
    let mut inputs = vec![x, w, r, b, lengths, h];
    match op {
        "LSTM" => {
            inputs.push(given(m, &[directions, batch, hidden]));
            inputs.push(given(m, &[directions, 3 * hidden]));
        }
        "GRU" => attrs.push(("linear_before_reset", m.chance().into())),
        _ => {}
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    m.last(op, &inputs, if op == "LSTM" { 3 } else { 2 }, attrs);
}
