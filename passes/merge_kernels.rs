//! Merges convolutions of one input with kernels of several sizes, whose results are joined, into one of the largest kernel.
//!
//! ```text
//! %a = conv(%x, %w1) ..                      f32[n, 64, h, w] by a kernel of 1x1
//! %b = conv(%x, %w3) padding=[1, 1, 1, 1] ..                  and of 3x3
//! %y = concat(%a, %b) axis=1
//! ```
//! becomes
//! ```text
//! %1 = pad(%w1) pads=[0, 0, 1, 1, 0, 0, 1, 1]
//! %2 = concat(%1, %w3) axis=0
//! %3 = conv(%x, %2) padding=[1, 1, 1, 1] ..
//! %a, %b = split(%3) axis=1 sizes=[64, 64]   which the concat takes back
//! ```
//!
//! Fires on convolutions with equal strides, dilations and epilogue that one concatenation alone reads, next to each other,
//! if zeros around the smaller kernels make them as large as the largest of these neighbours, and
//! [`Siblings`](crate::Siblings) has them merged. The zeros are multiplied: one kernel stands against more arithmetic, so that
//! `auto` takes planes in f32 or f16, and no more of them than was measured to gain; of f32 where f16 is allowed, as many as of f16.
//!
//! Refuses: "such siblings are merged only if asked for"; "the zeros may take longer to multiply than a kernel to start"; beyond
//! [`Options::fold_budget`](crate::Options), "the weights are read elsewhere and too large to be copied" and "the weights would
//! grow too large". One with groups, a residual, or weights that
//! are not constant is no sibling; those whose kernels are of one size are for `merge_convolutions`.
//!
//! Order: before `merge_convolutions`, which takes some of them otherwise; `drop_split_concat` takes the split away.
//!
//! Numerics: bit-exact but for the convolution's own order of sums, and NaN where an infinity is multiplied by a zero.

use trt_fuse_ir::op::{Concat, Conv, Pad, PadMode, Split};
use trt_fuse_ir::{DType, Dim, Graph, Ints, NodeId, Op, OpKind, Patch, Step, Tensor, ValueRef, numel};

use crate::fold_constants::bytes_freed;
use crate::pass::{Miss, Rule, RuleContext};
use crate::siblings::{MOST_MULTIPLIED, MOST_MULTIPLIED_HALF, Pattern, Siblings, check_budget, side_by_side};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct MergeKernels;

impl Rule for MergeKernels {
    fn name(&self) -> &'static str {
        "merge_kernels"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Concat]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Concat(Concat { axis: 1 })) = graph.op(root) else { return Err(Miss::NoMatch) };
        let parts: Vec<Option<Part<'_>>> =
            graph.node_inputs(root).iter().map(|value| Part::of(graph, (*value)?.node)).collect();
        let mut refusal = Miss::NoMatch;
        for (largest, growths) in grown_runs(&parts) {
            match self.merged(graph, largest, growths, context) {
                Err(miss) if matches!(refusal, Miss::NoMatch) => refusal = miss,
                Err(_) => {}
                patch => return patch,
            }
        }
        Err(refusal)
    }
}

/// A convolution, and the zeros that its kernel takes before and after each axis.
type Grown<'p, 'g> = (&'p Part<'g>, Ints);

