//! Attention of windows, masked in five dimensions: those of an image apart from the batch.
//!
//! ```text
//! %1 = add(%scores, %bias) : f32[(64*n), 3, 49, 49]      // bias f32[1, 3, 49, 49]
//! %2 = reshape(%1) shape=[n, 64, 3, 49, 49]
//! %3 = add(%2, %mask)                                    // mask f32[1, 64, 1, 49, 49]
//! %4 = reshape(%3) shape=[(64*n), 3, 49, 49]
//! ```
//! (Swin transformers; Liu et al., 2021.) Of n images it is an attention of 64 * 3 heads, whose mask is that of one image.
//!
//! Such a mask, and what else is added, is constant, and none comes behind it; no mask selects, and no heads are repeated.

use trt_fuse_ir::op::{BinaryOp, Expand};
use trt_fuse_ir::{Dim, Graph, NodeId, Op, OpKind, Patch, Shape, ValueRef};

use crate::layout::Step;

/// The leading sizes of windows' scores.
#[derive(Debug, Clone)]
pub(super) struct Windows {
    batch: Dim,
    /// Of an image.
    windows: Dim,
    heads: Dim,
}

/// Scores that are masked as windows.
pub(super) struct Masked {
    pub(super) windows: Windows,
    pub(super) scores: ValueRef,
    pub(super) mask: ValueRef,
    pub(super) nodes: [NodeId; 3],
}

impl Windows {
    /// A value as scores and the constant mask of their windows.
    pub(super) fn of(graph: &Graph, value: ValueRef) -> Option<Masked> {
        let source = |value: ValueRef| {
            let is_reshape = graph.kind(value.node)? == OpKind::Reshape;
            graph.input(value.node, 0).filter(|_| is_reshape)
        };
        let shape = |value: ValueRef| graph.info(value)?.shape.as_deref();
        let sum = source(value)?;
        if graph.op(sum.node)? != &Op::Binary(BinaryOp::Add) {
            return None;
        }
        let (a, b) = (graph.input(sum.node, 0)?, graph.input(sum.node, 1)?);
        let (apart, mask) = if graph.constant(b).is_some() { (a, b) } else { (b, a) };
        graph.constant(mask)?;
        let scores = source(apart)?;
        let [batch, windows, heads, rest @ ..] = shape(apart)? else { return None };
        let [all, own_heads, own @ ..] = shape(scores)? else { return None };
        let is_split = batch * windows == *all && heads == own_heads && rest == own && rest.len() == 2;
        let is_whole = shape(sum) == shape(apart) && shape(value) == shape(scores);
        let windows = Self { batch: batch.clone(), windows: windows.clone(), heads: heads.clone() };
        let nodes = [value.node, sum.node, apart.node];
        (is_split && is_whole && windows.each().is_some()).then_some(Masked { windows, scores, mask, nodes })
    }

    /// Windows and heads, if both are known and there are any.
    fn each(&self) -> Option<[usize; 2]> {
        let known = |dim: &Dim| usize::try_from(dim.value()?).ok().filter(|size| *size > 0);
        Some([known(&self.windows)?, known(&self.heads)?])
    }

    /// The sum of constant masks of scores, each of one window or all and of one head or all, for all heads of an image.
    pub(super) fn mask(&self, graph: &Graph, patch: &mut Patch, masks: &[ValueRef]) -> Option<ValueRef> {
        let (mut sum, mut all) = (None, [1; 4]);
        for mask in masks {
            let (mask, dims) = self.aligned(graph, patch, *mask)?;
            all = [0, 1, 2, 3].map(|axis| dims[axis].max(all[axis]));
            sum = Some(sum.map_or(mask, |before| patch.add(Op::Binary(BinaryOp::Add), &[Some(before), Some(mask)])));
        }
        let [windows, heads, rows, columns] = all;
        let (mut mask, each) = (sum?, self.each()?);
        if [windows, heads] == [1, 1] {
            return Some(mask);
        }
        if [windows, heads] != each {
            mask = patch.add(Expand { shape: Some(shape_of(&[each[0], each[1], rows, columns])) }, &[Some(mask)]);
        }
        let heads = each[0].checked_mul(each[1])?;
        Some(Step::Reshape(shape_of(&[1, heads, rows, columns])).add(patch, mask))
    }

