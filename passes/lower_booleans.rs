//! Moves booleans as integers, where the target's layers that move elements take none.
//!
//! ```text
//! %y = reshape(%mask) shape=[n * 4] : bool[n * 4]
//! ```
//! becomes
//! ```text
//! %1 = cast(%mask) to=i32 : i32[n, 4]
//! %2 = reshape(%1) shape=[n * 4] : i32[n * 4]
//! %y = cast(%2) to=bool : bool[n * 4]
//! ```
//!
//! Fires on operators that move, repeat, join or choose booleans. What was an integer before it became a boolean is taken
//! from there: whether it is zero is the same before and after a move.
//!
//! Operands of logic that broadcast from a lower rank get theirs beforehand, as emission would reshape them.
//!
//! Refuses nothing.
//!
//! Order: none.
//!
//! Numerics: exact.

use trt_fuse_ir::op::{Cast, ScatterReduction};
use trt_fuse_ir::{DType, Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerBooleans;

impl Rule for LowerBooleans {
    fn name(&self) -> &'static str {
        "lower_booleans"
    }

    fn roots(&self) -> &'static [OpKind] {
        use OpKind::*;
        &[
            Cast,
            Binary,
            Where,
            Reshape,
            Flatten,
            Squeeze,
            Unsqueeze,
            Transpose,
            Expand,
            Concat,
            Split,
            Slice,
            Roll,
            Pad,
            Tile,
            DepthToSpace,
            Trilu,
            Gather,
            GatherElements,
            GatherNd,
            ScatterElements,
            ScatterNd,
            OneHot,
            ReverseSequence,
        ]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let op = graph.op(root).filter(|_| !context.capabilities.moves_booleans).ok_or(Miss::NoMatch)?;
        match op {
            Op::Cast(_) => between_moves(graph, root).ok_or(Miss::NoMatch),
            Op::Binary(_) => aligned(graph, root),
            _ if graph.dtype(root.into()) == DType::Bool => moved(graph, root, op.clone()),
            Op::Where => aligned(graph, root),
            _ => Err(Miss::NoMatch),
        }
    }
}

/// The same on integers. The condition of a choice stays as it is.
fn moved(graph: &Graph, root: NodeId, op: Op) -> Result<Patch, Miss> {
    let outputs = graph.node(root).ok_or(Miss::NoMatch)?.outputs.len();
    let first = usize::from(matches!(op, Op::Where));
    // What is added up or compared must be 0 or 1.
    let is_move = match &op {
        Op::ScatterElements(op) => op.reduction == ScatterReduction::None,
        Op::ScatterNd(op) => op.reduction == ScatterReduction::None,
        _ => true,
    };
    let mut f = Formula::new("lower_booleans", graph, root);
    let mut inputs: Vec<Option<ValueRef>> = graph.node_inputs(root).to_vec();
    let is_boolean = |input: &&mut ValueRef| graph.dtype(**input) == DType::Bool;
    // Several are of one type.
    let is_one = inputs.iter_mut().skip(first).flatten().filter(is_boolean).count() == 1;
    for input in inputs.iter_mut().skip(first).flatten().filter(is_boolean) {
        let integer = integer_before(graph, *input).filter(|_| is_move);
        *input = match integer.filter(|integer| is_one || graph.dtype(*integer) == DType::I32) {
            Some(integer) => integer,
            None => f.cast(*input, DType::I32),
        };
    }
    let moved = f.many(op, &inputs, outputs);
    let moved: Vec<ValueRef> = moved.into_iter().map(|value| f.cast(value, DType::Bool)).collect();
    Ok(f.results(&moved))
}

/// What a boolean is the nonzero places of, if that is an i32 or an i64.
fn integer_before(graph: &Graph, value: ValueRef) -> Option<ValueRef> {
    let Op::Cast(Cast { to: DType::Bool, .. }) = graph.op(value.node)? else { return None };
    graph.input(value.node, 0).filter(|integer| matches!(graph.dtype(*integer), DType::I32 | DType::I64))
}