impl MergeKernels {
    fn merged(
        &self,
        graph: &Graph,
        largest: &Part<'_>,
        growths: Vec<Grown<'_, '_>>,
        context: &RuleContext<'_>,
    ) -> Result<Patch, Miss> {
        let siblings: Vec<NodeId> = growths.iter().map(|(part, _)| part.id).collect();
        Pattern::Kernels.check(&siblings, context)?;
        if context.options.siblings == Siblings::Auto && !gains(graph, largest, &siblings, context) {
            let reason = "the zeros may take longer to multiply than a kernel to start";
            return Err(Miss::Blocked { reason, at: largest.id });
        }
        check_budget(graph, &siblings, context)?;
        if growths.iter().any(|(part, growth)| part.grown_bytes(growth, graph) > context.options.fold_budget) {
            return Err(Miss::Blocked { reason: "the weights would grow too large", at: largest.id });
        }

        let mut patch = Patch::new(self.name(), largest.id);
        let channels = growths.iter().map(|(part, _)| part.weight.dims().first().copied());
        let sizes: Vec<usize> = channels.collect::<Option<_>>().ok_or(Miss::NoMatch)?;
        let mut weights = Vec::with_capacity(growths.len());
        for (part, growth) in growths {
            let weight = graph.input(part.id, 1);
            let is_smaller = growth.iter().any(|zeros| *zeros > 0);
            let pad = Pad { mode: PadMode::Constant, pads: Some(growth) };
            weights.push(if is_smaller { Some(patch.add(pad, &[weight])) } else { weight });
        }
        let weight = patch.add(Concat { axis: 0 }, &weights);
        let bias = side_by_side(&mut patch, graph, &siblings, 2, &sizes, 0)?;
        let wide = patch.add(largest.op.clone(), &[Some(largest.input), Some(weight), bias]);
        let sizes = sizes.into_iter().map(Dim::from).collect();
        let split = patch.add_many(Split { axis: 1, sizes: Some(sizes) }, &[Some(wide)], siblings.len());
        for (slot, id) in (0..).zip(&siblings) {
            patch.replace((*id).into(), ValueRef { node: split, slot });
        }
        patch.absorb(siblings);
        Ok(patch)
    }
}

/// Whether siblings merged take no more arithmetic than was measured to gain.
fn gains(graph: &Graph, largest: &Part<'_>, siblings: &[NodeId], context: &RuleContext<'_>) -> bool {
    let is_measured = matches!(largest.weight.dtype(), DType::F32 | DType::F16) && largest.kernel.len() == 2;
    let products = |id: &NodeId| {
        let outputs = graph.info((*id).into())?.shape.as_ref()?;
        let each = largest.weight.dims().iter().skip(1).map(|size| i64::try_from(*size).ok());
        outputs.iter().map(Dim::value).chain(each).try_fold(1_i64, |product, size| product.checked_mul(size?))
    };
    let all = siblings.iter().try_fold(0_i64, |sum, id| sum.checked_add(products(id)?));
    let is_half = context.options.half || largest.weight.dtype() == DType::F16;
    let most = if is_half { MOST_MULTIPLIED_HALF } else { MOST_MULTIPLIED };
    is_measured && all.is_some_and(|all| all <= most)
}

/// Neighbours of one form that zeros give the kernel of the largest among them, and the zeros.
fn grown_runs<'p, 'g>(
    parts: &'p [Option<Part<'g>>],
) -> impl Iterator<Item = (&'p Part<'g>, Vec<Grown<'p, 'g>>)> + use<'p, 'g> {
    let is_alike = |a: &Option<Part<'g>>, b: &Option<Part<'g>>| match (a, b) {
        (Some(a), Some(b)) => a.is_alike(b),
        _ => false,
    };
    parts.chunk_by(is_alike).filter_map(|run| {
        let size = |part: &Part<'_>| part.kernel.iter().product::<usize>();
        let (at, largest) = run
            .iter()
            .enumerate()
            .filter_map(|(at, part)| Some((at, part.as_ref()?)))
            .max_by_key(|(_, part)| size(part))?;
        let grown = |part: &'p Option<Part<'g>>| {
            let part = part.as_ref()?;
            Some((part, part.growth(largest)?))
        };
        let (before, after) = run.split_at_checked(at)?;
        let mut found: Vec<_> = before.iter().rev().map_while(grown).collect();
        found.reverse();
        found.extend(after.iter().map_while(grown));
        let grows = found.iter().any(|(_, growth)| growth.iter().any(|zeros| *zeros > 0));
        grows.then_some((largest, found))
    })
}

