//! Operators that move data or index into it.

use super::{check, check_refused};
use crate::Graph;

#[test]
fn reshapes() {
    check(
        "%x: f32[n, 12, h, 4], %u: i64[3], %v: i64[k]",
        "%s = constant() value=i64[3] {0, -1, 8}
         %t = constant() value=i64[2] {-1, 48}
         %z = constant() value=i64[1] {-1}
         %a = reshape(%x, %s)
         %b = reshape(%x, %t)
         %c = reshape(%x, %z)
         %d = reshape(%x) shape=[n, (48*h)]
         %e = reshape(%x, %u)
         %f = reshape(%x, %v)
         %g = flatten(%x) axis=0
         %i = flatten(%x) axis=4
         %j = flatten(%x) axis=-2",
        "a: f32[n, 6*h, 8]
         b: f32[h*n, 48]
         c: f32[48*h*n]
         d: f32[n, 48*h]
         e: f32[e.d0, e.d1, e.d2]
         f: f32[..]
         g: f32[1, 48*h*n]
         i: f32[48*h*n, 1]
         j: f32[12*n, 4*h]",
    );
    let shape =
        |elements: &str, rest: &str| format!("%s = constant() value=i64[2] {{{elements}}}\n%y = reshape(%x, %s){rest}");
    check_refused("%x: f32[2, 3]", &shape("-1, 4", ""), "6 elements in groups of 4");
    check_refused("%x: f32[2, 3]", &shape("-1, -1", ""), "two sizes of -1");
    check_refused("%x: f32[2, 3]", &shape("2, 4", ""), "6 elements into 8");
    check_refused("%x: f32[2, 3]", &shape("0, 2", " allow_zero=true"), "6 elements into 0");
    check_refused("%x: f32[6]", &shape("6, 0", ""), "0 at axis 1 of rank 1");
    check_refused("%x: f32[2, 3]", &shape("-2, 3", ""), "size of -2");
}

#[test]
fn a_shape_of_computed_parts_is_reshaped_to() {
    // Attention heads: [batch, seq, 768] to [batch, seq, 12, 64].
    check(
        "%x: f32[batch, seq, 768]",
        "%shape = shape(%x) start=0
         %zero = constant() value=i64[] {0}
         %one = constant() value=i64[] {1}
         %axis = constant() value=i64[1] {0}
         %heads = constant() value=i64[2] {12, -1}
         %b = gather(%shape, %zero) axis=0
         %s = gather(%shape, %one) axis=0
         %bu = unsqueeze(%b, %axis)
         %su = unsqueeze(%s, %axis)
         %to = concat(%bu, %su, %heads) axis=0
         %y = reshape(%x, %to)
         %t = transpose(%y) perm=[0, 2, 1, 3]",
        "shape: i64[3] = [batch, seq, 768]
         b: i64[] = [batch]
         s: i64[] = [seq]
         bu: i64[1] = [batch]
         su: i64[1] = [seq]
         to: i64[4] = [batch, seq, 12, -1]
         y: f32[batch, seq, 12, 64]
         t: f32[batch, 12, seq, 64]",
    );
}

#[test]
fn axes_come_and_go() {
    check(
        "%x: f32[1, n, 1, 3], %y: f32[1, 2, 1], %u: i64[1]",
        "%axes = constant() value=i64[2] {0, -1}
         %a = squeeze(%x) axes=[0, 2]
         %b = squeeze(%x)
         %c = squeeze(%y)
         %d = squeeze(%y, %axes)
         %e = unsqueeze(%y) axes=[0, -1]
         %f = unsqueeze(%y, %axes)
         %g = squeeze(%y, %u)
         %h = squeeze(%x) axes=[1]",
        "a: f32[n, 3]
         b: f32[..]
         c: f32[2]
         d: f32[2]
         e: f32[1, 1, 2, 1, 1]
         f: f32[1, 1, 2, 1, 1]
         g: f32[..]
         h: f32[1, 1, 3]",
    );
    check_refused("%x: f32[2]", "%y = squeeze(%x) axes=[0]", "axis 0 has size 2, not 1");
    check_refused("%x: f32[2]", "%y = unsqueeze(%x) axes=[3]", "axis 3 is outside of rank 2");
    check_refused("%x: f32[2, 2]", "%y = transpose(%x) perm=[0]", "permutation of 1 axes for rank 2");
    check_refused("%x: f32[2, 2]", "%y = transpose(%x) perm=[0, 0]", "axis 0 is named twice");
}

