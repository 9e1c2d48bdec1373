//! Vision, signals, losses, control flow, and operators that younger opsets have.

use crate::Family;
use crate::maker::{Attr, BOOL, F32, I64, Maker, attrs};

pub(crate) const FAMILIES: &[Family] = &[
    ("roi_align", roi_align),
    ("non_max_suppression", non_max_suppression),
    ("max_unpool", max_unpool),
    ("deform_conv", deform_conv),
    ("affine_grid", affine_grid),
    ("determinant", determinant),
    ("fourier", fourier),
    ("window", window),
    ("losses", losses),
    ("rms_norm", rms_norm),
    ("rotary_embedding", rotary_embedding),
    ("attention", attention),
    ("branch", branch),
    ("repeated", repeated),
    ("scanned", scanned),
    ("empty", empty),
    ("dropout", dropout),
];

fn roi_align(m: &mut Maker) {
    m.opset(&[10, 16]);
    let (batch, channels, regions) = (m.int(1, 2), m.int(1, 3), m.int(1, 4));
    let x = m.ints(2, 4, 8);
    let x = m.random(F32, &[vec![batch, channels], x].concat());
    let corners: Vec<f64> = (0..regions)
        .flat_map(|_| {
            let low = [m.int(0, 12) as f64 / 4.0, m.int(0, 12) as f64 / 4.0];
            [low[0], low[1], low[0] + m.int(1, 16) as f64 / 4.0, low[1] + m.int(1, 16) as f64 / 4.0]
        })
        .collect();
    let of = m.integers(regions, 0, batch - 1);
    let (rois, of) = (m.feed(F32, &[regions, 4], &corners), m.feed(I64, &[regions], &of));
    let mut attrs = attrs! {
        "output_height" => m.int(1, 3), "output_width" => m.int(1, 3), "sampling_ratio" => m.int(1, 3),
        "spatial_scale" => m.pick(&[1.0, 0.5]), "mode" => "avg",
    };
    if m.is_opset(16) {
        attrs.push(("coordinate_transformation_mode", m.pick(&["half_pixel", "output_half_pixel"]).into()));
    }
    m.last("RoiAlign", &[&x, &rois, &of], 1, attrs);
}

fn non_max_suppression(m: &mut Maker) {
    let (batch, classes, boxes) = (m.int(1, 2), m.int(1, 3), m.int(1, 8));
    let corners: Vec<f64> = (0..batch * boxes)
        .flat_map(|_| {
            let low = [m.int(0, 8) as f64, m.int(0, 8) as f64];
            [low[0], low[1], low[0] + m.int(1, 6) as f64, low[1] + m.int(1, 6) as f64]
        })
        .collect();
    // Distinct scores: which of two equal ones is first is not defined.
    let order = m.permutation((batch * classes * boxes) as usize);
    let scores: Vec<f64> = order.into_iter().map(|place| place as f64 / 50.0).collect();
    let boxes_input = m.feed(F32, &[batch, boxes, 4], &corners);
    let scores = m.feed(F32, &[batch, classes, boxes], &scores);
    let most = m.int(1, boxes);
    let most = m.list(&[most]);
    let overlap = m.either(F32, &[1], &[0.33]);
    let least = if m.chance() { m.either(F32, &[1], &[0.21]) } else { String::new() };
    let attrs = attrs! { "center_point_box" => m.chance() };
    m.last("NonMaxSuppression", &[&boxes_input, &scores, &most, &overlap, &least], 1, attrs);
}

fn max_unpool(m: &mut Maker) {
    let shape = [vec![m.int(1, 2), m.int(1, 2)], m.ints(2, 2, 4).iter().map(|half| half * 2).collect()].concat();
    // Distinct, so that places are the same.
    let order = m.permutation(shape.iter().product::<i64>() as usize);
    let data: Vec<f64> = order.into_iter().map(|place| place as f64).collect();
    let x = m.feed(F32, &shape, &data);
    let windows = || attrs! { "kernel_shape" => vec![2, 2], "strides" => vec![2, 2] };
    let pooled = m.node("MaxPool", &[&x], 2, windows());
    m.last("MaxUnpool", &[&pooled[0], &pooled[1]], 1, windows());
}