/// A convolution that may be merged.
struct Part<'g> {
    id: NodeId,
    input: ValueRef,
    op: &'g Conv,
    weight: &'g Tensor,
    /// The kernel's sizes.
    kernel: &'g [usize],
    before: &'g [i64],
    after: &'g [i64],
}

impl<'g> Part<'g> {
    fn of(graph: &'g Graph, id: NodeId) -> Option<Self> {
        let Op::Conv(op) = graph.op(id)? else { return None };
        let (input, weight) = (graph.input(id, 0)?, graph.constant(graph.input(id, 1)?)?);
        let kernel = weight.dims().get(2..)?;
        let is_constant = graph.input(id, 2).is_none_or(|bias| graph.constant(bias).is_some());
        let is_plain = op.groups == 1 && !op.epilogue.0.contains(&Step::Add);
        let (before, after) = op.padding.explicit()?;
        let is_joined = graph.sole_consumer(id.into()).is_some();
        (is_constant && is_plain && is_joined).then_some(Self { id, input, op, weight, kernel, before, after })
    }

    /// Whether another one reads the same and does the same, but for its kernel and padding.
    fn is_alike(&self, other: &Self) -> bool {
        let form = |part: &Self| (part.input, part.weight.dtype(), part.weight.dims().get(1).copied());
        let (a, b) = (self.op, other.op);
        form(self) == form(other) && (&a.strides, &a.dilations, &a.epilogue) == (&b.strides, &b.dilations, &b.epilogue)
    }

    /// Bytes that its weight takes more with zeros around it; folding it takes these.
    fn grown_bytes(&self, growth: &[i64], graph: &Graph) -> usize {
        let (front, back) = growth.split_at(growth.len() / 2);
        let zeros = front
            .iter()
            .zip(back)
            .map(|(front, back)| front.checked_add(*back).and_then(|zeros| usize::try_from(zeros).ok()));
        let dims: Option<Vec<usize>> =
            self.weight.dims().iter().zip(zeros).map(|(size, zeros)| size.checked_add(zeros?)).collect();
        let grown = dims.and_then(|dims| self.weight.dtype().byte_len(numel(&dims)?)).unwrap_or(usize::MAX);
        let freed = graph.input(self.id, 1).map_or(0, |weight| bytes_freed(graph, weight));
        if growth.iter().any(|zeros| *zeros > 0) { grown.saturating_sub(freed) } else { 0 }
    }

