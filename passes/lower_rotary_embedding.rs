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
//! Fires where the target has no such layer, and on angles that are not known to be those of every batch.
//!
//! Refuses nothing; data of unknown rank is no match.
//!
//! Order: any.
//!
//! Numerics: the operator's own arithmetic; bit-exact in f32.

use trt_fuse_ir::op::{BinaryOp, RotaryEmbedding};
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
        let f = Formula::new(self.name(), graph, root);
        let shape = f.shape(0)?;
        let of_every_batch = [1, 2].iter().all(|slot| f.shape(*slot).is_ok_and(|table| table.first() == shape.first()));
        if context.capabilities.rotary_embedding && of_every_batch {
            return Err(Miss::NoMatch);
        }
        written_out(f, op, shape)
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
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(batch: &str, size: i64, attrs: &str) -> Run {
        run_rule(
            LowerRotaryEmbedding,
            &format!(
                "graph g(%x: f32[b, 3, s, {size}], %c: f32[{batch}, s, 2], %s: f32[{batch}, s, 2]) -> (%y) {{
                    %y = rotary_embedding(%x, %c, %s) {attrs} }}"
            ),
        )
    }

    #[test]
    fn fires_on_halves() {
        let run = run("1", 6, "interleaved=false dim=4");
        insta::assert_snapshot!(run.equal_within(0.0, 2).after, @"
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
            assert_eq!(run("1", size, "interleaved=true dim=4").equal_within(0.0, 3).rewrites, 1);
        }
    }

    #[test]
    fn leaves_angles_of_every_batch_to_the_targets_own_layer() {
        assert_eq!(run("b", 4, "interleaved=false dim=4").rewrites, 0);
    }
}
