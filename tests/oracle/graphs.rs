//! Small graphs of the operators and motifs that passes look for.

use crate::Family;
use crate::maker::{F32, I64, Maker, attrs};

pub(crate) const FAMILIES: &[Family] =
    &[("images", images), ("tokens", tokens), ("shape_arithmetic", shape_arithmetic)];

/// A chain over images: convolutions, normalisations, activations, joins.
fn images(m: &mut Maker) {
    let (batch, mut channels) = (m.int(1, 2), m.int(2, 4));
    let (height, width) = (m.int(4, 8), m.int(4, 8));
    let mut x = m.random(F32, &[batch, channels, height, width]);
    for _ in 0..m.int(3, 8) {
        let before = x.clone();
        x = match m.int(0, 11) {
            0 | 1 => {
                let outputs = m.int(2, 4);
                let w = m.weight(&[outputs, channels, 3, 3]);
                let b = if m.chance() { m.weight(&[outputs]) } else { String::new() };
                channels = outputs;
                m.op("Conv", &[&x, &w, &b], attrs! { "pads" => vec![1, 1, 1, 1] })
            }
            2 => {
                let (scale, bias, mean) = (m.weight(&[channels]), m.weight(&[channels]), m.weight(&[channels]));
                let variance = m.numbers(channels, 0.5, 2.0);
                let variance = m.constant(F32, &[channels], &variance);
                m.op("BatchNormalization", &[&x, &scale, &bias, &mean, &variance], attrs! {})
            }
            3 => {
                let op = m.pick(&["Relu", "Sigmoid", "Tanh", "HardSwish", "Softplus", "LeakyRelu", "Neg", "Abs"]);
                m.op(op, &[&x], attrs! {})
            }
            4 => {
                let gate = m.op("Sigmoid", &[&x], attrs! {});
                m.op("Mul", &[&x, &gate], attrs! {})
            }
            5 => {
                let op = m.pick(&["Add", "Mul", "Sub", "Max"]);
                let shape = m.pick(&[vec![], vec![1, channels, 1, 1], vec![channels, 1, 1], vec![1, 1, 1, width]]);
                let other = m.weight(&shape);
                if m.chance() { m.op(op, &[&x, &other], attrs! {}) } else { m.op(op, &[&other, &x], attrs! {}) }
            }
            6 => {
                // A residual.
                let w = m.weight(&[channels, channels, 1, 1]);
                let y = m.op("Conv", &[&x, &w], attrs! {});
                let sum = m.op("Add", &[&y, &x], attrs! {});
                m.op("Relu", &[&sum], attrs! {})
            }
            7 => {
                let pads = m.list(&[0, 0, 1, 1, 0, 0, 1, 1]);
                let padded = m.op("Pad", &[&x, &pads], attrs! {});
                let op = m.pick(&["MaxPool", "AveragePool"]);
                m.op(op, &[&padded], attrs! { "kernel_shape" => vec![3, 3] })
            }
            8 => {
                let parts = m.node("Split", &[&x], 2, attrs! { "axis" => 1, "num_outputs" => 2 });
                let (first, second) = if m.chance() { (0, 1) } else { (1, 0) };
                m.op("Concat", &[&parts[first], &parts[second]], attrs! { "axis" => 1 })
            }
            9 => {
                let turned = m.op("Transpose", &[&x], attrs! { "perm" => vec![0, 2, 3, 1] });
                let w = m.weight(&[channels, channels]);
                let product = m.op("MatMul", &[&turned, &w], attrs! {});
                m.op("Transpose", &[&product], attrs! { "perm" => vec![0, 3, 1, 2] })
            }
            10 => {
                // Squeeze and excitation.
                let axes = m.list(&[2, 3]);
                let mean = m.op("ReduceMean", &[&x, &axes], attrs! {});
                let w = m.weight(&[channels, channels, 1, 1]);
                let gate = m.op("Conv", &[&mean, &w], attrs! {});
                let gate = m.op("HardSigmoid", &[&gate], attrs! {});
                m.op("Mul", &[&x, &gate], attrs! {})
            }
            _ => {
                let low = m.constant(F32, &[], &[0.0]);
                let high = m.constant(F32, &[], &[6.0]);
                m.op("Clip", &[&x, &low, &high], attrs! {})
            }
        };
        if m.int(0, 5) == 0 {
            m.output(&before);
        }
    }
    let last = m.op("Identity", &[&x], attrs! {});
    m.output(&last);
}

