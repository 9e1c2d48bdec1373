use super::*;

fn pool(kind: &str, rest: &str, x: &Tensor) -> Tensor {
    eval(&format!("pool(%0) kind={kind} {rest}"), &[x])
}

#[test]
fn averages_of_cut_windows() {
    // onnxruntime: the last window is 5 and padding, one element of it beyond the padding.
    let x = counted(&[1, 1, 6]);
    let rest = "kernel=[3] strides=[2] dilations=[1] padding=[1, 1] ceil_mode=true";
    assert_close(&pool("average", rest, &x), &[1, 1, 4], &[0.5, 2.0, 4.0, 5.0]);
    assert_close(&pool("average_include_pad", rest, &x), &[1, 1, 4], &[1.0 / 3.0, 2.0, 4.0, 2.5]);
}

#[test]
fn no_window_begins_in_the_padding_at_the_end() {
    // Rounded up there would be 4 windows, the last from 6 on, which is past data and first padding: 1 + 4.
    let x = counted(&[1, 1, 4]);
    let rest = "kernel=[1] strides=[2] dilations=[1] padding=[1, 2] ceil_mode=true";
    assert_eq!(pool("average_include_pad", rest, &x).dims(), [1, 1, 3]);
}

#[test]
fn of_nothing_there_is_nothing() {
    let x = Tensor::from_vec([1, 1, 0], Vec::<f32>::new()).unwrap();
    for (stride, ceil) in [(1, false), (2, false), (1, true), (2, true)] {
        let rest = format!("kernel=[3] strides=[{stride}] dilations=[1] padding=[1, 1] ceil_mode={ceil}");
        assert_eq!(pool("max", &rest, &x).dims(), [1, 1, 0], "{rest}");
    }
}

#[test]
fn maxima_and_where_they_are() {
    // onnxruntime
    let node = "pool(%0) kind=max kernel=[2, 2] strides=[2, 2] dilations=[2, 2]";
    let x = counted(&[1, 1, 5, 5]);
    let outputs = eval2(node, &[&x]);
    assert_is(&outputs[0], &[1, 1, 2, 2], &[12.0, 14.0, 22.0, 24.0]);
    assert_is(&outputs[1], &[1, 1, 2, 2], &[12.0, 14.0, 22.0, 24.0]);
    let outputs = eval2(&format!("{node} column_major=true"), &[&x]);
    assert_is(&outputs[1], &[1, 1, 2, 2], &[12.0, 22.0, 14.0, 24.0]);
    // Of equals the first; the second plane's indices go on.
    let x = f32s(&[1, 2, 3], &[1.0, 1.0, 0.0, 2.0, 3.0, 3.0]);
    let outputs = eval2("pool(%0) kind=max kernel=[3] strides=[1] dilations=[1]", &[&x]);
    assert_is(&outputs[1], &[1, 2, 1], &[0.0, 4.0]);
    let bytes = Tensor::from_vec([1, 1, 4], vec![200_u8, 3, 7, 255]).unwrap();
    assert_is(&pool("max", "kernel=[2] strides=[2] dilations=[1]", &bytes), &[1, 1, 2], &[200.0, 255.0]);
}

#[test]
fn norms_of_windows() {
    let y = pool("lp", "kernel=[2] strides=[1] dilations=[1] p=2", &counted(&[1, 1, 4]));
    assert_close(&y, &[1, 1, 3], &[1.0, 5_f64.sqrt(), 13_f64.sqrt()]);
}

#[test]
fn windows_that_do_not_fit_are_refused() {
    let x = counted(&[1, 1, 4]);
    let node = "pool(%0) kind=max kernel=[4] strides=[1] dilations=[1]";
    assert!(try_eval(node, &[&x], &[&counted(&[1, 1, 3])]).is_err());
    assert!(try_eval(node, &[&x], &[&counted(&[1, 1, 4, 4])]).is_err());
    assert!(try_eval(node, &[&x], &[&counted(&[4])]).is_err());
}

