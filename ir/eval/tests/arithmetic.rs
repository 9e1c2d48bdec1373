use super::*;

fn i32s(elements: &[i32]) -> Tensor {
    Tensor::vector(elements.to_vec())
}

#[test]
fn integer_division_and_its_remainders() {
    let (a, b) = (i32s(&[7, -7, 7, -7]), i32s(&[2, 2, -2, -2]));
    // C's / and %, Python's %.
    assert_is(&eval("div(%0, %1)", &[&a, &b]), &[4], &[3.0, -3.0, -3.0, 3.0]);
    assert_is(&eval("fmod(%0, %1)", &[&a, &b]), &[4], &[1.0, -1.0, 1.0, -1.0]);
    assert_is(&eval("mod(%0, %1)", &[&a, &b]), &[4], &[1.0, 1.0, -1.0, -1.0]);
    let zero = i32s(&[0]);
    assert_eq!(try_eval("div(%0, %1)", &[&a, &zero], &[&a, &zero]).unwrap_err(), "an integer is divided by 0");
}

#[test]
fn integers_wrap() {
    let bytes = |elements: &[i8]| Tensor::vector(elements.to_vec());
    let (a, b) = (bytes(&[127, -128, 64, -128]), bytes(&[1, -1, 2, -1]));
    assert_is(&eval("add(%0, %1)", &[&a, &b]), &[4], &[-128.0, 127.0, 66.0, 127.0]);
    assert_is(&eval("mul(%0, %1)", &[&a, &b]), &[4], &[127.0, -128.0, -128.0, -128.0]);
    assert_is(&eval("div(%0, %1)", &[&a, &b]), &[4], &[127.0, -128.0, 32.0, -128.0]);
    assert_is(&eval("neg(%0)", &[&bytes(&[-128, 5])]), &[2], &[-128.0, -5.0]);
    assert_is(&eval("abs(%0)", &[&bytes(&[-128, -5])]), &[2], &[-128.0, 5.0]);
    let large = Tensor::vector(vec![u64::MAX, 3]);
    let small = Tensor::vector(vec![2_u64, 5]);
    assert_eq!(eval("sub(%0, %1)", &[&small, &large]).view::<u64>().unwrap().as_ref(), [3, 2]);
    assert_is(&eval("greater(%0, %1)", &[&large, &small]), &[2], &[1.0, 0.0]);
}

#[test]
fn shifts_past_the_width_leave_nothing() {
    let x = Tensor::vector(vec![0x81_u8, 1, 1]);
    let by = Tensor::vector(vec![1_u8, 8, 7]);
    assert_is(&eval("shift_left(%0, %1)", &[&x, &by]), &[3], &[2.0, 0.0, 128.0]);
    assert_is(&eval("shift_right(%0, %1)", &[&x, &by]), &[3], &[64.0, 0.0, 0.0]);
    assert_is(&eval("bitwise_not(%0)", &[&x]), &[3], &[126.0, 254.0, 254.0]);
}

#[test]
fn powers_keep_the_type_of_the_base() {
    let y = eval("pow(%0, %1)", &[&i32s(&[-2, 3, 2]), &i64s(&[3], &[3, 2, -1])]);
    assert_eq!(y.dtype(), DType::I32);
    assert_is(&y, &[3], &[-8.0, 9.0, 0.0]);
    assert_is(&eval("pow(%0, %1)", &[&i32s(&[9, 2]), &f32s(&[2], &[0.5, 3.0])]), &[2], &[3.0, 8.0]);
    assert_is(&eval("pow(%0, %1)", &[&f32s(&[2], &[2.0, -3.0]), &i64s(&[2], &[-1, 3])]), &[2], &[0.5, -27.0]);
}

#[test]
fn extrema_of_a_nan_are_nan() {
    let (a, b) = (f32s(&[3], &[f32::NAN, 1.0, 1.0]), f32s(&[3], &[1.0, f32::NAN, 2.0]));
    for (op, last) in [("min", 1.0), ("max", 2.0)] {
        let y = values(&eval(&format!("{op}(%0, %1)"), &[&a, &b]));
        assert!(y[0].is_nan() && y[1].is_nan());
        assert_eq!(y[2], last);
    }
    assert!(values(&eval("relu(%0)", &[&a]))[0].is_nan());
    assert!(values(&eval("clip(%0) p=[0, 6]", &[&a]))[0].is_nan());
}

