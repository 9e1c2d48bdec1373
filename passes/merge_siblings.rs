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
//! takes the split away, and what is left is the queries, keys and values of attention as one tensor. TensorRT itself runs
//! sibling products as one; more than that is won only where their layouts become one as well.
//!
//! Refuses: "a sibling's weights or bias are no constants of the same form"
//!
//! Order: after the rules that fold into weights and biases; before `fuse_residual` and `fuse_activation`.
//!
//! Numerics: bit-exact but for the product's own order of sums.

use trt_fuse_ir::op::{Concat, MatMul, Split};
use trt_fuse_ir::{Dim, Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::layout::Step;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct MergeSiblings;

/// Siblings that are worth a wide product and the gathers that follow it.
const FEWEST: usize = 3;

impl Rule for MergeSiblings {
    fn name(&self) -> &'static str {
        "merge_siblings"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::MatMul]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::MatMul(op)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let x = graph.input(root, 0).ok_or(Miss::NoMatch)?;
        let step = layout_of(graph, root).ok_or(Miss::NoMatch)?;
        let columns = columns(graph, root).ok_or(Miss::NoMatch)?;
        let mut siblings = graph
            .consumers(x)
            .into_iter()
            .filter(|reader| reader.slot == 0 && graph.op(reader.node) == graph.op(root))
            .map(|reader| reader.node)
            .filter(|id| layout_of(graph, *id).as_ref() == Some(&step) && self::columns(graph, *id) == Some(columns));
        // Only the first looks at all the others.
        if siblings.next() != Some(root) {
            return Err(Miss::NoMatch);
        }
        let siblings: Vec<NodeId> = [root].into_iter().chain(siblings).collect();
        if siblings.len() < FEWEST {
            return Err(Miss::NoMatch);
        }
        if let Some(at) = siblings.iter().find(|id| !has_constants(graph, **id, op, columns)) {
            return Err(Miss::Blocked {
                reason: "a sibling's weights or bias are no constants of the same form",
                at: *at,
            });
        }
        let mut patch = Patch::new(self.name(), root);
        let mut inputs = vec![Some(x)];
        for slot in 1..graph.node_inputs(root).len() {
            let parts: Vec<Option<ValueRef>> = siblings.iter().map(|id| graph.input(*id, slot)).collect();
            let axis = if slot == 1 && !op.transpose_b { 1 } else { 0 };
            inputs.push(Some(patch.add(Concat { axis }, &parts)));
        }
        let wide = patch.add(op.clone(), &inputs);
        let sizes = siblings.iter().map(|_| Dim::from(columns)).collect();
        let split = patch.add_many(Split { axis: -1, sizes: Some(sizes) }, &[Some(wide)], siblings.len());
        for (slot, id) in siblings.iter().enumerate() {
            patch.replace((*id).into(), ValueRef { node: split, slot: slot as u32 });
        }
        patch.absorb(siblings);
        Ok(patch)
    }
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
fn columns(graph: &Graph, id: NodeId) -> Option<i64> {
    graph.info(id.into())?.shape.as_ref()?.last()?.value()
}

/// Whether a product has a constant matrix, and an epilogue only of constant vectors as long as its rows.
fn has_constants(graph: &Graph, id: NodeId, op: &MatMul, columns: i64) -> bool {
    let inputs = graph.node_inputs(id);
    let dims =
        |slot: usize| inputs.get(slot).copied().flatten().and_then(|value| graph.constant(value)).map(|c| c.dims());
    let is_matrix =
        matches!((dims(1), op.transpose_b), (Some([_, n]), false) | (Some([n, _]), true) if *n as i64 == columns);
    is_matrix && (2..inputs.len()).all(|slot| matches!(dims(slot), Some([n]) if *n as i64 == columns))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::testing::run_rule;

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
    fn fires_on_transposed_weights() {
        let products = "%q = matmul(%x, %wt) transpose_b=true %k = matmul(%x, %wt) transpose_b=true
            %v = matmul(%x, %wt) transpose_b=true";
        assert_eq!(run_rule(MergeSiblings, &text(products, HEADS)).equal_within(1e-6, 2).rewrites, 1);
    }

    #[test]
    fn refuses_weights_of_run_time() {
        let products = "%q = matmul(%x, %wq) %k = matmul(%x, %run) %v = matmul(%x, %wv)";
        let run = run_rule(MergeSiblings, &text(products, HEADS));
        let reason = "a sibling's weights or bias are no constants of the same form";
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
