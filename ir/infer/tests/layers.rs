//! Elementwise operators, convolutions, products, pools, reductions, normalisations, quantization.

use super::{check, check_refused};
use crate::infer::{broadcast, broadcasts_to, explicit_padding, explicit_transposed_padding};
use crate::op::ConvTranspose;
use crate::{Dim, Padding, Shape};

fn shape(dims: &[&str]) -> Shape {
    dims.iter().map(|dim| dim.parse().unwrap()).collect()
}

#[test]
fn shapes_broadcast() {
    let cases: [(&[&str], &[&str], &[&str]); 7] = [
        (&["2", "1"], &["3"], &["2", "3"]),
        (&[], &["n"], &["n"]),
        (&["n"], &["1"], &["n"]),
        (&["n"], &["4"], &["4"]),
        (&["n", "c"], &["n", "1"], &["n", "c"]),
        (&["n"], &["2*n+2"], &["2*n+2"]),
        (&["n"], &["m"], &["max(m, n)"]),
    ];
    for (a, b, expected) in cases {
        assert_eq!(broadcast(&shape(a), &shape(b)), Ok(shape(expected)));
        assert_eq!(broadcast(&shape(b), &shape(a)), Ok(shape(expected)));
    }
    assert_eq!(broadcast(&shape(&["2"]), &shape(&["3"])), Err("2 and 3 do not broadcast".to_string()));
    assert_eq!(broadcast(&shape(&["0"]), &shape(&["1"])), Ok(shape(&["0"])));
    assert_eq!(broadcasts_to(&shape(&["1", "c"]), &shape(&["n", "h", "c"])), Ok(()));
    assert_eq!(broadcasts_to(&shape(&["3"]), &shape(&["1"])), Err("3 does not broadcast to 1".to_string()));
    assert!(broadcasts_to(&shape(&["1", "1"]), &shape(&["1"])).is_err());
}

#[test]
fn elementwise_types() {
    check(
        "%x: f16[n, 3], %y: f16[3], %i: i32[3], %u: f32[..], %c: bool[n, 1]",
        "%a = add(%x, %y)
         %p = pow(%x, %i)
         %l = less(%x, %y)
         %g = gelu(%x)
         %t = cast(%x) to=f32
         %w = where(%c, %y, %x)
         %v = mul(%t, %u)
         %s = prelu(%x, %y)
         %z = is_nan(%x)",
        "a: f16[n, 3]
         p: f16[n, 3]
         l: bool[n, 3]
         g: f16[n, 3]
         t: f32[n, 3]
         w: f16[n, 3]
         v: f32[..]
         s: f16[n, 3]
         z: bool[n, 3]",
    );
    check_refused("%x: f32[2], %y: f32[3]", "%z = add(%x, %y)", "2 and 3 do not broadcast");
    check_refused("%x: f32[2], %y: f16[2]", "%z = add(%x, %y)", "f32 and f16 differ");
    check_refused("%x: f32[2]", "%z = not(%x)", "bool expected, f32 found");
    check_refused("%x: f32[2], %y: f32[2, 2]", "%z = prelu(%x, %y)", "rank 2 does not broadcast to rank 1");
}

#[test]
fn a_convolution_block() {
    check(
        "%x: f32[batch, 3, h, 224], %w: f32[64, 3, 7, 7], %s: f32[64]",
        "%y = conv(%x, %w, %s) strides=[2, 2] dilations=[1, 1] padding=[3, 3, 3, 3] groups=1
         %n = batch_norm(%y, %s, %s, %s, %s) epsilon=0.001
         %r = relu(%n)
         %p = pool(%r) kind=max kernel=[3, 3] strides=[2, 2] dilations=[1, 1] padding=[1, 1, 1, 1]
         %g = reduce(%p) kind=mean axes=[2, 3] keep_dims=true
         %f = flatten(%g) axis=1",
        "y: f32[batch, 64, (h+1)/2, 112]
         n: f32[batch, 64, (h+1)/2, 112]
         r: f32[batch, 64, (h+1)/2, 112]
         p: f32[batch, 64, (h+3)/4, 56]
         g: f32[batch, 64, 1, 1]
         f: f32[batch, 64]",
    );
}

