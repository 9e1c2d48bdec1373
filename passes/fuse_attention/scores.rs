//! What the softmax of attention is of: a product of queries and keys, scaled, capped and masked.

use trt_fuse_ir::op::{Activation, BinaryOp};
use trt_fuse_ir::{DType, Dim, Graph, NodeId, Op, Patch, Tensor, ValueRef};

use super::Operand;
use super::windows::{Masked, Windows};
use crate::pass::Miss;
use crate::pattern::{is_close, plain_matmul, same_shape, scaled};

/// The scores of attention.
pub(super) struct Scores {
    pub(super) query: Operand,
    pub(super) key: Operand,
    /// Multiplies the product.
    pub(super) scale: f64,
    /// Bends it.
    pub(super) cap: Option<f64>,
    masks: Vec<Part>,
    /// What is masked apart from the batch, if it is windows.
    pub(super) windows: Option<Windows>,
    /// The greatest rank of a mask.
    pub(super) mask_rank: usize,
    /// Nodes that are of the scores alone.
    pub(super) nodes: Vec<NodeId>,
    /// Nodes whose effect the attention takes over, and which stay if something else reads them.
    pub(super) kept: Vec<NodeId>,
}

/// One mask.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    /// Added to the scores.
    Add(ValueRef),
    /// Where it is false, the key is hidden.
    Keep(ValueRef),
    /// Where it is false, the score is the lowest number: that of a query whose keys are all hidden too, which then sees
    /// all of them alike.
    Lowest(ValueRef),
}

impl Part {
    fn value(self) -> ValueRef {
        let (Self::Add(mask) | Self::Keep(mask) | Self::Lowest(mask)) = self;
        mask
    }
}

/// All masks as one.
pub(super) enum Mask {
    None,
    /// Query i sees keys up to i.
    Causal,
    Value(ValueRef),
}

impl Scores {
    /// # Errors
    /// No match, or that a mask has no place.
    pub(super) fn of(graph: &Graph, value: ValueRef) -> Result<Self, Miss> {
        let (mut at, mut masks, mut nodes, mut finite) = (value, Vec::new(), Vec::new(), None);
        let mut windows = None;
        loop {
            if let Some(mut found) = product(graph, at) {
                let shapes = masks.iter().map(|(inner, _)| graph.info(*inner)).chain([graph.info(value)]);
                let product = graph.info(at);
                if !shapes.into_iter().all(|shape| same_shape(shape, product)) {
                    return Err(Miss::Blocked { reason: "the mask makes the scores larger", at: value.node });
                }
                // What one mask leaves a query, another may hide.
                if let Some(at) = finite.filter(|_| masks.len() > 1) {
                    return Err(Miss::Blocked { reason: HIDDEN_BY_NUMBER, at });
                }
                found.nodes.extend(nodes);
                found.windows = windows;
                found.masks = masks.into_iter().map(|(_, part)| part).collect();
                let ranks =
                    found.masks.iter().map(|part| graph.info(part.value()).and_then(|info| info.rank()).unwrap_or(0));
                found.mask_rank = ranks.max().unwrap_or(0);
                return Ok(found);
            }
            if windows.is_none()
                && let Some(Masked { windows: found, scores, mask, nodes: own }) = Windows::of(graph, at)
            {
                windows = Some(found);
                nodes.extend(own);
                masks.push((scores, Part::Add(mask)));
                at = scores;
                continue;
            }
            let (inner, part) = masked(graph, at)?;
            if !matches!(part, Part::Add(_)) && fill(graph, at) != Some(f64::NEG_INFINITY) {
                finite = Some(at.node);
            }
            nodes.push(at.node);
            masks.push((inner, part));
            at = inner;
        }
    }