#[test]
fn shapes_broadcast_both_ways() {
    let (a, b) = (counted(&[2, 1, 3]), counted(&[4, 1]));
    // a[i, 0, k] - b[j, 0]
    let expected: Vec<f64> = (0..24).map(|at| f64::from(at / 12 * 3 + at % 3) - f64::from(at / 3 % 4)).collect();
    assert_is(&eval("sub(%0, %1)", &[&a, &b]), &[2, 4, 3], &expected);
    let scalar = f32s(&[], &[1.0]);
    assert_is(&eval("sub(%0, %1)", &[&scalar, &counted(&[3])]), &[3], &[1.0, 0.0, -1.0]);
    assert_is(&eval("add(%0, %1)", &[&counted(&[0, 3]), &counted(&[1, 1])]), &[0, 3], &[]);
    assert!(try_eval("add(%0, %1)", &[&a, &a], &[&a, &counted(&[2, 2, 2])]).is_err());
    // Large enough for several threads, with rows cut in the middle.
    let (x, bias) = (counted(&[2, 5, 300, 100]), counted(&[5, 1, 1]));
    let y = eval("add(%0, %1)", &[&x, &bias]);
    let sums = values(&y);
    assert!(sums.iter().enumerate().all(|(at, sum)| *sum == at as f64 + (at / 30_000 % 5) as f64));
}

#[test]
fn where_picks_with_three_shapes() {
    let holds = Tensor::from_vec([2, 1], vec![true, false]).unwrap();
    let (b, c) = (i64s(&[3], &[1, 2, 3]), i64s(&[], &[9]));
    assert_is(&eval("where(%0, %1, %2)", &[&holds, &b, &c]), &[2, 3], &[1.0, 2.0, 3.0, 9.0, 9.0, 9.0]);
}

#[test]
fn predicates_and_rounding() {
    let x = f32s(&[5], &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 2.5, -0.5]);
    assert_is(&eval("is_nan(%0)", &[&x]), &[5], &[1.0, 0.0, 0.0, 0.0, 0.0]);
    assert_is(&eval("is_inf(%0)", &[&x]), &[5], &[0.0, 1.0, 1.0, 0.0, 0.0]);
    assert_is(&eval("is_neg_inf(%0)", &[&x]), &[5], &[0.0, 0.0, 1.0, 0.0, 0.0]);
    let x = f32s(&[5], &[0.5, 1.5, 2.5, -2.5, -0.2]);
    assert_is(&eval("round(%0)", &[&x]), &[5], &[0.0, 2.0, 2.0, -2.0, 0.0]);
    assert_is(&eval("sign(%0)", &[&x]), &[5], &[1.0, 1.0, 1.0, -1.0, -1.0]);
}

