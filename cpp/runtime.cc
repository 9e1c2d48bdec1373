// Deserialized engines, and the contexts that run them.

#include <algorithm>

#include "network.h"

namespace trtfuse {
namespace TRTFUSE_SET {

namespace {

using CreateRuntime = void* (*) (void*, int32_t);

// An engine and what must outlive it. Contexts share it.
struct Loaded {
    Loaded(CreateRuntime create, int32_t number, rust::Slice<uint8_t const> plan) {
        runtime.reset(static_cast<nvinfer1::IRuntime*>(create(static_cast<nvinfer1::ILogger*>(log.get()), number)));
        if (!runtime) {
            log->fail("createInferRuntime failed");
        }
        engine.reset(runtime->deserializeCudaEngine(plan.data(), plan.size()));
        if (!engine) {
            log->fail("deserializeCudaEngine failed");
        }
    }

    LogHandle const log = take_log();
    // Destroyed in reverse order: an engine must go before its runtime.
    std::unique_ptr<nvinfer1::IRuntime> runtime;
    std::unique_ptr<nvinfer1::ICudaEngine> engine;
};

rust::Vec<int64_t> values_of(nvinfer1::Dims const& dims) {
    rust::Vec<int64_t> values;
    for (int32_t i = 0; i < dims.nbDims; ++i) {
        values.push_back(dims.d[i]);
    }
    return values;
}

// Bytes of temporaries that a context needs. The library may be older than the headers.
uint64_t memory_of(nvinfer1::ICudaEngine const& engine, [[maybe_unused]] int32_t api) noexcept {
#if TRTFUSE_API >= 1001
    if (api >= 1001) {
        return static_cast<uint64_t>(engine.getDeviceMemorySizeV2());
    }
#endif
#if TRTFUSE_API >= 1100
    return 0;
#else
    return engine.getDeviceMemorySize();
#endif
}

// Tells a context where its temporaries lie.
void give_memory(
    nvinfer1::IExecutionContext& context, [[maybe_unused]] int32_t api, void* memory, [[maybe_unused]] uint64_t length) {
#if TRTFUSE_API >= 1001
    if (api >= 1001) {
        context.setDeviceMemoryV2(memory, static_cast<int64_t>(length));
        return;
    }
#endif
#if TRTFUSE_API >= 1100
    static_cast<void>(memory);
#else
    context.setDeviceMemory(memory);
#endif
}

// Memory of an output whose shape the data tell, and that shape once they told.
class Output final : public nvinfer1::IOutputAllocator {
public:
    void hold(size_t address, uint64_t capacity) noexcept {
        address_ = reinterpret_cast<void*>(address);
        capacity_ = capacity;
        told_ = false;
    }

#if TRTFUSE_API >= 1000
    void* reallocateOutputAsync(char const*, void*, uint64_t size, uint64_t, cudaStream_t) override {
        return size <= capacity_ ? address_ : nullptr;
    }
#else
    void* reallocateOutput(char const*, void*, uint64_t size, uint64_t) noexcept override {
        return size <= capacity_ ? address_ : nullptr;
    }
#endif

    void notifyShape(char const*, nvinfer1::Dims const& dims) noexcept override {
        dims_ = dims;
        told_ = true;
    }

    nvinfer1::Dims const* shape() const noexcept {
        return told_ ? &dims_ : nullptr;
    }

private:
    void* address_ = nullptr;
    uint64_t capacity_ = 0;
    nvinfer1::Dims dims_{};
    bool told_ = false;
};

// Takes the times of layers down. A layer may be told of in several parts.
class Profiler final : public nvinfer1::IProfiler {
public:
    void reportLayerTime(char const* name, float ms) noexcept override {
        try {
            times_.emplace_back(name ? name : "", ms);
        } catch (...) {
            // Out of memory: the time is lost.
        }
    }

    void clear() noexcept {
        times_.clear();
    }

