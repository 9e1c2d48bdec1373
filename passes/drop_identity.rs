//! Drops operations that return their input.
//!
//! ```text
//! %0 = constant() value=f32[] {0}
//! %a = identity(%x)
//! %b = add(%a, %0)               %y = relu(%x)
//! %y = relu(%b)
//! ```
//!
//! Fires on Identity; Cast to the same dtype; Concat and Split of one part; Transpose that keeps the order; Pad by
//! nothing; Slice, Expand, Tile, Reshape, Squeeze, Unsqueeze, Flatten whose output's shape equals the input's,
//! dimension by dimension as expressions (a slice only with steps of 1, or of an axis of one element); Reduce by sum, mean, maximum, minimum or
//! product over axes of size 1 that stay, or over no axis; Resize by sizes or scales that change none; pooling with a
//! window of one element; `x + 0`, `x - 0`, `x * 1`, `x / 1`, `x ^ 1`, `x and true`, `x or false`, `x xor false`; Where
//! with a condition that is the same everywhere, or with two equal branches. An operand or branch that the other one
//! broadcasts is expanded.
//!
//! Refuses when
//! - the constant broadcasts the other operand, to sizes that no input's shape tells;
//! - the branch that is always taken is broadcast by the other, to such sizes.
//!
//! Order: none needed. After `fold_constants` more conditions and operands are constant.
//!
//! Numerics: bit-exact but for one value: `-0.0 + 0.0` is `0.0`, and becomes `-0.0`. NaN stays NaN.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{
    BinaryOp, CoordinateMode, Expand, Pad, Pool, PoolKind, Reduce, ReduceKind, Resize, Slice, UnaryOp,
};
use trt_fuse_ir::{DType, Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::pattern::same_shape;
use crate::{Miss, Rule, RuleContext};

/// Drops operations that return their input.
#[derive(Debug, Default)]
pub(crate) struct DropIdentity;

impl Rule for DropIdentity {
    fn name(&self) -> &'static str {
        "drop_identity"
    }

    fn roots(&self) -> &'static [OpKind] {
        use OpKind::*;
        &[
            Unary, Binary, Where, Cast, Concat, Split, Transpose, Pad, Slice, Expand, Tile, Reshape, Squeeze,
            Unsqueeze, Flatten, Reduce, Resize, Pool,
        ]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let node = graph.node(root).ok_or(Miss::NoMatch)?;
        if node.outputs.len() != 1 {
            return Err(Miss::NoMatch);
        }
        let (kept, broadcast) = match &node.op {
            Op::Binary(op) => {
                (other_operand(graph, root, *op).ok_or(Miss::NoMatch)?, "the constant broadcasts the other operand")
            }
            Op::Where => {
                let taken = constant_branch(graph, root).ok_or(Miss::NoMatch)?;
                (taken, "the branch that is always taken is broadcast by the other")
            }
            op => (unchanged_input(graph, root, op).ok_or(Miss::NoMatch)?, ""),
        };
        let mut patch = Patch::new(self.name(), root);
        let kept = if broadcast.is_empty() || same_shape(graph.info(kept), graph.info(root.into())) {
            kept
        } else {
            let shape = graph.info(root.into()).and_then(|info| info.shape.clone());
            let shape = shape.filter(|shape| context.symbols.tell(shape));
            let shape = shape.ok_or(Miss::Blocked { reason: broadcast, at: root })?;
            patch.add(Expand { shape: Some(shape) }, &[Some(kept)])
        };
        patch.replace(root.into(), kept).absorb([root]);
        Ok(patch)
    }
}