    /// What the scores are masked with.
    pub(super) fn masks(&self) -> impl Iterator<Item = ValueRef> + '_ {
        self.masks.iter().map(|part| part.value())
    }

    /// Whether a mask has a row for each query and a column for each key, none of them broadcast.
    fn fills(&self, graph: &Graph, mask: &Tensor) -> bool {
        let Some([.., queries, keys]) = self.shape(graph) else { return false };
        matches!(mask.dims(), [.., rows, columns] if queries.is(*rows as i64) && keys.is(*columns as i64))
    }

    /// The shape of the scores.
    fn shape<'g>(&self, graph: &'g Graph) -> Option<&'g [Dim]> {
        graph.info(self.nodes.first().copied()?.into())?.shape.as_deref()
    }

    /// The masks as one value, or as the flag that stands for it.
    ///
    /// # Errors
    /// No match where the dtype has no infinity.
    pub(super) fn mask(&self, graph: &Graph, patch: &mut Patch, dtype: DType) -> Result<Mask, Miss> {
        if let Some(windows) = &self.windows {
            let added = |part: &Part| if let Part::Add(mask) = part { Some(*mask) } else { None };
            let masks: Vec<ValueRef> =
                self.masks.iter().rev().map(added).collect::<Option<_>>().ok_or(Miss::NoMatch)?;
            return windows.mask(graph, patch, &masks).map(Mask::Value).ok_or(Miss::NoMatch);
        }
        let number = |patch: &mut Patch, value| Some(patch.constant(Tensor::number(dtype, value)?));
        if let [Part::Lowest(keep)] = self.masks.as_slice() {
            let (zero, lowest) = (number(patch, 0.0), number(patch, lowest(dtype)));
            let (zero, lowest) = (zero.ok_or(Miss::NoMatch)?, lowest.ok_or(Miss::NoMatch)?);
            return Ok(Mask::Value(patch.add(Op::Where, &[Some(*keep), Some(zero), Some(lowest)])));
        }
        if let [Part::Add(mask) | Part::Keep(mask)] = self.masks.as_slice()
            && graph.constant(*mask).is_some_and(|mask| is_causal(mask) && self.fills(graph, mask))
        {
            return Ok(Mask::Causal);
        }
        let (mut sum, mut keep) = (None, None);
        // From the product outwards.
        for part in self.masks.iter().rev() {
            let (all, mask, op) = match part {
                Part::Add(mask) => (&mut sum, *mask, BinaryOp::Add),
                Part::Keep(mask) => (&mut keep, *mask, BinaryOp::And),
                // Alone, if at all.
                Part::Lowest(_) => return Err(Miss::NoMatch),
            };
            *all = Some(all.map_or(mask, |before| patch.add(Op::Binary(op), &[Some(before), Some(mask)])));
        }
        Ok(match (sum, keep) {
            (None, None) => Mask::None,
            (Some(mask), None) | (None, Some(mask)) => Mask::Value(mask),
            (Some(sum), Some(keep)) => {
                let hidden = number(patch, f64::NEG_INFINITY).ok_or(Miss::NoMatch)?;
                Mask::Value(patch.add(Op::Where, &[Some(keep), Some(sum), Some(hidden)]))
            }
        })
    }
}

const HIDDEN_BY_NUMBER: &str = "a query whose keys are all hidden by a finite number";

const NOT_LOW: &str = "the number in place of hidden scores may be a score";

/// The largest number that is too low for a score, so that a key of it has weight 0 beside one that is seen.
fn least_low(dtype: DType) -> f64 {
    if dtype == DType::F16 { -65504.0 } else { -1e30 }
}

/// The number that a Where puts in place of hidden scores.
fn fill(graph: &Graph, value: ValueRef) -> Option<f64> {
    graph.constant(graph.input(value.node, 2)?)?.uniform_f64()
}

/// A value as scores and a mask.
fn masked(graph: &Graph, value: ValueRef) -> Result<(ValueRef, Part), Miss> {
    let slot = |slot| graph.input(value.node, slot).ok_or(Miss::NoMatch);
    match graph.op(value.node) {
        Some(Op::Binary(BinaryOp::Add)) => {
            let (a, b) = (slot(0)?, slot(1)?);
            let found = [(a, b), (b, a)].into_iter().find(|(scores, _)| leads_to_product(graph, *scores));
            found.map(|(scores, mask)| (scores, Part::Add(mask))).ok_or(Miss::NoMatch)
        }
        Some(Op::Where) => {
            let (keep, scores) = (slot(0)?, slot(1)?);
            let fill = fill(graph, value).ok_or(Miss::NoMatch)?;
            if !leads_to_product(graph, scores) {
                return Err(Miss::NoMatch);
            }
            if fill.is_nan() || fill > least_low(graph.dtype(scores)) {
                return Err(Miss::Blocked { reason: NOT_LOW, at: value.node });
            }
            if fill == f64::NEG_INFINITY || graph.constant(keep).is_some_and(each_row_sees) {
                return Ok((scores, Part::Keep(keep)));
            }
            let dtype = graph.dtype(scores);
            // What is added to the lowest number is lost, if it is not as large as the step to the next one. A half type
            // with small exponents takes steps of the size of scores.
            if hides(fill, dtype) && matches!(dtype, DType::F32 | DType::BF16) {
                return Ok((scores, Part::Lowest(keep)));
            }
            Err(Miss::Blocked { reason: HIDDEN_BY_NUMBER, at: value.node })
        }
        _ => Err(Miss::NoMatch),
    }
}

