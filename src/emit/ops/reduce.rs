//! Reductions, softmax, top-k, running sums.

use trt_fuse_ir::DType;
use trt_fuse_ir::op::{ArgReduce, Cumulative, Reduce, ReduceKind, Softmax, TopK};

use super::super::error::EmitError;
use super::super::layers::{Cumulative as CumulativeLayer, DimsArg, IntArg, Reduce as ReduceLayer, TopK as TopKLayer};
use super::super::sink::{NetworkSink, Outputs};
use super::super::site::Site;
use super::super::terms::{CumulativeKind, ElementwiseKind, ReduceKind as K, TopKKind, UnaryKind};

pub(super) fn reduce<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &Reduce,
) -> Result<S::Tensor, EmitError> {
    let rank = site.rank(0)?;
    let axes = match (&op.axes, site.source(1)) {
        (Some(axes), _) => axes.to_vec(),
        (None, Some(_)) => match site.info(1).and_then(|info| info.known_ints()) {
            Some(axes) => axes,
            None if site.info(1).and_then(|info| info.fixed_dims()).is_some_and(|dims| dims.contains(&0)) => Vec::new(),
            None => return site.unsupported("axes that are known only at run time"),
        },
        (None, None) => Vec::new(),
    };
    let axes: Vec<i64> = if axes.is_empty() && !op.noop_if_empty { (0..rank as i64).collect() } else { axes };
    let axes: Vec<i64> = axes.iter().map(|axis| if *axis < 0 { axis + rank as i64 } else { *axis }).collect();

    let mut x = site.tensor(0)?;
    // What each element is taken through before the reduction.
    x = match op.kind {
        ReduceKind::L1 => site.unary(x, UnaryKind::Abs, "abs")?,
        ReduceKind::L2 | ReduceKind::SumSquare => site.elementwise(x, x, ElementwiseKind::Prod, "square")?,
        _ => x,
    };
    if op.kind == ReduceKind::LogSumExp && !axes.is_empty() {
        let y = log_sum_exp(site, x, rank, &axes)?;
        return if op.keep_dims { Ok(y) } else { to_output_shape(site, y) };
    }
    let kind = match op.kind {
        ReduceKind::Mean => K::Avg,
        ReduceKind::Max => K::Max,
        ReduceKind::Min => K::Min,
        ReduceKind::Prod => K::Prod,
        _ => K::Sum,
    };
    if !axes.is_empty() {
        let layer = ReduceLayer { kind, axes: &axes, keep_dims: op.keep_dims };
        x = site.layer("", |sink, label| sink.reduce(label, x, &layer))?;
    }
    match op.kind {
        ReduceKind::L2 => site.unary(x, UnaryKind::Sqrt, "sqrt"),
        ReduceKind::LogSum => site.unary(x, UnaryKind::Log, "log"),
        _ if axes.is_empty() => site.layer("", |sink, label| sink.identity(label, x)),
        _ => Ok(x),
    }
}

/// `max + ln(sum(e^(x - max)))`, reduced axes kept: no exponential overflows. The maximum is kept finite, so that a row of
/// negative infinities gives negative infinity and not a NaN.
fn log_sum_exp<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    x: S::Tensor,
    rank: usize,
    axes: &[i64],
) -> Result<S::Tensor, EmitError> {
    let dtype = site.dtype();
    let most = if dtype == DType::F16 { f64::from(half::f16::MAX) } else { f64::from(f32::MAX) };
    let max = ReduceLayer { kind: K::Max, axes, keep_dims: true };
    let max = site.layer("max", |sink, label| sink.reduce(label, x, &max))?;
    let (low, high) = (site.scalar(dtype, rank, -most, "low")?, site.scalar(dtype, rank, most, "high")?);
    let max = site.elementwise(max, low, ElementwiseKind::Max, "max_above")?;
    let max = site.elementwise(max, high, ElementwiseKind::Min, "max_below")?;
    let shifted = site.elementwise(x, max, ElementwiseKind::Sub, "shifted")?;
    let exp = site.unary(shifted, UnaryKind::Exp, "exp")?;
    let sum = ReduceLayer { kind: K::Sum, axes, keep_dims: true };
    let sum = site.layer("sum", |sink, label| sink.reduce(label, exp, &sum))?;
    let log = site.unary(sum, UnaryKind::Log, "log")?;
    site.elementwise(log, max, ElementwiseKind::Sum, "log_sum_exp")
}

