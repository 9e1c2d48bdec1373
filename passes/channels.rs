//! Affine maps per channel, and weights that take them in: what the foldings into convolutions and matrix products
//! share.

use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};
use smallvec::SmallVec;

use half::{bf16, f16};
use num_traits::AsPrimitive;
use trt_fuse_ir::op::BinaryOp;
use trt_fuse_ir::{DType, Element, Epilogue, Graph, NodeId, Op, Patch, Step, Tensor, ValueRef};

use crate::pass::Miss;
use crate::pattern::constant_operand;

/// A weight below this many elements is scaled by one thread.
const ELEMENTS_PER_JOB: usize = 1 << 18;

/// `x * scale + shift`, a factor and a summand for each channel.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Affine {
    /// The factors; `None` if all are 1.
    pub(crate) scale: Option<Vec<f64>>,
    /// The summands; `None` if all are 0.
    pub(crate) shift: Option<Vec<f64>>,
}

impl Affine {
    /// `x * scale`
    pub(crate) fn scale(scale: Vec<f64>) -> Self {
        Self { scale: Some(scale), shift: None }
    }

    /// `x + shift`
    pub(crate) fn shift(shift: Vec<f64>) -> Self {
        Self { scale: None, shift: Some(shift) }
    }

    /// What a BatchNorm with constant parameters computes on `channels` channels.
    pub(crate) fn of_batch_norm(graph: &Graph, id: NodeId, channels: usize) -> Result<Self, Miss> {
        let Some(Op::BatchNorm(op)) = graph.op(id) else { return Err(Miss::NoMatch) };
        if !op.epilogue.is_empty() {
            return Err(Miss::NoMatch);
        }
        let blocked = |reason| Miss::Blocked { reason, at: id };
        let parameter = |slot| {
            let values = graph.input(id, slot).and_then(|input| graph.constant(input)?.to_f64s());
            values.ok_or_else(|| blocked("normalization parameters are not constant"))
        };
        let (scale, bias, mean, var) = (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
        if [&scale, &bias, &mean, &var].iter().any(|values| values.len() != channels) {
            return Err(Miss::NoMatch);
        }
        let epsilon = f64::from(op.epsilon.0);
        let scale: Vec<f64> = scale.iter().zip(&var).map(|(scale, var)| scale / (var + epsilon).sqrt()).collect();
        let shift: Vec<f64> =
            bias.iter().zip(&mean).zip(&scale).map(|((bias, mean), scale)| bias - mean * scale).collect();
        if !scale.iter().chain(&shift).all(|value| value.is_finite()) {
            return Err(blocked("normalization parameters give factors that are not finite"));
        }
        Ok(Self { scale: Some(scale), shift: Some(shift) })
    }

    /// This map and another one after it, of as many channels.
    pub(crate) fn then(self, next: Self) -> Self {
        let product = |a: Vec<f64>, b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<_>>();
        let sum = |a: Vec<f64>, b: Vec<f64>| a.iter().zip(&b).map(|(a, b)| a + b).collect();
        let shift = match (self.shift, &next.scale) {
            (Some(shift), Some(scale)) => Some(product(shift, scale)),
            (shift, _) => shift,
        };
        let scale = match (self.scale, &next.scale) {
            (Some(first), Some(second)) => Some(product(first, second)),
            (first, second) => first.or_else(|| second.clone()),
        };
        let shift = match (shift, next.shift) {
            (Some(first), Some(second)) => Some(sum(first, second)),
            (first, second) => first.or(second),
        };
        Self { scale, shift }
    }
}

/// The values of a constant operand of a binary node whose other operand has `rank` axes and, along `axis`, `channels`
/// elements: one for each channel.
///
/// Blocked if the constant varies along another axis or makes the result larger than the other operand.
pub(crate) fn per_channel(
    constant: &Tensor,
    (rank, axis, channels): (usize, usize, usize),
    at: NodeId,
) -> Result<Vec<f64>, Miss> {
    let blocked = |reason| Err(Miss::Blocked { reason, at });
    if constant.rank() > rank {
        return blocked("broadcasting the constant enlarges the output");
    }
    let offset = rank - constant.rank();
    for (at, size) in constant.dims().iter().enumerate() {
        if at + offset == axis {
            if *size != 1 && *size != channels {
                return blocked("broadcasting the constant enlarges the output");
            }
        } else if *size != 1 {
            return blocked("constant is not one value a channel");
        }
    }
    let values = constant.to_f64s().ok_or(Miss::NoMatch)?;
    match values.as_slice() {
        [value] => Ok(vec![*value; channels]),
        values if values.len() == channels => Ok(values.to_vec()),
        _ => Err(Miss::NoMatch),
    }
}

/// Rank of a convolution's output, its channel axis, and the number of output channels.
pub(crate) fn conv_channels(graph: &Graph, conv: NodeId) -> Option<(usize, usize, usize)> {
    if !matches!(graph.op(conv)?, Op::Conv(_) | Op::ConvTranspose(_)) {
        return None;
    }
    let shape = graph.info(conv.into())?.shape.as_ref()?;
    Some((shape.len(), 1, usize::try_from(shape.get(1)?.value()?).ok()?))
}

/// Rank of a matrix product's output, its last axis, and that axis's size.
pub(crate) fn matmul_columns(graph: &Graph, matmul: NodeId) -> Option<(usize, usize, usize)> {
    if !matches!(graph.op(matmul)?, Op::MatMul(_)) {
        return None;
    }
    let shape = graph.info(matmul.into())?.shape.as_ref()?;
    let last = shape.len().checked_sub(1)?;
    Some((shape.len(), last, usize::try_from(shape.get(last)?.value()?).ok()?))
}

/// The patch that lets a convolution without epilogue compute `root`, an affine map of its output, by other constants.
pub(crate) fn fold_into_conv(
    rule: &'static str,
    graph: &Graph,
    conv: NodeId,
    root: NodeId,
    affine: &Affine,
) -> Result<Patch, Miss> {
    let blocked = |reason| Miss::Blocked { reason, at: conv };
    let op = graph.op(conv).ok_or(Miss::NoMatch)?;
    let x = graph.input(conv, 0).ok_or(Miss::NoMatch)?;
    if !op.epilogue().is_some_and(Epilogue::is_empty) {
        return Err(Miss::NoMatch);
    }
    let bias = match graph.input(conv, 2) {
        None => None,
        Some(bias) => {
            let values = graph.constant(bias).and_then(Tensor::to_f64s);
            Some(values.ok_or_else(|| blocked("bias is not constant"))?)
        }
    };
    let mut patch = Patch::new(rule, conv);
    let weight = scaled_weight(graph, conv, affine, &mut patch)?;
    let shift = Affine { scale: None, shift: bias }.then(affine.clone()).shift;
    let bias = shift.map(|shift| vector(graph.dtype(conv.into()), shift, conv)).transpose()?;
    let mut inputs: SmallVec<[_; 3]> = SmallVec::from_iter([Some(x), Some(weight)]);
    inputs.extend(bias.map(|bias| Some(patch.constant(bias))));
    let fused = patch.add(op.clone(), &inputs);
    patch.replace(root.into(), fused).absorb([conv, root]);
    Ok(patch)
}

/// Folds the constant operand of an elementwise node, one number for each column, into the matrix product that the node
/// reads.
pub(crate) fn fold_operand_into_matmul(
    rule: &'static str,
    graph: &Graph,
    root: NodeId,
    op: BinaryOp,
    affine: fn(Vec<f64>) -> Affine,
) -> Result<Patch, Miss> {
    if graph.op(root) != Some(&Op::Binary(op)) {
        return Err(Miss::NoMatch);
    }
    let (matmul, constant) = constant_operand(graph, root).ok_or(Miss::NoMatch)?;
    let columns = matmul_columns(graph, matmul.node).ok_or(Miss::NoMatch)?;
    fold_into_matmul(rule, graph, matmul.node, root, &affine(per_channel(constant, columns, root)?))
}

/// The patch that lets a matrix product, alone or with a constant bias, compute `root`, an affine map along the last
/// axis of its output, by other constants.
pub(crate) fn fold_into_matmul(
    rule: &'static str,
    graph: &Graph,
    matmul: NodeId,
    root: NodeId,
    affine: &Affine,
) -> Result<Patch, Miss> {
    let op = graph.op(matmul).ok_or(Miss::NoMatch)?;
    let (Some(a), Some(b)) = (graph.input(matmul, 0), graph.input(matmul, 1)) else { return Err(Miss::NoMatch) };
    let bias = match op.epilogue().map(|epilogue| epilogue.0.as_slice()) {
        Some([]) => None,
        Some([Step::Add]) => {
            let constant = graph.input(matmul, 2).and_then(|bias| graph.constant(bias)).ok_or(Miss::NoMatch)?;
            let columns = matmul_columns(graph, matmul).ok_or(Miss::NoMatch)?;
            Some(per_channel(constant, columns, matmul)?)
        }
        _ => return Err(Miss::NoMatch),
    };
    let mut patch = Patch::new(rule, matmul);
    if affine.scale.is_some() && graph.constant(a).is_none() && graph.constant(b).is_none() {
        // A product of two activations, as in attention.
        return Err(Miss::NoMatch);
    }
    let b = scaled_weight(graph, matmul, affine, &mut patch)?;
    let shift = Affine { scale: None, shift: bias }.then(affine.clone()).shift;
    let mut inputs: SmallVec<[_; 3]> = SmallVec::from_iter([Some(a), Some(b)]);
    let mut epilogue = Epilogue::default();
    if let Some(shift) = shift {
        inputs.push(Some(patch.constant(vector(graph.dtype(matmul.into()), shift, matmul)?)));
        epilogue = epilogue.with(Step::Add);
    }
    let fused = patch.add(op.with_epilogue(epilogue).ok_or(Miss::NoMatch)?, &inputs);
    patch.replace(root.into(), fused).absorb([matmul, root]);
    Ok(patch)
}

/// Where the output channels lie in a weight: it is rows of `channels * inner` elements. A row holds `channels`
/// successive channels, `inner` elements each; `rows` successive rows hold the same channels, and the next ones the
/// channels after those, starting over after `total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    rows: usize,
    channels: usize,
    inner: usize,
    total: usize,
}

