use super::*;

fn reduce(kind: &str, rest: &str, x: &Tensor) -> Tensor {
    eval(&format!("reduce(%0) kind={kind} {rest}"), &[x])
}

#[test]
fn axes_inner_and_outer() {
    let x = counted(&[2, 3, 2]);
    assert_is(&reduce("sum", "axes=[1]", &x), &[2, 2], &[6.0, 9.0, 24.0, 27.0]);
    assert_is(&reduce("mean", "axes=[-1] keep_dims=true", &x), &[2, 3, 1], &[0.5, 2.5, 4.5, 6.5, 8.5, 10.5]);
    assert_is(&reduce("max", "axes=[0, 2]", &x), &[3], &[7.0, 9.0, 11.0]);
    assert_is(&reduce("sum", "", &x), &[], &[66.0]);
    assert_is(&reduce("sum_square", "noop_if_empty=true", &f32s(&[2], &[2.0, -3.0])), &[2], &[4.0, 9.0]);
    let axes = i64s(&[1], &[0]);
    assert_is(&eval("reduce(%0, %1) kind=min", &[&x, &axes]), &[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert!(try_eval("reduce(%0, %1) kind=min", &[&x, &axes], &[&x, &i64s(&[1], &[3])]).is_err());
}

#[test]
fn kinds() {
    let x = f32s(&[3], &[1.0, -2.0, 2.0]);
    for (kind, expected) in [("l1", 5.0), ("l2", 3.0), ("sum_square", 9.0), ("prod", -4.0), ("log_sum", 0.0)] {
        assert_close(&reduce(kind, "", &x), &[], &[expected]);
    }
    // Far beyond e^88.
    let far = f32s(&[2], &[1000.0, 1000.0]);
    assert_close(&reduce("log_sum_exp", "", &far), &[], &[1000.0 + 2_f64.ln()]);
    let integers = Tensor::vector(vec![100_i8, 100, 57]);
    assert_is(&reduce("sum", "", &integers), &[], &[1.0]);
    let bytes = Tensor::vector(vec![200_u8, 7]);
    assert_is(&reduce("max", "", &bytes), &[], &[200.0]);
    let truths = Tensor::from_vec([2, 2], vec![true, false, true, true]).unwrap();
    assert_is(&reduce("min", "axes=[1]", &truths), &[2], &[0.0, 1.0]);
}

#[test]
fn nothing_reduces_to_the_neutral_element() {
    let none = counted(&[2, 0]);
    for (kind, expected) in [
        ("sum", 0.0),
        ("prod", 1.0),
        ("max", f64::NEG_INFINITY),
        ("min", f64::INFINITY),
        ("log_sum", f64::NEG_INFINITY),
    ] {
        assert_is(&reduce(kind, "axes=[1]", &none), &[2], &[expected; 2]);
    }
    assert_is(&reduce("max", "axes=[0]", &Tensor::vector(Vec::<i8>::new())), &[], &[-128.0]);
    assert!(values(&reduce("mean", "axes=[1]", &none))[0].is_nan());
}

#[test]
fn long_sums_lose_nothing() {
    // In f32 alone the sum would stop at 2^24.
    let x = Tensor::full([1 << 25], 1.0_f32).unwrap();
    assert_is(&reduce("sum", "", &x), &[], &[f64::from(1 << 25)]);
}

#[test]
fn the_first_or_the_last_extremum() {
    let x = f32s(&[2, 3], &[1.0, 3.0, 3.0, 0.0, 0.0, 5.0]);
    let arg = |rest: &str| eval(&format!("arg_reduce(%0) axis=1 {rest}"), &[&x]);
    assert_is(&arg("largest=true"), &[2], &[1.0, 2.0]);
    assert_is(&arg("largest=true select_last=true keep_dims=true"), &[2, 1], &[2.0, 2.0]);
    assert_is(&arg("select_last=true"), &[2], &[0.0, 1.0]);
}

#[test]
fn equal_elements_of_a_top_keep_their_order() {
    // onnxruntime
    let x = f32s(&[1, 5], &[2.0, 3.0, 3.0, 1.0, 3.0]);
    let outputs = eval2("topk(%0, %1) axis=1 largest=true sorted=true", &[&x, &i64s(&[1], &[3])]);
    assert_is(&outputs[1], &[1, 3], &[1.0, 2.0, 4.0]);
    let outputs = eval2("topk(%0, %1) axis=-1 sorted=true", &[&x, &i64s(&[1], &[2])]);
    assert_is(&outputs[0], &[1, 2], &[1.0, 2.0]);
    assert_is(&outputs[1], &[1, 2], &[3.0, 0.0]);
    let node = "topk(%0, %1) axis=0 largest=true sorted=true";
    assert!(try_eval(node, &[&x, &i64s(&[1], &[1])], &[&x, &i64s(&[1], &[2])]).is_err());
}

#[test]
fn running_sums() {
    let x = counted(&[2, 3]);
    let run = |rest: &str, axis: i64| eval(&format!("cumulative(%0, %1) {rest}"), &[&x, &i64s(&[], &[axis])]);
    assert_is(&run("", 1), &[2, 3], &[0.0, 1.0, 3.0, 3.0, 7.0, 12.0]);
    assert_is(&run("exclusive=true", 1), &[2, 3], &[0.0, 0.0, 1.0, 0.0, 3.0, 7.0]);
    assert_is(&run("exclusive=true reverse=true", -1), &[2, 3], &[3.0, 2.0, 0.0, 9.0, 5.0, 0.0]);
    assert_is(&run("product=true", 0), &[2, 3], &[0.0, 1.0, 2.0, 0.0, 4.0, 10.0]);
}

#[test]
fn softmax_of_far_elements() {
    let x = f32s(&[2, 2], &[1000.0, 1000.0, 0.0, 3_f32.ln()]);
    assert_close(&eval("softmax(%0) axis=-1", &[&x]), &[2, 2], &[0.5, 0.5, 0.25, 0.75]);
    let logs = [0.5_f64.ln(), 0.5_f64.ln(), 0.25_f64.ln(), 0.75_f64.ln()];
    assert_close(&eval("softmax(%0) axis=1 log=true", &[&x]), &[2, 2], &logs);
}

/// onnxruntime for all.
#[test]
fn normalisations() {
    let x = f32s(&[1, 4, 1, 1], &[1.0, 2.0, 3.0, 4.0]);
    let expected = [0.612_372_46, 0.840_168, 0.918_558_72, 1.309_307_34];
    assert_close(&eval("lrn(%0) alpha=1 beta=0.5 bias=1 size=3", &[&x]), &[1, 4, 1, 1], &expected);
    let (scale, bias) = (f32s(&[2], &[1.0, 2.0]), f32s(&[2], &[0.0, 1.0]));
    let y = eval("group_norm(%0, %1, %2) groups=0 epsilon=0", &[&counted(&[1, 2, 3]), &scale, &bias]);
    assert_close(&y, &[1, 2, 3], &[-1.224_744_8, 0.0, 1.224_744_8, -1.449_489_59, 1.0, 3.449_489_59]);
    let x = f32s(&[2, 3], &[0.0, 1.0, 4.0, 9.0, 16.0, 25.0]);
    let (scale, bias) = (f32s(&[3], &[1.0, 2.0, 3.0]), f32s(&[3], &[0.0, 1.0, 0.0]));
    let y = eval("layer_norm(%0, %1, %2) axis=-1 epsilon=0", &[&x, &scale, &bias]);
    let expected = [-0.980_580_63, 0.215_535_52, 4.118_438_72, -1.170_669_08, 0.796_405_55, 3.817_399_5];
    assert_close(&y, &[2, 3], &expected);
}

#[test]
fn normalisations_by_their_formulas() {
    let x = f32s(&[1, 2, 2], &[1.0, 3.0, 6.0, 8.0]);
    let c = |a: f32, b: f32| f32s(&[2], &[a, b]);
    // (x - mean) / sqrt(var + 1) * scale + bias with mean [1, 2], var [3, 8]
    let y =
        eval("batch_norm(%0, %1, %2, %3, %4) epsilon=1", &[&x, &c(2.0, 3.0), &c(1.0, 0.0), &c(1.0, 2.0), &c(3.0, 8.0)]);
    assert_close(&y, &[1, 2, 2], &[1.0, 3.0, 4.0, 6.0]);
    assert_close(
        &eval("lp_norm(%0) axis=1 p=1", &[&f32s(&[2, 2], &[1.0, -3.0, 0.0, 0.0])]),
        &[2, 2],
        &[0.25, -0.75, 0.0, 0.0],
    );
    // [3, 4] / sqrt(25 / 2)
    let y = eval("rms_norm(%0, %1) axis=-1 epsilon=0", &[&c(3.0, 4.0), &c(1.0, 2.0)]);
    assert_close(&y, &[2], &[3.0 / 12.5_f64.sqrt(), 8.0 / 12.5_f64.sqrt()]);
    assert_close(&eval("mean_variance_norm(%0) axes=[0, 2]", &[&x]), &[1, 2, 2], &[-1.0, 1.0, -1.0, 1.0]);
    // One group of both channels: mean 4.5, variance 7.25.
    let y = eval("group_norm(%0, %1, %2) groups=1 epsilon=0", &[&x, &c(1.0, 1.0), &c(0.0, 0.0)]);
    let expected: Vec<f64> = [1.0, 3.0, 6.0, 8.0].iter().map(|x| (x - 4.5) / 7.25_f64.sqrt()).collect();
    assert_close(&y, &[1, 2, 2], &expected);
}

#[test]
fn quantization_saturates_after_rounding_to_even() {
    // onnxruntime
    let x = f32s(&[2, 3], &[-1.0, 0.5, 1.5, 2.5, 100.0, 300.0]);
    let (scale, zero) = (f32s(&[2], &[1.0, 2.0]), Tensor::vector(vec![0_u8, 10]));
    let y = eval("quantize(%0, %1, %2) axis=0 to=u8 saturate=true", &[&x, &scale, &zero]);
    assert_is(&y, &[2, 3], &[0.0, 0.0, 2.0, 11.0, 60.0, 160.0]);
    let back = eval("dequantize(%0, %1, %2) axis=0", &[&y, &scale, &zero]);
    assert_is(&back, &[2, 3], &[0.0, 0.0, 2.0, 2.0, 100.0, 300.0]);
    let one = f32s(&[], &[0.5]);
    let narrow = eval("quantize(%0, %1) axis=1 to=i4 saturate=true", &[&f32s(&[3], &[-9.0, 1.2, 9.0]), &one]);
    assert_is(&eval("dequantize(%0, %1) axis=0", &[&narrow, &one]), &[3], &[-4.0, 1.0, 3.5]);
    let float8 = eval("quantize(%0, %1) axis=1 to=f8e4m3 saturate=true", &[&f32s(&[2], &[1000.0, 8.5]), &one]);
    // 2000 saturates at 448; 17 ties to 16.
    assert_is(&eval("dequantize(%0, %1) axis=0", &[&float8, &one]), &[2], &[224.0, 8.0]);
}

#[test]
fn scales_of_blocks() {
    let x = Tensor::from_vec([2, 5], (0..10).map(|x| x as i8).collect()).unwrap();
    let scale = f32s(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    // Blocks of 2, the last one cut: scale[i, j / 2].
    let y = eval("dequantize(%0, %1) axis=1 block_size=2", &[&x, &scale]);
    assert_is(&y, &[2, 5], &[0.0, 1.0, 4.0, 6.0, 12.0, 20.0, 24.0, 35.0, 40.0, 54.0]);
}
