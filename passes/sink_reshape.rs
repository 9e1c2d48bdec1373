//! Moves a reshape that inserts or removes axes of size 1 behind an operator of two operands, to the reshape that reads it.
//!
//! ```text
//! %1 = reshape(%x) shape=[1, 64, 3, 49, 49]      %y = add(%x, %mask) : f32[64, 3, 49, 49]
//! %2 = add(%1, %mask)                            // of %mask: f32[64, 1, 49, 49]
//! %y = reshape(%2) shape=[64, 3, 49, 49]
//! // of %mask: f32[1, 64, 1, 49, 49]
//! ```
//! Swin transformers mask the scores of shifted windows so (Liu et al., 2021), in front of their softmax.
//!
//! Fires if the second reshape restores the shape, or the other operand is a constant, which is reshaped in place of `%x`.
//!
//! Refuses when: something else reads the reshape, or the operator. An operand that is larger than what was reshaped, a
//! reshape that joins or cuts axes, one of a constant, one that is both operands, and PRelu are no match.
//!
//! Order: after `canonicalize_reshape`; before `fuse_attention`, which looks for masks.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::op::BinaryOp;
use trt_fuse_ir::{Dim, Graph, NodeId, Op, OpKind, Patch, Shape, ValueRef};

use crate::layout::Step;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct SinkReshape;

impl Rule for SinkReshape {
    fn name(&self) -> &'static str {
        "sink_reshape"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Reshape]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let middle = graph.input(root, 0).ok_or(Miss::NoMatch)?.node;
        // The slope of PRelu may not be of a greater rank than the data.
        let Some(Op::Binary(op)) = graph.op(middle).filter(|op| **op != Op::Binary(BinaryOp::PRelu)) else {
            return Err(Miss::NoMatch);
        };
        let [Some(a), Some(b)] = [0, 1].map(|slot| graph.input(middle, slot)) else { return Err(Miss::NoMatch) };
        let sunk = Sunk::of(graph, root, a, b).map(|sunk| (sunk, false));
        let (sunk, is_second) = sunk.or_else(|| Some((Sunk::of(graph, root, b, a)?, true))).ok_or(Miss::NoMatch)?;
        let result = shape_of(graph, root.into()).ok_or(Miss::NoMatch)?;
        if !context.symbols.tell(&sunk.other_shape) || !(sunk.is_restored || context.symbols.tell(result)) {
            return Err(Miss::NoMatch);
        }
        let mut patch = Patch::new(self.name(), root);
        let is_same = shape_of(graph, sunk.other) == Some(&sunk.other_shape);
        let other = if is_same { sunk.other } else { Step::Reshape(sunk.other_shape).add(&mut patch, sunk.other) };
        let operands = if is_second { [other, sunk.x] } else { [sunk.x, other] };
        let y = patch.add(Op::Binary(*op), &operands.map(Some));
        let y = if sunk.is_restored { y } else { Step::Reshape(result.clone()).add(&mut patch, y) };
        patch.replace(root.into(), y).absorb([root, middle, sunk.reshape]);
        Ok(patch)
    }
}

/// A reshape in front of an operator that another reshape reads.
struct Sunk {
    reshape: NodeId,
    /// What it reshapes.
    x: ValueRef,
    /// The other operand, and the shape in which it broadcasts to `x`.
    other: ValueRef,
    other_shape: Shape,
    /// Whether the second reshape gives the shape of `x`.
    is_restored: bool,
}

impl Sunk {
    /// For two operands of what `root` reads, the first of which is reshaped.
    fn of(graph: &Graph, root: NodeId, reshaped: ValueRef, other: ValueRef) -> Option<Self> {
        if graph.kind(reshaped.node) != Some(OpKind::Reshape) || other == reshaped {
            return None;
        }
        // A constant is to be folded, and would come back as the other operand.
        let x = graph.input(reshaped.node, 0).filter(|x| graph.constant(*x).is_none())?;
        let (before, after, given) = (shape_of(graph, x)?, shape_of(graph, reshaped)?, shape_of(graph, other)?);
        let is_restored = shape_of(graph, root.into())? == before;
        let other_shape = operand_shape(before, after, given)?;
        // Else the one reshape would be replaced by another.
        let is_less = is_restored || other_shape == *given || graph.constant(other).is_some();
        let is_whole = shape_of(graph, graph.input(root, 0)?)? == after;
        (is_less && is_whole).then_some(Self { reshape: reshaped.node, x, other, other_shape, is_restored })
    }
}

