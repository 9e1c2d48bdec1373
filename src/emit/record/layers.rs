//! How each layer is written.

use trt_fuse_ir::{DType, Shape};

use super::{Record, RecordTensor, Value};
use crate::emit::EmitError;
use crate::emit::layers::{
    Activation, Attention, Conditional, Convolution, Cumulative, Fill, Gather, GridSample, Input, IntArg, Loop, Nms,
    Normalization, Pooling, Quantize, Reduce, Resize, ResizeTo, RotaryEmbedding, Scale, Shuffle, Slice, TopK,
};
use crate::emit::sink::{Label, LayerCounts, NetworkSink, Outputs, Weights};
use crate::emit::terms::{
    ActivationKind, AttentionNorm, CausalMask, CoordinateTransform, CumulativeKind, ElementwiseKind, FillKind,
    Interpolation, LoopOutput, MatrixOp, PaddingMode, ResizeRound, ResizeSelector, SampleMode, ScatterMode, TripLimit,
    UnaryKind,
};

impl<'w> NetworkSink<'w> for Record {
    type Tensor = RecordTensor;

    fn input(&mut self, input: &Input<'_>) -> Result<RecordTensor, EmitError> {
        let tensor = RecordTensor(self.tensors.len());
        let line = self.line("input", Label::new(input.name), &[]).text("type", input.dtype).list("dims", input.dims);
        let line = if input.symbols.iter().any(Option::is_some) {
            let symbols: Vec<&str> = input.symbols.iter().map(|symbol| symbol.unwrap_or("-")).collect();
            line.list("symbols", &symbols)
        } else {
            line
        };
        line.end(vec![input.name.to_owned()]);
        Ok(tensor)
    }

    fn constant(&mut self, label: Label<'_>, value: Weights<'w>) -> Result<RecordTensor, EmitError> {
        self.line("constant", label, &[]).weights("value", &value).output()
    }

    fn convolution(
        &mut self,
        label: Label<'_>,
        x: RecordTensor,
        layer: Convolution<'_, 'w, RecordTensor>,
    ) -> Result<RecordTensor, EmitError> {
        self.line("convolution", label, &[x]).convolution(&layer).output()
    }

    fn deconvolution(
        &mut self,
        label: Label<'_>,
        x: RecordTensor,
        layer: Convolution<'_, 'w, RecordTensor>,
    ) -> Result<RecordTensor, EmitError> {
        self.line("deconvolution", label, &[x]).convolution(&layer).output()
    }

    fn pooling(&mut self, label: Label<'_>, x: RecordTensor, layer: &Pooling<'_>) -> Result<RecordTensor, EmitError> {
        self.line("pooling", label, &[x])
            .text("kind", layer.kind)
            .list("window", layer.window)
            .list_unless(1, "stride", layer.stride)
            .padding(layer.pre_padding, layer.post_padding)
            .unless(PaddingMode::ExplicitRoundDown, "padding_mode", layer.padding_mode)
            .unless(false, "exclude_padding", layer.exclude_padding)
            .output()
    }

    fn activation(&mut self, label: Label<'_>, x: RecordTensor, layer: &Activation) -> Result<RecordTensor, EmitError> {
        use ActivationKind::*;
        let line = self.line("activation", label, &[x]).text("kind", layer.kind);
        match layer.kind {
            Relu | Sigmoid | Tanh | Softsign | GeluErf | GeluTanh => line,
            LeakyRelu | Elu | ThresholdedRelu => line.text("alpha", layer.alpha),
            Selu | Softplus | Clip | HardSigmoid | ScaledTanh => {
                line.text("alpha", layer.alpha).text("beta", layer.beta)
            }
        }
        .output()
    }

    fn unary(&mut self, label: Label<'_>, x: RecordTensor, kind: UnaryKind) -> Result<RecordTensor, EmitError> {
        self.line("unary", label, &[x]).text("kind", kind).output()
    }

