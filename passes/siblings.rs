//! Siblings: operations of one form that read the same tensor, and what merging them into a wide one takes.

use std::str::FromStr;

use trt_fuse_ir::op::{Concat, Split};
use trt_fuse_ir::{Dim, Graph, NodeId, Op, Patch, ValueRef};

use crate::channels::vector;
use crate::fold_constants::bytes_freed;
use crate::pass::{Miss, RuleContext};

/// Which siblings become one wide operation, whose result is split.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Siblings {
    /// Those that were measured to gain from it.
    #[default]
    Auto,
    /// All that can. A weight known only at run time keeps its whole group apart.
    Always,
    /// None.
    Never,
}

/// A word that says nothing of siblings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of auto, always, never")]
pub struct UnknownSiblings(String);

impl FromStr for Siblings {
    type Err = UnknownSiblings;

    fn from_str(text: &str) -> Result<Self, UnknownSiblings> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            other => Err(UnknownSiblings(other.to_string())),
        }
    }
}

/// What siblings are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Matrix products of equally many columns, each read by the same reshape alone.
    ProductsOfOneLayout,
    /// Matrix products none of which is read in another shape or order, as heads are.
    Products,
    /// Other matrix products.
    ProductsOfLayouts,
    /// Convolutions whose kernels have one element.
    PointwiseConvolutions,
    /// Other convolutions.
    Convolutions,
    /// Convolutions of several sizes of kernels, whose results are joined.
    Kernels,
    /// Matrix products of all the parts of one tensor.
    ProductsOfParts,
    /// Matrix products of other tensors of one shape.
    ProductsOfInputs,
}

impl Pattern {
    /// What [`Siblings::Auto`] merges: the fewest siblings that gain from becoming one, or `None` if no number does.
    ///
    /// Engine layers of TensorRT-RTX 1.7.1, of all such siblings apart and merged, measured on 2026-11-22, those of kernels on
    /// 2026-11-27, and the last three on 2026-11-26 on products of 64 by 64 between activations. A slice of the
    /// wide result is a kernel of its own if a convolution or a concatenation reads it; products it runs side by side
    /// itself.
    ///
    /// | pattern | model | apart | merged |
    /// |---|---|--:|--:|
    /// | products of one layout | bert_base | 171 | 147 |
    /// | products | llama_tiny | 58 | 58 |
    /// | pointwise convolutions | googlenet | 73 | 81 |
    /// | pointwise convolutions | inception_v3 | 112 | 121 |
    /// | kernels of 1x1 and 3x3, joined again | squeezenet1_1 | 32 | 24 |
    /// | products of parts, joined again | 2, 3, 4, 8 parts | 5, 6, 7, 11 | 3, 3, 3, 3 |
    /// | products of parts, each for another | 2, 3, 4 parts | 6, 8, 10 | 4, 5, 6 |
    /// | products of inputs | 2, 3, 4, 8 inputs | 6, 9, 12, 24 | 4, 5, 6, 10 |
    ///
    /// Milliseconds with TensorRT 8.5.3, batch 1, as a CUDA graph:
    ///
    /// | pattern | model | GPU, date | apart | merged |
    /// |---|---|---|--:|--:|
    /// | products of one layout | bert_base, f32 | H200, 2026-11-22 | 1.406 | 1.194 |
    /// | products of one layout | bert_base, f16 allowed | H100, 2026-11-26 | 0.470 | 0.534 |
    /// | products of one layout, cut from the rows | bert_base, f16 allowed | H200, 2026-11-28 | 0.4801 | 0.4804 |
    /// | products | siblings_gate_up, f32 | H100, 2026-11-26 | 0.0154 | 0.0128 |
    /// | products | siblings_gate_up, f16 allowed | H100, 2026-11-26 | 0.0150 | 0.0128 |
    /// | products, and products of layouts | llama_tiny, f16 allowed | H100, 2026-11-26 | 0.1818 | 0.1723 |
    /// | convolutions | siblings_towers, f32 | H100, 2026-11-26 | 0.5542 | 0.5539 |
    /// | convolutions | siblings_towers, f16 allowed | H100, 2026-11-26 | 0.0704 | 0.0707 |
    /// | products of parts | siblings_parts8, f32 | H100, 2026-11-26 | 0.0504 | 0.0181 |
    /// | products of parts | siblings_parts8, f16 allowed | H100, 2026-11-26 | 0.0446 | 0.0178 |
    /// | products of inputs | siblings_inputs8, f32 | H100, 2026-11-26 | 0.0300 | 0.0105 |
    /// | products of inputs | siblings_inputs8, f16 allowed | H100, 2026-11-26 | 0.0250 | 0.0103 |
    /// | products of inputs | siblings_inputs4, f32 | H100, 2026-11-27 | 0.0178 | 0.0103 |
    /// | products of inputs | siblings_inputs4, f16 allowed | H100, 2026-11-27 | 0.0153 | 0.0100 |
    /// | products of inputs | siblings_inputs2, f32 | H100, 2026-11-27 | 0.0120 | 0.0102 |
    /// | products of inputs | siblings_inputs2, f16 allowed | H100, 2026-11-27 | 0.0106 | 0.0099 |
    /// | pointwise convolutions | siblings_branches, f32 | H100, 2026-11-27 | 0.0366 | 0.0363 |
    /// | pointwise convolutions | siblings_branches, f16 allowed | H100, 2026-11-27 | 0.0271 | 0.0270 |
    /// | pointwise convolutions | googlenet, f16 allowed | H100, 2026-11-27 | 0.2656 | 0.2642 |
    /// | kernels | squeezenet1_1, f16 allowed | H100, 2026-11-27 | 0.1200 | 0.0971 |
    /// | kernels | squeezenet1_1, f32 | H100, 2026-11-27 | 0.1892 | 0.1684 |
    /// | kernels | siblings_kernels, f16 allowed | H100, 2026-11-27 | 0.0181 | 0.0165 |
    /// | kernels | siblings_kernels, f32 | H100, 2026-11-27 | 0.0186 | 0.0166 |
    /// | kernels | siblings_kernels, 32 images, f16 allowed | H100, 2026-11-27 | 0.0697 | 0.0402 |
    /// | kernels | squeezenet1_1, 32 images, f16 allowed | H100, 2026-11-28 | 0.3394 | 0.3200 |
    /// | kernels | squeezenet1_1, 32 images, f32 | H100, 2026-11-28 | 1.1019 | 1.2772 |
    ///
    /// Two products of inputs, launched one by one, took 0.003 longer merged; four took 0.005 less. Apart, the
    /// kernels of siblings_kernels for 32 images were computed in two types and layouts, which a model that goes on in one does
    /// not do: that row sets no limit. `benches/gpu/siblings.py` writes the models of one pattern. llama_tiny gains about what its four pairs of gate and up do alone.
    ///
    /// Where f16 is allowed, TensorRT 8 merges the products itself and makes one kernel of the attention. Merged before too, it
    /// was as fast where the wide product is cut from its rows (`sink_parts`), and slower where it was cut after its transposition
    /// (0.534).
    fn fewest_that_gain(self, context: &RuleContext<'_>) -> Option<usize> {
        match self {
            Self::ProductsOfOneLayout if context.finds_attention() => None,
            Self::ProductsOfOneLayout => Some(3),
            Self::Products => Some(2),
            Self::ProductsOfLayouts => None,
            Self::PointwiseConvolutions => None,
            Self::Convolutions => None,
            // More arithmetic for fewer layers: `merge_kernels` asks how much.
            Self::Kernels => Some(2),
            // Nothing is copied for it that was not before.
            Self::ProductsOfParts => Some(2),
            // They are copied to lie together.
            Self::ProductsOfInputs => Some(4),
        }
    }

