//! Elementwise operators, reductions, products.

use crate::Family;
use crate::maker::{Attrs, BOOL, F16, F32, F64, I8, I16, I32, I64, Maker, U8, U16, U32, U64, attrs};

pub(crate) const FAMILIES: &[Family] = &[
    ("unary", unary),
    ("activation", activation),
    ("arithmetic", arithmetic),
    ("divided_integers", divided_integers),
    ("mixed_powers", mixed_powers),
    ("compared", compared),
    ("logical", logical),
    ("bits", bits),
    ("several", several),
    ("clip", clip),
    ("where", where_),
    ("cast", cast),
    ("reduce", reduce),
    ("reduce_by_input", reduce_by_input),
    ("arg_reduce", arg_reduce),
    ("cum_sum", cum_sum),
    ("softmax", softmax),
    ("top_k", top_k),
    ("mat_mul", mat_mul),
    ("gemm", gemm),
    ("einsum", einsum),
];

fn unary(m: &mut Maker) {
    let shape = m.shape(0, 4);
    let op = m.pick(&[
        "Abs",
        "Neg",
        "Exp",
        "Sqrt",
        "Log",
        "Erf",
        "Sin",
        "Cos",
        "Tan",
        "Asin",
        "Acos",
        "Atan",
        "Sinh",
        "Cosh",
        "Asinh",
        "Acosh",
        "Atanh",
        "Sign",
        "Floor",
        "Ceil",
        "Round",
        "Reciprocal",
        "IsNaN",
        "IsInf",
        "Identity",
    ]);
    let dtype = match op {
        "Abs" | "Neg" | "Sign" => m.pick(&[F32, F64, I32, I64, I8]),
        "Exp" | "Sqrt" | "Floor" | "Ceil" | "Round" | "Log" => m.pick(&[F32, F32, F64]),
        _ => F32,
    };
    let x = m.random(dtype, &shape);
    m.last(op, &[&x], 1, attrs! {});
}

fn activation(m: &mut Maker) {
    let shape = m.shape(1, 4);
    let op = m.pick(&[
        "Relu",
        "Sigmoid",
        "Tanh",
        "Softplus",
        "Softsign",
        "LeakyRelu",
        "Elu",
        "Celu",
        "Selu",
        "HardSigmoid",
        "HardSwish",
        "Mish",
        "ThresholdedRelu",
        "Gelu",
        "PRelu",
        "Shrink",
    ]);
    let x = m.random(F32, &shape);
    let alpha = m.int(1, 8) as f32 / 4.0;
    let given = m.chance();
    let attrs: Attrs = match op {
        "LeakyRelu" | "Elu" | "Celu" | "ThresholdedRelu" if given => attrs! { "alpha" => alpha },
        "HardSigmoid" | "Selu" if given => {
            let (name, beta) = if op == "Selu" { ("gamma", 1.5) } else { ("beta", 0.25) };
            let mut attrs = attrs! { "alpha" => alpha };
            attrs.push((name, beta.into()));
            attrs
        }
        "Gelu" => attrs! { "approximate" => if given { "tanh" } else { "none" } },
        "Shrink" => attrs! { "lambd" => alpha, "bias" => if given { 0.25 } else { 0.0 } },
        _ => attrs! {},
    };
    if op == "PRelu" {
        // One-way: the slope is never wider than x.
        let slope = m.narrower(&shape);
        let slope = m.weight(&slope);
        return m.last(op, &[&x, &slope], 1, attrs);
    }
    m.last(op, &[&x], 1, attrs);
}

/// Two shapes that broadcast.
fn two_shapes(m: &mut Maker) -> (Vec<i64>, Vec<i64>) {
    let whole = m.shape(0, 4);
    let narrow = m.narrower(&whole);
    // Each may be the wider one on another axis.
    let wide = whole.iter().map(|size| if m.int(0, 4) == 0 { 1 } else { *size }).collect();
    if m.chance() { (wide, narrow) } else { (narrow, wide) }
}

fn arithmetic(m: &mut Maker) {
    let (a, b) = two_shapes(m);
    let op = m.pick(&["Add", "Sub", "Mul", "Div", "Pow", "Mod"]);
    let dtype = match op {
        "Add" | "Sub" | "Mul" => m.pick(&[F32, F32, F64, I32, I64]),
        "Div" => m.pick(&[F32, F32, F64]),
        _ => F32,
    };
    let (of_a, of_b) = (m.data(dtype, &a), m.data(dtype, &b));
    let (a, b) = (m.either(dtype, &a, &of_a), m.feed(dtype, &b, &of_b));
    let attrs = if op == "Mod" {
        attrs! { "fmod" => 1 }
    } else {
        attrs! {}
    };
    m.last(op, &[&a, &b], 1, attrs);
}

