//! Reductions, softmax, top-k, running sums.

use trt_fuse_ir::op::{ArgReduce, Cumulative, Reduce, ReduceKind, Softmax, TopK};
use trt_fuse_ir::{DType, Dim, Op};

use super::super::error::EmitError;
use super::super::layers::{
    Cumulative as CumulativeLayer, DimsArg, IntArg, Pooling, Reduce as ReduceLayer, TopK as TopKLayer,
};
use super::super::sink::{NetworkSink, Outputs};
use super::super::site::Site;
use super::super::terms::{
    CumulativeKind, ElementwiseKind, PaddingMode, PoolingKind, ReduceKind as K, TopKKind, UnaryKind,
};

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
    if let Some((kind, plane)) = made_plane(site, op.kind, &axes) {
        let y = pool_plane(site, x, kind, &plane)?;
        return if op.keep_dims { Ok(y) } else { to_output_shape(site, y) };
    }
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

/// The most elements along one axis of a window, and in all of it: longer sums stay reductions, as the time that either
/// takes was not measured. TensorRT takes windows of 100,000.
const MAX_WINDOW_SIDE: i64 = 256;
const MAX_WINDOW: i64 = 65_536;

/// The plane of a reduction that is better spelled as a pooling whose window is the whole of it: a mean or maximum over
/// all spatial axes, of known sizes, of what a convolution or a pooling made.
///
/// TensorRT-RTX keeps what such kernels make with its channels last. A pooling reads that as it is. For a reduction it is
/// transposed first, by a kernel of its own or by one that also applies the convolution's activation, which is then not
/// in the convolution's kernel; where the plane is scaled afterwards (squeeze and excite), it is transposed back. What other
/// nodes make stays a reduction, as TensorRT computes both in one kernel.
///
/// Engine layers, not times, of TensorRT-RTX 1.7.1 in f32, batch 1, measured on 2026-11-26: models, and one block each of a
/// convolution, squeeze and excite, and a second convolution. Batches of 32 and of a symbol, f16, maxima, volumes, depthwise
/// and transposed convolutions and maximum pooling differ by as much.
///
/// | model or block | plane | reduction | pooling |
/// |---|---|--:|--:|
/// | mobilenet_v3_large | 7 to 28 | 87 | 82 |
/// | resnet50 | 7 | 58 | 57 |
/// | light_squeezenet | 14 | 33 | 32 |
/// | efficientnet_b0 | 7 to 112 | 116 | 116 |
/// | mobilenet_v2 | 7 | 55 | 55 |
/// | shufflenet_v2 | 7 | 76 | 76 |
/// | squeezenet1_1 | 13 | 32 | 32 |
/// | none, relu, sigmoid or tanh | 7, 14 | 8 | 8 |
/// | none, relu, sigmoid or tanh | 28, 56, 112 | 9 | 8 |
/// | hard_swish | 7, 14 | 8 | 8 |
/// | hard_swish | 28, 56 | 9 | 8 |
/// | swish, gelu | 7 to 56 | 8 | 8 |
/// | relu of the network's input | 7, 28 | 6 | 7 |
/// | densenet121 (of a concatenation, normalized) | 7 | 188 | 189 |
/// | convnext_tiny (of a sum) | 7 | 99 | 100 |
fn made_plane<'g, S: NetworkSink<'g>>(
    site: &Site<'_, '_, 'g, S>,
    kind: ReduceKind,
    axes: &[i64],
) -> Option<(PoolingKind, Vec<i64>)> {
    if !site.capabilities().plane_pooling || !matches!(site.dtype(), DType::F32 | DType::F16) {
        return None;
    }
    let kind = match kind {
        ReduceKind::Mean => PoolingKind::Average,
        ReduceKind::Max => PoolingKind::Max,
        _ => return None,
    };
    let producer = site.emitter.graph.op(site.source(0)?.node)?;
    if !matches!(producer, Op::Conv(_) | Op::ConvTranspose(_) | Op::Pool(_)) {
        return None;
    }
    let plane = site.info(0)?.shape.as_ref()?.get(2..)?;
    let is_of_plane = axes.len() == plane.len() && (2..).take(plane.len()).all(|axis| axes.contains(&axis));
    let sizes: Vec<i64> = plane.iter().map(Dim::value).collect::<Option<_>>()?;
    let fits = sizes.iter().all(|size| (1..=MAX_WINDOW_SIDE).contains(size))
        && sizes.iter().product::<i64>() <= MAX_WINDOW
        && matches!(sizes.len(), 2 | 3);
    (is_of_plane && fits).then_some((kind, sizes))
}

