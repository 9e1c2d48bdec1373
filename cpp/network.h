// One builder and its network, in the terms of one set of headers.
#pragma once

#include <NvInfer.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "trt-fuse/src/tensorrt/ffi.rs.h"

// The interface of these headers as 100 * major + minor of TensorRT. TensorRT-RTX 1.7 has that of TensorRT 11.4.
#ifdef TRT_MAJOR_RTX
#define TRTFUSE_API 1104
#else
#define TRTFUSE_API (NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR)
#endif

namespace trtfuse {
namespace TRTFUSE_SET {

constexpr uint32_t NO_TENSOR = UINT32_MAX;

// Keeps what TensorRT says, for error messages. Prints nothing unless asked.
class Log final : public nvinfer1::ILogger {
public:
    void log(Severity severity, nvinfer1::AsciiChar const* message) noexcept override;
    // What was said before belongs to what went well.
    void mark() noexcept;
    bool has_errors() const noexcept;
    // Throws `what`, followed by the last errors since the mark, or warnings if there are none. Sets a mark.
    [[noreturn]] void fail(std::string const& what) const;
    // As `mark` and `fail`, for what was said on this thread, where several have one engine.
    void mark_thread() noexcept;
    [[noreturn]] void fail_thread(std::string const& what) const;
    // Starts to keep the lines that describe engine layers, dropping those kept before.
    void keep_engine_lines(bool keep) noexcept;
    std::vector<std::string> engine_lines() const;
    // Whether everything goes to stderr as well.
    void set_verbose(bool verbose) noexcept;
    // The last message since the mark.
    std::string last() const;

    // As new.
    void reset() noexcept;

private:
    struct Line {
        std::thread::id thread;
        std::string text;
    };

    static void keep(std::vector<Line>& lines, char const* message);
    [[noreturn]] void fail_with(std::string const& what, bool own) const;

    mutable std::mutex mutex_;
    mutable std::vector<Line> errors_;
    mutable std::vector<Line> warnings_;
    std::vector<std::string> engine_lines_;
    bool keep_engine_lines_ = false;
    bool verbose_ = false;
};

// TensorRT keeps a pointer to the first logger that it is given, for messages that belong to nothing, until the last of
// its objects is gone. So loggers are never freed: one that is done with is given out again.
struct GiveBack {
    void operator()(Log* log) const noexcept;
};

using LogHandle = std::unique_ptr<Log, GiveBack>;

LogHandle take_log();

std::unique_ptr<Engine> load_engine(
    void* create_runtime, int32_t number, int32_t api, rust::Slice<uint8_t const> plan);

class NetworkImpl final : public Network {
public:
    NetworkImpl(void* create_builder, int32_t number, int32_t api);