#[test]
fn joins_and_splits() {
    check(
        "%x: f32[n, 2, h], %y: f32[n, m, 5], %u: i64[2]",
        "%a = concat(%x, %y) axis=1
         %b, %c, %d = split(%y) axis=2
         %e, %f = split(%x) axis=1 sizes=[2, 0]
         %g, %i = split(%y, %u) axis=0
         %j, %k = split(%x) axis=-1",
        "a: f32[n, m+2, 5]
         b: f32[n, m, 2]
         c: f32[n, m, 2]
         d: f32[n, m, 1]
         e: f32[n, 2, h]
         f: f32[n, 0, h]
         g: f32[g.part0, m, 5]
         i: f32[g.part1, m, 5]
         j: f32[n, 2, (h+1)/2]
         k: f32[n, 2, h-(h+1)/2]",
    );
    check_refused("%x: f32[2, 3], %y: f32[2, 4]", "%z = concat(%x, %y) axis=0", "input 1: 4 along axis 1, others 3");
    check_refused("%x: f32[2, 3], %y: f32[2]", "%z = concat(%x, %y) axis=0", "input 1 of rank 1, others of rank 2");
    check_refused("%x: f32[5]", "%a, %b = split(%x) axis=0 sizes=[2, 2]", "parts of 4 elements in all, axis 0 has 5");
    check_refused("%x: f32[5]", "%a, %b = split(%x) axis=0 sizes=[5]", "1 sizes for 2 outputs");
    check_refused("%x: f32[2]", "%a, %b, %c, %d = split(%x) axis=0", "2 elements in 4 parts");
}

/// Slices of an axis of 10 elements and of one of `h`, against Python's `range(*slice(..).indices(10))`.
#[test]
fn slices() {
    let far = i64::MAX;
    let cases = [
        (1, far, 1, "9", "max(0, h-1)"),
        (0, 4, 1, "4", "min(4, h)"),
        (0, -1, 1, "9", "max(0, h-1)"),
        (-3, far, 1, "3", "min(3, h)"),
        (2, 5, 1, "3", "max(0, min(5, h)-2)"),
        (0, far, 2, "5", "(h+1)/2"),
        (1, far, 3, "3", "(max(0, h-1)+2)/3"),
        (7, 3, 1, "0", "max(0, min(3, h)-7)"),
        (-1, -far, -1, "10", "h"),
        (far, i64::MIN, -2, "5", "(h+1)/2"),
        (8, 2, -3, "2", ""),
        (-20, 20, 1, "10", ""),
    ];
    for (start, end, step, fixed, symbolic) in cases {
        let body = |at: usize| {
            format!(
                "%s = constant() value=i64[1] {{{start}}}\n%e = constant() value=i64[1] {{{end}}}
                 %a = constant() value=i64[1] {{{at}}}\n%t = constant() value=i64[1] {{{step}}}
                 %y = slice(%x, %s, %e, %a, %t)"
            )
        };
        check("%x: f32[10, h]", &body(0), &format!("y: f32[{fixed}, h]"));
        if !symbolic.is_empty() {
            check("%x: f32[10, h]", &body(1), &format!("y: f32[10, {symbolic}]"));
        }
    }
    check(
        "%x: f32[10, h, w], %u: i64[2], %v: i64[1]",
        "%one = constant() value=i64[1] {1}
         %a = slice(%x) axes=[0, 1] starts=[2, 0] ends=[6, h] steps=[3, 1]
         %b = slice(%x) axes=[0] starts=[9] ends=[-1] steps=[-1]
         %f = slice(%x) axes=[1, 2] starts=[(h-1), (w-1)] ends=[-1, -1] steps=[-1, -3]
         %c = slice(%x, %u, %u)
         %d = slice(%x, %v, %v, %one)
         %e = slice(%x, %v, %v, %v)",
        "a: f32[2, h, w]
         b: f32[10, h, w]
         f: f32[10, h, (w+2)/3]
         c: f32[c.d0, c.d1, w]
         d: f32[10, d.d1, w]
         e: f32[e.d0, e.d1, e.d2]",
    );
    check_refused("%x: f32[2]", "%y = slice(%x) axes=[0] starts=[0] ends=[1] steps=[0]", "step of 0");
    check_refused(
        "%x: f32[2]",
        "%y = slice(%x) axes=[0] starts=[0, 1] ends=[1] steps=[1]",
        "2 starts, 1 ends and 1 steps for 1 axes",
    );
}

