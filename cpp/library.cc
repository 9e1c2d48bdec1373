// Opens a library and chooses the set of headers for it.

#include <dlfcn.h>

#include <stdexcept>

#include "trt-fuse/src/tensorrt/ffi.rs.h"

// The sets that build.rs compiled: SETS(X) is X(name) for each.
namespace trtfuse {

#define DECLARE_SET(name)                                                                                              \
    namespace name {                                                                                                   \
    HeaderSet const& header_set();                                                                                     \
    }
TRTFUSE_SETS(DECLARE_SET)
#undef DECLARE_SET

namespace {

template <typename Function>
Function symbol(void* handle, char const* name) {
    return reinterpret_cast<Function>(dlsym(handle, name));
}

std::string version_text(bool rtx, int32_t major, int32_t minor) {
    return (rtx ? "TensorRT-RTX " : "TensorRT ") + std::to_string(major) + "." + std::to_string(minor);
}

// Of the sets of the same major version the newest that the library knows all of, else the oldest.
HeaderSet const* choose(bool rtx, int32_t major, int32_t minor) {
#define LIST_SET(name) &name::header_set(),
    HeaderSet const* const sets[] = {TRTFUSE_SETS(LIST_SET)};
#undef LIST_SET
    HeaderSet const* best = nullptr;
    std::string compiled;
    for (HeaderSet const* set : sets) {
        compiled += (compiled.empty() ? "" : ", ") + version_text(set->rtx, set->major, set->minor);
        if (set->rtx != rtx || set->major != major) {
            continue;
        }
        bool const fits = set->minor <= minor;
        bool const best_fits = best && best->minor <= minor;
        if (!best || (fits && (!best_fits || set->minor > best->minor))
            || (!fits && !best_fits && set->minor < best->minor)) {
            best = set;
        }
    }
    if (!best) {
        throw std::runtime_error("is " + version_text(rtx, major, minor) + ", but only the headers of " + compiled
            + " were compiled in: set TENSORRT_INCLUDE_DIR to its headers and build again");
    }
    return best;
}

} // namespace

Library::Library(std::string path, void* handle)
    : path_(std::move(path))
    , handle_(handle) {
    auto const number = symbol<int32_t (*)()>(handle, "getInferLibVersion");
    if (!number || !symbol<void*>(handle, "createInferBuilder_INTERNAL")) {
        throw std::runtime_error("is no TensorRT library: getInferLibVersion or createInferBuilder_INTERNAL is missing");
    }
    number_ = number();
    // 8.5.3 is 8503; from 10 on, 10.11.1 is 101101. TensorRT-RTX 1.7.1 is 10701, told from TensorRT 1.x, which never had
    // these entry points.
    if (number_ < 10000) {
        major_ = number_ / 1000;
        minor_ = number_ / 100 % 10;
    } else {
        major_ = number_ / 10000;
        minor_ = number_ / 100 % 100;
    }
    patch_ = number_ % 100;
    rtx_ = major_ < 8;
    if (!rtx_ && major_ == 8 && minor_ < 5) {
        throw std::runtime_error("is " + version_text(false, major_, minor_) + ", but at least TensorRT 8.5 is needed");
    }
    headers_ = choose(rtx_, major_, minor_);
    if (rtx_ && minor_ < headers_->minor) {
        throw std::runtime_error("is " + version_text(true, major_, minor_) + ", but at least "
            + version_text(true, major_, headers_->minor) + " is needed");
    }
    // The library's file, where the loader found it by name.
    Dl_info info{};
    if (dladdr(reinterpret_cast<void*>(number), &info) && info.dli_fname) {
        path_ = info.dli_fname;
    }
}

LibraryVersion Library::version() const noexcept {
    return LibraryVersion{rtx_, major_, minor_, patch_};
}

rust::String Library::path() const {
    return rust::String::lossy(path_);
}

std::unique_ptr<Network> Library::create_network() const {
    return headers_->create_network(symbol<void*>(handle_, "createInferBuilder_INTERNAL"), number_, api());
}

int32_t Library::api() const noexcept {
    // TensorRT-RTX 1.7 has the interface of TensorRT 11.4.
    return rtx_ ? 1104 : major_ * 100 + minor_;
}

std::unique_ptr<Engine> Library::load_engine(rust::Slice<uint8_t const> plan) const {
    auto* const create_runtime = symbol<void*>(handle_, "createInferRuntime_INTERNAL");
    if (!create_runtime) {
        throw std::runtime_error("createInferRuntime_INTERNAL is missing");
    }
    return headers_->load_engine(create_runtime, number_, api(), plan);
}

std::unique_ptr<Library> open_library(rust::Str path) {
    std::string name(path);
    dlerror();
    void* const handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        char const* const why = dlerror();
        throw std::runtime_error(why ? why : "cannot be opened");
    }
    return std::make_unique<Library>(std::move(name), handle);
}

} // namespace trtfuse