    /// The fewest siblings that are merged, if any are.
    pub(crate) fn fewest(self, context: &RuleContext<'_>) -> Option<usize> {
        match context.options.siblings {
            Siblings::Never => None,
            Siblings::Always => Some(2),
            Siblings::Auto => self.fewest_that_gain(context),
        }
    }

    /// Whether so many siblings are to be merged.
    pub(crate) fn check(self, siblings: &[NodeId], context: &RuleContext<'_>) -> Result<(), Miss> {
        let (Some(first), 2..) = (siblings.first(), siblings.len()) else { return Err(Miss::NoMatch) };
        match self.fewest(context) {
            Some(fewest) if siblings.len() >= fewest => Ok(()),
            _ if context.options.siblings == Siblings::Never => Err(Miss::NoMatch),
            _ => Err(Miss::Blocked { reason: "such siblings are merged only if asked for", at: *first }),
        }
    }
}

/// Most elements of an input of which [`Pattern::ProductsOfInputs`] were measured: larger products fill a GPU one by one.
pub(crate) const MOST_COPIED: i64 = 256 * 64;

/// Most multiplications of a convolution merged of [`Pattern::Kernels`] that was measured in a model: squeezenet1_1's first, of
/// 16 channels to 128 in 55 by 55 places.
pub(crate) const MOST_MULTIPLIED: i64 = 128 * 16 * 3 * 3 * 55 * 55;

/// The same in f16: of 32 images.
pub(crate) const MOST_MULTIPLIED_HALF: i64 = 32 * MOST_MULTIPLIED;

/// Most readers of a tensor among which siblings are looked for: each of them looks at the others.
const MOST: usize = 256;

