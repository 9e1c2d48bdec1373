//! Replaces what can be computed beforehand by constants.
//!
//! ```text
//! %w = constant() value=f32[2] {1, 4}      %r = constant() value=f32[2] {1, 2}
//! %r = sqrt(%w)                            %y = mul(%x, %r)
//! %y = mul(%x, %r)
//! ```
//!
//! One walk over the graph, each node after those it reads. Fires when every input of a deterministic operator is a
//! constant, and when every element of a value is a known number although the inputs are not constant: shape
//! arithmetic on fixed shapes. An operator that the evaluator cannot compute stays.
//!
//! Refuses when
//! - folding would create more bytes than it frees, by more than [`Options::fold_budget`](crate::Options): created are
//!   the bytes that the results hold (a reshape shares its input's, a repeated element holds one), freed are those of
//!   inputs that nothing else reads;
//! - a value is stated as one type and folds to another: the model is wrong about it.
//!
//! Nothing folds through `quantize` and `dequantize`: the target wants to see them. Opaque operators and control flow
//! are not evaluated.
//!
//! Order: early, so that the other passes see constants. Names: a folded value keeps its name. Origins: constants have
//! none.
//!
//! Numerics: the evaluator's, of the value's own dtype; bit-exact for integers and data movement.

use smallvec::SmallVec;
use trt_fuse_ir::eval::{Bindings, EvalContext, eval_op};
use trt_fuse_ir::op::{Cast, UnaryOp};
use trt_fuse_ir::{DType, Graph, GraphError, Known, NodeId, Op, Patch, Tensor, ValueInfo, ValueRef, numel};

use crate::pass::remark;
use crate::{Options, Outcome, Pass, PassContext, PassError};

/// Replaces what can be computed beforehand by constants.
#[derive(Debug, Default)]
pub(crate) struct FoldConstants;

impl Pass for FoldConstants {
    fn name(&self) -> &'static str {
        "fold_constants"
    }

    fn run(&self, graph: &mut Graph, context: &mut PassContext<'_>) -> Result<Outcome, PassError> {
        let mut rewrites = 0;
        for id in graph.live() {
            let tensors = match fold(graph, id, context.options) {
                Folded::Nothing => continue,
                Folded::TooLarge(bytes) => {
                    let reason = format!("folding would create {bytes} bytes");
                    context.remarks.push(remark(graph, self.name(), id, reason));
                    continue;
                }
                Folded::Outputs(tensors) => tensors,
            };
            let mut patch = Patch::new(self.name(), id);
            for (slot, tensor) in (0..).zip(tensors) {
                if let Some(tensor) = tensor {
                    let constant = patch.constant(tensor);
                    patch.replace(ValueRef { node: id, slot }, constant);
                }
            }
            patch.absorb([id]);
            match context.apply(self.name(), graph, &patch)? {
                Ok(_) => rewrites += 1,
                Err(GraphError::Replacement { value, old, new, .. }) => {
                    let reason = format!("`{value}` is stated as {old} and folds to {new}");
                    context.remarks.push(remark(graph, self.name(), id, reason));
                }
                Err(source) => {
                    return Err(PassError::Patch { pass: self.name(), node: graph.node_name(id).into(), source });
                }
            }
        }
        Ok(Outcome::of(rewrites))
    }
}

/// What a node's outputs come to.
enum Folded {
    /// It is not constant, or cannot be computed.
    Nothing,
    /// It is constant, and would take this many bytes more than it frees.
    TooLarge(usize),
    /// A tensor for each output that something reads.
    Outputs(Outputs),
}

type Outputs = SmallVec<[Option<Tensor>; 1]>;

fn fold(graph: &Graph, id: NodeId, options: &Options) -> Folded {
    let Some(node) = graph.node(id) else { return Folded::Nothing };
    let untouched = matches!(node.op, Op::Input | Op::Constant(_) | Op::Quantize(_) | Op::Dequantize(_));
    if untouched || !node.op.is_deterministic() {
        return Folded::Nothing;
    }
    if let Some(outputs) = known_outputs(graph, id) {
        return Folded::Outputs(outputs);
    }
    let inputs = graph.node_inputs(id);
    let Some(tensors) = constants(graph, &inputs) else { return Folded::Nothing };
    let infos: SmallVec<[&ValueInfo; 1]> = node.outputs.iter().map(|value| &value.info).collect();
    if let Some(tensor) = fold_uniform(&node.op, &tensors, &infos) {
        return Folded::Outputs(SmallVec::from_iter([Some(tensor)]));
    }
    let Some(bytes) = bytes_added(graph, &node.op, &inputs, &tensors, &infos) else { return Folded::Nothing };
    if bytes > options.fold_budget {
        return Folded::TooLarge(bytes);
    }
    let symbols = Bindings::default();
    let context = EvalContext { outputs: node.outputs.len(), symbols: &symbols };
    match eval_op(&node.op, &tensors, &context) {
        Ok(tensors) if tensors.len() >= node.outputs.len() => {
            Folded::Outputs(tensors.into_iter().take(node.outputs.len()).map(Some).collect())
        }
        _ => Folded::Nothing,
    }
}

