//! Arithmetic on integers, bit by bit, of inputs and of constants.

use onnx_protobuf as onnx;

use super::write::Value::Int;
use super::write::{floats, graph, ints, node, plain};
use super::{Tensor, builds, gives, integers, operators, tensor, with_weights};

#[test]
fn running_sums_of_every_axis_and_direction() {
    let x = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    let down: [[f32; 8]; 4] = [
        [1.0, 2.0, 4.0, 6.0, 9.0, 12.0, 16.0, 20.0],
        [0.0, 0.0, 1.0, 2.0, 4.0, 6.0, 9.0, 12.0],
        [16.0, 20.0, 15.0, 18.0, 12.0, 14.0, 7.0, 8.0],
        [15.0, 18.0, 12.0, 14.0, 7.0, 8.0, 0.0, 0.0],
    ];
    let across: [[f32; 8]; 4] = [
        [1.0, 3.0, 3.0, 7.0, 5.0, 11.0, 7.0, 15.0],
        [0.0, 1.0, 0.0, 3.0, 0.0, 5.0, 0.0, 7.0],
        [3.0, 2.0, 7.0, 4.0, 11.0, 6.0, 15.0, 8.0],
        [2.0, 0.0, 4.0, 0.0, 6.0, 0.0, 8.0, 0.0],
    ];
    for (axis, sums) in [(0, down), (1, across), (-1, across), (-2, down)] {
        for (form, expected) in sums.iter().enumerate() {
            let (reverse, exclusive) = (form as i64 / 2, form as i64 % 2);
            let attributes = vec![("reverse", Int(reverse)), ("exclusive", Int(exclusive))];
            let nodes = vec![node("y = CumSum(x, axis)", attributes)];
            let model = with_weights(17, graph(&["x: 1[4, 2]"], &["y"], nodes), vec![axis_of(axis)]);
            builds(&gives(&model, &[tensor(&[4, 2], &x)], &[tensor(&[4, 2], expected)]), &[]);
        }
    }
}

fn axis_of(axis: i64) -> onnx::TensorProto {
    onnx::TensorProto { dims: vec![], ..ints("axis", &[axis]) }
}

#[test]
fn a_running_sum_of_a_running_sum() {
    let nodes = vec![plain("down = CumSum(x, axis)"), plain("y = CumSum(down, other)")];
    let other = onnx::TensorProto { dims: vec![], ..ints("other", &[1]) };
    let model = with_weights(17, graph(&["x: 7[n, 2]"], &["y"], nodes), vec![axis_of(0), other]);
    let x = tensor(&[4, 2], &[1_i64, 2, 3, 4, 5, 6, 7, 8]);
    let graph = gives(&model, &[x], &[tensor(&[4, 2], &[1_i64, 3, 4, 10, 9, 21, 16, 36])]);
    builds(&graph, &["n=1:4:8"]);
}

/// `op(a, b)` of i32 inputs, then of constants.
#[track_caller]
fn arithmetic(op: &str, fmod: Option<i64>, pairs: &[(i32, i32, i32)]) {
    let attributes = || fmod.map(|fmod| ("fmod", Int(fmod))).into_iter().collect();
    let call = || vec![node(&format!("y = {op}(a, b)"), attributes())];
    let count = pairs.len();
    let column = |pick: fn(&(i32, i32, i32)) -> i32| pairs.iter().map(pick).collect::<Vec<i32>>();
    let (a, b, y) = (column(|row| row.0), column(|row| row.1), column(|row| row.2));
    let kind = format!("6[{count}]");
    let inputs = [format!("a: {kind}"), format!("b: {kind}")];
    let inputs = inputs.each_ref().map(String::as_str);
    let model = with_weights(17, graph(&inputs, &["y"], call()), vec![]);
    let expected = tensor(&[count], &y);
    let found = gives(&model, &[tensor(&[count], &a), tensor(&[count], &b)], std::slice::from_ref(&expected));
    builds(&found, &[]);
    let weights = vec![integers("a", 6, &[count as i64], &a), integers("b", 6, &[count as i64], &b)];
    let folded = gives(&with_weights(17, graph(&[], &["y"], call()), weights), &[], &[expected]);
    assert!(operators(&folded).is_empty(), "{folded}");
}

