//! Steps of a decoder behind a cache, as exporters write it: new keys and values are joined to those of the past, and the
//! whole is an output too.

use super::write::Value::{Int, Ints};
use super::write::{floats, graph, node, plain};
use super::{builds, gives, network, operators, tensor, with_weights};

/// Two heads of two numbers, the mask added to the scores. Sizes are those of batch, new tokens, past and both.
fn decoder([batch, new, past, all]: [&str; 4]) -> onnx_protobuf::ModelProto {
    let inputs = [
        // Before what tells its parts, as exporters have it.
        format!("mask: 1[{batch}, 1, {new}, {all}]"),
        format!("q: 1[{batch}, 2, {new}, 2]"),
        format!("k: 1[{batch}, 2, {new}, 2]"),
        format!("v: 1[{batch}, 2, {new}, 2]"),
        format!("past_k: 1[{batch}, 2, {past}, 2]"),
        format!("past_v: 1[{batch}, 2, {past}, 2]"),
    ];
    let nodes = vec![
        node("present_k = Concat(past_k, k)", vec![("axis", Int(2))]),
        node("present_v = Concat(past_v, v)", vec![("axis", Int(2))]),
        node("turned = Transpose(present_k)", vec![("perm", Ints(&[0, 1, 3, 2]))]),
        plain("product = MatMul(q, turned)"),
        plain("scaled = Mul(product, half)"),
        plain("scores = Add(scaled, mask)"),
        node("weights = Softmax(scores)", vec![("axis", Int(-1))]),
        plain("y = MatMul(weights, present_v)"),
    ];
    let inputs = inputs.each_ref().map(String::as_str);
    with_weights(17, graph(&inputs, &["y", "present_k", "present_v"], nodes), vec![floats("half", &[], &[0.5])])
}

/// One new token behind two, the first of which is padding. The first head scores ln 3 and 0, the second 0 twice.
#[track_caller]
fn gives_one_step(model: &onnx_protobuf::ModelProto) -> super::Graph {
    let root = 2.0 * 3.0_f32.ln();
    let inputs = [
        tensor(&[1, 1, 1, 3], &[f32::NEG_INFINITY, 0.0, 0.0]),
        tensor(&[1, 2, 1, 2], &[root, 0.0_f32, 0.0, 0.0]),
        tensor(&[1, 2, 1, 2], &[0.0_f32, 5.0, 6.0, 7.0]),
        tensor(&[1, 2, 1, 2], &[8.0_f32, 4.0, 3.0, 1.0]),
        tensor(&[1, 2, 2, 2], &[9.0_f32, 9.0, 1.0, 0.0, 9.0, 9.0, 2.0, 3.0]),
        tensor(&[1, 2, 2, 2], &[99.0_f32, 99.0, 4.0, 0.0, 99.0, 99.0, 1.0, 5.0]),
    ];
    let expected = [
        tensor(&[1, 2, 1, 2], &[5.0_f32, 1.0, 2.0, 3.0]),
        tensor(&[1, 2, 3, 2], &[9.0_f32, 9.0, 1.0, 0.0, 0.0, 5.0, 9.0, 9.0, 2.0, 3.0, 6.0, 7.0]),
        tensor(&[1, 2, 3, 2], &[99.0_f32, 99.0, 4.0, 0.0, 8.0, 4.0, 99.0, 99.0, 1.0, 5.0, 3.0, 1.0]),
    ];
    gives(model, &inputs, &expected)
}

#[test]
fn a_cache_of_any_length_is_attended_to() {
    let found = gives_one_step(&decoder(["batch", "new", "past", "past + new"]));
    assert_eq!(operators(&found), ["attention", "concat", "concat"], "{found}");
    assert!(network(&found).unwrap().contains(" = attention "));
    builds(&found, &["batch=1:1:2", "new=1:1:8", "past=0:16:64"]);
}

#[test]
fn one_token_behind_a_cache_is_attended_in_products() {
    for sizes in [["1", "1", "2", "3"], ["batch", "1", "past", "past + 1"]] {
        let found = gives_one_step(&decoder(sizes));
        assert_eq!(operators(&found), ["attention", "concat", "concat"], "{found}");
        assert!(network(&found).unwrap().contains(" = softmax "));
        let ranges: &[&str] = if sizes[0] == "1" { &[] } else { &["batch=1:1:2", "past=0:16:64"] };
        builds(&found, ranges);
    }
}

/// Nothing tells that the mask is as long as the cache: it may be one number for all keys.
#[test]
fn a_mask_of_a_length_of_its_own_may_widen_the_scores() {
    let found = gives_one_step(&decoder(["batch", "new", "past", "total"]));
    assert!(!operators(&found).iter().any(|op| op == "attention"), "{found}");
    builds(&found, &["batch=1:1:2", "new=1:1:8", "past=0:16:64", "total=1:17:72"]);
}