fn deform_conv(m: &mut Maker) {
    m.opset(&[19]);
    let (groups, outputs) = (m.int(1, 2), m.int(1, 3));
    let (height, width) = (m.int(4, 6), m.int(4, 6));
    let x = m.random(F32, &[1, 2 * groups, height, width]);
    let w = m.weight(&[outputs, 2 * groups, 2, 2]);
    let places = [height - 1, width - 1];
    let shift = m.random(F32, &[1, groups * 8, places[0], places[1]]);
    let b = if m.chance() { m.weight(&[outputs]) } else { String::new() };
    let mask = if m.chance() { m.random(F32, &[1, groups * 4, places[0], places[1]]) } else { String::new() };
    let attrs = attrs! { "kernel_shape" => vec![2, 2], "offset_group" => groups };
    m.last("DeformConv", &[&x, &w, &shift, &b, &mask], 1, attrs);
}

fn affine_grid(m: &mut Maker) {
    m.opset(&[20]);
    let axes = m.int(2, 3);
    let batch = m.int(1, 2);
    let theta = m.random(F32, &[batch, axes, axes + 1]);
    let size = [vec![batch, 1], m.ints(axes as usize, 2, 4)].concat();
    let size = m.list(&size);
    let attrs = attrs! { "align_corners" => m.chance() };
    m.last("AffineGrid", &[&theta, &size], 1, attrs);
}

fn determinant(m: &mut Maker) {
    let size = m.int(1, 4);
    let shape = [m.shape(0, 2), vec![size, size]].concat();
    let x = m.random(F32, &shape);
    m.last("Det", &[&x], 1, attrs! {});
}

fn fourier(m: &mut Maker) {
    m.opset(&[17, 20]);
    let (batch, size) = (m.int(1, 2), m.int(2, 9));
    let parts = m.int(1, 2);
    let x = m.random(F32, &[batch, size, parts]);
    let length = if m.chance() { m.int(2, 9) } else { size };
    let length = m.constant(I64, &[], &[length as f64]);
    let inverse = parts == 2 && m.chance();
    let one_sided = parts == 1 && m.chance();
    let mut attrs = attrs! { "inverse" => inverse, "onesided" => one_sided };
    if m.is_opset(20) {
        let axis = m.constant(I64, &[], &[1.0]);
        return m.last("DFT", &[&x, &length, &axis], 1, attrs);
    }
    attrs.push(("axis", 1.into()));
    m.last("DFT", &[&x, &length], 1, attrs);
}

fn window(m: &mut Maker) {
    let op = m.pick(&["HannWindow", "HammingWindow", "BlackmanWindow"]);
    let size = m.int(2, 12);
    let size = m.constant(I64, &[], &[size as f64]);
    let attrs = attrs! { "periodic" => m.chance() };
    let window = m.op(op, &[&size], attrs);
    let x = m.random(F32, &[]);
    m.last("Mul", &[&window, &x], 1, attrs! {});
}

fn losses(m: &mut Maker) {
    let (batch, classes) = (m.int(1, 4), m.int(2, 5));
    let rest = m.shape(0, 2);
    let of_labels = [vec![batch], rest.clone()].concat();
    let scores = m.random(F32, &[vec![batch, classes], rest].concat());
    let data = m.integers(of_labels.iter().product(), 0, classes - 1);
    let labels = m.feed(I64, &of_labels, &data);
    let weights = if m.chance() { m.constant(F32, &[classes], &vec![0.75; classes as usize]) } else { String::new() };
    let mut attrs = attrs! { "reduction" => m.pick(&["mean", "sum", "none"]) };
    if m.chance() {
        attrs.push(("ignore_index", 1.into()));
    }
    if m.chance() {
        m.last("NegativeLogLikelihoodLoss", &[&scores, &labels, &weights], 1, attrs);
    } else {
        m.last("SoftmaxCrossEntropyLoss", &[&scores, &labels, &weights], 2, attrs);
    }
}