/// Quotients and remainders of integers, and powers.
fn divided_integers(m: &mut Maker) {
    let (a, b) = two_shapes(m);
    let op = m.pick(&["Div", "Mod", "Mod", "Pow"]);
    let dtype = match op {
        "Mod" => m.pick(&[I8, U8, I16, U16, I32, U32, I64, U64]),
        "Div" => m.pick(&[I32, I64, U8, I8]),
        _ => m.pick(&[I32, I64]),
    };
    let signed = !matches!(dtype, U8 | U16 | U32 | U64);
    let count = b.iter().product();
    let divisors = if op == "Pow" { m.integers(count, 0, 4) } else { m.integers(count, 1, 7) };
    let sign = |m: &mut Maker| if signed && op != "Pow" && m.chance() { -1.0 } else { 1.0 };
    let divisors: Vec<f64> = divisors.into_iter().map(|divisor| divisor * sign(m)).collect();
    let mut numbers = m.data(dtype, &a);
    let most = match dtype {
        I8 => 127.0,
        U8 => 255.0,
        I16 => 32767.0,
        U16 => 65535.0,
        I32 if op != "Pow" => 2_147_483_647.0,
        // What targets compute unsigned integers in holds it.
        U32 | U64 => 16_777_217.0,
        I64 if op != "Pow" => 1_099_511_627_777.0,
        _ => 9.0,
    };
    numbers[0] = most;
    let attrs = if op == "Mod" && m.chance() {
        attrs! { "fmod" => 1 }
    } else {
        attrs! {}
    };
    let (a, b) = (m.either(dtype, &a, &numbers), m.feed(dtype, &b, &divisors));
    m.last(op, &[&a, &b], 1, attrs);
}

/// Powers whose exponent has another type than the base.
fn mixed_powers(m: &mut Maker) {
    let (a, b) = two_shapes(m);
    let dtype = m.pick(&[F32, I32, I64]);
    let other = m.pick(if dtype == F32 { &[I32, I64] } else { &[F32, F32, I32, I64] });
    let (bases, count) = (m.integers(a.iter().product(), 0, 9), b.iter().product());
    let exponents = m.integers(count, 0, 8);
    let exponents: Vec<f64> =
        exponents.into_iter().map(|step| if other == F32 { step / 2.0 } else { (step / 2.0).floor() }).collect();
    let (a, b) = (m.feed(dtype, &a, &bases), m.either(other, &b, &exponents));
    m.last("Pow", &[&a, &b], 1, attrs! {});
}

fn compared(m: &mut Maker) {
    let (a, b) = two_shapes(m);
    let op = m.pick(&["Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"]);
    let dtype = m.pick(&[F32, F64, I32, I64, if op == "Equal" { BOOL } else { F32 }]);
    let (a, b) = (m.random(dtype, &a), m.random(dtype, &b));
    m.last(op, &[&a, &b], 1, attrs! {});
}

fn logical(m: &mut Maker) {
    let (a, b) = two_shapes(m);
    let op = m.pick(&["And", "Or", "Xor"]);
    let (a, b) = (m.random(BOOL, &a), m.random(BOOL, &b));
    let not = m.op("Not", &[&a], attrs! {});
    m.last(op, &[&not, &b], 1, attrs! {});
}

