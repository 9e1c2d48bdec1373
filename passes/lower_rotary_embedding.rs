//! Writes rotary embeddings that the target has no layer for as products and sums of slices.
//!
//! ```text
//! %y = rotary_embedding(%x, %cos, %sin) dim=4 : f32[b, h, s, 6]
//! ```
//! becomes
//! ```text
//! %1 = slice(%x) axes=[3] starts=[0] ends=[2] steps=[1] : f32[b, h, s, 2]
//! %2 = slice(%x) axes=[3] starts=[2] ends=[4] steps=[1] : f32[b, h, s, 2]
//! %3 = sub(mul(%cos, %1), mul(%sin, %2))
//! %4 = add(mul(%sin, %1), mul(%cos, %2))
//! %5 = slice(%x) axes=[3] starts=[4] ends=[6] steps=[1] : f32[b, h, s, 2]
//! %y = concat(%3, %4, %5) axis=3 : f32[b, h, s, 6]
//! ```
//!
//! Fires where the target has no such layer, and on one position where it has a kernel for steps of decoding, which takes
//! these operations in (`lower_attention` has the figures). Elsewhere, angles that are the same for every batch are
//! expanded over it, as the layer wants them:
//! ```text
//! %1 = expand(%cos) shape=[b, s, 2] : f32[b, s, 2]
//! ```
//! A batch that the inputs' shapes do not tell leaves the embedding to be written out.
//!
//! Refuses nothing; data of unknown rank is no match.
//!
//! Order: any.
//!
//! Numerics: the operator's own arithmetic; bit-exact in f32.

use trt_fuse_ir::op::{BinaryOp, Expand, RotaryEmbedding};
use trt_fuse_ir::{Dim, Graph, NodeId, Op, OpKind, Patch, Shape, ValueRef};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerRotaryEmbedding;

impl Rule for LowerRotaryEmbedding {
    fn name(&self) -> &'static str {
        "lower_rotary_embedding"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::RotaryEmbedding]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::RotaryEmbedding(op)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let mut f = Formula::new(self.name(), graph, root);
        let shape = f.shape(0)?;
        let is_step = context.capabilities.decode_kernel && shape.get(2).is_some_and(|positions| positions.is(1));
        if is_step || !context.capabilities.rotary_embedding {
            return written_out(f, op, shape);
        }
        let batch = shape.first().ok_or(Miss::NoMatch)?;
        if [1, 2].iter().all(|slot| f.shape(*slot).is_ok_and(|table| table.first() == Some(batch))) {
            return Err(Miss::NoMatch);
        }
        let mut inputs = vec![f.input(0)?];
        for slot in [1, 2] {
            let wide: Shape = std::iter::once(batch).chain(f.shape(slot)?.iter().skip(1)).cloned().collect();
            if f.shape(slot)?.first().is_none_or(|first| !first.is(1)) || !context.symbols.tell(&wide) {
                return written_out(Formula::new(self.name(), graph, root), op, shape);
            }
            let table = f.input(slot)?;
            inputs.push(f.op(Expand { shape: Some(wide) }, &[table]));
        }
        let y = f.op(op.clone(), &inputs);
        Ok(f.result(y))
    }
}

