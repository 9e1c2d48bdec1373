//! Merges operations that compute the same, and shares equal constants.
//!
//! ```text
//! %a = relu(%x)                  %a = relu(%x)
//! %b = relu(%x)                  %y = add(%a, %a)
//! %y = add(%a, %b)
//! ```
//!
//! One walk over the graph, each node after those it reads, so that operations on merged operations merge too. Fires on
//! deterministic operators with equal parameters and equal inputs (in any order where the operator commutes), and on
//! constants of equal dtype, shape and bytes. The first one in the graph's order stays, with its names and the origins
//! of all.
//!
//! A weight is read in full only if another one of its dtype and shape agrees with it at a few places.
//!
//! Refuses when
//! - the operator is opaque or control flow: it may be random, or have effects;
//! - the output's shape depends on data: its symbol is named after the node, and parameters may mention it.
//!
//! Order: after the canonicalizations, which make equal what is written in different ways; before `merge_siblings` and
//! `merge_products`, which would compute equal products side by side.
//!
//! Numerics: bit-exact.

use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};

use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet, FxHasher};
use smallvec::SmallVec;
use trt_fuse_ir::{DType, Dims, Graph, NodeId, Op, Patch, Tensor, ValueInfo, ValueRef};

use crate::pass::Symbols;
use crate::{Outcome, Pass, PassContext, PassError};

/// Merges operations that compute the same, and shares equal constants.
#[derive(Debug, Default)]
pub(crate) struct MergeCommon;

impl Pass for MergeCommon {
    fn name(&self) -> &'static str {
        "merge_common"
    }

    fn run(&self, graph: &mut Graph, context: &mut PassContext<'_>) -> Result<Outcome, PassError> {
        let symbols = Symbols::of(graph);
        let twins = Twins::of(graph);
        let live = graph.live();
        let mut kept: FxHashMap<u64, NodeId> = FxHashMap::with_capacity_and_hasher(live.len(), FxBuildHasher);
        let mut rewrites = 0;
        for id in live {
            let Some(mut key) = twins.hash(graph, id).or_else(|| operation_hash(graph, id, &symbols)) else { continue };
            // What has the same hash and is something else goes to the next free key.
            let first = loop {
                match kept.entry(key) {
                    Entry::Vacant(free) => {
                        free.insert(id);
                        break None;
                    }
                    Entry::Occupied(first) if are_equal(graph, *first.get(), id) => break Some(*first.get()),
                    Entry::Occupied(_) => key = key.wrapping_add(1),
                }
            };
            let Some(first) = first else { continue };
            let mut patch = Patch::new(self.name(), id);
            for slot in 0..graph.node(id).map_or(0, |node| node.outputs.len()) as u32 {
                patch.replace(ValueRef { node: id, slot }, ValueRef { node: first, slot });
            }
            patch.absorb([id]).hand_on_to(first);
            context.apply(self.name(), graph, &patch)?.map_err(|source| PassError::Patch {
                pass: self.name(),
                node: graph.node_name(id).into(),
                source,
            })?;
            rewrites += 1;
        }
        Ok(Outcome::of(rewrites))
    }
}

/// A hash of operator and inputs; `None` for what may not be merged.
fn operation_hash(graph: &Graph, id: NodeId, symbols: &Symbols) -> Option<u64> {
    let node = graph.node(id)?;
    if matches!(node.op, Op::Input | Op::Constant(_)) || !node.op.is_deterministic() {
        return None;
    }
    if node.outputs.iter().any(|value| has_new_symbol(graph, id, &value.info, symbols)) {
        return None;
    }
    let mut hasher = FxHasher::default();
    node.op.hash(&mut hasher);
    node.outputs.len().hash(&mut hasher);
    ordered_inputs(graph, id).hash(&mut hasher);
    Some(hasher.finish())
}

/// Whether the shape of a node's output mentions a symbol that neither the graph's inputs nor the node's tell.
fn has_new_symbol(graph: &Graph, id: NodeId, output: &ValueInfo, symbols: &Symbols) -> bool {
    let shape = output.shape.iter().flatten();
    if symbols.tell(shape.clone()) {
        return false;
    }
    let mut known = FxHashSet::default();
    for info in graph.input_infos(id).into_iter().flatten() {
        let elements = info.known_elements().unwrap_or_default();
        for dim in info.shape.iter().flatten().chain(&elements) {
            dim.visit_symbols(&mut |name| {
                known.insert(name.clone());
            });
        }
    }
    let mut new = false;
    for dim in shape {
        dim.visit_symbols(&mut |name| new |= !known.contains(name) && !symbols.has(name));
    }
    new
}