/// A resize of the spatial axes of `x` to sizes.
fn resize(x: &Tensor, sizes: &[i64], how: &str) -> Tensor {
    let all: Vec<i64> = x.dims()[..2].iter().map(|dim| *dim as i64).chain(sizes.iter().copied()).collect();
    let defaults = [
        ("coordinates", "half_pixel"),
        ("nearest", "round_prefer_floor"),
        ("cubic_coeff", "-0.75"),
        ("extrapolation", "-1"),
        ("aspect", "stretch"),
    ];
    let missing = defaults.iter().filter(|(key, _)| !how.contains(&format!("{key}=")));
    let rest: String = missing.map(|(key, value)| format!(" {key}={value}")).collect();
    let sizes = Tensor::vector(all);
    let region = f32s(&[8], &[0.0, 0.0, 0.0, 0.2, 1.0, 1.0, 1.0, 1.2]);
    let node = format!("resize(%0, %1, _, %2) {how}{rest}");
    eval(&node, &[x, &region, &sizes])
}

/// onnxruntime for all.
#[test]
fn resampling() {
    let x = f32s(&[1, 1, 2, 3], &[1.0, 2.0, 3.0, 4.0, 6.0, 9.0]);
    let half_pixel = [
        1.0, 1.25, 1.75, 2.25, 2.75, 3.0, 1.75, 2.0625, 2.6875, 3.375, 4.125, 4.5, 3.25, 3.6875, 4.5625, 5.625, 6.875,
        7.5, 4.0, 4.5, 5.5, 6.75, 8.25, 9.0,
    ];
    assert_close(&resize(&x, &[4, 6], "mode=linear"), &[1, 1, 4, 6], &half_pixel);
    let corners = [1.0, 1.5, 2.0, 2.5, 3.0, 2.5, 3.25, 4.0, 5.0, 6.0, 4.0, 5.0, 6.0, 7.5, 9.0];
    assert_close(&resize(&x, &[3, 5], "mode=linear coordinates=align_corners"), &[1, 1, 3, 5], &corners);
    let cubic = [0.904, 1.316, 2.0, 2.684, 3.096, 3.808, 4.56, 6.0, 7.98, 9.288];
    assert_close(&resize(&x, &[2, 5], "mode=cubic"), &[1, 1, 2, 5], &cubic);
    let inside = [
        0.924_528_12,
        1.305_970_43,
        2.0,
        2.694_030_28,
        3.075_471_88,
        3.849_056_24,
        4.567_164_9,
        6.0,
        8.037_314_41,
        9.226_415_63,
    ];
    assert_close(&resize(&x, &[2, 5], "mode=cubic cubic_coeff=-0.5 exclude_outside=true"), &[1, 1, 2, 5], &inside);
    let smaller = resize(&counted(&[1, 1, 1, 7]), &[1, 3], "mode=linear antialias=true");
    assert_close(&smaller, &[1, 1, 1, 3], &[0.75, 3.0, 5.25]);
    let x = counted(&[1, 1, 1, 4]);
    let ceil = resize(&x, &[1, 6], "mode=nearest nearest=round_prefer_ceil");
    assert_is(&ceil, &[1, 1, 1, 6], &[0.0, 1.0, 1.0, 2.0, 3.0, 3.0]);
    assert_is(&resize(&x, &[1, 6], "mode=nearest"), &[1, 1, 1, 6], &[0.0, 0.0, 1.0, 2.0, 2.0, 3.0]);
    let region = resize(&x, &[1, 3], "mode=linear coordinates=tf_crop_and_resize");
    assert_close(&region, &[1, 1, 1, 3], &[0.6, 2.1, -1.0]);
}

#[test]
fn sizes_from_scales_round_down() {
    let scales = f32s(&[4], &[1.0, 1.0, 1.0, 0.6]);
    let node = "resize(%0, _, %1) mode=linear coordinates=align_corners nearest=floor cubic_coeff=-0.75 \
                extrapolation=0 aspect=stretch";
    // As ONNX's own tests: the corners are those of the 2.4 elements asked for, 3 / (2.4 - 1) apart. (onnxruntime takes
    // the corners of the 2 there are.)
    assert_close(&eval(node, &[&counted(&[1, 1, 1, 4]), &scales]), &[1, 1, 1, 2], &[0.0, 15.0 / 7.0]);
}

#[test]
fn the_aspect_ratio_is_kept_if_asked() {
    let x = counted(&[1, 1, 4, 8]);
    // The smaller ratio is 7/8: 3.5 rows round up to 4.
    assert_eq!(resize(&x, &[8, 7], "mode=nearest aspect=not_larger").dims(), [1, 1, 4, 7]);
}
