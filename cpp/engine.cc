// Builds a network into a serialized engine.

#include <dlfcn.h>

#include <algorithm>
#include <iterator>

#include "network.h"

namespace trtfuse {
namespace TRTFUSE_SET {

namespace {

class PlanImpl final : public Plan {
public:
    explicit PlanImpl(nvinfer1::IHostMemory* memory)
        : memory_(memory) {}

    rust::Slice<uint8_t const> bytes() const noexcept override {
        return {static_cast<uint8_t const*>(memory_->data()), memory_->size()};
    }

private:
    std::unique_ptr<nvinfer1::IHostMemory> memory_;
};

#if NV_TENSORRT_MAJOR == 8
// Whether a library is there that has a function.
bool is_installed(std::initializer_list<char const*> names, char const* function) {
    for (char const* const name : names) {
        void* const handle = dlopen(name, RTLD_LAZY | RTLD_LOCAL);
        if (handle && dlsym(handle, function)) {
            return true;
        }
    }
    return false;
}

// The libraries that TensorRT 8 takes kernels from besides its own, those that are there: a build fails over others.
nvinfer1::TacticSources installed_sources() {
    using nvinfer1::TacticSource;
    auto const bit = [](TacticSource source) { return 1U << static_cast<uint32_t>(source); };
    nvinfer1::TacticSources sources = ~0U;
    if (!is_installed({"libcublas.so.11", "libcublas.so.12"}, "cublasCreate_v2")) {
        sources &= ~bit(TacticSource::kCUBLAS);
    }
    if (!is_installed({"libcublasLt.so.11", "libcublasLt.so.12"}, "cublasLtCreate")) {
        sources &= ~bit(TacticSource::kCUBLAS_LT);
    }
    if (!is_installed({"libcudnn.so.8"}, "cudnnCreate")) {
        sources &= ~bit(TacticSource::kCUDNN);
    }
    return sources;
}
#endif

#if TRTFUSE_API >= 1000
// Hands TensorRT's progress on. TensorRT calls from several threads.
class Monitor final : public nvinfer1::IProgressMonitor {
public:
    explicit Monitor(Progress const& progress)
        : progress_(progress) {}

    void phaseStart(char const* phase, char const*, int32_t steps) noexcept override {
        try {
            std::lock_guard<std::mutex> const guard(mutex_);
            steps_[phase] = steps;
        } catch (...) {
            // Out of memory: the phase goes unreported.
        }
    }

    bool stepComplete(char const* phase, int32_t step) noexcept override {
        try {
            int32_t steps = 0;
            {
                std::lock_guard<std::mutex> const guard(mutex_);
                steps = steps_[phase];
            }
            return progress_.step(rust::Str(phase), step, steps);
        } catch (...) {
            // A name that is not UTF-8.
            return true;
        }
    }