fn written_out(mut f: Formula<'_>, op: &RotaryEmbedding, shape: &Shape) -> Result<Patch, Miss> {
    let size = shape.get(3).ok_or(Miss::NoMatch)?;
    let half = op.dim / 2;
    let x = f.input(0)?;
    let (a, b) = if op.interleaved {
        (f.slice(x, 3, (0, Dim::fixed(op.dim)), 2), f.slice(x, 3, (1, Dim::fixed(op.dim)), 2))
    } else {
        (f.slice(x, 3, (0, Dim::fixed(half)), 1), f.slice(x, 3, (half, Dim::fixed(op.dim)), 1))
    };
    let (cos, sin) = (f.input(1)?, f.input(2)?);
    let [cos, sin] = [cos, sin].map(|table| f.unsqueeze(table, &[1]));
    let mut product = |x, table| f.binary(BinaryOp::Mul, table, x);
    let (cos_a, sin_b, sin_a, cos_b) = (product(a, cos), product(b, sin), product(a, sin), product(b, cos));
    let first = f.binary(BinaryOp::Sub, cos_a, sin_b);
    let second = f.binary(BinaryOp::Add, sin_a, cos_b);
    let mut parts: Vec<ValueRef> = if op.interleaved {
        let [first, second] = [first, second].map(|x| f.unsqueeze(x, &[4]));
        let pairs = f.concat(&[first, second], 4);
        let rotated = shape.iter().take(3).cloned().chain([Dim::fixed(op.dim)]).collect();
        vec![f.reshape(pairs, rotated)]
    } else {
        vec![first, second]
    };
    if !size.is(op.dim) {
        parts.push(f.slice(x, 3, (op.dim, size.clone()), 1));
    }
    let y = f.concat(&parts, 3);
    Ok(f.result(y))
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::Capabilities;
    use trt_fuse_ir::eval::eval_graph;

    use super::*;
    use crate::testing::{random_inputs, run_for, run_rule};

    fn text(batch: &str, size: i64, attrs: &str) -> String {
        format!(
            "graph g(%x: f32[b, 3, s, {size}], %c: f32[{batch}, s, 2], %s: f32[{batch}, s, 2]) -> (%y) {{
                %y = rotary_embedding(%x, %c, %s) {attrs} }}"
        )
    }

    /// For a target without the layer.
    fn written(size: i64, attrs: &str) -> Graph {
        let before: Graph = text("1", size, attrs).parse().unwrap();
        let after = run_for(LowerRotaryEmbedding, &before, &Capabilities::tensorrt((8, 6, 1)));
        let inputs = random_inputs(&before, 2, 1);
        assert_eq!(eval_graph(&before, &inputs), eval_graph(&after, &inputs));
        after
    }

    #[test]
    fn fires_on_halves() {
        insta::assert_snapshot!(written(6, "interleaved=false dim=4"), @"
        graph g(%x: f32[b, 3, s, 6], %c: f32[1, s, 2], %s: f32[1, s, 2]) -> (%y) {
          %y.3 = unsqueeze(%c) axes=[1] : f32[1, 1, s, 2]
          %y.1 = slice(%x) axes=[3] starts=[0] ends=[2] steps=[1] : f32[b, 3, s, 2]
          %y.5 = mul(%y.3, %y.1) : f32[b, 3, s, 2]
          %y.4 = unsqueeze(%s) axes=[1] : f32[1, 1, s, 2]
          %y.2 = slice(%x) axes=[3] starts=[2] ends=[4] steps=[1] : f32[b, 3, s, 2]
          %y.6 = mul(%y.4, %y.2) : f32[b, 3, s, 2]
          %y.9 = sub(%y.5, %y.6) : f32[b, 3, s, 2]
          %y.7 = mul(%y.4, %y.1) : f32[b, 3, s, 2]
          %y.8 = mul(%y.3, %y.2) : f32[b, 3, s, 2]
          %y.10 = add(%y.7, %y.8) : f32[b, 3, s, 2]
          %y.11 = slice(%x) axes=[3] starts=[4] ends=[6] steps=[1] : f32[b, 3, s, 2]
          %y = concat(%y.9, %y.10, %y.11) axis=3 : f32[b, 3, s, 6]
        }
        ");
    }

    #[test]
    fn fires_on_pairs() {
        for size in [4, 5] {
            let after = written(size, "interleaved=true dim=4");
            assert!(after.live().iter().all(|id| !matches!(after.op(*id), Some(Op::RotaryEmbedding(_)))));
        }
    }

    #[test]
    fn leaves_angles_of_every_batch_to_the_targets_own_layer() {
        assert_eq!(run_rule(LowerRotaryEmbedding, &text("b", 4, "interleaved=false dim=4")).rewrites, 0);
    }

    #[test]
    fn writes_out_one_position() {
        let one = |text: String| text.replace(", s, ", ", 1, ");
        let run = run_rule(LowerRotaryEmbedding, &one(text("b", 4, "interleaved=false dim=4")));
        assert!(!run.equal_within(0.0, 2).after.to_string().contains("rotary_embedding("), "{}", run.after);
        let before: Graph = one(text("b", 4, "interleaved=false dim=4")).parse().unwrap();
        let after = run_for(LowerRotaryEmbedding, &before, &Capabilities::tensorrt((11, 4, 0)));
        assert_eq!(after.to_string(), before.to_string());
    }

    #[test]
    fn expands_angles_over_the_batch() {
        let run = run_rule(LowerRotaryEmbedding, &text("1", 6, "interleaved=true dim=4"));
        insta::assert_snapshot!(run.equal_within(0.0, 2).after, @"
        graph g(%x: f32[b, 3, s, 6], %c: f32[1, s, 2], %s: f32[1, s, 2]) -> (%y) {
          %y.1 = expand(%c) shape=[b, s, 2] : f32[b, s, 2]
          %y.2 = expand(%s) shape=[b, s, 2] : f32[b, s, 2]
          %y = rotary_embedding(%x, %y.1, %y.2) interleaved=true dim=4 : f32[b, 3, s, 6]
        }
        ");
    }

    #[test]
    fn leaves_data_of_unknown_rank_alone() {
        let before: Graph = "graph g(%x: f32[..], %c: f32[1, 2, 2]) -> (%y) {
            %y = rotary_embedding(%x, %c, %c) interleaved=false dim=4 }"
            .parse()
            .unwrap();
        let after = run_for(LowerRotaryEmbedding, &before, &Capabilities::tensorrt((8, 6, 1)));
        assert_eq!(after.to_string(), before.to_string());
    }

    #[test]
    fn writes_out_a_batch_that_only_data_tell() {
        let run = run_rule(
            LowerRotaryEmbedding,
            "graph g(%z: f32[8], %c: f32[1, 2, 2]) -> (%y) {
                %i = nonzero(%z) %x = reshape(%i) shape=[m, 1, 2, 4] %f = cast(%x) to=f32
                %y = rotary_embedding(%f, %c, %c) interleaved=false dim=4 }",
        );
        assert!(run.after.to_string().contains("concat"), "{}", run.after);
    }
}
