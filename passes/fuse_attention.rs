//! Finds scaled dot-product attention.
//!
//! ```text
//! %1 = matmul(%q, %k) transpose_b=true
//! %2 = mul(%1, 0.125)
//! %3 = add(%2, %mask)
//! %4 = softmax(%3) axis=-1
//! %y = matmul(%4, %v)
//! ```
//! becomes
//! ```text
//! %y = attention(%q, %k, %v, %mask) scale=0.125 causal=none scores=product
//! ```
//! (Vaswani et al., "Attention Is All You Need", 2017; ONNX `Attention`.)
//!
//! Fires on three and four dimensions; with the scale on the scores, the queries, the keys or both; with a cap on the
//! scores; with any number of additive masks and with a boolean one that selects scores or negative infinity, or the
//! lowest number of f32 or bf16, which is the same as adding it; with one that selects scores or a number below all
//! scores (-1e30; of f16 the lowest), if it is constant and leaves each query a key; with a constant mask that hides
//! what comes later, which becomes the causal flag; with a constant mask of an image's windows, in five dimensions (see
//! `windows`); with the softmax of a half type in f32; with NaN replaced by 0 where all keys are hidden. Heads of keys
//! and values that are repeated for several heads of queries lose their repetition.
//!
//! Refuses: "the softmax is not over the keys"; "the mask makes the scores larger"; "a query whose keys are all hidden by a
//! finite number", which a half type or another number than the lowest does not tell from what is added to it, and which
//! another mask may still change; "the number in place of hidden scores may be a score"; "batch or heads of queries, keys
//! and values are not known to be equal"; and a part of the formula with another reader.
//!
//! Order: after the reshapes and expansions are in their canonical forms; before anything takes a scale, a mask or a bias
//! into a product.
//!
//! Numerics: the scale moves to the queries; 1e-5 in f32. Scores are taken to be finite: an infinite one plus the negative
//! infinity of a mask is NaN, and a hidden one is not. Where a finite number takes the place of scores, these must be
//! finite and smaller than what it absorbs (1e31 of the lowest f32), and some score that a query sees larger than it by 104.

mod heads;
mod scores;
mod windows;

use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::{Attention, Cast, CausalKind, ScoreStage, Softmax, Squeeze, UnaryOp, Unsqueeze};
use trt_fuse_ir::{DType, Graph, Ints, NodeId, Op, OpKind, Patch, ValueRef};

use self::heads::Heads;
use self::scores::{Mask, Scores};
use crate::layout::Step;
use crate::pass::{Miss, Rule, RuleContext};
use crate::pattern::{plain_matmul, same_shape};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseAttention;

impl Rule for FuseAttention {
    fn name(&self) -> &'static str {
        "fuse_attention"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::MatMul]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let product = plain_matmul(graph, root).filter(|op| !op.transpose_a).ok_or(Miss::NoMatch)?;
        let weights = Weights::of(graph, graph.input(root, 0).ok_or(Miss::NoMatch)?).ok_or(Miss::NoMatch)?;
        let scores = Scores::of(graph, weights.scores)?;
        let value = Operand { value: graph.input(root, 1).ok_or(Miss::NoMatch)?, transposed: product.transpose_b };
        let rank = rank_of(graph, weights.scores).ok_or(Miss::NoMatch)?;
        if !matches!(rank, 3 | 4) {
            return Err(Miss::NoMatch);
        }
        if weights.axis != -1 && weights.axis != rank as i64 - 1 {
            return Err(Miss::Blocked { reason: "the softmax is not over the keys", at: weights.softmax });
        }
        let heads = Heads::of(graph, [scores.query, scores.key, value], root)?;
        let taken: Vec<NodeId> = weights.nodes.iter().chain(&scores.nodes).copied().collect();
        if scores.masks().chain(heads.operands()).any(|operand| taken.contains(&operand.node)) {
            return Err(Miss::NoMatch);
        }
        let mut patch = Patch::new(self.name(), root);
        let y = match &scores.windows {
            Some(windows) => {
                let shapes = heads.matrices(graph).ok_or(Miss::NoMatch)?.map(|matrix| windows.shape(matrix));
                let shape = graph.info(root.into()).and_then(|info| info.shape.clone()).ok_or(Miss::NoMatch)?;
                if !shapes.iter().chain([&shape]).all(|shape| context.symbols.tell(shape)) {
                    return Err(Miss::NoMatch);
                }
                let [query, key, value] = heads.values(&mut patch);
                let [queries, keys, values] = shapes;
                let apart = [(query, queries), (key, keys), (value, values)]
                    .map(|(operand, shape)| Step::Reshape(shape).add(&mut patch, operand));
                let y = attention(graph, &mut patch, (&weights, &scores, apart), rank)?;
                Step::Reshape(shape).add(&mut patch, y)
            }
            None => {
                let operands = heads.values(&mut patch);
                attention(graph, &mut patch, (&weights, &scores, operands), rank)?
            }
        };
        patch.replace(root.into(), y).absorb([root]).absorb(taken);
        patch.inherit(scores.kept);
        Ok(patch)
    }
}

