//! Merges products of one input with several constant matrices into one wide product.
//!
//! ```text
//! %q = matmul(%x, %wq, %bq) epilogue=[add]      %1 = matmul(%x, %w, %b) epilogue=[add]
//! %k = matmul(%x, %wk, %bk) epilogue=[add]      %q, %k, %v = split(%1) axis=-1 sizes=[64, 64, 64]
//! %v = matmul(%x, %wv, %bv) epilogue=[add]
//! ```
//! where w and b are the concatenated weights and biases.
//!
//! Fires on three products or more whose results are equally large and go through the same reshape: `sink_parts` then
//! takes the split away where TensorRT does not find the attention itself, and what is left is the queries, keys and values of
//! attention as one tensor. Fires on two or more
//! that are read as they are, such as the gate of a gated network and what it lets through. With
//! [`Siblings::Always`](crate::Siblings), on any others too.
//!
//! Not looked for among more than 256 readers of one tensor.
//!
//! Refuses: "such siblings are merged only if asked for"; "a sibling's weights or bias are no constants of the same
//! form"; "the weights are read elsewhere and too large to be copied" beyond
//! [`Options::fold_budget`](crate::Options), with which they would be joined at run time.
//!
//! Order: after the rules that fold into weights and biases; before `fuse_residual` and `fuse_activation`.
//!
//! Numerics: bit-exact but for the product's own order of sums.

use trt_fuse_ir::op::MatMul;
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch};

use crate::layout::Step;
use crate::pass::{Miss, Rule, RuleContext};
use crate::siblings::{Axes, Pattern, merge, siblings_of};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct MergeSiblings;

impl Rule for MergeSiblings {
    fn name(&self) -> &'static str {
        "merge_siblings"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::MatMul]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::MatMul(op)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let siblings = match of_one_layout(graph, root, op, context) {
            Err(Miss::NoMatch) => others(graph, root, op, context)?,
            found => found?,
        };
        let sizes: Option<Vec<usize>> = siblings.iter().map(|id| columns(graph, *id)).collect();
        let axes = Axes { weight: if op.transpose_b { 0 } else { 1 }, result: -1 };
        merge(self.name(), graph, &siblings, &sizes.ok_or(Miss::NoMatch)?, axes, context)
    }
}

/// Products whose results become one tensor, as their reshapes do.
fn of_one_layout(graph: &Graph, root: NodeId, op: &MatMul, context: &RuleContext<'_>) -> Result<Vec<NodeId>, Miss> {
    let step = layout_of(graph, root).ok_or(Miss::NoMatch)?;
    let columns = columns(graph, root).ok_or(Miss::NoMatch)?;
    let fits = |id| layout_of(graph, id).as_ref() == Some(&step) && self::columns(graph, id) == Some(columns);
    let siblings = siblings_of(graph, root, fits).ok_or(Miss::NoMatch)?;
    Pattern::ProductsOfOneLayout.check(&siblings, context)?;
    match siblings.iter().find(|id| !has_constants(graph, **id, op)) {
        Some(at) => {
            Err(Miss::Blocked { reason: "a sibling's weights or bias are no constants of the same form", at: *at })
        }
        None => Ok(siblings),
    }
}

/// Products with constants.
fn others(graph: &Graph, root: NodeId, op: &MatMul, context: &RuleContext<'_>) -> Result<Vec<NodeId>, Miss> {
    let siblings = siblings_of(graph, root, |id| has_constants(graph, id, op)).ok_or(Miss::NoMatch)?;
    let are_laid_out =
        siblings.iter().any(|id| graph.consumers((*id).into()).iter().any(|reader| is_layout(graph, reader.node)));
    let pattern = if are_laid_out { Pattern::ProductsOfLayouts } else { Pattern::Products };
    pattern.check(&siblings, context)?;
    Ok(siblings)
}

/// Whether a node gives the same elements another shape or order, as of heads.
fn is_layout(graph: &Graph, id: NodeId) -> bool {
    let layouts =
        [OpKind::Reshape, OpKind::Transpose, OpKind::Shuffle, OpKind::Squeeze, OpKind::Unsqueeze, OpKind::Flatten];
    graph.kind(id).is_some_and(|kind| layouts.contains(&kind))
}