/// The operations that read what `root` reads first, have the same operator and fit, `root` among them; nothing unless
/// it is the first.
pub(crate) fn siblings_of(graph: &Graph, root: NodeId, fits: impl Fn(NodeId) -> bool) -> Option<Vec<NodeId>> {
    let x = graph.input(root, 0)?;
    if graph.reader_count(x) > MOST {
        return None;
    }
    let readers = graph.consumers(x).into_iter();
    let mut siblings = readers
        .filter(|reader| reader.slot == 0 && graph.op(reader.node) == graph.op(root))
        .map(|reader| reader.node)
        .filter(|id| fits(*id));
    (siblings.next()? == root).then(|| [root].into_iter().chain(siblings).collect())
}

/// Along which axes siblings are put side by side: those of the weight and of the result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axes {
    pub(crate) weight: i64,
    pub(crate) result: i64,
}

/// The patch that makes siblings one operation, of `sizes` along the axis of the result.
///
/// Inputs from the second on are constants: a weight, then vectors as long as the sibling's size, where one left out is
/// zeros. Blocked beyond the budget for constants that stay beside the wide one, with which they would be joined at run
/// time.
pub(crate) fn merge(
    rule: &'static str,
    graph: &Graph,
    siblings: &[NodeId],
    sizes: &[usize],
    axes: Axes,
    context: &RuleContext<'_>,
) -> Result<Patch, Miss> {
    let root = *siblings.first().ok_or(Miss::NoMatch)?;
    check_budget(graph, siblings, context)?;
    let op: Op = graph.op(root).ok_or(Miss::NoMatch)?.clone();
    let mut patch = Patch::new(rule, root);
    let mut inputs = vec![graph.input(root, 0)];
    let slots = siblings.iter().map(|id| graph.node_inputs(*id).len()).max().unwrap_or(0);
    for slot in 1..slots {
        let axis = if slot == 1 { axes.weight } else { 0 };
        inputs.push(side_by_side(&mut patch, graph, siblings, slot, sizes, axis)?);
    }
    let wide = patch.add(op, &inputs);
    let sizes = sizes.iter().map(|size| Dim::from(*size)).collect();
    let split = patch.add_many(Split { axis: axes.result, sizes: Some(sizes) }, &[Some(wide)], siblings.len());
    for (slot, id) in (0..).zip(siblings) {
        patch.replace((*id).into(), ValueRef { node: split, slot });
    }
    patch.absorb(siblings.iter().copied());
    Ok(patch)
}

/// The inputs of a slot put side by side along an axis, where one left out is a vector of zeros; `None` if all are.
pub(crate) fn side_by_side(
    patch: &mut Patch,
    graph: &Graph,
    siblings: &[NodeId],
    slot: usize,
    sizes: &[usize],
    axis: i64,
) -> Result<Option<ValueRef>, Miss> {
    let parts: Vec<Option<ValueRef>> = siblings.iter().map(|id| graph.input(*id, slot)).collect();
    let root = *siblings.first().ok_or(Miss::NoMatch)?;
    if parts.iter().all(Option::is_none) {
        return Ok(None);
    }
    let mut filled = Vec::with_capacity(parts.len());
    for (part, size) in parts.into_iter().zip(sizes) {
        let zeros = |patch: &mut Patch| Ok(patch.constant(vector(graph.dtype(root.into()), vec![0.0; *size], root)?));
        filled.push(Some(part.map_or_else(|| zeros(patch), Ok)?));
    }
    Ok(Some(patch.add(Concat { axis }, &filled)))
}

/// Blocked where constants that other nodes read are too large to be put beside others once more.
pub(crate) fn check_budget(graph: &Graph, siblings: &[NodeId], context: &RuleContext<'_>) -> Result<(), Miss> {
    let at = *siblings.first().ok_or(Miss::NoMatch)?;
    let copied: usize = siblings.iter().map(|id| bytes_copied(graph, *id)).sum();
    if copied > context.options.fold_budget {
        return Err(Miss::Blocked { reason: "the weights are read elsewhere and too large to be copied", at });
    }
    Ok(())
}

/// Bytes of an operation's constants that are still there when it has become a part of another.
fn bytes_copied(graph: &Graph, id: NodeId) -> usize {
    let constants =
        graph.node_inputs(id).into_iter().flatten().filter_map(|value| Some((value, graph.constant(value)?)));
    constants.map(|(value, tensor)| tensor.byte_len().saturating_sub(bytes_freed(graph, value))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_parsed() {
        assert_eq!("auto".parse(), Ok(Siblings::Auto));
        assert_eq!("always".parse(), Ok(Siblings::Always));
        assert_eq!("never".parse(), Ok(Siblings::Never));
        let error = "some".parse::<Siblings>().unwrap_err();
        assert_eq!(error.to_string(), "`some` is none of auto, always, never");
    }
}
