//! The border to C++: the only place where one is declared.
//!
//! Tensors, loops and conditionals are indices that C++ checks. A C++ exception arrives as [`cxx::Exception`]. Functions
//! that are `unsafe` keep what they are given: weights must outlive the network.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

/// The index of a tensor that is not there.
pub(crate) const NO_TENSOR: u32 = u32::MAX;

/// What a build calls as it goes on: phase, step, steps; `false` stops the build.
pub(crate) type ProgressFn<'a> = dyn FnMut(&str, i32, i32) -> bool + Send + 'a;

/// A progress callback as C++ sees it. TensorRT calls from several threads.
pub(crate) struct Progress<'a>(pub(crate) Option<Mutex<Box<ProgressFn<'a>>>>);

impl Progress<'_> {
    fn wanted(&self) -> bool {
        self.0.is_some()
    }

    /// A panic stops the build: it must not unwind into C++.
    fn step(&self, phase: &str, step: i32, steps: i32) -> bool {
        let Some(callback) = &self.0 else { return true };
        let Ok(mut callback) = callback.lock() else { return false };
        catch_unwind(AssertUnwindSafe(|| callback(phase, step, steps))).unwrap_or(false)
    }
}

#[cxx::bridge(namespace = "trtfuse")]
pub(crate) mod bridge {
    /// Version of a library.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct LibraryVersion {
        /// Whether it is TensorRT-RTX.
        rtx: bool,
        major: i32,
        minor: i32,
        patch: i32,
    }

    /// `count` elements; none if the count is 0.
    struct RawWeights<'a> {
        dtype: i32,
        count: i64,
        bytes: &'a [u8],
    }

    /// Fixed values, or a tensor if `tensor` is not `NO_TENSOR`.
    struct RawDims<'a> {
        fixed: &'a [i64],
        tensor: u32,
    }

    struct RawWindow<'a> {
        size: &'a [i64],
        stride: &'a [i64],
        pre_padding: &'a [i64],
        post_padding: &'a [i64],
        dilation: &'a [i64],
    }

    struct RawConvolution<'a> {
        maps: i64,
        groups: i64,
        window: RawWindow<'a>,
        kernel: RawWeights<'a>,
        bias: RawWeights<'a>,
        kernel_tensor: u32,
        bias_tensor: u32,
    }

    struct RawResize<'a> {
        dims: RawDims<'a>,
        scales: &'a [f32],
        mode: i32,
        transform: i32,
        selector: i32,
        rounding: i32,
        cubic_coeff: f32,
        exclude_outside: bool,
    }

    /// Integer if `is_int`, else float, unless there is a tensor.
    struct RawFillArg {
        tensor: u32,
        is_int: bool,
        int_: i64,
        float_: f64,
    }

    struct RawNms {
        boxes: u32,
        scores: u32,
        max_output: u32,
        iou_threshold: u32,
        score_threshold: u32,
        format: i32,
        top_k_limit: i64,
        indices: i32,
    }

    struct RawAttention {
        query: u32,
        key: u32,
        value: u32,
        mask: u32,
        norm: i32,
        causal: i32,
        decomposable: bool,
    }

    struct RawCounts {
        all: usize,
        without_constants: usize,
    }

    /// `workspace` 0, `optimization_level` -1: TensorRT's default.
    struct RawBuildConfig<'a> {
        workspace: u64,
        optimization_level: i32,
        detailed: bool,
        tf32: bool,
        fp16: bool,
        compute_capabilities: &'a [i32],
        /// Whether measured times are kept, and those known from before.
        keeps_timings: bool,
        timings: &'a [u8],
        /// Whether the log goes to stderr.
        verbose: bool,
    }

    struct RawRange<'a> {
        input: &'a str,
        min: &'a [i64],
        opt: &'a [i64],
        max: &'a [i64],
        /// Values of a shape input, not extents.
        values: bool,
    }

    /// An input or output of an engine. Extents of the first profile; none for outputs and for what lies on the host.
    struct RawTensorInfo {
        name: String,
        is_input: bool,
        dtype: i32,
        dims: Vec<i64>,
        on_host: bool,
        min: Vec<i64>,
        opt: Vec<i64>,
        max: Vec<i64>,
    }

    /// Milliseconds of an engine layer in one run.
    struct RawLayerTime {
        name: String,
        ms: f32,
    }

    extern "Rust" {
        type Progress<'a>;
        fn wanted(self: &Progress<'_>) -> bool;
        fn step(self: &Progress<'_>, phase: &str, step: i32, steps: i32) -> bool;
    }

    unsafe extern "C++" {
        include!("trt-fuse/cpp/bridge.h");

        type Library;
        type Network;
        type Plan;
        type Engine;
        type Context;

        fn open_library(path: &str) -> Result<UniquePtr<Library>>;
        fn version(self: &Library) -> LibraryVersion;
        fn path(self: &Library) -> String;
        fn create_network(self: &Library) -> Result<UniquePtr<Network>>;

        fn load_engine(self: &Library, plan: &[u8]) -> Result<UniquePtr<Engine>>;

        fn tensors(self: &Engine) -> Result<Vec<RawTensorInfo>>;
        fn layers(self: &Engine) -> usize;
        /// Bytes that a context without memory must be given.
        fn memory_size(self: &Engine) -> u64;
        fn create_context(self: &Engine, with_memory: bool) -> Result<UniquePtr<Context>>;

        fn set_shape(self: Pin<&mut Context>, name: &str, extents: &[i64]) -> Result<()>;
        /// `enqueue` reads or writes there.
        unsafe fn set_address(self: Pin<&mut Context>, name: &str, address: usize) -> Result<()>;
        /// `enqueue` writes there what needs at most `capacity` bytes, and fails if it needs more.
        unsafe fn set_output(self: Pin<&mut Context>, name: &str, address: usize, capacity: u64) -> Result<()>;
        /// Most bytes that an output can need in the present shapes; negative if not known.
        fn most_bytes(self: &Context, name: &str) -> Result<i64>;
        /// Entries -1: the data tell.
        fn shape(self: Pin<&mut Context>, name: &str) -> Result<Vec<i64>>;
        /// What the data of the last `enqueue` told of an output that has memory by `set_output`.
        fn told_shape(self: &Context, name: &str) -> Result<Vec<i64>>;
        /// Where a context without memory has its temporaries.
        unsafe fn set_memory(self: Pin<&mut Context>, address: usize, length: u64) -> Result<()>;
        /// Whether `enqueue` measures each layer, and returns only after the last.
        fn profile(self: Pin<&mut Context>, wanted: bool) -> Result<()>;
        /// The layers of the last `enqueue` in order of execution.
        fn layer_times(self: Pin<&mut Context>) -> Vec<RawLayerTime>;
        /// `stream` is a `CUstream` of the current context.
        unsafe fn enqueue(self: Pin<&mut Context>, stream: usize) -> Result<()>;

        fn input(self: Pin<&mut Network>, name: &str, dtype: i32, dims: &[i64]) -> Result<u32>;
        fn set_dimension_name(self: Pin<&mut Network>, tensor: u32, axis: i32, name: &str) -> Result<()>;
        unsafe fn constant(self: Pin<&mut Network>, weights: &RawWeights, dims: &[i64]) -> Result<u32>;
        unsafe fn convolution(self: Pin<&mut Network>, x: u32, layer: &RawConvolution) -> Result<u32>;
        unsafe fn deconvolution(self: Pin<&mut Network>, x: u32, layer: &RawConvolution) -> Result<u32>;
        fn pooling(
            self: Pin<&mut Network>,
            x: u32,
            kind: i32,
            window: &RawWindow,
            mode: i32,
            exclude_padding: bool,
        ) -> Result<u32>;
        fn activation(self: Pin<&mut Network>, x: u32, kind: i32, alpha: f32, beta: f32) -> Result<u32>;
        fn unary(self: Pin<&mut Network>, x: u32, kind: i32) -> Result<u32>;
        fn elementwise(self: Pin<&mut Network>, a: u32, b: u32, kind: i32) -> Result<u32>;
        fn matrix_multiply(self: Pin<&mut Network>, a: u32, op_a: i32, b: u32, op_b: i32) -> Result<u32>;
        fn reduce(self: Pin<&mut Network>, x: u32, kind: i32, axes: u32, keep_dims: bool) -> Result<u32>;
        fn softmax(self: Pin<&mut Network>, x: u32, axis: u32) -> Result<u32>;
        unsafe fn scale(
            self: Pin<&mut Network>,
            x: u32,
            mode: i32,
            channel_axis: i32,
            shift: &RawWeights,
            scale: &RawWeights,
            power: &RawWeights,
        ) -> Result<u32>;
        fn normalization(
            self: Pin<&mut Network>,
            x: u32,
            scale: u32,
            bias: u32,
            axes: u32,
            epsilon: f32,
            groups: i64,
        ) -> Result<u32>;
        fn lrn(self: Pin<&mut Network>, x: u32, window: i64, alpha: f32, beta: f32, k: f32) -> Result<u32>;
        /// Empty permutations, and dimensions unless `reshapes`, are left out.
        fn shuffle(
            self: Pin<&mut Network>,
            x: u32,
            first: &[i64],
            reshapes: bool,
            dims: &RawDims,
            second: &[i64],
        ) -> Result<u32>;
        fn concatenation(self: Pin<&mut Network>, xs: &[u32], axis: i32) -> Result<u32>;
        fn slice(
            self: Pin<&mut Network>,
            x: u32,
            start: &RawDims,
            size: &RawDims,
            stride: &RawDims,
            mode: i32,
            fill: u32,
        ) -> Result<u32>;
        fn gather(
            self: Pin<&mut Network>,
            data: u32,
            indices: u32,
            mode: i32,
            axis: i32,
            batch_dims: i32,
        ) -> Result<u32>;
        fn select(self: Pin<&mut Network>, condition: u32, a: u32, b: u32) -> Result<u32>;
        fn shape(self: Pin<&mut Network>, x: u32) -> Result<u32>;
        fn cast(self: Pin<&mut Network>, x: u32, dtype: i32) -> Result<u32>;
        fn identity(self: Pin<&mut Network>, x: u32) -> Result<u32>;
        fn fill(
            self: Pin<&mut Network>,
            kind: i32,
            dims: &RawDims,
            dtype: i32,
            alpha: &RawFillArg,
            beta: &RawFillArg,
        ) -> Result<u32>;
        /// `k_tensor` goes before `k` where there is one.
        fn top_k(
            self: Pin<&mut Network>,
            x: u32,
            kind: i32,
            axis: u32,
            k: i32,
            k_tensor: u32,
            indices: i32,
        ) -> Result<u32>;
        fn resize(self: Pin<&mut Network>, x: u32, layer: &RawResize) -> Result<u32>;
        fn grid_sample(
            self: Pin<&mut Network>,
            x: u32,
            grid: u32,
            interpolation: i32,
            align_corners: bool,
            mode: i32,
        ) -> Result<u32>;
        fn nms(self: Pin<&mut Network>, layer: &RawNms) -> Result<u32>;
        fn non_zero(self: Pin<&mut Network>, x: u32, indices: i32) -> Result<u32>;
        fn one_hot(self: Pin<&mut Network>, indices: u32, values: u32, depth: u32, axis: i32) -> Result<u32>;
        fn scatter(self: Pin<&mut Network>, data: u32, indices: u32, updates: u32, mode: i32, axis: i32)
        -> Result<u32>;
        fn cumulative(
            self: Pin<&mut Network>,
            x: u32,
            axis: u32,
            kind: i32,
            exclusive: bool,
            reverse: bool,
        ) -> Result<u32>;
        fn reverse_sequence(
            self: Pin<&mut Network>,
            x: u32,
            lengths: u32,
            batch_axis: i32,
            sequence_axis: i32,
        ) -> Result<u32>;
        fn einsum(self: Pin<&mut Network>, xs: &[u32], equation: &str) -> Result<u32>;
        /// `axis` -1: none.
        fn quantize(self: Pin<&mut Network>, x: u32, scale: u32, zero_point: u32, axis: i32, dtype: i32)
        -> Result<u32>;
        fn dequantize(
            self: Pin<&mut Network>,
            x: u32,
            scale: u32,
            zero_point: u32,
            axis: i32,
            dtype: i32,
        ) -> Result<u32>;
        fn parametric_relu(self: Pin<&mut Network>, x: u32, slope: u32) -> Result<u32>;
        fn attention(self: Pin<&mut Network>, layer: &RawAttention) -> Result<u32>;
        fn rotary_embedding(
            self: Pin<&mut Network>,
            x: u32,
            cos: u32,
            sin: u32,
            interleaved: bool,
            dim: i32,
        ) -> Result<u32>;
        fn kv_cache_update(self: Pin<&mut Network>, cache: u32, update: u32, write_indices: u32) -> Result<u32>;

        fn conditional(self: Pin<&mut Network>, condition: u32, name: &str, metadata: &str) -> Result<u32>;
        fn conditional_input(self: Pin<&mut Network>, conditional: u32, x: u32) -> Result<u32>;
        fn conditional_output(self: Pin<&mut Network>, conditional: u32, a: u32, b: u32) -> Result<u32>;
        fn start_loop(self: Pin<&mut Network>, name: &str) -> Result<u32>;
        fn trip_limit(
            self: Pin<&mut Network>,
            looped: u32,
            limit: u32,
            kind: i32,
            name: &str,
            metadata: &str,
        ) -> Result<()>;
        fn recurrence(self: Pin<&mut Network>, looped: u32, initial: u32) -> Result<u32>;
        fn set_recurrence(self: Pin<&mut Network>, recurrence: u32, next: u32) -> Result<()>;
        fn iterator(self: Pin<&mut Network>, looped: u32, x: u32, axis: i32, reverse: bool) -> Result<u32>;
        fn loop_output(self: Pin<&mut Network>, looped: u32, x: u32, kind: i32, axis: i32, length: u32) -> Result<u32>;

        /// Names the layer that made `tensor`, and fails if TensorRT found its outputs wrong.
        fn finish(self: Pin<&mut Network>, tensor: u32, name: &str, metadata: &str) -> Result<()>;
        fn set_tensor_name(self: Pin<&mut Network>, tensor: u32, name: &str) -> Result<()>;
        fn mark_output(self: Pin<&mut Network>, tensor: u32, dtype: i32) -> Result<()>;
        /// One entry -2: rank unknown.
        fn dims(self: &Network, tensor: u32) -> Result<Vec<i64>>;
        fn dtype(self: &Network, tensor: u32) -> Result<i32>;
        /// Names of the inputs whose values decide shapes.
        fn shape_inputs(self: &Network) -> Result<Vec<String>>;
        fn layer_counts(self: &Network) -> RawCounts;

        fn parse_onnx(self: Pin<&mut Network>, parser: &str, model: &str) -> Result<()>;

        fn add_profile(self: Pin<&mut Network>) -> Result<u32>;
        fn set_range(self: Pin<&mut Network>, profile: u32, range: &RawRange) -> Result<()>;
        fn build(self: Pin<&mut Network>, config: &RawBuildConfig, progress: &Progress) -> Result<UniquePtr<Plan>>;
        /// The lines of the last detailed build that describe engine layers.
        fn engine_log(self: &Network) -> Vec<String>;
        /// Why the last build did without the timings it was given; empty if it did not.
        fn timings_refused(self: &Network) -> String;
        /// What the last build measured and was given, joined with others.
        fn timings(self: Pin<&mut Network>, others: &[u8]) -> Result<Vec<u8>>;

        fn bytes(self: &Plan) -> &[u8];
    }
}
