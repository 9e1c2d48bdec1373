//! Each layer, handed to C++.

use trt_fuse_ir::{DType, Shape};

use super::{TrtNetwork, TrtTensor, axis_mask, code, dims, optional, refused, small};
use crate::emit::EmitError;
use crate::emit::layers::{
    Activation, Attention, Conditional, Convolution, Cumulative, DimsArg, Fill, FillArg, Gather, GridSample, Input,
    IntArg, Loop, Nms, Normalization, Pooling, Quantize, Reduce, Resize, ResizeTo, RotaryEmbedding, Scale, Shuffle,
    Slice, TopK,
};
use crate::emit::sink::{Label, LayerCounts, NetworkSink, Outputs, Weights};
use crate::emit::terms::{ElementwiseKind, LoopOutput, MatrixOp, ScatterMode, TripLimit, UnaryKind};
use crate::tensorrt::dtype;
use crate::tensorrt::ffi::NO_TENSOR;
use crate::tensorrt::ffi::bridge::{RawAttention, RawConvolution, RawDims, RawFillArg, RawNms, RawResize, RawWindow};

impl<'w> TrtNetwork<'w> {
    fn any_convolution(
        &mut self,
        label: Label<'_>,
        x: TrtTensor,
        layer: Convolution<'_, 'w, TrtTensor>,
        transposed: bool,
    ) -> Result<TrtTensor, EmitError> {
        let dtype = self.dtype_code(x);
        let (kernel, kernel_tensor) = self.hold_operand(label, Some(layer.kernel), dtype)?;
        let (bias, bias_tensor) = self.hold_operand(label, layer.bias, kernel.dtype)?;
        let raw = RawConvolution {
            maps: layer.maps,
            groups: layer.groups,
            window: RawWindow {
                size: layer.kernel_size,
                stride: layer.stride,
                pre_padding: layer.pre_padding,
                post_padding: layer.post_padding,
                dilation: layer.dilation,
            },
            kernel: kernel.raw(),
            bias: bias.raw(),
            kernel_tensor,
            bias_tensor,
        };
        let network = self.inner.pin_mut();
        // SAFETY: `hold_operand` gives weights that live as long as the network, with as many bytes as they have elements.
        let made =
            unsafe { if transposed { network.deconvolution(x.0, &raw) } else { network.convolution(x.0, &raw) } };
        self.one(label, made)
    }
}

fn fill_arg(argument: FillArg<TrtTensor>) -> RawFillArg {
    let raw = RawFillArg { tensor: NO_TENSOR, is_int: false, int_: 0, float_: 0.0 };
    match argument {
        FillArg::Float(value) => RawFillArg { float_: value, ..raw },
        FillArg::Int(value) => RawFillArg { is_int: true, int_: value, ..raw },
        FillArg::Tensor(tensor) => RawFillArg { tensor: tensor.0, ..raw },
    }
}