    fn elementwise(
        &mut self,
        label: Label<'_>,
        a: RecordTensor,
        b: RecordTensor,
        kind: ElementwiseKind,
    ) -> Result<RecordTensor, EmitError> {
        self.line("elementwise", label, &[a, b]).text("kind", kind).output()
    }

    fn matrix_multiply(
        &mut self,
        label: Label<'_>,
        a: (RecordTensor, MatrixOp),
        b: (RecordTensor, MatrixOp),
    ) -> Result<RecordTensor, EmitError> {
        self.line("matrix_multiply", label, &[a.0, b.0])
            .unless(MatrixOp::None, "op0", a.1)
            .unless(MatrixOp::None, "op1", b.1)
            .output()
    }

    fn reduce(&mut self, label: Label<'_>, x: RecordTensor, layer: &Reduce<'_>) -> Result<RecordTensor, EmitError> {
        self.line("reduce", label, &[x])
            .text("kind", layer.kind)
            .list("axes", layer.axes)
            .text("keep_dims", layer.keep_dims)
            .output()
    }

    fn softmax(&mut self, label: Label<'_>, x: RecordTensor, axis: i64) -> Result<RecordTensor, EmitError> {
        self.line("softmax", label, &[x]).text("axis", axis).output()
    }

    fn scale(&mut self, label: Label<'_>, x: RecordTensor, layer: Scale<'w>) -> Result<RecordTensor, EmitError> {
        self.line("scale", label, &[x])
            .text("mode", layer.mode)
            .text("axis", layer.channel_axis)
            .maybe_weights("shift", layer.shift.as_ref())
            .maybe_weights("scale", layer.scale.as_ref())
            .maybe_weights("power", layer.power.as_ref())
            .output()
    }

    fn normalization(
        &mut self,
        label: Label<'_>,
        x: RecordTensor,
        scale: RecordTensor,
        bias: RecordTensor,
        layer: &Normalization<'_>,
    ) -> Result<RecordTensor, EmitError> {
        self.line("normalization", label, &[x, scale, bias])
            .list("axes", layer.axes)
            .text("epsilon", layer.epsilon)
            .unless(1, "groups", layer.groups)
            .output()
    }

    fn lrn(
        &mut self,
        label: Label<'_>,
        x: RecordTensor,
        window: i64,
        alpha: f32,
        beta: f32,
        k: f32,
    ) -> Result<RecordTensor, EmitError> {
        let line = self.line("lrn", label, &[x]);
        line.text("window", window).text("alpha", alpha).text("beta", beta).text("k", k).output()
    }

    fn shuffle(
        &mut self,
        label: Label<'_>,
        x: RecordTensor,
        layer: &Shuffle<'_, RecordTensor>,
    ) -> Result<RecordTensor, EmitError> {
        let mut line = self.line("shuffle", label, &[x]);
        if let Some(permutation) = layer.first_transpose {
            line = line.list("first_transpose", permutation);
        }
        if let Some(dims) = &layer.reshape {
            line = line.dims("reshape", dims);
        }
        if let Some(permutation) = layer.second_transpose {
            line = line.list("second_transpose", permutation);
        }
        line.output()
    }

    fn concatenation(&mut self, label: Label<'_>, xs: &[RecordTensor], axis: i64) -> Result<RecordTensor, EmitError> {
        self.line("concatenation", label, xs).text("axis", axis).output()
    }

    fn slice(
        &mut self,
        label: Label<'_>,
        x: RecordTensor,
        layer: &Slice<'_, RecordTensor>,
    ) -> Result<RecordTensor, EmitError> {
        self.line("slice", label, &[x])
            .dims("start", &layer.start)
            .dims("size", &layer.size)
            .dims("stride", &layer.stride)
            .unless(SampleMode::StrictBounds, "mode", layer.mode)
            .maybe_tensor("fill", layer.fill)
            .output()
    }

    fn gather(
        &mut self,
        label: Label<'_>,
        data: RecordTensor,
        indices: RecordTensor,
        layer: &Gather,
    ) -> Result<RecordTensor, EmitError> {
        self.line("gather", label, &[data, indices])
            .text("mode", layer.mode)
            .text("axis", layer.axis)
            .unless(0, "batch_dims", layer.batch_dims)
            .output()
    }

