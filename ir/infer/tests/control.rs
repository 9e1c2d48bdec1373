//! Control flow.

use super::{check, check_refused};

/// A body as an attribute's text.
fn body(text: &str) -> String {
    format!("{text:?}")
}

#[test]
fn branches_are_unified() {
    let then = body("graph t(%x: f32[n, 4]) -> (%a, %x, %a) {\n%a = relu(%x)\n}");
    let other = body(
        "graph e(%x: f32[n, 4]) -> (%x, %s, %f) {\n%s = slice(%x) axes=[1] starts=[1] ends=[4] steps=[1]
         %f = flatten(%x) axis=0\n}",
    );
    let flat = body("graph f(%x: f32[n, 4]) -> (%x, %x, %q) {\n%q = reshape(%x) shape=[(4*n)]\n}");
    check(
        "%c: bool[], %x: f32[n, 4]",
        &format!(
            "%p, %q, %r = if(%c, %x) then_branch={then} else_branch={other}
             %no = constant() value=bool[] {{0}}
             %s, %t, %u = if(%no, %x) then_branch={then} else_branch={flat}
             %v, %w, %z = if(%c, %x) then_branch={then} else_branch={flat}"
        ),
        "p: f32[n, 4]
         q: f32[n, p.o1.d1]
         r: f32[p.o2.d0, p.o2.d1]
         s: f32[n, 4]
         t: f32[n, 4]
         u: f32[4*n]
         v: f32[n, 4]
         w: f32[n, 4]
         z: f32[..]",
    );
    let one = body("graph o(%x: f32[n, 4]) -> (%x) {\n}");
    check_refused(
        "%c: bool[], %x: f32[n, 4]",
        &format!("%p = if(%c, %x) then_branch={one} else_branch={flat}"),
        "1 and 3 outputs of the branches",
    );
    check_refused(
        "%c: f32[], %x: f32[n, 4]",
        &format!("%p = if(%c, %x) then_branch={one} else_branch={one}"),
        "bool expected, f32 found",
    );
}

#[test]
fn symbols_of_a_body_stay_inside() {
    let one = body("graph o(%x: f32[n, 4]) -> (%z) {\n%z = nonzero(%x)\n}");
    check(
        "%c: bool[], %x: f32[n, 4]",
        &format!("%p = if(%c, %x) then_branch={one} else_branch={one}"),
        "p: i64[2, p.o0.d1]",
    );
}

#[test]
fn loops() {
    // Carried: one value that keeps its shape, one that grows. Scanned: a slice of each round.
    let text = body(
        "graph b(%i: i64[], %go: bool[], %keep: f32[n, 2], %grow: f32[..], %cap: f32[k]) -> (%on, %k2, %g2, %row) {
           %on = identity(%go)
           %k2 = relu(%keep)
           %g2 = concat(%grow, %cap) axis=0
           %row = reduce(%k2) kind=sum axes=[1]
         }",
    );
    let node = |trips: &str, go: &str| format!("%a, %b, %c = loop({trips}, {go}, %x, %y, %z) carried=2 body={text}");
    let inputs = "%m: i64[], %go: bool[], %x: f32[n, 2], %y: f32[k], %z: f32[k]";
    check(inputs, &node("%m", "%go"), "a: f32[n, 2]\nb: f32[..]\nc: f32[a.trips, n]");
    check(
        inputs,
        &format!("%five = constant() value=i64[] {{5}}\n{}", node("%five", "_")),
        "a: f32[n, 2]\nb: f32[..]\nc: f32[5, n]",
    );
    check(
        inputs,
        &format!("%five = constant() value=i64[] {{5}}\n{}", node("%five", "%go")),
        "a: f32[n, 2]\nb: f32[..]\nc: f32[a.trips, n]",
    );
}

#[test]
fn scans() {
    let text = body(
        "graph b(%state: f32[n, 2], %item: f32[n, 2]) -> (%next, %out) {
           %next = add(%state, %item)
           %out = reduce(%next) kind=sum axes=[1]
         }",
    );
    check(
        "%s: f32[n, 2], %x: f32[n, t, 2]",
        &format!(
            "%a, %b = scan(%s, %x) body={text} scan_inputs=1 carried=1 input_axes=[1] output_axes=[-1] \
             input_reversed=[0] output_reversed=[0]"
        ),
        "a: f32[n, 2]\nb: f32[n, t]",
    );
}