    std::vector<std::pair<std::string, float>> const& times() const noexcept {
        return times_;
    }

private:
    std::vector<std::pair<std::string, float>> times_;
};

class ContextImpl final : public Context {
public:
    ContextImpl(std::shared_ptr<Loaded> loaded, int32_t api, bool with_memory)
        : loaded_(std::move(loaded))
        , api_(api) {
        loaded_->log->mark_thread();
        nvinfer1::ICudaEngine& engine = *loaded_->engine;
        if (with_memory) {
            context_.reset(engine.createExecutionContext());
        } else {
#if TRTFUSE_API >= 1000
            context_.reset(
                engine.createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
#else
            context_.reset(engine.createExecutionContextWithoutDeviceMemory());
#endif
        }
        if (!context_) {
            loaded_->log->fail_thread("createExecutionContext failed");
        }
    }

    // Whether there is an optimization profile for this context.
    bool has_profile() const noexcept {
        return context_->getOptimizationProfile() >= 0;
    }

    void set_shape(rust::Str name, Dims extents) override {
        nvinfer1::Dims dims{};
        if (extents.size() > static_cast<size_t>(nvinfer1::Dims::MAX_DIMS)) {
            throw std::runtime_error("the rank is over TensorRT's limit");
        }
        dims.nbDims = static_cast<int32_t>(extents.size());
        for (size_t i = 0; i < extents.size(); ++i) {
            dims.d[i] = static_cast<decltype(+dims.d[0])>(extents[i]);
            if (dims.d[i] != extents[i]) {
                throw std::runtime_error("extent " + std::to_string(extents[i]) + " is over this TensorRT's limit");
            }
        }
        check(context_->setInputShape(std::string(name).c_str(), dims), "setInputShape");
    }

    void set_address(rust::Str name, size_t address) override {
        std::string const key(name);
        if (outputs_.count(key) != 0) {
            check(context_->setOutputAllocator(key.c_str(), nullptr), "setOutputAllocator");
        }
        check(context_->setTensorAddress(key.c_str(), reinterpret_cast<void*>(address)), "setTensorAddress");
    }

    void set_output(rust::Str name, size_t address, uint64_t capacity) override {
        std::string const key(name);
        Output& output = outputs_[key];
        output.hold(address, capacity);
        check(context_->setOutputAllocator(key.c_str(), &output), "setOutputAllocator");
    }

    int64_t most_bytes(rust::Str name) const override {
        return context_->getMaxOutputSize(std::string(name).c_str());
    }

    rust::Vec<int64_t> shape(rust::Str name) override {
        loaded_->log->mark_thread();
        nvinfer1::Dims const dims = context_->getTensorShape(std::string(name).c_str());
        if (dims.nbDims < 0) {
            loaded_->log->fail_thread("getTensorShape failed");
        }
        return values_of(dims);
    }

    rust::Vec<int64_t> told_shape(rust::Str name) const override {
        auto const output = outputs_.find(std::string(name));
        if (output == outputs_.end() || !output->second.shape()) {
            throw std::runtime_error("TensorRT told no shape of output '" + std::string(name) + "'");
        }
        return values_of(*output->second.shape());
    }

    void set_memory(size_t address, uint64_t length) override {
        give_memory(*context_, api_, reinterpret_cast<void*>(address), length);
    }

    void profile(bool wanted) override {
        context_->setProfiler(wanted ? &profiler_ : nullptr);
    }

    rust::Vec<RawLayerTime> layer_times() override {
        rust::Vec<RawLayerTime> all;
        for (auto const& [name, ms] : profiler_.times()) {
            all.push_back(RawLayerTime{rust::String::lossy(name), ms});
        }
        return all;
    }

    void enqueue(size_t stream) override {
        profiler_.clear();
        check(context_->enqueueV3(reinterpret_cast<cudaStream_t>(stream)), "enqueueV3");
    }

private:
    // What was said before belongs to what went well.
    void check(bool done, char const* call) {
        if (!done) {
            loaded_->log->fail_thread(std::string(call) + " failed");
        }
        loaded_->log->mark_thread();
    }

    std::shared_ptr<Loaded> loaded_;
    int32_t api_;
    // The context points to both.
    std::map<std::string, Output> outputs_;
    Profiler profiler_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
};

class EngineImpl final : public Engine {
public:
    EngineImpl(void* create_runtime, int32_t number, int32_t api, rust::Slice<uint8_t const> plan)
        : create_(reinterpret_cast<CreateRuntime>(create_runtime))
        , number_(number)
        , api_(api)
        , loaded_(std::make_shared<Loaded>(create_, number, plan)) {
#if NV_TENSORRT_MAJOR == 8
        if (has_ranges()) {
            plan_.assign(plan.begin(), plan.end());
        }
#endif
    }