    fn select(
        &mut self,
        label: Label<'_>,
        condition: RecordTensor,
        a: RecordTensor,
        b: RecordTensor,
    ) -> Result<RecordTensor, EmitError> {
        self.line("select", label, &[condition, a, b]).output()
    }

    fn shape(&mut self, label: Label<'_>, x: RecordTensor) -> Result<RecordTensor, EmitError> {
        self.line("shape", label, &[x]).output()
    }

    fn cast(&mut self, label: Label<'_>, x: RecordTensor, dtype: DType) -> Result<RecordTensor, EmitError> {
        self.line("cast", label, &[x]).text("to", dtype).output()
    }

    fn identity(&mut self, label: Label<'_>, x: RecordTensor) -> Result<RecordTensor, EmitError> {
        self.line("identity", label, &[x]).output()
    }

    fn fill(&mut self, label: Label<'_>, layer: &Fill<'_, RecordTensor>) -> Result<RecordTensor, EmitError> {
        self.line("fill", label, &[])
            .unless(FillKind::Linspace, "kind", layer.kind)
            .dims("dims", &layer.dims)
            .text("type", layer.dtype)
            .fill_arg("alpha", layer.alpha)
            .fill_arg("beta", layer.beta)
            .output()
    }

    fn top_k(
        &mut self,
        label: Label<'_>,
        x: RecordTensor,
        layer: &TopK<RecordTensor>,
    ) -> Result<Outputs<RecordTensor>, EmitError> {
        let line = self.line("top_k", label, &[x]).text("kind", layer.kind).text("axis", layer.axis);
        let line = match layer.k {
            IntArg::Fixed(k) => line.text("k", k),
            IntArg::Tensor(k) => line.tensor("k", k),
        };
        Ok(line.text("indices", layer.indices).outputs(2))
    }

    fn resize(
        &mut self,
        label: Label<'_>,
        x: RecordTensor,
        layer: &Resize<'_, RecordTensor>,
    ) -> Result<RecordTensor, EmitError> {
        let line = self.line("resize", label, &[x]);
        let line = match &layer.to {
            ResizeTo::Dims(dims) => line.dims("dims", dims),
            ResizeTo::Scales(scales) => line.list("scales", scales),
        };
        let line = line
            .text("mode", layer.mode)
            .unless(CoordinateTransform::Asymmetric, "transform", layer.transform)
            .unless(ResizeSelector::Formula, "selector", layer.selector);
        let line = match layer.mode {
            Interpolation::Nearest => line.text("rounding", layer.rounding),
            Interpolation::Linear => line.unless(ResizeRound::Floor, "rounding", layer.rounding),
            Interpolation::Cubic => line.text("cubic_coeff", layer.cubic_coeff),
        };
        line.unless(false, "exclude_outside", layer.exclude_outside).output()
    }

    fn grid_sample(
        &mut self,
        label: Label<'_>,
        x: RecordTensor,
        grid: RecordTensor,
        layer: &GridSample,
    ) -> Result<RecordTensor, EmitError> {
        self.line("grid_sample", label, &[x, grid])
            .text("mode", layer.interpolation)
            .text("align_corners", layer.align_corners)
            .text("outside", layer.mode)
            .output()
    }

    fn nms(&mut self, label: Label<'_>, layer: &Nms<RecordTensor>) -> Result<Outputs<RecordTensor>, EmitError> {
        let line = self
            .line("nms", label, &[layer.boxes, layer.scores, layer.max_output_boxes_per_class])
            .maybe_tensor("iou_threshold", layer.iou_threshold)
            .maybe_tensor("score_threshold", layer.score_threshold)
            .text("format", layer.format);
        let line = match layer.top_k_limit {
            Some(limit) => line.text("top_k_limit", limit),
            None => line,
        };
        Ok(line.text("indices", layer.indices).outputs(2))
    }

    fn non_zero(&mut self, label: Label<'_>, x: RecordTensor, indices: DType) -> Result<RecordTensor, EmitError> {
        self.line("non_zero", label, &[x]).text("indices", indices).output()
    }

