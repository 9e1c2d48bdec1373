use super::*;

const PLAIN: &str = "strides=[1, 1] dilations=[1, 1] groups=1";

#[test]
fn groups_strides_dilations_and_uneven_padding() {
    // onnxruntime
    let (x, bias) = (counted(&[1, 4, 7]), counted(&[4]));
    let w = f32s(&[4, 2, 3], &(-10..14).map(|x| x as f32).collect::<Vec<_>>());
    let y = eval("conv(%0, %1, %2) strides=[2] dilations=[2] groups=2 padding=[1, 2]", &[&x, &w, &bias]);
    let expected = [-131.0, -253.0, -217.0, 2.0, -18.0, -36.0, 415.0, 595.0, 369.0, 884.0, 1334.0, 886.0];
    assert_is(&y, &[1, 4, 3], &expected);
}

#[test]
fn padding_to_the_same_size() {
    // onnxruntime
    let w = f32s(&[1, 2, 2, 2], &(-3..5).map(|x| x as f32).collect::<Vec<_>>());
    let node = "conv(%0, %1) strides=[2, 2] dilations=[1, 1] groups=1 padding=same_lower";
    assert_is(&eval(node, &[&counted(&[1, 2, 3, 4]), &w]), &[1, 1, 2, 2], &[88.0, 100.0, 164.0, 172.0]);
}

#[test]
fn three_spatial_axes() {
    // onnxruntime
    let node = "conv(%0, %1) strides=[2, 1, 1] dilations=[1, 1, 1] groups=1 padding=[1, 0, 0, 0, 0, 0]";
    let expected = [51.0, 73.0, 117.0, 139.0, 520.0, 548.0, 604.0, 632.0];
    assert_is(&eval(node, &[&counted(&[1, 1, 3, 3, 3]), &counted(&[1, 1, 2, 2, 2])]), &[1, 1, 2, 2, 2], &expected);
}

/// The definition, with small integers so that every order of summation gives the same.
fn by_definition(x: &Tensor, w: &Tensor, stride: usize, pad: usize, groups: usize) -> Vec<f64> {
    let ([n, c, h, width], [m, cg, kh, kw]) = (x.dims(), w.dims()) else { panic!("two spatial axes") };
    let (data, weight) = (values(x), values(w));
    let (oh, ow) = ((h + 2 * pad - kh) / stride + 1, (width + 2 * pad - kw) / stride + 1);
    let mut output = Vec::new();
    for flat in 0..n * m * oh * ow {
        let (n, m_at, y, x) = (flat / (m * oh * ow), flat / (oh * ow) % m, flat / ow % oh, flat % ow);
        let mut sum = 0.0;
        for tap in 0..cg * kh * kw {
            let (k, dy, dx) = (tap / (kh * kw), tap / kw % kh, tap % kw);
            let channel = m_at / (m / groups) * cg + k;
            let (Some(sy), Some(sx)) = ((y * stride + dy).checked_sub(pad), (x * stride + dx).checked_sub(pad)) else {
                continue;
            };
            if sy < *h && sx < *width {
                sum += data[((n * c + channel) * h + sy) * width + sx] * weight[m_at * cg * kh * kw + tap];
            }
        }
        output.push(sum);
    }
    output
}

