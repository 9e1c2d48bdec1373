//! Each kind of layer through the real library: the shape that TensorRT infers is the one that ONNX defines, and the
//! network builds. Without a library, each test prints why and passes: `make tensorrt` gets one.

mod common;

use std::borrow::Cow;

use common::rtx_library;
use trt_fuse::emit::layers::*;
use trt_fuse::emit::sink::{Label, NetworkSink};
use trt_fuse::emit::terms::*;
use trt_fuse::tensorrt::{BuilderConfig, ComputeCapability, Library, TrtNetwork, TrtTensor};
use trt_fuse_ir::{DType, Element, Tensor};

/// A network whose layers are outputs as soon as their shapes are checked.
struct Net {
    network: TrtNetwork<'static>,
    names: usize,
}

impl Net {
    fn new(library: &Library) -> Self {
        Self { network: TrtNetwork::new(library).unwrap(), names: 0 }
    }

    fn input(&mut self, name: &str, dtype: DType, dims: &[i64]) -> TrtTensor {
        self.network.input(&Input { name, dtype, dims, symbols: &[] }).unwrap()
    }

    fn constant<T: Element>(&mut self, dims: &[usize], values: Vec<T>) -> TrtTensor {
        self.names += 1;
        let name = format!("constant{}", self.names);
        self.network.constant(Label::new(&name), Cow::Owned(Tensor::from_vec(dims, values).unwrap())).unwrap()
    }

    fn check(&mut self, tensor: TrtTensor, dtype: DType, dims: &[i64]) {
        assert_eq!(self.network.dims(tensor).unwrap(), dims);
        assert_eq!(self.network.dtype(tensor), Some(dtype));
        self.names += 1;
        self.network.mark_output(tensor, &format!("y{}", self.names), dtype).unwrap();
    }

    fn build(self) {
        let compute_capabilities = vec![ComputeCapability { major: 8, minor: 6 }];
        let config = BuilderConfig { compute_capabilities, ..BuilderConfig::default() };
        self.network.build(&config, None).unwrap();
    }
}

fn floats(dims: &[usize]) -> Tensor {
    Tensor::from_vec(dims, vec![0.5_f32; dims.iter().product()]).unwrap()
}

const fn label(name: &str) -> Label<'_> {
    Label { name, metadata: name }
}

#[test]
fn windows() {
    let Some(library) = rtx_library() else { return };
    let mut net = Net::new(&library);
    let x = net.input("x", DType::F32, &[1, 4, 10, 10]);
    let pool = Pooling {
        kind: PoolingKind::Max,
        window: &[3, 3],
        stride: &[2, 2],
        pre_padding: &[0, 0],
        post_padding: &[0, 0],
        padding_mode: PaddingMode::ExplicitRoundDown,
        exclude_padding: false,
    };
    // (10 - 3) / 2 + 1 is 4.5.
    let y = net.network.pooling(label("floor"), x, &pool).unwrap();
    net.check(y, DType::F32, &[1, 4, 4, 4]);
    let ceil = Pooling { kind: PoolingKind::Average, padding_mode: PaddingMode::ExplicitRoundUp, ..pool };
    let y = net.network.pooling(label("ceil"), x, &Pooling { exclude_padding: true, ..ceil }).unwrap();
    net.check(y, DType::F32, &[1, 4, 5, 5]);
    let convolution = |kernel: Tensor, groups| Convolution {
        maps: 6,
        kernel_size: &[2, 2],
        stride: &[2, 2],
        pre_padding: &[0, 0],
        post_padding: &[1, 0],
        dilation: &[1, 1],
        groups,
        kernel: Operand::Weights(Cow::Owned(kernel)),
        bias: None,
    };
    // (10 - 1) * 2 + 2 - 1 and (10 - 1) * 2 + 2.
    let y = net.network.deconvolution(label("deconv"), x, convolution(floats(&[4, 6, 2, 2]), 1)).unwrap();
    net.check(y, DType::F32, &[1, 6, 19, 20]);
    // (10 + 1 - 2) / 2 + 1 and (10 - 2) / 2 + 1.
    let y = net.network.convolution(label("conv"), x, convolution(floats(&[6, 2, 2, 2]), 2)).unwrap();
    net.check(y, DType::F32, &[1, 6, 5, 5]);
    let y = net.network.lrn(label("lrn"), x, 3, 1e-4, 0.75, 1.0).unwrap();
    net.check(y, DType::F32, &[1, 4, 10, 10]);
    let scale = Scale {
        mode: ScaleMode::Channel,
        channel_axis: 1,
        shift: Some(Cow::Owned(floats(&[4]))),
        scale: Some(Cow::Owned(floats(&[4]))),
        power: None,
    };
    let y = net.network.scale(label("scale"), x, scale).unwrap();
    net.check(y, DType::F32, &[1, 4, 10, 10]);
    let resize = Resize {
        to: ResizeTo::Scales(&[1.0, 1.0, 1.5, 2.0]),
        mode: Interpolation::Linear,
        transform: CoordinateTransform::HalfPixel,
        selector: ResizeSelector::Formula,
        rounding: ResizeRound::Floor,
        cubic_coeff: -0.75,
        exclude_outside: false,
    };
    let y = net.network.resize(label("scales"), x, &resize).unwrap();
    net.check(y, DType::F32, &[1, 4, 15, 20]);
    let resize = Resize { to: ResizeTo::Dims(DimsArg::Fixed(&[1, 4, 7, 9])), mode: Interpolation::Nearest, ..resize };
    let y = net.network.resize(label("sizes"), x, &resize).unwrap();
    net.check(y, DType::F32, &[1, 4, 7, 9]);
    let grid = net.input("grid", DType::F32, &[1, 5, 6, 2]);
    let sample = GridSample { interpolation: Interpolation::Linear, align_corners: false, mode: SampleMode::Fill };
    let y = net.network.grid_sample(label("grid_sample"), x, grid, &sample).unwrap();
    net.check(y, DType::F32, &[1, 4, 5, 6]);
    net.build();
}

