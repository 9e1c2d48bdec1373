use super::*;

fn quoted(graph: &str) -> String {
    format!("{graph:?}")
}

/// Doubles x each time and gives every x.
const DOUBLING: &str = "graph b(%i: i64[], %c: bool[], %x: f32[2], %by: f32[]) -> (%c as \"go\", %y, %x as \"seen\") { \
                        %y = mul(%x, %by) }";

#[test]
fn a_loop_carries_and_stacks() {
    let node = format!("loop(%0, _, %1, %2) body={} carried=1", quoted(DOUBLING));
    let (x, by) = (f32s(&[2], &[1.0, 3.0]), f32s(&[], &[2.0]));
    let outputs = eval2(&node, &[&i64s(&[], &[3]), &x, &by]);
    assert_is(&outputs[0], &[2], &[8.0, 24.0]);
    assert_is(&outputs[1], &[3, 2], &[1.0, 3.0, 2.0, 6.0, 4.0, 12.0]);
    let outputs = eval2(&node, &[&i64s(&[], &[0]), &x, &by]);
    assert_is(&outputs[0], &[2], &[1.0, 3.0]);
    assert_is(&outputs[1], &[0, 2], &[]);
}

#[test]
fn a_loop_ends_when_its_condition_fails() {
    let body = "graph b(%i: i64[], %c: bool[], %x: i64[]) -> (%go, %y) { %one = constant() value=i64[] {1} \
                %ten = constant() value=i64[] {10} %y = add(%x, %one) %go = less(%y, %ten) }";
    let node = format!("loop(_, %0, %1) body={} carried=1", quoted(body));
    let holds = Tensor::scalar(true);
    assert_is(&eval(&node, &[&holds, &i64s(&[], &[4])]), &[], &[10.0]);
    assert_is(&eval(&node, &[&Tensor::scalar(false), &i64s(&[], &[4])]), &[], &[4.0]);
}

#[test]
fn one_branch_is_taken() {
    let branch = |op: &str| quoted(&format!("graph b(%x: f32[2]) -> (%y) {{ %y = {op}(%x) }}"));
    let node = format!("if(%0, %1) then_branch={} else_branch={}", branch("neg"), branch("relu"));
    let x = f32s(&[2], &[-1.0, 2.0]);
    assert_is(&eval(&node, &[&Tensor::scalar(true), &x]), &[2], &[1.0, -2.0]);
    assert_is(&eval(&node, &[&Tensor::scalar(false), &x]), &[2], &[0.0, 2.0]);
}

#[test]
fn a_scan_walks_both_ways() {
    let body = "graph b(%sum: f32[], %x: f32[]) -> (%next, %next as \"seen\") { %next = add(%sum, %x) }";
    let node = |reversed: i64| {
        format!(
            "scan(%0, %1) body={} scan_inputs=1 carried=1 input_axes=[0] output_axes=[0] input_reversed=[{reversed}] \
             output_reversed=[{reversed}]",
            quoted(body)
        )
    };
    let inputs = [&f32s(&[], &[10.0]), &f32s(&[3], &[1.0, 2.0, 3.0])];
    let outputs = eval2(&node(0), &inputs);
    assert_is(&outputs[0], &[], &[16.0]);
    assert_is(&outputs[1], &[3], &[11.0, 13.0, 16.0]);
    let outputs = eval2(&node(1), &inputs);
    assert_is(&outputs[1], &[3], &[16.0, 15.0, 13.0]);
}