fn rms_norm(m: &mut Maker) {
    m.opset(&[23]);
    let shape = m.shape(1, 4);
    let axis = m.axis(shape.len());
    let x = m.random(F32, &shape);
    let scale = m.weight(&shape[axis.rem_euclid(shape.len() as i64) as usize..]);
    m.last("RMSNormalization", &[&x, &scale], 1, attrs! { "axis" => axis, "epsilon" => 0.01 });
}

fn rotary_embedding(m: &mut Maker) {
    m.opset(&[23]);
    let (batch, heads, length, half) = (m.int(1, 2), m.int(1, 3), m.int(1, 4), m.int(1, 3));
    let flat = m.chance();
    let shape = if flat { vec![batch, length, heads * half * 2] } else { vec![batch, heads, length, half * 2] };
    let x = m.random(F32, &shape);
    let (cos, sin) = (m.random(F32, &[6, half]), m.random(F32, &[6, half]));
    let places = m.integers(batch * length, 0, 5);
    let places = m.feed(I64, &[batch, length], &places);
    let attrs = attrs! { "interleaved" => m.chance(), "num_heads" => heads };
    m.last("RotaryEmbedding", &[&x, &cos, &sin, &places], 1, attrs);
}

fn attention(m: &mut Maker) {
    m.opset(&[23]);
    let (batch, groups, per_group, length, keys) = (m.int(1, 2), m.int(1, 2), m.int(1, 2), m.int(1, 4), m.int(1, 4));
    let (size, of_values, heads) = (m.int(1, 4), m.int(1, 4), groups * per_group);
    let flat = m.chance();
    let shape = |heads: i64, length: i64, size: i64| {
        if flat { vec![batch, length, heads * size] } else { vec![batch, heads, length, size] }
    };
    let q = m.random(F32, &shape(heads, length, size));
    let k = m.random(F32, &shape(groups, keys, size));
    let v = m.random(F32, &shape(groups, keys, of_values));
    let mask = if m.chance() { m.random(F32, &[length, keys]) } else { String::new() };
    let mut attrs = attrs! { "is_causal" => m.chance() };
    if flat {
        attrs.extend(attrs! { "q_num_heads" => heads, "kv_num_heads" => groups });
    }
    if m.chance() {
        attrs.push(("softcap", 0.75.into()));
    }
    if m.chance() {
        attrs.push(("scale", 0.5.into()));
    }
    m.last("Attention", &[&q, &k, &v, &mask], 1, attrs);
}

fn branch(m: &mut Maker) {
    let shape = m.shape(1, 3);
    let x = m.random(F32, &shape);
    let on = m.chance();
    let on = m.either(BOOL, &[], &[f64::from(u8::from(on))]);
    let ops = ["Neg", "Exp", "Tanh", "Identity"];
    let (then, other) = (m.pick(&ops), m.pick(&ops));
    let scale = m.weight(&shape);
    let y = m.op("Mul", &[&x, &scale], attrs! {});
    let then = m.body(&[], |m| {
        let z = m.op(then, &[&y], attrs! {});
        vec![z]
    });
    let other = m.body(&[], |m| {
        let z = m.op(other, &[&x], attrs! {});
        vec![m.op("Add", &[&z, &y], attrs! {})]
    });
    m.last("If", &[&on], 1, vec![("then_branch", then), ("else_branch", other)]);
}