#[test]
fn convolutions() {
    check(
        "%x: f32[1, 4, 9, 10], %w: f32[8, 2, 3, 3], %r: f32[1, 8, 2, 3], %q: f32[8, 4, 5], %z: f32[1, 4, n]",
        "%a = conv(%x, %w, _, %r) strides=[3, 3] dilations=[2, 2] padding=[1, 0, 0, 2] groups=2 epilogue=[add, relu]
         %b = conv(%x, %w) strides=[2, 2] dilations=[1, 1] padding=same_upper groups=2
         %c = conv(%z, %q) strides=[1] dilations=[1] padding=[2, 2] groups=1",
        // a: windows of 5 on 10 and 12 padded elements, in steps of 3.
        "a: f32[1, 8, 2, 3]
         b: f32[1, 8, 5, 5]
         c: f32[1, 8, n]",
    );
    // Of nothing there is nothing, with padding as if by `SAME_UPPER`; more or less of it is a window or none.
    check(
        "%x: f32[1, 4, 0], %w: f32[8, 4, 3]",
        "%a = conv(%x, %w) strides=[1] dilations=[1] padding=[1, 1] groups=1
         %b = pool(%x) kind=max kernel=[3] strides=[2] dilations=[1] padding=[1, 1] ceil_mode=true
         %c = conv(%x, %w) strides=[1] dilations=[1] padding=[1, 2] groups=1",
        "a: f32[1, 8, 0]
         b: f32[1, 4, 0]
         c: f32[1, 8, 1]",
    );
    check_refused(
        "%x: f32[1, 4, 0], %w: f32[8, 4, 3]",
        "%a = conv(%x, %w) strides=[1] dilations=[1] padding=[1, 0] groups=1",
        "window of 3 on 1 padded elements of axis 2",
    );
    let parameters = "strides=[1] dilations=[1] groups=1";
    let refused = |inputs: &str, reason: &str| {
        check_refused(inputs, &format!("%y = conv(%x, %w) {parameters}"), reason);
    };
    refused("%x: f32[1, 4, 9], %w: f32[8, 3, 3]", "data of 4 channels, weight for 3");
    refused("%x: f32[1, 4, 2], %w: f32[8, 4, 3]", "window of 3 on 2 padded elements of axis 2");
    refused("%x: f32[1, 4, 2], %w: f32[8, 4, 3, 3]", "data of rank 3 and weight of rank 4");
    refused("%x: f32[1, 4, 2, 2], %w: f32[8, 4, 1, 1]", "strides of 1 axes for 2 spatial axes");
    refused("%x: f32[1, 4, 2], %w: f16[8, 4, 1]", "f32 and f16 differ");
    check_refused(
        "%x: f32[1, 4, 2], %w: f32[8, 4, 1], %b: f32[4]",
        &format!("%y = conv(%x, %w, %b) {parameters}"),
        "bias of 4 for 8 channels",
    );
    check_refused(
        "%x: f32[1, 4, 2], %w: f32[8, 4, 1], %r: f32[1, 8, 1]",
        &format!("%y = conv(%x, %w, _, %r) {parameters} epilogue=[add]"),
        "input 3: 1 added to 2",
    );
}

#[test]
fn transposed_convolutions() {
    check(
        "%x: f32[n, 4, 5, w], %k: f32[4, 3, 3, 3]",
        "%a = conv_transpose(%x, %k) strides=[2, 2] dilations=[1, 1] padding=[1, 1, 1, 1] output_padding=[1, 0] groups=1
         %b = conv_transpose(%x, %k) strides=[3, 3] dilations=[1, 1] padding=same_lower output_padding=[0, 0] groups=2
         %c = conv_transpose(%x, %k) strides=[3, 3] dilations=[1, 1] output_padding=[0, 0] output_shape=[10, 8] groups=1",
        "a: f32[n, 3, 10, 2*w-1]
         b: f32[n, 6, 15, 3*w]
         c: f32[n, 3, 10, 8]",
    );
    check_refused(
        "%x: f32[1, 4, 5], %k: f32[3, 3, 3]",
        "%a = conv_transpose(%x, %k) strides=[1] dilations=[1] output_padding=[0] groups=1",
        "data of 4 channels, weight for 3",
    );
}

