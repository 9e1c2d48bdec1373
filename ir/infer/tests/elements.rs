//! Elements of small integer tensors through shape arithmetic.

use super::check;

#[test]
fn arithmetic() {
    check(
        "%x: f32[n, 3, h]",
        "%s = shape(%x) start=0
         %two = constant() value=i64[] {2}
         %minus = constant() value=i64[] {-7}
         %a = add(%s, %two)
         %b = div(%s, %two)
         %c = mul(%s, %s)
         %d = sub(%two, %s)
         %e = mod(%s, %two)
         %f = max(%s, %two)
         %g = neg(%s)
         %i = cast(%s) to=i32
         %j = div(%minus, %two)
         %k = fmod(%minus, %two)
         %l = mod(%minus, %two)
         %m = div(%g, %two)
         %o = cast(%s) to=f32
         %p = cast(%s) to=i8",
        // Division rounds towards zero: what may be negative is not followed.
        "s: i64[3] = [n, 3, h]
         a: i64[3] = [n+2, 5, h+2]
         b: i64[3] = [n/2, 1, h/2]
         c: i64[3] = [n*n, 9, h*h]
         d: i64[3] = [-n+2, -1, -h+2]
         e: i64[3] = [n%2, 1, h%2]
         f: i64[3] = [max(2, n), 3, max(2, h)]
         g: i64[3] = [-n, -3, -h]
         i: i32[3] = [n, 3, h]
         j: i64[] = [-3]
         k: i64[] = [-1]
         l: i64[] = [1]
         m: i64[3]
         o: f32[3]
         p: i8[3]",
    );
}

#[test]
fn logic_where_it_is_decided() {
    // Expand to a shape whose -1 mean "as it is": what exporters write.
    check(
        "%x: f32[n, 1, h]",
        "%s = shape(%x) start=0
         %wish = constant() value=i64[3] {-1, 4, -1}
         %minus = constant() value=i64[] {-1}
         %zero = constant() value=i64[] {0}
         %keep = equal(%wish, %minus)
         %to = where(%keep, %s, %wish)
         %y = expand(%x, %to)
         %a = less(%s, %zero)
         %b = greater_or_equal(%s, %zero)
         %c = not(%a)
         %d = and(%b, %c)
         %e = greater(%s, %zero)",
        "s: i64[3] = [n, 1, h]
         keep: bool[3] = [1, 0, 1]
         to: i64[3] = [n, 4, h]
         y: f32[n, 4, h]
         a: bool[3] = [0, 0, 0]
         b: bool[3] = [1, 1, 1]
         c: bool[3] = [1, 1, 1]
         d: bool[3] = [1, 1, 1]
         e: bool[3]",
    );
}

#[test]
fn movement() {
    check(
        "%x: f32[n, 3, h, 8]",
        "%s = shape(%x) start=0
         %i = constant() value=i64[2] {-1, 0}
         %r = constant() value=i64[1] {2}
         %to = constant() value=i64[2] {2, 2}
         %grid = constant() value=i64[2, 2] {0, 1, 1, 0}
         %tail = shape(%x) start=-2
         %mid = shape(%x) start=1 end=-1
         %g = gather(%s, %i) axis=0
         %c = concat(%tail, %g) axis=0
         %m = reshape(%c, %to)
         %t = transpose(%m) perm=[1, 0]
         %u = unsqueeze(%mid) axes=[1]
         %q = squeeze(%u) axes=[1]
         %e = expand(%mid) shape=[2, 2]
         %l = tile(%mid, %r)
         %a, %b = split(%s) axis=0 sizes=[1, 3]
         %back = slice(%s) axes=[0] starts=[3] ends=[-1] steps=[-2]
         %k = identity(%back)
         %ge = gather_elements(%m, %grid) axis=1
         %fl = flatten(%m) axis=0",
        "s: i64[4] = [n, 3, h, 8]
         tail: i64[2] = [h, 8]
         mid: i64[2] = [3, h]
         g: i64[2] = [8, n]
         c: i64[4] = [h, 8, 8, n]
         m: i64[2, 2] = [h, 8, 8, n]
         t: i64[2, 2] = [h, 8, 8, n]
         u: i64[2, 1] = [3, h]
         q: i64[2] = [3, h]
         e: i64[2, 2] = [3, h, 3, h]
         l: i64[4] = [3, h, 3, h]
         a: i64[1] = [n]
         b: i64[3] = [3, h, 8]
         back: i64[2] = [8, 3]
         k: i64[2] = [8, 3]
         ge: i64[2, 2] = [h, 8, n, 8]
         fl: i64[1, 4] = [h, 8, 8, n]",
    );
}

#[test]
fn made_and_reduced() {
    check(
        "%x: f32[n, 3, h]",
        "%s = shape(%x) start=0
         %one = constant() value=i64[1] {2}
         %i0 = constant() value=i64[] {0}
         %i5 = constant() value=i64[] {5}
         %i2 = constant() value=i64[] {2}
         %r = range(%i0, %i5, %i2)
         %d = range(%i5, %i0, %i2)
         %f = constant_of_shape(%one) value=i64[1] {-1}
         %p = reduce(%s) kind=prod
         %q = reduce(%s) kind=sum keep_dims=true
         %m = reduce(%s) kind=max axes=[0]
         %l = reduce(%s) kind=l1
         %z = size(%x)",
        "s: i64[3] = [n, 3, h]
         r: i64[3] = [0, 2, 4]
         d: i64[0] = []
         f: i64[2] = [-1, -1]
         p: i64[] = [3*h*n]
         q: i64[1] = [h+n+3]
         m: i64[] = [max(h, max(3, n))]
         l: i64[]
         z: i64[] = [3*h*n]",
    );
}