    fn one_hot(
        &mut self,
        label: Label<'_>,
        indices: RecordTensor,
        values: RecordTensor,
        depth: RecordTensor,
        axis: i64,
    ) -> Result<RecordTensor, EmitError> {
        self.line("one_hot", label, &[indices, values, depth]).text("axis", axis).output()
    }

    fn scatter(
        &mut self,
        label: Label<'_>,
        data: RecordTensor,
        indices: RecordTensor,
        updates: RecordTensor,
        mode: ScatterMode,
        axis: i64,
    ) -> Result<RecordTensor, EmitError> {
        let line = self.line("scatter", label, &[data, indices, updates]).text("mode", mode);
        match mode {
            ScatterMode::Element => line.text("axis", axis),
            ScatterMode::Nd => line,
        }
        .output()
    }

    fn cumulative(
        &mut self,
        label: Label<'_>,
        x: RecordTensor,
        layer: &Cumulative<RecordTensor>,
    ) -> Result<RecordTensor, EmitError> {
        self.line("cumulative", label, &[x, layer.axis])
            .unless(CumulativeKind::Sum, "kind", layer.kind)
            .unless(false, "exclusive", layer.exclusive)
            .unless(false, "reverse", layer.reverse)
            .output()
    }

    fn reverse_sequence(
        &mut self,
        label: Label<'_>,
        x: RecordTensor,
        lengths: RecordTensor,
        batch_axis: i64,
        sequence_axis: i64,
    ) -> Result<RecordTensor, EmitError> {
        let line = self.line("reverse_sequence", label, &[x, lengths]);
        line.text("batch_axis", batch_axis).text("sequence_axis", sequence_axis).output()
    }

    fn einsum(&mut self, label: Label<'_>, xs: &[RecordTensor], equation: &str) -> Result<RecordTensor, EmitError> {
        self.line("einsum", label, xs).text("equation", format!("{equation:?}")).output()
    }

    fn quantize(
        &mut self,
        label: Label<'_>,
        x: RecordTensor,
        layer: &Quantize<RecordTensor>,
    ) -> Result<RecordTensor, EmitError> {
        self.line("quantize", label, &[x]).quantization(layer).output()
    }

    fn dequantize(
        &mut self,
        label: Label<'_>,
        x: RecordTensor,
        layer: &Quantize<RecordTensor>,
    ) -> Result<RecordTensor, EmitError> {
        self.line("dequantize", label, &[x]).quantization(layer).output()
    }

    fn parametric_relu(
        &mut self,
        label: Label<'_>,
        x: RecordTensor,
        slope: RecordTensor,
    ) -> Result<RecordTensor, EmitError> {
        self.line("parametric_relu", label, &[x, slope]).output()
    }

    fn attention(&mut self, label: Label<'_>, layer: &Attention<RecordTensor>) -> Result<RecordTensor, EmitError> {
        let tensor = self
            .line("attention", label, &[layer.query, layer.key, layer.value])
            .unless(AttentionNorm::Softmax, "norm", layer.norm)
            .unless(CausalMask::None, "causal", layer.causal)
            .maybe_tensor("mask", layer.mask)
            .unless(true, "decomposable", layer.decomposable)
            .output()?;
        // TensorRT has one layer where an attention begins and one where it ends.
        self.counts.all += 1;
        self.counts.without_constants += 1;
        Ok(tensor)
    }

    fn rotary_embedding(
        &mut self,
        label: Label<'_>,
        x: RecordTensor,
        layer: &RotaryEmbedding<RecordTensor>,
    ) -> Result<RecordTensor, EmitError> {
        self.line("rotary_embedding", label, &[x, layer.cos, layer.sin])
            .unless(false, "interleaved", layer.interleaved)
            .unless(0, "dim", layer.dim)
            .output()
    }

    fn kv_cache_update(
        &mut self,
        label: Label<'_>,
        cache: RecordTensor,
        update: RecordTensor,
        write_indices: RecordTensor,
    ) -> Result<RecordTensor, EmitError> {
        self.line("kv_cache_update", label, &[cache, update, write_indices]).output()
    }

