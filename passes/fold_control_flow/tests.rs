use super::*;
use crate::testing::{Run, run_pass};

fn run(inputs: &str, outputs: &str, nodes: &str) -> Run {
    run_pass(&FoldControlFlow, &format!("graph g({inputs}) -> ({outputs}) {{ {nodes} }}"))
}

fn quoted(graph: &str) -> String {
    format!("{graph:?}")
}

fn branches() -> String {
    format!(
        "then_branch={} else_branch={}",
        quoted("graph t(%x: f32[n, 2]) -> (%out) { %inner = relu(%x) %out = exp(%inner) }"),
        quoted("graph e(%x: f32[n, 2]) -> (%x as \"out\") { }"),
    )
}

#[test]
fn fires_on_a_constant_condition() {
    let nodes = format!("%c = constant() value=bool[] {{1}} %y = if(%c, %x) {} %z = neg(%y)", branches());
    let run = run("%x: f32[n, 2]", "%z", &nodes);
    insta::assert_snapshot!(run.equal_within(0.0, 2).after, @r"
    graph g(%x: f32[n, 2]) -> (%z) {
      %inner = relu(%x) : f32[n, 2]
      %y = exp(%inner) : f32[n, 2]
      %z = neg(%y) : f32[n, 2]
    }
    ");
    assert_eq!(
        run.after
            .origins(run.after.node_ids().find(|id| run.after.node_name(*id) == "inner").unwrap())
            .map(|source| &*source.name)
            .collect::<Vec<_>>(),
        ["inner"]
    );
}

#[test]
fn a_branch_may_hand_a_capture_on() {
    let nodes = format!("%c = constant() value=bool[] {{0}} %y = if(%c, %x) {} %z = neg(%y)", branches());
    insta::assert_snapshot!(run("%x: f32[n, 2]", "%z", &nodes).equal_within(0.0, 2).after, @r"
    graph g(%x: f32[n, 2]) -> (%z) {
      %z = neg(%x) : f32[n, 2]
    }
    ");
}

#[test]
fn fires_on_a_condition_that_shapes_tell() {
    let nodes = |axis: i64| {
        format!(
            "%s = shape(%x) start=0 %at = constant() value=i64[] {{{axis}}} %dim = gather(%s, %at) axis=0 \
             %two = constant() value=i64[] {{2}} %c = equal(%dim, %two) %y = if(%c, %x) {}",
            branches()
        )
    };
    let fired = run("%x: f32[n, 2]", "%y", &nodes(1));
    assert_eq!(fired.rewrites, 1);
    fired.equal_within(0.0, 3);
    assert_eq!(run("%x: f32[n, 2]", "%y", &nodes(0)).rewrites, 0);
}

/// A loop that adds the number of the round and the capture to what it carries, and gives what came in.
const ADDING: &str = "graph b(%i: i64[], %go: bool[], %sum: f32[2], %by: f32[2]) -> (%go as \"on\", %next, %sum as \"seen\") { \
                      %f = cast(%i) to=f32 saturate=true %more = add(%by, %f) %next = add(%sum, %more) }";

fn repeated(trips: i64, condition: &str, body: &str) -> Run {
    let nodes = format!(
        "%m = constant() value=i64[] {{{trips}}} %no = constant() value=bool[] {{0}} \
         %yes = constant() value=bool[] {{1}} %y, %z = loop(%m, {condition}, %x, %w) carried=1 body={}",
        quoted(body)
    );
    run("%x: f32[2], %w: f32[2], %c: bool[]", "%y, %z", &nodes)
}

#[test]
fn a_loop_of_one_round_is_its_body() {
    insta::assert_snapshot!(repeated(1, "_", ADDING).equal_within(0.0, 1).after, @r"
    graph g(%x: f32[2], %w: f32[2], %c: bool[]) -> (%y, %z) {
      %y.fold_control_flow = constant() value=i64[] {0}
      %f = cast(%y.fold_control_flow) to=f32 saturate=true : f32[]
      %more = add(%w, %f) : f32[2]
      %y = add(%x, %more) : f32[2]
      %z = unsqueeze(%x) axes=[0] : f32[1, 2]
    }
    ");
}

#[test]
fn a_counted_loop_is_unrolled() {
    let run = repeated(3, "%yes", ADDING);
    assert_eq!(run.rewrites, 1);
    run.equal_within(0.0, 1);
    let names: Vec<&str> = run.after.topo().into_iter().map(|id| run.after.node_name(id)).collect();
    assert!(["next", "next.1", "next.2"].iter().all(|name| names.contains(name)), "{names:?}");
}

#[test]
fn a_loop_without_rounds_gives_its_initial_values() {
    for run in [repeated(0, "_", ADDING), repeated(-2, "%yes", ADDING), repeated(5, "%no", ADDING)] {
        assert_eq!((run.rewrites, run.after.operation_count()), (1, 0));
        run.equal_within(0.0, 1);
    }
}

#[test]
fn a_loop_that_its_condition_may_end_stays_unless_it_has_one_round() {
    let ending = ADDING
        .replace("%go as \"on\"", "%less")
        .replace("%f =", "%none = constant() value=i64[] {0} %less = less(%i, %none) %f =");
    assert_eq!(repeated(3, "_", &ending).rewrites, 0);
    let run = repeated(1, "_", &ending);
    assert_eq!(run.rewrites, 1);
    run.equal_within(0.0, 1);
    // Whether it begins is known only at run time.
    assert_eq!(repeated(1, "%c", ADDING).rewrites, 0);
}

#[test]
fn refuses_many_operations() {
    let run = repeated(43, "_", ADDING);
    assert_eq!((run.rewrites, run.reasons()), (0, vec![TOO_MANY]));
    assert_eq!(repeated(42, "_", ADDING).rewrites, 1);
}

#[test]
fn refuses_shapes_that_depend_on_data() {
    let body = "graph b(%i: i64[], %go: bool[], %sum: f32[2], %by: f32[2]) -> (%go as \"on\", %next, %count) { \
                %at = nonzero(%sum) %count = size(%at) %next = add(%sum, %by) }";
    let run = repeated(2, "_", body);
    assert_eq!((run.rewrites, run.reasons()), (0, vec![DATA_DEPENDENT]));
    assert_eq!(repeated(1, "_", body).rewrites, 1);
}

#[test]
fn refuses_symbols_of_the_bodys_own() {
    let body = ADDING.replace("%sum: f32[2]", "%sum: f32[k]");
    let run = repeated(1, "_", &body);
    assert_eq!((run.rewrites, run.reasons()), (0, vec![OWN_SYMBOLS]));
}

#[test]
fn refuses_an_empty_output_of_unknown_shape() {
    let body = "graph b(%i: i64[], %go: bool[], %sum: f32[2], %by: f32[2]) -> (%go as \"on\", %next, %at) { \
                %at = nonzero(%sum) %next = add(%sum, %by) }";
    let run = repeated(0, "_", body);
    assert_eq!((run.rewrites, run.reasons()), (0, vec![UNKNOWN_SHAPE]));
}

#[test]
fn refuses_a_body_that_does_not_fit() {
    // The branch taken has no axis 3 of what it is given; the node beside it is folded all the same.
    let nodes = format!(
        "%c = constant() value=bool[] {{1}} %y = if(%c, %x) then_branch={} else_branch={} %z = if(%c, %x) {}",
        quoted("graph t(%x: f32[..]) -> (%a) { %a = squeeze(%x) axes=[3] }"),
        quoted("graph e(%x: f32[..]) -> (%b) { %b = relu(%x) }"),
        branches()
    );
    let run = run("%x: f32[n, 2]", "%y, %z", &nodes);
    assert_eq!((run.rewrites, run.reasons().len()), (1, 1));
    assert!(run.reasons()[0].starts_with("the body does not fit the values outside: "), "{:?}", run.reasons());
}

fn scanned(length: usize, reversed: (i64, i64)) -> Run {
    let body = "graph b(%sum: f32[n], %x: f32[n], %by: f32[n]) -> (%next, %next as \"seen\") { \
                %scaled = mul(%x, %by) %next = add(%sum, %scaled) }";
    run(
        &format!("%s: f32[n], %x: f32[n, {length}], %w: f32[n]"),
        "%y, %z",
        &format!(
            "%y, %z = scan(%s, %x, %w) body={} carried=1 scan_inputs=1 input_axes=[1] output_axes=[-1] \
             input_reversed=[{}] output_reversed=[{}]",
            quoted(body),
            reversed.0,
            reversed.1
        ),
    )
}

#[test]
fn a_scan_of_one_slice_is_its_body() {
    insta::assert_snapshot!(scanned(1, (0, 0)).equal_within(0.0, 2).after, @r"
    graph g(%s: f32[n], %x: f32[n, 1], %w: f32[n]) -> (%y, %z) {
      %y.1 = squeeze(%x) axes=[1] : f32[n]
      %scaled = mul(%y.1, %w) : f32[n]
      %y = add(%s, %scaled) : f32[n]
      %z = unsqueeze(%y) axes=[-1] : f32[n, 1]
    }
    ");
}

#[test]
fn a_scan_of_no_slice_gives_its_initial_values() {
    let body = "graph b(%sum: f32[2], %x: f32[2]) -> (%next, %next as \"seen\") { %next = add(%sum, %x) }";
    let nodes = format!(
        "%y, %z = scan(%s, %x) body={} carried=1 scan_inputs=1 input_axes=[1] output_axes=[-1] \
         input_reversed=[0] output_reversed=[0]",
        quoted(body)
    );
    let run = run("%s: f32[2], %x: f32[2, 0]", "%y, %z", &nodes);
    assert_eq!((run.rewrites, run.after.operation_count()), (1, 0));
    run.equal_within(0.0, 1);
    // An empty output is a constant, whose shape has no symbols.
    let symbolic = scanned(0, (0, 0));
    assert_eq!((symbolic.rewrites, symbolic.reasons()), (0, vec![UNKNOWN_SHAPE]));
}

#[test]
fn a_scan_is_unrolled_in_its_directions() {
    for reversed in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let run = scanned(3, reversed);
        assert_eq!(run.rewrites, 1);
        run.equal_within(0.0, 2);
    }
}

#[test]
fn one_if_tells_the_condition_of_another() {
    let outer = format!(
        "%c = constant() value=bool[] {{1}} %y = if(%c, %x) then_branch={} else_branch={}",
        quoted("graph t(%x: f32[n, 2]) -> (%a) { %a = squeeze(%x) axes=[] }"),
        quoted("graph e(%x: f32[n, 2]) -> (%b) { %b = unsqueeze(%x) axes=[0] }"),
    );
    let nodes = format!(
        "{outer} %s = shape(%y) start=1 %two = constant() value=i64[1] {{2}} %e = equal(%s, %two) %d = squeeze(%e) axes=[0] \
         %z = if(%d, %x) {}",
        branches()
    );
    let run = run("%x: f32[n, 2]", "%z", &nodes);
    assert_eq!(run.rewrites, 2);
    run.equal_within(0.0, 2);
}

/// Loops of two rounds around each other: unrolled from outside, each would double the work of those inside.
#[test]
fn nested_loops_are_unrolled_from_the_inside_within_the_bound() {
    let inner = "graph b(%i: i64[], %c: bool[], %v: f32[2]) -> (%c as \"c\", %w) { %w = exp(%v) }";
    let nest = |depth: usize| {
        (1..depth).fold(inner.to_string(), |body, _| {
            format!(
                "graph b(%i: i64[], %c: bool[], %v: f32[2]) -> (%c as \"c\", %w) {{
                    %t = constant() value=i64[] {{2}} %w = loop(%t, _, %v) body={} carried=1 }}",
                quoted(&body)
            )
        })
    };
    let text = |depth| {
        format!(
            "graph g(%x: f32[2]) -> (%y) {{ %t = constant() value=i64[] {{2}} %y = loop(%t, _, %x) body={} carried=1 }}",
            quoted(&nest(depth))
        )
    };
    let refused = run_pass(&FoldControlFlow, &text(2));
    assert_eq!((refused.rewrites, refused.reasons()), (0, vec![LOOP_INSIDE]));
    let pipeline = crate::Pipeline::standard(&trt_fuse_ir::Capabilities::default());
    let unrolled = |depth| operations(&pipeline.run(text(depth).parse().unwrap()).unwrap().0);
    assert_eq!([unrolled(1), unrolled(3)], [2, 8]);
    assert!(unrolled(9) <= MAX_UNROLLED + 2);
}