    rust::Vec<RawTensorInfo> tensors() const override {
        using Selector = nvinfer1::OptProfileSelector;
        nvinfer1::ICudaEngine const& engine = *loaded_->engine;
        rust::Vec<RawTensorInfo> all;
        for (int32_t i = 0; i < engine.getNbIOTensors(); ++i) {
            char const* const name = engine.getIOTensorName(i);
            RawTensorInfo info{};
            info.name = rust::String::lossy(name);
            info.is_input = engine.getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
            info.dtype = static_cast<int32_t>(engine.getTensorDataType(name));
            info.dims = values_of(engine.getTensorShape(name));
            info.on_host = engine.getTensorLocation(name) == nvinfer1::TensorLocation::kHOST;
            if (info.is_input && !info.on_host) {
                info.min = values_of(engine.getProfileShape(name, 0, Selector::kMIN));
                info.opt = values_of(engine.getProfileShape(name, 0, Selector::kOPT));
                info.max = values_of(engine.getProfileShape(name, 0, Selector::kMAX));
            }
            all.push_back(std::move(info));
        }
        return all;
    }

    size_t layers() const noexcept override {
        return static_cast<size_t>(loaded_->engine->getNbLayers());
    }

    uint64_t memory_size() const noexcept override {
        return memory_of(*loaded_->engine, api_);
    }

    std::unique_ptr<Context> create_context(bool with_memory) const override {
        auto context = std::make_unique<ContextImpl>(loaded_, api_, with_memory);
        if (context->has_profile() || plan_.empty()) {
            return context;
        }
        // TensorRT 8 lets one context at a time have a profile: another one needs an engine of its own.
        context.reset();
        rust::Slice<uint8_t const> const plan{plan_.data(), plan_.size()};
        return std::make_unique<ContextImpl>(std::make_shared<Loaded>(create_, number_, plan), api_, with_memory);
    }

private:
#if NV_TENSORRT_MAJOR == 8
    bool has_ranges() const noexcept {
        nvinfer1::ICudaEngine const& engine = *loaded_->engine;
        for (int32_t i = 0; i < engine.getNbIOTensors(); ++i) {
            char const* const name = engine.getIOTensorName(i);
            nvinfer1::Dims const dims = engine.getTensorShape(name);
            bool const is_fixed = std::all_of(dims.d, dims.d + std::max(dims.nbDims, 0), [](auto d) { return d >= 0; });
            if (!is_fixed || engine.isShapeInferenceIO(name)) {
                return true;
            }
        }
        return false;
    }
#endif

    CreateRuntime create_;
    int32_t number_;
    int32_t api_;
    std::shared_ptr<Loaded> loaded_;
    // What further engines are made of, where contexts need their own.
    std::vector<uint8_t> plan_;
};

} // namespace

std::unique_ptr<Engine> load_engine(
    void* create_runtime, int32_t number, int32_t api, rust::Slice<uint8_t const> plan) {
    return std::make_unique<EngineImpl>(create_runtime, number, api, plan);
}

} // namespace TRTFUSE_SET
} // namespace trtfuse