impl Layout {
    fn of(op: &Op, weight: &Tensor) -> Option<Self> {
        match (op, weight.dims()) {
            (Op::Conv(_), [total, rest @ ..]) => {
                Some(Self { rows: 1, channels: 1, inner: rest.iter().product(), total: *total })
            }
            (Op::ConvTranspose(op), [inputs, channels, kernel @ ..]) => {
                let groups = usize::try_from(op.groups).ok()?;
                let rows = inputs.checked_div(groups).filter(|rows| *rows > 0)?;
                let total = channels.checked_mul(groups)?;
                Some(Self { rows, channels: *channels, inner: kernel.iter().product(), total })
            }
            (Op::MatMul(op), [.., columns, inner]) if op.transpose_b => {
                Some(Self { rows: 1, channels: 1, inner: *inner, total: *columns })
            }
            (Op::MatMul(_), [.., _, columns]) => {
                Some(Self { rows: usize::MAX, channels: *columns, inner: 1, total: *columns })
            }
            _ => None,
        }
    }
}

/// The weight of a node times a map's factors, as a constant of the patch; the weight itself if the map has none.
fn scaled_weight(graph: &Graph, of: NodeId, affine: &Affine, patch: &mut Patch) -> Result<ValueRef, Miss> {
    let (op, weight) = (graph.op(of).ok_or(Miss::NoMatch)?, graph.input(of, 1).ok_or(Miss::NoMatch)?);
    let Some(factors) = &affine.scale else { return Ok(weight) };
    let blocked = |reason| Miss::Blocked { reason, at: of };
    let weight = graph.constant(weight).ok_or_else(|| blocked("weight is not constant"))?;
    let layout = Layout::of(op, weight).filter(|layout| layout.total == factors.len()).ok_or(Miss::NoMatch)?;
    let scaled = match weight.dtype() {
        DType::F32 => scale_rows::<f32>(weight, layout, factors),
        DType::F16 => scale_rows::<f16>(weight, layout, factors),
        DType::BF16 => scale_rows::<bf16>(weight, layout, factors),
        DType::F64 => scale_rows::<f64>(weight, layout, factors),
        _ => return Err(Miss::NoMatch),
    };
    Ok(patch.constant(scaled.ok_or_else(|| blocked("folded constants leave the range of their type"))?))
}