fn shape_of(graph: &Graph, value: ValueRef) -> Option<&Shape> {
    graph.info(value)?.shape.as_ref()
}

/// The shape of an operand that broadcasts to `before` as `given` does to `after`, if these differ in axes of size 1 alone.
fn operand_shape(before: &Shape, after: &Shape, given: &Shape) -> Option<Shape> {
    let (one, rank) = (Dim::fixed(1), given.len());
    let given = std::iter::repeat_n(&one, after.len().checked_sub(rank)?).chain(given);
    let mut rest = after.iter().zip(given).filter(|(dim, _)| !dim.is(1));
    let mut shape = Vec::new();
    for dim in before {
        if dim.is(1) {
            shape.push(one.clone());
            continue;
        }
        let (_, own) = rest.next().filter(|(after, _)| *after == dim)?;
        shape.push(own.clone());
    }
    // Of no greater rank than before, if that suffices: it need not be reshaped then.
    let lead = shape.iter().take_while(|dim| dim.is(1)).count().min(shape.len().saturating_sub(rank));
    rest.next().is_none().then(|| shape.into_iter().skip(lead).collect())
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::testing::run_rule;

    #[test]
    fn fires_on_a_mask_of_windows() {
        let text = "graph g(%x: f32[4, 3, n, n]) -> (%y) {
            %mask = constant() value=f32[1, 4, 1, 1, 1] {1, 2, 3, 4}
            %1 = reshape(%x) shape=[1, 4, 3, n, n] %2 = add(%1, %mask) %y = reshape(%2) shape=[4, 3, n, n] }";
        assert_snapshot!(run_rule(SinkReshape, text).equal_within(0.0, 2).after, @"
        graph g(%x: f32[4, 3, n, n]) -> (%y) {
          %mask = constant() value=f32[1, 4, 1, 1, 1] {1.0, 2.0, 3.0, 4.0}
          %y.1 = reshape(%mask) shape=[4, 1, 1, 1] : f32[4, 1, 1, 1]
          %y = add(%x, %y.1) : f32[4, 3, n, n]
        }
        ");
    }

    #[test]
    fn fires_on_either_operand_whatever_its_rank() {
        for (given, after, is_reshaped) in [
            ("1, 4, 1, 3, 1", "1, 4, 1, 3, n", true),
            ("4, 3, 1", "1, 4, 3, n", true),
            ("1", "4, 1, 3, n", false),
            ("n", "4, 3, n", false),
            ("", "4, 3, n, 1", false),
            ("3, 1, 1", "4, 3, n, 1", true),
            ("4, 3, n", "4, 3, n", true),
            ("1, 4, 3, n, 1", "1, 4, 3, n, 1", true),
        ] {
            for operator in ["sub(%1, %m)", "sub(%m, %1)", "less(%1, %m)"] {
                let text = format!(
                    "graph g(%x: f32[4, 1, 3, n], %m: f32[{given}]) -> (%y) {{ %1 = reshape(%x) shape=[{after}]
                    %2 = {operator} %y = reshape(%2) shape=[4, 1, 3, n] }}"
                );
                let run = run_rule(SinkReshape, &text);
                assert_eq!(run.equal_within(0.0, 2).rewrites, 1, "{text}");
                assert_eq!(run.after.to_string().contains("reshape(%m)"), is_reshaped, "{}", run.after);
            }
        }
    }

    #[test]
    fn fires_in_front_of_another_reshape_if_the_operand_is_constant() {
        let text = |mask: &str| {
            format!(
                "graph g(%x: f32[4, n], %m: f32[1, 4, 1]) -> (%y) {{ %c = constant() value=f32[1, 4, 1] {{1, 2, 3, 4}}
                %1 = reshape(%x) shape=[1, 4, n] %2 = mul(%1, {mask}) %y = reshape(%2) shape=[2, 2, n] }}"
            )
        };
        assert_snapshot!(run_rule(SinkReshape, &text("%c")).equal_within(0.0, 2).after, @"
        graph g(%x: f32[4, n], %m: f32[1, 4, 1]) -> (%y) {
          %c = constant() value=f32[1, 4, 1] {1.0, 2.0, 3.0, 4.0}
          %y.1 = reshape(%c) shape=[4, 1] : f32[4, 1]
          %y.2 = mul(%x, %y.1) : f32[4, n]
          %y = reshape(%y.2) shape=[2, 2, n] : f32[2, 2, n]
        }
        ");
        assert_eq!(run_rule(SinkReshape, &text("%m")).rewrites, 0);
    }

    #[test]
    fn refuses_other_readers() {
        let text = |outputs: &str| {
            format!(
                "graph g(%x: f32[4, n], %m: f32[1, 4, 1]) -> ({outputs}) {{ %1 = reshape(%x) shape=[1, 4, n]
                %2 = mul(%1, %m) %y = reshape(%2) shape=[4, n] }}"
            )
        };
        for (outputs, name) in [("%y, %1", "1"), ("%y, %2", "2")] {
            let reason = format!("output of `{name}` also read by `an output of the graph`");
            assert_eq!(run_rule(SinkReshape, &text(outputs)).reasons(), [reason]);
        }
        assert_eq!(run_rule(SinkReshape, &text("%y")).rewrites, 1);
    }

    #[test]
    fn leaves_others_alone() {
        for body in [
            // The operand makes it larger, axes are joined, cut and swapped, no reshape in front or behind, one value twice,
            // PRelu, a shape that only a node tells, a constant.
            "%c = constant() value=f32[3] {1, 2, 3} %1 = reshape(%x) shape=[1, 4, n, 1] %2 = add(%1, %c) %y = reshape(%2) shape=[(12*n)]",
            "%c = constant() value=f32[2, 1, 1, 1] {1, 2} %1 = reshape(%x) shape=[1, 4, n] %2 = add(%1, %c) %y = reshape(%2) shape=[(8*n)]",
            "%1 = reshape(%s) shape=[3] %2 = prelu(%t, %1) %y = reshape(%2) shape=[1, 3]",
            "%1 = reshape(%s) shape=[3] %2 = prelu(%1, %t) %y = reshape(%2) shape=[1, 3]",
            "%i = nonzero(%x) %j = cast(%i) to=f32 %k = nonzero(%i) %u = shape(%i) start=1 %v = shape(%k) start=0
                %d = constant() value=i64[2] {1, 2} %e = concat(%d, %u) axis=0 %c = constant() value=f32[1, 1, 1] {2}
                %1 = reshape(%j, %e) %2 = mul(%1, %c) %y = reshape(%2, %v)",
            "%a = constant() value=f32[2, 2] {1, 2, 3, 4} %b = constant() value=f32[2, 1, 2] {1, 2, 3, 4} %1 = reshape(%a) shape=[2, 1, 2]
                %2 = mul(%1, %b) %y = reshape(%2) shape=[4]",
            "%1 = reshape(%x) shape=[1, 4, n, 1] %2 = add(%1, %wide) %y = reshape(%2) shape=[(12*n)]",
            "%1 = reshape(%x) shape=[1, 4, n, 1] %2 = add(%1, %high) %y = reshape(%2) shape=[(8*n)]",
            "%1 = reshape(%x) shape=[(4*n)] %2 = add(%1, %m) %y = reshape(%2) shape=[4, n]",
            "%1 = reshape(%x) shape=[2, 2, n] %2 = add(%1, %m) %y = reshape(%2) shape=[4, n]",
            "%1 = reshape(%x) shape=[n, 4] %2 = add(%1, %m) %y = reshape(%2) shape=[4, n]",
            "%1 = transpose(%x) perm=[1, 0] %2 = add(%1, %m) %y = reshape(%2) shape=[4, n]",
            "%1 = reshape(%x) shape=[1, 4, n] %2 = add(%1, %m) %y = transpose(%2) perm=[1, 0, 2]",
            "%1 = reshape(%x) shape=[1, 4, n] %2 = mul(%1, %1) %y = reshape(%2) shape=[4, n]",
        ] {
            let inputs = "%x: f32[4, n], %wide: f32[4, 1, 3], %high: f32[2, 4, 1, 1], %m: f32[1], %s: f32[1, 3], %t: f32[3]";
            let text = format!("graph g({inputs}) -> (%y) {{ {body} }}");
            assert_eq!(run_rule(SinkReshape, &text).rewrites, 0, "{body}");
        }
    }
}