/// Slices of an axis of `n`, of which none to five elements are left, against ONNX's rule: starts and ends are clamped to
/// the axis, and the end of a backward slice to one before it.
#[test]
fn lengths_of_slices_of_any_size() {
    let far = i64::MAX;
    let bounds = [-far, -3, -2, -1, 0, 1, 2, 4, far];
    for (start, end) in bounds.iter().flat_map(|start| bounds.map(|end| (*start, end))) {
        for step in [1, 2, far, -1, -2, -far] {
            let text = format!(
                "graph g(%x: f32[n]) -> (%y) {{
                 %s = constant() value=i64[1] {{{start}}}\n%e = constant() value=i64[1] {{{end}}}
                 %a = constant() value=i64[1] {{0}}\n%t = constant() value=i64[1] {{{step}}}
                 %y = slice(%x, %s, %e, %a, %t) }}"
            );
            let graph: Graph = text.parse().unwrap();
            let length = graph.info(graph.outputs()[0].value).unwrap().shape.as_ref().unwrap()[0].clone();
            for size in 0..6_i64 {
                let from_front = |bound: i64| if bound < 0 { bound.saturating_add(size) } else { bound };
                let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
                let first = from_front(start).clamp(0, high.max(0)).min(high);
                let last = from_front(end).clamp(low, high);
                let taken = if step > 0 { last - first } else { first - last };
                let expected = if taken <= 0 { 0 } else { (taken - 1) / step.abs() + 1 };
                let found = length.evaluate(&|_| Some(size));
                assert_eq!(found, Some(expected), "{start}:{end}:{step} of {size}: {length}");
            }
        }
    }
}

#[test]
fn pads_tiles_and_expansions() {
    check(
        "%x: f32[n, 3, h], %u: i64[6], %one: f32[1, 3, 1], %w: i64[3], %v: i64[1]",
        "%p = constant() value=i64[2] {1, -2}
         %axis = constant() value=i64[1] {-1}
         %reps = constant() value=i64[3] {2, 1, 3}
         %a = pad(%x) mode=constant pads=[0, 1, 2, 0, 1, 2]
         %b = pad(%x, %p, _, %axis) mode=edge
         %c = pad(%x, %u) mode=wrap
         %d = tile(%x, %reps)
         %e = tile(%x, %w)
         %f = expand(%one) shape=[5, n, 1, h]
         %g = expand(%one, %reps)
         %i = expand(%one, %w)
         %j = expand(%x, %v)",
        "a: f32[n, 5, h+4]
         b: f32[n, 3, h-1]
         c: f32[c.d0, c.d1, c.d2]
         d: f32[2*n, 3, 3*h]
         e: f32[e.d0, e.d1, e.d2]
         f: f32[5, n, 3, h]
         g: f32[2, 3, 3]
         i: f32[i.d0, 3, i.d2]
         j: f32[n, 3, j.d2]",
    );
    check_refused("%x: f32[2]", "%y = pad(%x) mode=edge pads=[-2, -1]", "size of -1");
    check_refused("%x: f32[2]", "%y = pad(%x) mode=edge pads=[1]", "1 pads for 1 axes");
    check_refused("%x: f32[2]", "%y = expand(%x) shape=[3]", "2 and 3 do not broadcast");
}

