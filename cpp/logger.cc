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

// Loggers that nothing uses, and that one is taken from before another is made. Never freed, as the loggers are not.
struct Pool {
    std::mutex mutex;
    std::vector<Log*> logs;
};

Pool& pool() {
    static Pool* const only = new Pool;
    return *only;
}

} // namespace

LogHandle take_log() {
    Pool& free = pool();
    std::lock_guard<std::mutex> const guard(free.mutex);
    if (free.logs.empty()) {
        return LogHandle(new Log);
    }
    Log* const log = free.logs.back();
    free.logs.pop_back();
    return LogHandle(log);
}

void GiveBack::operator()(Log* log) const noexcept {
    log->reset();
    try {
        Pool& free = pool();
        std::lock_guard<std::mutex> const guard(free.mutex);
        free.logs.push_back(log);
    } catch (...) {
        // Out of memory: the logger is not used again.
    }
}

void Log::keep(std::vector<Line>& lines, char const* message) {
    if (lines.size() == KEPT_LINES) {
        lines.erase(lines.begin());
    }
    lines.push_back(Line{std::this_thread::get_id(), message});
}

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

void Log::reset() noexcept {
    mark();
    std::lock_guard<std::mutex> const guard(mutex_);
    engine_lines_.clear();
    keep_engine_lines_ = false;
    verbose_ = false;
}

void Log::mark_thread() noexcept {
    std::lock_guard<std::mutex> const guard(mutex_);
    auto const is_own = [](Line const& line) { return line.thread == std::this_thread::get_id(); };
    for (std::vector<Line>* lines : {&errors_, &warnings_}) {
        lines->erase(std::remove_if(lines->begin(), lines->end(), is_own), lines->end());
    }
}

void Log::fail(std::string const& what) const {
    fail_with(what, false);
}

void Log::fail_thread(std::string const& what) const {
    fail_with(what, true);
}

void Log::fail_with(std::string const& what, bool own) const {
    std::string text = what;
    {
        std::lock_guard<std::mutex> const guard(mutex_);
        auto const is_own = [](Line const& line) { return line.thread == std::this_thread::get_id(); };
        auto const has_own = [&](std::vector<Line> const& lines) { return std::any_of(lines.begin(), lines.end(), is_own); };
        // If nothing was said on this thread, TensorRT may have said it on one of its own.
        bool const only_own = own && (has_own(errors_) || has_own(warnings_));
        bool const is_error = only_own ? has_own(errors_) : !errors_.empty();
        char const* separator = ": ";
        for (Line const& line : is_error ? errors_ : warnings_) {
            if (!only_own || is_own(line)) {
                text += separator;
                text += line.text;
                separator = "; ";
            }
        }
        for (std::vector<Line>* lines : {&errors_, &warnings_}) {
            auto const is_told = [&](Line const& line) { return !only_own || is_own(line); };
            lines->erase(std::remove_if(lines->begin(), lines->end(), is_told), lines->end());
        }
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
    std::vector<Line> const& lines = errors_.empty() ? warnings_ : errors_;
    return lines.empty() ? std::string() : lines.back().text;
}

std::vector<std::string> Log::engine_lines() const {
    std::lock_guard<std::mutex> const guard(mutex_);
    return engine_lines_;
}

} // namespace TRTFUSE_SET
} // namespace trtfuse