/// A boolean that was 0 or 1 before, and is again.
fn between_moves(graph: &Graph, root: NodeId) -> Option<Patch> {
    let Op::Cast(Cast { to: DType::I32, .. }) = graph.op(root)? else { return None };
    let boolean = graph.input(root, 0)?;
    let integer = integer_before(graph, boolean).filter(|integer| graph.dtype(*integer) == DType::I32);
    let integer = integer.filter(|integer| is_bit(graph, *integer, MOST_MOVES))?;
    let mut patch = Patch::new("lower_booleans", root);
    patch.replace(root.into(), integer).absorb([root]);
    Some(patch)
}

/// Moves that are looked through; each begins with a cast of its own, so that two are enough.
const MOST_MOVES: usize = 2;

/// Whether an integer is 0 or 1, as it comes from a boolean, moved or not.
fn is_bit(graph: &Graph, value: ValueRef, moves: usize) -> bool {
    let input = |slot: usize| graph.input(value.node, slot);
    let is_bit = |value: ValueRef| moves > 0 && is_bit(graph, value, moves - 1);
    match graph.op(value.node) {
        Some(Op::Cast(_)) => input(0).is_some_and(|from| graph.dtype(from) == DType::Bool),
        Some(Op::Concat(_)) => graph.node_inputs(value.node).iter().flatten().all(|part| is_bit(*part)),
        Some(
            Op::Reshape(_)
            | Op::Flatten(_)
            | Op::Squeeze(_)
            | Op::Unsqueeze(_)
            | Op::Transpose(_)
            | Op::Expand(_)
            | Op::Split(_)
            | Op::Slice(_)
            | Op::Tile(_)
            | Op::Gather(_),
        ) => input(0).is_some_and(is_bit),
        _ => false,
    }
}