fn repeated(m: &mut Maker) {
    let shape = m.shape(1, 3);
    let (x, w) = (m.random(F32, &shape), m.weight(&shape));
    let times = m.int(1, 4) as f64;
    let times = m.either(I64, &[], &[times]);
    let stops = m.chance();
    let body = m.body(&["7[]", "9[]", "1"], |m| {
        let [at, on, carried] = [0, 1, 2].map(|slot| m.body_input(slot));
        let half = m.constant(F32, &[], &[0.5]);
        let half = m.op("Mul", &[&carried, &half], attrs! {});
        let next = m.op("Add", &[&half, &w], attrs! {});
        let step = m.op("Cast", &[&at], attrs! { "to" => i64::from(F32) });
        let scanned = m.op("Mul", &[&next, &step], attrs! {});
        let two = m.constant(I64, &[], &[2.0]);
        let again = if stops { m.op("Less", &[&at, &two], attrs! {}) } else { m.op("Identity", &[&on], attrs! {}) };
        vec![again, next, scanned]
    });
    let on = if m.chance() { m.constant(BOOL, &[], &[1.0]) } else { String::new() };
    m.last("Loop", &[&times, &on, &x], 2, vec![("body", body)]);
}

fn scanned(m: &mut Maker) {
    let (length, size) = (m.int(1, 5), m.int(1, 4));
    let x = m.random(F32, &[length, size]);
    let state = m.weight(&[size]);
    let body = m.body(&["1", "1"], |m| {
        let [state, row] = [0, 1].map(|slot| m.body_input(slot));
        let half = m.constant(F32, &[], &[0.5]);
        let half = m.op("Mul", &[&state, &half], attrs! {});
        let next = m.op("Add", &[&half, &row], attrs! {});
        let out = m.op("Tanh", &[&next], attrs! {});
        vec![next, out]
    });
    let direction = |m: &mut Maker| Attr::Ints(m.ints(1, 0, 1));
    let attrs = vec![
        ("body", body),
        ("num_scan_inputs", 1.into()),
        ("scan_input_directions", direction(m)),
        ("scan_output_directions", direction(m)),
    ];
    m.last("Scan", &[&state, &x], 2, attrs);
}

/// Operators on tensors without elements.
fn empty(m: &mut Maker) {
    m.opset(&[18]);
    let mut shape = m.shape(2, 3);
    let at = m.int(0, shape.len() as i64 - 1);
    shape[at as usize] = 0;
    let x = m.random(F32, &shape);
    match m.int(0, 7) {
        0 => m.last("Relu", &[&x], 1, attrs! {}),
        1 => {
            let axes = m.list(&[at]);
            let op = m.pick(&["ReduceSum", "ReduceProd", "ReduceL1", "ReduceSumSquare"]);
            let attrs = attrs! { "keepdims" => m.chance() };
            m.last(op, &[&x, &axes], 1, attrs);
        }
        2 => m.last("Concat", &[&x, &x], 1, attrs! { "axis" => at }),
        3 => m.last("Transpose", &[&x], 1, attrs! {}),
        4 => {
            let shape = m.op("Shape", &[&x], attrs! {});
            let filled = m.op("ConstantOfShape", &[&shape], attrs! {});
            m.last("Add", &[&x, &filled], 1, attrs! {});
        }
        5 => {
            let (inner, last) = (shape[shape.len() - 1], m.int(1, 3));
            let w = m.random(F32, &[inner, last]);
            m.last("MatMul", &[&x, &w], 1, attrs! {});
        }
        6 => {
            let target = if m.chance() { m.list(&[0]) } else { m.list(&[3, 0]) };
            m.last("Reshape", &[&x, &target], 1, attrs! { "allowzero" => 1 });
        }
        _ => {
            let pads: Vec<i64> = vec![1; 2 * shape.len()];
            let pads = m.list(&pads);
            m.last("Pad", &[&x, &pads], 1, attrs! {});
        }
    }
}

fn dropout(m: &mut Maker) {
    let shape = m.shape(1, 3);
    let x = m.random(F32, &shape);
    let ratio = m.constant(F32, &[], &[0.5]);
    let outputs = m.int(1, 2) as usize;
    m.last("Dropout", &[&x, &ratio], outputs, attrs! {});
}