/// A chain over rows of features: products, normalisations as arithmetic, attention, reshapes.
fn tokens(m: &mut Maker) {
    m.opset(&[17, 18, 21]);
    let (batch, length, heads, size) = (m.int(1, 2), m.int(2, 5), m.int(1, 3), m.int(1, 4));
    let features = heads * size;
    let mut x = m.random(F32, &[batch, length, features]);
    for _ in 0..m.int(2, 5) {
        x = match m.int(0, 6) {
            0 => {
                let (w, b) = (m.weight(&[features, features]), m.weight(&[features]));
                let y = m.op("MatMul", &[&x, &w], attrs! {});
                let y = m.op("Add", &[&b, &y], attrs! {});
                if m.chance() { y } else { m.op("Relu", &[&y], attrs! {}) }
            }
            1 => {
                let mean = mean(m, &x);
                let centred = m.op("Sub", &[&x, &mean], attrs! {});
                let two = m.constant(F32, &[], &[2.0]);
                let square = m.op("Pow", &[&centred, &two], attrs! {});
                let variance = self::mean(m, &square);
                let epsilon = m.constant(F32, &[], &[0.01]);
                let variance = m.op("Add", &[&variance, &epsilon], attrs! {});
                let deviation = m.op("Sqrt", &[&variance], attrs! {});
                let normal = m.op("Div", &[&centred, &deviation], attrs! {});
                let scale = m.weight(&[features]);
                m.op("Mul", &[&normal, &scale], attrs! {})
            }
            2 => {
                // The exact GELU as arithmetic.
                let root = m.constant(F32, &[], &[std::f64::consts::SQRT_2]);
                let scaled = m.op("Div", &[&x, &root], attrs! {});
                let erf = m.op("Erf", &[&scaled], attrs! {});
                let one = m.constant(F32, &[], &[1.0]);
                let shifted = m.op("Add", &[&erf, &one], attrs! {});
                let product = m.op("Mul", &[&x, &shifted], attrs! {});
                let half = m.constant(F32, &[], &[0.5]);
                m.op("Mul", &[&product, &half], attrs! {})
            }
            3 => {
                let split = m.list(&[0, 0, heads, size]);
                let y = m.op("Reshape", &[&x, &split], attrs! {});
                let queries = m.op("Transpose", &[&y], attrs! { "perm" => vec![0, 2, 1, 3] });
                let keys = m.op("Transpose", &[&y], attrs! { "perm" => vec![0, 2, 3, 1] });
                let scores = m.op("MatMul", &[&queries, &keys], attrs! {});
                let weights = m.op("Softmax", &[&scores], attrs! { "axis" => -1 });
                let mixed = m.op("MatMul", &[&weights, &queries], attrs! {});
                let back = m.op("Transpose", &[&mixed], attrs! { "perm" => vec![0, 2, 1, 3] });
                let whole = m.list(&[0, 0, features]);
                m.op("Reshape", &[&back, &whole], attrs! {})
            }
            4 => {
                let (starts, ends, axes) = (m.list(&[1]), m.list(&[i64::MAX >> 8]), m.list(&[1]));
                let rest = m.op("Slice", &[&x, &starts, &ends, &axes], attrs! {});
                let (starts, ends) = (m.list(&[0]), m.list(&[1]));
                let first = m.op("Slice", &[&x, &starts, &ends, &axes], attrs! {});
                m.op("Concat", &[&rest, &first], attrs! { "axis" => 1 })
            }
            5 => {
                let turned = m.op("Transpose", &[&x], attrs! { "perm" => vec![0, 2, 1] });
                let op = m.pick(&["Softmax", "LogSoftmax"]);
                let attrs = attrs! { "axis" => m.pick(&[1, 2]) };
                let turned = m.op(op, &[&turned], attrs);
                m.op("Transpose", &[&turned], attrs! { "perm" => vec![0, 2, 1] })
            }
            _ => {
                let w = m.weight(&[features, features]);
                let flat = m.list(&[-1, features]);
                let rows = m.op("Reshape", &[&x, &flat], attrs! {});
                let attrs = attrs! { "transB" => m.chance() };
                let product = m.op("Gemm", &[&rows, &w], attrs);
                let shape = m.op("Shape", &[&x], attrs! {});
                m.op("Reshape", &[&product, &shape], attrs! {})
            }
        };
    }
    let last = m.op("Identity", &[&x], attrs! {});
    m.output(&last);
}

/// The mean over the last axis, whatever form the opset has.
fn mean(m: &mut Maker, x: &str) -> String {
    if m.is_opset(18) {
        let axes = m.list(&[-1]);
        m.op("ReduceMean", &[x, &axes], attrs! {})
    } else {
        m.op("ReduceMean", &[x], attrs! { "axes" => vec![-1] })
    }
}

/// Sizes computed from sizes, and a tensor brought into a shape of them.
fn shape_arithmetic(m: &mut Maker) {
    let shape = m.ints(3, 1, 4);
    let x = m.random(F32, &shape);
    let sizes = m.op("Shape", &[&x], attrs! {});
    let mut parts = Vec::new();
    let zero = m.list(&[0]);
    for at in m.permutation(3) {
        let at = m.constant(I64, &[], &[at as f64]);
        let size = m.op("Gather", &[&sizes, &at], attrs! {});
        parts.push(m.op("Unsqueeze", &[&size, &zero], attrs! {}));
    }
    let target = match m.int(0, 3) {
        0 => m.op("Concat", &[&parts[0], &parts[1], &parts[2]], attrs! { "axis" => 0 }),
        1 => {
            let product = m.op("Mul", &[&parts[0], &parts[1]], attrs! {});
            m.op("Concat", &[&parts[2], &product], attrs! { "axis" => 0 })
        }
        2 => {
            let rest = m.list(&[-1, 1]);
            m.op("Concat", &[&parts[0], &rest], attrs! { "axis" => 0 })
        }
        _ => {
            let two = m.list(&[2]);
            let double = m.op("Mul", &[&parts[0], &two], attrs! {});
            let half = m.op("Div", &[&double, &two], attrs! {});
            let all = m.list(&[-1]);
            m.op("Concat", &[&half, &all], attrs! { "axis" => 0 })
        }
    };
    let y = m.op("Reshape", &[&x, &target], attrs! {});
    m.output(&y);
    if m.chance() {
        m.output(&target);
    } else {
        m.last("Shape", &[&y], 1, attrs! {});
    }
}