#[test]
fn tiles_join_to_the_whole() {
    let small = |dims: &[usize]| {
        let count = dims.iter().product::<usize>();
        f32s(dims, &(0..count).map(|at| (at * 7 % 11) as f32 - 5.0).collect::<Vec<_>>())
    };
    // Several column tiles; several row tiles of few columns; pointwise; groups; depthwise.
    for (n, c, m, size, kernel, stride, groups) in [
        (2, 40, 9, 33, 3, 1, 1),
        (1, 64, 70, 5, 3, 2, 1),
        (1, 24, 50, 30, 1, 1, 1),
        (1, 24, 10, 9, 1, 2, 1),
        (2, 12, 8, 14, 3, 1, 4),
        (1, 48, 48, 30, 3, 2, 48),
        (1, 6, 12, 10, 3, 1, 6),
    ] {
        let (x, w) = (small(&[n, c, size, size]), small(&[m, c / groups, kernel, kernel]));
        let pad = kernel / 2;
        let node = format!(
            "conv(%0, %1) strides=[{stride}, {stride}] dilations=[1, 1] groups={groups} padding=[{pad}, {pad}, {pad}, {pad}]"
        );
        assert_eq!(values(&eval(&node, &[&x, &w])), by_definition(&x, &w, stride, pad, groups), "{node}");
    }
}

#[test]
fn the_epilogue_follows_the_bias_in_order() {
    let (x, w) = (f32s(&[1, 1, 1, 3], &[-2.0, 1.0, 3.0]), f32s(&[1, 1, 1, 1], &[2.0]));
    let (bias, residual) = (f32s(&[1], &[1.0]), f32s(&[1, 1, 1, 3], &[-1.0, -5.0, 1.0]));
    // 2x + 1 = [-3, 3, 7]
    let after = eval(&format!("conv(%0, %1, %2, %3) {PLAIN} epilogue=[add, relu]"), &[&x, &w, &bias, &residual]);
    assert_is(&after, &[1, 1, 1, 3], &[0.0, 0.0, 8.0]);
    let before = eval(&format!("conv(%0, %1, %2, %3) {PLAIN} epilogue=[relu, add]"), &[&x, &w, &bias, &residual]);
    assert_is(&before, &[1, 1, 1, 3], &[-1.0, -2.0, 8.0]);
    let clipped = eval(&format!("conv(%0, %1, %2) {PLAIN} epilogue=[clip(0, 6)]"), &[&x, &w, &bias]);
    assert_is(&clipped, &[1, 1, 1, 3], &[0.0, 3.0, 6.0]);
    let node = format!("conv(%0, %1, _, %2) {PLAIN} epilogue=[add]");
    assert!(try_eval(&node, &[&x, &w, &x], &[&x, &w, &f32s(&[1, 1, 1, 1], &[1.0])]).is_err());
}

#[test]
fn transposed_convolutions() {
    // onnxruntime
    let w = f32s(&[2, 1, 3, 3], &(-4..14).map(|x| x as f32).collect::<Vec<_>>());
    let node = "conv_transpose(%0, %1, %2) strides=[2, 2] dilations=[1, 1] padding=[1, 0, 0, 1] \
                output_padding=[1, 0] groups=2";
    let expected = [
        0.0, 0.0, -1.0, 0.0, -8.0, -6.0, -14.0, -6.0, -2.0, 0.0, -1.0, 0.0, 4.0, 6.0, 14.0, 9.0, 0.0, 0.0, 0.0, 0.0,
        33.0, 37.0, 81.0, 46.0, 75.0, 85.0, 185.0, 103.0, 49.0, 55.0, 117.0, 64.0, 67.0, 73.0, 156.0, 85.0, 1.0, 1.0,
        1.0, 1.0,
    ];
    assert_is(&eval(node, &[&counted(&[1, 2, 2, 2]), &w, &counted(&[2])]), &[1, 2, 5, 4], &expected);
    let node = "conv_transpose(%0, %1) strides=[2] dilations=[1] padding=same_upper output_padding=[0] \
                output_shape=[6] groups=1";
    let expected = [0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 0.0, 0.0, 3.0, 4.0, 11.0, 8.0];
    assert_is(&eval(node, &[&counted(&[1, 1, 3]), &counted(&[1, 2, 3])]), &[1, 2, 6], &expected);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let (x, w) = (counted(&[1, 2, 4, 4]), counted(&[1, 2, 3, 3]));
    let node = format!("conv(%0, %1) {PLAIN}");
    for (x, w) in [
        (counted(&[1, 3, 4, 4]), w.clone()),
        (counted(&[1, 2, 2, 4]), w.clone()),
        (counted(&[4]), w.clone()),
        (x.clone(), counted(&[2, 3, 3])),
        (x.clone(), counted(&[1, 2, 0, 3])),
    ] {
        assert!(try_eval(&node, &[&counted(&[1, 2, 4, 4]), &counted(&[1, 2, 3, 3])], &[&x, &w]).is_err());
    }
    assert_is(&eval(&node, &[&counted(&[0, 2, 4, 4]), &w]), &[0, 1, 2, 2], &[]);
}