/// A node's inputs, sorted where their order is nothing.
fn ordered_inputs(graph: &Graph, id: NodeId) -> SmallVec<[Option<ValueRef>; 4]> {
    let mut inputs = graph.node_inputs(id);
    if matches!(graph.op(id), Some(Op::Binary(op)) if op.is_commutative()) {
        inputs.sort_unstable();
    }
    inputs
}

fn are_equal(graph: &Graph, a: NodeId, b: NodeId) -> bool {
    let (Some(first), Some(second)) = (graph.node(a), graph.node(b)) else { return false };
    first.op == second.op
        && first.outputs.len() == second.outputs.len()
        && ordered_inputs(graph, a) == ordered_inputs(graph, b)
}

/// Bytes of each constant that are looked at first.
const SAMPLES: usize = 64;

/// How many of them lie together: a weight's pages may still be in the file, and each that is touched costs a fault.
const TOGETHER: usize = 16;

/// What tells most constants apart without reading them.
#[derive(PartialEq, Eq, Hash)]
struct Sample {
    dtype: DType,
    dims: Dims,
    bytes: SmallVec<[u8; SAMPLES]>,
}

impl Sample {
    fn of(tensor: &Tensor) -> Self {
        let length = tensor.byte_len();
        // A repeated element looks like its written-out twin.
        let all = match tensor.splat_element() {
            Some(element) => element,
            None => tensor.bytes(),
        };
        // Both ends are among them.
        let last = SAMPLES / TOGETHER - 1;
        let start = |run: usize| if run == last { length - TOGETHER } else { (length - TOGETHER) / last * run };
        let is_read_whole = length <= SAMPLES;
        let place = |at: usize| if is_read_whole { at } else { start(at / TOGETHER) + at % TOGETHER };
        let places = (0..SAMPLES.min(length)).map(place);
        let bytes = places.filter_map(|place| all.get(place % all.len().max(1)).copied()).collect();
        Self { dtype: tensor.dtype(), dims: Dims::from_slice(tensor.dims()), bytes }
    }
}

/// Constants that look like another one.
struct Twins(FxHashMap<NodeId, u64>);

impl Twins {
    fn of(graph: &Graph) -> Self {
        let mut groups: FxHashMap<Sample, SmallVec<[NodeId; 1]>> = FxHashMap::default();
        let constants = graph.live().into_iter().filter_map(|id| Some((id, graph.constant(id.into())?)));
        for (id, tensor) in constants {
            groups.entry(Sample::of(tensor)).or_default().push(id);
        }
        let twins = groups.into_values().filter(|group| group.len() > 1).flatten();
        Self(twins.filter_map(|id| Some((id, graph.constant(id.into())?.content_hash()))).collect())
    }