/// `None` if an element is not finite.
fn scale_rows<T>(weight: &Tensor, layout: Layout, factors: &[f64]) -> Option<Tensor>
where
    T: Element + AsPrimitive<f64>,
    f64: AsPrimitive<T>,
{
    let scaled = |value: &T, factor: f64| -> T { (value.as_() * factor).as_() };
    let is_finite = |value: &T| AsPrimitive::<f64>::as_(*value).is_finite();
    if let (Some(bytes), [first, rest @ ..]) = (weight.splat_element(), factors)
        && rest.iter().all(|factor| factor == first)
    {
        let value = scaled(T::read(bytes).first()?, *first);
        return Tensor::full(weight.dims(), value).ok().filter(|_| is_finite(&value));
    }
    let mut out = vec![T::default(); weight.numel()];
    let width = layout.channels.checked_mul(layout.inner).filter(|width| *width > 0)?;
    let all_finite = out
        .par_chunks_mut(width)
        .zip(weight.bytes().par_chunks(width.checked_mul(size_of::<T>())?))
        .enumerate()
        .with_min_len(ELEMENTS_PER_JOB.div_ceil(width))
        .map(|(row, (out, bytes))| {
            // Row by row: bytes of a file that are not aligned are copied, and a whole weight would be a second one.
            let elements: &[T] = &T::read(bytes);
            let first = row / layout.rows * layout.channels % layout.total;
            let factors = factors.get(first..).unwrap_or(&[]);
            if layout.inner == 1 {
                for ((out, element), factor) in out.iter_mut().zip(elements.iter()).zip(factors) {
                    *out = scaled(element, *factor);
                }
            } else {
                let channels = out.chunks_mut(layout.inner).zip(elements.chunks(layout.inner));
                for ((out, elements), factor) in channels.zip(factors) {
                    out.iter_mut().zip(elements).for_each(|(out, element)| *out = scaled(element, *factor));
                }
            }
            // Without a way out early, so that it is vectorised.
            out.iter().fold(true, |all, value| all & is_finite(value))
        })
        .reduce(|| true, |a, b| a && b);
    all_finite.then(|| Tensor::from_vec(weight.dims(), out).ok())?
}