#[test]
fn made_tensors() {
    check(
        "%x: f32[n, 3], %u: i64[2], %s: i64[], %m: f32[n, n, 2, 8]",
        "%zero = constant() value=f32[] {0}
         %end = constant() value=f32[] {1}
         %step = constant() value=f32[] {0.3}
         %i0 = constant() value=i64[] {0}
         %i2 = constant() value=i64[] {2}
         %shape = shape(%x) start=0
         %a = constant_of_shape(%shape) value=f32[1] {1}
         %b = constant_of_shape(%u) value=i64[1] {0}
         %c = range(%zero, %end, %step)
         %n = size(%x)
         %d = range(%i0, %n, %i2)
         %e = range(%i0, %s, %i2)
         %f = eye_like(%x) dtype=f16 k=1
         %g = trilu(%x) upper=true
         %j = depth_to_space(%m) block=2 inverse=true",
        // c: ceil(1 / 0.3) = 4.
        "shape: i64[2] = [n, 3]
         a: f32[n, 3]
         b: i64[b.d0, b.d1]
         c: f32[4]
         n: i64[] = [3*n]
         d: i64[n+(n+1)/2]
         e: i64[e.length]
         f: f16[n, 3]
         g: f32[n, 3]
         j: f32[n, 4*n, 1, 4]",
    );
    check("%x: f32[n, 8, h, 3]", "%y = depth_to_space(%x) block=2", "y: f32[n, 2, 2*h, 6]");
    check_refused("%x: f32[n, 6, h, 3]", "%y = depth_to_space(%x) block=2", "6 is no multiple of 4");
}

#[test]
fn indices() {
    check(
        "%x: f32[n, 3, h], %i: i64[2, k], %j: i32[n, 2], %d: i64[], %v: f32[2], %u: f32[n, h]",
        "%three = constant() value=i64[] {-1}
         %a = gather(%x, %i) axis=1
         %b = gather(%x, %three) axis=-2
         %c = gather_elements(%i, %i) axis=0
         %e = gather_nd(%x, %j) batch_dims=0
         %f = gather_nd(%x, %j) batch_dims=1
         %g = scatter_elements(%i, %i, %i) axis=1 reduction=add
         %l = scatter_nd(%x, %j, %u) reduction=none
         %m = one_hot(%i, %d, %v) axis=-1
         %o = nonzero(%x)",
        "a: f32[n, 2, k, h]
         b: f32[n, h]
         c: i64[2, k]
         e: f32[n, h]
         f: f32[n]
         g: i64[2, k]
         l: f32[n, 3, h]
         m: f32[2, k, m.depth]
         o: i64[3, o.count]",
    );
    check_refused("%x: f32[2], %i: f32[2]", "%y = gather(%x, %i) axis=0", "indices of f32");
    check_refused(
        "%x: f32[2]",
        "%i = constant() value=i64[] {2}
         %y = gather(%x, %i) axis=0",
        "index 2 on axis of 2",
    );
    check_refused("%x: f32[2], %i: i64[1, 2]", "%y = gather_nd(%x, %i) batch_dims=0", "for ranks 1 and 2");
}

#[test]
fn sequences_bits_and_random_numbers() {
    check(
        "%x: f32[t, n, 4], %l: i64[n], %s: i64[2], %b: f16[n]",
        "%a = reverse_sequence(%x, %l) batch_axis=1 time_axis=0
         %c = bit_cast(%b) to=i16
         %d = shape(%x) start=0 end=2
         %e = random(%d) kind=uniform dtype=f32 alpha=0.0 beta=1.0
         %f = random(%s) kind=normal dtype=f16 alpha=0.0 beta=1.0",
        "a: f32[t, n, 4]
         c: i16[n]
         d: i64[2] = [t, n]
         e: f32[t, n]
         f: f16[f.d0, f.d1]",
    );
}

#[test]
fn rolls_and_shuffles() {
    check(
        "%x: f32[n, 6, 4]",
        "%a = roll(%x) axes=[0, 2] shifts=[3, 1]
         %b = shuffle(%x) before=[0, 2, 1] shape=[(4*n), 2, 3] after=[2, 0, 1]",
        "a: f32[n, 6, 4]
         b: f32[3, 4*n, 2]",
    );
    check_refused("%x: f32[2, 3]", "%y = roll(%x) axes=[0, 1] shifts=[1]", "2 axes and 1 shifts");
    check_refused("%x: f32[2, 3]", "%y = roll(%x) axes=[1] shifts=[4]", "axis 1 of [2, 3] is moved by 4");
    check_refused("%x: f32[2, 3]", "%y = roll(%x) axes=[1] shifts=[-1]", "axis 1 of [2, 3] is moved by -1");
    check_refused("%x: f32[2, 3]", "%y = roll(%x) axes=[2] shifts=[1]", "axis 2 is outside of rank 2");
    check_refused("%x: f32[2, 3]", "%y = shuffle(%x) shape=[4, 2]", "6 elements into 8");
    check_refused("%x: f32[2, 3]", "%y = shuffle(%x) after=[0]", "permutation of 1 axes for rank 2");
}
