use insta::assert_snapshot;
use trt_fuse_ir::{Capabilities, Graph, verify};

use crate::emit::record::Record;
use crate::emit::{EmitError, Unsupported, emit};

fn network(text: &str) -> Result<String, EmitError> {
    let graph: Graph = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut record = Record::new();
    emit(verify(&graph).unwrap(), &Capabilities::default(), &mut record)?;
    Ok(record.text())
}

#[track_caller]
fn refused(text: &str) -> Vec<Unsupported> {
    match network(text) {
        Err(EmitError::Unsupported(nodes)) => nodes,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn reason(text: &str) -> String {
    let nodes = refused(text);
    assert_eq!(nodes.len(), 1, "{nodes:?}");
    nodes[0].reason.clone()
}

fn quoted(graph: &str) -> String {
    format!("{graph:?}")
}

fn conditional(then: &str, other: &str) -> String {
    let inputs = "%x: f32[n, 4], %unread: f32[n, 4]";
    format!(
        "graph g(%c: bool[1], %x: f32[n, 4], %w: f32[n, 4]) -> (%y) {{ \
         %y = if(%c, %x, %w) then_branch={} else_branch={} }}",
        quoted(&format!("graph t({inputs}) -> ({then} }}")),
        quoted(&format!("graph e({inputs}) -> ({other} }}")),
    )
}

#[test]
fn branches_see_captures_through_the_conditional() {
    let text = conditional("%y) { %y = relu(%x)", "%y) { %one = constant() value=f32[1, 1] {1} %y = add(%x, %one)");
    assert_snapshot!(network(&text).unwrap(), @r#"
    %c bool[1] = input "c" type=bool dims=[1]
    %x f32[n,4] = input "x" type=f32 dims=[-1,4] symbols=[n,-]
    %w f32[n,4] = input "w" type=f32 dims=[-1,4] symbols=[n,-]
    %y::scalar_out = shuffle "y::scalar" (%c) reshape=[] ; y
    conditional "y" (%y::scalar_out) id=0
    %y::capture_out = conditional_input "y::capture" (%x) of=0 ; y
    %y.2_out f32[n,4] = activation "y.2" (%y::capture_out) kind=relu ; y
    %one_out = constant "one" value=f32[1,1]#7c76d32fb19571d5
    %y.3_out f32[n,4] = elementwise "y.3" (%y::capture_out, %one_out) kind=sum ; y
    %y f32[n,4] = conditional_output "y::output" (%y.2_out, %y.3_out) of=0 ; y
    output "y" (%y) type=f32
    "#);
}

#[test]
fn branches_of_different_ranks_are_refused() {
    assert_snapshot!(reason(&conditional("%x) {", "%y) { %y = unsqueeze(%x) axes=[0]")), @r"output 0 has 2 dimensions in one branch and 3 in the other, and its condition is only known at run time");
    assert_snapshot!(reason(&conditional("%x) {", "%y) { %y = squeeze(%x)")), @r"the rank of output 0 is not known in one of the branches");
}

#[test]
fn branches_of_other_fixed_sizes_are_refused_beside_dynamic_ones() {
    assert_snapshot!(reason(&conditional("%x) {", "%y) { %y = concat(%x, %x) axis=1")), @r"output 0 has a dimension of 4 in one branch and of 8 in the other, which TensorRT takes only where all dimensions are fixed");
    network(&conditional("%x) {", "%y) { %y = concat(%x, %x) axis=0")).unwrap();
}

#[test]
fn nodes_refused_in_bodies_are_found_with_all_others() {
    let lowered = |name: &str| format!("%{name} = lp_norm(%x) axis=1 p=3");
    let text = conditional(
        &format!("%a) {{ {} {}", lowered("a"), lowered("dead")),
        &format!("%r) {{ {} %r = relu(%b)", lowered("b")),
    );
    let text = text.replace("-> (%y)", "-> (%y, %c2)").replacen("{ %y", &format!("{{ {} %y", lowered("c2")), 1);
    let names: Vec<String> = refused(&text).into_iter().map(|node| node.node).collect();
    assert_eq!(names, ["a", "b", "c2"]);
}

fn looped(trips: &str, condition: &str, body: &str) -> String {
    format!(
        "graph g(%m: i64[], %go: bool[], %f: f32[], %x: f32[n, 2]) -> (%y, %z) {{ \
         %y, %z = loop({trips}, {condition}, %x) carried=1 body={} }}",
        quoted(&format!("graph b(%i: i64[], %on: bool[], %v: f32[n, 2]) -> ({body} }}"))
    )
}

const COUNTED: &str = "%on as \"c\", %next, %v as \"seen\") { %k = cast(%i) to=f32 saturate=true %next = add(%v, %k)";
const ENDING: &str = "%less, %next, %i as \"seen\") { %ten = constant() value=i64[] {10} %less = less(%i, %ten) \
                      %next = relu(%v)";

#[test]
fn a_counted_loop_concatenates_its_scan_outputs() {
    assert_snapshot!(network(&looped("%m", "_", COUNTED)).unwrap(), @r#"
    %m i64[] = input "m" type=i64 dims=[]
    %go bool[] = input "go" type=bool dims=[]
    %f f32[] = input "f" type=f32 dims=[]
    %x f32[n,2] = input "x" type=f32 dims=[-1,2] symbols=[n,-]
    loop "y" id=0
    trip_limit "y::count" (%m) of=0 kind=count ; y
    %y::true_out = constant "y::true" value=bool[]#495758dfddf4a634 ; y
    %y::zero_out = constant "y::zero" value=i64[]#8518530a4a82bcd8 ; y
    %y::one_out = constant "y::one" value=i64[]#95857985956d4790 ; y
    %y::iteration_out = recurrence "y::iteration" (%y::zero_out) of=0 next=%y::next_out ; y
    %y::next_out = elementwise "y::next" (%y::iteration_out, %y::one_out) kind=sum ; y
    %y::carried_out = recurrence "y::carried" (%x) of=0 next=%next_out ; y
    %k_out f32[] = cast "k" (%y::iteration_out) to=f32
    %next::broadcast_out = shuffle "next::broadcast" (%k_out) reshape=[1,1] ; next
    %next_out f32[n,2] = elementwise "next" (%y::carried_out, %next::broadcast_out) kind=sum
    %y f32[n,2] = loop_output "y::last" (%y::carried_out) of=0 kind=last_value ; y
    %z f32[y.trips,n,2] = loop_output "y::scan" (%y::carried_out) of=0 kind=concatenate length=%m ; y
    output "y" (%y) type=f32
    output "z" (%z) type=f32
    "#);
}

#[test]
fn a_loop_runs_while_its_condition_holds() {
    let text = looped("_", "%go", ENDING).replace("-> (%y, %z)", "-> (%y)");
    assert_snapshot!(network(&text).unwrap(), @r#"
    %m i64[] = input "m" type=i64 dims=[]
    %go bool[] = input "go" type=bool dims=[]
    %f f32[] = input "f" type=f32 dims=[]
    %x f32[n,2] = input "x" type=f32 dims=[-1,2] symbols=[n,-]
    loop "y" id=0
    %y::true_out = constant "y::true" value=bool[]#495758dfddf4a634 ; y
    %y::condition_out = recurrence "y::condition" (%go) of=0 next=%less_out ; y
    trip_limit "y::while" (%y::condition_out) of=0 kind=while ; y
    %y::zero_out = constant "y::zero" value=i64[]#8518530a4a82bcd8 ; y
    %y::one_out = constant "y::one" value=i64[]#95857985956d4790 ; y
    %y::iteration_out = recurrence "y::iteration" (%y::zero_out) of=0 next=%y::next_out ; y
    %y::next_out = elementwise "y::next" (%y::iteration_out, %y::one_out) kind=sum ; y
    %y::carried_out = recurrence "y::carried" (%x) of=0 next=%next_out ; y
    %ten_out = constant "ten" value=i64[]#86b533346dd3eace
    %less_out bool[] = elementwise "less" (%y::iteration_out, %ten_out) kind=less
    %next_out f32[n,2] = activation "next" (%y::carried_out) kind=relu
    %y f32[n,2] = loop_output "y::last" (%y::carried_out) of=0 kind=last_value ; y
    output "y" (%y) type=f32
    "#);
}

/// The layers that a loop's trip count goes through.
fn counting(text: &str) -> Vec<String> {
    let network = network(text).unwrap();
    network.lines().filter(|line| line.contains("y::trips") || line.contains("trip_limit")).map(str::to_owned).collect()
}

#[test]
fn counts_of_conditional_loops_are_kept_in_32_bits() {
    let text = looped("%m", "%go", ENDING).replace("-> (%y, %z)", "-> (%y)");
    assert_snapshot!(counting(&text).join("\n"), @r#"
    %y::trips_above_out = elementwise "y::trips_above" (%m, %y::least_out) kind=max ; y
    %y::trips_below_out = elementwise "y::trips_below" (%y::trips_above_out, %y::most_out) kind=min ; y
    %y::trips_i32_out = cast "y::trips_i32" (%y::trips_below_out) to=i32 ; y
    trip_limit "y::count" (%y::trips_i32_out) of=0 kind=count ; y
    trip_limit "y::while" (%y::condition_out) of=0 kind=while ; y
    "#);
    let endless = text.replace("%y, %z =", "%endless = constant() value=i64[] {9223372036854775807} %y, %z =");
    assert_snapshot!(counting(&endless.replace("loop(%m", "loop(%endless")).join("\n"), @r#"
    %y::trips_out = constant "y::trips" value=i32[]#7061958baf298013 ; y
    trip_limit "y::count" (%y::trips_out) of=0 kind=count ; y
    trip_limit "y::while" (%y::condition_out) of=0 kind=while ; y
    "#);
}

#[test]
fn loops_that_tensorrt_cannot_run_are_refused() {
    assert_snapshot!(reason(&looped("_", "%go", COUNTED)), @r"neither a trip count nor a condition ends it");
    assert_snapshot!(reason(&looped("%m", "_", ENDING)), @r"its scan outputs are as long as its condition holds, and TensorRT needs their length before the loop");
    assert_snapshot!(reason(&looped("%m", "%go", COUNTED)), @r"whether it begins is known only at run time, and TensorRT needs the length of its scan outputs before");
    let growing = "%on as \"c\", %next, %v as \"seen\") { %next = concat(%v, %v) axis=0";
    assert_snapshot!(reason(&looped("%m", "_", growing)), @r"carried value `v` changes its shape: it comes in as f32[n, 2] and leaves as f32[2*n, 2]");
    let open = looped("%m", "_", COUNTED).replace("%v: f32[n, 2]", "%v: f32[..]");
    assert_snapshot!(reason(&open), @r"carried value `v` may change its shape from one round to the next: it comes in as f32[..] and leaves as f32[..]");
    let from_float = looped("%t", "_", COUNTED).replacen("{ %y", "{ %t = cast(%f) to=i64 saturate=true %y", 1);
    assert_snapshot!(reason(&from_float), @r"its trip count is computed from an input of floats, and TensorRT needs the length of its scan outputs as a shape");
}

#[test]
fn a_scan_iterates_and_may_nest() {
    let inner = quoted("graph i(%v: f32[2]) -> (%w) { %w = exp(%v) }");
    let body = format!(
        "graph b(%s: f32[2], %v: f32[2], %c: bool[]) -> (%t, %u) {{ \
         %u = if(%c, %v) then_branch={inner} else_branch={inner} %t = add(%s, %u) }}"
    );
    let text = format!(
        "graph g(%c: bool[], %s: f32[2], %x: f32[2, n]) -> (%y, %z) {{ \
         %y, %z = scan(%s, %x, %c) body={} carried=1 scan_inputs=1 input_axes=[-1] output_axes=[1] \
         input_reversed=[1] output_reversed=[1] }}",
        quoted(&body)
    );
    assert_snapshot!(network(&text).unwrap(), @r#"
    %c bool[] = input "c" type=bool dims=[]
    %s f32[2] = input "s" type=f32 dims=[2]
    %x f32[2,n] = input "x" type=f32 dims=[2,-1] symbols=[-,n]
    %y::shape_out = shape "y::shape" (%x) ; y
    %y::n_out = slice "y::n" (%y::shape_out) start=[1] size=[1] stride=[1] ; y
    %y::length_out = shuffle "y::length" (%y::n_out) reshape=[] ; y
    loop "y" id=0
    trip_limit "y::count" (%y::length_out) of=0 kind=count ; y
    %y::carried_out = recurrence "y::carried" (%s) of=0 next=%t_out ; y
    %y::slice_out = iterator "y::slice" (%x) of=0 axis=1 reverse=true ; y
    conditional "u" (%c) id=0
    %u::capture_out = conditional_input "u::capture" (%y::slice_out) of=0 ; u
    %w_out f32[2] = unary "w" (%u::capture_out) kind=exp
    %w.2_out f32[2] = unary "w.2" (%u::capture_out) kind=exp ; w
    %u::output_out f32[2] = conditional_output "u::output" (%w_out, %w.2_out) of=0 ; u
    %t_out f32[2] = elementwise "t" (%y::carried_out, %u::output_out) kind=sum
    %y f32[2] = loop_output "y::last" (%y::carried_out) of=0 kind=last_value ; y
    %z f32[2,n] = loop_output "y::scan" (%u::output_out) of=0 kind=reverse axis=1 length=%y::length_out ; y
    output "y" (%y) type=f32
    output "z" (%z) type=f32
    "#);
}
