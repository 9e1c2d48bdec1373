//! The one way to make layers: [`NetworkSink`].

use std::borrow::Cow;
use std::fmt::Debug;

use smallvec::SmallVec;
use trt_fuse_ir::{DType, Shape, Tensor};

use super::EmitError;
use super::layers::{
    Activation, Attention, Conditional, Convolution, Cumulative, Fill, Gather, GridSample, Input, Loop, Nms,
    Normalization, Pooling, Quantize, Reduce, Resize, RotaryEmbedding, Scale, Shuffle, Slice, TopK,
};
use super::terms::{ElementwiseKind, LoopOutput, MatrixOp, ScatterMode, TripLimit, UnaryKind};

/// Weights that outlive the network, or that the network is to keep.
pub type Weights<'w> = Cow<'w, Tensor>;

/// The tensors of a layer with several outputs, in TensorRT's order.
pub type Outputs<T> = SmallVec<[T; 2]>;

/// Stands between the names of ONNX nodes in [`Label::metadata`]. TensorRT joins the metadata of fused layers with it.
pub const ORIGIN_SEPARATOR: char = '\u{1f}';

/// What a layer is called. Neither text may contain a line break: engine listings are read line by line.
#[derive(Debug, Clone, Copy)]
pub struct Label<'a> {
    /// Unique name of the layer. Its outputs are named after it, see [`output_name`].
    pub name: &'a str,
    /// What TensorRT keeps with the layer and prints in engine listings: the ONNX nodes that it computes, separated by
    /// [`ORIGIN_SEPARATOR`].
    pub metadata: &'a str,
}

impl<'a> Label<'a> {
    /// A label whose metadata is its name.
    pub fn new(name: &'a str) -> Self {
        Self { name, metadata: name }
    }
}

/// The name that output `slot` of the layer `layer` gets, until it is given another.
pub fn output_name(layer: &str, slot: usize) -> String {
    if slot == 0 { format!("{layer}_out") } else { format!("{layer}_out{slot}") }
}

/// Layers of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerCounts {
    /// All layers.
    pub all: usize,
    /// Layers other than constants.
    pub without_constants: usize,
}