fn pool_plane<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    x: S::Tensor,
    kind: PoolingKind,
    plane: &[i64],
) -> Result<S::Tensor, EmitError> {
    let (ones, zeros) = (vec![1; plane.len()], vec![0; plane.len()]);
    let layer = Pooling {
        kind,
        window: plane,
        stride: &ones,
        pre_padding: &zeros,
        post_padding: &zeros,
        padding_mode: PaddingMode::ExplicitRoundDown,
        exclude_padding: true,
    };
    site.layer("", |sink, label| sink.pooling(label, x, &layer))
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
        return site.unsupported("TensorRT's top-k has no choice among equal elements");
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
    if site.info(0).is_some_and(|info| info.dtype.is_integer()) && !site.capabilities().top_k_integers {
        return site.unsupported("this TensorRT finds the largest and smallest elements of floats only");
    }
    let (x, axis, is_widened) = of_matrices(site, op.axis)?;
    let k = match site.info(1).and_then(|info| info.known_ints()).as_deref() {
        Some([k]) if *k > MAX_TOP_K => {
            return site
                .unsupported(format!("TensorRT finds at most {MAX_TOP_K} largest or smallest elements, not {k}"));
        }
        Some([k]) => IntArg::Fixed(*k),
        _ if !site.capabilities().top_k_input => {
            return site.unsupported("this TensorRT takes no computed number of largest or smallest elements");
        }
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

#[cfg(test)]
mod tests {
    use trt_fuse_ir::{Capabilities, Graph, verify};

    use crate::emit::emit;
    use crate::emit::record::Record;

    /// The layers that reduce or pool, and those that reshape.
    fn layers(text: &str, capabilities: &Capabilities) -> String {
        let graph: Graph = text.parse().unwrap();
        let mut record = Record::new();
        emit(verify(&graph).unwrap(), capabilities, &mut record).unwrap();
        let text = record.text();
        let wanted = |line: &&str| [" = reduce ", " = pooling ", " = shuffle "].iter().any(|kind| line.contains(kind));
        text.lines().filter(wanted).collect::<Vec<_>>().join("\n")
    }

    /// Of a convolution of a plane.
    fn of_conv(plane: &str, reduce: &str) -> String {
        let text = format!(
            "graph g(%x: f32[n, 2, {plane}], %w: f32[2, 2, 1, 1]) -> (%y) {{
                %c = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1 epilogue=[relu]
                %y = reduce(%c) {reduce}
            }}"
        );
        layers(&text, &Capabilities::default())
    }

    #[test]
    fn a_plane_that_a_convolution_made_is_pooled() {
        insta::assert_snapshot!(of_conv("7, 5", "kind=mean axes=[2, 3] keep_dims=true"), @r#"%y f32[n,2,1,1] = pooling "y" (%c) kind=average window=[7,5] exclude_padding=true"#);
        insta::assert_snapshot!(of_conv("7, 5", "kind=max axes=[-1, 2]"), @r#"
        %y_out = pooling "y" (%c) kind=max window=[7,5] exclude_padding=true
        %y f32[n,2] = shuffle "y::squeeze" (%y_out) reshape=[-1,2] ; y
        "#);
    }

    #[test]
    fn a_volume_that_a_pooling_made_is_pooled() {
        let text = "graph g(%x: f16[1, 2, 8, 8, 8]) -> (%y) {
            %p = pool(%x) kind=max kernel=[2, 2, 2] strides=[2, 2, 2] dilations=[1, 1, 1]
            %y = reduce(%p) kind=mean axes=[2, 3, 4] keep_dims=true
        }";
        insta::assert_snapshot!(layers(text, &Capabilities::default()), @r#"
        %p f16[1,2,4,4,4] = pooling "p" (%x) kind=max window=[2,2,2] stride=[2,2,2] exclude_padding=true
        %y f16[1,2,1,1,1] = pooling "y" (%p) kind=average window=[4,4,4] exclude_padding=true
        "#);
    }

    #[test]
    fn other_reductions_stay() {
        for (plane, reduce) in [
            ("7, 5", "kind=sum axes=[2, 3] keep_dims=true"),
            ("7, 5", "kind=mean axes=[3] keep_dims=true"),
            ("7, 5", "kind=mean axes=[1, 2] keep_dims=true"),
            ("7, 5", "kind=mean axes=[1, 2, 3] keep_dims=true"),
            ("h, 5", "kind=mean axes=[2, 3] keep_dims=true"),
            ("2, 257", "kind=mean axes=[2, 3] keep_dims=true"),
        ] {
            let layers = of_conv(plane, reduce);
            assert!(layers.contains(" = reduce ") && !layers.contains("pooling"), "{plane} {reduce}: {layers}");
        }
    }

    #[test]
    fn planes_of_other_makers_types_and_targets_stay() {
        let reduce = "%y = reduce(%r) kind=mean axes=[2, 3] keep_dims=true";
        let relu = format!("graph g(%x: f32[n, 2, 7, 5]) -> (%y) {{ %r = relu(%x) {reduce} }}");
        let conv = |dtype: &str| {
            format!(
                "graph g(%x: {dtype}[n, 2, 7, 5], %w: {dtype}[2, 2, 1, 1]) -> (%y) {{
                    %r = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1 {reduce} }}"
            )
        };
        let rtx = Capabilities::default();
        for (text, capabilities) in
            [(relu, &rtx), (conv("bf16"), &rtx), (conv("f32"), &Capabilities::tensorrt((11, 4, 0)))]
        {
            let layers = layers(&text, capabilities);
            assert!(layers.contains(" = reduce ") && !layers.contains("pooling"), "{text}: {layers}");
        }
    }
}