/// The first input, if an operator of one output returns it.
fn unchanged_input(graph: &Graph, root: NodeId, op: &Op) -> Option<ValueRef> {
    let x = graph.input(root, 0)?;
    let keeps_shape = || same_shape(graph.info(x), graph.info(root.into()));
    let unchanged = match op {
        Op::Unary(UnaryOp::Identity) | Op::Split(_) => true,
        Op::Cast(op) => op.to != DType::Unknown && graph.dtype(x) == op.to,
        Op::Concat(_) => graph.node_inputs(root).len() == 1,
        Op::Transpose(op) => op.perm.iter().zip(0..).all(|(from, to)| *from == to),
        Op::Pad(op) => pads_nothing(graph, root, op),
        Op::Slice(op) => takes_all(graph, x, op) && keeps_shape(),
        Op::Reshape(_) | Op::Squeeze(_) | Op::Unsqueeze(_) | Op::Flatten(_) | Op::Expand(_) | Op::Tile(_) => {
            keeps_shape()
        }
        Op::Reduce(op) => reduces_nothing(op) && keeps_shape(),
        Op::Resize(op) => resizes_by_one(graph, root, op) && keeps_shape(),
        Op::Pool(op) => pools_nothing(op) && keeps_shape(),
        _ => false,
    };
    unchanged.then_some(x)
}

/// Whether as many elements as there are can only be all in their order: at steps of 1, or a single one.
fn takes_all(graph: &Graph, x: ValueRef, op: &Slice) -> bool {
    let shape = graph.info(x).and_then(|info| info.shape.as_ref());
    let (Some(shape), Some(axes), Some(steps)) = (shape, &op.axes, &op.steps) else { return false };
    let size = |axis: &i64| shape.get(resolve_axis(*axis, shape.len()).ok()?);
    axes.iter().zip(steps).all(|(axis, step)| *step == 1 || size(axis).is_some_and(|size| size.is(1)))
}

fn pads_nothing(graph: &Graph, root: NodeId, op: &Pad) -> bool {
    let input = || graph.info(graph.input(root, 1)?)?.known_ints();
    let pads = op.pads.as_ref().map(|pads| pads.to_vec()).or_else(input);
    pads.is_some_and(|pads| pads.iter().all(|pad| *pad == 0))
}

/// Whether reducing axes of size 1 returns the data; the other kinds apply something to each element.
fn reduces_nothing(op: &Reduce) -> bool {
    use ReduceKind::*;
    matches!(op.kind, Sum | Mean | Max | Min | Prod)
}

fn resizes_by_one(graph: &Graph, root: NodeId, op: &Resize) -> bool {
    let in_place = !matches!(op.coordinates, CoordinateMode::TfCropAndResize | CoordinateMode::TfHalfPixelForNn);
    let scales = graph.input(root, 2);
    // Scales just off 1 may round to the same size and still move elements.
    let by_one = match scales.and_then(|scales| graph.info(scales)?.as_constant()) {
        Some(scales) if scales.numel() > 0 => scales.uniform_f64() == Some(1.0),
        Some(_) => graph.input(root, 3).is_some(),
        None => scales.is_none(),
    };
    in_place && by_one
}

fn pools_nothing(op: &Pool) -> bool {
    let unpadded = op.padding.explicit().is_some_and(|(before, after)| before.iter().chain(after).all(|pad| *pad == 0));
    let one = |sizes: &[i64]| sizes.iter().all(|size| *size == 1);
    let kept = matches!(op.kind, PoolKind::Max | PoolKind::Average | PoolKind::AverageIncludePad);
    kept && unpadded && one(&op.kernel) && one(&op.strides)
}

/// The operand that an elementwise operator returns, or broadcasts, because the other one is neutral.
fn other_operand(graph: &Graph, root: NodeId, op: BinaryOp) -> Option<ValueRef> {
    use BinaryOp::*;
    let (neutral, either_side) = match op {
        Add | Or | Xor | BitwiseOr | BitwiseXor => (0.0, true),
        Sub => (0.0, false),
        Mul | And => (1.0, true),
        Div | Pow => (1.0, false),
        _ => return None,
    };
    let (a, b) = (graph.input(root, 0)?, graph.input(root, 1)?);
    let is_neutral = |value| {
        let constant = graph.info(value).and_then(|info| info.as_constant());
        constant.and_then(|tensor| tensor.uniform_f64()) == Some(neutral)
    };
    if is_neutral(b) { Some(a) } else { (either_side && is_neutral(a)).then_some(b) }
}

