//! The description of each layer: what TensorRT's layer of that name holds, in its terms.
//!
//! `T` is the sink's tensor handle. Spatial lists (kernel, stride, padding, dilation) have one entry a spatial axis: two
//! or three, as TensorRT has no 1-D layers. Axes are counted from the front. Broadcasting needs equal ranks: the caller
//! inserts extents of one.

use trt_fuse_ir::DType;

use super::sink::Weights;
use super::terms::{
    ActivationKind, AttentionNorm, BoxFormat, CausalMask, CoordinateTransform, CumulativeKind, FillKind, GatherMode,
    Interpolation, PaddingMode, PoolingKind, ReduceKind, ResizeRound, ResizeSelector, SampleMode, ScaleMode, TopKKind,
};

/// Weights known when the engine is built, or a tensor.
#[derive(Debug, Clone)]
pub enum Operand<'w, T> {
    /// Weights of the layer.
    Weights(Weights<'w>),
    /// A tensor, as for a dequantized kernel.
    Tensor(T),
}

/// Extents, offsets or the like, one an axis: known, or a shape tensor of rank one.
#[derive(Debug, Clone, Copy)]
pub enum DimsArg<'a, T> {
    /// Known values.
    Fixed(&'a [i64]),
    /// A tensor of Int32 or Int64.
    Tensor(T),
}

/// One integer: known, or a tensor of rank zero.
#[derive(Debug, Clone, Copy)]
pub enum IntArg<T> {
    /// A known value.
    Fixed(i64),
    /// A tensor of Int32 or Int64.
    Tensor(T),
}

/// A parameter of a fill layer.
#[derive(Debug, Clone, Copy)]
pub enum FillArg<T> {
    /// For float outputs.
    Float(f64),
    /// For integer outputs.
    Int(i64),
    /// A tensor: rank zero, or for the step of a linspace one entry an axis.
    Tensor(T),
}

/// A network input.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Name, unique among tensors.
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Extents; -1 where known only at run time.
    pub dims: &'a [i64],
    /// Name of each axis; equal names mean equal extents. Empty, or one entry an axis.
    pub symbols: &'a [Option<&'a str>],
}

/// Convolution, or deconvolution (transposed convolution).
///
/// The input is `[batch, channels, spatial...]`. Kernel: `[maps, channels / groups, spatial...]`; of a deconvolution
/// `[channels, maps / groups, spatial...]`. Bias: `[maps]`.
#[derive(Debug, Clone)]
pub struct Convolution<'a, 'w, T> {
    /// Channels of the output.
    pub maps: i64,
    /// Spatial extents of the kernel.
    pub kernel_size: &'a [i64],
    /// Step of the window.
    pub stride: &'a [i64],
    /// Padding before, at the start of each spatial axis.
    pub pre_padding: &'a [i64],
    /// Padding after, at the end of each spatial axis.
    pub post_padding: &'a [i64],
    /// Distance of kernel elements.
    pub dilation: &'a [i64],
    /// Groups of channels.
    pub groups: i64,
    /// The kernel.
    pub kernel: Operand<'w, T>,
    /// The bias, added to each output channel.
    pub bias: Option<Operand<'w, T>>,
}

/// Pooling over windows of `[batch, channels, spatial...]`.
#[derive(Debug, Clone, Copy)]
pub struct Pooling<'a> {
    /// What a window gives.
    pub kind: PoolingKind,
    /// Extents of the window.
    pub window: &'a [i64],
    /// Step of the window.
    pub stride: &'a [i64],
    /// Padding before.
    pub pre_padding: &'a [i64],
    /// Padding after.
    pub post_padding: &'a [i64],
    /// Rounding of the output extents.
    pub padding_mode: PaddingMode,
    /// Whether padding is left out of a mean's count.
    pub exclude_padding: bool,
}

/// An activation.
#[derive(Debug, Clone, Copy)]
pub struct Activation {
    /// The function.
    pub kind: ActivationKind,
    /// Its first parameter, where it has one.
    pub alpha: f32,
    /// Its second parameter, where it has one.
    pub beta: f32,
}