/// A vector of a float dtype.
pub(crate) fn vector(dtype: DType, values: Vec<f64>, at: NodeId) -> Result<Tensor, Miss> {
    fn narrowed<T: Element + AsPrimitive<f64>>(values: &[f64]) -> Option<Tensor>
    where
        f64: AsPrimitive<T>,
    {
        let values: Vec<T> = values.iter().map(|value| value.as_()).collect();
        let finite = values.iter().all(|value| AsPrimitive::<f64>::as_(*value).is_finite());
        finite.then(|| Tensor::vector(values))
    }
    let narrowed = match dtype {
        DType::F32 => narrowed::<f32>(&values),
        DType::F16 => narrowed::<f16>(&values),
        DType::BF16 => narrowed::<bf16>(&values),
        DType::F64 => narrowed::<f64>(&values),
        _ => return Err(Miss::NoMatch),
    };
    narrowed.ok_or(Miss::Blocked { reason: "folded constants leave the range of their type", at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_compose() {
        let a = Affine { scale: Some(vec![2.0, 3.0]), shift: Some(vec![1.0, 1.0]) };
        let b = Affine { scale: Some(vec![10.0, 10.0]), shift: Some(vec![5.0, 6.0]) };
        // (2x + 1) * 10 + 5 and (3x + 1) * 10 + 6.
        let both = Affine { scale: Some(vec![20.0, 30.0]), shift: Some(vec![15.0, 16.0]) };
        assert_eq!(a.clone().then(b.clone()), both);
        assert_eq!(Affine::default().then(a.clone()), a);
        assert_eq!(a.clone().then(Affine::default()), a);
        let scaled = Affine::shift(vec![1.0, 2.0]).then(Affine::scale(vec![3.0, 4.0]));
        assert_eq!(scaled, Affine { scale: Some(vec![3.0, 4.0]), shift: Some(vec![3.0, 8.0]) });
    }

    #[test]
    fn a_large_weight_is_scaled_by_many_threads() {
        let (channels, inner) = (700, 1000);
        let weight = Tensor::from_vec([channels, inner], vec![2.0_f32; channels * inner]).unwrap();
        let layout = Layout { rows: 1, channels: 1, inner, total: channels };
        let factors: Vec<f64> = (0..channels).map(|channel| channel as f64).collect();
        let scaled = scale_rows::<f32>(&weight, layout, &factors).unwrap();
        let elements = scaled.view::<f32>().unwrap();
        assert!(elements.iter().enumerate().all(|(at, element)| *element == 2.0 * (at / inner) as f32));
    }

    #[test]
    fn overflow_is_noticed() {
        let layout = Layout { rows: 1, channels: 1, inner: 1, total: 2 };
        let weight = Tensor::vector(vec![f16::from_f32(1.0), f16::from_f32(300.0)]).reshaped([2, 1]).unwrap();
        assert!(scale_rows::<f16>(&weight, layout, &[300.0, 200.0]).is_some());
        assert!(scale_rows::<f16>(&weight, layout, &[1.0, 300.0]).is_none());
    }
}