#[test]
fn arithmetic_and_normalization() {
    let Some(library) = rtx_library() else { return };
    let mut net = Net::new(&library);
    let x = net.input("x", DType::F32, &[2, 8, 6]);
    let y = net.network.unary(label("exp"), x, UnaryKind::Exp).unwrap();
    net.check(y, DType::F32, &[2, 8, 6]);
    let y = net.network.softmax(label("softmax"), x, 1).unwrap();
    net.check(y, DType::F32, &[2, 8, 6]);
    let slope = net.constant(&[1, 8, 1], vec![0.1_f32; 8]);
    let y = net.network.parametric_relu(label("prelu"), x, slope).unwrap();
    net.check(y, DType::F32, &[2, 8, 6]);
    let greater = net.network.elementwise(label("greater"), x, slope, ElementwiseKind::Greater).unwrap();
    net.check(greater, DType::Bool, &[2, 8, 6]);
    let y = net.network.select(label("select"), greater, x, slope).unwrap();
    net.check(y, DType::F32, &[2, 8, 6]);
    let last = net.constant(&[1, 1, 6], vec![1.0_f32; 6]);
    let norm = Normalization { axes: &[2], epsilon: 1e-5, groups: 1 };
    let y = net.network.normalization(label("layer_norm"), x, last, last, &norm).unwrap();
    net.check(y, DType::F32, &[2, 8, 6]);
    let groups = Normalization { axes: &[2], epsilon: 1e-5, groups: 4 };
    let y = net.network.normalization(label("group_norm"), x, slope, slope, &groups).unwrap();
    net.check(y, DType::F32, &[2, 8, 6]);
    let axis = net.constant(&[], vec![2_i32]);
    let cumulative = Cumulative { kind: CumulativeKind::Sum, axis, exclusive: true, reverse: false };
    let y = net.network.cumulative(label("cumsum"), x, &cumulative).unwrap();
    net.check(y, DType::F32, &[2, 8, 6]);
    let y = net.network.einsum(label("einsum"), &[x, x], "bij,bkj->bik").unwrap();
    net.check(y, DType::F32, &[2, 8, 8]);
    let y = net.network.cast(label("cast"), x, DType::F16).unwrap();
    net.check(y, DType::F16, &[2, 8, 6]);
    let y = net.network.identity(label("identity"), x).unwrap();
    net.check(y, DType::F32, &[2, 8, 6]);
    net.build();
}

