//! Writes attention that the target's layer cannot hold as matrix products and a softmax.
//!
//! ```text
//! %y = attention(%q, %k, %v) scale=0.25 softcap=30 .. : f32[b, 8, s, 64]
//! ```
//! becomes
//! ```text
//! %1 = mul(%q, 0.25)
//! %2 = matmul(%1, %k) transpose_b=true : f32[b, 8, s, t]
//! %3 = mul(tanh(div(%2, 30)), 30)
//! %4 = softmax(%3) axis=-1
//! %y = matmul(%4, %v)
//! ```
//!
//! Fires where the target has no attention, or the graph a loop of rounds that only run time counts
//! ([`Pipeline::lowering_of`](crate::Pipeline::lowering_of)), and on what its layer has no place for: a cap, a softmax of another type,
//! scores as an output, values of another size than the keys, a causal mask counted from the end. A causal mask beside a
//! mask goes into that mask, and the layer stays. Heads of keys and values that serve several of queries are repeated.
//!
//! Also, where the target has a kernel for it, on a step of decoding: one query, without a causal mask, whose keys and
//! values a concatenation joins to those of the past; its heads are as many as theirs, or the batch is 1. TensorRT-RTX 1.7.1 then
//! joins, scales, masks and attends in one kernel (`_gemv_mha_v1`), if the embedding of positions is written out too
//! (`lower_rotary_embedding`). Engine layers of a decoder of two blocks, 64 wide, behind 31 tokens, measured on 2026-11-26; f16,
//! 8 heads of 64 and a past known only at run time differ by as much:
//!
//! | heads of queries / keys | positions | batch | layer | written out | OnnxParser |
//! |---|---|---|--:|--:|--:|
//! | 4 / 4 | as they are | 1 | 13 | 11 | 11 |
//! | 4 / 4 | rotated | 1 | 13 | 12 | 14 |
//! | 4 / 4 | as they are | 4 | 17 | 15 | 15 |
//! | 4 / 2 | as they are | 1 | 17 | 11 | 11 |
//! | 4 / 2 | rotated | 1 | 16 | 14 | 14 |
//! | 4 / 2 | rotated | 4 (not written out) | 20 | 21 | 21 |
//! | 4 / 4 | rotated | 1, keys of no past (not written out) | 13 | 14 | 14 |
//!
//! Some targets make one kernel of it where the scores are scaled instead of the queries, and the keys are transposed before
//! the product: `Capabilities::scaled_scores`.
//!
//! Refuses: "the heads of queries are not known to be a multiple of those of the keys"
//!
//! Order: any.
//!
//! Numerics: in f16 the scale's square root goes to either side of the product, so that it does not overflow; hidden keys are
//! selected away, so that no infinity of a score survives. 1e-6 in f32.

use trt_fuse_ir::op::{
    Activation, Attention, BinaryOp, CausalKind, Expand, MatMul, ReduceKind, ScoreStage, Softmax, Transpose,
};
use trt_fuse_ir::{Capabilities, DType, Dim, Graph, Ints, NodeId, Op, OpKind, Patch, Shape, Tensor, ValueRef};

use crate::formula::{Formula, MAX_CONSTANT};
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerAttention;

impl Rule for LowerAttention {
    fn name(&self) -> &'static str {
        "lower_attention"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Attention]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let node = graph.node(root).ok_or(Miss::NoMatch)?;
        let Op::Attention(op) = &node.op else { return Err(Miss::NoMatch) };
        let f = Formula::new(self.name(), graph, root);
        let sizes = Sizes::of(&f)?;
        let has_mask = f.input(3).is_ok();
        let is_step = context.capabilities.decode_kernel && is_step(graph, root, op, &sizes);
        if is_step || !fits_layer(op, &sizes, node.outputs.len(), context.capabilities) {
            return written_out(f, op, &sizes, node.outputs.len(), context.capabilities);
        }
        if has_mask && op.causal != CausalKind::None { one_mask(f, op, &sizes) } else { Err(Miss::NoMatch) }
    }
}