    uint32_t input(rust::Str name, int32_t dtype, Dims dims) override;
    void set_dimension_name(uint32_t tensor, int32_t axis, rust::Str name) override;
    uint32_t constant(RawWeights const& weights, Dims dims) override;
    uint32_t convolution(uint32_t x, RawConvolution const& layer) override;
    uint32_t deconvolution(uint32_t x, RawConvolution const& layer) override;
    uint32_t pooling(uint32_t x, int32_t kind, RawWindow const& window, int32_t mode, bool exclude_padding) override;
    uint32_t activation(uint32_t x, int32_t kind, float alpha, float beta) override;
    uint32_t unary(uint32_t x, int32_t kind) override;
    uint32_t elementwise(uint32_t a, uint32_t b, int32_t kind) override;
    uint32_t matrix_multiply(uint32_t a, int32_t op_a, uint32_t b, int32_t op_b) override;
    uint32_t reduce(uint32_t x, int32_t kind, uint32_t axes, bool keep_dims) override;
    uint32_t softmax(uint32_t x, uint32_t axis) override;
    uint32_t scale(uint32_t x, int32_t mode, int32_t channel_axis, RawWeights const& shift, RawWeights const& scale,
        RawWeights const& power) override;
    uint32_t normalization(
        uint32_t x, uint32_t scale, uint32_t bias, uint32_t axes, float epsilon, int64_t groups) override;
    uint32_t lrn(uint32_t x, int64_t window, float alpha, float beta, float k) override;
    uint32_t shuffle(uint32_t x, Dims first, bool reshapes, RawDims const& dims, Dims second) override;
    uint32_t concatenation(Tensors xs, int32_t axis) override;
    uint32_t slice(uint32_t x, RawDims const& start, RawDims const& size, RawDims const& stride, int32_t mode,
        uint32_t fill) override;
    uint32_t gather(uint32_t data, uint32_t indices, int32_t mode, int32_t axis, int32_t batch_dims) override;
    uint32_t select(uint32_t condition, uint32_t a, uint32_t b) override;
    uint32_t shape(uint32_t x) override;
    uint32_t cast(uint32_t x, int32_t dtype) override;
    uint32_t identity(uint32_t x) override;
    uint32_t fill(
        int32_t kind, RawDims const& dims, int32_t dtype, RawFillArg const& alpha, RawFillArg const& beta) override;
    uint32_t top_k(uint32_t x, int32_t kind, uint32_t axis, int32_t k, uint32_t k_tensor, int32_t indices) override;
    uint32_t resize(uint32_t x, RawResize const& layer) override;
    uint32_t grid_sample(
        uint32_t x, uint32_t grid, int32_t interpolation, bool align_corners, int32_t mode) override;
    uint32_t nms(RawNms const& layer) override;
    uint32_t non_zero(uint32_t x, int32_t indices) override;
    uint32_t one_hot(uint32_t indices, uint32_t values, uint32_t depth, int32_t axis) override;
    uint32_t scatter(uint32_t data, uint32_t indices, uint32_t updates, int32_t mode, int32_t axis) override;
    uint32_t cumulative(uint32_t x, uint32_t axis, int32_t kind, bool exclusive, bool reverse) override;
    uint32_t reverse_sequence(uint32_t x, uint32_t lengths, int32_t batch_axis, int32_t sequence_axis) override;
    uint32_t einsum(Tensors xs, rust::Str equation) override;
    uint32_t quantize(uint32_t x, uint32_t scale, uint32_t zero_point, int32_t axis, int32_t dtype) override;
    uint32_t dequantize(uint32_t x, uint32_t scale, uint32_t zero_point, int32_t axis, int32_t dtype) override;
    uint32_t parametric_relu(uint32_t x, uint32_t slope) override;
    uint32_t attention(RawAttention const& layer) override;
    uint32_t rotary_embedding(uint32_t x, uint32_t cos, uint32_t sin, bool interleaved, int32_t dim) override;
    uint32_t kv_cache_update(uint32_t cache, uint32_t update, uint32_t write_indices) override;

    uint32_t conditional(uint32_t condition, rust::Str name, rust::Str metadata) override;
    uint32_t conditional_input(uint32_t conditional, uint32_t x) override;
    uint32_t conditional_output(uint32_t conditional, uint32_t a, uint32_t b) override;
    uint32_t start_loop(rust::Str name) override;
    void trip_limit(uint32_t looped, uint32_t limit, int32_t kind, rust::Str name, rust::Str metadata) override;
    uint32_t recurrence(uint32_t looped, uint32_t initial) override;
    void set_recurrence(uint32_t recurrence, uint32_t next) override;
    uint32_t iterator(uint32_t looped, uint32_t x, int32_t axis, bool reverse) override;
    uint32_t loop_output(uint32_t looped, uint32_t x, int32_t kind, int32_t axis, uint32_t length) override;

    void finish(uint32_t tensor, rust::Str name, rust::Str metadata) override;
    void set_tensor_name(uint32_t tensor, rust::Str name) override;
    void mark_output(uint32_t tensor, int32_t dtype) override;
    rust::Vec<int64_t> dims(uint32_t tensor) const override;
    int32_t dtype(uint32_t tensor) const override;
    rust::Vec<rust::String> shape_inputs() const override;
    RawCounts layer_counts() const noexcept override;

    void parse_onnx(rust::Str parser, rust::Str model) override;

    uint32_t add_profile() override;
    void set_range(uint32_t profile, RawRange const& range) override;
    std::unique_ptr<Plan> build(RawBuildConfig const& config, Progress const& progress) override;
    rust::Vec<rust::String> engine_log() const override;
    rust::String timings_refused() const override;
    rust::Vec<uint8_t> timings(rust::Slice<uint8_t const> others) override;

private:
    // A tensor, and the layer that made it: none for inputs, and for attention, which is not a layer.
    struct Value {
        nvinfer1::ITensor* tensor;
        nvinfer1::ILayer* layer;
    };