/// How many masks may be applied one after the other.
const MOST_MASKS: usize = 4;

/// Whether a value is a product of two matrices, perhaps scaled, capped and masked.
fn leads_to_product(graph: &Graph, value: ValueRef) -> bool {
    fn within(graph: &Graph, value: ValueRef, left: usize) -> bool {
        if product(graph, value).is_some() {
            return true;
        }
        let slots: &[usize] = match graph.op(value.node) {
            Some(Op::Binary(BinaryOp::Add)) => &[0, 1],
            Some(Op::Where) => &[1],
            _ => return false,
        };
        left > 0 && slots.iter().any(|slot| graph.input(value.node, *slot).is_some_and(|x| within(graph, x, left - 1)))
    }
    within(graph, value, MOST_MASKS)
}

/// A value as a product of queries and keys, scaled and capped.
fn product(graph: &Graph, value: ValueRef) -> Option<Scores> {
    let (mut at, mut scale, mut cap, mut nodes) = (value, 1.0, None, Vec::new());
    if let Some((bent, factor)) = scaled(graph, at.node)
        && graph.op(bent.node)? == &Op::Activation(Activation::Tanh)
        && let Some(inner) = graph.input(bent.node, 0)
        && let Some((x, part)) = scaled(graph, inner.node)
        && is_close(part * factor, 1.0, graph.dtype(value))
        && (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&factor)
    {
        cap = Some(factor);
        nodes.extend([at.node, bent.node, inner.node]);
        at = x;
    }
    while let Some((x, factor)) = scaled(graph, at.node) {
        nodes.push(at.node);
        scale *= factor;
        at = x;
    }
    let op = plain_matmul(graph, at.node)?;
    nodes.push(at.node);
    let mut kept = Vec::new();
    let mut operand = |slot, transposed| {
        let mut value = graph.input(at.node, slot)?;
        while let Some((x, factor)) = scaled(graph, value.node) {
            kept.push(value.node);
            scale *= factor;
            value = x;
        }
        Some(Operand { value, transposed })
    };
    let query = operand(0, op.transpose_a)?;
    let key = operand(1, !op.transpose_b)?;
    Some(Scores { query, key, scale, cap, masks: Vec::new(), windows: None, mask_rank: 0, nodes, kept })
}

/// Whether a number hides a key to which it is added, or in whose place it stands: infinite, or as low as the dtype goes.
fn hides(number: f64, dtype: DType) -> bool {
    // Exporters write the lowest number of another precision too.
    number <= lowest(dtype) || (dtype == DType::BF16 && number <= -3e38)
}

fn lowest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => -65504.0,
        DType::BF16 => f64::from(half::bf16::MIN.to_f32()),
        _ => f64::from(f32::MIN),
    }
}

/// Whether a constant mask of `[.., n, n]` shows query i the keys up to i, and no other.
fn is_causal(mask: &Tensor) -> bool {
    let [lead @ .., queries, keys] = mask.dims() else { return false };
    if queries != keys || lead.iter().any(|dim| *dim != 1) {
        return false;
    }
    // One element for all is no triangle, and may stand for more than memory holds.
    if mask.splat_element().is_some() && *keys > 1 {
        return false;
    }
    let sees: Option<Vec<bool>> = match (mask.dtype(), mask.to_f64s()) {
        (DType::Bool, _) => mask.to_i64s().map(|kept| kept.iter().map(|kept| *kept != 0).collect()),
        (dtype, Some(bias)) => bias
            .iter()
            .map(|bias| match *bias {
                0.0 => Some(true),
                bias => hides(bias, dtype).then_some(false),
            })
            .collect(),
        _ => None,
    };
    let keys = *keys;
    sees.is_some_and(|sees| {
        sees.chunks(keys.max(1))
            .enumerate()
            .all(|(row, sees)| sees.iter().enumerate().all(|(column, sees)| *sees == (column <= row)))
    })
}

/// Whether a constant boolean mask leaves each query a key.
fn each_row_sees(mask: &Tensor) -> bool {
    if mask.splat_element().is_some() {
        return mask.uniform_f64() == Some(1.0);
    }
    let keys = mask.dims().last().copied().unwrap_or(1).max(1);
    mask.to_i64s().is_some_and(|kept| kept.chunks(keys).all(|row| row.contains(&1)))
}