#[test]
fn movement_and_selection() {
    let Some(library) = rtx_library() else { return };
    let mut net = Net::new(&library);
    let x = net.input("x", DType::F32, &[2, 3, 4]);
    let shuffle = Shuffle {
        first_transpose: Some(&[0, 2, 1]),
        reshape: Some(DimsArg::Fixed(&[2, 2, 6])),
        second_transpose: Some(&[2, 0, 1]),
    };
    let y = net.network.shuffle(label("shuffle"), x, &shuffle).unwrap();
    net.check(y, DType::F32, &[6, 2, 2]);
    let to = net.constant(&[2], vec![4_i64, 6]);
    let shuffle = Shuffle { first_transpose: None, reshape: Some(DimsArg::Tensor(to)), second_transpose: None };
    let y = net.network.shuffle(label("reshape"), x, &shuffle).unwrap();
    net.check(y, DType::F32, &[4, 6]);
    let y = net.network.concatenation(label("concat"), &[x, x, x], 1).unwrap();
    net.check(y, DType::F32, &[2, 9, 4]);
    let reversed = Slice {
        start: DimsArg::Fixed(&[0, 2, 0]),
        size: DimsArg::Fixed(&[2, 3, 2]),
        stride: DimsArg::Fixed(&[1, -1, 2]),
        mode: SampleMode::StrictBounds,
        fill: None,
    };
    let y = net.network.slice(label("slice"), x, &reversed).unwrap();
    net.check(y, DType::F32, &[2, 3, 2]);
    let size = net.constant(&[3], vec![2_i64, 5, 4]);
    let fill = net.constant(&[], vec![7.0_f32]);
    let padded = Slice {
        start: DimsArg::Fixed(&[0, -1, 0]),
        size: DimsArg::Tensor(size),
        stride: DimsArg::Fixed(&[1, 1, 1]),
        mode: SampleMode::Fill,
        fill: Some(fill),
    };
    let y = net.network.slice(label("pad"), x, &padded).unwrap();
    net.check(y, DType::F32, &[2, 5, 4]);
    let indices = net.constant(&[2, 2], vec![0_i64, 2, 1, 1]);
    let gather = Gather { mode: GatherMode::Default, axis: 1, batch_dims: 0 };
    let y = net.network.gather(label("gather"), x, indices, &gather).unwrap();
    net.check(y, DType::F32, &[2, 2, 2, 4]);
    let y = net.network.gather(label("batched"), x, indices, &Gather { batch_dims: 1, ..gather }).unwrap();
    net.check(y, DType::F32, &[2, 2, 4]);
    let y = net.network.gather(label("nd"), x, indices, &Gather { mode: GatherMode::Nd, ..gather }).unwrap();
    net.check(y, DType::F32, &[2, 4]);
    let elements = net.constant(&[2, 1, 4], vec![1_i64; 8]);
    let y = net.network.gather(label("element"), x, elements, &Gather { mode: GatherMode::Element, ..gather }).unwrap();
    net.check(y, DType::F32, &[2, 1, 4]);
    let updates = net.constant(&[2, 1, 4], vec![1.0_f32; 8]);
    let y = net.network.scatter(label("scatter"), x, elements, updates, ScatterMode::Element, 1).unwrap();
    net.check(y, DType::F32, &[2, 3, 4]);
    let rows = net.constant(&[2, 4], vec![1.0_f32; 8]);
    let y = net.network.scatter(label("scatter_nd"), x, indices, rows, ScatterMode::Nd, 0).unwrap();
    net.check(y, DType::F32, &[2, 3, 4]);
    let y = net.network.shape(label("shape"), x).unwrap();
    net.check(y, DType::I64, &[3]);
    let lengths = net.constant(&[2], vec![3_i32, 1]);
    let y = net.network.reverse_sequence(label("reverse"), x, lengths, 0, 1).unwrap();
    net.check(y, DType::F32, &[2, 3, 4]);
    let depth = net.constant(&[], vec![5_i32]);
    let values = net.constant(&[2], vec![0.0_f32, 1.0]);
    let y = net.network.one_hot(label("one_hot"), indices, values, depth, 2).unwrap();
    net.check(y, DType::F32, &[2, 2, 5]);
    let fill = Fill {
        kind: FillKind::Linspace,
        dims: DimsArg::Fixed(&[5]),
        dtype: DType::I64,
        alpha: FillArg::Int(3),
        beta: FillArg::Int(2),
    };
    let y = net.network.fill(label("range"), &fill).unwrap();
    net.check(y, DType::I64, &[5]);
    net.build();
}

#[test]
fn top_k_by_number_and_by_tensor() {
    let Some(library) = rtx_library() else { return };
    let mut net = Net::new(&library);
    let x = net.input("x", DType::F32, &[2, 30]);
    let top = TopK { kind: TopKKind::Min, axis: 1, k: IntArg::Fixed(3), indices: DType::I64 };
    let [values, indices] = net.network.top_k(label("top"), x, &top).unwrap()[..] else { panic!() };
    net.check(values, DType::F32, &[2, 3]);
    net.check(indices, DType::I64, &[2, 3]);
    let k = net.constant(&[], vec![4_i32]);
    let top = TopK { kind: TopKKind::Max, k: IntArg::Tensor(k), indices: DType::I32, ..top };
    let [values, indices] = net.network.top_k(label("top_by_tensor"), x, &top).unwrap()[..] else { panic!() };
    net.check(values, DType::F32, &[2, 4]);
    net.check(indices, DType::I32, &[2, 4]);
    net.build();
}

