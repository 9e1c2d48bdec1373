// What TensorRT says, kept.

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "network.h"

namespace trtfuse {
namespace TRTFUSE_SET {

namespace {

// A message quotes the last lines of a burst; more would bury the cause.
constexpr size_t KEPT_LINES = 8;

void keep(std::vector<std::string>& lines, char const* message) {
    if (lines.size() == KEPT_LINES) {
        lines.erase(lines.begin());
    }
    lines.emplace_back(message);
}

} // namespace

void Log::log(Severity severity, nvinfer1::AsciiChar const* message) noexcept {
    if (!message) {
        return;
    }
    try {
        std::lock_guard<std::mutex> const guard(mutex_);
        if (verbose_) {
            std::fprintf(stderr, "TensorRT: %s\n", message);
        }
        switch (severity) {
        case Severity::kINTERNAL_ERROR:
        case Severity::kERROR:
            // Said after each error on a machine without a driver, where building works and this is no news.
            if (!std::strstr(message, "(cudaError 35:")) {
                keep(errors_, message);
            }
            break;
        case Severity::kWARNING: keep(warnings_, message); break;
        case Severity::kINFO:
        case Severity::kVERBOSE:
            if (keep_engine_lines_ && std::strstr(message, "LayerType: ")) {
                engine_lines_.emplace_back(message);
            }
            break;
        }
    } catch (...) {
        // Out of memory: the message is lost, the caller is not.
    }
}

void Log::mark() noexcept {
    std::lock_guard<std::mutex> const guard(mutex_);
    errors_.clear();
    warnings_.clear();
}

bool Log::has_errors() const noexcept {
    std::lock_guard<std::mutex> const guard(mutex_);
    return !errors_.empty();
}

void Log::fail(std::string const& what) const {
    std::string text = what;
    {
        std::lock_guard<std::mutex> const guard(mutex_);
        char const* separator = ": ";
        for (std::string const& line : errors_.empty() ? warnings_ : errors_) {
            text += separator;
            text += line;
            separator = "; ";
        }
        errors_.clear();
        warnings_.clear();
    }
    throw std::runtime_error(text);
}

void Log::keep_engine_lines(bool keep) noexcept {
    std::lock_guard<std::mutex> const guard(mutex_);
    keep_engine_lines_ = keep;
    if (keep) {
        engine_lines_.clear();
    }
}

void Log::set_verbose(bool verbose) noexcept {
    std::lock_guard<std::mutex> const guard(mutex_);
    verbose_ = verbose;
}

std::string Log::last() const {
    std::lock_guard<std::mutex> const guard(mutex_);
    std::vector<std::string> const& lines = errors_.empty() ? warnings_ : errors_;
    return lines.empty() ? std::string() : lines.back();
}

std::vector<std::string> Log::engine_lines() const {
    std::lock_guard<std::mutex> const guard(mutex_);
    return engine_lines_;
}

} // namespace TRTFUSE_SET
} // namespace trtfuse