    /// The zeros before and after each axis of the weight that give it the kernel and padding of another; `None` if none do.
    fn growth(&self, largest: &Self) -> Option<Ints> {
        // An element more of the kernel is a dilation more of padding.
        let zeros = |own: i64, wanted: i64, dilation: i64| {
            let missing = wanted.checked_sub(own)?;
            (missing >= 0 && missing.checked_rem(dilation)? == 0).then(|| missing / dilation)
        };
        let (mut front, mut back) = (Ints::from_slice(&[0, 0]), Ints::from_slice(&[0, 0]));
        for axis in 0..self.kernel.len() {
            let dilation = *self.op.dilations.get(axis)?;
            let first = zeros(*self.before.get(axis)?, *largest.before.get(axis)?, dilation)?;
            let last = zeros(*self.after.get(axis)?, *largest.after.get(axis)?, dilation)?;
            let grown = i64::try_from(*self.kernel.get(axis)?).ok()?.checked_add(first)?.checked_add(last)?;
            if usize::try_from(grown).ok()? != *largest.kernel.get(axis)? {
                return None;
            }
            front.push(first);
            back.push(last);
        }
        front.extend(back);
        Some(front)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use crate::Siblings;
    use crate::testing::{Run, run_rule_on_siblings, run_rule_with};

    const FORM: &str = "strides=[1, 1] dilations=[1, 1] groups=1 epilogue=[relu]";

    fn text(body: &str) -> String {
        format!(
            "graph g(%x: f32[n, 2, 5, 4], %run: f32[1, 2, 1, 1]) -> (%y) {{
            %w1 = constant() value=f32[1, 2, 1, 1] {{1.0, -2.0}}
            %w3 = constant() value=f32[2, 2, 3, 3] splat 0.5
            %row = constant() value=f32[1, 2, 1, 3] {{1.0, 2.0, -1.0, 0.5, 0.25, 3.0}}
            %column = constant() value=f32[1, 2, 3, 1] {{0.5, 2.0, 1.0, 1.5, -0.25, 1.0}}
            %b1 = constant() value=f32[1] {{0.5}} %b3 = constant() value=f32[2] {{1.0, -1.0}} {body} }}"
        )
    }

    fn run(body: &str) -> Run {
        run_rule_on_siblings(MergeKernels, Siblings::Always, &text(body))
    }

    #[test]
    fn fires_on_two_sizes() {
        let run = run(&format!(
            "%a = conv(%x, %w1, %b1) {FORM} %b = conv(%x, %w3) {FORM} padding=[1, 1, 1, 1] %y = concat(%a, %b) axis=1"
        ));
        insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 2, 5, 4], %run: f32[1, 2, 1, 1]) -> (%y) {
          %w1 = constant() value=f32[1, 2, 1, 1] {1.0, -2.0}
          %b.1 = pad(%w1) mode=constant pads=[0, 0, 1, 1, 0, 0, 1, 1] : f32[1, 2, 3, 3]
          %w3 = constant() value=f32[2, 2, 3, 3] splat 0.5
          %b.2 = concat(%b.1, %w3) axis=0 : f32[3, 2, 3, 3]
          %b1 = constant() value=f32[1] {0.5}
          %b.merge_kernels = constant() value=f32[2] {0.0, 0.0}
          %b.3 = concat(%b1, %b.merge_kernels) axis=0 : f32[3]
          %b.4 = conv(%x, %b.2, %b.3) strides=[1, 1] dilations=[1, 1] padding=[1, 1, 1, 1] groups=1 epilogue=[relu] : f32[n, 3, 5, 4]
          %a, %b = split(%b.4) axis=1 sizes=[1, 2] : f32[n, 1, 5, 4], f32[n, 2, 5, 4]
          %y = concat(%a, %b) axis=1 : f32[n, 3, 5, 4]
        }
        ");
    }

    #[test]
    fn fires_on_rows_and_columns_beside_a_square_in_the_order_of_the_concatenation() {
        let row = format!("%a = conv(%x, %row) {FORM} padding=[0, 1, 0, 1]");
        let column = format!("%b = conv(%x, %column, %b1) {FORM} padding=[1, 0, 1, 0]");
        let square = format!("%c = conv(%x, %w3, %b3) {FORM} padding=[1, 1, 1, 1]");
        let run = run(&format!("{row} {column} {square} %r = relu(%x) %y = concat(%r, %b, %c, %a) axis=1"));
        run.equal_within(1e-6, 2);
        assert_eq!(run.rewrites, 1);
        let split = "%b, %c, %a = split(%c.5) axis=1 sizes=[1, 2, 1]";
        assert!(run.after.to_string().contains(split), "{}", run.after);
    }

    #[test]
    fn fires_beside_a_larger_kernel_of_something_else() {
        let pair = format!("%a = conv(%x, %w1) {FORM} %b = conv(%x, %w3) {FORM} padding=[1, 1, 1, 1]");
        let other = "%r = relu(%x) %w5 = constant() value=f32[1, 2, 5, 5] splat 1.0";
        let tanh = FORM.replace("relu", "tanh");
        for third in [
            format!("{other} %c = conv(%r, %w5) {FORM} padding=[2, 2, 2, 2]"),
            format!("%c = conv(%x, %w3) {tanh} padding=[1, 1, 1, 1]"),
        ] {
            let run = run(&format!("{pair} {third} %y = concat(%a, %b, %c) axis=1"));
            assert_eq!(run.equal_within(1e-6, 2).rewrites, 1, "{third}");
        }
    }

    #[test]
    fn refuses_weights_that_would_grow_too_large() {
        let form = "strides=[1, 1] dilations=[1, 1] groups=1";
        let w = (0..256 * 256).map(|at| (at % 7).to_string()).collect::<Vec<_>>().join(", ");
        let text = format!(
            "graph g(%x: f32[n, 256, 4, 4]) -> (%y) {{
            %w = constant() value=f32[256, 256, 1, 1] {{{w}}}
            %v = constant() value=f32[1, 256, 3, 3] splat 1.0
            %a = conv(%x, %w) {form} %b = conv(%x, %v) {form} padding=[1, 1, 1, 1] %y = concat(%a, %b) axis=1 }}"
        );
        let run = run_rule_on_siblings(MergeKernels, Siblings::Always, &text);
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["the weights would grow too large"]));
    }

    #[test]
    fn fires_on_strides_and_dilations() {
        let form = "strides=[2, 1] dilations=[1, 2] groups=1";
        let run = run(&format!(
            "%a = conv(%x, %w1) {form} %b = conv(%x, %w3, %b3) {form} padding=[1, 2, 1, 2] %y = concat(%a, %b) axis=1"
        ));
        assert_eq!(run.equal_within(1e-6, 2).rewrites, 1);
    }

    #[test]
    fn refuses_what_is_not_asked_for() {
        let body = format!(
            "%a = conv(%x, %w1) {FORM} %b = conv(%x, %w3) {FORM} padding=[1, 1, 1, 1] %y = concat(%a, %b) axis=1"
        );
        let run = run_rule_on_siblings(MergeKernels, Siblings::Never, &text(&body));
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
    }

    /// Two sizes, of as many places.
    fn places(dtype: &str, places: &str, half: bool) -> Run {
        let form = "strides=[1, 1] dilations=[1, 1] groups=1";
        let text = format!(
            "graph g(%x: {dtype}[{places}]) -> (%y) {{
            %w = constant() value={dtype}[64, 16, 1, 1] splat 0.5
            %v = constant() value={dtype}[64, 16, 3, 3] splat 0.25
            %a = conv(%x, %w) {form} %b = conv(%x, %v) {form} padding=[1, 1, 1, 1] %y = concat(%a, %b) axis=1 }}"
        );
        run_rule_with(MergeKernels, &Options { half, ..Options::default() }, &text)
    }

    #[test]
    fn fires_by_itself_on_few_products() {
        for (dtype, images, half) in [("f32", 1, false), ("f32", 32, true), ("f16", 32, false)] {
            assert_eq!(places(dtype, &format!("{images}, 16, 55, 55"), half).rewrites, 1);
        }
    }

    #[test]
    fn fires_behind_what_is_too_much() {
        let form = "strides=[1, 1] dilations=[1, 1] groups=1";
        let large = format!("%a = conv(%x, %w) {form} %b = conv(%x, %v) {form} padding=[1, 1, 1, 1]");
        let small = format!("%c = conv(%z, %t) {form} %d = conv(%z, %u) {form} padding=[1, 1, 1, 1]");
        for names in ["%a, %b, %c, %d", "%c, %d, %a, %b"] {
            let text = format!(
                "graph g(%x: f16[1, 512, 56, 56], %z: f16[1, 2, 56, 56]) -> (%y) {{
                %w = constant() value=f16[64, 512, 1, 1] splat 0.5 %v = constant() value=f16[64, 512, 3, 3] splat 0.25
                %t = constant() value=f16[2, 2, 1, 1] splat 0.5 %u = constant() value=f16[2, 2, 3, 3] splat 0.25
                {large} {small} %y = concat({names}) axis=1 }}"
            );
            let run = run_rule_with(MergeKernels, &Options::default(), &text);
            assert_eq!(run.rewrites, 1, "{names}");
            assert!(run.after.to_string().contains("%c, %d = split"), "{}", run.after);
        }
    }

    #[test]
    fn leaves_padding_alone_that_is_no_kernel() {
        let form = "strides=[1] dilations=[1]";
        let far = i64::MAX;
        let run = run_rule_on_siblings(
            MergeKernels,
            Siblings::Always,
            &format!(
                "graph g(%x: f32[1, 2, n]) -> (%y) {{
                %w = constant() value=f32[1, 2, 1] splat 1.0 %v = constant() value=f32[1, 2, 3] splat 1.0
                %a = conv(%x, %w) {form} groups=1 %b = conv(%x, %v) {form} groups=1 padding=[{far}, {far}]
                %y = concat(%a, %b) axis=1 }}"
            ),
        );
        assert_eq!(run.rewrites, 0);
    }

    #[test]
    fn refuses_many_products_and_other_types() {
        for run in [
            places("f32", "1, 16, 55, 56", false),
            places("f32", "32, 16, 55, 56", true),
            places("f16", "33, 16, 55, 55", false),
            places("f16", "n, 16, 55, 55", false),
            places("f64", "1, 16, 55, 55", false),
        ] {
            let reason = "the zeros may take longer to multiply than a kernel to start";
            assert_eq!((run.rewrites, run.reasons()), (0, vec![reason]));
        }
    }

    #[test]
    fn refuses_to_copy_large_weights() {
        let form = "strides=[1, 1] dilations=[1, 1] groups=1";
        let text = format!(
            "graph g(%x: f32[n, 512, 4, 4]) -> (%y, %z) {{
            %w = constant() value=f32[512, 512, 1, 1] splat 1.0
            %v = constant() value=f32[512, 512, 3, 3] splat 1.0
            %a = conv(%x, %w) {form} %b = conv(%x, %v) {form} padding=[1, 1, 1, 1] %y = concat(%a, %b) axis=1
            %u = conv(%x, %v) {form} padding=[2, 2, 2, 2] %z = relu(%u) }}"
        );
        let run = run_rule_on_siblings(MergeKernels, Siblings::Always, &text);
        let reason = "the weights are read elsewhere and too large to be copied";
        assert_eq!((run.rewrites, run.reasons()), (0, vec![reason]));
    }

    #[test]
    fn leaves_others_alone() {
        let square = format!("%b = conv(%x, %w3) {FORM} padding=[1, 1, 1, 1]");
        for body in [
            // One size; a weight of run time; groups.
            format!("%a = conv(%x, %w3) {FORM} padding=[1, 1, 1, 1] {square} %y = concat(%a, %b) axis=1"),
            format!("%a = conv(%x, %run) {FORM} {square} %y = concat(%a, %b) axis=1"),
            format!(
                "%g = constant() value=f32[2, 1, 1, 1] {{1, 2}} %a = conv(%x, %g) {} {square} %y = concat(%a, %b) axis=1",
                FORM.replace("groups=1", "groups=2")
            ),
            // Padding that no zeros make equal, another epilogue, input or reader.
            format!("%a = conv(%x, %column) {FORM} padding=[2, 0, 0, 0] {square} %y = concat(%a, %b) axis=1"),
            format!("%a = conv(%x, %w1) {} {square} %y = concat(%a, %b) axis=1", FORM.replace("relu", "tanh")),
            format!("%r = relu(%x) %a = conv(%r, %w1) {FORM} {square} %y = concat(%a, %b) axis=1"),
            format!("%a = conv(%x, %w1) {FORM} {square} %c = concat(%a, %b) axis=1 %y = add(%c, %a)"),
            // Apart from each other, which would leave a split.
            format!("%a = conv(%x, %w1) {FORM} {square} %r = relu(%x) %y = concat(%a, %r, %b) axis=1"),
        ] {
            let run = run(&body);
            assert_eq!((run.rewrites, run.reasons()), (0, vec![]), "{body}");
        }
    }
}