    void phaseFinish(char const* phase) noexcept override {
        std::lock_guard<std::mutex> const guard(mutex_);
        steps_.erase(phase);
    }

private:
    Progress const& progress_;
    std::mutex mutex_;
    std::map<std::string, int32_t> steps_;
};
#endif

} // namespace

uint32_t NetworkImpl::add_profile() {
    log_.mark();
    profiles_.push_back(made(builder_->createOptimizationProfile(), "createOptimizationProfile"));
    return static_cast<uint32_t>(profiles_.size() - 1);
}

void NetworkImpl::set_range(uint32_t id, RawRange const& range) {
    using Selector = nvinfer1::OptProfileSelector;
    nvinfer1::IOptimizationProfile& profile = at(profiles_, id, "profile");
    std::string const name(range.input);
    std::pair<Selector, Dims> const parts[]
        = {{Selector::kMIN, range.min}, {Selector::kOPT, range.opt}, {Selector::kMAX, range.max}};
    log_.mark();
    for (auto const& [selector, values] : parts) {
        if (!range.values) {
            check(profile.setDimensions(name.c_str(), selector, dims_of(values)), "setDimensions");
            continue;
        }
        int32_t const count = static_cast<int32_t>(values.size());
#if TRTFUSE_API >= 1100
        check(profile.setShapeValuesV2(name.c_str(), selector, values.data(), count), "setShapeValues");
#else
        std::vector<int32_t> narrow;
        for (int64_t const value : values) {
            narrow.push_back(static_cast<int32_t>(value));
            if (narrow.back() != value) {
                throw std::runtime_error("shape value " + std::to_string(value) + " is over this TensorRT's limit");
            }
        }
        check(profile.setShapeValues(name.c_str(), selector, narrow.data(), count), "setShapeValues");
#endif
    }
}

#if NV_TENSORRT_MAJOR == 8
bool NetworkImpl::data_tell_shapes() const {
    for (int32_t i = 0; i < network_->getNbLayers(); ++i) {
        nvinfer1::LayerType const type = network_->getLayer(i)->getType();
        if (type == nvinfer1::LayerType::kNON_ZERO || type == nvinfer1::LayerType::kNMS) {
            return true;
        }
    }
    return false;
}
#endif

std::unique_ptr<Plan> NetworkImpl::build(RawBuildConfig const& raw, Progress const& progress) {
    log_.mark();
    log_.set_verbose(raw.verbose);
#if TRTFUSE_API >= 1000
    Monitor monitor(progress);
#endif
    timings_.reset();
    config_.reset(made(builder_->createBuilderConfig(), "createBuilderConfig"));
    nvinfer1::IBuilderConfig* const config = config_.get();
    if (raw.workspace != 0) {
        config->setMemoryPoolLimit(nvinfer1::MemoryPoolType::kWORKSPACE, raw.workspace);
    }
#if TRTFUSE_API >= 806
    if (raw.optimization_level >= 0 && api_ >= 806) {
        config->setBuilderOptimizationLevel(raw.optimization_level);
        check(config->getBuilderOptimizationLevel() == raw.optimization_level, "setBuilderOptimizationLevel");
    }
#endif
    if (raw.tf32) {
        config->setFlag(nvinfer1::BuilderFlag::kTF32);
    } else {
        config->clearFlag(nvinfer1::BuilderFlag::kTF32);
    }
    set_types(*config, raw.fp16);
#if NV_TENSORRT_MAJOR == 8 && TRTFUSE_API >= 806
    if (api_ >= 806) {
        // So that several contexts can have one profile.
        config->setPreviewFeature(nvinfer1::PreviewFeature::kPROFILE_SHARING_0806, true);
    }
#endif
#if NV_TENSORRT_MAJOR == 8
    config->setTacticSources(config->getTacticSources() & installed_sources());
#endif
    config->setProfilingVerbosity(raw.detailed ? nvinfer1::ProfilingVerbosity::kDETAILED
                                               : nvinfer1::ProfilingVerbosity::kLAYER_NAMES_ONLY);
#ifdef TRT_MAJOR_RTX
    if (!raw.compute_capabilities.empty()) {
        int32_t const count = static_cast<int32_t>(raw.compute_capabilities.size());
        check(config->setNbComputeCapabilities(count), "setNbComputeCapabilities");
        for (int32_t i = 0; i < count; ++i) {
            int32_t const capability = raw.compute_capabilities[static_cast<size_t>(i)];
            check(config->setComputeCapability(static_cast<nvinfer1::ComputeCapability>(capability), i),
                ("setComputeCapability(" + std::to_string(capability) + ")").c_str());
        }
    }
#else
    if (!raw.compute_capabilities.empty()) {
        throw std::runtime_error("only TensorRT-RTX builds for a compute capability; TensorRT builds for this GPU");
    }
#endif
    if (raw.keeps_timings) {
        use_timings(raw.timings);
    }
#if NV_TENSORRT_MAJOR == 8
    if (profiles_.empty() && data_tell_shapes()) {
        // TensorRT 8 asks for one even where no input has a range.
        add_profile();
    }
#endif
    for (nvinfer1::IOptimizationProfile* const profile : profiles_) {
        check(profile->isValid(), "an optimization profile");
        check(config->addOptimizationProfile(profile) >= 0, "addOptimizationProfile");
    }
#if TRTFUSE_API >= 1000
    if (progress.wanted()) {
        config->setProgressMonitor(&monitor);
    }
#else
    static_cast<void>(progress);
#endif
    log_.keep_engine_lines(raw.detailed);
    nvinfer1::IHostMemory* const memory = builder_->buildSerializedNetwork(*network_, *config);
    log_.keep_engine_lines(false);
#if TRTFUSE_API >= 1000
    // It ends here, the config does not.
    config->setProgressMonitor(nullptr);
#endif
    return std::make_unique<PlanImpl>(made(memory, "buildSerializedNetwork"));
}

#ifdef TRT_MAJOR_RTX

void NetworkImpl::use_timings(rust::Slice<uint8_t const>) {
    throw std::runtime_error("TensorRT-RTX measures nothing while it builds: it takes no timing cache");
}

rust::Vec<uint8_t> NetworkImpl::timings(rust::Slice<uint8_t const>) {
    return {};
}

#else

void NetworkImpl::use_timings(rust::Slice<uint8_t const> known) {
    timings_refused_.clear();
    if (!known.empty()) {
        timings_.reset(config_->createTimingCache(known.data(), known.size()));
        if (timings_ && config_->setTimingCache(*timings_, false)) {
            return;
        }
        timings_refused_ = log_.last();
        if (timings_refused_.empty()) {
            timings_refused_ = "TensorRT refused it";
        }
        log_.mark();
    }
    timings_.reset(made(config_->createTimingCache(nullptr, 0), "createTimingCache"));
    check(config_->setTimingCache(*timings_, false), "setTimingCache");
}

rust::Vec<uint8_t> NetworkImpl::timings(rust::Slice<uint8_t const> others) {
    if (!timings_) {
        return {};
    }
    log_.mark();
    if (!others.empty()) {
        std::unique_ptr<nvinfer1::ITimingCache> const other(config_->createTimingCache(others.data(), others.size()));
        // Those of another TensorRT or GPU are not joined.
        if (other) {
            timings_->combine(*other, false);
        }
        log_.mark();
    }
    std::unique_ptr<nvinfer1::IHostMemory> const bytes(made(timings_->serialize(), "ITimingCache::serialize"));
    rust::Vec<uint8_t> all;
    all.reserve(bytes->size());
    auto const* const data = static_cast<uint8_t const*>(bytes->data());
    std::copy(data, data + bytes->size(), std::back_inserter(all));
    return all;
}

#endif

rust::String NetworkImpl::timings_refused() const {
    return rust::String::lossy(timings_refused_);
}

rust::Vec<rust::String> NetworkImpl::engine_log() const {
    rust::Vec<rust::String> lines;
    for (std::string const& line : log_.engine_lines()) {
        lines.push_back(rust::String::lossy(line));
    }
    return lines;
}

} // namespace TRTFUSE_SET
} // namespace trtfuse
