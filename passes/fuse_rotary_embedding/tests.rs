use super::*;
use crate::testing::{Run, run_rule};

const TURNED: &str = "%2 = slice(%x) axes=[3] starts=[2] ends=[4] steps=[1] %3 = neg(%2)
    %4 = slice(%x) axes=[3] starts=[0] ends=[2] steps=[1] %5 = concat(%3, %4) axis=3";

/// Two positions, heads of four numbers, and tables of two angles written twice.
fn run(body: &str, outputs: &str) -> Run {
    let tables = "%cos = constant() value=f32[1, 1, 2, 4] {1.0, 0.5, 1.0, 0.5, 0.25, 0.75, 0.25, 0.75}
        %sin = constant() value=f32[2, 4] {0.0, 0.5, 0.0, 0.5, 0.75, -0.75, 0.75, -0.75}
        %other = constant() value=f32[2, 4] {0.0, 0.5, 0.0, 0.25, 0.75, -0.75, 0.75, -0.75}";
    let text = format!(
        "graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> ({outputs}) {{ {tables} {body} }}"
    );
    run_rule(FuseRotaryEmbedding, &text)
}

#[test]
fn fires_on_constant_tables() {
    let run = run(&format!("%1 = mul(%x, %cos) {TURNED} %6 = mul(%5, %sin) %y = add(%1, %6)"), "%y");
    insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
    graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> (%y) {
      %cos = constant() value=f32[1, 1, 2, 4] {1.0, 0.5, 1.0, 0.5, 0.25, 0.75, 0.25, 0.75}
      %y.1 = slice(%cos) axes=[3] starts=[0] ends=[2] steps=[1] : f32[1, 1, 2, 2]
      %y.2 = reshape(%y.1) shape=[1, 2, 2] : f32[1, 2, 2]
      %sin = constant() value=f32[2, 4] {0.0, 0.5, 0.0, 0.5, 0.75, -0.75, 0.75, -0.75}
      %y.3 = slice(%sin) axes=[1] starts=[0] ends=[2] steps=[1] : f32[2, 2]
      %y.4 = reshape(%y.3) shape=[1, 2, 2] : f32[1, 2, 2]
      %y = rotary_embedding(%x, %y.2, %y.4) dim=4 : f32[n, 3, 2, 4]
    }
    ");
}

#[test]
fn fires_in_any_order_and_on_a_split() {
    let split = "%4, %2 = split(%x) axis=3 sizes=[2, 2] %3 = neg(%2) %5 = concat(%3, %4) axis=-1";
    for turned in [TURNED, split] {
        let body = format!("%1 = mul(%cos, %x) {turned} %6 = mul(%sin, %5) %y = add(%6, %1)");
        assert_eq!(run(&body, "%y").equal_within(1e-6, 2).rewrites, 1, "{body}");
    }
}

#[test]
fn fires_on_tables_of_angles_written_twice() {
    let tables = "%a = concat(%angles, %angles) axis=-1 %c = cos(%a) %s = sin(%a)
        %c4 = reshape(%c) shape=[n, 1, 2, 4] %s4 = reshape(%s) shape=[n, 1, 2, 4]";
    let run = run(&format!("{tables} %1 = mul(%x, %c4) {TURNED} %6 = mul(%5, %s4) %y = add(%1, %6)"), "%y");
    insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
    graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> (%y) {
      %a = concat(%angles, %angles) axis=-1 : f32[n, 2, 4]
      %c = cos(%a) : f32[n, 2, 4]
      %c4 = reshape(%c) shape=[n, 1, 2, 4] : f32[n, 1, 2, 4]
      %y.1 = slice(%c4) axes=[3] starts=[0] ends=[2] steps=[1] : f32[n, 1, 2, 2]
      %y.2 = reshape(%y.1) shape=[n, 2, 2] : f32[n, 2, 2]
      %s = sin(%a) : f32[n, 2, 4]
      %s4 = reshape(%s) shape=[n, 1, 2, 4] : f32[n, 1, 2, 4]
      %y.3 = slice(%s4) axes=[3] starts=[0] ends=[2] steps=[1] : f32[n, 1, 2, 2]
      %y.4 = reshape(%y.3) shape=[n, 2, 2] : f32[n, 2, 2]
      %y = rotary_embedding(%x, %y.2, %y.4) dim=4 : f32[n, 3, 2, 4]
    }
    ");
}