/// The reshape that alone reads a product.
fn layout_of(graph: &Graph, id: NodeId) -> Option<Step> {
    let reader = graph.sole_consumer(id.into())?;
    match Step::of(graph, reader.node)? {
        step @ Step::Reshape(_) => Some(step),
        Step::Transpose(_) => None,
    }
}

/// The number of columns of a product.
fn columns(graph: &Graph, id: NodeId) -> Option<usize> {
    usize::try_from(graph.info(id.into())?.shape.as_ref()?.last()?.value()?).ok()
}

/// Whether a product has a constant matrix, and an epilogue only of constant vectors as long as its rows.
fn has_constants(graph: &Graph, id: NodeId, op: &MatMul) -> bool {
    let inputs = graph.node_inputs(id);
    let Some(columns) = columns(graph, id) else { return false };
    let dims =
        |slot: usize| inputs.get(slot).copied().flatten().and_then(|value| graph.constant(value)).map(|c| c.dims());
    let is_matrix = matches!((dims(1), op.transpose_b), (Some([_, n]), false) | (Some([n, _]), true) if *n == columns);
    is_matrix && (2..inputs.len()).all(|slot| matches!(dims(slot), Some([n]) if *n == columns))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use trt_fuse_ir::{Capabilities, Graph};

    use super::*;
    use crate::testing::{run_rule, run_rule_on_siblings};
    use crate::{Options, Pass, PassContext, Rules, Siblings};

    const HEADS: &str =
        "%a = reshape(%q) shape=[n, 2, 2] %b = reshape(%k) shape=[n, 2, 2] %c = reshape(%v) shape=[n, 2, 2]";

    fn text(products: &str, rest: &str) -> String {
        format!(
            "graph g(%x: f32[n, 2], %run: f32[2, 4]) -> (%a, %b, %c) {{
            %wq = constant() value=f32[2, 4] {{1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}}
            %wk = constant() value=f32[2, 4] {{1.0, -2.0, 3.0, -4.0, 5.0, -6.0, 7.0, -8.0}}
            %wv = constant() value=f32[2, 4] {{0.5, 0.5, 0.0, 1.0, 1.5, -0.5, 0.25, 3.0}}
            %wt = constant() value=f32[4, 2] {{0.5, 0.5, 0.0, 1.0, 1.5, -0.5, 0.25, 3.0}}
            %bq = constant() value=f32[4] {{0.5, 0.25, 0.0, 1.0}} %bk = constant() value=f32[4] {{1.5, 0.25, 2.0, 1.0}}
            {products} {rest} }}"
        )
    }

    #[test]
    fn fires_on_queries_keys_and_values() {
        let products = "%q = matmul(%x, %wq, %bq) epilogue=[add] %k = matmul(%x, %wk, %bk) epilogue=[add]
            %v = matmul(%x, %wv, %bq) epilogue=[add]";
        assert_snapshot!(run_rule(MergeSiblings, &text(products, HEADS)).equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 2], %run: f32[2, 4]) -> (%a, %b, %c) {
          %wq = constant() value=f32[2, 4] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}
          %wk = constant() value=f32[2, 4] {1.0, -2.0, 3.0, -4.0, 5.0, -6.0, 7.0, -8.0}
          %wv = constant() value=f32[2, 4] {0.5, 0.5, 0.0, 1.0, 1.5, -0.5, 0.25, 3.0}
          %q.1 = concat(%wq, %wk, %wv) axis=1 : f32[2, 12]
          %bq = constant() value=f32[4] {0.5, 0.25, 0.0, 1.0}
          %bk = constant() value=f32[4] {1.5, 0.25, 2.0, 1.0}
          %q.2 = concat(%bq, %bk, %bq) axis=0 : f32[12]
          %q.3 = matmul(%x, %q.1, %q.2) epilogue=[add] : f32[n, 12]
          %q, %k, %v = split(%q.3) axis=-1 sizes=[4, 4, 4] : f32[n, 4], f32[n, 4], f32[n, 4]
          %a = reshape(%q) shape=[n, 2, 2] : f32[n, 2, 2]
          %b = reshape(%k) shape=[n, 2, 2] : f32[n, 2, 2]
          %c = reshape(%v) shape=[n, 2, 2] : f32[n, 2, 2]
        }
        ");
    }

    #[test]
    fn refuses_where_f16_has_kernels_for_products_apart() {
        let products = "%q = matmul(%x, %wq) %k = matmul(%x, %wk) %v = matmul(%x, %wv)";
        let rewrites = |target: &Capabilities, half: bool| {
            let mut graph: Graph = text(products, HEADS).parse().unwrap();
            let options = Options { half, ..Options::default() };
            let mut context = PassContext::new(target, &options);
            let made = Rules::one(MergeSiblings).run(&mut graph, &mut context).unwrap().rewrites();
            (made, context.remarks.into_iter().map(|remark| remark.reason).collect::<Vec<_>>())
        };
        let old = Capabilities::tensorrt((8, 5, 3));
        let refusal = vec!["such siblings are merged only if asked for".to_owned()];
        assert_eq!(rewrites(&old, true), (0, refusal));
        assert_eq!(rewrites(&old, false), (1, Vec::new()));
        assert_eq!(rewrites(&Capabilities::default(), true), (1, Vec::new()));
    }

    #[test]
    fn fires_on_transposed_weights() {
        let products = "%q = matmul(%x, %wt) transpose_b=true %k = matmul(%x, %wt) transpose_b=true
            %v = matmul(%x, %wt) transpose_b=true";
        assert_eq!(run_rule(MergeSiblings, &text(products, HEADS)).equal_within(1e-6, 2).rewrites, 1);
    }

    /// Products of four and of two columns.
    fn unequal(rest: &str) -> String {
        format!(
            "graph g(%x: f32[n, 2]) -> (%a, %b) {{
            %wq = constant() value=f32[2, 4] {{1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}}
            %wk = constant() value=f32[2, 2] {{0.5, 0.5, 0.0, 1.0}}
            %bq = constant() value=f32[4] {{0.5, 0.25, 0.0, 1.0}} %bk = constant() value=f32[2] {{1.5, 0.25}} {rest} }}"
        )
    }

    #[test]
    fn fires_on_unequal_ones_if_asked_for() {
        let text = unequal("%a = matmul(%x, %wq, %bq) epilogue=[add] %b = matmul(%x, %wk, %bk) epilogue=[add]");
        let run = run_rule_on_siblings(MergeSiblings, Siblings::Always, &text);
        assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 2]) -> (%a, %b) {
          %wq = constant() value=f32[2, 4] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}
          %wk = constant() value=f32[2, 2] {0.5, 0.5, 0.0, 1.0}
          %a.1 = concat(%wq, %wk) axis=1 : f32[2, 6]
          %bq = constant() value=f32[4] {0.5, 0.25, 0.0, 1.0}
          %bk = constant() value=f32[2] {1.5, 0.25}
          %a.2 = concat(%bq, %bk) axis=0 : f32[6]
          %a.3 = matmul(%x, %a.1, %a.2) epilogue=[add] : f32[n, 6]
          %a, %b = split(%a.3) axis=-1 sizes=[4, 2] : f32[n, 4], f32[n, 2]
        }
        ");
    }

    #[test]
    fn fires_on_two_of_one_layout_if_asked_for() {
        let text = text("%q = matmul(%x, %wq) %k = matmul(%x, %wk) %v = matmul(%x, %run)", HEADS);
        let text = text.replace("%c = reshape(%v) shape=[n, 2, 2]", "%c = relu(%v)");
        let run = run_rule_on_siblings(MergeSiblings, Siblings::Always, &text);
        assert_eq!(run.equal_within(1e-6, 2).rewrites, 1);
    }

    #[test]
    fn refuses_what_is_not_asked_for() {
        // Heads that are laid out another way each.
        let products = "%q = matmul(%x, %wq) %k = matmul(%x, %wk) %v = matmul(%x, %wv)";
        let heads = self::text(products, &HEADS.replacen("[n, 2, 2]", "[n, 4, 1]", 1));
        let run = run_rule(MergeSiblings, &heads);
        // Of the three, and of the two that are alike.
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["such siblings are merged only if asked for"; 2]));
        // One of two is read in another order.
        let two = unequal("%p = matmul(%x, %wq) %a = transpose(%p) perm=[1, 0] %b = matmul(%x, %wk)");
        assert_eq!(run_rule(MergeSiblings, &two).reasons(), vec!["such siblings are merged only if asked for"]);
        // Two of one layout gain nothing.
        let two = self::text("%q = matmul(%x, %wq) %k = matmul(%x, %wk) %v = matmul(%x, %run)", HEADS);
        let run = run_rule(MergeSiblings, &two.replace("%c = reshape(%v) shape=[n, 2, 2]", "%c = relu(%v)"));
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["such siblings are merged only if asked for"]));
        let heads = self::text("%q = matmul(%x, %wq) %k = matmul(%x, %wk) %v = matmul(%x, %wv)", HEADS);
        let run = run_rule_on_siblings(MergeSiblings, Siblings::Never, &heads);
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
    }

    #[test]
    fn merges_a_gate_and_what_it_lets_through() {
        let text = unequal("%a = matmul(%x, %wq) %b = matmul(%x, %wk)");
        let run = run_rule(MergeSiblings, &text);
        assert_eq!(run.equal_within(1e-6, 2).rewrites, 1);
        assert!(run.after.to_string().contains("split("), "{}", run.after);
        assert_eq!(run_rule_on_siblings(MergeSiblings, Siblings::Never, &text).rewrites, 0);
    }

    #[test]
    fn leaves_unlike_products_alone_even_if_asked_for() {
        for rest in [
            // Another input, another epilogue, the other operand.
            "%y = neg(%x) %a = matmul(%x, %wq) %b = matmul(%y, %wk)",
            "%a = matmul(%x, %wq) %b = matmul(%x, %wk) epilogue=[relu]",
            "%c = matmul(%wk, %wk) %a = matmul(%x, %c) %b = matmul(%x, %x) transpose_b=true",
        ] {
            assert_eq!(run_rule_on_siblings(MergeSiblings, Siblings::Always, &unequal(rest)).rewrites, 0, "{rest}");
        }
    }

    #[test]
    fn refuses_weights_of_run_time() {
        for products in [
            "%q = matmul(%x, %wq) %k = matmul(%x, %run) %v = matmul(%x, %wv)",
            // A bias that is computed, and one for all columns.
            "%r = reduce(%run) kind=sum axes=[0] %q = matmul(%x, %wq, %bq) epilogue=[add]
                %k = matmul(%x, %wk, %r) epilogue=[add] %v = matmul(%x, %wv, %bk) epilogue=[add]",
            "%o = constant() value=f32[1] {2.0} %q = matmul(%x, %wq, %bq) epilogue=[add]
                %k = matmul(%x, %wk, %o) epilogue=[add] %v = matmul(%x, %wv, %bk) epilogue=[add]",
        ] {
            let run = run_rule(MergeSiblings, &text(products, HEADS));
            let reason = "a sibling's weights or bias are no constants of the same form";
            assert_eq!((run.rewrites, run.reasons()), (0, vec![reason]), "{products}");
        }
    }

    #[test]
    fn refuses_to_copy_large_weights() {
        // 512 by 512 numbers are 1 MiB, and one element for the constant that repeats it.
        let products = "%q = matmul(%x, %w) %k = matmul(%x, %w) %v = matmul(%x, %w)";
        let text = format!(
            "graph g(%x: f32[n, 512], %s: f32[]) -> (%a, %b, %c) {{ %w = constant() value=f32[512, 512] splat 1.0
            {products} {} }}",
            HEADS.replace("[n, 2, 2]", "[n, 2, 256]")
        );
        let run = run_rule(MergeSiblings, &text);
        let reason = "the weights are read elsewhere and too large to be copied";
        assert_eq!((run.rewrites, run.reasons()), (0, vec![reason]));
    }

    #[test]
    fn leaves_others_alone() {
        for (products, rest) in [
            // Another form, another reshape, another reader, no reshape.
            ("%q = matmul(%x, %wq) %k = matmul(%x, %wk) %v = matmul(%x, %wt) transpose_b=true", HEADS),
            (
                "%q = matmul(%x, %wq) %k = matmul(%x, %wk) %v = matmul(%x, %wv)",
                "%a = reshape(%q) shape=[n, 2, 2] %b = reshape(%k) shape=[n, 2, 2] %c = reshape(%v) shape=[n, 4, 1]",
            ),
            (
                "%q = matmul(%x, %wq) %k = matmul(%x, %wk) %v = matmul(%x, %wv)",
                "%a = reshape(%q) shape=[n, 2, 2] %b = reshape(%k) shape=[n, 2, 2] %c = relu(%v)",
            ),
        ] {
            assert_eq!(run_rule(MergeSiblings, &text(products, rest)).rewrites, 0, "{products}");
        }
    }
}
