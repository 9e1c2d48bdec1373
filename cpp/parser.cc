// NVIDIA's own ONNX parser, to compare with.

#include <dlfcn.h>

#include "network.h"

// Not in each folder of headers: it has a repository of its own.
#if __has_include(<NvOnnxParser.h>)
#include <NvOnnxParser.h>
#define TRTFUSE_PARSER 1
#endif

namespace trtfuse {
namespace TRTFUSE_SET {

#ifdef TRTFUSE_PARSER

void NetworkImpl::parse_onnx(rust::Str library, rust::Str model) {
    log_.mark();
    std::string const path(library);
    dlerror();
    void* const handle = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
    if (!handle) {
        char const* const why = dlerror();
        throw std::runtime_error(why ? why : path + " cannot be opened");
    }
    using CreateParser = void* (*) (void*, void*, int);
    auto const create = reinterpret_cast<CreateParser>(dlsym(handle, "createNvOnnxParser_INTERNAL"));
    if (!create) {
        throw std::runtime_error(path + " is no ONNX parser of TensorRT");
    }
    std::shared_ptr<nvonnxparser::IParser> const parser(static_cast<nvonnxparser::IParser*>(
        create(network_.get(), static_cast<nvinfer1::ILogger*>(&log_), NV_ONNX_PARSER_VERSION)));
    made(parser.get(), "createNvOnnxParser");
    parser_ = parser;
    bool const parsed
        = parser->parseFromFile(std::string(model).c_str(), static_cast<int>(nvinfer1::ILogger::Severity::kWARNING));
    if (parsed) {
        return;
    }
    std::string text = "OnnxParser refused the model";
    for (int i = 0; i < parser->getNbErrors(); ++i) {
        nvonnxparser::IParserError const& error = *parser->getError(i);
        text += (i == 0 ? ": " : "; ") + std::string(error.desc());
#if TRTFUSE_API >= 1000
        char const* const op = error.nodeOperator();
        char const* const name = error.nodeName();
        if (op && *op) {
            text += " (at " + std::string(op) + " '" + (name ? name : "") + "')";
        }
#endif
    }
    throw std::runtime_error(text);
}

#else

void NetworkImpl::parse_onnx(rust::Str, rust::Str) {
    throw std::runtime_error("the headers of this TensorRT were compiled in without NvOnnxParser.h");
}

#endif

} // namespace TRTFUSE_SET
} // namespace trtfuse