    /// A hash of the content; `None` for a constant like no other and for what is no constant.
    fn hash(&self, graph: &Graph, id: NodeId) -> Option<u64> {
        graph.constant(id.into())?;
        self.0.get(&id).copied()
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use trt_fuse_ir::Tensor;

    use super::{MergeCommon, Sample};
    use crate::testing::run_pass;

    #[test]
    fn equal_operations_are_merged_in_one_walk() {
        let text = "
            graph g(%x: f32[n]) -> (%y) {
              %a = relu(%x)
              %b = relu(%x)
              %c = exp(%a)
              %d = exp(%b)
              %y = add(%c, %d)
            }";
        let run = run_pass(&MergeCommon, text);
        assert_eq!(run.rewrites, 2);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n]) -> (%y) {
          %a = relu(%x) : f32[n]
          %c = exp(%a) : f32[n]
          %y = add(%c, %c) : f32[n]
        }
        ");
        run.equal_within(0.0, 3);
        let origins = |name: &str| -> Vec<&str> {
            let id = run.after.node_ids().find(|id| run.after.node_name(*id) == name).unwrap();
            run.after.origins(id).map(|source| &*source.name).collect()
        };
        assert_eq!((origins("a"), origins("c"), origins("y")), (vec!["a", "b"], vec!["c", "d"], vec!["y"]));
    }

    #[test]
    fn equal_constants_are_shared_whatever_their_form() {
        let text = "
            graph g(%x: f32[2]) -> (%y) {
              %a = constant() value=f32[2] {3, 3}
              %b = constant() value=f32[2] splat 3
              %c = constant() value=f32[2] {3, 4}
              %d = constant() value=f32[2, 1] {3, 3}
              %p = add(%x, %a)
              %q = mul(%p, %b)
              %r = mul(%q, %c)
              %y = mul(%r, %d)
            }";
        let run = run_pass(&MergeCommon, text);
        assert_eq!(run.rewrites, 1);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[2]) -> (%y) {
          %a = constant() value=f32[2] {3.0, 3.0}
          %p = add(%x, %a) : f32[2]
          %q = mul(%p, %a) : f32[2]
          %c = constant() value=f32[2] {3.0, 4.0}
          %r = mul(%q, %c) : f32[2]
          %d = constant() value=f32[2, 1] {3.0, 3.0}
          %y = mul(%r, %d) : f32[2, 2]
        }
        ");
        run.equal_within(0.0, 1);
    }

    #[test]
    fn operands_of_a_commutative_operator_merge_in_either_order() {
        let text = "
            graph g(%x: f32[n], %z: f32[n]) -> (%y, %w) {
              %a = mul(%x, %z)
              %b = mul(%z, %x)
              %c = sub(%x, %z)
              %d = sub(%z, %x)
              %y = add(%a, %c)
              %w = add(%b, %d)
            }";
        let run = run_pass(&MergeCommon, text);
        assert_eq!(run.rewrites, 1);
        run.equal_within(0.0, 3);
    }

    #[test]
    fn both_of_two_outputs_stay_under_their_names() {
        let text = "graph g(%x: f32[n]) -> (%y, %z) { %y = relu(%x) %z = relu(%x) }";
        let run = run_pass(&MergeCommon, text);
        assert_snapshot!(run.after, @r#"
        graph g(%x: f32[n]) -> (%y, %y as "z") {
          %y = relu(%x) : f32[n]
        }
        "#);
        run.equal_within(0.0, 3);
    }

    #[test]
    fn operations_of_several_outputs_are_merged() {
        let text = "
            graph g(%x: f32[4]) -> (%y) {
              %a, %b = split(%x) axis=0 sizes=[2, 2]
              %c, %d = split(%x) axis=0 sizes=[2, 2]
              %y = sub(%b, %c)
            }";
        let run = run_pass(&MergeCommon, text);
        assert_eq!(run.rewrites, 1);
        run.equal_within(0.0, 1);
    }

    #[test]
    fn other_parameters_or_inputs_are_not_merged() {
        let text = "
            graph g(%x: f32[4]) -> (%y) {
              %a = leaky_relu(%x) p=[0.1]
              %b = leaky_relu(%x) p=[0.2]
              %c = leaky_relu(%a) p=[0.1]
              %s = add(%a, %b)
              %y = add(%s, %c)
            }";
        assert_eq!(run_pass(&MergeCommon, text).rewrites, 0);
    }

    #[test]
    fn refuses_opaque_operators() {
        let text = r#"
            graph g(%x: f32[4]) -> (%a, %b) {
              %a = opaque(%x) domain="" op_type=RandomUniformLike opset=1 reason=random attrs=[]
              %b = opaque(%x) domain="" op_type=RandomUniformLike opset=1 reason=random attrs=[]
            }"#;
        assert_eq!(run_pass(&MergeCommon, text).rewrites, 0);
    }

    #[test]
    fn refuses_shapes_that_depend_on_data() {
        let text = "graph g(%x: f32[4]) -> (%a, %b) { %a = nonzero(%x) %b = nonzero(%x) }";
        assert_eq!(run_pass(&MergeCommon, text).rewrites, 0);
    }

    #[test]
    fn samples_see_the_whole_length() {
        let differs = |length: usize, at: usize| {
            let zeros = Sample::of(&Tensor::full([length], 0_u8).unwrap());
            assert!(zeros == Sample::of(&Tensor::vector(vec![0_u8; length])));
            let mut data = vec![0_u8; length];
            data[at] = 1;
            zeros != Sample::of(&Tensor::vector(data))
        };
        for length in [1, 15, 16, 63, 64, 65, 100, (1 << 16) + 1] {
            assert!(differs(length, 0) && differs(length, length - 1), "{length}");
        }
        assert!((0..64).all(|at| differs(64, at)));
        // Of more, not all bytes are looked at.
        assert!(!differs(1 << 16, 100));
    }
}