const TABLE: &str = "%t = reshape(%angles) shape=[n, 1, 2, 2] %c = cos(%t) %s = sin(%t)
    %a, %b = split(%x) axis=3 sizes=[2, 2]";
const PRODUCTS: &str = "%1 = mul(%a, %c) %2 = mul(%s, %b) %p = sub(%1, %2)";

/// `joined(-second, first)` of pairs.
const NEIGHBOURS: &str = "%2 = slice(%x) axes=[3] starts=[1] ends=[4] steps=[2] %3 = neg(%2)
    %4 = slice(%x) axes=[3] starts=[0] ends=[4] steps=[2] %3c = reshape(%3) shape=[n, 3, 2, 2, 1]
    %4c = reshape(%4) shape=[n, 3, 2, 2, 1] %5c = concat(%3c, %4c) axis=-1 %5 = reshape(%5c) shape=[n, 3, 2, 4]";

const PAIRS: &str = "%ac = reshape(%angles) shape=[n, 2, 2, 1] %ae = expand(%ac) shape=[n, 2, 2, 2]
    %aa = reshape(%ae) shape=[n, 1, 2, 4] %c = cos(%aa) %s = sin(%aa)";

#[test]
fn fires_on_pairs_of_neighbours() {
    let run = run(&format!("{PAIRS} {NEIGHBOURS} %1 = mul(%x, %c) %6 = mul(%5, %s) %y = add(%1, %6)"), "%y");
    insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
    graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> (%y) {
      %ac = reshape(%angles) shape=[n, 2, 2, 1] : f32[n, 2, 2, 1]
      %ae = expand(%ac) shape=[n, 2, 2, 2] : f32[n, 2, 2, 2]
      %aa = reshape(%ae) shape=[n, 1, 2, 4] : f32[n, 1, 2, 4]
      %c = cos(%aa) : f32[n, 1, 2, 4]
      %y.1 = slice(%c) axes=[3] starts=[0] ends=[4] steps=[2] : f32[n, 1, 2, 2]
      %y.2 = reshape(%y.1) shape=[n, 2, 2] : f32[n, 2, 2]
      %s = sin(%aa) : f32[n, 1, 2, 4]
      %y.3 = slice(%s) axes=[3] starts=[0] ends=[4] steps=[2] : f32[n, 1, 2, 2]
      %y.4 = reshape(%y.3) shape=[n, 2, 2] : f32[n, 2, 2]
      %y = rotary_embedding(%x, %y.2, %y.4) interleaved=true dim=4 : f32[n, 3, 2, 4]
    }
    ");
}