/// A reduction.
#[derive(Debug, Clone, Copy)]
pub struct Reduce<'a> {
    /// What it computes.
    pub kind: ReduceKind,
    /// Reduced axes.
    pub axes: &'a [i64],
    /// Whether reduced axes stay, with extent one.
    pub keep_dims: bool,
}

/// `(x * scale + shift) ^ power`; a missing coefficient leaves its step out.
#[derive(Debug, Clone)]
pub struct Scale<'w> {
    /// Over what the coefficients vary.
    pub mode: ScaleMode,
    /// The axis of channels.
    pub channel_axis: i64,
    /// Added.
    pub shift: Option<Weights<'w>>,
    /// Multiplied.
    pub scale: Option<Weights<'w>>,
    /// Exponent.
    pub power: Option<Weights<'w>>,
}

/// Mean and variance normalization over `axes`, then `* scale + bias`.
///
/// Scale and bias have the input's rank; for groups, `[1, channels, 1...]` where the library has INormalization's second
/// form (TensorRT 10.15, TensorRT-RTX), else `[1, groups, 1...]`.
#[derive(Debug, Clone, Copy)]
pub struct Normalization<'a> {
    /// Normalized axes.
    pub axes: &'a [i64],
    /// Added to the variance.
    pub epsilon: f32,
    /// Groups of channels; 1 for none.
    pub groups: i64,
}

/// Transpose, reshape, transpose; each left out if `None`. Zero is an extent of zero, not a placeholder; -1 is derived.
#[derive(Debug, Clone, Copy)]
pub struct Shuffle<'a, T> {
    /// Permutation applied first: output axis `i` is input axis `first_transpose[i]`.
    pub first_transpose: Option<&'a [i64]>,
    /// Extents of the reshape.
    pub reshape: Option<DimsArg<'a, T>>,
    /// Permutation applied last.
    pub second_transpose: Option<&'a [i64]>,
}

/// A slice: element `i` of the output is element `start + i * stride` of the input.
#[derive(Debug, Clone, Copy)]
pub struct Slice<'a, T> {
    /// First element, one entry an axis.
    pub start: DimsArg<'a, T>,
    /// Extents of the output, one entry an axis.
    pub size: DimsArg<'a, T>,
    /// Steps, one entry an axis; may be negative.
    pub stride: DimsArg<'a, T>,
    /// What is read outside the input.
    pub mode: SampleMode,
    /// The value of [`SampleMode::Fill`], rank zero; zero if missing.
    pub fill: Option<T>,
}

/// A gather.
#[derive(Debug, Clone, Copy)]
pub struct Gather {
    /// How indices are read.
    pub mode: GatherMode,
    /// Gathered axis; unused for [`GatherMode::Nd`].
    pub axis: i64,
    /// Leading axes that data and indices share.
    pub batch_dims: i64,
}

/// A fill of new values.
#[derive(Debug, Clone, Copy)]
pub struct Fill<'a, T> {
    /// What is written.
    pub kind: FillKind,
    /// Extents of the output.
    pub dims: DimsArg<'a, T>,
    /// Element type of the output.
    pub dtype: DType,
    /// First parameter of `kind`.
    pub alpha: FillArg<T>,
    /// Second parameter of `kind`.
    pub beta: FillArg<T>,
}

/// The largest or smallest elements along one axis, in order.
#[derive(Debug, Clone, Copy)]
pub struct TopK<T> {
    /// Largest or smallest.
    pub kind: TopKKind,
    /// The axis.
    pub axis: i64,
    /// How many.
    pub k: IntArg<T>,
    /// Element type of the indices: Int32, or Int64 where the library has it.
    pub indices: DType,
}

