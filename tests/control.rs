//! Control flow that TensorRT takes: forms that the models at hand do not have, as engines.

mod common;

use common::library;
use trt_fuse::ir::{Graph, verify};
use trt_fuse::{Options, build};

#[track_caller]
fn builds(text: &str) {
    let Some(library) = library() else { return };
    let graph: Graph = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
    verify(&graph).unwrap();
    let ranges = if text.contains("f32[n") { vec!["n=1:2:4".parse().unwrap()] } else { Vec::new() };
    let options = Options { ranges, ..Options::default() };
    if let Err(error) = build(&graph, &library, &options, None) {
        panic!("{error}\n{graph}");
    }
}

fn looped(inputs: &str, outputs: &str, node: &str, body: &str) {
    let body = format!("graph b(%i: i64[], %on: bool[], {body} }}");
    builds(&format!("graph g({inputs}) -> ({outputs}) {{ {node} body={body:?} }}"));
}

#[test]
fn a_loop_that_its_condition_ends() {
    looped(
        "%go: bool[], %x: f32[n, 2]",
        "%y",
        "%y = loop(_, %go, %x) carried=1",
        "%v: f32[n, 2]) -> (%on2, %w) { %w = exp(%v) %max = reduce(%w) kind=max axes=[0, 1] keep_dims=false \
         %top = constant() value=f32[] {100} %on2 = less(%max, %top)",
    );
}

#[test]
fn a_loop_that_its_condition_or_count_ends() {
    looped(
        "%m: i64[], %go: bool[], %x: f32[n, 2]",
        "%y",
        "%y = loop(%m, %go, %x) carried=1",
        "%v: f32[n, 2]) -> (%on2, %w) { %w = exp(%v) %ten = constant() value=i64[] {10} %on2 = less(%i, %ten)",
    );
}

#[test]
fn a_carried_value_that_stays_and_an_output_from_outside() {
    looped(
        "%x: f32[n, 2], %c: f32[2]",
        "%y, %z, %s, %t",
        "%s0 = shape(%x) start=0 %at = constant() value=i64[] {0} %m = gather(%s0, %at) axis=0 \
         %y, %z, %s, %t = loop(%m, _, %x, %x, %c) carried=2",
        "%v: f32[n, 2], %same: f32[n, 2], %c: f32[2]) -> (%on as \"o\", %w, %same as \"p\", %c as \"q\", %k) { \
         %w = add(%v, %c) %k = constant() value=f32[1] {3}",
    );
}

#[test]
fn carried_values_that_swap() {
    looped(
        "%x: f32[2], %c: f32[2]",
        "%y, %z",
        "%m = constant() value=i64[] {300} %y, %z = loop(%m, _, %x, %c) carried=2",
        "%v: f32[2], %u: f32[2]) -> (%on as \"o\", %u as \"p\", %v as \"q\") {",
    );
}

#[test]
fn a_loop_in_a_branch_of_a_loop() {
    let inner = "graph i(%j: i64[], %on: bool[], %q: f32[2]) -> (%on as \"o\", %r) { %r = exp(%q) }";
    let then = format!("graph t(%v: f32[2], %m: i64[]) -> (%a) {{ %a = loop(%m, _, %v) carried=1 body={inner:?} }}");
    let other = "graph e(%v: f32[2], %m: i64[]) -> (%v as \"b\") { }";
    looped(
        "%m: i64[], %x: f32[2]",
        "%y",
        "%y = loop(%m, _, %x, %m) carried=1",
        &format!(
            "%v: f32[2], %m: i64[]) -> (%on as \"o\", %w) {{ %two = constant() value=i64[] {{2}} %c = less(%i, %two) \
             %w = if(%c, %v, %m) then_branch={then:?} else_branch={other:?}"
        ),
    );
}

fn conditional(then: &str, other: &str) {
    let then = format!("graph t(%x: f32[n, 4]) -> ({then} }}");
    let other = format!("graph e(%x: f32[n, 4]) -> ({other} }}");
    builds(&format!(
        "graph g(%c: bool[], %x: f32[n, 4]) -> (%y) {{ %y = if(%c, %x) then_branch={then:?} else_branch={other:?} }}"
    ));
}

#[test]
fn branches_of_other_sizes() {
    conditional("%a) { %a = concat(%x, %x) axis=0", "%b) { %b = exp(%x)");
    conditional("%a) { %a = slice(%x) axes=[0] starts=[0] ends=[1] steps=[1]", "%b) { %b = exp(%x)");
    let then = "graph t(%x: f32[3, 4]) -> (%a) { %a = slice(%x) axes=[1] starts=[0] ends=[2] steps=[1] }";
    let other = "graph e(%x: f32[3, 4]) -> (%b) { %b = exp(%x) }";
    builds(&format!(
        "graph g(%c: bool[], %x: f32[3, 4]) -> (%y) {{ %y = if(%c, %x) then_branch={then:?} else_branch={other:?} }}"
    ));
}

#[test]
fn a_branch_that_hands_a_capture_on() {
    conditional("%a) { %a = exp(%x)", "%x as \"b\") {");
}

#[test]
fn branches_of_constants() {
    conditional("%k) { %k = constant() value=i64[] {1}", "%k) { %k = constant() value=i64[] {2}");
}

#[test]
fn values_of_types_that_tensorrt_lacks() {
    let then = "graph t(%x: f64[n, 4]) -> (%a) { %a = exp(%x) }";
    let other = "graph e(%x: f64[n, 4]) -> (%b) { %b = neg(%x) }";
    builds(&format!(
        "graph g(%c: bool[], %x: f64[n, 4], %q: f32[n]) -> (%y) {{ %y = if(%c, %x) then_branch={then:?} else_branch={other:?} }}"
    ));
    looped(
        "%x: f64[2], %c: f64[2], %m: i64[]",
        "%y",
        "%y = loop(%m, _, %x, %c) carried=1",
        "%v: f64[2], %c: f64[2]) -> (%on as \"o\", %w) { %w = add(%v, %c)",
    );
}