/// The dimensions of attention.
struct Sizes {
    batch: Dim,
    heads: Dim,
    queries: Dim,
    groups: Dim,
    keys: Dim,
    key: Dim,
    value: Dim,
}

impl Sizes {
    fn of(f: &Formula<'_>) -> Result<Self, Miss> {
        let four = |slot| f.shape(slot)?.first_chunk::<4>().cloned().ok_or(Miss::NoMatch);
        let [batch, heads, queries, key] = four(0)?;
        let [_, groups, keys, _] = four(1)?;
        let [_, _, _, value] = four(2)?;
        Ok(Self { batch, heads, queries, groups, keys, key, value })
    }
}

/// Whether the target's layer can hold it, a mask beside a causal one apart.
fn fits_layer(op: &Attention, sizes: &Sizes, outputs: usize, capabilities: &Capabilities) -> bool {
    // Of more queries than keys, some may see none.
    let causal = match op.causal {
        CausalKind::None | CausalKind::UpperLeft => true,
        _ => capabilities.causal_from_end && (&sizes.keys - &sizes.queries).at_least(0),
    };
    capabilities.attention
        && outputs == 1
        && op.softcap.is_none()
        && op.softmax_dtype.is_none()
        && sizes.key == sizes.value
        && causal
}

/// Whether one query is attended to keys and values behind those of the past.
fn is_step(graph: &Graph, root: NodeId, op: &Attention, sizes: &Sizes) -> bool {
    let is_joined = |slot| {
        let joined = graph.input(root, slot).and_then(|value| graph.op(value.node));
        matches!(joined, Some(Op::Concat(concat)) if matches!(concat.axis, 2 | -2))
    };
    sizes.queries.is(1)
        && op.causal == CausalKind::None
        && (sizes.heads == sizes.groups || sizes.batch.is(1))
        && is_joined(1)
        && is_joined(2)
}

/// A causal mask and a mask as one mask.
fn one_mask(mut f: Formula<'_>, op: &Attention, sizes: &Sizes) -> Result<Patch, Miss> {
    let triangle = triangle(&mut f, op.causal, sizes)?.ok_or(Miss::NoMatch)?;
    let (mask, dtype) = (f.input(3)?, f.info(3)?.dtype);
    let mask = if dtype == DType::Bool {
        f.binary(BinaryOp::And, mask, triangle)
    } else {
        let hidden = f.number(dtype, f64::NEG_INFINITY)?;
        f.select(triangle, mask, hidden)
    };
    let (q, k, v) = (f.input(0)?, f.input(1)?, f.input(2)?);
    let y = f.op(Attention { causal: CausalKind::None, ..op.clone() }, &[q, k, v, mask]);
    Ok(f.result(y))
}

fn written_out(
    mut f: Formula<'_>,
    op: &Attention,
    sizes: &Sizes,
    outputs: usize,
    capabilities: &Capabilities,
) -> Result<Patch, Miss> {
    let dtype = f.info(0)?.dtype;
    let (q, k, v) = (f.input(0)?, f.input(1)?, f.input(2)?);
    let scale = f64::from(op.scale.0);
    // Scores of f16 could overflow before they are scaled.
    let scales_scores = capabilities.scaled_scores && dtype != DType::F16;
    let (q, k) = if scales_scores { (q, k) } else { scaled(&mut f, (q, k), scale, dtype)? };
    let k = shared(&mut f, k, sizes, &sizes.key)?;
    let v = shared(&mut f, v, sizes, &sizes.value)?;
    let product = if scales_scores {
        let k = f.op(Transpose { perm: Ints::from_slice(&[0, 1, 3, 2]) }, &[k]);
        let product = matmul(&mut f, q, k, false);
        f.with_number(BinaryOp::Mul, product, dtype, scale)?
    } else {
        matmul(&mut f, q, k, true)
    };
    let capped = capped(&mut f, op, product, dtype)?;
    let (masked, sees) = masked(&mut f, op, sizes, capped, dtype)?;
    let wide = op.softmax_dtype.unwrap_or(dtype);
    let scores = if wide == dtype { masked } else { f.cast(masked, wide) };
    let mut weights = f.op(Softmax { axis: -1, log: false }, &[scores]);
    if wide != dtype {
        weights = f.cast(weights, dtype);
    }
    if let Some(sees) = sees.filter(|_| op.zero_hidden) {
        let zero = f.number(dtype, 0.0)?;
        weights = f.select(sees, weights, zero);
    }
    let y = matmul(&mut f, weights, v, false);
    let stage = match op.scores {
        ScoreStage::Product => product,
        ScoreStage::Capped => capped,
        ScoreStage::Masked => masked,
        ScoreStage::Weights => weights,
        _ => return Err(Miss::NoMatch),
    };
    let values = [y, stage];
    Ok(f.results(values.get(..outputs).ok_or(Miss::NoMatch)?))
}