#[test]
fn activations() {
    let x = f32s(&[5], &[-2.0, -0.5, 0.0, 1.0, 3.0]);
    for (node, expected) in [
        ("gelu(%0)", [-0.045_500_28, -0.154_268_77, 0.0, 0.841_344_71, 2.995_950_22]),
        ("gelu_tanh(%0)", [-0.045_402_35, -0.154_286_00, 0.0, 0.841_192_01, 2.996_362_69]),
        ("mish(%0)", [-0.252_501_46, -0.220_743_78, 0.0, 0.865_098_48, 2.986_535_55]),
        ("celu(%0) p=[2]", [-1.264_241_1, -0.442_398_43, 0.0, 1.0, 3.0]),
        ("erf(%0)", [-0.995_322_29, -0.520_499_89, 0.0, 0.842_700_78, 0.999_977_89]),
        ("leaky_relu(%0) p=[0.1]", [-0.2, -0.05, 0.0, 1.0, 3.0]),
        ("hard_sigmoid(%0) p=[0.25, 0.5]", [0.0, 0.375, 0.5, 0.75, 1.0]),
        ("thresholded_relu(%0) p=[1]", [0.0, 0.0, 0.0, 0.0, 3.0]),
        ("shrink(%0) p=[0.5, 1]", [-1.0, 0.0, 0.0, 0.0, 2.0]),
        ("softsign(%0)", [-2.0 / 3.0, -1.0 / 3.0, 0.0, 0.5, 0.75]),
        ("clip(%0) p=[-1, 2]", [-1.0, -0.5, 0.0, 1.0, 2.0]),
    ] {
        assert_close(&eval(node, &[&x]), &[5], &expected);
    }
    // Where e^x overflows or vanishes, the functions still have their limits.
    let far = f32s(&[2], &[-200.0, 200.0]);
    for (node, expected) in
        [("sigmoid(%0)", [0.0, 1.0]), ("softplus(%0)", [0.0, 200.0]), ("swish(%0) p=[1]", [0.0, 200.0])]
    {
        assert_close(&eval(node, &[&far]), &[2], &expected);
    }
    assert_is(&eval("relu(%0)", &[&i32s(&[-3, 4])]), &[2], &[0.0, 4.0]);
    assert!(try_eval("sigmoid(%0)", &[&x], &[&i32s(&[1])]).is_err());
}

#[test]
fn prelu_broadcasts_its_slope_only() {
    let (x, slope) = (f32s(&[2, 2], &[-1.0, 2.0, -3.0, -4.0]), f32s(&[2], &[0.5, 0.25]));
    assert_is(&eval("prelu(%0, %1)", &[&x, &slope]), &[2, 2], &[-0.5, 2.0, -1.5, -1.0]);
    assert!(try_eval("prelu(%0, %1)", &[&x, &slope], &[&slope, &x]).is_err());
}

#[test]
fn casts() {
    let x = Tensor::vector(vec![200_i16, -1, 256]);
    // ONNX: "discard higher bits and reinterpret".
    assert_is(&eval("cast(%0) to=i8", &[&x]), &[3], &[-56.0, -1.0, 0.0]);
    assert_is(&eval("cast(%0) to=u8", &[&x]), &[3], &[200.0, 255.0, 0.0]);
    let x = f32s(&[4], &[-1.9, 1.9, -0.0, f32::NAN]);
    assert_is(&eval("cast(%0) to=i32", &[&x]), &[4], &[-1.0, 1.0, 0.0, 0.0]);
    assert_is(&eval("cast(%0) to=bool", &[&x]), &[4], &[1.0, 1.0, 0.0, 1.0]);
    // 65520 is halfway between the largest f16 and the next power: infinity. 1 + 2^-8 ties to even in bf16.
    let x = f32s(&[2], &[65520.0, 1.0 + 1.0 / 256.0]);
    assert_is(&eval("cast(%0) to=f16", &[&x]), &[2], &[f64::INFINITY, 1.003_906_25]);
    assert_is(&eval("cast(%0) to=bf16", &[&x]), &[2], &[65536.0, 1.0]);
    let small = eval("cast(%0) to=i4", &[&i64s(&[3], &[-8, 7, 3])]);
    assert_eq!(small.bytes().as_ref(), [0x78, 0x03]);
    assert_is(&eval("cast(%0) to=i64", &[&small]), &[3], &[-8.0, 7.0, 3.0]);
}

#[test]
fn what_repeats_one_element_still_does() {
    let ones = Tensor::full([1000, 1000], 4.0_f32).unwrap();
    for node in
        ["sqrt(%0)", "relu(%0)", "cast(%0) to=f16", "reshape(%0) shape=[10, 100000]", "transpose(%0) perm=[1, 0]"]
    {
        assert!(eval(node, &[&ones]).splat_element().is_some(), "{node}");
    }
    let half = Tensor::full([1000], 0.5_f32).unwrap();
    let y = eval("mul(%0, %1)", &[&ones, &half]);
    assert_eq!((y.dims(), y.uniform_f64()), (&[1000, 1000][..], Some(2.0)));
    let dense = eval("mul(%0, %1)", &[&counted(&[1000]), &ones]);
    assert_eq!(values(&dense)[1999], 4.0 * 999.0);
}
