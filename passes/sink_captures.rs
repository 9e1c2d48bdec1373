//! Sinks what is known of captured values into the bodies of control flow.
//!
//! ```text
//! %w = constant() value=f32[2] {1, 2}
//! %y = if(%c, %x, %w) then_branch="graph t(%x: f32[n], %w: f32[2]) .." ..
//! ```
//! becomes
//! ```text
//! %y = if(%c, %x) then_branch="graph t(%x: f32[n]) -> .. { %w = constant() value=f32[2] {1, 2} .. }" ..
//! ```
//!
//! Fires on a capture that is a constant, on one that no body reads, and on one of which the graph around knows more
//! than the body: a shape, or the elements of a small integer tensor.
//!
//! Refuses when
//! - a body does not fit what is known of its captures, or what it gives then not what the outside knows: it is a branch for
//!   other shapes, which stays as it was.
//!
//! Order: after `fold_constants`, which makes captures constant; before `fold_control_flow`.
//!
//! Numerics: bit-exact.

use std::sync::Arc;

use trt_fuse_ir::infer::{InferContext, infer};
use trt_fuse_ir::op::{Bodies, Body};
use trt_fuse_ir::{Builder, Graph, GraphError, NodeId, Op, OpKind, Patch, Tensor, ValueInfo, ValueRef};

use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct SinkCaptures;

/// What becomes of a body's input.
#[derive(Debug, PartialEq)]
enum Fate {
    Stays,
    Refined(ValueInfo),
    Constant(Tensor),
    Dropped,
}

impl Rule for SinkCaptures {
    fn name(&self) -> &'static str {
        "sink_captures"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::If, OpKind::Loop, OpKind::Scan]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let node = graph.node(root).ok_or(Miss::NoMatch)?;
        let (slot, first) = node.op.first_capture().ok_or(Miss::NoMatch)?;
        let bodies = node.op.bodies();
        let operands = graph.node_inputs(root);
        let captures = operands.get(slot..).ok_or(Miss::NoMatch)?;
        let mut inputs = operands.get(..slot).ok_or(Miss::NoMatch)?.to_vec();
        let mut fates: Vec<Fate> = (0..first).map(|_| Fate::Stays).collect();
        for (at, capture) in (first..).zip(captures) {
            let fate = fate(graph, capture.ok_or(Miss::NoMatch)?, &bodies, at);
            if matches!(fate, Fate::Stays | Fate::Refined(_)) {
                inputs.push(*capture);
            }
            fates.push(fate);
        }
        if fates.iter().all(|fate| *fate == Fate::Stays) {
            return Err(Miss::NoEffect);
        }
        let changed: Result<Bodies, GraphError> = bodies.iter().map(|body| changed(body, &fates)).collect();
        let misfit = Miss::Blocked { reason: "a body does not fit what is known of its captures", at: root };
        let op = node.op.with_bodies(&changed.map_err(|_| misfit)?).ok_or(Miss::NoMatch)?;
        if !gives_the_same(graph, root, &op, &inputs) {
            return Err(misfit);
        }
        let mut patch = Patch::new(self.name(), root);
        let new = patch.add_many(op, &inputs, node.outputs.len());
        for slot in 0..node.outputs.len() as u32 {
            patch.replace(ValueRef { node: root, slot }, ValueRef { node: new, slot });
        }
        patch.absorb([root]);
        Ok(patch)
    }
}

/// Whether what an operator gives in place of a node fits what is known of the node's outputs.
fn gives_the_same(graph: &Graph, root: NodeId, op: &Op, inputs: &[Option<ValueRef>]) -> bool {
    let Some(node) = graph.node(root) else { return false };
    let infos: Vec<Option<&ValueInfo>> = inputs.iter().map(|input| graph.info((*input)?)).collect();
    let context = InferContext { node: &node.name, outputs: node.outputs.len() };
    let found = infer(op, &infos, &context);
    found.is_ok_and(|found| found.iter().zip(&node.outputs).all(|(found, output)| found.is_compatible(&output.info)))
}

/// What becomes of the input `at` of all bodies, which is this value outside.
fn fate(graph: &Graph, capture: ValueRef, bodies: &[Body], at: usize) -> Fate {
    let inputs: Vec<(&Graph, ValueRef)> = bodies
        .iter()
        .filter_map(|body| Some((&*body.0, ValueRef::from(*body.0.inputs().get(at)?))))
        .filter(|(body, input)| body.is_used(*input))
        .collect();
    let Some(info) = graph.info(capture) else { return Fate::Stays };
    if inputs.is_empty() {
        return Fate::Dropped;
    }
    if let Some(constant) = info.as_constant() {
        return Fate::Constant(constant.clone());
    }
    let knows_less = |(body, input): &(&Graph, ValueRef)| {
        body.info(*input).is_some_and(|inside| inside.clone().refined(info) != *inside)
    };
    if inputs.iter().any(knows_less) { Fate::Refined(info.clone()) } else { Fate::Stays }
}