/// Queries and keys whose product has the scale. Where 16 bits could overflow, its root goes to either side.
fn scaled(
    f: &mut Formula<'_>,
    (q, k): (ValueRef, ValueRef),
    scale: f64,
    dtype: DType,
) -> Result<(ValueRef, ValueRef), Miss> {
    if dtype != DType::F16 {
        return Ok((f.with_number(BinaryOp::Mul, q, dtype, scale)?, k));
    }
    let root = scale.abs().sqrt();
    Ok((f.with_number(BinaryOp::Mul, q, dtype, root.copysign(scale))?, f.with_number(BinaryOp::Mul, k, dtype, root)?))
}

fn matmul(f: &mut Formula<'_>, a: ValueRef, b: ValueRef, transpose_b: bool) -> ValueRef {
    f.op(MatMul::new(false, transpose_b), &[a, b])
}

/// Each head of keys or values as often as it serves a head of queries.
fn shared(f: &mut Formula<'_>, x: ValueRef, sizes: &Sizes, size: &Dim) -> Result<ValueRef, Miss> {
    if sizes.heads == sizes.groups {
        return Ok(x);
    }
    let times = sizes.heads.exact_div(&sizes.groups).ok_or(Miss::Blocked {
        reason: "the heads of queries are not known to be a multiple of those of the keys",
        at: f.root(),
    })?;
    let (batch, groups, keys) = (sizes.batch.clone(), sizes.groups.clone(), sizes.keys.clone());
    let apart = f.unsqueeze(x, &[2]);
    let shape: Shape = [batch.clone(), groups, times, keys.clone(), size.clone()].into_iter().collect();
    let repeated = f.op(Expand { shape: Some(shape) }, &[apart]);
    Ok(f.reshape(repeated, [batch, sizes.heads.clone(), keys, size.clone()].into_iter().collect()))
}

fn capped(f: &mut Formula<'_>, op: &Attention, product: ValueRef, dtype: DType) -> Result<ValueRef, Miss> {
    let Some(cap) = op.softcap.map(|cap| f64::from(cap.0)) else { return Ok(product) };
    let part = f.with_number(BinaryOp::Div, product, dtype, cap)?;
    let bent = f.op(Op::Activation(Activation::Tanh), &[part]);
    f.with_number(BinaryOp::Mul, bent, dtype, cap)
}