/// The left operand of the second product.
struct Weights {
    /// What the softmax is of.
    scores: ValueRef,
    softmax: NodeId,
    axis: i64,
    /// The type of the softmax, if not that of the values.
    dtype: Option<DType>,
    /// Whether NaN becomes 0.
    guarded: bool,
    nodes: Vec<NodeId>,
}

impl Weights {
    fn of(graph: &Graph, mut value: ValueRef) -> Option<Self> {
        let mut nodes = Vec::new();
        let guarded = match unguarded(graph, value) {
            Some((inner, test)) => {
                nodes.extend([value.node, test]);
                value = inner;
                true
            }
            None => false,
        };
        let dtype = graph.dtype(value);
        let outer = converted(graph, value);
        if outer.is_some() {
            nodes.push(value.node);
        }
        let soft = outer.unwrap_or(value);
        let Op::Softmax(Softmax { axis, log: false }) = graph.op(soft.node)? else { return None };
        nodes.push(soft.node);
        let mut scores = graph.input(soft.node, 0)?;
        let inside = graph.dtype(soft);
        if outer.is_some() {
            nodes.push(scores.node);
            scores = converted(graph, scores).filter(|inner| graph.dtype(*inner) == dtype)?;
        }
        let wide = (inside != dtype).then_some(inside);
        Some(Self { scores, softmax: soft.node, axis: *axis, dtype: wide, guarded, nodes })
    }
}

/// What a conversion between floating-point types converts.
fn converted(graph: &Graph, value: ValueRef) -> Option<ValueRef> {
    let Op::Cast(Cast { to, .. }) = graph.op(value.node)? else { return None };
    let inner = graph.input(value.node, 0)?;
    (to.is_float() && graph.dtype(inner).is_float()).then_some(inner)
}

/// The value of `where(is_nan(value), 0, value)`, and the test.
fn unguarded(graph: &Graph, value: ValueRef) -> Option<(ValueRef, NodeId)> {
    if graph.op(value.node)? != &Op::Where {
        return None;
    }
    let [test, zero, inner] = [0, 1, 2].map(|slot| graph.input(value.node, slot));
    let (test, zero, inner) = (test?, zero?, inner?);
    let is_test = matches!(graph.op(test.node)?, Op::Unary(UnaryOp::IsNan));
    let is_zero = graph.constant(zero)?.uniform_f64() == Some(0.0) && same_shape(graph.info(inner), graph.info(value));
    (is_test && is_zero && graph.input(test.node, 0) == Some(inner)).then_some((inner, test.node))
}

/// An operand of a product, with its last two axes exchanged or not.
#[derive(Debug, Clone, Copy)]
struct Operand {
    value: ValueRef,
    transposed: bool,
}

fn rank_of(graph: &Graph, value: ValueRef) -> Option<usize> {
    graph.info(value)?.rank()
}