/// Logic, or a choice, whose booleans have the rank of the result.
fn aligned(graph: &Graph, root: NodeId) -> Result<Patch, Miss> {
    let op = graph.op(root).cloned().ok_or(Miss::NoMatch)?;
    let rank = |value: ValueRef| graph.info(value).and_then(|info| info.rank());
    let wanted = rank(root.into()).ok_or(Miss::NoMatch)?;
    let is_bool = |value: &ValueRef| graph.dtype(*value) == DType::Bool;
    let mut f = Formula::new("lower_booleans", graph, root);
    let mut inputs = graph.node_inputs(root).to_vec();
    let mut fires = false;
    for input in inputs.iter_mut().flatten().filter(|input| is_bool(input)) {
        let own = rank(*input).ok_or(Miss::NoMatch)?;
        if own < wanted {
            let axes: Vec<i64> = (0..(wanted - own) as i64).collect();
            *input = f.unsqueeze(*input, &axes);
            fires = true;
        }
    }
    if !fires {
        return Err(Miss::NoMatch);
    }
    let y = f.many(op, &inputs, 1);
    Ok(f.results(&y))
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::eval::eval_graph;
    use trt_fuse_ir::{Capabilities, Tensor};

    use super::*;
    use crate::testing::{random_inputs, run_for};

    /// The graph after, which gives what it gave before.
    fn lowered(text: &str) -> Graph {
        let before: Graph = text.parse().unwrap();
        let target = Capabilities::tensorrt((8, 5, 3));
        let after = run_for(LowerBooleans, &before, &target);
        let inputs = random_inputs(&before, 3, 1);
        assert_eq!(eval_graph(&before, &inputs).unwrap(), eval_graph(&after, &inputs).unwrap());
        assert_eq!(run_for(LowerBooleans, &after, &target).to_string(), after.to_string());
        assert_eq!(run_for(LowerBooleans, &before, &Capabilities::default()).to_string(), before.to_string());
        after
    }

    #[test]
    fn fires_on_moves_one_after_the_other() {
        insta::assert_snapshot!(lowered("graph g(%x: bool[n, 4], %i: i64[2]) -> (%z) {
            %y = transpose(%x) perm=[1, 0]
            %z = gather(%y, %i) axis=0 }"), @"
            graph g(%x: bool[n, 4], %i: i64[2]) -> (%z) {
              %y.1 = cast(%x) to=i32 saturate=true : i32[n, 4]
              %y.2 = transpose(%y.1) perm=[1, 0] : i32[4, n]
              %z.2 = gather(%y.2, %i) axis=0 : i32[2, n]
              %z = cast(%z.2) to=bool saturate=true : bool[2, n]
            }
            ");
    }

    #[test]
    fn moves_the_integers_that_a_mask_was() {
        insta::assert_snapshot!(lowered("graph g(%m: i64[n, 4]) -> (%y) {
            %b = cast(%m) to=bool %y = reshape(%b) shape=[n, 1, 1, 4] }"), @"
            graph g(%m: i64[n, 4]) -> (%y) {
              %y.1 = reshape(%m) shape=[n, 1, 1, 4] : i64[n, 1, 1, 4]
              %y = cast(%y.1) to=bool saturate=true : bool[n, 1, 1, 4]
            }
            ");
        // Both of one type.
        let joined = lowered(
            "graph g(%m: i64[4], %k: i32[4]) -> (%y) {
            %a = cast(%m) to=bool %b = cast(%k) to=bool %y = concat(%a, %b) axis=0 }",
        );
        assert!(joined.to_string().contains("concat(%y.1, %k) axis=0 : i32[8]"), "{joined}");
    }

    #[test]
    fn numbers_other_than_bits_stay_booleans_in_between() {
        let text = "graph g(%i: i32[4]) -> (%k) { %b = cast(%i) to=bool %k = cast(%b) to=i32 }";
        assert_eq!(lowered(text).live().len(), text.parse::<Graph>().unwrap().live().len());
    }

    #[test]
    fn what_is_compared_is_a_bit() {
        let before: Graph = "graph g(%x: i32[1], %u: bool[1]) -> (%y) { %i = constant() value=i64[1] {0}
            %b = cast(%x) to=bool %y = scatter_elements(%b, %i, %u) axis=0 reduction=max }"
            .parse()
            .unwrap();
        let after = run_for(LowerBooleans, &before, &Capabilities::tensorrt((8, 5, 3)));
        let inputs = [Tensor::vector(vec![-3_i32]), Tensor::vector(vec![false])];
        assert_eq!(eval_graph(&before, &inputs).unwrap(), eval_graph(&after, &inputs).unwrap());
    }

    #[test]
    fn fires_on_choices_between_booleans() {
        insta::assert_snapshot!(lowered("graph g(%c: bool[4], %a: bool[4], %b: bool[1]) -> (%y) {
            %y = where(%c, %a, %b) }"), @"
            graph g(%c: bool[4], %a: bool[4], %b: bool[1]) -> (%y) {
              %y.1 = cast(%a) to=i32 saturate=true : i32[4]
              %y.2 = cast(%b) to=i32 saturate=true : i32[1]
              %y.3 = where(%c, %y.1, %y.2) : i32[4]
              %y = cast(%y.3) to=bool saturate=true : bool[4]
            }
            ");
    }

    #[test]
    fn fires_on_logic_of_other_ranks() {
        insta::assert_snapshot!(lowered("graph g(%a: bool[2, 4], %b: bool[4], %x: f32[2, 4], %y: f32[]) -> (%z) {
            %c = and(%a, %b)
            %z = where(%c, %x, %y) }"), @"
            graph g(%a: bool[2, 4], %b: bool[4], %x: f32[2, 4], %y: f32[]) -> (%z) {
              %c.1.1 = cast(%b) to=i32 saturate=true : i32[4]
              %c.1.2 = unsqueeze(%c.1.1) axes=[0] : i32[1, 4]
              %c.1 = cast(%c.1.2) to=bool saturate=true : bool[1, 4]
              %c = and(%a, %c.1) : bool[2, 4]
              %z = where(%c, %x, %y) : f32[2, 4]
            }
            ");
    }

    #[test]
    fn fires_on_several_outputs() {
        insta::assert_snapshot!(lowered("graph g(%x: bool[4]) -> (%a, %b) {
            %a, %b = split(%x) axis=0 sizes=[1, 3] }"), @"
            graph g(%x: bool[4]) -> (%a, %b) {
              %a.1 = cast(%x) to=i32 saturate=true : i32[4]
              %a.2, %a.3 = split(%a.1) axis=0 sizes=[1, 3] : i32[1], i32[3]
              %a = cast(%a.2) to=bool saturate=true : bool[1]
              %b = cast(%a.3) to=bool saturate=true : bool[3]
            }
            ");
    }

    #[test]
    fn leaves_numbers_and_comparisons_alone() {
        let text = "graph g(%x: f32[2, 4], %y: f32[4]) -> (%z) { %a = greater(%x, %y) %z = not(%a) }";
        assert_eq!(lowered(text).to_string(), text.parse::<Graph>().unwrap().to_string());
    }
}
