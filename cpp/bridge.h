// What the generated code and each set of TensorRT headers agree on. Knows no TensorRT header.
//
// The files below cpp/ other than library.cc are compiled once for each set of headers, with `nvinfer1` renamed, so that
// several TensorRTs live in one binary; library.cc chooses by what was opened. Any failure is a std::runtime_error, which
// arrives in Rust as an error.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "rust/cxx.h"

namespace trtfuse {

struct LibraryVersion;
struct RawWeights;
struct RawDims;
struct RawWindow;
struct RawConvolution;
struct RawResize;
struct RawFillArg;
struct RawNms;
struct RawAttention;
struct RawCounts;
struct RawBuildConfig;
struct RawRange;
struct RawTensorInfo;
struct RawLayerTime;
struct Progress;

using Dims = rust::Slice<int64_t const>;
using Tensors = rust::Slice<uint32_t const>;

// A serialized engine.
class Plan {
public:
    virtual ~Plan() = default;
    virtual rust::Slice<uint8_t const> bytes() const noexcept = 0;
};

// A builder and the network that it is to build. The functions are described in src/tensorrt/ffi.rs.
class Network {
public:
    virtual ~Network() = default;

    virtual uint32_t input(rust::Str name, int32_t dtype, Dims dims) = 0;
    virtual void set_dimension_name(uint32_t tensor, int32_t axis, rust::Str name) = 0;
    virtual uint32_t constant(RawWeights const& weights, Dims dims) = 0;
    virtual uint32_t convolution(uint32_t x, RawConvolution const& layer) = 0;
    virtual uint32_t deconvolution(uint32_t x, RawConvolution const& layer) = 0;
    virtual uint32_t pooling(uint32_t x, int32_t kind, RawWindow const& window, int32_t mode, bool exclude_padding) = 0;
    virtual uint32_t activation(uint32_t x, int32_t kind, float alpha, float beta) = 0;
    virtual uint32_t unary(uint32_t x, int32_t kind) = 0;
    virtual uint32_t elementwise(uint32_t a, uint32_t b, int32_t kind) = 0;
    virtual uint32_t matrix_multiply(uint32_t a, int32_t op_a, uint32_t b, int32_t op_b) = 0;
    virtual uint32_t reduce(uint32_t x, int32_t kind, uint32_t axes, bool keep_dims) = 0;
    virtual uint32_t softmax(uint32_t x, uint32_t axis) = 0;
    virtual uint32_t scale(uint32_t x, int32_t mode, int32_t channel_axis, RawWeights const& shift,
        RawWeights const& scale, RawWeights const& power) = 0;
    virtual uint32_t normalization(
        uint32_t x, uint32_t scale, uint32_t bias, uint32_t axes, float epsilon, int64_t groups) = 0;
    virtual uint32_t lrn(uint32_t x, int64_t window, float alpha, float beta, float k) = 0;
    virtual uint32_t shuffle(uint32_t x, Dims first, bool reshapes, RawDims const& dims, Dims second) = 0;
    virtual uint32_t concatenation(Tensors xs, int32_t axis) = 0;
    virtual uint32_t slice(uint32_t x, RawDims const& start, RawDims const& size, RawDims const& stride, int32_t mode,
        uint32_t fill) = 0;
    virtual uint32_t gather(uint32_t data, uint32_t indices, int32_t mode, int32_t axis, int32_t batch_dims) = 0;
    virtual uint32_t select(uint32_t condition, uint32_t a, uint32_t b) = 0;
    virtual uint32_t shape(uint32_t x) = 0;
    virtual uint32_t cast(uint32_t x, int32_t dtype) = 0;
    virtual uint32_t identity(uint32_t x) = 0;
    virtual uint32_t fill(
        int32_t kind, RawDims const& dims, int32_t dtype, RawFillArg const& alpha, RawFillArg const& beta) = 0;
    virtual uint32_t top_k(uint32_t x, int32_t kind, uint32_t axis, int32_t k, uint32_t k_tensor, int32_t indices) = 0;
    virtual uint32_t resize(uint32_t x, RawResize const& layer) = 0;
    virtual uint32_t grid_sample(
        uint32_t x, uint32_t grid, int32_t interpolation, bool align_corners, int32_t mode) = 0;
    virtual uint32_t nms(RawNms const& layer) = 0;
    virtual uint32_t non_zero(uint32_t x, int32_t indices) = 0;
    virtual uint32_t one_hot(uint32_t indices, uint32_t values, uint32_t depth, int32_t axis) = 0;
    virtual uint32_t scatter(uint32_t data, uint32_t indices, uint32_t updates, int32_t mode, int32_t axis) = 0;
    virtual uint32_t cumulative(uint32_t x, uint32_t axis, int32_t kind, bool exclusive, bool reverse) = 0;
    virtual uint32_t reverse_sequence(uint32_t x, uint32_t lengths, int32_t batch_axis, int32_t sequence_axis) = 0;
    virtual uint32_t einsum(Tensors xs, rust::Str equation) = 0;
    virtual uint32_t quantize(uint32_t x, uint32_t scale, uint32_t zero_point, int32_t axis, int32_t dtype) = 0;
    virtual uint32_t dequantize(uint32_t x, uint32_t scale, uint32_t zero_point, int32_t axis, int32_t dtype) = 0;
    virtual uint32_t parametric_relu(uint32_t x, uint32_t slope) = 0;
    virtual uint32_t attention(RawAttention const& layer) = 0;
    virtual uint32_t rotary_embedding(uint32_t x, uint32_t cos, uint32_t sin, bool interleaved, int32_t dim) = 0;
    virtual uint32_t kv_cache_update(uint32_t cache, uint32_t update, uint32_t write_indices) = 0;