fn attention(
    graph: &Graph,
    patch: &mut Patch,
    (weights, scores, [query, key, value]): (&Weights, &Scores, [ValueRef; 3]),
    rank: usize,
) -> Result<ValueRef, Miss> {
    let dtype = graph.dtype(weights.scores);
    let (mask, causal) = match scores.mask(graph, patch, dtype)? {
        Mask::None => (None, CausalKind::None),
        Mask::Causal => (None, CausalKind::UpperLeft),
        Mask::Value(mask) => (Some(mask), CausalKind::None),
    };
    let op = Attention {
        scale: F32(scores.scale as f32),
        softcap: scores.cap.map(|cap| F32(cap as f32)),
        causal,
        softmax_dtype: weights.dtype,
        zero_hidden: weights.guarded,
        scores: ScoreStage::Product,
    };
    if rank == 4 {
        return Ok(patch.add(op, slots([query, key, value], mask).as_slice()));
    }
    let first = || Some(Ints::from_slice(&[0]));
    let mut batched = |operand| patch.add(Unsqueeze { axes: first() }, &[Some(operand)]);
    let operands = [query, key, value].map(&mut batched);
    let mask = mask.map(|mask| if scores.mask_rank == 3 { batched(mask) } else { mask });
    let y = patch.add(op, slots(operands, mask).as_slice());
    Ok(patch.add(Squeeze { axes: first() }, &[Some(y)]))
}