    /// A constant mask, of four dimensions at most, and its sizes in windows, heads, rows and columns.
    fn aligned(&self, graph: &Graph, patch: &mut Patch, mask: ValueRef) -> Option<(ValueRef, [usize; 4])> {
        let mut dims = graph.constant(mask)?.dims().to_vec();
        let rank = dims.len();
        // Of images there may be one.
        let lead = rank.saturating_sub(4);
        if dims.drain(..lead).any(|dim| dim != 1) {
            return None;
        }
        dims.splice(..0, std::iter::repeat_n(1, 4_usize.saturating_sub(rank)));
        let dims: [usize; 4] = dims.try_into().ok()?;
        let fits = self.each()?.into_iter().zip(dims).all(|(all, own)| own == 1 || own == all) && !dims.contains(&0);
        let value = if lead > 0 { Step::Reshape(shape_of(&dims)).add(patch, mask) } else { mask };
        fits.then_some((value, dims))
    }

    /// The shape of queries, keys or values of so many rows and columns.
    pub(super) fn shape(&self, [rows, columns]: [Dim; 2]) -> Shape {
        [self.batch.clone(), &self.windows * &self.heads, rows, columns].into_iter().collect()
    }
}

fn shape_of(dims: &[usize]) -> Shape {
    dims.iter().copied().map(Dim::from).collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use crate::fuse_attention::FuseAttention;
    use crate::testing::{Run, run_rule};

    /// Two heads of a batch of images of three windows of two queries and three keys.
    fn run(constants: &str, scores: &str) -> Run {
        run_to("%y", constants, scores)
    }

    fn run_to(outputs: &str, constants: &str, scores: &str) -> Run {
        run_rule(
            FuseAttention,
            &format!(
                "graph g(%x: f32[n, 3, 2, 2, 4], %k: f32[(3*n), 2, 3, 4], %v: f32[(3*n), 2, 3, 5], %m: f32[3, 1, 2, 3]) -> ({outputs}) {{
                %mask = constant() value=f32[1, 3, 1, 1, 3] {{0, 1, 2, 3, 4, 5, 6, 7, 8}} {constants}
                %q = reshape(%x) shape=[(3*n), 2, 2, 4]
                %s = matmul(%q, %k) transpose_b=true {scores} %w = softmax(%z) axis=-1 %y = matmul(%w, %v) }}"
            ),
        )
    }

    const MASKED: &str =
        "%a = reshape(%s) shape=[n, 3, 2, 2, 3] %b = add(%a, %mask) %z = reshape(%b) shape=[(3*n), 2, 2, 3]";

    #[test]
    fn fires_on_a_mask_of_windows() {
        assert_snapshot!(run("", MASKED).equal_within(1e-5, 2).after, @"
        graph g(%x: f32[n, 3, 2, 2, 4], %k: f32[3*n, 2, 3, 4], %v: f32[3*n, 2, 3, 5], %m: f32[3, 1, 2, 3]) -> (%y) {
          %q = reshape(%x) shape=[(3*n), 2, 2, 4] : f32[3*n, 2, 2, 4]
          %y.1 = reshape(%q) shape=[n, 6, 2, 4] : f32[n, 6, 2, 4]
          %y.2 = reshape(%k) shape=[n, 6, 3, 4] : f32[n, 6, 3, 4]
          %y.3 = reshape(%v) shape=[n, 6, 3, 5] : f32[n, 6, 3, 5]
          %mask = constant() value=f32[1, 3, 1, 1, 3] {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}
          %y.4 = reshape(%mask) shape=[3, 1, 1, 3] : f32[3, 1, 1, 3]
          %y.5 = expand(%y.4) shape=[3, 2, 1, 3] : f32[3, 2, 1, 3]
          %y.6 = reshape(%y.5) shape=[1, 6, 1, 3] : f32[1, 6, 1, 3]
          %y.7 = attention(%y.1, %y.2, %y.3, %y.6) scale=1.0 causal=none scores=product : f32[n, 6, 2, 5]
          %y = reshape(%y.7) shape=[(3*n), 2, 2, 5] : f32[3*n, 2, 2, 5]
        }
        ");
    }

    #[test]
    fn fires_on_every_mask_beside_it() {
        for (bias, fires) in [
            ("%c = constant() value=f32[1, 2, 1, 3] {0, 1, 2, 3, 4, 5}", 1),
            ("%c = constant() value=f32[2, 2, 1] {0, 1, 2, 3}", 1),
            ("%c = constant() value=f32[2, 3] {0, 1, 2, 3, 4, 5}", 1),
            ("%c = constant() value=f32[] {2}", 1),
            // Another for each image is none for all.
            ("%c = reduce(%k) kind=sum axes=[1, 2, 3] keep_dims=true", 0),
        ] {
            let masked = MASKED.replace("%s)", "%biased)");
            let run = run(bias, &format!("%biased = add(%s, %c) {masked}"));
            assert_eq!(run.equal_within(1e-5, 2).rewrites, fires, "{bias}");
        }
        // Before and after the scale, on the right and on the left.
        for scores in [
            MASKED.replace("add(%a, %mask)", "add(%mask, %a)"),
            format!("%half = constant() value=f32[] {{0.5}} %t = mul(%s, %half) {}", MASKED.replace("%s)", "%t)")),
        ] {
            assert_eq!(run("", &scores).equal_within(1e-5, 2).rewrites, 1, "{scores}");
        }
        for mask in
            ["f32[3, 2, 1, 1] {0, 1, 2, 3, 4, 5}", "f32[2, 1, 3] {0, 1, 2, 3, 4, 5}", "f32[1, 1, 1, 2, 1] {0, 1}"]
        {
            let constant = format!("%other = constant() value={mask}");
            let run = run(&constant, &MASKED.replace("%mask", "%other"));
            assert_eq!(run.equal_within(1e-5, 2).rewrites, 1, "{mask}");
        }
    }

    #[test]
    fn fires_on_transposed_keys_and_values() {
        let text = "graph g(%x: f32[n, 3, 2, 2, 4], %k: f32[(3*n), 2, 4, 3], %v: f32[(3*n), 2, 5, 3]) -> (%y) {
            %mask = constant() value=f32[3, 1, 1, 3] {0, 1, 2, 3, 4, 5, 6, 7, 8} %q = reshape(%x) shape=[(3*n), 2, 2, 4]
            %s = matmul(%q, %k) %a = reshape(%s) shape=[n, 3, 2, 2, 3] %b = add(%a, %mask)
            %z = reshape(%b) shape=[(3*n), 2, 2, 3] %w = softmax(%z) axis=3 %y = matmul(%w, %v) transpose_b=true }";
        assert_eq!(run_rule(FuseAttention, text).equal_within(1e-5, 2).rewrites, 1);
    }

    #[test]
    fn leaves_masks_of_each_image_and_images_without_windows_alone() {
        for (images, windows, mask) in [(2, 3, "[2, 3, 1, 1, 1]"), (2, 0, "[1, 1, 1, 1, 3]"), (0, 2, "[0, 1, 1, 1, 1]")]
        {
            let all = images * windows;
            let text = format!(
                "graph g(%q: f32[{all}, 2, 2, 4], %k: f32[{all}, 2, 3, 4], %v: f32[{all}, 2, 3, 5]) -> (%y) {{
                %mask = constant() value=f32{mask} splat 1 %s = matmul(%q, %k) transpose_b=true
                %a = reshape(%s) shape=[{images}, {windows}, 2, 2, 3] allow_zero=true %b = add(%a, %mask)
                %z = reshape(%b) shape=[{all}, 2, 2, 3] allow_zero=true %w = softmax(%z) axis=-1 %y = matmul(%w, %v) }}"
            );
            assert_eq!(run_rule(FuseAttention, &text).rewrites, 0, "{text}");
        }
    }

    #[test]
    fn refuses_a_mask_with_another_reader() {
        let reason = "output of `b` also read by `an output of the graph`";
        assert_eq!(run_to("%y, %b", "", MASKED).reasons(), [reason]);
    }

    #[test]
    fn leaves_others_alone() {
        for scores in [
            // A mask that is no constant, another operator, axes that are split otherwise.
            MASKED.replace("%mask", "%m"),
            MASKED.replace("add(", "mul("),
            MASKED.replace("[n, 3, 2, 2, 3]", "[3, n, 2, 2, 3]").replace("%mask", "%one"),
            MASKED.replace("[n, 3, 2, 2, 3]", "[(3*n), 2, 1, 2, 3]").replace("%mask", "%one"),
            MASKED.replace("[n, 3, 2, 2, 3]", "[n, 3, 2, 3, 2]").replace("%mask", "%one"),
            // A mask that selects, beside that of the windows.
            format!(
                "%low = constant() value=f32[] {{-inf}} %sees = constant() value=bool[3] {{true, false, true}}
                %t = where(%sees, %s, %low) {}",
                MASKED.replace("%s)", "%t)")
            ),
        ] {
            let run = run("%one = constant() value=f32[1] {1}", &scores);
            assert_eq!(run.rewrites, 0, "{scores}\n{}", run.after);
        }
    }
}