/// Without the axes that were kept as 1.
fn to_output_shape<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    y: S::Tensor,
) -> Result<S::Tensor, EmitError> {
    let Some(shape) = site.output().and_then(|info| info.shape.clone()) else {
        return site.unsupported("the output's shape is not known");
    };
    site.reshape_to(y, &shape, "squeeze")
}

pub(super) fn arg_reduce<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &ArgReduce,
) -> Result<S::Tensor, EmitError> {
    if op.select_last {
        return site.unsupported("TensorRT's top-k gives the first of equal elements");
    }
    let indices = site.indices();
    let (x, axis, is_widened) = of_matrices(site, op.axis)?;
    let kind = if op.largest { TopKKind::Max } else { TopKKind::Min };
    let layer = TopKLayer { kind, axis, k: IntArg::Fixed(1), indices };
    let found = site.layer("", |sink, label| sink.top_k(label, x, &layer))?;
    let Some(y) = found.get(1).copied() else { return site.unsupported("top-k gave no indices") };
    let y = site.as_indices(y)?;
    if op.keep_dims && !is_widened { Ok(y) } else { to_output_shape(site, y) }
}

/// The data and the axis from the front, in rank 2 at least, as top-k takes no vector, and whether it was one.
fn of_matrices<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    axis: i64,
) -> Result<(S::Tensor, i64, bool), EmitError> {
    let rank = site.rank(0)?;
    if rank == 1 {
        return Ok((site.aligned(0, 2)?, 1, true));
    }
    Ok((site.tensor(0)?, if axis < 0 { axis + rank as i64 } else { axis }, false))
}

pub(super) fn softmax<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &Softmax,
) -> Result<S::Tensor, EmitError> {
    let rank = site.rank(0)?;
    let x = site.tensor(0)?;
    let axis = if op.axis < 0 { op.axis + rank as i64 } else { op.axis };
    if !op.log {
        return site.layer("", |sink, label| sink.softmax(label, x, axis));
    }
    // x - ln(sum(e^x)): the logarithm of a softmax would lose what rounds to 0.
    let sum = log_sum_exp(site, x, rank, &[axis])?;
    site.elementwise(x, sum, ElementwiseKind::Sub, "")
}

/// `kMAX_TOPK_K` of TensorRT.
const MAX_TOP_K: i64 = 3840;

pub(super) fn top_k<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &TopK,
) -> Result<Outputs<S::Tensor>, EmitError> {
    let (x, axis, is_widened) = of_matrices(site, op.axis)?;
    let k = match site.info(1).and_then(|info| info.known_ints()).as_deref() {
        Some([k]) if *k > MAX_TOP_K => {
            return site
                .unsupported(format!("TensorRT finds at most {MAX_TOP_K} largest or smallest elements, not {k}"));
        }
        Some([k]) => IntArg::Fixed(*k),
        _ => {
            let k = site.tensor(1)?;
            // A scalar, where ONNX has a vector of one.
            IntArg::Tensor(site.shuffle(k, None, Some(DimsArg::Fixed(&[])), None, "k")?)
        }
    };
    let layer =
        TopKLayer { kind: if op.largest { TopKKind::Max } else { TopKKind::Min }, axis, k, indices: site.indices() };
    let mut found = site.layer("", |sink, label| sink.top_k(label, x, &layer))?;
    if let Some(indices) = found.get_mut(1) {
        *indices = site.as_indices(*indices)?;
    }
    if !is_widened {
        return Ok(found);
    }
    let count = if let IntArg::Fixed(k) = k { k } else { -1 };
    let mut vectors = Outputs::new();
    for y in found {
        vectors.push(site.shuffle(y, None, Some(DimsArg::Fixed(&[count])), None, "vector")?);
    }
    Ok(vectors)
}

pub(super) fn cumulative<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &Cumulative,
) -> Result<S::Tensor, EmitError> {
    if op.product {
        return site.unsupported("TensorRT has no running product");
    }
    if !site.capabilities().cumulative {
        return site.unsupported("this TensorRT has no running sum");
    }
    let rank = site.rank(0)?;
    let Some([axis]) = site.info(1).and_then(|info| info.known_ints()).and_then(|axis| <[i64; 1]>::try_from(axis).ok())
    else {
        return site.unsupported("an axis that is known only at run time");
    };
    let x = site.tensor(0)?;
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    let axis = site.scalar(site.capabilities().index_dtype(), 0, axis as f64, "axis")?;
    let layer = CumulativeLayer { kind: CumulativeKind::Sum, axis, exclusive: op.exclusive, reverse: op.reverse };
    site.layer("", |sink, label| sink.cumulative(label, x, &layer))
}
