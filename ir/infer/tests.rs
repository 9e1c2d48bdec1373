//! Expected types follow from the ONNX operator specifications, worked out by hand.

use crate::{Graph, Op};

mod control;
mod elements;
mod layers;
mod moving;
mod random;

/// Checks the types of a graph's values against one line a value: `y: f32[2]`, with known elements
/// `n: i64[1] = [batch]`.
#[track_caller]
fn check(inputs: &str, body: &str, expected: &str) {
    let graph: Graph = format!("graph g({inputs}) -> () {{\n{body}\n}}").parse().unwrap();
    let mut found = Vec::new();
    for node in graph.topo().into_iter().filter_map(|id| graph.node(id)) {
        if matches!(node.op, Op::Input | Op::Constant(_)) {
            continue;
        }
        for value in &node.outputs {
            found.push(match value.info.known_elements() {
                Some(elements) => format!("{}: {} = {elements:?}", value.name, value.info),
                None => format!("{}: {}", value.name, value.info),
            });
        }
    }
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(found, expected);
}

/// Checks why a graph is refused.
#[track_caller]
fn check_refused(inputs: &str, body: &str, reason: &str) {
    let error = format!("graph g({inputs}) -> () {{\n{body}\n}}").parse::<Graph>().unwrap_err();
    assert!(error.reason.ends_with(reason), "{}", error.reason);
}