#[test]
fn products_of_vectors_and_stacks() {
    let (m, v) = (counted(&[2, 3]), counted(&[3]));
    assert_is(&eval("matmul(%0, %1)", &[&v, &v]), &[], &[5.0]);
    assert_is(&eval("matmul(%0, %1)", &[&m, &v]), &[2], &[5.0, 14.0]);
    assert_is(&eval("matmul(%0, %1) transpose_a=true", &[&m, &f32s(&[2, 1], &[1.0, 2.0])]), &[3, 1], &[6.0, 9.0, 12.0]);
    assert_is(&eval("matmul(%0, %1) transpose_b=true", &[&m, &m]), &[2, 2], &[5.0, 14.0, 14.0, 50.0]);
    // [2, 1, 1, 3] x [3, 3, 2]: NumPy's matmul of arange(6) and arange(18).
    let y = eval("matmul(%0, %1)", &[&counted(&[2, 1, 1, 3]), &counted(&[3, 3, 2])]);
    let expected = [10.0, 13.0, 28.0, 31.0, 46.0, 49.0, 28.0, 40.0, 100.0, 112.0, 172.0, 184.0];
    assert_is(&y, &[2, 3, 1, 2], &expected);
    assert_is(&eval("matmul(%0, %1)", &[&counted(&[2, 0]), &counted(&[0, 2])]), &[2, 2], &[0.0; 4]);
    assert!(try_eval("matmul(%0, %1)", &[&m, &v], &[&m, &counted(&[2])]).is_err());
}

#[test]
fn integer_products_wrap() {
    let a = Tensor::from_vec([1, 2], vec![i32::MAX, 2]).unwrap();
    let b = Tensor::from_vec([2, 1], vec![2, 5]).unwrap();
    assert_is(&eval("matmul(%0, %1)", &[&a, &b]), &[1, 1], &[8.0]);
}

#[test]
fn a_bias_broadcasts_to_the_product() {
    let y = eval(
        "matmul(%0, %1, %2) epilogue=[add, relu]",
        &[&counted(&[2, 2]), &counted(&[2, 2]), &f32s(&[2], &[-5.0, 1.0])],
    );
    // [[2, 3], [6, 11]] + [-5, 1]
    assert_is(&y, &[2, 2], &[0.0, 4.0, 1.0, 12.0]);
}

#[test]
fn einsum_names_its_axes() {
    let (a, b) = (counted(&[2, 2, 3]), counted(&[2, 3, 2]));
    // onnxruntime
    assert_is(&eval("einsum(%0, %1) equation=\"bij,bjk->ik\"", &[&a, &b]), &[2, 2], &[182.0, 206.0, 272.0, 314.0]);
    assert_is(&eval("einsum(%0) equation=\"ii->i\"", &[&counted(&[3, 3])]), &[3], &[0.0, 4.0, 8.0]);
    assert_is(&eval("einsum(%0) equation=\"ij->\"", &[&counted(&[2, 3])]), &[], &[15.0]);
    // An ellipsis broadcasts.
    let y = eval("einsum(%0, %1) equation=\"...ij,...jk->...ki\"", &[&counted(&[1, 1, 2]), &counted(&[2, 2, 1])]);
    assert_is(&y, &[2, 1, 1], &[1.0, 3.0]);
}