#[test]
fn same_padding_as_numbers() {
    // 5 elements in steps of 2: 3 windows that cover 2 * 2 + 3 = 7 elements, 2 more than there are.
    assert_eq!(explicit_padding(&Padding::SameUpper, &[3], &[2], &[1], &[5]).unwrap().as_slice(), [1, 1]);
    // 6 elements: 3 windows, 7 elements, 1 more.
    assert_eq!(explicit_padding(&Padding::SameUpper, &[3], &[2], &[1], &[6]).unwrap().as_slice(), [0, 1]);
    assert_eq!(explicit_padding(&Padding::SameLower, &[3], &[2], &[1], &[6]).unwrap().as_slice(), [1, 0]);
    // A dilated window of 5 on 4 elements: 4 windows cover 8.
    assert_eq!(explicit_padding(&Padding::SameUpper, &[3], &[1], &[2], &[4]).unwrap().as_slice(), [2, 2]);
    // Steps longer than the window need no padding.
    assert_eq!(explicit_padding(&Padding::SameUpper, &[1], &[2], &[1], &[5]).unwrap().as_slice(), [0, 0]);
    assert!(explicit_padding(&Padding::SameUpper, &[1, 1], &[2], &[1], &[5]).is_err());
    assert!(explicit_padding(&Padding::SameUpper, &[1], &[0], &[1], &[5]).is_err());

    let mut op = ConvTranspose {
        strides: [2].into_iter().collect(),
        dilations: [1].into_iter().collect(),
        padding: Padding::SameUpper,
        output_padding: [0].into_iter().collect(),
        output_shape: None,
        groups: 1,
        epilogue: Default::default(),
    };
    // 2 * (4 - 1) + 3 = 9 elements, 8 wanted.
    assert_eq!(explicit_transposed_padding(&op, &[3], &[4]).unwrap().as_slice(), [0, 1]);
    op.padding = Padding::none(1);
    assert_eq!(explicit_transposed_padding(&op, &[3], &[4]).unwrap().as_slice(), [0, 0]);
    op.output_shape = Some([6].into_iter().collect());
    assert_eq!(explicit_transposed_padding(&op, &[3], &[4]).unwrap().as_slice(), [2, 1]);
}

#[test]
fn matrix_products() {
    check(
        "%a: f32[n, 1, 3, 4], %b: f32[7, 4, 5], %v: f32[4], %w: f32[3, 4], %c: f32[5]",
        "%p = matmul(%a, %b, %c) epilogue=[add, relu]
         %q = matmul(%a, %v)
         %r = matmul(%v, %b)
         %s = matmul(%v, %v)
         %t = matmul(%w, %w) transpose_b=true
         %u = matmul(%w, %w) transpose_a=true
         %e = einsum(%a, %b) equation=\"...ij,...jk->...ki\"
         %f = einsum(%w) equation=\"ij->j\"
         %g = einsum(%w, %v) equation=\"ij,j->i\"",
        "p: f32[n, 7, 3, 5]
         q: f32[n, 1, 3]
         r: f32[7, 5]
         s: f32[]
         t: f32[3, 3]
         u: f32[4, 4]
         e: f32[n, 7, 5, 3]
         f: f32[4]
         g: f32[3]",
    );
    check_refused("%a: f32[2, 3], %b: f32[4, 5]", "%c = matmul(%a, %b)", "inner dimensions 3 and 4 differ");
    check_refused("%a: f32[], %b: f32[4]", "%c = matmul(%a, %b)", "a scalar has no matrix product");
    check_refused(
        "%a: f32[2, 3], %b: f32[3, 4], %c: f32[2, 2, 4]",
        "%d = matmul(%a, %b, %c) epilogue=[add]",
        "input 2: rank 3 does not broadcast to rank 2",
    );
    check_refused("%a: f32[2]", "%b = einsum(%a) equation=\"ij->i\"", "term `ij` for rank 1");
    check_refused("%a: f32[2]", "%b = einsum(%a) equation=\"i->k\"", "label `k` is in no input");
}

#[test]
fn pools() {
    check(
        "%x: f32[1, 2, 6, h], %y: f32[1, 1, 5]",
        "%a, %i = pool(%x) kind=max kernel=[3, 3] strides=[2, 2] dilations=[1, 1]
         %b = pool(%x) kind=average kernel=[3, 3] strides=[2, 2] dilations=[1, 1] ceil_mode=true
         %c = pool(%y) kind=max kernel=[1] strides=[3] dilations=[1] padding=[0, 1] ceil_mode=true
         %d = pool(%x) kind=lp kernel=[2, 2] strides=[3, 3] dilations=[1, 1] padding=same_lower p=2
         %e = pool(%x) kind=max kernel=[2, 2] strides=[2, 2] dilations=[1, 1] padding=[1, 1, 1, 1] ceil_mode=true",
        // c: ceil((5 + 1 - 1) / 3) + 1 = 3 windows start at 0, 3, 6, the last one in the padding.
        "a: f32[1, 2, 2, (h+1)/2-1]
         i: i64[1, 2, 2, (h+1)/2-1]
         b: f32[1, 2, 3, h/2]
         c: f32[1, 1, 2]
         d: f32[1, 2, 2, (h+2)/3]
         e: f32[1, 2, 4, min(h/2+1, (h+1)/2+1)]",
    );
    check_refused(
        "%x: f32[1, 1, 4]",
        "%a = pool(%x) kind=max kernel=[3] strides=[1] dilations=[2]",
        "window of 5 on 4 padded elements of axis 2",
    );
    check_refused(
        "%x: f32[1, 1, 4]",
        "%a, %b = pool(%x) kind=average kernel=[3] strides=[1] dilations=[1]",
        "2 outputs asked for, 1 possible",
    );
}

