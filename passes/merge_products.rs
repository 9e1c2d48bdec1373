//! Merges products of different inputs with constant matrices of one size into one batched product.
//!
//! ```text
//! %a, %b = split(%x) axis=-1 sizes=[64, 64]      %1 = reshape(%x) shape=[n, 2, 64]
//! %c = matmul(%a, %v)                            %2 = transpose(%1) perm=[1, 0, 2]
//! %d = matmul(%b, %w)                            %3 = matmul(%2, %u)
//! %y = concat(%c, %d) axis=-1                    %4 = transpose(%3) perm=[1, 0, 2]
//!                                                %y = reshape(%4) shape=[n, 128]
//! ```
//! where u is the matrices one upon another.
//!
//! Fires on products of all the parts of a Split, where they are equal. Where one Concat reads the results in the same
//! order and nothing else does, it becomes a layout too; otherwise each result is taken out by its index. Fires also on
//! products of any inputs of one shape, which are then concatenated: such as have equally many products in front of them, so
//! that none can need another; unless [`Siblings::Always`](crate::Siblings), on four or more small ones.
//!
//! Refuses: "such siblings are merged only if asked for"; "their inputs are too large to be copied for it"; "the weights
//! are read elsewhere and too large to be copied" beyond [`Options::fold_budget`](crate::Options), with which they would be
//! joined at run time.
//!
//! Order: after `merge_siblings`, for whose wide products one input is enough; before `fuse_residual` and
//! `fuse_activation`.
//!
//! Numerics: bit-exact but for the product's own order of sums.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{Concat, Gather, MatMul};
use trt_fuse_ir::{DType, Dim, Dims, Graph, NodeId, Op, OpKind, Patch, Shape, Tensor, ValueRef};

use crate::layout::{Layout, Step, is_told};
use crate::parts::split;
use crate::pass::{Miss, RuleContext, Symbols, remark};
use crate::siblings::{MOST_COPIED, Pattern, Siblings, check_budget};
use crate::{Outcome, Pass, PassContext, PassError};

/// The pass.
#[derive(Debug, Default)]
pub(crate) struct MergeProducts;

impl Pass for MergeProducts {
    fn name(&self) -> &'static str {
        "merge_products"
    }

    fn run(&self, graph: &mut Graph, context: &mut PassContext<'_>) -> Result<Outcome, PassError> {
        let symbols = Symbols::of(graph);
        let mut rewrites = 0;
        loop {
            // Only what still holds at the end is worth a remark.
            context.remarks.clear();
            let before = rewrites;
            let read = RuleContext { capabilities: context.capabilities, options: context.options, symbols: &symbols };
            for products in groups(graph, &read) {
                let Some(first) = products.first().copied() else { continue };
                match merged(graph, &products, &read) {
                    Ok(patch) => {
                        context.apply(self.name(), graph, &patch)?.map_err(|source| PassError::Patch {
                            pass: self.name(),
                            node: graph.node_name(first).into(),
                            source,
                        })?;
                        rewrites += 1;
                    }
                    Err(Miss::Blocked { reason, at }) => {
                        context.remarks.push(remark(graph, self.name(), at, reason.to_string()));
                    }
                    Err(_) => {}
                }
            }
            if rewrites == before {
                return Ok(Outcome::of(rewrites));
            }
            context.settle(self.name(), graph)?;
        }
    }
}

/// What products that become one have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Form {
    near: Near,
    op: MatMul,
    input: Shape,
    dtype: DType,
    /// Dimensions of the constants that they read, from the second input on.
    constants: SmallVec<[Dims; 2]>,
}

/// Why no product of a group can need another.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Near {
    /// They read parts of one Split, and constants.
    Split(NodeId),
    /// They need equally many products one after another.
    Depth(u32),
}