/// The output extents of a resize.
#[derive(Debug, Clone, Copy)]
pub enum ResizeTo<'a, T> {
    /// Extents, one an axis.
    Dims(DimsArg<'a, T>),
    /// Factors, one an axis.
    Scales(&'a [f32]),
}

/// A resize.
#[derive(Debug, Clone, Copy)]
pub struct Resize<'a, T> {
    /// Output extents.
    pub to: ResizeTo<'a, T>,
    /// Interpolation.
    pub mode: Interpolation,
    /// Coordinates.
    pub transform: CoordinateTransform,
    /// Coordinate where the output has extent one.
    pub selector: ResizeSelector,
    /// Rounding of nearest.
    pub rounding: ResizeRound,
    /// Coefficient of cubic.
    pub cubic_coeff: f32,
    /// Whether weights outside the input are left out and the rest normalized.
    pub exclude_outside: bool,
}

/// Samples of `[batch, channels, height, width]` at a grid `[batch, out_height, out_width, 2]`.
#[derive(Debug, Clone, Copy)]
pub struct GridSample {
    /// Interpolation.
    pub interpolation: Interpolation,
    /// Whether -1 and 1 are the centres of the corner elements.
    pub align_corners: bool,
    /// What is read outside.
    pub mode: SampleMode,
}

/// Non-maximum suppression. Outputs: selected indices `[selected, 3]`, and their count (rank zero).
#[derive(Debug, Clone, Copy)]
pub struct Nms<T> {
    /// `[batch, boxes, 4]`, or `[batch, boxes, classes, 4]`
    pub boxes: T,
    /// `[batch, boxes, classes]`
    pub scores: T,
    /// Rank zero, Int32.
    pub max_output_boxes_per_class: T,
    /// Rank zero, Float.
    pub iou_threshold: Option<T>,
    /// Rank zero, Float.
    pub score_threshold: Option<T>,
    /// How a box is given.
    pub format: BoxFormat,
    /// Most boxes looked at; `None` for the library's limit.
    pub top_k_limit: Option<i64>,
    /// Element type of the indices: Int32, or Int64 where the library has it.
    pub indices: DType,
}

/// A running operation along an axis.
#[derive(Debug, Clone, Copy)]
pub struct Cumulative<T> {
    /// The operation.
    pub kind: CumulativeKind,
    /// The axis: a constant tensor of rank zero, Int32 or Int64.
    pub axis: T,
    /// Whether an element leaves itself out.
    pub exclusive: bool,
    /// Whether it runs from the end.
    pub reverse: bool,
}

/// Quantization to, or dequantization from, `dtype`.
#[derive(Debug, Clone, Copy)]
pub struct Quantize<T> {
    /// Rank zero, one (per axis), or of the input's rank (blocks).
    pub scale: T,
    /// Of the shape of the scale; must be all zeros.
    pub zero_point: Option<T>,
    /// The axis of a scale of rank one.
    pub axis: Option<i64>,
    /// Element type of the output.
    pub dtype: DType,
}

/// Attention over `[batch, heads, sequence, head size]`, the query already scaled.
#[derive(Debug, Clone, Copy)]
pub struct Attention<T> {
    /// Queries.
    pub query: T,
    /// Keys.
    pub key: T,
    /// Values.
    pub value: T,
    /// How scores are normalized.
    pub norm: AttentionNorm,
    /// Causal masking.
    pub causal: CausalMask,
    /// Bool (true keeps) or the query's type (added), broadcast to `[batch, heads, queries, keys]`; excludes `causal`.
    pub mask: Option<T>,
    /// Whether TensorRT may use several kernels where no fused one fits.
    pub decomposable: bool,
}

/// Rotary position embedding of `[batch, heads, sequence, head size]`.
#[derive(Debug, Clone, Copy)]
pub struct RotaryEmbedding<T> {
    /// `[batch, sequence, rotated / 2]`
    pub cos: T,
    /// `[batch, sequence, rotated / 2]`
    pub sin: T,
    /// Whether pairs are neighbours, not halves.
    pub interleaved: bool,
    /// Rotated elements of a head; 0 for all.
    pub dim: i64,
}

/// A conditional of the network being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditional(pub(crate) u32);

/// A loop of the network being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loop(pub(crate) u32);