// TensorRT-RTX 1.7 infers these two and has no kernel for them: there is nothing to build.
#[test]
fn non_zero_and_nms_are_inferred() {
    let Some(library) = rtx_library() else { return };
    let mut net = Net::new(&library);
    let x = net.input("x", DType::F32, &[2, 30]);
    let y = net.network.non_zero(label("non_zero"), x, DType::I64).unwrap();
    net.check(y, DType::I64, &[2, -1]);
    let boxes = net.input("boxes", DType::F32, &[1, 9, 4]);
    let scores = net.input("scores", DType::F32, &[1, 9, 2]);
    let nms = Nms {
        boxes,
        scores,
        max_output_boxes_per_class: net.constant(&[], vec![3_i32]),
        iou_threshold: Some(net.constant(&[], vec![0.5_f32])),
        score_threshold: Some(net.constant(&[], vec![0.1_f32])),
        format: BoxFormat::CornerPairs,
        top_k_limit: Some(9),
        indices: DType::I32,
    };
    let [selected, count] = net.network.nms(label("nms"), &nms).unwrap()[..] else { panic!() };
    net.check(selected, DType::I32, &[-1, 3]);
    net.check(count, DType::I32, &[]);
}

#[test]
fn quantization_and_attention() {
    let Some(library) = rtx_library() else { return };
    let mut net = Net::new(&library);
    let x = net.input("x", DType::F32, &[1, 4, 8, 8]);
    let scale = net.constant(&[], vec![0.1_f32]);
    let q = Quantize { scale, zero_point: None, axis: None, dtype: DType::I8 };
    let y = net.network.quantize(label("q"), x, &q).unwrap();
    assert_eq!(net.network.dtype(y), Some(DType::I8));
    let y = net.network.dequantize(label("dq"), y, &Quantize { dtype: DType::F32, ..q }).unwrap();
    net.check(y, DType::F32, &[1, 4, 8, 8]);

    let query = net.input("q", DType::F16, &[1, 4, 8, 64]);
    let key = net.input("k", DType::F16, &[1, 4, 12, 64]);
    let mask = net.input("mask", DType::Bool, &[1, 1, 8, 12]);
    let attention = Attention {
        query,
        key,
        value: key,
        norm: AttentionNorm::Softmax,
        causal: CausalMask::None,
        mask: Some(mask),
        decomposable: true,
    };
    let y = net.network.attention(label("attention"), &attention).unwrap();
    net.check(y, DType::F16, &[1, 4, 8, 64]);
    let cos = net.input("cos", DType::F16, &[1, 8, 32]);
    let rotary = RotaryEmbedding { cos, sin: cos, interleaved: false, dim: 0 };
    let y = net.network.rotary_embedding(label("rotary"), query, &rotary).unwrap();
    net.check(y, DType::F16, &[1, 4, 8, 64]);
    net.build();
}

#[test]
fn conditionals_and_loops() {
    let Some(library) = rtx_library() else { return };
    let mut net = Net::new(&library);
    let x = net.input("x", DType::F32, &[3, 4]);
    let flag = net.input("flag", DType::Bool, &[]);
    let conditional = net.network.conditional(label("if"), flag).unwrap();
    let inside = net.network.conditional_input(label("if_x"), conditional, x).unwrap();
    let then = net.network.unary(label("then"), inside, UnaryKind::Abs).unwrap();
    let otherwise = net.network.unary(label("else"), inside, UnaryKind::Neg).unwrap();
    let y = net.network.conditional_output(label("if_y"), conditional, then, otherwise).unwrap();
    net.check(y, DType::F32, &[3, 4]);

    let trips = net.constant(&[], vec![3_i32]);
    let start = net.constant(&[4], vec![0.0_f32; 4]);
    let looped = net.network.start_loop(label("loop")).unwrap();
    net.network.trip_limit(label("trips"), looped, trips, TripLimit::Count).unwrap();
    let row = net.network.iterator(label("row"), looped, x, 0, false).unwrap();
    let sum = net.network.recurrence(label("sum"), looped, start).unwrap();
    let next = net.network.elementwise(label("next"), sum, row, ElementwiseKind::Sum).unwrap();
    net.network.set_recurrence(sum, next).unwrap();
    assert!(net.network.set_recurrence(next, sum).is_err());
    let last = net.network.loop_output(label("last"), looped, sum, LoopOutput::LastValue, 0, None).unwrap();
    net.check(last, DType::F32, &[4]);
    let all = net.network.loop_output(label("all"), looped, next, LoopOutput::Concatenate, 0, Some(trips)).unwrap();
    net.check(all, DType::F32, &[3, 4]);
    net.build();
}