    virtual uint32_t conditional(uint32_t condition, rust::Str name, rust::Str metadata) = 0;
    virtual uint32_t conditional_input(uint32_t conditional, uint32_t x) = 0;
    virtual uint32_t conditional_output(uint32_t conditional, uint32_t a, uint32_t b) = 0;
    virtual uint32_t start_loop(rust::Str name) = 0;
    virtual void trip_limit(uint32_t looped, uint32_t limit, int32_t kind, rust::Str name, rust::Str metadata) = 0;
    virtual uint32_t recurrence(uint32_t looped, uint32_t initial) = 0;
    virtual void set_recurrence(uint32_t recurrence, uint32_t next) = 0;
    virtual uint32_t iterator(uint32_t looped, uint32_t x, int32_t axis, bool reverse) = 0;
    virtual uint32_t loop_output(uint32_t looped, uint32_t x, int32_t kind, int32_t axis, uint32_t length) = 0;

    virtual void finish(uint32_t tensor, rust::Str name, rust::Str metadata) = 0;
    virtual void set_tensor_name(uint32_t tensor, rust::Str name) = 0;
    virtual void mark_output(uint32_t tensor, int32_t dtype) = 0;
    virtual rust::Vec<int64_t> dims(uint32_t tensor) const = 0;
    virtual int32_t dtype(uint32_t tensor) const = 0;
    virtual rust::Vec<rust::String> shape_inputs() const = 0;
    virtual RawCounts layer_counts() const noexcept = 0;

    virtual void parse_onnx(rust::Str parser, rust::Str model) = 0;

    virtual uint32_t add_profile() = 0;
    virtual void set_range(uint32_t profile, RawRange const& range) = 0;
    virtual std::unique_ptr<Plan> build(RawBuildConfig const& config, Progress const& progress) = 0;
    virtual rust::Vec<rust::String> engine_log() const = 0;
    virtual rust::String timings_refused() const = 0;
    virtual rust::Vec<uint8_t> timings(rust::Slice<uint8_t const> others) = 0;
};

// Runs an engine. One thread at a time.
class Context {
public:
    virtual ~Context() = default;
    virtual void set_shape(rust::Str name, Dims extents) = 0;
    virtual void set_address(rust::Str name, size_t address) = 0;
    virtual void set_output(rust::Str name, size_t address, uint64_t capacity) = 0;
    virtual int64_t most_bytes(rust::Str name) const = 0;
    // One entry -1 for each extent that the data tell.
    virtual rust::Vec<int64_t> shape(rust::Str name) = 0;
    virtual rust::Vec<int64_t> told_shape(rust::Str name) const = 0;
    virtual void enqueue(size_t stream) = 0;
    virtual void set_memory(size_t address, uint64_t length) = 0;
    virtual void profile(bool wanted) = 0;
    virtual rust::Vec<RawLayerTime> layer_times() = 0;
};

// A deserialized engine, which its contexts keep alive.
class Engine {
public:
    virtual ~Engine() = default;
    virtual rust::Vec<RawTensorInfo> tensors() const = 0;
    virtual size_t layers() const noexcept = 0;
    virtual uint64_t memory_size() const noexcept = 0;
    virtual std::unique_ptr<Context> create_context(bool with_memory) const = 0;
};

// An opened library, and the set of headers that speaks its language. Never closed: TensorRT's threads and statics live
// until the process ends.
class Library {
public:
    Library(std::string path, void* handle);
    LibraryVersion version() const noexcept;
    rust::String path() const;
    std::unique_ptr<Network> create_network() const;
    std::unique_ptr<Engine> load_engine(rust::Slice<uint8_t const> plan) const;

private:
    // 100 * major + minor of the TensorRT that has the library's interface.
    int32_t api() const noexcept;

    std::string path_;
    void* handle_;
    bool rtx_;
    int32_t number_;
    int32_t major_, minor_, patch_;
    struct HeaderSet const* headers_;
};

std::unique_ptr<Library> open_library(rust::Str path);

// What a set of headers offers to library.cc.
struct HeaderSet {
    bool rtx;
    int32_t major, minor;
    // `create_builder` is createInferBuilder_INTERNAL, `number` the library's own version for it, `api` the same as
    // 100 * major + minor of the TensorRT that has this interface.
    std::unique_ptr<Network> (*create_network)(void* create_builder, int32_t number, int32_t api);
    // `create_runtime` is createInferRuntime_INTERNAL.
    std::unique_ptr<Engine> (*load_engine)(
        void* create_runtime, int32_t number, int32_t api, rust::Slice<uint8_t const> plan);
};

} // namespace trtfuse