fn bits(m: &mut Maker) {
    let (a, b) = two_shapes(m);
    let op = m.pick(&["BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "BitShift"]);
    let dtype = if op == "BitShift" { m.pick(&[U8, U32, U64]) } else { m.pick(&[U8, I8, I32, I64]) };
    let x = m.random(dtype, &a);
    match op {
        "BitwiseNot" => m.last(op, &[&x], 1, attrs! {}),
        "BitShift" => {
            let by = m.random(U8, &b);
            let by = if dtype == U8 { by } else { m.op("Cast", &[&by], attrs! { "to" => i64::from(dtype) }) };
            let direction = m.pick(&["LEFT", "RIGHT"]);
            m.last(op, &[&x, &by], 1, attrs! { "direction" => direction });
        }
        _ => {
            let y = m.random(dtype, &b);
            m.last(op, &[&x, &y], 1, attrs! {});
        }
    }
}

fn several(m: &mut Maker) {
    let op = m.pick(&["Sum", "Mean", "Max", "Min"]);
    let shape = m.shape(0, 3);
    let dtype = if matches!(op, "Max" | "Min") { m.pick(&[F32, F64, I32, I64, U8, I8]) } else { F32 };
    let inputs: Vec<String> = (0..m.int(1, 4))
        .map(|_| {
            let shape = m.narrower(&shape);
            let data = m.data(dtype, &shape);
            m.either(dtype, &shape, &data)
        })
        .collect();
    // A model has an input.
    let x = m.random(dtype, &shape);
    let inputs: Vec<&str> = inputs.iter().chain([&x]).map(String::as_str).collect();
    m.last(op, &inputs, 1, attrs! {});
}

fn clip(m: &mut Maker) {
    let shape = m.shape(0, 4);
    let dtype = m.pick(&[F32, F32, F64, I32, I64, U8, I8]);
    let x = m.random(dtype, &shape);
    let low = if m.chance() { m.either(dtype, &[], &[1.0]) } else { String::new() };
    let high = match m.int(0, 2) {
        0 => String::new(),
        // The upper bound wins over a lower one above it.
        1 => m.either(dtype, &[], &[0.0]),
        _ => m.either(dtype, &[], &[5.0]),
    };
    m.last("Clip", &[&x, &low, &high], 1, attrs! {});
}

fn where_(m: &mut Maker) {
    let (a, b) = two_shapes(m);
    let condition = m.narrower(if a.len() > b.len() { &a } else { &b });
    let dtype = m.pick(&[F32, F64, I32, I64, U8]);
    let condition = m.random(BOOL, &condition);
    let (of_b, a) = (m.data(dtype, &b), m.random(dtype, &a));
    let b = m.either(dtype, &b, &of_b);
    m.last("Where", &[&condition, &a, &b], 1, attrs! {});
}

fn cast(m: &mut Maker) {
    let shape = m.shape(0, 3);
    let types = [F32, F16, F64, BOOL, I8, U8, I16, U16, I32, U32, I64, U64];
    let (from, to) = (m.pick(&types), m.pick(&types));
    let mut data = m.data(from, &shape);
    if matches!(to, U8 | U16 | U32 | U64) {
        // Conversion of a negative number to an unsigned type is not defined.
        data.iter_mut().for_each(|value| *value = value.abs());
    }
    let x = m.feed(from, &shape, &data);
    m.last("Cast", &[&x], 1, attrs! { "to" => i64::from(to) });
}

const REDUCTIONS: &[&str] = &[
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceSumSquare",
];

/// What is reduced: a log wants it positive.
fn reduced(m: &mut Maker, op: &str, shape: &[i64]) -> String {
    let dtype = match op {
        "ReduceSum" | "ReduceMax" | "ReduceMin" => m.pick(&[F32, F32, F64, I32, I64]),
        "ReduceProd" | "ReduceMean" | "ReduceL1" | "ReduceSumSquare" => m.pick(&[F32, F32, I32]),
        _ => F32,
    };
    let mut data = m.data(dtype, shape);
    if op == "ReduceLogSum" {
        data.iter_mut().for_each(|value| *value = value.abs() + 0.5);
    }
    m.feed(dtype, shape, &data)
}

/// Axes as an attribute.
fn reduce(m: &mut Maker) {
    m.opset(&[11, 12]);
    let op = m.pick(REDUCTIONS);
    let shape = m.shape(1, 4);
    let x = reduced(m, op, &shape);
    let mut attrs = if m.chance() {
        attrs! { "keepdims" => m.chance() }
    } else {
        attrs! {}
    };
    if m.int(0, 3) > 0 {
        attrs.push(("axes", m.axes(shape.len()).into()));
    }
    m.last(op, &[&x], 1, attrs);
}

fn reduce_by_input(m: &mut Maker) {
    m.opset(&[18, 20]);
    let op = m.pick(REDUCTIONS);
    let shape = m.shape(1, 4);
    let x = reduced(m, op, &shape);
    let mut attrs = attrs! { "noop_with_empty_axes" => m.chance() };
    if m.chance() {
        attrs.push(("keepdims", m.chance().into()));
    }
    let axes = match m.int(0, 4) {
        0 => String::new(),
        1 => m.list(&[]),
        _ => {
            let axes = m.axes(shape.len());
            m.list(&axes)
        }
    };
    m.last(op, &[&x, &axes], 1, attrs);
}

fn arg_reduce(m: &mut Maker) {
    let op = m.pick(&["ArgMax", "ArgMin"]);
    let shape = m.shape(1, 4);
    let dtype = m.pick(&[F32, F32, I32, F64]);
    let x = m.random(dtype, &shape);
    let attrs = attrs! {
        "axis" => m.axis(shape.len()), "keepdims" => m.chance(), "select_last_index" => m.chance(),
    };
    m.last(op, &[&x], 1, attrs);
}

fn cum_sum(m: &mut Maker) {
    let shape = m.shape(1, 4);
    let dtype = m.pick(&[F32, F64, I32, I64]);
    let x = m.random(dtype, &shape);
    let axis = m.axis(shape.len());
    let axis = m.constant(I64, &[], &[axis as f64]);
    let attrs = attrs! { "exclusive" => m.chance(), "reverse" => m.chance() };
    m.last("CumSum", &[&x, &axis], 1, attrs);
}

fn softmax(m: &mut Maker) {
    // Before 13 all axes from the stated one on are one.
    m.opset(&[11, 13]);
    let op = m.pick(&["Softmax", "LogSoftmax", "Hardmax"]);
    let shape = m.shape(1, 4);
    let x = m.random(F32, &shape);
    let attrs = if m.int(0, 4) > 0 || shape.len() < 2 {
        attrs! { "axis" => m.axis(shape.len()) }
    } else {
        attrs! {}
    };
    m.last(op, &[&x], 1, attrs);
}

fn top_k(m: &mut Maker) {
    let shape = m.shape(1, 3);
    let axis = m.axis(shape.len());
    let size = shape[axis.rem_euclid(shape.len() as i64) as usize];
    let dtype = m.pick(&[F32, F32, I32, I64, F64]);
    let x = m.random(dtype, &shape);
    let k = m.int(1, size);
    let k = m.list(&[k]);
    let attrs = attrs! { "axis" => axis, "largest" => m.chance() };
    m.last("TopK", &[&x, &k], 2, attrs);
}

fn mat_mul(m: &mut Maker) {
    let stack = m.shape(0, 2);
    let (rows, inner, columns) = (m.int(1, 5), m.int(1, 5), m.int(1, 5));
    let (mut a, mut b) = (m.narrower(&stack), m.narrower(&stack));
    if m.int(0, 4) == 0 {
        a = vec![inner]
    } else {
        a.extend([rows, inner])
    }
    if m.int(0, 4) == 0 {
        b = vec![inner]
    } else {
        b.extend([inner, columns])
    }
    let (a, b) = (m.random(F32, &a), m.weight(&b));
    m.last("MatMul", &[&a, &b], 1, attrs! {});
}

fn gemm(m: &mut Maker) {
    let (rows, inner, columns) = (m.int(1, 5), m.int(1, 5), m.int(1, 5));
    let (left, right) = (m.chance(), m.chance());
    let a = m.random(F32, &if left { [inner, rows] } else { [rows, inner] });
    let b = m.weight(&if right { [columns, inner] } else { [inner, columns] });
    let c = if m.chance() { m.narrower(&[rows, columns]) } else { vec![rows, columns] };
    let c = if m.int(0, 3) == 0 { String::new() } else { m.weight(&c) };
    let mut attrs = attrs! { "transA" => left, "transB" => right };
    if m.chance() {
        attrs.push(("alpha", 0.5.into()));
    }
    if m.chance() {
        attrs.push(("beta", m.pick(&[0.0, 2.0]).into()));
    }
    m.last("Gemm", &[&a, &b, &c], 1, attrs);
}

fn einsum(m: &mut Maker) {
    let equation = m.pick(&[
        "ij,jk->ik",
        "ij,jk",
        "bij,bjk->bik",
        "bhid,bhjd->bhij",
        "ij->ji",
        "ij->",
        "ii->i",
        "ij,ij->",
        "i,j->ij",
        "...ij,...jk->...ik",
        "bij,kj->bik",
        "abc,cd,de->abe",
        "ij,j->i",
        "bnd,bmd->bnm",
        "ijk->kij",
        "ijj->ij",
        "...i->...",
        "i...,ij->j...",
    ]);
    let size = |letter: u8| 2 + i64::from(letter) % 3;
    let dots = m.shape(0, 2);
    let terms = equation.split("->").next().unwrap().split(',');
    let inputs: Vec<String> = terms
        .map(|term| {
            let mut shape = Vec::new();
            let mut rest = term;
            while let Some(letter) = rest.bytes().next() {
                if let Some(after) = rest.strip_prefix("...") {
                    shape.extend(&dots);
                    rest = after;
                } else {
                    shape.push(size(letter));
                    rest = &rest[1..];
                }
            }
            m.random(F32, &shape)
        })
        .collect();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    m.last("Einsum", &inputs, 1, attrs! { "equation" => equation });
}
