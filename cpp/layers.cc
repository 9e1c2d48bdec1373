// Layers of weights, arithmetic and normalization.

#include "network.h"

namespace trtfuse {
namespace TRTFUSE_SET {

template <typename Layer>
void NetworkImpl::set_window(Layer& layer, RawWindow const& window) const {
    layer.setStrideNd(dims_of(window.stride));
    layer.setPrePadding(dims_of(window.pre_padding));
    layer.setPostPadding(dims_of(window.post_padding));
}

template <typename Layer>
void NetworkImpl::set_convolution(Layer& layer, RawConvolution const& raw) const {
    set_window(layer, raw.window);
    layer.setDilationNd(dims_of(raw.window.dilation));
    layer.setNbGroups(raw.groups);
    if (raw.kernel_tensor != NO_TENSOR) {
        layer.setInput(1, tensor(raw.kernel_tensor));
    }
    if (raw.bias_tensor != NO_TENSOR) {
        layer.setInput(2, tensor(raw.bias_tensor));
    }
}

uint32_t NetworkImpl::constant(RawWeights const& raw, Dims dims) {
    return add(network_->addConstant(dims_of(dims), weights(raw)), "addConstant");
}

uint32_t NetworkImpl::convolution(uint32_t x, RawConvolution const& raw) {
    auto* const layer = made(network_->addConvolutionNd(tensor(x), raw.maps, dims_of(raw.window.size),
                                 weights(raw.kernel), weights(raw.bias)),
        "addConvolutionNd");
    set_convolution(*layer, raw);
    return add(layer, "addConvolutionNd");
}

uint32_t NetworkImpl::deconvolution(uint32_t x, RawConvolution const& raw) {
    auto* const layer = made(network_->addDeconvolutionNd(tensor(x), raw.maps, dims_of(raw.window.size),
                                 weights(raw.kernel), weights(raw.bias)),
        "addDeconvolutionNd");
    set_convolution(*layer, raw);
    return add(layer, "addDeconvolutionNd");
}

uint32_t NetworkImpl::pooling(uint32_t x, int32_t kind, RawWindow const& window, int32_t mode, bool exclude_padding) {
    auto* const layer = made(network_->addPoolingNd(tensor(x), term<nvinfer1::PoolingType>(kind, "this pooling"),
                                 dims_of(window.size)),
        "addPoolingNd");
    set_window(*layer, window);
    layer->setPaddingMode(term<nvinfer1::PaddingMode>(mode, "this padding mode"));
    layer->setAverageCountExcludesPadding(exclude_padding);
    return add(layer, "addPoolingNd");
}

uint32_t NetworkImpl::activation(uint32_t x, int32_t kind, float alpha, float beta) {
    auto* const layer = made(
        network_->addActivation(tensor(x), term<nvinfer1::ActivationType>(kind, "this activation")), "addActivation");
    layer->setAlpha(alpha);
    layer->setBeta(beta);
    return add(layer, "addActivation");
}

uint32_t NetworkImpl::unary(uint32_t x, int32_t kind) {
    return add(network_->addUnary(tensor(x), term<nvinfer1::UnaryOperation>(kind, "this unary operation")), "addUnary");
}

uint32_t NetworkImpl::elementwise(uint32_t a, uint32_t b, int32_t kind) {
    auto const operation = term<nvinfer1::ElementWiseOperation>(kind, "this elementwise operation");
    return add(network_->addElementWise(tensor(a), tensor(b), operation), "addElementWise");
}

uint32_t NetworkImpl::matrix_multiply(uint32_t a, int32_t op_a, uint32_t b, int32_t op_b) {
    auto const first = term<nvinfer1::MatrixOperation>(op_a, "this matrix operation");
    auto const second = term<nvinfer1::MatrixOperation>(op_b, "this matrix operation");
    return add(network_->addMatrixMultiply(tensor(a), first, tensor(b), second), "addMatrixMultiply");
}

uint32_t NetworkImpl::reduce(uint32_t x, int32_t kind, uint32_t axes, bool keep_dims) {
    auto const operation = term<nvinfer1::ReduceOperation>(kind, "this reduction");
    return add(network_->addReduce(tensor(x), operation, axes, keep_dims), "addReduce");
}

uint32_t NetworkImpl::softmax(uint32_t x, uint32_t axis) {
    auto* const layer = made(network_->addSoftMax(tensor(x)), "addSoftMax");
    layer->setAxes(axis);
    return add(layer, "addSoftMax");
}

uint32_t NetworkImpl::scale(uint32_t x, int32_t mode, int32_t channel_axis, RawWeights const& shift,
    RawWeights const& scale, RawWeights const& power) {
    return add(network_->addScaleNd(tensor(x), term<nvinfer1::ScaleMode>(mode, "this scale mode"), weights(shift),
                   weights(scale), weights(power), channel_axis),
        "addScaleNd");
}

uint32_t NetworkImpl::normalization(
    uint32_t x, uint32_t scale, uint32_t bias, uint32_t axes, float epsilon, int64_t groups) {
    require(806, "normalization");
#if TRTFUSE_API >= 806
    nvinfer1::INormalizationLayer* layer = nullptr;
#if TRTFUSE_API >= 1015
    if (api_ >= 1015) {
        layer = network_->addNormalizationV2(tensor(x), tensor(scale), tensor(bias), axes);
    } else
#endif
    {
        layer = network_->addNormalization(tensor(x), tensor(scale), tensor(bias), axes);
    }
    made(layer, "addNormalization");
    layer->setEpsilon(epsilon);
    layer->setNbGroups(groups);
    return add(layer, "addNormalization");
#else
    static_cast<void>(x), static_cast<void>(scale), static_cast<void>(bias), static_cast<void>(axes);
    static_cast<void>(epsilon), static_cast<void>(groups);
    return NO_TENSOR;
#endif
}

uint32_t NetworkImpl::lrn(uint32_t x, int64_t window, float alpha, float beta, float k) {
    return add(network_->addLRN(tensor(x), window, alpha, beta, k), "addLRN");
}

uint32_t NetworkImpl::parametric_relu(uint32_t x, uint32_t slope) {
    return add(network_->addParametricReLU(tensor(x), tensor(slope)), "addParametricReLU");
}

uint32_t NetworkImpl::cumulative(uint32_t x, uint32_t axis, int32_t kind, bool exclusive, bool reverse) {
    require(1008, "a cumulative layer");
#if TRTFUSE_API >= 1008
    auto const operation = term<nvinfer1::CumulativeOperation>(kind, "this cumulative operation");
    return add(network_->addCumulative(tensor(x), tensor(axis), operation, exclusive, reverse), "addCumulative");
#else
    static_cast<void>(x), static_cast<void>(axis), static_cast<void>(kind);
    static_cast<void>(exclusive), static_cast<void>(reverse);
    return NO_TENSOR;
#endif
}

uint32_t NetworkImpl::einsum(Tensors xs, rust::Str equation) {
    std::vector<nvinfer1::ITensor*> inputs;
    for (uint32_t const x : xs) {
        inputs.push_back(&tensor(x));
    }
    std::string const text(equation);
    return add(network_->addEinsum(inputs.data(), static_cast<int32_t>(inputs.size()), text.c_str()), "addEinsum");
}

uint32_t NetworkImpl::quantize(uint32_t x, uint32_t scale, uint32_t zero_point, int32_t axis, int32_t dtype) {
#if TRTFUSE_API >= 900
    auto* const layer = made(network_->addQuantize(tensor(x), tensor(scale), data_type(dtype)), "addQuantize");
#else
    static_cast<void>(dtype);
    auto* const layer = made(network_->addQuantize(tensor(x), tensor(scale)), "addQuantize");
#endif
    if (axis >= 0) {
        layer->setAxis(axis);
    }
    if (zero_point != NO_TENSOR) {
        layer->setInput(2, tensor(zero_point));
    }
    return add(layer, "addQuantize");
}

uint32_t NetworkImpl::dequantize(uint32_t x, uint32_t scale, uint32_t zero_point, int32_t axis, int32_t dtype) {
#if TRTFUSE_API >= 900
    auto* const layer = made(network_->addDequantize(tensor(x), tensor(scale), data_type(dtype)), "addDequantize");
#else
    static_cast<void>(dtype);
    auto* const layer = made(network_->addDequantize(tensor(x), tensor(scale)), "addDequantize");
#endif
    if (axis >= 0) {
        layer->setAxis(axis);
    }
    if (zero_point != NO_TENSOR) {
        layer->setInput(2, tensor(zero_point));
    }
    return add(layer, "addDequantize");
}

uint32_t NetworkImpl::attention(RawAttention const& raw) {
    require(1014, "attention");
#if TRTFUSE_API >= 1014
    auto const norm = term<nvinfer1::AttentionNormalizationOp>(raw.norm, "this attention normalization");
    nvinfer1::IAttention* attention = nullptr;
#if TRTFUSE_API >= 1100
    if (api_ >= 1100) {
        auto const causal = term<nvinfer1::CausalMaskKind>(raw.causal, "this causal mask");
        attention = network_->addAttentionV2(tensor(raw.query), tensor(raw.key), tensor(raw.value), norm, causal);
    } else
#endif
    {
        // One form of causal mask before TensorRT 11: the one counted from the start.
        if (raw.causal > 1) {
            require(1100, "this causal mask");
        }
        attention = network_->addAttention(
            tensor(raw.query), tensor(raw.key), tensor(raw.value), norm, raw.causal != 0);
    }
    made(attention, "addAttention");
    if (raw.mask != NO_TENSOR) {
        check(attention->setMask(tensor(raw.mask)), "setMask");
    }
    check(attention->setDecomposable(raw.decomposable), "setDecomposable");
    uint32_t const output = push(attention->getOutput(0), nullptr);
    attentions_[output] = attention;
    return output;
#else
    static_cast<void>(raw);
    return NO_TENSOR;
#endif
}

uint32_t NetworkImpl::rotary_embedding(uint32_t x, uint32_t cos, uint32_t sin, bool interleaved, int32_t dim) {
    require(1015, "a rotary embedding layer");
#if TRTFUSE_API >= 1015
    return add(network_->addRotaryEmbedding(tensor(x), tensor(cos), tensor(sin), interleaved, dim),
        "addRotaryEmbedding");
#else
    static_cast<void>(x), static_cast<void>(cos), static_cast<void>(sin);
    static_cast<void>(interleaved), static_cast<void>(dim);
    return NO_TENSOR;
#endif
}

uint32_t NetworkImpl::kv_cache_update(uint32_t cache, uint32_t update, uint32_t write_indices) {
    require(1015, "a KV cache update layer");
#if TRTFUSE_API >= 1015
    return add(network_->addKVCacheUpdate(
                   tensor(cache), tensor(update), tensor(write_indices), nvinfer1::KVCacheMode::kLINEAR),
        "addKVCacheUpdate");
#else
    static_cast<void>(cache), static_cast<void>(update), static_cast<void>(write_indices);
    return NO_TENSOR;
#endif
}

} // namespace TRTFUSE_SET
} // namespace trtfuse