/// A body with other inputs.
fn changed(body: &Body, fates: &[Fate]) -> Result<Body, GraphError> {
    let graph = &body.0;
    let mut builder = Builder::like(graph);
    let mut inputs = Vec::with_capacity(fates.len());
    for (id, fate) in graph.inputs().iter().zip(fates) {
        let Some(value) = graph.value((*id).into()) else { continue };
        let name = value.name.clone();
        inputs.push(match fate {
            Fate::Stays => Some(builder.input(name, value.info.clone())),
            Fate::Refined(info) => Some(builder.input(name, value.info.clone().refined(info))),
            Fate::Constant(tensor) => Some(builder.constant(name, tensor.clone())?),
            Fate::Dropped => None,
        });
    }
    builder.copy(graph, &inputs)?;
    Ok(Body(Arc::new(builder.finish())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn branch(name: &str, inputs: &str, op: &str) -> String {
        format!("{:?}", format!("graph {name}({inputs}) -> (%y) {{ %y = {op} }}"))
    }

    fn run(x: &str, inside: &str, operands: &str, then: &str, other: &str) -> Run {
        let inputs = format!("%x: {inside}, %w: f32[2]");
        run_rule(
            SinkCaptures,
            &format!(
                "graph g(%c: bool[], %x: {x}) -> (%y) {{ %k = constant() value=f32[2] {{1, 2}} \
                 %y = if(%c{operands}) then_branch={} else_branch={} }}",
                branch("t", &inputs, then),
                branch("e", &inputs, other),
            ),
        )
    }

    #[test]
    fn sinks_a_constant() {
        let run = run("f32[n, 2]", "f32[n, 2]", ", %x, %k", "mul(%x, %w)", "add(%x, %w)");
        insta::assert_snapshot!(run.equal_within(0.0, 2).after, @r#"
        graph g(%c: bool[], %x: f32[n, 2]) -> (%y) {
          %y = if(%c, %x) then_branch="graph t(%x: f32[n, 2]) -> (%y) {\n  %w = constant() value=f32[2] {1.0, 2.0}\n  %y = mul(%x, %w) : f32[n, 2]\n}\n" else_branch="graph e(%x: f32[n, 2]) -> (%y) {\n  %w = constant() value=f32[2] {1.0, 2.0}\n  %y = add(%x, %w) : f32[n, 2]\n}\n" : f32[n, 2]
        }
        "#);
    }

    #[test]
    fn drops_what_no_body_reads() {
        let run = run("f32[n, 2]", "f32[n, 2]", ", %x, %k", "relu(%x)", "exp(%x)");
        insta::assert_snapshot!(run.equal_within(0.0, 2).after, @r#"
        graph g(%c: bool[], %x: f32[n, 2]) -> (%y) {
          %y = if(%c, %x) then_branch="graph t(%x: f32[n, 2]) -> (%y) {\n  %y = relu(%x) : f32[n, 2]\n}\n" else_branch="graph e(%x: f32[n, 2]) -> (%y) {\n  %y = exp(%x) : f32[n, 2]\n}\n" : f32[n, 2]
        }
        "#);
    }

    #[test]
    fn tells_bodies_shapes() {
        let run = run("f32[n, 2]", "f32[..]", ", %x, %k", "mul(%x, %w)", "add(%x, %w)");
        insta::assert_snapshot!(run.equal_within(0.0, 2).after, @r#"
        graph g(%c: bool[], %x: f32[n, 2]) -> (%y) {
          %y = if(%c, %x) then_branch="graph t(%x: f32[n, 2]) -> (%y) {\n  %w = constant() value=f32[2] {1.0, 2.0}\n  %y = mul(%x, %w) : f32[n, 2]\n}\n" else_branch="graph e(%x: f32[n, 2]) -> (%y) {\n  %w = constant() value=f32[2] {1.0, 2.0}\n  %y = add(%x, %w) : f32[n, 2]\n}\n" : f32[n, 2]
        }
        "#);
    }

    #[test]
    fn leaves_what_is_known_alone() {
        let text = format!(
            "graph g(%c: bool[], %x: f32[n]) -> (%y) {{ %y = if(%c, %x) then_branch={} else_branch={} }}",
            branch("t", "%x: f32[n]", "relu(%x)"),
            branch("e", "%x: f32[n]", "exp(%x)"),
        );
        assert_eq!(run_rule(SinkCaptures, &text).rewrites, 0);
    }

    #[test]
    fn refuses_a_branch_for_other_shapes() {
        let text = format!(
            "graph g(%c: bool[], %x: f32[n]) -> (%y) {{ %y = if(%c, %x) then_branch={} else_branch={} }}",
            branch("t", "%x: f32[..]", "relu(%x)"),
            branch("e", "%x: f32[..]", "squeeze(%x) axes=[3]"),
        );
        let run = run_rule(SinkCaptures, &text);
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["a body does not fit what is known of its captures"]));
    }

    #[test]
    fn refuses_what_gives_another_shape_than_the_outside_knows() {
        let text = format!(
            "graph g(%x: f32[n, 2]) -> (%y) {{ %c = constant() value=bool[] {{1}} \
             %y = if(%c, %x) then_branch={} else_branch={} : f32[1, m] }}",
            branch("t", "%x: f32[..]", "unsqueeze(%x) axes=[0]"),
            branch("e", "%x: f32[..]", "relu(%x)"),
        );
        let run = run_rule(SinkCaptures, &text);
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["a body does not fit what is known of its captures"]));
    }

    #[test]
    fn captures_of_a_scan_come_after_its_own_inputs() {
        let body =
            "graph b(%s: f32[2], %x: f32[2], %w: f32[2]) -> (%t, %t as \"seen\") { %p = mul(%x, %w) %t = add(%s, %p) }";
        let text = format!(
            "graph g(%s: f32[2], %x: f32[n, 2]) -> (%y, %z) {{ %k = constant() value=f32[2] {{1, 2}} \
             %y, %z = scan(%s, %x, %k) body={body:?} carried=1 scan_inputs=1 input_axes=[0] output_axes=[0] \
             input_reversed=[0] output_reversed=[0] }}"
        );
        let run = run_rule(SinkCaptures, &text);
        assert_eq!(run.rewrites, 1);
        run.equal_within(0.0, 3);
    }
}