#[test]
fn remainders_have_the_sign_of_the_divisor() {
    arithmetic(
        "Mod",
        None,
        &[
            (18_542_495, 32, 31),
            (i32::MAX, 32, 31),
            (i32::MAX, -32, -1),
            (i32::MIN, 32, 0),
            (i32::MIN + 1, i32::MAX, 0),
            (i32::MAX, i32::MAX - 1, 1),
            (7, 3, 1),
            (-7, 3, 2),
            (7, -3, -2),
            (-7, -3, -1),
            (-6, 3, 0),
            (16_777_217, 2, 1),
        ],
    );
}

#[test]
fn c_remainders_have_the_sign_of_the_dividend() {
    arithmetic(
        "Mod",
        Some(1),
        &[
            (i32::MAX, 32, 31),
            (i32::MAX, -32, 31),
            (-i32::MAX, 32, -31),
            (i32::MIN, 3, -2),
            (7, 3, 1),
            (-7, 3, -1),
            (7, -3, 1),
            (-7, -3, -1),
        ],
    );
}

#[test]
fn quotients_are_truncated() {
    arithmetic(
        "Div",
        None,
        &[
            (-7, 2, -3),
            (7, -2, -3),
            (-7, -2, 3),
            (7, 2, 3),
            (i32::MAX, 2, 1_073_741_823),
            (i32::MIN, 2, -1_073_741_824),
            (i32::MAX, i32::MAX - 1, 1),
            (i32::MAX - 1, i32::MAX, 0),
            (16_777_217, 1, 16_777_217),
        ],
    );
}

#[test]
fn sums_and_products_wrap_around() {
    arithmetic("Add", None, &[(i32::MAX, 1, i32::MIN), (i32::MIN, -1, i32::MAX), (-3, 5, 2)]);
    arithmetic("Mul", None, &[(65_536, 65_536, 0), (i32::MAX, 2, -2), (46_341, 46_341, -2_147_479_015)]);
    arithmetic("Sub", None, &[(i32::MIN, 1, i32::MAX), (0, i32::MIN, i32::MIN)]);
}

#[test]
fn remainders_of_floats() {
    let model = |fmod| {
        let nodes = vec![node("y = Mod(a, b)", vec![("fmod", Int(fmod))])];
        with_weights(17, graph(&["a: 1[4]", "b: 1[4]"], &["y"], nodes), vec![])
    };
    let (a, b) = (tensor(&[4], &[-5.5_f32, 5.5, -5.5, 6.0]), tensor(&[4], &[2.0_f32, -2.0, -2.0, 1.5]));
    builds(&gives(&model(1), &[a, b], &[tensor(&[4], &[-1.5_f32, 1.5, -1.5, 0.0])]), &[]);
}

/// What ONNX defines for numbers that are none: as a truth value, as another float, and saturated to 8 bits. To integers
/// it is undefined.
#[test]
fn casts_of_numbers_that_are_none() {
    let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e6, -2.75];
    let nodes = |to| vec![node("y = Cast(x)", vec![("to", Int(to))])];
    let cast = |to: i64, expected: Tensor| {
        let model = with_weights(19, graph(&["x: 1[7]"], &["y"], nodes(to)), vec![]);
        let found = gives(&model, &[tensor(&[7], &x)], std::slice::from_ref(&expected));
        builds(&found, &[]);
        let weights = vec![floats("x", &[7], &x)];
        let folded = gives(&with_weights(19, graph(&[], &["y"], nodes(to)), weights), &[], &[expected]);
        assert!(operators(&folded).is_empty(), "{folded}");
    };
    cast(9, tensor(&[7], &[true, true, true, false, false, true, true]));
    let halves = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::INFINITY, -2.75];
    cast(10, tensor(&[7], &halves.map(half::f16::from_f32)));
    let finite = [2.9_f32, -2.9, 0.5, -0.5, 2_147_483_520.0, -2_147_483_648.0, 1e6];
    let model = with_weights(19, graph(&["x: 1[7]"], &["y"], nodes(6)), vec![]);
    let expected = tensor(&[7], &[2, -2, 0, 0, 2_147_483_520, i32::MIN, 1_000_000]);
    builds(&gives(&model, &[tensor(&[7], &finite)], &[expected]), &[]);
}