    fn conditional(&mut self, label: Label<'_>, condition: RecordTensor) -> Result<Conditional, EmitError> {
        let id = self.conditionals;
        self.conditionals += 1;
        self.line("conditional", label, &[condition]).text("id", id).outputs(0);
        Ok(Conditional(id))
    }

    fn conditional_input(
        &mut self,
        label: Label<'_>,
        conditional: Conditional,
        x: RecordTensor,
    ) -> Result<RecordTensor, EmitError> {
        self.line("conditional_input", label, &[x]).text("of", conditional.0).output()
    }

    fn conditional_output(
        &mut self,
        label: Label<'_>,
        conditional: Conditional,
        when_true: RecordTensor,
        when_false: RecordTensor,
    ) -> Result<RecordTensor, EmitError> {
        self.line("conditional_output", label, &[when_true, when_false]).text("of", conditional.0).output()
    }

    fn start_loop(&mut self, label: Label<'_>) -> Result<Loop, EmitError> {
        let id = self.loops;
        self.loops += 1;
        self.line("loop", label, &[]).text("id", id).end(Vec::new());
        Ok(Loop(id))
    }

    fn trip_limit(
        &mut self,
        label: Label<'_>,
        looped: Loop,
        limit: RecordTensor,
        kind: TripLimit,
    ) -> Result<(), EmitError> {
        self.line("trip_limit", label, &[limit]).text("of", looped.0).text("kind", kind).outputs(0);
        Ok(())
    }

    fn recurrence(&mut self, label: Label<'_>, looped: Loop, initial: RecordTensor) -> Result<RecordTensor, EmitError> {
        self.line("recurrence", label, &[initial]).text("of", looped.0).output()
    }

    fn set_recurrence(&mut self, recurrence: RecordTensor, next: RecordTensor) -> Result<(), EmitError> {
        if let Some(line) = self.lines.iter_mut().find(|line| line.outputs.contains(&recurrence)) {
            line.parameters.push(("next", Value::Tensor(next)));
        }
        Ok(())
    }

    fn iterator(
        &mut self,
        label: Label<'_>,
        looped: Loop,
        x: RecordTensor,
        axis: i64,
        reverse: bool,
    ) -> Result<RecordTensor, EmitError> {
        let line = self.line("iterator", label, &[x]).text("of", looped.0).text("axis", axis);
        line.unless(false, "reverse", reverse).output()
    }

    fn loop_output(
        &mut self,
        label: Label<'_>,
        looped: Loop,
        x: RecordTensor,
        kind: LoopOutput,
        axis: i64,
        length: Option<RecordTensor>,
    ) -> Result<RecordTensor, EmitError> {
        let line = self.line("loop_output", label, &[x]).text("of", looped.0).text("kind", kind);
        line.unless(0, "axis", axis).maybe_tensor("length", length).output()
    }

    fn set_tensor_name(&mut self, tensor: RecordTensor, name: &str) -> Result<(), EmitError> {
        if let Some(named) = self.tensors.get_mut(tensor.0) {
            name.clone_into(&mut named.name);
        }
        Ok(())
    }

    fn mark_output(&mut self, tensor: RecordTensor, name: &str, dtype: DType) -> Result<(), EmitError> {
        self.set_tensor_name(tensor, name)?;
        self.line("output", Label::new(name), &[tensor]).text("type", dtype).end(Vec::new());
        Ok(())
    }

    fn note(&mut self, tensor: RecordTensor, dtype: DType, shape: &Shape) {
        if let Some(named) = self.tensors.get_mut(tensor.0) {
            named.note = Some((dtype, shape.clone()));
        }
    }

    fn dims(&self, _: RecordTensor) -> Option<Vec<i64>> {
        None
    }

    fn dtype(&self, _: RecordTensor) -> Option<DType> {
        None
    }

    fn layer_counts(&self) -> LayerCounts {
        self.counts
    }
}