/// The outputs that something reads, if inference knows all elements of each.
fn known_outputs(graph: &Graph, id: NodeId) -> Option<Outputs> {
    let mut outputs = Outputs::new();
    for (slot, value) in (0..).zip(&graph.node(id)?.outputs) {
        let used = graph.is_used(ValueRef { node: id, slot });
        outputs.push(if used { Some(known_tensor(&value.info)?) } else { None });
    }
    outputs.iter().any(Option::is_some).then_some(outputs)
}

/// The tensor whose every element is known.
fn known_tensor(info: &ValueInfo) -> Option<Tensor> {
    match &info.known {
        Known::Nothing => None,
        Known::Constant(tensor) => Some(Tensor::clone(tensor)),
        Known::Elements(_) => {
            let tensor = Tensor::from_vec(info.fixed_dims()?, info.known_ints()?).ok()?;
            if info.dtype == DType::I64 {
                return Some(tensor);
            }
            let cast = Cast::new(info.dtype).into();
            evaluate_one(&cast, &[Some(&tensor)])
        }
    }
}

pub(crate) fn evaluate_one(op: &Op, inputs: &[Option<&Tensor>]) -> Option<Tensor> {
    let symbols = Bindings::default();
    eval_op(op, inputs, &EvalContext { outputs: 1, symbols: &symbols }).ok()?.into_iter().next()
}

/// The result of an operator that keeps tensors of one repeated element such: one element computed, and repeated.
fn fold_uniform(op: &Op, inputs: &[Option<&Tensor>], infos: &[&ValueInfo]) -> Option<Tensor> {
    let [info] = infos else { return None };
    let dims = info.fixed_dims()?;
    // Written out it would be as small.
    if numel(&dims)? <= 1 {
        return None;
    }
    let element = match op {
        Op::Unary(_) | Op::Binary(_) | Op::Activation(_) | Op::Cast(_) | Op::Where => {
            let elements: Option<SmallVec<[Tensor; 3]>> = inputs.iter().map(|input| (*input)?.repeated()).collect();
            let elements = elements?;
            let inputs: SmallVec<[Option<&Tensor>; 3]> = elements.iter().map(Some).collect();
            evaluate_one(op, &inputs)?
        }
        Op::Reshape(_)
        | Op::Squeeze(_)
        | Op::Unsqueeze(_)
        | Op::Flatten(_)
        | Op::Transpose(_)
        | Op::Expand(_)
        | Op::Tile(_)
        | Op::Slice(_) => (*inputs.first()?)?.repeated()?,
        Op::ConstantOfShape(op) => op.value.repeated()?,
        _ => return None,
    };
    if element.dtype() != info.dtype {
        return None;
    }
    Tensor::splat(element.dtype(), dims, element.bytes().clone()).ok()
}

/// Bytes that an operator's results will hold; `None` if nothing bounds them before they are computed.
fn bytes_created(op: &Op, inputs: &[Option<&Tensor>], infos: &[&ValueInfo]) -> Option<usize> {
    let shares_data = matches!(
        op,
        Op::Unary(UnaryOp::Identity) | Op::Reshape(_) | Op::Squeeze(_) | Op::Unsqueeze(_) | Op::Flatten(_)
    );
    if shares_data {
        return Some(0);
    }
    if matches!(op, Op::NonZero) {
        let x = inputs.first().copied().flatten()?;
        return x.numel().checked_mul(x.rank())?.checked_mul(size_of::<i64>());
    }
    infos.iter().try_fold(0_usize, |total, info| total.checked_add(info.dtype.byte_len(numel(&info.fixed_dims()?)?)?))
}

/// The constants that inputs are, empty ones included; `None` if one is no constant.
fn constants<'g>(graph: &'g Graph, inputs: &[Option<ValueRef>]) -> Option<SmallVec<[Option<&'g Tensor>; 4]>> {
    inputs.iter().map(|input| input.map_or(Some(None), |value| graph.constant(value).map(Some))).collect()
}

/// Whether a node reads constants alone, and is small enough to be folded.
pub(crate) fn is_to_be_folded(graph: &Graph, id: NodeId, options: &Options) -> bool {
    let Some(node) = graph.node(id) else { return false };
    let inputs = graph.node_inputs(id);
    let Some(tensors) = constants(graph, &inputs) else { return false };
    let infos: SmallVec<[&ValueInfo; 1]> = node.outputs.iter().map(|value| &value.info).collect();
    bytes_added(graph, &node.op, &inputs, &tensors, &infos).is_some_and(|bytes| bytes <= options.fold_budget)
}