impl<'w> NetworkSink<'w> for TrtNetwork<'w> {
    type Tensor = TrtTensor;

    fn input(&mut self, input: &Input<'_>) -> Result<TrtTensor, EmitError> {
        let dtype = code(Label::new(input.name), input.dtype)?;
        let refused = |why: cxx::Exception| refused(input.name, &why);
        let tensor = self.network().input(input.name, dtype, input.dims).map_err(refused)?;
        for (axis, symbol) in (0..).zip(input.symbols) {
            if let Some(symbol) = symbol {
                self.network().set_dimension_name(tensor, axis, symbol).map_err(refused)?;
            }
        }
        Ok(TrtTensor(tensor))
    }

    fn constant(&mut self, label: Label<'_>, value: Weights<'w>) -> Result<TrtTensor, EmitError> {
        let extents: Vec<i64> = value.dims().iter().map(|extent| i64::try_from(*extent).unwrap_or(i64::MAX)).collect();
        let held = self.hold(label, value)?;
        // SAFETY: `hold` gives weights that live as long as the network, with as many bytes as they have elements.
        let made = unsafe { self.inner.pin_mut().constant(&held.raw(), &extents) };
        self.one(label, made)
    }

    fn convolution(
        &mut self,
        label: Label<'_>,
        x: TrtTensor,
        layer: Convolution<'_, 'w, TrtTensor>,
    ) -> Result<TrtTensor, EmitError> {
        self.any_convolution(label, x, layer, false)
    }

    fn deconvolution(
        &mut self,
        label: Label<'_>,
        x: TrtTensor,
        layer: Convolution<'_, 'w, TrtTensor>,
    ) -> Result<TrtTensor, EmitError> {
        self.any_convolution(label, x, layer, true)
    }

    fn pooling(&mut self, label: Label<'_>, x: TrtTensor, layer: &Pooling<'_>) -> Result<TrtTensor, EmitError> {
        let window = RawWindow {
            size: layer.window,
            stride: layer.stride,
            pre_padding: layer.pre_padding,
            post_padding: layer.post_padding,
            dilation: &[],
        };
        let (kind, mode) = (layer.kind.code(), layer.padding_mode.code());
        let made = self.network().pooling(x.0, kind, &window, mode, layer.exclude_padding);
        self.one(label, made)
    }

    fn activation(&mut self, label: Label<'_>, x: TrtTensor, layer: &Activation) -> Result<TrtTensor, EmitError> {
        let made = self.network().activation(x.0, layer.kind.code(), layer.alpha, layer.beta);
        self.one(label, made)
    }

    fn unary(&mut self, label: Label<'_>, x: TrtTensor, kind: UnaryKind) -> Result<TrtTensor, EmitError> {
        let made = self.network().unary(x.0, kind.code());
        self.one(label, made)
    }

    fn elementwise(
        &mut self,
        label: Label<'_>,
        a: TrtTensor,
        b: TrtTensor,
        kind: ElementwiseKind,
    ) -> Result<TrtTensor, EmitError> {
        let made = self.network().elementwise(a.0, b.0, kind.code());
        self.one(label, made)
    }

    fn matrix_multiply(
        &mut self,
        label: Label<'_>,
        a: (TrtTensor, MatrixOp),
        b: (TrtTensor, MatrixOp),
    ) -> Result<TrtTensor, EmitError> {
        let made = self.network().matrix_multiply(a.0.0, a.1.code(), b.0.0, b.1.code());
        self.one(label, made)
    }

    fn reduce(&mut self, label: Label<'_>, x: TrtTensor, layer: &Reduce<'_>) -> Result<TrtTensor, EmitError> {
        let axes = axis_mask(label, layer.axes)?;
        let made = self.network().reduce(x.0, layer.kind.code(), axes, layer.keep_dims);
        self.one(label, made)
    }

    fn softmax(&mut self, label: Label<'_>, x: TrtTensor, axis: i64) -> Result<TrtTensor, EmitError> {
        let axis = axis_mask(label, &[axis])?;
        let made = self.network().softmax(x.0, axis);
        self.one(label, made)
    }

    fn scale(&mut self, label: Label<'_>, x: TrtTensor, layer: Scale<'w>) -> Result<TrtTensor, EmitError> {
        let dtype = self.dtype_code(x);
        let axis = small(label, "channel axis", layer.channel_axis)?;
        let shift = self.hold_optional(label, layer.shift, dtype)?;
        let scale = self.hold_optional(label, layer.scale, dtype)?;
        let power = self.hold_optional(label, layer.power, dtype)?;
        let network = self.inner.pin_mut();
        // SAFETY: `hold_optional` gives weights that live as long as the network, with as many bytes as they have elements.
        let made = unsafe { network.scale(x.0, layer.mode.code(), axis, &shift.raw(), &scale.raw(), &power.raw()) };
        self.one(label, made)
    }

    fn normalization(
        &mut self,
        label: Label<'_>,
        x: TrtTensor,
        scale: TrtTensor,
        bias: TrtTensor,
        layer: &Normalization<'_>,
    ) -> Result<TrtTensor, EmitError> {
        let axes = axis_mask(label, layer.axes)?;
        let made = self.network().normalization(x.0, scale.0, bias.0, axes, layer.epsilon, layer.groups);
        self.one(label, made)
    }

    fn lrn(
        &mut self,
        label: Label<'_>,
        x: TrtTensor,
        window: i64,
        alpha: f32,
        beta: f32,
        k: f32,
    ) -> Result<TrtTensor, EmitError> {
        let made = self.network().lrn(x.0, window, alpha, beta, k);
        self.one(label, made)
    }

    fn shuffle(
        &mut self,
        label: Label<'_>,
        x: TrtTensor,
        layer: &Shuffle<'_, TrtTensor>,
    ) -> Result<TrtTensor, EmitError> {
        let reshape = layer.reshape.unwrap_or(DimsArg::Fixed(&[]));
        let (first, second) = (layer.first_transpose.unwrap_or(&[]), layer.second_transpose.unwrap_or(&[]));
        let made = self.network().shuffle(x.0, first, layer.reshape.is_some(), &dims(&reshape), second);
        self.one(label, made)
    }

    fn concatenation(&mut self, label: Label<'_>, xs: &[TrtTensor], axis: i64) -> Result<TrtTensor, EmitError> {
        let axis = small(label, "axis", axis)?;
        let xs: Vec<u32> = xs.iter().map(|x| x.0).collect();
        let made = self.network().concatenation(&xs, axis);
        self.one(label, made)
    }

    fn slice(&mut self, label: Label<'_>, x: TrtTensor, layer: &Slice<'_, TrtTensor>) -> Result<TrtTensor, EmitError> {
        let (start, size, stride) = (dims(&layer.start), dims(&layer.size), dims(&layer.stride));
        let made = self.network().slice(x.0, &start, &size, &stride, layer.mode.code(), optional(layer.fill));
        self.one(label, made)
    }

    fn gather(
        &mut self,
        label: Label<'_>,
        data: TrtTensor,
        indices: TrtTensor,
        layer: &Gather,
    ) -> Result<TrtTensor, EmitError> {
        let axis = small(label, "axis", layer.axis)?;
        let batch_dims = small(label, "batch dimensions", layer.batch_dims)?;
        let made = self.network().gather(data.0, indices.0, layer.mode.code(), axis, batch_dims);
        self.one(label, made)
    }

    fn select(
        &mut self,
        label: Label<'_>,
        condition: TrtTensor,
        a: TrtTensor,
        b: TrtTensor,
    ) -> Result<TrtTensor, EmitError> {
        let made = self.network().select(condition.0, a.0, b.0);
        self.one(label, made)
    }

    fn shape(&mut self, label: Label<'_>, x: TrtTensor) -> Result<TrtTensor, EmitError> {
        let made = self.network().shape(x.0);
        self.one(label, made)
    }

    fn cast(&mut self, label: Label<'_>, x: TrtTensor, dtype: DType) -> Result<TrtTensor, EmitError> {
        let dtype = code(label, dtype)?;
        let made = self.network().cast(x.0, dtype);
        self.one(label, made)
    }

    fn identity(&mut self, label: Label<'_>, x: TrtTensor) -> Result<TrtTensor, EmitError> {
        let made = self.network().identity(x.0);
        self.one(label, made)
    }

    fn fill(&mut self, label: Label<'_>, layer: &Fill<'_, TrtTensor>) -> Result<TrtTensor, EmitError> {
        let dtype = code(label, layer.dtype)?;
        let (alpha, beta) = (fill_arg(layer.alpha), fill_arg(layer.beta));
        let made = self.network().fill(layer.kind.code(), &dims(&layer.dims), dtype, &alpha, &beta);
        self.one(label, made)
    }

    fn top_k(
        &mut self,
        label: Label<'_>,
        x: TrtTensor,
        layer: &TopK<TrtTensor>,
    ) -> Result<Outputs<TrtTensor>, EmitError> {
        let axis = axis_mask(label, &[layer.axis])?;
        let indices = code(label, layer.indices)?;
        let (k, tensor) = match layer.k {
            IntArg::Fixed(k) => (small(label, "k", k)?, NO_TENSOR),
            IntArg::Tensor(tensor) => (1, tensor.0),
        };
        let made = self.network().top_k(x.0, layer.kind.code(), axis, k, tensor, indices);
        self.two(label, made)
    }

    fn resize(
        &mut self,
        label: Label<'_>,
        x: TrtTensor,
        layer: &Resize<'_, TrtTensor>,
    ) -> Result<TrtTensor, EmitError> {
        let none = RawDims { fixed: &[], tensor: NO_TENSOR };
        let (dims, scales): (_, &[f32]) = match &layer.to {
            ResizeTo::Dims(to) => (dims(to), &[]),
            ResizeTo::Scales(scales) => (none, scales),
        };
        let raw = RawResize {
            dims,
            scales,
            mode: layer.mode.code(),
            transform: layer.transform.code(),
            selector: layer.selector.code(),
            rounding: layer.rounding.code(),
            cubic_coeff: layer.cubic_coeff,
            exclude_outside: layer.exclude_outside,
        };
        let made = self.network().resize(x.0, &raw);
        self.one(label, made)
    }

    fn grid_sample(
        &mut self,
        label: Label<'_>,
        x: TrtTensor,
        grid: TrtTensor,
        layer: &GridSample,
    ) -> Result<TrtTensor, EmitError> {
        let (interpolation, mode) = (layer.interpolation.code(), layer.mode.code());
        let made = self.network().grid_sample(x.0, grid.0, interpolation, layer.align_corners, mode);
        self.one(label, made)
    }

    fn nms(&mut self, label: Label<'_>, layer: &Nms<TrtTensor>) -> Result<Outputs<TrtTensor>, EmitError> {
        let raw = RawNms {
            boxes: layer.boxes.0,
            scores: layer.scores.0,
            max_output: layer.max_output_boxes_per_class.0,
            iou_threshold: optional(layer.iou_threshold),
            score_threshold: optional(layer.score_threshold),
            format: layer.format.code(),
            top_k_limit: layer.top_k_limit.unwrap_or_default(),
            indices: code(label, layer.indices)?,
        };
        let made = self.network().nms(&raw);
        self.two(label, made)
    }

    fn non_zero(&mut self, label: Label<'_>, x: TrtTensor, indices: DType) -> Result<TrtTensor, EmitError> {
        let indices = code(label, indices)?;
        let made = self.network().non_zero(x.0, indices);
        self.one(label, made)
    }

    fn one_hot(
        &mut self,
        label: Label<'_>,
        indices: TrtTensor,
        values: TrtTensor,
        depth: TrtTensor,
        axis: i64,
    ) -> Result<TrtTensor, EmitError> {
        let axis = small(label, "axis", axis)?;
        let made = self.network().one_hot(indices.0, values.0, depth.0, axis);
        self.one(label, made)
    }

    fn scatter(
        &mut self,
        label: Label<'_>,
        data: TrtTensor,
        indices: TrtTensor,
        updates: TrtTensor,
        mode: ScatterMode,
        axis: i64,
    ) -> Result<TrtTensor, EmitError> {
        let axis = small(label, "axis", axis)?;
        let made = self.network().scatter(data.0, indices.0, updates.0, mode.code(), axis);
        self.one(label, made)
    }

    fn cumulative(
        &mut self,
        label: Label<'_>,
        x: TrtTensor,
        layer: &Cumulative<TrtTensor>,
    ) -> Result<TrtTensor, EmitError> {
        let kind = layer.kind.code();
        let made = self.network().cumulative(x.0, layer.axis.0, kind, layer.exclusive, layer.reverse);
        self.one(label, made)
    }

    fn reverse_sequence(
        &mut self,
        label: Label<'_>,
        x: TrtTensor,
        lengths: TrtTensor,
        batch_axis: i64,
        sequence_axis: i64,
    ) -> Result<TrtTensor, EmitError> {
        let batch_axis = small(label, "batch axis", batch_axis)?;
        let sequence_axis = small(label, "sequence axis", sequence_axis)?;
        let made = self.network().reverse_sequence(x.0, lengths.0, batch_axis, sequence_axis);
        self.one(label, made)
    }

    fn einsum(&mut self, label: Label<'_>, xs: &[TrtTensor], equation: &str) -> Result<TrtTensor, EmitError> {
        let xs: Vec<u32> = xs.iter().map(|x| x.0).collect();
        let made = self.network().einsum(&xs, equation);
        self.one(label, made)
    }

    fn quantize(
        &mut self,
        label: Label<'_>,
        x: TrtTensor,
        layer: &Quantize<TrtTensor>,
    ) -> Result<TrtTensor, EmitError> {
        let (axis, dtype) = (small(label, "axis", layer.axis.unwrap_or(-1))?, code(label, layer.dtype)?);
        let made = self.network().quantize(x.0, layer.scale.0, optional(layer.zero_point), axis, dtype);
        self.one(label, made)
    }

    fn dequantize(
        &mut self,
        label: Label<'_>,
        x: TrtTensor,
        layer: &Quantize<TrtTensor>,
    ) -> Result<TrtTensor, EmitError> {
        let (axis, dtype) = (small(label, "axis", layer.axis.unwrap_or(-1))?, code(label, layer.dtype)?);
        let made = self.network().dequantize(x.0, layer.scale.0, optional(layer.zero_point), axis, dtype);
        self.one(label, made)
    }

    fn parametric_relu(&mut self, label: Label<'_>, x: TrtTensor, slope: TrtTensor) -> Result<TrtTensor, EmitError> {
        let made = self.network().parametric_relu(x.0, slope.0);
        self.one(label, made)
    }

    fn attention(&mut self, label: Label<'_>, layer: &Attention<TrtTensor>) -> Result<TrtTensor, EmitError> {
        let raw = RawAttention {
            query: layer.query.0,
            key: layer.key.0,
            value: layer.value.0,
            mask: optional(layer.mask),
            norm: layer.norm.code(),
            causal: layer.causal.code(),
            decomposable: layer.decomposable,
        };
        let made = self.network().attention(&raw);
        self.one(label, made)
    }

    fn rotary_embedding(
        &mut self,
        label: Label<'_>,
        x: TrtTensor,
        layer: &RotaryEmbedding<TrtTensor>,
    ) -> Result<TrtTensor, EmitError> {
        let dim = small(label, "rotated elements", layer.dim)?;
        let made = self.network().rotary_embedding(x.0, layer.cos.0, layer.sin.0, layer.interleaved, dim);
        self.one(label, made)
    }

    fn kv_cache_update(
        &mut self,
        label: Label<'_>,
        cache: TrtTensor,
        update: TrtTensor,
        write_indices: TrtTensor,
    ) -> Result<TrtTensor, EmitError> {
        let made = self.network().kv_cache_update(cache.0, update.0, write_indices.0);
        self.one(label, made)
    }

    fn conditional(&mut self, label: Label<'_>, condition: TrtTensor) -> Result<Conditional, EmitError> {
        let made = self.network().conditional(condition.0, label.name, label.metadata);
        made.map(Conditional).map_err(|why| refused(label.name, &why))
    }

    fn conditional_input(
        &mut self,
        label: Label<'_>,
        conditional: Conditional,
        x: TrtTensor,
    ) -> Result<TrtTensor, EmitError> {
        let made = self.network().conditional_input(conditional.0, x.0);
        self.one(label, made)
    }

    fn conditional_output(
        &mut self,
        label: Label<'_>,
        conditional: Conditional,
        when_true: TrtTensor,
        when_false: TrtTensor,
    ) -> Result<TrtTensor, EmitError> {
        let made = self.network().conditional_output(conditional.0, when_true.0, when_false.0);
        self.one(label, made)
    }

    fn start_loop(&mut self, label: Label<'_>) -> Result<Loop, EmitError> {
        self.network().start_loop(label.name).map(Loop).map_err(|why| refused(label.name, &why))
    }

    fn trip_limit(
        &mut self,
        label: Label<'_>,
        looped: Loop,
        limit: TrtTensor,
        kind: TripLimit,
    ) -> Result<(), EmitError> {
        let made = self.network().trip_limit(looped.0, limit.0, kind.code(), label.name, label.metadata);
        made.map_err(|why| refused(label.name, &why))
    }

    fn recurrence(&mut self, label: Label<'_>, looped: Loop, initial: TrtTensor) -> Result<TrtTensor, EmitError> {
        let made = self.network().recurrence(looped.0, initial.0);
        self.one(label, made)
    }

    fn set_recurrence(&mut self, recurrence: TrtTensor, next: TrtTensor) -> Result<(), EmitError> {
        self.network().set_recurrence(recurrence.0, next.0).map_err(|why| refused("recurrence", &why))
    }

    fn iterator(
        &mut self,
        label: Label<'_>,
        looped: Loop,
        x: TrtTensor,
        axis: i64,
        reverse: bool,
    ) -> Result<TrtTensor, EmitError> {
        let axis = small(label, "axis", axis)?;
        let made = self.network().iterator(looped.0, x.0, axis, reverse);
        self.one(label, made)
    }

    fn loop_output(
        &mut self,
        label: Label<'_>,
        looped: Loop,
        x: TrtTensor,
        kind: LoopOutput,
        axis: i64,
        length: Option<TrtTensor>,
    ) -> Result<TrtTensor, EmitError> {
        let axis = small(label, "axis", axis)?;
        let made = self.network().loop_output(looped.0, x.0, kind.code(), axis, optional(length));
        self.one(label, made)
    }

    fn set_tensor_name(&mut self, tensor: TrtTensor, name: &str) -> Result<(), EmitError> {
        self.network().set_tensor_name(tensor.0, name).map_err(|why| refused(name, &why))
    }

    fn mark_output(&mut self, tensor: TrtTensor, name: &str, dtype: DType) -> Result<(), EmitError> {
        let dtype = code(Label::new(name), dtype)?;
        self.set_tensor_name(tensor, name)?;
        self.network().mark_output(tensor.0, dtype).map_err(|why| refused(name, &why))
    }

    fn note(&mut self, _: TrtTensor, _: DType, _: &Shape) {}

    fn dims(&self, tensor: TrtTensor) -> Option<Vec<i64>> {
        // -2 stands for an unknown rank.
        self.inner.dims(tensor.0).ok().filter(|dims| dims.as_slice() != [-2])
    }

    fn dtype(&self, tensor: TrtTensor) -> Option<DType> {
        self.inner.dtype(tensor.0).ok().and_then(dtype::from_code)
    }

    fn layer_counts(&self) -> LayerCounts {
        let counts = self.inner.layer_counts();
        LayerCounts { all: counts.all, without_constants: counts.without_constants }
    }
}