fn slots(operands: [ValueRef; 3], mask: Option<ValueRef>) -> Vec<Option<ValueRef>> {
    operands.into_iter().chain(mask).map(Some).collect()
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::Tensor;

    use super::*;
    use crate::testing::{Run, run_rule};

    const REPEATED: &str = "%k5 = reshape(%k2) shape=[2, 2, 1, 5, 8] %ke = expand(%k5) shape=[2, 2, 2, 5, 8]
        %kr = reshape(%ke) shape=[2, 4, 5, 8] %v5 = reshape(%v2) shape=[2, 2, 1, 5, 6]
        %ve = expand(%v5) shape=[2, 2, 2, 5, 6] %vr = reshape(%ve) shape=[2, 4, 5, 6]";

    /// The formula over queries of 3 and keys of 5 rows, four heads each, and over these constants.
    fn run(body: &str, outputs: &str) -> Run {
        let inputs = "%q: f32[2, 4, 3, 8], %k: f32[2, 4, 5, 8], %v: f32[2, 4, 5, 6], %kt: f32[2, 4, 8, 5],
            %k2: f32[2, 2, 5, 8], %v2: f32[2, 2, 5, 6], %m: f32[2, 1, 3, 5], %flag: f32[3, 5]";
        let constants = "%s = constant() value=f32[] {0.25} %r = constant() value=f32[1] {0.5} %d = constant() value=f32[] {4.0}
            %cap = constant() value=f32[] {30.0} %zero = constant() value=f32[] {0.0} %inf = constant() value=f32[] {-inf}
            %low = constant() value=f32[] {-3.4028235e38}";
        run_rule(FuseAttention, &format!("graph g({inputs}) -> ({outputs}) {{ {constants} {body} }}"))
    }

    #[test]
    fn fires_on_a_scale_and_a_mask() {
        let body = "%1 = matmul(%q, %k) transpose_b=true %2 = mul(%1, %s) %3 = add(%2, %m) %4 = softmax(%3) axis=-1
            %y = matmul(%4, %v)";
        insta::assert_snapshot!(run(body, "%y").equal_within(1e-5, 1).after, @"
        graph g(%q: f32[2, 4, 3, 8], %k: f32[2, 4, 5, 8], %v: f32[2, 4, 5, 6], %kt: f32[2, 4, 8, 5], %k2: f32[2, 2, 5, 8], %v2: f32[2, 2, 5, 6], %m: f32[2, 1, 3, 5], %flag: f32[3, 5]) -> (%y) {
          %y = attention(%q, %k, %v, %m) scale=0.25 causal=none scores=product : f32[2, 4, 3, 6]
        }
        ");
    }

    #[test]
    fn fires_wherever_the_scale_stands() {
        for scores in [
            "%1 = matmul(%q, %kt) %3 = div(%1, %d)",
            "%a = mul(%q, %s) %3 = matmul(%a, %kt)",
            "%a = mul(%k, %s) %3 = matmul(%q, %a) transpose_b=true",
            "%a = mul(%q, %r) %b = mul(%r, %kt) %3 = matmul(%a, %b)",
            "%3 = matmul(%q, %kt)",
        ] {
            let body = format!("{scores} %4 = softmax(%3) axis=3 %y = matmul(%4, %v)");
            let run = run(&body, "%y");
            assert_eq!(run.equal_within(1e-5, 1).rewrites, 1, "{body}");
            assert!(!run.after.to_string().contains("mul("), "{}", run.after);
        }
    }

    #[test]
    fn fires_on_every_mask() {
        for masked in [
            "%3 = add(%m, %1)",
            "%a = add(%1, %m) %3 = add(%a, %flag)",
            "%keep = greater(%flag, %zero) %3 = where(%keep, %1, %inf)",
            "%keep = greater(%flag, %zero) %a = where(%keep, %1, %inf) %3 = add(%a, %m)",
            "%keep = constant() value=bool[1, 5] {true, true, false, true, false} %3 = where(%keep, %1, %low)",
        ] {
            let body = format!(
                "%1 = matmul(%q, %k) transpose_b=true {masked} %4 = softmax(%3) axis=-1
                %n = is_nan(%4) %5 = where(%n, %zero, %4) %y = matmul(%5, %v)"
            );
            assert_eq!(run(&body, "%y").equal_within(1e-5, 1).rewrites, 1, "{body}");
        }
    }

    #[test]
    fn a_triangle_becomes_the_flag() {
        for mask in [
            "%t = constant() value=f32[1, 1, 3, 3] {0.0, -inf, -inf, 0.0, 0.0, -inf, 0.0, 0.0, 0.0} %2 = add(%1, %t)",
            "%t = constant() value=bool[3, 3] {true, false, false, true, true, false, true, true, true}
                %low = constant() value=f32[] {-3.4028235e38} %2 = where(%t, %1, %low)",
        ] {
            let text = format!(
                "graph g(%q: f32[n, 2, 3, 4]) -> (%y) {{ %1 = matmul(%q, %q) transpose_b=true {mask}
                %3 = softmax(%2) axis=-1 %y = matmul(%3, %q) }}"
            );
            let run = run_rule(FuseAttention, &text);
            assert_eq!(run.equal_within(1e-5, 2).rewrites, 1, "{text}");
            assert!(run.after.to_string().contains("causal=upper_left"), "{}", run.after);
        }
    }

    #[test]
    fn one_element_for_all_is_no_triangle() {
        for mask in ["f32[1048576, 1048576] splat 0.0", "bool[1048576, 1048576] splat true"] {
            let masked = if mask.starts_with('b') { "where(%t, %1, %low)" } else { "add(%1, %t)" };
            let text = format!(
                "graph g(%q: f32[1, 1, 1048576, 4]) -> (%y) {{ %t = constant() value={mask} %low = constant() value=f32[] {{-3.5e38}}
                %1 = matmul(%q, %q) transpose_b=true %2 = {masked} %3 = softmax(%2) axis=-1 %y = matmul(%3, %q) }}"
            );
            let run = run_rule(FuseAttention, &text);
            assert!(run.rewrites == 1 && run.after.to_string().contains("causal=none"), "{}", run.after);
        }
    }

    /// The second head sees all keys.
    #[test]
    fn a_triangle_of_one_head_is_no_flag() {
        let text = "graph g(%q: f32[n, 2, 3, 4]) -> (%y) { %t = constant() value=bool[2, 3, 3] {true, false, false, true, true, false,
                true, true, true, true, true, true, true, true, true, true, true, true}
            %low = constant() value=f32[] {-3.4028235e38} %1 = matmul(%q, %q) transpose_b=true %2 = where(%t, %1, %low)
            %3 = softmax(%2) axis=-1 %y = matmul(%3, %q) }";
        let run = run_rule(FuseAttention, text);
        assert_eq!(run.equal_within(1e-5, 2).rewrites, 1);
        assert!(run.after.to_string().contains("attention(%q, %q, %q, %t) scale=1.0 causal=none"), "{}", run.after);
    }

    #[test]
    fn a_broadcast_mask_is_no_triangle() {
        let body =
            "%1 = matmul(%q, %kt) %t = constant() value=f32[1, 1] {0.0} %2 = add(%1, %t) %3 = softmax(%2) axis=-1
            %y = matmul(%3, %v)";
        assert_eq!(run(body, "%y").equal_within(1e-5, 1).rewrites, 1);
    }

    #[test]
    fn fires_on_a_cap() {
        let body = "%1 = matmul(%q, %kt) %2 = mul(%1, %s) %c = div(%2, %cap) %t = tanh(%c) %u = mul(%t, %cap)
            %3 = add(%u, %m) %4 = softmax(%3) axis=-1 %y = matmul(%4, %v)";
        let run = run(body, "%y");
        assert_eq!(run.equal_within(1e-5, 1).rewrites, 1);
        assert!(run.after.to_string().contains("softcap=30"), "{}", run.after);
    }

    #[test]
    fn heads_lose_their_repetition() {
        let body = "%1 = matmul(%q, %kr) transpose_b=true %4 = softmax(%1) axis=-1 %y = matmul(%4, %vr)";
        insta::assert_snapshot!(run(&format!("{REPEATED} {body}"), "%y").equal_within(1e-5, 1).after, @"
        graph g(%q: f32[2, 4, 3, 8], %k: f32[2, 4, 5, 8], %v: f32[2, 4, 5, 6], %kt: f32[2, 4, 8, 5], %k2: f32[2, 2, 5, 8], %v2: f32[2, 2, 5, 6], %m: f32[2, 1, 3, 5], %flag: f32[3, 5]) -> (%y) {
          %k5 = reshape(%k2) shape=[2, 2, 1, 5, 8] : f32[2, 2, 1, 5, 8]
          %y.1 = reshape(%k5) shape=[2, 2, 5, 8] : f32[2, 2, 5, 8]
          %v5 = reshape(%v2) shape=[2, 2, 1, 5, 6] : f32[2, 2, 1, 5, 6]
          %y.2 = reshape(%v5) shape=[2, 2, 5, 6] : f32[2, 2, 5, 6]
          %y = attention(%q, %y.1, %y.2) scale=1.0 causal=none scores=product : f32[2, 4, 3, 6]
        }
        ");
    }

    #[test]
    fn heads_repeated_in_other_ways_keep_their_repetition() {
        // Values more often than keys; both along the batch.
        let more = "%v1 = slice(%v2) axes=[1] starts=[0] ends=[1] steps=[1] %v5 = reshape(%v1) shape=[2, 1, 1, 5, 6]
            %ve = expand(%v5) shape=[2, 1, 4, 5, 6] %vr = reshape(%ve) shape=[2, 4, 5, 6]";
        let keys = REPEATED.split("%v5").next().unwrap();
        let batch = "%k1 = slice(%k) axes=[0] starts=[0] ends=[1] steps=[1] %k5 = reshape(%k1) shape=[1, 2, 2, 5, 8]
            %ke = expand(%k5) shape=[2, 2, 2, 5, 8] %kr = reshape(%ke) shape=[2, 4, 5, 8]
            %v1 = slice(%v) axes=[0] starts=[0] ends=[1] steps=[1] %v5 = reshape(%v1) shape=[1, 2, 2, 5, 6]
            %ve = expand(%v5) shape=[2, 2, 2, 5, 6] %vr = reshape(%ve) shape=[2, 4, 5, 6]";
        let body = "%1 = matmul(%q, %kr) transpose_b=true %4 = softmax(%1) axis=-1 %y = matmul(%4, %vr)";
        for repeated in [format!("{keys} {more}"), batch.to_string()] {
            let run = run(&format!("{repeated} {body}"), "%y");
            assert_eq!(run.equal_within(1e-5, 1).rewrites, 1, "{repeated}");
            assert!(run.after.to_string().contains("attention(%q, %kr, %vr)"), "{}", run.after);
        }
    }

    #[test]
    fn fires_on_three_dimensions() {
        let text = "graph g(%q: f32[n, 3, 4], %k: f32[n, 5, 4], %v: f32[n, 5, 4], %m: f32[n, 3, 5]) -> (%y) {
            %1 = matmul(%q, %k) transpose_b=true %2 = add(%1, %m) %3 = softmax(%2) axis=2 %y = matmul(%3, %v) }";
        insta::assert_snapshot!(run_rule(FuseAttention, text).equal_within(1e-5, 2).after, @"
        graph g(%q: f32[n, 3, 4], %k: f32[n, 5, 4], %v: f32[n, 5, 4], %m: f32[n, 3, 5]) -> (%y) {
          %y.1 = unsqueeze(%q) axes=[0] : f32[1, n, 3, 4]
          %y.2 = unsqueeze(%k) axes=[0] : f32[1, n, 5, 4]
          %y.3 = unsqueeze(%v) axes=[0] : f32[1, n, 5, 4]
          %y.4 = unsqueeze(%m) axes=[0] : f32[1, n, 3, 5]
          %y.5 = attention(%y.1, %y.2, %y.3, %y.4) scale=1.0 causal=none scores=product : f32[1, n, 3, 4]
          %y = squeeze(%y.5) axes=[0] : f32[n, 3, 4]
        }
        ");
    }

    #[test]
    fn fires_between_conversions() {
        let text = "graph g(%q: f16[1, 2, 3, 4], %k: f16[1, 2, 5, 4]) -> (%y) {
            %1 = matmul(%q, %k) transpose_b=true %2 = cast(%1) to=f32 saturate=true %3 = softmax(%2) axis=-1
            %4 = cast(%3) to=f16 saturate=true %y = matmul(%4, %k) }";
        let run = run_rule(FuseAttention, text);
        assert_eq!(run.equal_within(4e-3, 1).rewrites, 1);
        assert!(run.after.to_string().contains("softmax_dtype=f32"), "{}", run.after);
    }

    fn refused(body: &str, outputs: &str) -> String {
        let run = run(body, outputs);
        assert_eq!((run.rewrites, run.reasons().len()), (0, 1), "{}", run.after);
        run.reasons()[0].to_string()
    }

    #[test]
    fn refuses_a_softmax_of_another_axis() {
        let body = "%1 = matmul(%q, %kt) %4 = softmax(%1) axis=2 %y = matmul(%4, %v)";
        assert_eq!(refused(body, "%y"), "the softmax is not over the keys");
    }

    #[test]
    fn refuses_a_mask_that_makes_the_scores_larger() {
        let text = "graph g(%q: f32[1, 4, 3, 8], %m: f32[2, 4, 3, 3]) -> (%y) {
            %1 = matmul(%q, %q) transpose_b=true %2 = add(%1, %m) %3 = softmax(%2) axis=3 %y = matmul(%3, %q) }";
        let run = run_rule(FuseAttention, text);
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["the mask makes the scores larger"]));
    }

    #[test]
    fn refuses_a_finite_number_that_may_hide_all_keys() {
        // Another number than the lowest, and one of a type of coarse steps.
        let body = "%1 = matmul(%q, %kt) %low9 = constant() value=f32[] {-1e31} %keep = greater(%flag, %zero)
            %3 = where(%keep, %1, %low9) %4 = softmax(%3) axis=-1 %y = matmul(%4, %v)";
        assert_eq!(refused(body, "%y"), "a query whose keys are all hidden by a finite number");
        let text = "graph g(%q: f16[1, 2, 3, 4], %keep: bool[3, 3]) -> (%y) {
            %1 = matmul(%q, %q) transpose_b=true %low = constant() value=f16[] {-65504.0} %2 = where(%keep, %1, %low)
            %3 = softmax(%2) axis=-1 %y = matmul(%3, %q) }";
        let run = run_rule(FuseAttention, text);
        let reason = "a query whose keys are all hidden by a finite number";
        assert_eq!((run.rewrites, run.reasons()), (0, vec![reason]));
    }

    #[test]
    fn refuses_a_number_that_may_be_a_score() {
        let body = "%1 = matmul(%q, %kt) %100 = constant() value=f32[] {-100.0} %keep = greater(%flag, %zero)
            %3 = where(%keep, %1, %100) %4 = softmax(%3) axis=-1 %y = matmul(%4, %v)";
        assert_eq!(refused(body, "%y"), "the number in place of hidden scores may be a score");
    }

    #[test]
    fn refuses_a_number_that_is_none() {
        let body = "%1 = matmul(%q, %kt) %nan = constant() value=f32[] {nan} %keep = greater(%flag, %zero)
            %3 = where(%keep, %1, %nan) %4 = softmax(%3) axis=-1 %y = matmul(%4, %v)";
        assert_eq!(refused(body, "%y"), "the number in place of hidden scores may be a score");
    }

    #[test]
    fn the_lowest_number_is_added() {
        let text = "graph g(%q: f32[1, 2, 3, 4], %keep: bool[3, 3]) -> (%y) {
            %1 = matmul(%q, %q) transpose_b=true %low = constant() value=f32[] {-3.4028235e38} %2 = where(%keep, %1, %low)
            %3 = softmax(%2) axis=-1 %y = matmul(%3, %q) }";
        let q = Tensor::from_vec([1, 2, 3, 4], (0..24).map(|at| (at as f32).sin()).collect()).unwrap();
        // One query sees all, one some, one no key.
        let keep = vec![true, true, true, false, true, false, false, false, false];
        let inputs = [q, Tensor::from_vec([3, 3], keep).unwrap()];
        let run = run_rule(FuseAttention, text);
        insta::assert_snapshot!(run.after, @"
        graph g(%q: f32[1, 2, 3, 4], %keep: bool[3, 3]) -> (%y) {
          %y.fuse_attention = constant() value=f32[] {0.0}
          %y.fuse_attention.1 = constant() value=f32[] {-3.4028235e38}
          %y.1 = where(%keep, %y.fuse_attention, %y.fuse_attention.1) : f32[3, 3]
          %y = attention(%q, %q, %q, %y.1) scale=1.0 causal=none scores=product : f32[1, 2, 3, 4]
        }
        ");
        let before = trt_fuse_ir::eval::eval_graph(&run.before, &inputs).unwrap();
        let after = trt_fuse_ir::eval::eval_graph(&run.after, &inputs).unwrap();
        let (before, after) = (before[0].to_f64s().unwrap(), after[0].to_f64s().unwrap());
        assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-6), "{before:?} {after:?}");
    }

    #[test]
    fn a_low_number_hides_where_each_query_sees_a_key() {
        for (low, fires) in [("-1e30", 1), ("-3.4028235e38", 1), ("-1e9", 0), ("-10000.0", 0)] {
            let body = format!(
                "%1 = matmul(%q, %kt) %some = constant() value=f32[] {{{low}}}
                %keep = constant() value=bool[1, 5] {{true, true, false, true, false}} %3 = where(%keep, %1, %some)
                %4 = softmax(%3) axis=-1 %y = matmul(%4, %v)"
            );
            let run = run(&body, "%y");
            assert_eq!(run.equal_within(1e-5, 1).rewrites, fires, "{low}");
            if fires == 0 {
                // Scores of -2e4 are lower.
                assert_eq!(run.reasons(), ["the number in place of hidden scores may be a score"], "{low}");
            }
        }
    }

    #[test]
    fn refuses_a_finite_number_beside_another_mask() {
        for other in ["where(%b, %2, %low)", "add(%2, %m)"] {
            let body = format!(
                "%a = constant() value=bool[1, 5] {{true, true, true, false, false}} %1 = matmul(%q, %kt)
                %b = constant() value=bool[1, 5] {{false, false, false, true, true}}
                %2 = where(%a, %1, %low) %3 = {other} %4 = softmax(%3) axis=-1 %y = matmul(%4, %v)"
            );
            assert_eq!(refused(&body, "%y"), "a query whose keys are all hidden by a finite number");
        }
    }

    #[test]
    fn refuses_heads_that_differ() {
        let text = "graph g(%q: f32[2, 4, 3, 8], %k: f32[1, 4, 5, 8], %v: f32[2, 4, 5, 8]) -> (%y) {
            %1 = matmul(%q, %k) transpose_b=true %2 = softmax(%1) axis=3 %y = matmul(%2, %v) }";
        let run = run_rule(FuseAttention, text);
        let reason = "batch or heads of queries, keys and values are not known to be equal";
        assert_eq!((run.rewrites, run.reasons()), (0, vec![reason]));
    }

    #[test]
    fn refuses_values_of_another_batch() {
        let text = "graph g(%q: f32[2, 4, 3, 8], %v: f32[1, 4, 3, 8]) -> (%y) {
            %1 = matmul(%q, %q) transpose_b=true %2 = softmax(%1) axis=3 %y = matmul(%2, %v) }";
        let run = run_rule(FuseAttention, text);
        let reason = "batch or heads of queries, keys and values are not known to be equal";
        assert_eq!((run.rewrites, run.reasons()), (0, vec![reason]));
    }

    #[test]
    fn refuses_weights_with_another_reader() {
        let body = "%1 = matmul(%q, %kt) %4 = softmax(%1) axis=-1 %y = matmul(%4, %v)";
        assert_eq!(refused(body, "%y, %4"), "output of `4` also read by `an output of the graph`");
    }

    #[test]
    fn leaves_two_and_five_dimensions_alone() {
        for (shape, rewrites) in [("[3, 4]", 0), ("[2, 3, 4]", 1), ("[1, 2, 3, 4]", 1), ("[1, 1, 2, 3, 4]", 0)] {
            let text = format!(
                "graph g(%q: f32{shape}) -> (%y) {{ %1 = matmul(%q, %q) transpose_b=true %2 = softmax(%1) axis=-1
                %y = matmul(%2, %q) }}"
            );
            let run = run_rule(FuseAttention, &text);
            assert_eq!((run.rewrites, run.reasons()), (rewrites, vec![]), "{shape}");
        }
    }

    #[test]
    fn leaves_look_alikes_alone() {
        for body in [
            // A logarithm, weights on the right, a mask that is multiplied, scores as mask, a softmax of an activation.
            "%1 = matmul(%q, %kt) %4 = softmax(%1) axis=-1 log=true %y = matmul(%4, %v)",
            "%1 = matmul(%q, %kt) %4 = softmax(%1) axis=-1 %y = matmul(%4, %q) transpose_a=true",
            "%1 = matmul(%q, %kt) %3 = mul(%1, %m) %4 = softmax(%3) axis=-1 %y = matmul(%4, %v)",
            "%1 = matmul(%q, %kt) %3 = add(%1, %1) %4 = softmax(%3) axis=-1 %y = matmul(%4, %v)",
            "%1 = matmul(%q, %kt) %3 = relu(%1) %4 = softmax(%3) axis=-1 %y = matmul(%4, %v)",
            // Zeros that make the weights larger, a cap below 0.
            "%1 = matmul(%q, %kt) %4 = softmax(%1) axis=-1 %n = is_nan(%4) %z = constant() value=f32[2, 1, 1, 1, 1] {0.0, 0.0}
                %5 = where(%n, %z, %4) %y = matmul(%5, %v)",
            "%1 = matmul(%q, %kt) %below = constant() value=f32[] {-30.0} %c = div(%1, %below) %t = tanh(%c)
                %3 = mul(%t, %below) %4 = softmax(%3) axis=-1 %y = matmul(%4, %v)",
            // Another number than the cap behind the tangent, another function than it.
            "%1 = matmul(%q, %kt) %c = div(%1, %cap) %t = tanh(%c) %3 = mul(%t, %d) %4 = softmax(%3) axis=-1
                %y = matmul(%4, %v)",
            "%1 = matmul(%q, %kt) %c = div(%1, %cap) %t = sigmoid(%c) %3 = mul(%t, %cap) %4 = softmax(%3) axis=-1
                %y = matmul(%4, %v)",
            // What takes the place of NaN is not 0, NaN of another value, infinity.
            "%1 = matmul(%q, %kt) %4 = softmax(%1) axis=-1 %n = is_nan(%4) %5 = where(%n, %s, %4) %y = matmul(%5, %v)",
            "%1 = matmul(%q, %kt) %4 = softmax(%1) axis=-1 %n = is_nan(%1) %5 = where(%n, %zero, %4) %y = matmul(%5, %v)",
            "%1 = matmul(%q, %kt) %4 = softmax(%1) axis=-1 %n = is_inf(%4) %5 = where(%n, %zero, %4) %y = matmul(%5, %v)",
            // A choice between numbers that are no scores.
            "%keep = greater(%flag, %zero) %3 = where(%keep, %m, %zero) %4 = softmax(%3) axis=-1 %y = matmul(%4, %v)",
        ] {
            let run = run(body, "%y");
            assert_eq!((run.rewrites, run.reasons()), (0, vec![]), "{body}");
        }
    }

    #[test]
    fn leaves_other_conversions_alone() {
        for (scores, inside, weights) in [("f32", "f64", "f16"), ("i32", "f32", "i32"), ("f16", "f32", "f16")] {
            let text = format!(
                "graph g(%q: {scores}[1, 2, 3, 4], %v: {weights}[1, 2, 3, 4]) -> (%y) {{
                %1 = matmul(%q, %q) transpose_b=true %2 = cast(%1) to={inside} saturate=true %3 = softmax(%2) axis=-1
                %4 = cast(%3) to={weights} saturate=true %y = matmul(%4, %v) }}"
            );
            let rewrites = usize::from(scores == "f16");
            assert_eq!(run_rule(FuseAttention, &text).rewrites, rewrites, "{text}");
        }
    }
}