/// Bytes that folding takes more than it frees; `None` if nothing bounds them before they are computed.
fn bytes_added(
    graph: &Graph,
    op: &Op,
    inputs: &[Option<ValueRef>],
    tensors: &[Option<&Tensor>],
    infos: &[&ValueInfo],
) -> Option<usize> {
    let freed: usize = inputs.iter().flatten().map(|value| bytes_freed(graph, *value)).sum();
    Some(bytes_created(op, tensors, infos)?.saturating_sub(freed))
}

/// Bytes of a constant that are let go with its one reader.
pub(crate) fn bytes_freed(graph: &Graph, value: ValueRef) -> usize {
    match graph.sole_consumer(value) {
        Some(_) => graph.constant(value).map_or(0, Tensor::held_bytes),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use trt_fuse_ir::op::{Constant, Expand, Transpose};
    use trt_fuse_ir::{Builder, Capabilities, DType, Graph, Op, Tensor, ValueInfo, ValueRef};

    use super::FoldConstants;
    use crate::testing::run_pass;
    use crate::{Options, Pass, PassContext};

    #[test]
    fn constant_arithmetic_is_folded_and_keeps_its_name() {
        let text = "
            graph g(%x: f32[2]) -> (%y) {
              %w = constant() value=f32[2] {1, 4}
              %r = sqrt(%w)
              %n = neg(%r)
              %y = mul(%x, %n)
            }";
        let run = run_pass(&FoldConstants, text);
        assert_eq!(run.rewrites, 2);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[2]) -> (%y) {
          %n = constant() value=f32[2] {-1.0, -2.0}
          %y = mul(%x, %n) : f32[2]
        }
        ");
        run.equal_within(0.0, 1);
    }

    #[test]
    fn shape_arithmetic_is_folded_where_the_shape_is_fixed() {
        let text = "
            graph g(%x: f32[2, 3, 4]) -> (%y) {
              %s = shape(%x) start=0
              %i = constant() value=i64[] {0}
              %b = gather(%s, %i) axis=0
              %axes = constant() value=i64[1] {0}
              %u = unsqueeze(%b, %axes)
              %rest = constant() value=i64[1] {-1}
              %to = concat(%u, %rest) axis=0
              %y = reshape(%x, %to)
            }";
        let run = run_pass(&FoldConstants, text);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[2, 3, 4]) -> (%y) {
          %to = constant() value=i64[2] {2, -1}
          %y = reshape(%x, %to) : f32[2, 12]
        }
        ");
        run.equal_within(0.0, 1);
    }

    #[test]
    fn a_constant_output_of_the_graph_is_folded() {
        let text = "graph g() -> (%y) { %w = constant() value=i32[2] {3, -7} %y = abs(%w) }";
        let run = run_pass(&FoldConstants, text);
        assert_snapshot!(run.after, @r"
        graph g() -> (%y) {
          %y = constant() value=i32[2] {3, 7}
        }
        ");
    }

    #[test]
    fn outputs_of_a_split_are_folded_together() {
        let text = "
            graph g(%x: f32[2]) -> (%y) {
              %w = constant() value=f32[4] {1, 2, 3, 4}
              %a, %b = split(%w) axis=0 sizes=[2, 2]
              %s = sub(%b, %a)
              %y = mul(%x, %s)
            }";
        let run = run_pass(&FoldConstants, text);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[2]) -> (%y) {
          %s = constant() value=f32[2] {2.0, 2.0}
          %y = mul(%x, %s) : f32[2]
        }
        ");
        run.equal_within(0.0, 1);
    }

    #[test]
    fn a_symbolic_shape_is_not_folded() {
        let run = run_pass(&FoldConstants, "graph g(%x: f32[n, 4]) -> (%y) { %y = shape(%x) start=0 }");
        assert_eq!(run.rewrites, 0);
        let run = run_pass(&FoldConstants, "graph g(%x: f32[n, 4]) -> (%y) { %y = shape(%x) start=1 }");
        assert_eq!(run.rewrites, 1);
    }

    #[test]
    fn quantization_is_not_folded() {
        let text = "
            graph g(%x: f32[2]) -> (%y) {
              %w = constant() value=f32[2] {1, 4}
              %s = constant() value=f32[] {0.5}
              %q = quantize(%w, %s) axis=0 to=i8
              %d = dequantize(%q, %s) axis=0
              %y = mul(%x, %d)
            }";
        assert_eq!(run_pass(&FoldConstants, text).rewrites, 0);
    }

    /// A graph of one operator on a constant, whose result is added to the input.
    fn on_weight(op: impl Into<Op>, weight: Tensor, readers: usize) -> Graph {
        let mut builder = Builder::new("g");
        let x = builder.input("x", ValueInfo::new(DType::F32, [1_i64]));
        let w = builder.constant("w", weight).unwrap();
        let folded = builder.op("folded", op, &[w]).unwrap();
        let y = builder.op("y", Op::Binary(trt_fuse_ir::op::BinaryOp::Add), &[x, folded]).unwrap();
        builder.output("y", y);
        for at in 1..readers {
            let other = builder.op(format!("other.{at}"), Op::Binary(trt_fuse_ir::op::BinaryOp::Add), &[x, w]).unwrap();
            builder.output(format!("other.{at}"), other);
        }
        builder.finish()
    }

    fn folded(mut graph: Graph) -> (Graph, Vec<String>) {
        let (capabilities, options) = (Capabilities::default(), Options { fold_budget: 1 << 10, ..Options::default() });
        let mut context = PassContext::new(&capabilities, &options);
        FoldConstants.run(&mut graph, &mut context).unwrap();
        (graph, context.remarks.into_iter().map(|remark| remark.reason).collect())
    }

    fn has(graph: &Graph, name: &str) -> bool {
        graph.node_ids().any(|id| graph.node_name(id) == name && !matches!(graph.op(id), Some(Op::Constant(_))))
    }

    fn weight() -> Tensor {
        Tensor::from_vec([32, 32], (0..1024).map(|x| x as f32).collect()).unwrap()
    }

    #[test]
    fn a_transposed_weight_of_one_reader_costs_nothing() {
        let (graph, remarks) = folded(on_weight(Transpose { perm: [1, 0].into_iter().collect() }, weight(), 1));
        assert!(!has(&graph, "folded") && remarks.is_empty());
    }

    #[test]
    fn refuses_beyond_the_budget() {
        let (graph, remarks) = folded(on_weight(Transpose { perm: [1, 0].into_iter().collect() }, weight(), 2));
        assert!(has(&graph, "folded"));
        assert_eq!(remarks, ["folding would create 4096 bytes"]);
    }

    #[test]
    fn refuses_a_bomb_before_it_is_computed() {
        let shape = [1_i64 << 20, 1 << 20].into_iter().map(trt_fuse_ir::Dim::fixed).collect();
        let row = Tensor::from_vec([1, 2], vec![1.0_f32, 2.0]).unwrap();
        let shape_of_row = [1_i64 << 40, 2].into_iter().map(trt_fuse_ir::Dim::fixed).collect();
        let (_, remarks) = folded(on_weight(Expand { shape: Some(shape_of_row) }, row, 1));
        assert_eq!(remarks, [format!("folding would create {} bytes", (8_u64 << 40) - 8)]);
        // One element repeated stays one element.
        let (graph, remarks) = folded(on_weight(Expand { shape: Some(shape) }, Tensor::scalar(2.0_f32), 1));
        assert!(!has(&graph, "folded") && remarks.is_empty());
        let held: usize =
            graph.node_ids().filter_map(|id| graph.constant(ValueRef::from(id))).map(Tensor::held_bytes).sum();
        assert_eq!(held, 8);
    }

    #[test]
    fn a_repeated_element_is_computed_once() {
        let sqrt = Op::Unary(trt_fuse_ir::op::UnaryOp::Sqrt);
        let (graph, _) = folded(on_weight(sqrt, Tensor::full([1 << 20, 1 << 20], 4.0_f32).unwrap(), 2));
        assert!(!has(&graph, "folded"));
        let constants = graph.node_ids().filter_map(|id| match graph.op(id) {
            Some(Op::Constant(Constant { value })) => value.uniform_f64(),
            _ => None,
        });
        assert_eq!(constants.collect::<Vec<_>>(), [2.0, 4.0].as_slice().iter().rev().copied().collect::<Vec<_>>());
    }

    #[test]
    fn refuses_a_value_that_is_stated_as_something_else() {
        let text = "
            graph g(%x: i64[1, 3]) -> (%y) {
              %w = constant() value=f32[3] {1, 0, 2}
              %at = nonzero(%w) : i64[1, 3]
              %y = add(%x, %at)
            }";
        let run = run_pass(&FoldConstants, text);
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["`at` is stated as i64[1, 3] and folds to i64[1, 2]"]));
    }

    #[test]
    fn what_cannot_be_computed_stays() {
        let text = "
            graph g(%x: f32[2]) -> (%y) {
              %w = constant() value=f32[2] {1, 4}
              %o = opaque(%w) domain=a.b op_type=Foo opset=1 reason=unknown attrs=[]
              %y = mul(%x, %o)
            }";
        assert_eq!(run_pass(&FoldConstants, text).rewrites, 0);
    }
}