    nvinfer1::ITensor& tensor(uint32_t id) const;
    template <typename T>
    T& at(std::vector<T*> const& all, uint32_t id, char const* what) const;
    nvinfer1::Dims dims_of(Dims values) const;
    nvinfer1::Dims zeros(uint32_t like) const;
    // The fixed values; zeros of the rank of `like` where a tensor is given.
    nvinfer1::Dims fixed_or_zeros(RawDims const& dims, uint32_t like) const;
    nvinfer1::DataType data_type(int32_t code) const;
    nvinfer1::Weights weights(RawWeights const& raw) const;
    template <typename Enum>
    Enum term(int32_t code, char const* what) const;
    // Fails unless the library, not only these headers, has an interface.
    void require(int32_t api, char const* what) const;

    uint32_t push(nvinfer1::ITensor* tensor, nvinfer1::ILayer* layer);
    // Takes in a new layer, gives the index of its first output. Fails on null.
    uint32_t add(nvinfer1::ILayer* layer, char const* call);
    // Fails on null.
    template <typename T>
    T* made(T* pointer, char const* call) const;
    void check(bool done, char const* call) const;
    // The type that a tensor has or was told to have.
    nvinfer1::DataType type_of(nvinfer1::ITensor& tensor) const;
    // Gives a layer the model's types where TensorRT would choose them.
    void keep_type(nvinfer1::ILayer& layer);
    // Allows the types that the network has, or any if `fp16`.
    void set_types(nvinfer1::IBuilderConfig& config, bool fp16) const;
    // Gives the config these timings, or new ones.
    void use_timings(rust::Slice<uint8_t const> known);
    void name_layer(nvinfer1::ILayer& layer, std::string const& name, std::string const& metadata) const;
    template <typename Layer>
    void set_window(Layer& layer, RawWindow const& window) const;
    template <typename Layer>
    void set_convolution(Layer& layer, RawConvolution const& raw) const;

#if NV_TENSORRT_MAJOR == 8
    // Whether a layer's output is as large as its data say.
    bool data_tell_shapes() const;
#endif

    LogHandle const own_log_ = take_log();
    Log& log_ = *own_log_;
    int32_t number_;
    int32_t api_;
    // Destroyed in reverse order: a network must go before its builder.
    std::unique_ptr<nvinfer1::IBuilder> builder_;
    std::unique_ptr<nvinfer1::INetworkDefinition> network_;
    // An nvonnxparser::IParser: weights of the network lie in it.
    std::shared_ptr<void> parser_;
    std::vector<Value> values_;
    std::vector<nvinfer1::IIfConditional*> conditionals_;
    std::vector<nvinfer1::ILoop*> loops_;
    std::vector<nvinfer1::IOptimizationProfile*> profiles_;
    // The last build's. A timing cache goes before its config.
    std::unique_ptr<nvinfer1::IBuilderConfig> config_;
    std::unique_ptr<nvinfer1::ITimingCache> timings_;
    std::string timings_refused_;
    // Tensors that were told to be f16.
    std::set<nvinfer1::ITensor const*> halves_;
    bool has_half_ = false;
    bool has_quantization_ = false;
#if TRTFUSE_API >= 1014
    std::map<uint32_t, nvinfer1::IAttention*> attentions_;
#endif
};

template <typename T>
T* NetworkImpl::made(T* pointer, char const* call) const {
    if (!pointer) {
        log_.fail(std::string(call) + " failed");
    }
    return pointer;
}

template <typename T>
T& NetworkImpl::at(std::vector<T*> const& all, uint32_t id, char const* what) const {
    if (id >= all.size()) {
        throw std::runtime_error(std::string("no such ") + what);
    }
    return *all[id];
}

template <typename Enum>
Enum NetworkImpl::term(int32_t code, char const* what) const {
    if (code < 0 || code >= nvinfer1::EnumMax<Enum>()) {
        throw std::runtime_error(std::string(what) + " is not in this TensorRT");
    }
    return static_cast<Enum>(code);
}

} // namespace TRTFUSE_SET
} // namespace trtfuse