/// The scores with hidden keys at negative infinity, and which queries see a key if some may see none.
fn masked(
    f: &mut Formula<'_>,
    op: &Attention,
    sizes: &Sizes,
    scores: ValueRef,
    dtype: DType,
) -> Result<(ValueRef, Option<ValueRef>), Miss> {
    let triangle = triangle(f, op.causal, sizes)?;
    if let (Ok(mask), None, false) = (f.input(3), triangle, op.zero_hidden)
        && f.info(3)?.dtype != DType::Bool
    {
        return Ok((f.binary(BinaryOp::Add, scores, mask), None));
    }
    let hidden = f.number(dtype, f64::NEG_INFINITY)?;
    let (mut scores, mut kept) = (scores, triangle);
    // The first key is seen by all, unless queries begin before it.
    let mut may_see_none = op.causal == CausalKind::LowerRight && !(&sizes.keys - &sizes.queries).at_least(0);
    if let Ok(mut mask) = f.input(3) {
        may_see_none = true;
        // One number for all keys has no axis of keys.
        if f.shape(3)?.is_empty() {
            mask = f.unsqueeze(mask, &[0]);
        }
        let shown = if f.info(3)?.dtype == DType::Bool {
            mask
        } else {
            scores = f.binary(BinaryOp::Add, scores, mask);
            f.binary(BinaryOp::Greater, mask, hidden)
        };
        kept = Some(kept.map_or(shown, |kept| f.binary(BinaryOp::And, shown, kept)));
    }
    let Some(kept) = kept else { return Ok((scores, None)) };
    let masked = f.select(kept, scores, hidden);
    if !may_see_none {
        return Ok((masked, None));
    }
    let count = f.cast(kept, DType::F32);
    let most = f.reduce(ReduceKind::Max, count, &[-1]);
    Ok((masked, Some(f.with_number(BinaryOp::Greater, most, DType::F32, 0.0)?)))
}

