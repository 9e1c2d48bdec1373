// A network's frame: creation, inputs, outputs, names, queries.

#include "network.h"

namespace trtfuse {

namespace TRTFUSE_SET {

NetworkImpl::NetworkImpl(void* create_builder, int32_t number, int32_t api)
    : number_(number)
    , api_(api) {
    using CreateBuilder = void* (*) (void*, int32_t);
    auto const create = reinterpret_cast<CreateBuilder>(create_builder);
    builder_.reset(static_cast<nvinfer1::IBuilder*>(create(static_cast<nvinfer1::ILogger*>(&log_), number)));
    made(builder_.get(), "createInferBuilder");
    nvinfer1::NetworkDefinitionCreationFlags flags = 0;
#if NV_TENSORRT_MAJOR == 8 || NV_TENSORRT_MAJOR == 9
    flags |= 1U << static_cast<uint32_t>(nvinfer1::NetworkDefinitionCreationFlag::kEXPLICIT_BATCH);
#endif
#if !defined(TRT_MAJOR_RTX) && (NV_TENSORRT_MAJOR == 9 || NV_TENSORRT_MAJOR == 10)
    // A choice only here: older versions know weakly typed networks only, newer ones strongly typed ones only.
    flags |= 1U << static_cast<uint32_t>(nvinfer1::NetworkDefinitionCreationFlag::kSTRONGLY_TYPED);
#endif
    network_.reset(made(builder_->createNetworkV2(flags), "createNetworkV2"));
}

nvinfer1::ITensor& NetworkImpl::tensor(uint32_t id) const {
    if (id >= values_.size()) {
        throw std::runtime_error("no such tensor");
    }
    return *values_[id].tensor;
}

nvinfer1::Dims NetworkImpl::dims_of(Dims values) const {
    nvinfer1::Dims dims{};
    if (values.size() > static_cast<size_t>(nvinfer1::Dims::MAX_DIMS)) {
        throw std::runtime_error("rank " + std::to_string(values.size()) + " is over TensorRT's limit of "
            + std::to_string(nvinfer1::Dims::MAX_DIMS));
    }
    dims.nbDims = static_cast<int32_t>(values.size());
    for (size_t i = 0; i < values.size(); ++i) {
        dims.d[i] = static_cast<decltype(+dims.d[0])>(values[i]);
        if (dims.d[i] != values[i]) {
            throw std::runtime_error("extent " + std::to_string(values[i]) + " is over this TensorRT's limit");
        }
    }
    return dims;
}

nvinfer1::Dims NetworkImpl::zeros(uint32_t like) const {
    nvinfer1::Dims dims{};
    dims.nbDims = std::max<int32_t>(tensor(like).getDimensions().nbDims, 0);
    return dims;
}

nvinfer1::Dims NetworkImpl::fixed_or_zeros(RawDims const& dims, uint32_t like) const {
    return dims.tensor == NO_TENSOR ? dims_of(dims.fixed) : zeros(like);
}

nvinfer1::DataType NetworkImpl::data_type(int32_t code) const {
    return term<nvinfer1::DataType>(code, "this element type");
}

nvinfer1::Weights NetworkImpl::weights(RawWeights const& raw) const {
    if (raw.count == 0) {
        // The type still counts: TensorRT compares it with the other weights of a layer.
        return nvinfer1::Weights{raw.dtype < 0 ? nvinfer1::DataType::kFLOAT : data_type(raw.dtype), nullptr, 0};
    }
    return nvinfer1::Weights{data_type(raw.dtype), raw.bytes.data(), raw.count};
}

void NetworkImpl::require(int32_t api, char const* what) const {
    if (api_ < api) {
        throw std::runtime_error(std::string(what) + " needs TensorRT " + std::to_string(api / 100) + "."
            + std::to_string(api % 100));
    }
}

uint32_t NetworkImpl::push(nvinfer1::ITensor* tensor, nvinfer1::ILayer* layer) {
    values_.push_back(Value{made(tensor, "getOutput"), layer});
    return static_cast<uint32_t>(values_.size() - 1);
}

uint32_t NetworkImpl::add(nvinfer1::ILayer* layer, char const* call) {
    made(layer, call);
    uint32_t const first = static_cast<uint32_t>(values_.size());
    for (int32_t i = 0; i < layer->getNbOutputs(); ++i) {
        push(layer->getOutput(i), layer);
    }
    return first;
}

void NetworkImpl::check(bool done, char const* call) const {
    if (!done) {
        log_.fail(std::string(call) + " was refused");
    }
}

void NetworkImpl::name_layer(nvinfer1::ILayer& layer, std::string const& name, std::string const& metadata) const {
    layer.setName(name.c_str());
#if TRTFUSE_API >= 806
    if (api_ >= 806) {
        layer.setMetadata(metadata.c_str());
    }
#else
    static_cast<void>(metadata);
#endif
}

uint32_t NetworkImpl::input(rust::Str name, int32_t dtype, Dims dims) {
    log_.mark();
    std::string const text(name);
    return push(made(network_->addInput(text.c_str(), data_type(dtype), dims_of(dims)), "addInput"), nullptr);
}

void NetworkImpl::set_dimension_name(uint32_t id, int32_t axis, rust::Str name) {
    nvinfer1::ITensor& input = tensor(id);
    if (axis < 0 || axis >= input.getDimensions().nbDims) {
        throw std::runtime_error("no such axis");
    }
    input.setDimensionName(axis, std::string(name).c_str());
}

void NetworkImpl::finish(uint32_t id, rust::Str name, rust::Str metadata) {
    std::string const text(name);
#if TRTFUSE_API >= 1014
    auto const attention = attentions_.find(id);
    if (attention != attentions_.end()) {
        check(attention->second->setName(text.c_str()), "setName");
        check(attention->second->setMetadata(std::string(metadata).c_str()), "setMetadata");
    }
#endif
    tensor(id);
    nvinfer1::ILayer* const layer = values_[id].layer;
    if (layer) {
        name_layer(*layer, text, std::string(metadata));
        keep_type(*layer);
    }
    // TensorRT infers when asked, and says then what is wrong with a layer.
    for (uint32_t i = id; i < values_.size() && values_[i].layer == layer; ++i) {
        if (values_[i].tensor->getDimensions().nbDims < 0 && log_.has_errors()) {
            log_.fail("its outputs have no shape");
        }
    }
    log_.mark();
}

void NetworkImpl::set_tensor_name(uint32_t id, rust::Str name) {
    tensor(id).setName(std::string(name).c_str());
}

void NetworkImpl::mark_output(uint32_t id, int32_t dtype) {
    log_.mark();
    nvinfer1::ITensor& output = tensor(id);
    nvinfer1::DataType const type = data_type(dtype);
#if NV_TENSORRT_MAJOR == 8
    output.setType(type);
#else
    if (output.getType() != type) {
        log_.fail("TensorRT infers element type " + std::to_string(static_cast<int32_t>(output.getType())) + ", not "
            + std::to_string(dtype));
    }
#endif
    int32_t const before = network_->getNbOutputs();
    network_->markOutput(output);
    check(network_->getNbOutputs() == before + 1, "markOutput");
}

rust::Vec<int64_t> NetworkImpl::dims(uint32_t id) const {
    nvinfer1::Dims const dims = tensor(id).getDimensions();
    rust::Vec<int64_t> values;
    if (dims.nbDims < 0) {
        values.push_back(-2);
    }
    for (int32_t i = 0; i < dims.nbDims; ++i) {
        values.push_back(dims.d[i]);
    }
    return values;
}

int32_t NetworkImpl::dtype(uint32_t id) const {
    return static_cast<int32_t>(type_of(tensor(id)));
}

rust::Vec<rust::String> NetworkImpl::shape_inputs() const {
    rust::Vec<rust::String> names;
    for (int32_t i = 0; i < network_->getNbInputs(); ++i) {
        nvinfer1::ITensor const* const input = network_->getInput(i);
        if (input != nullptr && input->isShapeTensor()) {
            names.push_back(input->getName());
        }
    }
    return names;
}

RawCounts NetworkImpl::layer_counts() const noexcept {
    RawCounts counts{};
    int32_t const all = network_->getNbLayers();
    for (int32_t i = 0; i < all; ++i) {
        counts.all += 1;
        counts.without_constants += network_->getLayer(i)->getType() != nvinfer1::LayerType::kCONSTANT;
    }
    return counts;
}

HeaderSet const& header_set() {
#ifdef TRT_MAJOR_RTX
    constexpr bool rtx = true;
#else
    constexpr bool rtx = false;
#endif
    static HeaderSet const set{rtx, NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR,
        [](void* create_builder, int32_t number, int32_t api) -> std::unique_ptr<Network> {
            return std::make_unique<NetworkImpl>(create_builder, number, api);
        },
        load_engine};
    return set;
}

} // namespace TRTFUSE_SET
} // namespace trtfuse