/// Where layers are made. `'w` is the lifetime of borrowed weights.
///
/// Each method adds one layer and gives its output, or the error that names the layer and what the sink said.
pub trait NetworkSink<'w> {
    /// A handle of a tensor of this network.
    type Tensor: Copy + Debug;

    /// A network input.
    fn input(&mut self, input: &Input<'_>) -> Result<Self::Tensor, EmitError>;

    /// A constant of the tensor's own type and dimensions.
    fn constant(&mut self, label: Label<'_>, value: Weights<'w>) -> Result<Self::Tensor, EmitError>;

    /// See [`Convolution`].
    fn convolution(
        &mut self,
        label: Label<'_>,
        x: Self::Tensor,
        layer: Convolution<'_, 'w, Self::Tensor>,
    ) -> Result<Self::Tensor, EmitError>;

    /// The gradient of a convolution, see [`Convolution`].
    fn deconvolution(
        &mut self,
        label: Label<'_>,
        x: Self::Tensor,
        layer: Convolution<'_, 'w, Self::Tensor>,
    ) -> Result<Self::Tensor, EmitError>;

    /// See [`Pooling`].
    fn pooling(&mut self, label: Label<'_>, x: Self::Tensor, layer: &Pooling<'_>) -> Result<Self::Tensor, EmitError>;

    /// See [`Activation`].
    fn activation(&mut self, label: Label<'_>, x: Self::Tensor, layer: &Activation) -> Result<Self::Tensor, EmitError>;

    /// See [`UnaryKind`].
    fn unary(&mut self, label: Label<'_>, x: Self::Tensor, kind: UnaryKind) -> Result<Self::Tensor, EmitError>;

    /// See [`ElementwiseKind`].
    fn elementwise(
        &mut self,
        label: Label<'_>,
        a: Self::Tensor,
        b: Self::Tensor,
        kind: ElementwiseKind,
    ) -> Result<Self::Tensor, EmitError>;

    /// Products of the matrices in the last two axes, the axes before them broadcast.
    fn matrix_multiply(
        &mut self,
        label: Label<'_>,
        a: (Self::Tensor, MatrixOp),
        b: (Self::Tensor, MatrixOp),
    ) -> Result<Self::Tensor, EmitError>;

    /// See [`Reduce`].
    fn reduce(&mut self, label: Label<'_>, x: Self::Tensor, layer: &Reduce<'_>) -> Result<Self::Tensor, EmitError>;

    /// Softmax along one axis.
    fn softmax(&mut self, label: Label<'_>, x: Self::Tensor, axis: i64) -> Result<Self::Tensor, EmitError>;

    /// See [`Scale`].
    fn scale(&mut self, label: Label<'_>, x: Self::Tensor, layer: Scale<'w>) -> Result<Self::Tensor, EmitError>;

    /// See [`Normalization`].
    fn normalization(
        &mut self,
        label: Label<'_>,
        x: Self::Tensor,
        scale: Self::Tensor,
        bias: Self::Tensor,
        layer: &Normalization<'_>,
    ) -> Result<Self::Tensor, EmitError>;

    /// Local response normalization over `window` channels: `x / (k + alpha / window * sum(x^2)) ^ beta`.
    fn lrn(
        &mut self,
        label: Label<'_>,
        x: Self::Tensor,
        window: i64,
        alpha: f32,
        beta: f32,
        k: f32,
    ) -> Result<Self::Tensor, EmitError>;

    /// See [`Shuffle`].
    fn shuffle(
        &mut self,
        label: Label<'_>,
        x: Self::Tensor,
        layer: &Shuffle<'_, Self::Tensor>,
    ) -> Result<Self::Tensor, EmitError>;

    /// Concatenation along `axis`.
    fn concatenation(&mut self, label: Label<'_>, xs: &[Self::Tensor], axis: i64) -> Result<Self::Tensor, EmitError>;

    /// See [`Slice`].
    fn slice(
        &mut self,
        label: Label<'_>,
        x: Self::Tensor,
        layer: &Slice<'_, Self::Tensor>,
    ) -> Result<Self::Tensor, EmitError>;

    /// See [`Gather`].
    fn gather(
        &mut self,
        label: Label<'_>,
        data: Self::Tensor,
        indices: Self::Tensor,
        layer: &Gather,
    ) -> Result<Self::Tensor, EmitError>;

    /// `condition ? a : b`, equal ranks, extents of one broadcast.
    fn select(
        &mut self,
        label: Label<'_>,
        condition: Self::Tensor,
        a: Self::Tensor,
        b: Self::Tensor,
    ) -> Result<Self::Tensor, EmitError>;

    /// The extents of a tensor: Int64; Int32 before TensorRT 10.
    fn shape(&mut self, label: Label<'_>, x: Self::Tensor) -> Result<Self::Tensor, EmitError>;

    /// Conversion to another element type.
    fn cast(&mut self, label: Label<'_>, x: Self::Tensor, dtype: DType) -> Result<Self::Tensor, EmitError>;

    /// The same tensor, under another name.
    fn identity(&mut self, label: Label<'_>, x: Self::Tensor) -> Result<Self::Tensor, EmitError>;

    /// See [`Fill`].
    fn fill(&mut self, label: Label<'_>, layer: &Fill<'_, Self::Tensor>) -> Result<Self::Tensor, EmitError>;

    /// See [`TopK`]. Outputs: values, indices.
    fn top_k(
        &mut self,
        label: Label<'_>,
        x: Self::Tensor,
        layer: &TopK<Self::Tensor>,
    ) -> Result<Outputs<Self::Tensor>, EmitError>;

    /// See [`Resize`].
    fn resize(
        &mut self,
        label: Label<'_>,
        x: Self::Tensor,
        layer: &Resize<'_, Self::Tensor>,
    ) -> Result<Self::Tensor, EmitError>;

    /// See [`GridSample`].
    fn grid_sample(
        &mut self,
        label: Label<'_>,
        x: Self::Tensor,
        grid: Self::Tensor,
        layer: &GridSample,
    ) -> Result<Self::Tensor, EmitError>;

    /// See [`Nms`].
    fn nms(&mut self, label: Label<'_>, layer: &Nms<Self::Tensor>) -> Result<Outputs<Self::Tensor>, EmitError>;

    /// Indices of the elements that are not zero: `[rank, count]`, Int32, or Int64 where the library has it.
    fn non_zero(&mut self, label: Label<'_>, x: Self::Tensor, indices: DType) -> Result<Self::Tensor, EmitError>;

    /// One-hot vectors along a new axis: `values` is `[off, on]`, `depth` of rank zero.
    fn one_hot(
        &mut self,
        label: Label<'_>,
        indices: Self::Tensor,
        values: Self::Tensor,
        depth: Self::Tensor,
        axis: i64,
    ) -> Result<Self::Tensor, EmitError>;

    /// `data` with `updates` written at `indices`; `axis` is unused for [`ScatterMode::Nd`].
    fn scatter(
        &mut self,
        label: Label<'_>,
        data: Self::Tensor,
        indices: Self::Tensor,
        updates: Self::Tensor,
        mode: ScatterMode,
        axis: i64,
    ) -> Result<Self::Tensor, EmitError>;

    /// See [`Cumulative`].
    fn cumulative(
        &mut self,
        label: Label<'_>,
        x: Self::Tensor,
        layer: &Cumulative<Self::Tensor>,
    ) -> Result<Self::Tensor, EmitError>;

    /// The first `lengths[b]` elements along `sequence_axis` reversed, for each `b` of `batch_axis`.
    fn reverse_sequence(
        &mut self,
        label: Label<'_>,
        x: Self::Tensor,
        lengths: Self::Tensor,
        batch_axis: i64,
        sequence_axis: i64,
    ) -> Result<Self::Tensor, EmitError>;

    /// Einstein summation.
    fn einsum(&mut self, label: Label<'_>, xs: &[Self::Tensor], equation: &str) -> Result<Self::Tensor, EmitError>;

    /// See [`Quantize`].
    fn quantize(
        &mut self,
        label: Label<'_>,
        x: Self::Tensor,
        layer: &Quantize<Self::Tensor>,
    ) -> Result<Self::Tensor, EmitError>;

    /// See [`Quantize`].
    fn dequantize(
        &mut self,
        label: Label<'_>,
        x: Self::Tensor,
        layer: &Quantize<Self::Tensor>,
    ) -> Result<Self::Tensor, EmitError>;

    /// `x >= 0 ? x : slope * x`, equal ranks, extents of one of the slope broadcast.
    fn parametric_relu(
        &mut self,
        label: Label<'_>,
        x: Self::Tensor,
        slope: Self::Tensor,
    ) -> Result<Self::Tensor, EmitError>;

    /// See [`Attention`].
    fn attention(&mut self, label: Label<'_>, layer: &Attention<Self::Tensor>) -> Result<Self::Tensor, EmitError>;

    /// See [`RotaryEmbedding`].
    fn rotary_embedding(
        &mut self,
        label: Label<'_>,
        x: Self::Tensor,
        layer: &RotaryEmbedding<Self::Tensor>,
    ) -> Result<Self::Tensor, EmitError>;

    /// `cache` `[batch, heads, capacity, head size]` with `update` written at `write_indices` `[batch]`, in place.
    fn kv_cache_update(
        &mut self,
        label: Label<'_>,
        cache: Self::Tensor,
        update: Self::Tensor,
        write_indices: Self::Tensor,
    ) -> Result<Self::Tensor, EmitError>;

    /// A conditional on a Bool of rank zero.
    fn conditional(&mut self, label: Label<'_>, condition: Self::Tensor) -> Result<Conditional, EmitError>;

    /// A tensor from outside as the branches of the conditional see it.
    fn conditional_input(
        &mut self,
        label: Label<'_>,
        conditional: Conditional,
        x: Self::Tensor,
    ) -> Result<Self::Tensor, EmitError>;

    /// The value of the branch taken.
    fn conditional_output(
        &mut self,
        label: Label<'_>,
        conditional: Conditional,
        when_true: Self::Tensor,
        when_false: Self::Tensor,
    ) -> Result<Self::Tensor, EmitError>;

    /// A loop.
    fn start_loop(&mut self, label: Label<'_>) -> Result<Loop, EmitError>;

    /// How long the loop runs: a count (Int32 or Int64 of rank zero) from outside, or a Bool of rank zero from inside.
    fn trip_limit(
        &mut self,
        label: Label<'_>,
        looped: Loop,
        limit: Self::Tensor,
        kind: TripLimit,
    ) -> Result<(), EmitError>;

    /// A value carried from one iteration to the next, as the body sees it.
    fn recurrence(&mut self, label: Label<'_>, looped: Loop, initial: Self::Tensor) -> Result<Self::Tensor, EmitError>;

    /// The value that `recurrence` has in the next iteration.
    fn set_recurrence(&mut self, recurrence: Self::Tensor, next: Self::Tensor) -> Result<(), EmitError>;

    /// The slice of `x` at the iteration's index along `axis`, from the end if `reverse`.
    fn iterator(
        &mut self,
        label: Label<'_>,
        looped: Loop,
        x: Self::Tensor,
        axis: i64,
        reverse: bool,
    ) -> Result<Self::Tensor, EmitError>;

    /// A value of the loop as it is seen outside; for a concatenation, `axis` is new and `length` its extent.
    fn loop_output(
        &mut self,
        label: Label<'_>,
        looped: Loop,
        x: Self::Tensor,
        kind: LoopOutput,
        axis: i64,
        length: Option<Self::Tensor>,
    ) -> Result<Self::Tensor, EmitError>;

    /// Names a tensor. Names are unique in a network.
    fn set_tensor_name(&mut self, tensor: Self::Tensor, name: &str) -> Result<(), EmitError>;

    /// Makes a tensor a network output, under this name and of this element type.
    fn mark_output(&mut self, tensor: Self::Tensor, name: &str, dtype: DType) -> Result<(), EmitError>;

    /// Tells what the graph's own inference says of a tensor.
    fn note(&mut self, tensor: Self::Tensor, dtype: DType, shape: &Shape);

    /// Extents by the sink's own inference, -1 where known only at run time; `None` if it has none or does not know the
    /// rank.
    fn dims(&self, tensor: Self::Tensor) -> Option<Vec<i64>>;

    /// Element type by the sink's own inference, if it has one.
    fn dtype(&self, tensor: Self::Tensor) -> Option<DType>;

    /// Layers made so far.
    fn layer_counts(&self) -> LayerCounts;
}