/// Which keys each query sees by its position, `[queries, keys]`; `None` for all.
fn triangle(f: &mut Formula<'_>, causal: CausalKind, sizes: &Sizes) -> Result<Option<ValueRef>, Miss> {
    let from_end = match causal {
        CausalKind::None => return Ok(None),
        CausalKind::UpperLeft => false,
        CausalKind::LowerRight => true,
        _ => return Err(Miss::NoMatch),
    };
    let fixed = sizes.queries.value().zip(sizes.keys.value());
    if let Some((queries, keys)) =
        fixed.filter(|(queries, keys)| queries.saturating_mul((*keys).max(1)) <= MAX_CONSTANT)
    {
        let offset = if from_end { keys - queries } else { 0 };
        let kept = (0..queries).flat_map(|query| (0..keys).map(move |key| key <= query + offset)).collect();
        let dims = [usize::try_from(queries).unwrap_or(0), usize::try_from(keys).unwrap_or(0)];
        let triangle = Tensor::from_vec(dims, kept).map_err(|_| Miss::NoMatch)?;
        return Ok(Some(f.constant(triangle)));
    }
    let (rows, columns) = (f.positions(0, 2)?, f.positions(1, 2)?);
    let mut rows = f.unsqueeze(rows, &[1]);
    if from_end {
        let (queries, keys) = (f.size(0, 2)?, f.size(1, 2)?);
        let offset = f.binary(BinaryOp::Sub, keys, queries);
        rows = f.binary(BinaryOp::Add, rows, offset);
    }
    Ok(Some(f.binary(BinaryOp::LessOrEqual, columns, rows)))
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::eval::eval_graph;

    use super::*;
    use crate::testing::{Run, difference, random_inputs, run_for, run_rule};

    const QKV: &str = "%q: f32[2, 4, 3, 8], %k: f32[2, 2, 5, 8], %v: f32[2, 2, 5, 8]";

    fn run(inputs: &str, node: &str) -> Run {
        run_rule(LowerAttention, &format!("graph g({inputs}) -> (%y) {{ %y = attention{node} }}"))
    }

    #[test]
    fn fires_on_a_cap() {
        let inputs = "%q: f32[b, 4, s, 16], %k: f32[b, 4, t, 16], %v: f32[b, 4, t, 16]";
        let run = run(inputs, "(%q, %k, %v) scale=0.25 softcap=30 causal=none zero_hidden=true scores=product");
        insta::assert_snapshot!(run.equal_within(1e-6, 3).after, @"
        graph g(%q: f32[b, 4, s, 16], %k: f32[b, 4, t, 16], %v: f32[b, 4, t, 16]) -> (%y) {
          %y.lower_attention = constant() value=f32[] {0.25}
          %y.1 = mul(%q, %y.lower_attention) : f32[b, 4, s, 16]
          %y.2 = matmul(%y.1, %k) transpose_b=true : f32[b, 4, s, t]
          %y.lower_attention.1 = constant() value=f32[] {30.0}
          %y.3 = div(%y.2, %y.lower_attention.1) : f32[b, 4, s, t]
          %y.4 = tanh(%y.3) : f32[b, 4, s, t]
          %y.lower_attention.2 = constant() value=f32[] {30.0}
          %y.5 = mul(%y.4, %y.lower_attention.2) : f32[b, 4, s, t]
          %y.6 = softmax(%y.5) axis=-1 : f32[b, 4, s, t]
          %y = matmul(%y.6, %v) : f32[b, 4, s, 16]
        }
        ");
    }

    #[test]
    fn scales_the_scores_where_that_makes_one_kernel() {
        let before: Graph =
            "graph g(%q: f32[b, 4, s, 16], %k: f32[b, 2, t, 16], %v: f32[b, 2, t, 16], %m: f32[b, 1, s, t])
            -> (%y) { %y = attention(%q, %k, %v, %m) scale=-0.25 causal=none zero_hidden=false scores=product }"
                .parse()
                .unwrap();
        let after = run_for(LowerAttention, &before, &Capabilities::tensorrt((8, 5, 3)));
        insta::assert_snapshot!(after, @"
        graph g(%q: f32[b, 4, s, 16], %k: f32[b, 2, t, 16], %v: f32[b, 2, t, 16], %m: f32[b, 1, s, t]) -> (%y) {
          %y.1 = unsqueeze(%k) axes=[2] : f32[b, 2, 1, t, 16]
          %y.2 = expand(%y.1) shape=[b, 2, 2, t, 16] : f32[b, 2, 2, t, 16]
          %y.3 = reshape(%y.2) shape=[b, 4, t, 16] allow_zero=true : f32[b, 4, t, 16]
          %y.7 = transpose(%y.3) perm=[0, 1, 3, 2] : f32[b, 4, 16, t]
          %y.8 = matmul(%q, %y.7) : f32[b, 4, s, t]
          %y.lower_attention = constant() value=f32[] {-0.25}
          %y.9 = mul(%y.8, %y.lower_attention) : f32[b, 4, s, t]
          %y.10 = add(%y.9, %m) : f32[b, 4, s, t]
          %y.11 = softmax(%y.10) axis=-1 : f32[b, 4, s, t]
          %y.4 = unsqueeze(%v) axes=[2] : f32[b, 2, 1, t, 16]
          %y.5 = expand(%y.4) shape=[b, 2, 2, t, 16] : f32[b, 2, 2, t, 16]
          %y.6 = reshape(%y.5) shape=[b, 4, t, 16] allow_zero=true : f32[b, 4, t, 16]
          %y = matmul(%y.11, %y.6) : f32[b, 4, s, 16]
        }
        ");
        let inputs = random_inputs(&before, 3, 1);
        let (expected, found) = (eval_graph(&before, &inputs).unwrap(), eval_graph(&after, &inputs).unwrap());
        assert!(difference(&expected[0], &found[0]) < 1e-6, "{after}");

        // In f16 the queries and keys are scaled, before a product that could overflow.
        let before: Graph = "graph g(%q: f16[1, 4, 8, 16], %k: f16[1, 4, 8, 16]) -> (%y) {
            %y = attention(%q, %k, %k) scale=0.25 causal=none scores=product }"
            .parse()
            .unwrap();
        let after = run_for(LowerAttention, &before, &Capabilities::tensorrt((8, 5, 3)));
        let scores = after.node_ids().find(|id| after.kind(*id) == Some(OpKind::MatMul)).unwrap();
        let query = after.input(scores, 0).unwrap();
        assert!(matches!(after.op(query.node), Some(Op::Binary(BinaryOp::Mul))), "{after}");
    }

    #[test]
    fn fires_on_values_of_another_size_and_shared_heads() {
        let inputs = "%q: f32[2, 4, 3, 8], %k: f32[2, 2, 5, 8], %v: f32[2, 2, 5, 6], %m: bool[3, 5]";
        for causal in ["none", "upper_left", "lower_right"] {
            let node = format!("(%q, %k, %v, %m) scale=0.5 causal={causal} zero_hidden=true scores=product");
            assert_eq!(run(inputs, &node).equal_within(1e-6, 1).rewrites, 1, "{causal}");
        }
    }

    #[test]
    fn fires_on_symbolic_lengths() {
        let inputs = "%q: f32[b, 2, s, 8], %k: f32[b, 2, t, 8], %v: f32[b, 2, t, 6], %m: f32[b, 1, s, t]";
        for causal in ["none", "upper_left", "lower_right"] {
            let node = format!("(%q, %k, %v, %m) scale=-0.5 causal={causal} zero_hidden=true scores=product");
            assert_eq!(run(inputs, &node).equal_within(1e-6, 4).rewrites, 1, "{causal}");
        }
    }

    #[test]
    fn fires_on_a_mask_of_rank_0() {
        for mask in ["bool[]", "f32[]"] {
            let inputs = format!("%q: f32[1, 2, 3, 8], %k: f32[1, 2, 5, 8], %v: f32[1, 2, 5, 6], %m: {mask}");
            let node = "(%q, %k, %v, %m) scale=0.5 causal=none zero_hidden=true scores=product";
            assert_eq!(run(&inputs, node).equal_within(1e-6, 1).rewrites, 1, "{mask}");
        }
    }

    #[test]
    fn brings_in_no_large_triangle() {
        let inputs = "%q: f32[1, 1, 100000, 1], %k: f32[1, 1, 100000, 1], %v: f32[1, 1, 100000, 2]";
        let run = run(inputs, "(%q, %k, %v) scale=0.5 causal=lower_right zero_hidden=true scores=product");
        assert_eq!(run.rewrites, 1);
        let sizes = run.after.live().into_iter().filter_map(|id| Some(run.after.constant(id.into())?.numel()));
        assert!(sizes.max().unwrap() <= 100_000);
    }

    #[test]
    fn gives_each_stage_of_the_scores() {
        for stage in ["product", "capped", "masked", "weights"] {
            let text = format!(
                "graph g({QKV}, %m: bool[3, 5]) -> (%y, %s) {{
                    %y, %s = attention(%q, %k, %v, %m) scale=0.5 softcap=2 causal=none zero_hidden=true
                        softmax_dtype=f64 scores={stage} }}"
            );
            assert_eq!(run_rule(LowerAttention, &text).equal_within(1e-6, 1).rewrites, 1, "{stage}");
        }
    }

    #[test]
    fn a_query_before_all_keys_gives_zeros() {
        let inputs = "%q: f32[1, 1, 5, 4], %k: f32[1, 1, 3, 4], %v: f32[1, 1, 3, 2]";
        let node = "(%q, %k, %v) scale=1.0 causal=lower_right zero_hidden=true scores=product";
        let run = run(inputs, node);
        run.equal_within(1e-6, 1);
        let inputs = crate::testing::random_inputs(&run.after, 1, 1);
        let y = trt_fuse_ir::eval::eval_graph(&run.after, &inputs).unwrap().remove(0);
        let rows = y.to_f64s().unwrap();
        assert_eq!(rows[..4], [0.0; 4]);
        assert!(rows[4..].iter().all(|x| *x != 0.0 && x.is_finite()));
    }

    #[test]
    fn takes_a_causal_mask_into_the_mask() {
        for (mask, causal) in [("bool[3, 5]", "upper_left"), ("f32[2, 4, 3, 5]", "lower_right")] {
            let inputs = format!("{QKV}, %m: {mask}");
            let node = format!("(%q, %k, %v, %m) scale=0.5 causal={causal} zero_hidden=true scores=product");
            let run = run(&inputs, &node);
            assert_eq!(run.equal_within(0.0, 1).rewrites, 1);
            let root = run.after.outputs()[0].value.node;
            assert!(matches!(run.after.op(root), Some(Op::Attention(op)) if op.causal == CausalKind::None));
        }
    }

    /// Attention to what is joined to the past along an axis.
    fn step([batch, heads, queries, groups]: [&str; 4], joined: &str) -> String {
        format!(
            "graph g(%q: f32[{batch}, {heads}, {queries}, 8], %k: f32[{batch}, {groups}, {queries}, 8],
                %p: f32[{batch}, {groups}, past, 8], %m: f32[{batch}, 1, {queries}, past + {queries}]) -> (%y) {{
                {joined}
                %y = attention(%q, %c, %d, %m) scale=0.5 causal=none scores=product }}"
        )
    }

    const JOINED: &str = "%c = concat(%p, %k) axis=2 %d = concat(%k, %p) axis=-2";

    #[test]
    fn fires_on_a_step_of_decoding() {
        let run = run_rule(LowerAttention, &step(["1", "4", "1", "2"], JOINED));
        insta::assert_snapshot!(run.equal_within(1e-6, 3).after, @"
        graph g(%q: f32[1, 4, 1, 8], %k: f32[1, 2, 1, 8], %p: f32[1, 2, past, 8], %m: f32[1, 1, 1, past+1]) -> (%y) {
          %y.lower_attention = constant() value=f32[] {0.5}
          %y.1 = mul(%q, %y.lower_attention) : f32[1, 4, 1, 8]
          %c = concat(%p, %k) axis=2 : f32[1, 2, past+1, 8]
          %y.2 = unsqueeze(%c) axes=[2] : f32[1, 2, 1, past+1, 8]
          %y.3 = expand(%y.2) shape=[1, 2, 2, (past+1), 8] : f32[1, 2, 2, past+1, 8]
          %y.4 = reshape(%y.3) shape=[1, 4, (past+1), 8] allow_zero=true : f32[1, 4, past+1, 8]
          %y.8 = matmul(%y.1, %y.4) transpose_b=true : f32[1, 4, 1, past+1]
          %y.9 = add(%y.8, %m) : f32[1, 4, 1, past+1]
          %y.10 = softmax(%y.9) axis=-1 : f32[1, 4, 1, past+1]
          %d = concat(%k, %p) axis=-2 : f32[1, 2, past+1, 8]
          %y.5 = unsqueeze(%d) axes=[2] : f32[1, 2, 1, past+1, 8]
          %y.6 = expand(%y.5) shape=[1, 2, 2, (past+1), 8] : f32[1, 2, 2, past+1, 8]
          %y.7 = reshape(%y.6) shape=[1, 4, (past+1), 8] allow_zero=true : f32[1, 4, past+1, 8]
          %y = matmul(%y.10, %y.7) : f32[1, 4, 1, 8]
        }
        ");
        let run = run_rule(LowerAttention, &step(["b", "2", "1", "2"], JOINED));
        assert_eq!(run.equal_within(1e-6, 3).rewrites, 1);
    }

    #[test]
    fn leaves_other_steps_to_the_layer() {
        for (sizes, joined) in [
            (["1", "4", "2", "4"], JOINED),
            (["1", "4", "n", "4"], JOINED),
            (["b", "4", "1", "2"], JOINED),
            (["1", "4", "1", "4"], "%c = concat(%p, %k) axis=2 %d = identity(%c)"),
            (["1", "4", "1", "4"], "%d = concat(%p, %k) axis=2 %c = identity(%d)"),
        ] {
            assert_eq!(run_rule(LowerAttention, &step(sizes, joined)).rewrites, 0, "{sizes:?} {joined}");
        }
        // Heads that are joined are no past; one query and a causal mask are the first step.
        let heads = "graph g(%q: f32[1, 4, 1, 8], %k: f32[1, 2, t, 8]) -> (%y) { %c = concat(%k, %k) axis=1
            %y = attention(%q, %c, %c) scale=0.5 causal=none scores=product }";
        let causal =
            step(["1", "4", "1", "4"], JOINED).replace("%c, %d, %m)", "%c, %d)").replace("=none", "=upper_left");
        for text in [heads, &causal] {
            assert_eq!(run_rule(LowerAttention, text).rewrites, 0, "{text}");
        }
        let before: Graph = step(["1", "4", "1", "4"], JOINED).parse().unwrap();
        let after = run_for(LowerAttention, &before, &Capabilities::tensorrt((11, 4, 0)));
        assert_eq!(after.to_string(), before.to_string());
    }

    #[test]
    fn fires_beside_loops_whose_rounds_only_run_time_counts() {
        let attends = |nodes: &str, inputs: &str| {
            let text = format!(
                "graph g({QKV}, %x: f32[n, 4], %f: f32[9, 4], %i: i64[]{inputs}) -> (%y, %z) {{
                %y = attention(%q, %k, %v) scale=0.25 causal=none scores=product {nodes} }}"
            );
            let graph: Graph = text.parse().unwrap();
            let target = Capabilities::default();
            let (after, _) = crate::Pipeline::lowering_of(&graph, &target).run(graph.clone()).unwrap();
            after.to_string().contains("attention(")
        };
        let scan = |of: &str| {
            let body = "graph b(%s: f32[4]) -> (%t) { %t = relu(%s) }";
            format!(
                "%z = scan({of}) scan_inputs=1 carried=0 input_axes=[0] output_axes=[0] input_reversed=[0] output_reversed=[0] body={body:?}"
            )
        };
        let repeat = |count: &str| {
            let body = "graph b(%r: i64[], %c: bool[], %v: f32[9, 4]) -> (%c as \"on\", %w) { %w = relu(%v) }";
            format!("%m = constant() value=i64[] {{200}} %z = loop({count}, _, %f) carried=1 body={body:?}")
        };
        assert!(attends("%z = relu(%f)", ""));
        assert!(attends(&scan("%f"), "") && !attends(&scan("%x"), ""));
        assert!(attends(&repeat("%m"), "") && !attends(&repeat("%i"), ""));
        assert!(!attends(&repeat("%m").replace("(%m, _", "(%m, %b"), ", %b: bool[]"));
        // In a branch, too.
        let open = format!("graph t(%x: f32[n, 4]) -> (%z) {{ {} }}", scan("%x"));
        let other = "graph e(%x: f32[n, 4]) -> (%z) { %z = relu(%x) }";
        let branches = format!("%z = if(%b, %x) then_branch={open:?} else_branch={other:?}");
        assert!(!attends(&branches, ", %b: bool[]"));
    }

    #[test]
    fn fires_where_the_target_has_no_attention() {
        let node = "(%q, %k, %v) scale=0.5 causal=upper_left zero_hidden=true scores=product";
        let before: Graph = format!("graph g({QKV}) -> (%y) {{ %y = attention{node} }}").parse().unwrap();
        let target = Capabilities { attention: false, ..Capabilities::default() };
        let after = crate::testing::run_for(LowerAttention, &before, &target);
        assert!(!after.to_string().contains("attention("), "{after}");
        let inputs = crate::testing::random_inputs(&before, 1, 1);
        let eval = |graph| trt_fuse_ir::eval::eval_graph(graph, &inputs).unwrap().remove(0);
        assert!(crate::testing::difference(&eval(&before), &eval(&after)) < 1e-6, "{after}");
    }

    #[test]
    fn leaves_what_the_layer_holds_alone() {
        for causal in ["none", "upper_left", "lower_right"] {
            let node = format!("(%q, %k, %v) scale=0.5 causal={causal} zero_hidden=true scores=product");
            assert_eq!(run(QKV, &node).rewrites, 0, "{causal}");
        }
    }

    #[test]
    fn refuses_heads_that_may_not_divide() {
        let inputs = "%q: f32[1, h, 3, 8], %k: f32[1, g, 5, 8], %v: f32[1, g, 5, 8]";
        let run = run(inputs, "(%q, %k, %v) scale=0.5 softcap=2 causal=none zero_hidden=true scores=product");
        let reason = "the heads of queries are not known to be a multiple of those of the keys";
        assert_eq!((run.rewrites, run.reasons()), (0, vec![reason]));
    }
}