/// Products that may become one, each group of one form and of different inputs: the first products of each input, then the
/// second ones.
fn groups(graph: &Graph, context: &RuleContext<'_>) -> Vec<Vec<NodeId>> {
    let products = graph.live_of(&[OpKind::MatMul]);
    let are_enough = Pattern::ProductsOfInputs.fewest(context).is_some_and(|fewest| products.len() >= fewest);
    let depths = if are_enough { depths(graph) } else { FxHashMap::default() };
    let mut forms: FxHashMap<Form, usize> = FxHashMap::default();
    let mut seen: FxHashMap<(usize, ValueRef), usize> = FxHashMap::default();
    let mut groups: BTreeMap<(usize, usize), Vec<NodeId>> = BTreeMap::new();
    for id in products {
        let Some((x, form)) = form(graph, id, &depths) else { continue };
        let next = forms.len();
        let form = *forms.entry(form).or_insert(next);
        let turn = seen.entry((form, x)).or_default();
        groups.entry((form, *turn)).or_default().push(id);
        *turn += 1;
    }
    groups.into_values().filter(|products| products.len() > 1).collect()
}

/// What a product multiplies with constants, and its form.
fn form(graph: &Graph, id: NodeId, depths: &FxHashMap<NodeId, u32>) -> Option<(ValueRef, Form)> {
    let Op::MatMul(op) = graph.op(id)? else { return None };
    let inputs = graph.node_inputs(id);
    let x = inputs.first().copied().flatten().filter(|x| graph.constant(*x).is_none())?;
    let dims = |value: &Option<ValueRef>| Some(graph.constant((*value)?)?.dims().iter().copied().collect());
    let constants: SmallVec<[Dims; 2]> = inputs.iter().skip(1).map(dims).collect::<Option<_>>()?;
    let (matrix, vectors) = constants.split_first()?;
    if matrix.len() != 2 || vectors.iter().any(|vector| vector.len() > 1) {
        return None;
    }
    let near = match graph.op(x.node) {
        Some(Op::Split(_)) => Near::Split(x.node),
        _ => Near::Depth(*depths.get(&id)?),
    };
    let info = graph.info(x)?;
    let input = info.shape.clone().filter(|shape| shape.len() >= 2)?;
    Some((x, Form { near, op: op.clone(), input, dtype: info.dtype, constants }))
}

/// For each node the most products on a way to it, itself among them: what other passes make of the rest changes nothing.
fn depths(graph: &Graph) -> FxHashMap<NodeId, u32> {
    let mut depths = FxHashMap::default();
    for id in graph.live() {
        let inputs = graph.node_inputs(id).into_iter().flatten();
        let deepest = inputs.filter_map(|input| depths.get(&input.node).copied()).max();
        let is_product = graph.kind(id) == Some(OpKind::MatMul);
        depths.insert(id, deepest.unwrap_or(0) + u32::from(is_product));
    }
    depths
}