#[test]
fn resizes() {
    let tail = "nearest=floor cubic_coeff=-0.75 extrapolation=0.0";
    let text = "%f = constant() value=f32[4] {1, 1, 2, 0.5}
         %k = constant() value=f32[1] {0.7}
         %s = constant() value=i64[2] {20, 30}
         %a = resize(%x, _, %f) mode=nearest coordinates=asymmetric aspect=stretch TAIL
         %b = resize(%x, _, _, %s) mode=linear coordinates=half_pixel axes=[2, -1] aspect=stretch TAIL
         %c = resize(%x, _, %k) mode=linear coordinates=half_pixel axes=[2] aspect=stretch TAIL
         %d = resize(%z, _, _, %s) mode=linear coordinates=half_pixel axes=[0, 1] aspect=not_larger TAIL
         %e = resize(%z, _, _, %s) mode=linear coordinates=half_pixel axes=[0, 1] aspect=not_smaller TAIL
         %g = resize(%x, _, _, %u) mode=linear coordinates=half_pixel axes=[2, 3] aspect=stretch TAIL"
        .replace("TAIL", tail);
    check(
        "%x: f32[n, 3, 10, w], %z: f32[10, 20], %u: i64[2]",
        &text,
        // d: the scale is min(20 / 10, 30 / 20) = 1.5, e: max = 2.
        "a: f32[n, 3, 20, w/2]
         b: f32[n, 3, 20, 30]
         c: f32[n, 3, 7, w]
         d: f32[15, 30]
         e: f32[20, 40]
         g: f32[n, 3, g.d2, g.d3]",
    );
}

#[test]
fn reductions() {
    check(
        "%x: f32[n, 3, h], %k: i64[1], %a: i64[2]",
        "%one = constant() value=i64[1] {-2}
         %three = constant() value=i64[1] {3}
         %axis = constant() value=i64[] {-1}
         %b = reduce(%x) kind=sum
         %c = reduce(%x) kind=mean keep_dims=true noop_if_empty=true
         %d = reduce(%x, %one) kind=max
         %e = reduce(%x, %a) kind=l2
         %f = reduce(%x, %a) kind=l2 keep_dims=true
         %g = arg_reduce(%x) largest=true axis=-1 keep_dims=true
         %i = softmax(%x) axis=1
         %v, %w = topk(%x, %k) axis=2 largest=true sorted=true
         %p, %q = topk(%x, %three) axis=0 largest=true sorted=true
         %s = cumulative(%x, %axis)",
        "b: f32[]
         c: f32[n, 3, h]
         d: f32[n, h]
         e: f32[e.d0]
         f: f32[f.d0, f.d1, f.d2]
         g: i64[n, 3, 1]
         i: f32[n, 3, h]
         v: f32[n, 3, v.k]
         w: i64[n, 3, v.k]
         p: f32[3, 3, h]
         q: i64[3, 3, h]
         s: f32[n, 3, h]",
    );
    check_refused("%x: f32[2]", "%y = reduce(%x) kind=sum axes=[1]", "axis 1 is outside of rank 1");
    check_refused("%x: f32[2, 2]", "%y = reduce(%x) kind=sum axes=[1, -1]", "axis 1 is named twice");
    check_refused(
        "%x: f32[2]",
        "%k = constant() value=i64[1] {3}
         %v, %i = topk(%x, %k) axis=0",
        "k of 3 on axis 0 of 2",
    );
}