#[test]
fn fires_on_products_of_the_parts() {
    let halves = "%a, %b = split(%x) axis=3 sizes=[2, 2]";
    let columns =
        "%xp = reshape(%x) shape=[n, 3, 2, 2, 2] %0 = constant() value=i64[] {0} %i = constant() value=i64[] {1}
        %a = gather(%xp, %0) axis=4 %b = gather(%xp, %i) axis=-1";
    let tables = "%t = reshape(%angles) shape=[n, 1, 2, 2] %c = cos(%t) %s = sin(%t)";
    let products = "%1 = mul(%a, %c) %2 = mul(%s, %b) %p = sub(%1, %2) %3 = mul(%a, %s) %4 = mul(%b, %c)
        %q = add(%3, %4)";
    let pairs = "%pc = reshape(%p) shape=[n, 3, 2, 2, 1] %qc = reshape(%q) shape=[n, 3, 2, 2, 1]
        %r = concat(%pc, %qc) axis=4 %y = reshape(%r) shape=[n, 3, 2, 4]";
    let joined = run(&format!("{tables} {halves} {products} %y = concat(%p, %q) axis=3"), "%y");
    insta::assert_snapshot!(joined.equal_within(1e-6, 2).after, @"
    graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> (%y) {
      %t = reshape(%angles) shape=[n, 1, 2, 2] : f32[n, 1, 2, 2]
      %c = cos(%t) : f32[n, 1, 2, 2]
      %y.1 = reshape(%c) shape=[n, 2, 2] : f32[n, 2, 2]
      %s = sin(%t) : f32[n, 1, 2, 2]
      %y.2 = reshape(%s) shape=[n, 2, 2] : f32[n, 2, 2]
      %y = rotary_embedding(%x, %y.1, %y.2) dim=4 : f32[n, 3, 2, 4]
    }
    ");
    let stacked = run(&format!("{tables} {columns} {products} {pairs}"), "%y");
    insta::assert_snapshot!(stacked.equal_within(1e-6, 2).after, @"
    graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> (%y) {
      %t = reshape(%angles) shape=[n, 1, 2, 2] : f32[n, 1, 2, 2]
      %c = cos(%t) : f32[n, 1, 2, 2]
      %y.1 = reshape(%c) shape=[n, 2, 2] : f32[n, 2, 2]
      %s = sin(%t) : f32[n, 1, 2, 2]
      %y.2 = reshape(%s) shape=[n, 2, 2] : f32[n, 2, 2]
      %y = rotary_embedding(%x, %y.1, %y.2) interleaved=true dim=4 : f32[n, 3, 2, 4]
    }
    ");
    // Pairs joined as halves, and halves as pairs.
    for body in [format!("{columns} {products} %y = concat(%p, %q) axis=3"), format!("{halves} {products} {pairs}")] {
        assert_eq!(run(&format!("{tables} {body}"), "%y").rewrites, 0, "{body}");
    }
}

#[test]
fn fires_on_a_part_with_the_rest_behind() {
    let part = "%z = concat(%x, %wide) axis=3 %xr = slice(%z) axes=[3] starts=[0] ends=[4] steps=[1]
        %2 = slice(%z) axes=[3] starts=[2] ends=[4] steps=[1] %3 = neg(%2)
        %4 = slice(%z) axes=[3] starts=[0] ends=[2] steps=[1] %5 = concat(%3, %4) axis=3
        %1 = mul(%xr, %cos) %6 = mul(%5, %sin) %r = add(%1, %6)
        %rest = slice(%z) axes=[3] starts=[4] ends=[6] steps=[1]";
    let run = |tail: &str| run(&format!("{part} {tail}"), "%y");
    insta::assert_snapshot!(run("%y = concat(%r, %rest) axis=3").equal_within(1e-6, 2).after, @"
    graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> (%y) {
      %z = concat(%x, %wide) axis=3 : f32[n, 3, 2, 6]
      %cos = constant() value=f32[1, 1, 2, 4] {1.0, 0.5, 1.0, 0.5, 0.25, 0.75, 0.25, 0.75}
      %y.1 = slice(%cos) axes=[3] starts=[0] ends=[2] steps=[1] : f32[1, 1, 2, 2]
      %y.2 = reshape(%y.1) shape=[1, 2, 2] : f32[1, 2, 2]
      %sin = constant() value=f32[2, 4] {0.0, 0.5, 0.0, 0.5, 0.75, -0.75, 0.75, -0.75}
      %y.3 = slice(%sin) axes=[1] starts=[0] ends=[2] steps=[1] : f32[2, 2]
      %y.4 = reshape(%y.3) shape=[1, 2, 2] : f32[1, 2, 2]
      %y = rotary_embedding(%z, %y.2, %y.4) dim=4 : f32[n, 3, 2, 6]
    }
    ");
    // In front, the rest stays outside.
    let in_front = run("%y = concat(%rest, %r) axis=3");
    insta::assert_snapshot!(in_front.equal_within(1e-6, 2).after, @"
    graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> (%y) {
      %z = concat(%x, %wide) axis=3 : f32[n, 3, 2, 6]
      %rest = slice(%z) axes=[3] starts=[4] ends=[6] steps=[1] : f32[n, 3, 2, 2]
      %r.1 = slice(%z) axes=[3] starts=[0] ends=[4] steps=[1] : f32[n, 3, 2, 4]
      %cos = constant() value=f32[1, 1, 2, 4] {1.0, 0.5, 1.0, 0.5, 0.25, 0.75, 0.25, 0.75}
      %r.2 = slice(%cos) axes=[3] starts=[0] ends=[2] steps=[1] : f32[1, 1, 2, 2]
      %r.3 = reshape(%r.2) shape=[1, 2, 2] : f32[1, 2, 2]
      %sin = constant() value=f32[2, 4] {0.0, 0.5, 0.0, 0.5, 0.75, -0.75, 0.75, -0.75}
      %r.4 = slice(%sin) axes=[1] starts=[0] ends=[2] steps=[1] : f32[2, 2]
      %r.5 = reshape(%r.4) shape=[1, 2, 2] : f32[1, 2, 2]
      %r = rotary_embedding(%r.1, %r.3, %r.5) dim=4 : f32[n, 3, 2, 4]
      %y = concat(%rest, %r) axis=3 : f32[n, 3, 2, 6]
    }
    ");
}

#[test]
fn another_rest_stays_outside() {
    let rotated = |start: i64| {
        let (middle, end) = (start + 2, start + 4);
        format!(
            "%z = concat(%x, %wide) axis=3 %xr = slice(%z) axes=[3] starts=[{start}] ends=[{end}] steps=[1]
            %2 = slice(%z) axes=[3] starts=[{middle}] ends=[{end}] steps=[1] %3 = neg(%2)
            %4 = slice(%z) axes=[3] starts=[{start}] ends=[{middle}] steps=[1] %5 = concat(%3, %4) axis=3
            %1 = mul(%xr, %cos) %6 = mul(%5, %sin) %r = add(%1, %6)"
        )
    };
    for (start, rest) in [
        // From inside of the part, of another value, behind a part that is not in front.
        (0, "%rest = slice(%z) axes=[3] starts=[2] ends=[4] steps=[1]"),
        (0, "%rest = slice(%w) axes=[3] starts=[4] ends=[6] steps=[1]"),
        (2, "%rest = slice(%z) axes=[3] starts=[4] ends=[6] steps=[1]"),
    ] {
        let body = format!("{} %w = abs(%z) {rest} %y = concat(%r, %rest) axis=3", rotated(start));
        let run = run(&body, "%y");
        let after = run.equal_within(1e-6, 2).after.to_string();
        assert!(run.rewrites == 1 && after.contains("%y = concat(%r, %rest)"), "{after}");
    }
}

#[test]
fn fires_on_positions_before_heads() {
    let tables = "%col = constant() value=f32[3, 1, 4] {1, 2, 1, 2, 3, 4, 3, 4, 5, 6, 5, 6}";
    let run = run(&format!("{tables} %1 = mul(%x, %col) {TURNED} %6 = mul(%5, %col) %y = add(%1, %6)"), "%y");
    insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
    graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> (%y) {
      %y.5 = transpose(%x) perm=[0, 2, 1, 3] : f32[n, 2, 3, 4]
      %col = constant() value=f32[3, 1, 4] {1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 5.0, 6.0, 5.0, 6.0}
      %y.1 = slice(%col) axes=[2] starts=[0] ends=[2] steps=[1] : f32[3, 1, 2]
      %y.2 = reshape(%y.1) shape=[1, 3, 2] : f32[1, 3, 2]
      %y.3 = slice(%col) axes=[2] starts=[0] ends=[2] steps=[1] : f32[3, 1, 2]
      %y.4 = reshape(%y.3) shape=[1, 3, 2] : f32[1, 3, 2]
      %y.6 = rotary_embedding(%y.5, %y.2, %y.4) dim=4 : f32[n, 2, 3, 4]
      %y = transpose(%y.6) perm=[0, 2, 1, 3] : f32[n, 3, 2, 4]
    }
    ");
}

#[test]
fn refuses_pairs_that_differ() {
    let body = format!("{NEIGHBOURS} %1 = mul(%x, %cos) %6 = mul(%5, %sin) %y = add(%1, %6)");
    let (run, reason) = (run(&body, "%y"), "the pairs of the cosines or sines are not known to be equal");
    assert_eq!((run.rewrites, run.reasons()), (0, vec![reason]));
}

#[test]
fn refuses_halves_that_differ() {
    let run = run(&format!("%1 = mul(%x, %cos) {TURNED} %6 = mul(%5, %other) %y = add(%1, %6)"), "%y");
    let reason = "the halves of the cosines or sines are not known to be equal";
    assert_eq!((run.rewrites, run.reasons()), (0, vec![reason]));
}

#[test]
fn refuses_angles_that_differ() {
    let halves = "%z = neg(%angles) %a = concat(%angles, %z) axis=-1 %aa = reshape(%a) shape=[n, 1, 2, 4]";
    let pairs = "%ac = reshape(%angles) shape=[n, 2, 2, 1] %z = neg(%ac) %ae = concat(%ac, %z) axis=3
        %aa = reshape(%ae) shape=[n, 1, 2, 4]";
    for (angles, turned, what) in [(halves, TURNED, "halves"), (pairs, NEIGHBOURS, "pairs")] {
        let tables = format!("{angles} %c = cos(%aa) %s = sin(%aa)");
        let run = run(&format!("{tables} {turned} %1 = mul(%x, %c) %6 = mul(%5, %s) %y = add(%1, %6)"), "%y");
        let reason = format!("the {what} of the cosines or sines are not known to be equal");
        assert_eq!((run.rewrites, run.reasons()), (0, vec![reason.as_str()]), "{angles}");
    }
    // Written twice as halves, for pairs.
    let tables =
        "%a = concat(%angles, %angles) axis=-1 %aa = reshape(%a) shape=[n, 1, 2, 4] %c = cos(%aa) %s = sin(%aa)";
    let run = run(&format!("{tables} {NEIGHBOURS} %1 = mul(%x, %c) %6 = mul(%5, %s) %y = add(%1, %6)"), "%y");
    let reason = "the pairs of the cosines or sines are not known to be equal";
    assert_eq!((run.rewrites, run.reasons()), (0, vec![reason]));
}

#[test]
fn refuses_tables_of_several_heads() {
    let tables = "%a = concat(%wide, %wide) axis=3 %c = cos(%a) %s = sin(%a)";
    let run = run(&format!("{tables} %1 = mul(%x, %c) {TURNED} %6 = mul(%5, %s) %y = add(%1, %6)"), "%y");
    assert_eq!((run.rewrites, run.reasons()), (0, vec!["the tables are not of one head"]));
}

#[test]
fn refuses_a_part_with_another_reader() {
    let run = run(&format!("%1 = mul(%x, %cos) {TURNED} %6 = mul(%5, %sin) %y = add(%1, %6)"), "%y, %5");
    assert_eq!((run.rewrites, run.reasons()), (0, vec!["output of `5` also read by `an output of the graph`"]));
}

#[test]
fn leaves_look_alikes_alone() {
    for body in [
        // The first half negated, halves in their order, a difference, another value turned.
        "%1 = mul(%x, %cos) %2 = slice(%x) axes=[3] starts=[2] ends=[4] steps=[1]
            %4 = slice(%x) axes=[3] starts=[0] ends=[2] steps=[1] %3 = neg(%4) %5 = concat(%2, %3) axis=3
            %6 = mul(%5, %sin) %y = add(%1, %6)",
        "%1 = mul(%x, %cos) %2 = slice(%x) axes=[3] starts=[0] ends=[2] steps=[1] %3 = neg(%2)
            %4 = slice(%x) axes=[3] starts=[2] ends=[4] steps=[1] %5 = concat(%3, %4) axis=3
            %6 = mul(%5, %sin) %y = add(%1, %6)",
        &format!("%1 = mul(%x, %cos) {TURNED} %6 = mul(%5, %sin) %y = sub(%1, %6)"),
        &format!("%z = neg(%x) %1 = mul(%z, %cos) {TURNED} %6 = mul(%5, %sin) %y = add(%1, %6)"),
        // No negation, halves of two values, halves that overlap, a part beside the one that is turned.
        &format!("%1 = mul(%x, %cos) {} %6 = mul(%5, %sin) %y = add(%1, %6)", TURNED.replace("neg", "abs")),
        &format!(
            "%z = abs(%x) %1 = mul(%x, %cos) {} %6 = mul(%5, %sin) %y = add(%1, %6)",
            TURNED.replacen("slice(%x)", "slice(%z)", 1)
        ),
        &format!(
            "%1 = mul(%x, %cos) {} %6 = mul(%5, %sin) %y = add(%1, %6)",
            TURNED.replace("starts=[2] ends=[4]", "starts=[1] ends=[3]")
        ),
        &format!(
            "%z = concat(%x, %wide) axis=3 %zr = slice(%z) axes=[3] starts=[2] ends=[6] steps=[1]
            %1 = mul(%zr, %cos) {} %6 = mul(%5, %sin) %y = add(%1, %6)",
            TURNED.replace("slice(%x)", "slice(%z)")
        ),
        // Tables that make the data larger.
        "%x1 = slice(%x) axes=[2] starts=[0] ends=[1] steps=[1] %t = reshape(%angles) shape=[n, 1, 2, 2] %c = cos(%t)
            %s = sin(%t) %a, %b = split(%x1) axis=3 sizes=[2, 2] %1 = mul(%a, %c) %2 = mul(%b, %s) %p = sub(%1, %2)
            %3 = mul(%a, %s) %4 = mul(%b, %c) %q = add(%3, %4) %y = concat(%p, %q) axis=3",
        // Sines where cosines are wanted, parts exchanged, another table, a part that is not behind the other.
        &format!("{TABLE} {PRODUCTS} %3 = mul(%a, %c) %4 = mul(%b, %s) %q = add(%3, %4) %y = concat(%p, %q) axis=3"),
        &format!("{TABLE} {PRODUCTS} %3 = mul(%a, %s) %4 = mul(%b, %c) %q = add(%3, %4) %y = concat(%q, %p) axis=3"),
        &format!("{TABLE} {PRODUCTS} %3 = mul(%a, %t) %4 = mul(%b, %c) %q = add(%3, %4) %y = concat(%p, %q) axis=3"),
        &format!("{TABLE} {PRODUCTS} %3 = mul(%a, %s) %4 = mul(%a, %c) %q = add(%3, %4) %y = concat(%p, %q) axis=3"),
    ] {
        assert_eq!(run(body, "%y").rewrites, 0, "{body}");
    }
}

#[test]
fn leaves_integers_and_heads_of_nothing_alone() {
    for (dtype, size, numbers) in [("i32", 2, "1, 1, 2, 2"), ("f32", 0, "")] {
        let (half, table) = (size / 2, format!("constant() value={dtype}[2, {size}] {{{numbers}}}"));
        let text = format!(
            "graph g(%x: {dtype}[n, 3, 2, {size}]) -> (%y) {{ %table = {table} %1 = mul(%x, %table)
            %4, %2 = split(%x) axis=3 sizes=[{half}, {half}] %3 = neg(%2) %5 = concat(%3, %4) axis=3
            %6 = mul(%5, %table) %y = add(%1, %6) }}"
        );
        assert_eq!(run_rule(FuseRotaryEmbedding, &text).rewrites, 0, "{text}");
    }
}
