//! Writes a transposed convolution whose output reaches beyond what it computes as one that is padded afterwards.
//!
//! ```text
//! %y = conv_transpose(%x, %w, %b) strides=[2] output_padding=[1] : f32[1, 2, 10]
//! ```
//! becomes
//! ```text
//! %1 = conv_transpose(%x, %w) strides=[2] : f32[1, 2, 9]
//! %2 = pad(%1) mode=constant pads=[0, 0, 0, 0, 0, 1] : f32[1, 2, 10]
//! %y = add(%2, %b) : f32[1, 2, 10]
//! ```
//!
//! Fires on output padding beyond the padding at the end, and on a stated shape that is larger than the output: what is
//! added is zero before bias and epilogue, which then follow as operators of their own.
//!
//! Refuses: "a stated output shape of sizes that are not known"
//!
//! Order: after `canonicalize_padding`, which turns a stated shape that fits into padding.
//!
//! Numerics: the same sums; bit-exact but for the order of bias and epilogue in 16 bits.

use trt_fuse_ir::op::{BinaryOp, ConvTranspose, Pad, PadMode};
use trt_fuse_ir::{Dim, Epilogue, Graph, Ints, NodeId, Op, OpKind, Padding, Patch, Step};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerConvTranspose;

impl Rule for LowerConvTranspose {
    fn name(&self) -> &'static str {
        "lower_conv_transpose"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::ConvTranspose]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::ConvTranspose(op)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let mut f = Formula::new(self.name(), graph, root);
        let (before, after) = cuts(&f, op, root)?;
        if op.output_shape.is_none() && after.iter().all(|cut| *cut >= 0) {
            return Err(Miss::NoMatch);
        }
        let rank = f.shape(0)?.len();
        let taken = before.iter().copied().chain(after.iter().map(|cut| (*cut).max(0))).collect();
        let plain = ConvTranspose {
            padding: Padding::Explicit(taken),
            output_padding: Ints::from_elem(0, after.len()),
            output_shape: None,
            epilogue: Epilogue::default(),
            ..ConvTranspose::clone(op)
        };
        let (x, weight, dtype) = (f.input(0)?, f.input(1)?, f.info(0)?.dtype);
        let mut y = f.op(plain, &[x, weight]);
        if after.iter().any(|cut| *cut < 0) {
            let none = std::iter::repeat_n(0, rank + 2);
            let pads = none.chain(after.iter().map(|cut| (-cut).max(0))).collect();
            let zero = f.number(dtype, 0.0)?;
            y = f.pad(Pad { mode: PadMode::Constant, pads: Some(pads) }, y, zero);
        }
        if let Ok(bias) = f.input(2) {
            let spatial: Vec<i64> = (1..rank as i64 - 1).collect();
            let bias = f.unsqueeze(bias, &spatial);
            y = f.binary(BinaryOp::Add, y, bias);
        }
        let mut slot = 3;
        for step in &op.epilogue.0 {
            y = match step {
                Step::Add => {
                    let other = f.input(slot)?;
                    slot += 1;
                    f.binary(BinaryOp::Add, y, other)
                }
                Step::Activation(activation) => f.op(Op::Activation(*activation), &[y]),
            };
        }
        Ok(f.result(y))
    }
}