fn merged(graph: &Graph, products: &[NodeId], context: &RuleContext<'_>) -> Result<Patch, Miss> {
    let mut products = products.to_vec();
    products.sort_by_key(|id| graph.input(*id, 0));
    let root = *products.first().ok_or(Miss::NoMatch)?;
    let inputs: Option<Vec<ValueRef>> = products.iter().map(|id| graph.input(*id, 0)).collect();
    let inputs = inputs.ok_or(Miss::NoMatch)?;
    let count = Dim::from(products.len());

    let parts = inputs.first().and_then(|x| split(graph, x.node)).filter(|parts| parts.values == inputs);
    let pattern = if parts.is_some() { Pattern::ProductsOfParts } else { Pattern::ProductsOfInputs };
    pattern.check(&products, context)?;
    let elements =
        |x: &ValueRef| graph.info(*x)?.shape.as_ref()?.iter().try_fold(1_i64, |n, dim| n.checked_mul(dim.value()?));
    let is_small = inputs.first().and_then(elements).is_some_and(|elements| elements <= MOST_COPIED);
    if pattern == Pattern::ProductsOfInputs && context.options.siblings == Siblings::Auto && !is_small {
        return Err(Miss::Blocked { reason: "their inputs are too large to be copied for it", at: root });
    }
    check_budget(graph, &products, context)?;

    let shape = |value: ValueRef| graph.info(value).and_then(|info| info.shape.clone()).ok_or(Miss::NoMatch);
    let result = shape(root.into())?;
    let joined = joined(graph, &products);
    let together = match &joined {
        None => Vec::new(),
        Some((concat, axis)) => together(&count, &result, *axis, shape((*concat).into())?).ok_or(Miss::NoMatch)?,
    };
    let apart = match &parts {
        Some(parts) => parts.layout.steps(),
        None => vec![one_more(&shape(*inputs.first().ok_or(Miss::NoMatch)?)?)],
    };
    if !apart.iter().chain(&together).all(|step| is_told(step, context)) {
        return Err(Miss::NoMatch);
    }

    let mut patch = Patch::new(MergeProducts.name(), root);
    let data = match &parts {
        Some(parts) => apart.into_iter().fold(parts.x, |x, step| step.add(&mut patch, x)),
        None => {
            let row = |(x, id): (&ValueRef, &NodeId)| {
                let row = apart.iter().cloned().fold(*x, |x, step| step.add(&mut patch, x));
                patch.stand_for(row, *id);
                Some(row)
            };
            let rows: Vec<Option<ValueRef>> = inputs.iter().zip(&products).map(row).collect();
            patch.add(Concat { axis: 0 }, &rows)
        }
    };
    let mut operands = vec![Some(data)];
    for slot in 1..graph.node_inputs(root).len() {
        let constants = products.iter().map(|id| {
            let constant = graph.input(*id, slot)?;
            let ones = result.len() + 1 - graph.constant(constant)?.rank();
            let dims = shape(constant).ok()?;
            let dims = std::iter::repeat_n(Dim::fixed(1), ones).chain(dims).collect();
            Some(Step::Reshape(dims).add(&mut patch, constant))
        });
        let constants: Vec<Option<ValueRef>> = constants.collect();
        operands.push(Some(patch.add(Concat { axis: 0 }, &constants)));
    }
    let op: Op = graph.op(root).ok_or(Miss::NoMatch)?.clone();
    let product = patch.add(op, &operands);
    match joined {
        Some((concat, _)) => {
            let all = together.into_iter().fold(product, |x, step| step.add(&mut patch, x));
            patch.replace(concat.into(), all).absorb([concat]);
        }
        None => {
            for (at, id) in products.iter().enumerate() {
                let index = patch.constant(Tensor::scalar(at as i64));
                let part = patch.add(Gather { axis: 0 }, &[Some(product), Some(index)]);
                patch.stand_for(part, *id).replace((*id).into(), part);
            }
        }
    }
    if let Some(parts) = &parts {
        patch.inherit(parts.values.first().map(|part| part.node));
    }
    patch.absorb(products);
    Ok(patch)
}

/// A shape with an axis of one element in front.
fn one_more(shape: &Shape) -> Step {
    Step::Reshape([Dim::fixed(1)].into_iter().chain(shape.iter().cloned()).collect())
}

/// The Concat that alone reads the products, in their order, and its axis from the front.
fn joined(graph: &Graph, products: &[NodeId]) -> Option<(NodeId, usize)> {
    let reader = graph.sole_consumer((*products.first()?).into())?.node;
    let Op::Concat(op) = graph.op(reader)? else { return None };
    let inputs: Vec<ValueRef> = products.iter().map(|id| (*id).into()).collect();
    let is_all = graph.node_inputs(reader).iter().copied().eq(inputs.iter().copied().map(Some));
    let is_alone = inputs.iter().all(|value| graph.sole_consumer(*value).is_some());
    let rank = graph.info(reader.into())?.rank()?;
    let axis = resolve_axis(op.axis, rank).ok()?;
    (is_all && is_alone).then_some((reader, axis))
}