#[test]
fn normalisations() {
    check(
        "%x: f16[n, 6, t], %s: f16[t], %c: f16[6]",
        "%a, %m, %d = layer_norm(%x, %s, _) axis=-1 epsilon=0.1
         %b = rms_norm(%x, %s) axis=-1 epsilon=0.1
         %g = group_norm(%x, %c, %c) groups=3 epsilon=0.1
         %l = lrn(%x) alpha=1.0 beta=1.0 bias=1.0 size=5
         %p = lp_norm(%x) axis=1 p=2
         %v = mean_variance_norm(%x) axes=[0, 2]",
        "a: f16[n, 6, t]
         m: f32[n, 6, 1]
         d: f32[n, 6, 1]
         b: f16[n, 6, t]
         g: f16[n, 6, t]
         l: f16[n, 6, t]
         p: f16[n, 6, t]
         v: f16[n, 6, t]",
    );
    check_refused(
        "%x: f32[n, 6, 4], %s: f32[5]",
        "%y = batch_norm(%x, %s, %s, %s, %s) epsilon=0.1",
        "input 1 of 5 for 6 channels",
    );
    check_refused(
        "%x: f32[n, 6, 4], %s: f32[6]",
        "%y = group_norm(%x, %s, %s) groups=4 epsilon=0.1",
        "6 channels in 4 groups",
    );
    check_refused(
        "%x: f32[n, 6, 4], %s: f32[5]",
        "%y = rms_norm(%x, %s) axis=2 epsilon=0.1",
        "5 does not broadcast to 4",
    );
}

#[test]
fn quantization() {
    check(
        "%x: f32[n, 6], %s: f32[], %c: f32[6], %b: f16[n, 3], %z: i8[6], %q: i8[n, 6]",
        "%a = quantize(%x, %s) axis=1 to=u8
         %d = quantize(%x, %c, %z) axis=1 to=i8
         %e = dequantize(%d, %c) axis=-1
         %f = dequantize(%q, %b) axis=1 block_size=2",
        "a: u8[n, 6]
         d: i8[n, 6]
         e: f32[n, 6]
         f: f16[n, 6]",
    );
    check_refused(
        "%x: f32[n, 6], %s: f32[5]",
        "%y = quantize(%x, %s) axis=1 to=i8",
        "5 scales for 6 indices of axis 1",
    );
    check_refused("%x: i8[n, 6], %s: i32[]", "%y = dequantize(%x, %s) axis=1", "scale of i32");
    check_refused("%x: f32[2], %s: f32[], %z: u8[]", "%y = quantize(%x, %s, %z) axis=0 to=i8", "u8 and i8 differ");
}

#[test]
fn what_is_not_known_is_no_error() {
    check(
        "%x: f32[..], %w: f32[4, 4, 3, 3], %i: i64[..]",
        "%a = conv(%x, %w) strides=[1, 1] dilations=[1, 1] padding=[1, 1, 1, 1] groups=1
         %b = matmul(%x, %w)
         %c = pool(%x) kind=max kernel=[2] strides=[2] dilations=[1]
         %d = reduce(%x) kind=sum axes=[1]
         %e = transpose(%x) perm=[1, 0]
         %f = concat(%x, %w) axis=0
         %g = gather(%x, %i) axis=0
         %h = slice(%x, %i, %i)
         %j = reshape(%x, %i)
         %k = softmax(%x) axis=3
         %l = expand(%x, %i)
         %m = tile(%x, %i)
         %n, %o = split(%x) axis=1
         %p = nonzero(%x)",
        "a: f32[..]
         b: f32[..]
         c: f32[..]
         d: f32[..]
         e: f32[..]
         f: f32[f.d0, 4, 3, 3]
         g: f32[..]
         h: f32[..]
         j: f32[..]
         k: f32[..]
         l: f32[..]
         m: f32[..]
         n: f32[..]
         o: f32[..]
         p: i64[p.rank, p.count]",
    );
}

#[test]
fn expressions_do_not_grow_without_bound() {
    let mut body = String::from("%s0 = shape(%x) start=0\n");
    for at in 0..60 {
        body.push_str(&format!("%t{at} = add(%s{at}, %s{at})\n%u{at} = mul(%t{at}, %s{at})\n"));
        body.push_str(&format!("%s{} = max(%u{at}, %t{at})\n", at + 1));
    }
    let graph: crate::Graph = format!("graph g(%x: f32[n, m]) -> (%s60) {{\n{body}}}").parse().unwrap();
    let last = graph.outputs()[0].value;
    assert_eq!(graph.info(last).unwrap().shape, Some(Shape::from_iter([Dim::fixed(2)])));
}