/// What is taken away at the beginning and the end of each spatial axis of all that is computed; at the end, less than
/// nothing is added.
fn cuts(f: &Formula<'_>, op: &ConvTranspose, root: NodeId) -> Result<(Ints, Ints), Miss> {
    let Some(stated) = &op.output_shape else {
        let (before, after) = op.padding.explicit().ok_or(Miss::NoMatch)?;
        let after = after.iter().zip(&op.output_padding).map(|(pad, extra)| pad - extra).collect();
        return Ok((before.iter().copied().collect(), after));
    };
    let blocked = Miss::Blocked { reason: "a stated output shape of sizes that are not known", at: root };
    let (mut before, mut after) = (Ints::new(), Ints::new());
    for (axis, wanted) in stated.iter().enumerate() {
        let size = |slot: usize| f.shape(slot).map(|shape| shape.get(axis + 2).and_then(Dim::value));
        let (Some(input), Some(kernel)) = (size(0)?, size(1)?) else { return Err(blocked) };
        let at = |values: &[i64], default| values.get(axis).copied().unwrap_or(default);
        let computed = (input - 1) * at(&op.strides, 1) + (kernel - 1) * at(&op.dilations, 1) + 1;
        // ONNX counts the output padding when it halves, and an odd element by the kind of padding.
        let surplus = (computed + at(&op.output_padding, 0) - wanted).max(0);
        let first = if op.padding == Padding::SameUpper { surplus / 2 } else { surplus - surplus / 2 };
        before.push(first);
        after.push(computed - first - wanted);
    }
    Ok((before, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(attrs: &str, epilogue: &str) -> Run {
        run_rule(
            LowerConvTranspose,
            &format!(
                "graph g(%x: f32[1, 4, 3, 5], %w: f32[4, 2, 3, 2], %b: f32[4], %r: f32[1, 4, 10, 11]) -> (%y) {{
                    %y = conv_transpose(%x, %w, %b{epilogue}) strides=[3, 2] dilations=[1, 1] groups=2 {attrs} }}"
            ),
        )
    }

    #[test]
    fn fires_on_output_padding() {
        let run = run("output_padding=[1, 1] padding=[1, 0, 0, 2]", "");
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%x: f32[1, 4, 3, 5], %w: f32[4, 2, 3, 2], %b: f32[4], %r: f32[1, 4, 10, 11]) -> (%y) {
          %y.1 = conv_transpose(%x, %w) strides=[3, 2] dilations=[1, 1] padding=[1, 0, 0, 1] output_padding=[0, 0] groups=2 : f32[1, 4, 8, 9]
          %y.lower_conv_transpose = constant() value=f32[] {0.0}
          %y.2 = pad(%y.1, _, %y.lower_conv_transpose) mode=constant pads=[0, 0, 0, 0, 0, 0, 1, 0] : f32[1, 4, 9, 9]
          %y.3 = unsqueeze(%b) axes=[1, 2] : f32[4, 1, 1]
          %y = add(%y.2, %y.3) : f32[1, 4, 9, 9]
        }
        ");
    }

    #[test]
    fn fires_on_stated_shapes() {
        for shape in ["[10, 8]", "[9, 11]", "[7, 9]", "[12, 12]"] {
            for padding in ["padding=same_upper", "padding=same_lower", ""] {
                for extra in ["[0, 0]", "[1, 1]"] {
                    let attrs = format!("output_shape={shape} {padding} output_padding={extra}");
                    assert_eq!(run(&attrs, "").equal_within(1e-6, 1).rewrites, 1, "{attrs}");
                }
            }
        }
    }

    #[test]
    fn the_epilogue_sees_what_is_added() {
        let attrs = "output_padding=[1, 1] padding=[0, 0, 0, 0] epilogue=[add, sigmoid]";
        assert_eq!(run(attrs, ", %r").equal_within(1e-6, 1).rewrites, 1);
    }

    #[test]
    fn leaves_what_the_padding_gives_back_alone() {
        assert_eq!(run("output_padding=[1, 1] padding=[0, 0, 1, 1]", "").rewrites, 0);
    }

    #[test]
    fn refuses_sizes_that_are_not_known() {
        let text = "graph g(%x: f32[1, 1, w], %w: f32[1, 1, 2]) -> (%y) {
            %y = conv_transpose(%x, %w) strides=[3] dilations=[1] groups=1 output_padding=[0] output_shape=[9] }";
        assert_eq!(run_rule(LowerConvTranspose, text).reasons(), ["a stated output shape of sizes that are not known"]);
    }
}