/// The branch that a Where returns, or broadcasts, everywhere.
fn constant_branch(graph: &Graph, root: NodeId) -> Option<ValueRef> {
    let (condition, yes, no) = (graph.input(root, 0)?, graph.input(root, 1)?, graph.input(root, 2)?);
    if yes == no {
        return Some(yes);
    }
    let info = graph.info(condition)?;
    let uniform = info.as_constant().and_then(|tensor| tensor.uniform_f64());
    // A comparison of dimensions is known without being constant.
    let known = || {
        let elements = info.known_ints()?;
        let first = *elements.first()?;
        elements.iter().all(|element| *element == first).then_some(if first == 0 { 0.0 } else { 1.0 })
    };
    Some(if uniform.or_else(known)? == 0.0 { no } else { yes })
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use trt_fuse_ir::OpKind;

    use super::DropIdentity;
    use crate::testing::run_rule;

    /// Asserts that `%y`, defined by `line` from `%x`, is dropped.
    #[track_caller]
    fn dropped(input: &str, line: &str) {
        let text = format!("graph g({input}) -> (%y) {{ {line} }}");
        let run = run_rule(DropIdentity, &text);
        let left: Vec<OpKind> = run
            .after
            .node_ids()
            .filter_map(|id| Some(run.after.op(id)?.kind()))
            .filter(|kind| *kind != OpKind::Input)
            .collect();
        assert!(left.is_empty(), "{left:?} left of {text}");
        run.equal_within(0.0, 3);
    }

    /// Asserts that nothing is dropped, and returns the reason.
    #[track_caller]
    fn kept(input: &str, line: &str) -> Vec<String> {
        let run = run_rule(DropIdentity, &format!("graph g({input}) -> (%y) {{ {line} }}"));
        assert_eq!(run.rewrites, 0);
        run.reasons().into_iter().map(String::from).collect()
    }

    #[test]
    fn a_chain_is_dropped_and_the_output_keeps_its_name() {
        let text = "
            graph g(%x: f32[n, 4]) -> (%y) {
              %a = relu(%x)
              %zero = constant() value=f32[] {0}
              %b = identity(%a)
              %c = add(%b, %zero)
              %d = transpose(%c) perm=[0, 1]
              %y = reshape(%d) shape=[n, 4]
            }";
        let run = run_rule(DropIdentity, text);
        assert_eq!(run.rewrites, 4);
        assert_snapshot!(run.after, @r#"
        graph g(%x: f32[n, 4]) -> (%a as "y") {
          %a = relu(%x) : f32[n, 4]
        }
        "#);
        run.equal_within(0.0, 3);
    }

    #[test]
    fn what_reads_the_last_of_a_chain_stays_connected() {
        let run = run_rule(
            DropIdentity,
            "graph g(%x: f32[n, 2]) -> (%y) {
                %one = constant() value=f32[] {1} %c = cast(%x) to=f32 %m = mul(%c, %one) %y = relu(%m) }",
        );
        assert_snapshot!(run.equal_within(0.0, 2).after, @r"
        graph g(%x: f32[n, 2]) -> (%y) {
          %y = relu(%x) : f32[n, 2]
        }
        ");
        assert_eq!(run.rewrites, 2);
    }

    #[test]
    fn an_input_may_become_an_output() {
        let run = run_rule(DropIdentity, "graph g(%x: f32[2]) -> (%y, %z) { %y = identity(%x) %z = identity(%x) }");
        assert_snapshot!(run.after, @r#"
        graph g(%x: f32[2]) -> (%x as "y", %x as "z") {
        }
        "#);
        run.equal_within(0.0, 1);
    }

    #[test]
    fn movement_that_moves_nothing() {
        dropped("%x: f32[n, 4]", "%y = cast(%x) to=f32");
        dropped("%x: f32[n, 4]", "%y = concat(%x) axis=1");
        dropped("%x: f32[n, 4]", "%y = split(%x) axis=1 sizes=[4]");
        dropped("%x: f32[n, 4]", "%y = slice(%x) axes=[1] starts=[0] ends=[4] steps=[1]");
        dropped("%x: f32[1, n]", "%y = slice(%x) axes=[0, 1] starts=[0, 0] ends=[-1, n] steps=[-1, 1]");
        dropped("%x: f32[n, 4]", "%y = expand(%x) shape=[n, 4]");
        dropped("%x: f32[n, 4]", "%r = constant() value=i64[2] {1, 1} %y = tile(%x, %r)");
        dropped("%x: f32[n, 4]", "%y = flatten(%x) axis=1");
        dropped("%x: f32[n, 4]", "%y = pad(%x) mode=constant pads=[0, 0, 0, 0]");
        dropped("%x: f32[n, 4]", "%p = constant() value=i64[4] {0, 0, 0, 0} %y = pad(%x, %p) mode=reflect");
    }

    #[test]
    fn movement_that_moves_something() {
        for line in [
            "%y = cast(%x) to=f16",
            "%y = concat(%x, %x) axis=1",
            "%y = transpose(%x) perm=[1, 0]",
            "%y = slice(%x) axes=[1] starts=[3] ends=[-1] steps=[-1]",
            "%y = pad(%x) mode=constant pads=[0, 1, 0, -1]",
            "%y = reshape(%x) shape=[4, n]",
        ] {
            assert_eq!(kept("%x: f32[n, 4]", line), [""; 0], "{line}");
        }
    }

    #[test]
    fn reductions_of_nothing() {
        dropped("%x: f32[n, 1]", "%y = reduce(%x) kind=mean axes=[1] keep_dims=true");
        dropped("%x: f32[n, 4]", "%y = reduce(%x) kind=sum keep_dims=true noop_if_empty=true");
        assert_eq!(kept("%x: f32[n, 1]", "%y = reduce(%x) kind=l1 axes=[1] keep_dims=true"), [""; 0]);
        assert_eq!(kept("%x: f32[n, 1]", "%y = reduce(%x) kind=sum axes=[1]"), [""; 0]);
    }

    #[test]
    fn pooling_of_single_elements() {
        let pool = "%y = pool(%x) kernel=[1, 1] dilations=[1, 1]";
        dropped("%x: f32[n, 2, 4, 4]", &format!("{pool} strides=[1, 1] kind=max"));
        assert_eq!(kept("%x: f32[n, 2, 4, 4]", &format!("{pool} strides=[2, 1] kind=max")), [""; 0]);
        assert_eq!(kept("%x: f32[n, 2, 4, 4]", &format!("{pool} strides=[1, 1] kind=lp p=2")), [""; 0]);
        // Windows of three elements of a padded axis are as many as its elements.
        let same = "%y = pool(%x) kernel=[1, 3] dilations=[1, 1] strides=[1, 1] padding=[0, 1, 0, 1] kind=max";
        assert_eq!(kept("%x: f32[n, 2, 4, 4]", same), [""; 0]);
    }

    #[test]
    fn resizing_to_the_same_size() {
        let resize =
            "mode=linear coordinates=half_pixel nearest=floor cubic_coeff=-0.75 extrapolation=0 aspect=stretch";
        let by_scales = |scale: &str| {
            format!("%s = constant() value=f32[4] {{1, 1, {scale}, {scale}}} %y = resize(%x, _, %s) {resize}")
        };
        dropped("%x: f32[n, 2, 4, 4]", &by_scales("1"));
        assert_eq!(kept("%x: f32[n, 2, 4, 4]", &by_scales("1.1")), [""; 0]);
        // Coordinates half an element away from the others'.
        let moved = by_scales("1").replace("half_pixel", "tf_half_pixel_for_nn");
        assert_eq!(kept("%x: f32[n, 2, 4, 4]", &moved), [""; 0]);
        let sizes = "%s = constant() value=i64[4] {2, 2, 4, 4}";
        dropped("%x: f32[2, 2, 4, 4]", &format!("{sizes} %y = resize(%x, _, _, %s) {resize}"));
    }

    #[test]
    fn neutral_operands() {
        for line in [
            "%c = constant() value=f32[1, 4] splat 0 %y = add(%c, %x)",
            "%c = constant() value=f32[4] {0, 0, 0, 0} %y = sub(%x, %c)",
            "%c = constant() value=f32[] {1} %y = mul(%x, %c)",
            "%c = constant() value=f32[1] {1} %y = div(%x, %c)",
            "%c = constant() value=i64[] {1} %y = pow(%x, %c)",
        ] {
            dropped("%x: f32[n, 4]", line);
        }
        dropped("%x: f32[n]", "%c = constant() value=f32[1] {1} %y = mul(%x, %c)");
        dropped("%x: i32[n]", "%c = constant() value=i32[] {0} %y = add(%x, %c)");
        dropped("%x: bool[n]", "%c = constant() value=bool[] {1} %y = and(%x, %c)");
        dropped("%x: bool[n]", "%c = constant() value=bool[] {0} %y = xor(%c, %x)");
    }

    #[test]
    fn operands_that_are_not_neutral_where_they_stand() {
        for line in [
            "%c = constant() value=f32[] {0} %y = sub(%c, %x)",
            "%c = constant() value=f32[] {1} %y = div(%c, %x)",
            "%c = constant() value=f32[] {1} %y = pow(%c, %x)",
            "%c = constant() value=f32[4] {1, 1, 2, 1} %y = mul(%x, %c)",
        ] {
            assert_eq!(kept("%x: f32[n, 4]", line), [""; 0], "{line}");
        }
    }

    #[test]
    fn what_is_broadcast_is_expanded() {
        for (input, line) in [
            ("%x: f32[1, 4]", "%c = constant() value=f32[3, 1] splat 0 %y = add(%x, %c)"),
            ("%x: f32[n]", "%c = constant() value=f32[1, 1] {1} %y = mul(%x, %c)"),
            ("%x: bool[n, 1, 3]", "%c = constant() value=bool[2, 1] splat 1 %y = and(%c, %x)"),
            (
                "%x: f32[n]",
                "%c = constant() value=bool[] {1} %o = constant() value=f32[3, 1] splat 7 %y = where(%c, %x, %o)",
            ),
        ] {
            let run = run_rule(DropIdentity, &format!("graph g({input}) -> (%y) {{ {line} }}"));
            assert_eq!(run.equal_within(0.0, 3).rewrites, 1, "{line}");
            assert!(run.after.to_string().contains("%y = expand(%x) shape=["), "{}", run.after);
        }
    }

    #[test]
    fn refuses_a_constant_that_broadcasts_to_sizes_that_the_data_tell() {
        let line = "%k = nonzero(%x) %c = constant() value=i64[3, 1] splat 0 %y = add(%k, %c)";
        assert_eq!(kept("%x: f32[4]", line), ["the constant broadcasts the other operand"]);
    }

    #[test]
    fn a_branch_that_is_always_taken() {
        dropped(
            "%x: f32[n, 4]",
            "%c = constant() value=bool[] {1} %o = constant() value=f32[] {7} %y = where(%c, %x, %o)",
        );
        dropped(
            "%x: f32[n, 4]",
            "%c = constant() value=bool[4] splat 0 %o = constant() value=f32[] {7} %y = where(%c, %o, %x)",
        );
        dropped("%x: f32[4], %c: bool[4]", "%y = where(%c, %x, %x)");
        let mixed = "%c = constant() value=bool[4] {0, 1, 1, 1} %o = constant() value=f32[] {7} %y = where(%c, %o, %x)";
        assert_eq!(kept("%x: f32[n, 4]", mixed), [""; 0]);
    }

    #[test]
    fn refuses_a_branch_that_is_broadcast_to_sizes_that_the_data_tell() {
        let line =
            "%k = nonzero(%x) %c = constant() value=bool[] {1} %o = constant() value=i64[] {7} %y = where(%c, %o, %k)";
        assert_eq!(kept("%x: f32[4]", line), ["the branch that is always taken is broadcast by the other"]);
    }
}