/// The steps from `count` results one upon another to their concatenation along an axis.
fn together(count: &Dim, result: &Shape, axis: usize, concatenated: Shape) -> Option<Vec<Step>> {
    let stacked: Shape = [count.clone()].into_iter().chain(result.iter().cloned()).collect();
    let behind = (1..=axis).chain([0]).chain(axis + 1..stacked.len()).map(|axis| axis as i64).collect();
    let layout = Layout::identity(&stacked).then(&Step::Transpose(behind))?.then(&Step::Reshape(concatenated))?;
    Some(layout.steps())
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::testing::{Run, run_pass, run_pass_on_siblings};

    const WEIGHTS: &str = "%v = constant() value=f32[2, 2] {1.0, -0.5, 0.25, 2.0}
        %w = constant() value=f32[2, 2] {0.5, 3.0, -1.5, 1.0}";

    /// Products of the parts of x, or of x and z.
    fn text(outputs: &str, products: &str) -> String {
        format!("graph g(%x: f32[n, 3, 4], %z: f32[n, 3, 4]) -> ({outputs}) {{ {WEIGHTS} {products} }}")
    }

    fn run(products: &str) -> Run {
        run_pass(&MergeProducts, &text("%y", products))
    }

    #[test]
    fn parts_that_are_joined_again_move_as_one() {
        let run = run("%a, %b = split(%x) axis=2 sizes=[2, 2] %c = matmul(%a, %v) %d = matmul(%b, %w)
            %y = concat(%c, %d) axis=-1");
        assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 3, 4], %z: f32[n, 3, 4]) -> (%y) {
          %c.1 = reshape(%x) shape=[n, 3, 2, 2] : f32[n, 3, 2, 2]
          %c.2 = transpose(%c.1) perm=[2, 0, 1, 3] : f32[2, n, 3, 2]
          %v = constant() value=f32[2, 2] {1.0, -0.5, 0.25, 2.0}
          %c.3 = reshape(%v) shape=[1, 1, 2, 2] : f32[1, 1, 2, 2]
          %w = constant() value=f32[2, 2] {0.5, 3.0, -1.5, 1.0}
          %c.4 = reshape(%w) shape=[1, 1, 2, 2] : f32[1, 1, 2, 2]
          %c.5 = concat(%c.3, %c.4) axis=0 : f32[2, 1, 2, 2]
          %c.6 = matmul(%c.2, %c.5) : f32[2, n, 3, 2]
          %c.7 = transpose(%c.6) perm=[1, 2, 0, 3] : f32[n, 3, 2, 2]
          %y = reshape(%c.7) shape=[n, 3, 4] : f32[n, 3, 4]
        }
        ");
        run.equal_within(1e-6, 3);
    }

    #[test]
    fn results_for_others_are_taken_out() {
        let products = "%a, %b = split(%x) axis=1 sizes=[2, 2]
            %s = constant() value=f32[3] {1.0, 2.0, 3.0} %t = constant() value=f32[3] {-4.0, 5.0, -6.0}
            %v = constant() value=f32[3, 4] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0}
            %w = constant() value=f32[3, 4] {0.0, 1.0, 0.0, -1.0, 0.0, 2.0, 0.0, -2.0, 0.0, 3.0, 0.0, -3.0}
            %c = matmul(%b, %v, %s) transpose_b=true epilogue=[add, relu]
            %d = matmul(%a, %w, %t) transpose_b=true epilogue=[add, relu]";
        let text = format!("graph g(%x: f32[n, 4, 4]) -> (%c, %d) {{ {products} }}");
        assert_snapshot!(run_pass(&MergeProducts, &text).equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 4, 4]) -> (%c, %d) {
          %d.1 = reshape(%x) shape=[n, 2, 2, 4] : f32[n, 2, 2, 4]
          %d.2 = transpose(%d.1) perm=[1, 0, 2, 3] : f32[2, n, 2, 4]
          %w = constant() value=f32[3, 4] {0.0, 1.0, 0.0, -1.0, 0.0, 2.0, 0.0, -2.0, 0.0, 3.0, 0.0, -3.0}
          %d.3 = reshape(%w) shape=[1, 1, 3, 4] : f32[1, 1, 3, 4]
          %v = constant() value=f32[3, 4] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0}
          %d.4 = reshape(%v) shape=[1, 1, 3, 4] : f32[1, 1, 3, 4]
          %d.5 = concat(%d.3, %d.4) axis=0 : f32[2, 1, 3, 4]
          %t = constant() value=f32[3] {-4.0, 5.0, -6.0}
          %d.6 = reshape(%t) shape=[1, 1, 1, 3] : f32[1, 1, 1, 3]
          %s = constant() value=f32[3] {1.0, 2.0, 3.0}
          %d.7 = reshape(%s) shape=[1, 1, 1, 3] : f32[1, 1, 1, 3]
          %d.8 = concat(%d.6, %d.7) axis=0 : f32[2, 1, 1, 3]
          %d.9 = matmul(%d.2, %d.5, %d.8) transpose_b=true epilogue=[add, relu] : f32[2, n, 2, 3]
          %d.merge_products.1 = constant() value=i64[] {1}
          %c = gather(%d.9, %d.merge_products.1) axis=0 : f32[n, 2, 3]
          %d.merge_products = constant() value=i64[] {0}
          %d = gather(%d.9, %d.merge_products) axis=0 : f32[n, 2, 3]
        }
        ");
    }

    #[test]
    fn what_is_taken_out_stands_for_its_own_product() {
        let products = "%c = matmul(%x, %v) %d = matmul(%z, %w)";
        let text = format!("graph g(%x: f32[3, 2], %z: f32[3, 2]) -> (%c, %d) {{ {WEIGHTS} {products} }}");
        let after = run_pass_on_siblings(&MergeProducts, Siblings::Always, &text).after;
        let of = |kind: OpKind| -> Vec<Vec<&str>> {
            let origins = |id: &NodeId| after.origins(*id).map(|source| &*source.name).collect();
            after.live_of(&[kind]).iter().map(origins).collect()
        };
        assert_eq!(of(OpKind::Gather), [["c"], ["d"]]);
        assert_eq!(of(OpKind::MatMul), [["c", "d"]]);
        // Of the inputs, and of the constants, which are folded.
        assert_eq!(of(OpKind::Reshape)[..2], [["c"], ["d"]]);
    }

    #[test]
    fn many_small_inputs_are_joined() {
        let text = |count: usize, rows: usize| {
            let each = |part: &dyn Fn(usize) -> String| (0..count).map(part).collect::<Vec<_>>();
            let inputs = each(&|at| format!("%x{at}: f32[{rows}, 4]"));
            let weights = each(&|at| format!("%w{at} = constant() value=f32[4, 2] splat {at}.5"));
            let products = each(&|at| format!("%y{at} = matmul(%x{at}, %w{at})"));
            let outputs = each(&|at| format!("%y{at}"));
            let nodes = [weights, products].concat().join(" ");
            format!("graph g({}) -> ({}) {{ {nodes} }}", inputs.join(", "), outputs.join(", "))
        };
        let run = run_pass(&MergeProducts, &text(4, 3));
        assert_eq!(run.rewrites, 1);
        assert!(run.after.to_string().contains("concat("), "{}", run.after);
        run.equal_within(1e-6, 2);
        assert_eq!(run_pass(&MergeProducts, &text(3, 3)).rewrites, 0);
        assert_eq!(run_pass(&MergeProducts, &text(4, 4096)).rewrites, 1);
        let run = run_pass(&MergeProducts, &text(4, 4097));
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["their inputs are too large to be copied for it"]));
        assert_eq!(run_pass_on_siblings(&MergeProducts, Siblings::Always, &text(4, 4097)).rewrites, 1);
    }

    #[test]
    fn other_inputs_are_joined_if_asked_for() {
        // The third product needs the first; the fourth is the only second one of its input.
        let products = "%p = relu(%x) %r = neg(%z) %q = exp(%r) %a = matmul(%p, %u) %b = matmul(%q, %v)
            %c = matmul(%a, %u) %d = matmul(%p, %v)
            %u = constant() value=f32[4, 4] splat 0.5 %v = constant() value=f32[4, 4] splat -0.25";
        let products = products.split_once("%u = constant").map(|(first, rest)| format!("%u = constant{rest} {first}"));
        let text = format!("graph g(%x: f32[n, 3, 4], %z: f32[n, 3, 4]) -> (%b, %c, %d) {{ {} }}", products.unwrap());
        assert_eq!(run_pass(&MergeProducts, &text).rewrites, 0);
        assert_eq!(run_pass_on_siblings(&MergeProducts, Siblings::Never, &text).rewrites, 0);
        let run = run_pass_on_siblings(&MergeProducts, Siblings::Always, &text);
        assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 3, 4], %z: f32[n, 3, 4]) -> (%b, %c, %d) {
          %p = relu(%x) : f32[n, 3, 4]
          %a.1 = reshape(%p) shape=[1, n, 3, 4] : f32[1, n, 3, 4]
          %r = neg(%z) : f32[n, 3, 4]
          %q = exp(%r) : f32[n, 3, 4]
          %a.2 = reshape(%q) shape=[1, n, 3, 4] : f32[1, n, 3, 4]
          %a.3 = concat(%a.1, %a.2) axis=0 : f32[2, n, 3, 4]
          %u = constant() value=f32[4, 4] splat 0.5
          %a.4 = reshape(%u) shape=[1, 1, 4, 4] : f32[1, 1, 4, 4]
          %v = constant() value=f32[4, 4] splat -0.25
          %a.5 = reshape(%v) shape=[1, 1, 4, 4] : f32[1, 1, 4, 4]
          %a.6 = concat(%a.4, %a.5) axis=0 : f32[2, 1, 4, 4]
          %a.7 = matmul(%a.3, %a.6) : f32[2, n, 3, 4]
          %a.merge_products.1 = constant() value=i64[] {1}
          %b = gather(%a.7, %a.merge_products.1) axis=0 : f32[n, 3, 4]
          %a.merge_products = constant() value=i64[] {0}
          %a = gather(%a.7, %a.merge_products) axis=0 : f32[n, 3, 4]
          %c = matmul(%a, %u) : f32[n, 3, 4]
          %d = matmul(%p, %v) : f32[n, 3, 4]
        }
        ");
    }

    #[test]
    fn leaves_unlike_products_alone() {
        for products in [
            // Unequal parts, of one form though.
            "%a, %b = split(%x) axis=1 sizes=[1, 2] %p, %c = split(%a) axis=2 sizes=[2, 2]
                %q, %d = split(%b) axis=2 sizes=[2, 2] %e = matmul(%c, %v) %f = matmul(%d, %w)
                %y = concat(%e, %f) axis=1",
            // Another activation, a weight of run time, the other operand.
            "%a, %b = split(%x) axis=2 sizes=[2, 2] %c = matmul(%a, %v) epilogue=[relu] %d = matmul(%b, %w)
                %y = concat(%c, %d) axis=-1",
            "%a, %b = split(%x) axis=2 sizes=[2, 2] %c = matmul(%a, %b) transpose_b=true %d = matmul(%b, %a) transpose_b=true
                %y = concat(%c, %d) axis=-1",
            "%a, %b = split(%z) axis=2 sizes=[2, 2] %r = matmul(%a, %v) %y = matmul(%r, %w)",
        ] {
            assert_eq!(run(products).rewrites, 0, "{products}");
        }
    }

    #[test]
    fn refuses_some_of_the_parts() {
        let run = run("%a, %b, %c, %e = split(%x) axis=2 sizes=[1, 1, 1, 1] %s = constant() value=f32[1, 2] {1.0, 2.0}
            %t = constant() value=f32[1, 2] {3.0, 4.0} %f = matmul(%a, %s) %g = matmul(%c, %t) %y = sub(%f, %g)");
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["such siblings are merged only if asked for"]));
    }

    #[test]
    fn refuses_to_copy_large_weights() {
        let text = "graph g(%x: f32[n, 1024]) -> (%y) { %w = constant() value=f32[512, 512] splat 1.0
            %a, %b = split(%x) axis=1 sizes=[512, 512] %c = matmul(%a, %w) %d = matmul(%b, %w) %y = sub(%c, %d) }";
        let run = run_pass(&MergeProducts, text);
        let reason = "the weights are read elsewhere and too large to be copied";
        assert_eq!((run.rewrites, run.reasons()), (0, vec![reason]));
    }

    #[test]
    fn a_symbol_of_a_node_is_not_mentioned_in_front_of_it() {
        // The number of elements that are not zero is told by a node; the reshape of the result would name it.
        let run = run("%m = nonzero(%x) %e = transpose(%m) perm=[1, 0] %f = cast(%e) to=f32
            %g = pad(%f) mode=constant pads=[0, 0, 0, 1] %a, %b = split(%g) axis=1 sizes=[2, 2]
            %c = matmul(%a, %v) %d = matmul(%b, %w) %y = concat(%c, %d) axis=1");
        assert_eq!(run.rewrites, 0);
    }
}
