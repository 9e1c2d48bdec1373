//! Shapes at given sizes of the inputs: whether a model whose dimensions are symbols holds together at numbers.

use rustc_hash::FxHashMap;

use crate::infer::{InferContext, infer};
use crate::op::{Expand, Reshape, Shuffle, Slice, Split};
use crate::{Dim, Graph, GraphError, Op, Shape, ValueInfo, ValueRef};

/// What is known of every value when the symbols of the inputs have values; `inputs` may say more of an input, such as
/// its elements. Linear in the graph.
///
/// # Errors
/// The first node whose inputs do not fit it at these sizes.
pub fn shapes_at(
    graph: &Graph,
    symbols: &dyn Fn(&str) -> Option<i64>,
    inputs: &dyn Fn(&str) -> Option<ValueInfo>,
) -> Result<FxHashMap<ValueRef, ValueInfo>, GraphError> {
    let number = |dim: &Dim| dim.substitute(&|name| symbols(name).map(Dim::fixed));
    let at_sizes = |info: &ValueInfo| {
        let shape = info.shape.as_ref().map(|shape| shape.iter().map(number).collect());
        ValueInfo { dtype: info.dtype, shape, known: info.known.clone() }
    };
    let mut found: FxHashMap<ValueRef, ValueInfo> = FxHashMap::default();
    for id in graph.topo() {
        let Some(node) = graph.node(id) else { continue };
        let outputs =
            node.outputs.iter().enumerate().map(|(slot, value)| (ValueRef { node: id, slot: slot as u32 }, value));
        match &node.op {
            Op::Input => found.extend(
                outputs.map(|(value, stated)| (value, inputs(&stated.name).unwrap_or_else(|| at_sizes(&stated.info)))),
            ),
            // A constant says all of itself, and nothing is known of what an opaque operator does but what the model states.
            Op::Constant(_) => found.extend(outputs.map(|(value, stated)| (value, stated.info.clone()))),
            Op::Opaque(_) => found.extend(outputs.map(|(value, stated)| (value, at_sizes(&stated.info)))),
            op => {
                let context = InferContext { node: &node.name, outputs: node.outputs.len() };
                let slots = graph.node_inputs(id);
                let known: Vec<Option<&ValueInfo>> =
                    slots.iter().map(|input| input.and_then(|input| found.get(&input))).collect();
                let infos = infer(&with_dims(op, &number), &known, &context)?;
                for ((value, old), info) in outputs.zip(infos) {
                    let stated = at_sizes(&old.info);
                    if !info.is_compatible(&stated) {
                        return Err(GraphError::Contradiction {
                            value: old.name.clone(),
                            inferred: info.to_string(),
                            stated: stated.to_string(),
                        });
                    }
                    found.insert(value, info);
                }
            }
        }
    }
    Ok(found)
}

/// An operator with each dimension among its parameters taken through `number`.
fn with_dims(op: &Op, number: &dyn Fn(&Dim) -> Dim) -> Op {
    let each = |shape: &Option<Shape>| shape.as_ref().map(|shape| shape.iter().map(number).collect());
    match op {
        Op::Reshape(op) => Reshape { shape: each(&op.shape), ..op.clone() }.into(),
        Op::Shuffle(op) => Shuffle { shape: each(&op.shape), ..Shuffle::clone(op) }.into(),
        Op::Expand(op) => Expand { shape: each(&op.shape) }.into(),
        Op::Split(op) => Split { sizes: each(&op.sizes), ..op.clone() }.into(),
        Op::Slice(op) => Slice { starts: each(&op.starts), ends: each(&op.ends), ..Slice::clone(op) }.into(),
        op => op.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, size: i64) -> Result<String, String> {
        let graph: Graph = text.parse().unwrap();
        let found = shapes_at(&graph, &|_| Some(size), &|_| None).map_err(|error| error.to_string())?;
        Ok(found[&graph.outputs()[0].value].to_string())
    }

    #[test]
    fn symbols_become_numbers() {
        let text =
            "graph g(%x: f32[n, 8]) -> (%y) { %1 = reshape(%x) shape=[(2*n), 4] %y = transpose(%1) perm=[1, 0] }";
        assert_eq!(at(text, 3), Ok("f32[4, 6]".to_string()));
    }

    #[test]
    fn a_node_that_does_not_fit_is_named() {
        let text = "graph g(%x: f32[n, 3]) -> (%y) { %y = reshape(%x) shape=[(n/2), 6] }";
        assert_eq!(at(text, 4), Ok("f32[2, 6]".to_string()));
        let error = at(text, 5).unwrap_err();
        assert!(error.contains("`y`"), "{error}");
    }

    #[test]
    fn elements_of_inputs_decide_shapes() {
        let graph: Graph = "graph g(%x: f32[2, 6], %s: i64[2]) -> (%y) { %y = reshape(%x, %s) }".parse().unwrap();
        let elements = |numbers: &[i64]| {
            let elements = numbers.iter().copied().map(Dim::fixed).collect();
            let info = ValueInfo::elements(crate::DType::I64, [Dim::fixed(2)].into_iter().collect(), elements);
            shapes_at(&graph, &|_| None, &|name| (name == "s").then(|| info.clone()))
        };
        assert_eq!(elements(&[4, -1]).unwrap()[&graph.outputs()[0].value].to_string(), "f32[4, 3]");
        assert!(elements(&[5, -1]).is_err());
    }
}
