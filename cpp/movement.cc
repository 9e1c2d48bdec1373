// Layers that move, select or make elements.

#include <algorithm>

#include "network.h"

namespace trtfuse {
namespace TRTFUSE_SET {

namespace {

nvinfer1::Permutation permutation(Dims axes) {
    nvinfer1::Permutation result{};
    if (axes.size() > static_cast<size_t>(nvinfer1::Dims::MAX_DIMS)) {
        throw std::runtime_error("permutation is over TensorRT's limit of rank");
    }
    for (size_t i = 0; i < axes.size(); ++i) {
        result.order[i] = static_cast<int32_t>(axes[i]);
    }
    return result;
}

} // namespace

uint32_t NetworkImpl::shuffle(uint32_t x, Dims first, bool reshapes, RawDims const& dims, Dims second) {
    auto* const layer = made(network_->addShuffle(tensor(x)), "addShuffle");
    layer->setZeroIsPlaceholder(false);
    if (!first.empty()) {
        layer->setFirstTranspose(permutation(first));
    }
    if (reshapes && dims.tensor == NO_TENSOR) {
        layer->setReshapeDimensions(dims_of(dims.fixed));
    } else if (reshapes) {
        layer->setInput(1, tensor(dims.tensor));
    }
    if (!second.empty()) {
        layer->setSecondTranspose(permutation(second));
    }
    return add(layer, "addShuffle");
}

uint32_t NetworkImpl::concatenation(Tensors xs, int32_t axis) {
    std::vector<nvinfer1::ITensor*> inputs;
    for (uint32_t const x : xs) {
        inputs.push_back(&tensor(x));
    }
    auto* const layer = made(
        network_->addConcatenation(inputs.data(), static_cast<int32_t>(inputs.size())), "addConcatenation");
    layer->setAxis(axis);
    return add(layer, "addConcatenation");
}

uint32_t NetworkImpl::slice(
    uint32_t x, RawDims const& start, RawDims const& size, RawDims const& stride, int32_t mode, uint32_t fill) {
    auto* const layer = made(network_->addSlice(tensor(x), fixed_or_zeros(start, x), fixed_or_zeros(size, x),
                                 fixed_or_zeros(stride, x)),
        "addSlice");
    layer->setMode(term<nvinfer1::SampleMode>(mode, "this slice mode"));
    RawDims const* const parts[] = {&start, &size, &stride};
    for (int32_t i = 0; i < 3; ++i) {
        if (parts[i]->tensor != NO_TENSOR) {
            layer->setInput(i + 1, tensor(parts[i]->tensor));
        }
    }
    if (fill != NO_TENSOR) {
        layer->setInput(4, tensor(fill));
    }
    return add(layer, "addSlice");
}

uint32_t NetworkImpl::gather(uint32_t data, uint32_t indices, int32_t mode, int32_t axis, int32_t batch_dims) {
    auto const gather = term<nvinfer1::GatherMode>(mode, "this gather mode");
    auto* const layer = made(network_->addGatherV2(tensor(data), tensor(indices), gather), "addGatherV2");
    if (gather != nvinfer1::GatherMode::kND) {
        layer->setGatherAxis(axis);
    }
    layer->setNbElementWiseDims(batch_dims);
    return add(layer, "addGatherV2");
}

uint32_t NetworkImpl::scatter(uint32_t data, uint32_t indices, uint32_t updates, int32_t mode, int32_t axis) {
    auto const scatter = term<nvinfer1::ScatterMode>(mode, "this scatter mode");
    auto* const layer
        = made(network_->addScatter(tensor(data), tensor(indices), tensor(updates), scatter), "addScatter");
    if (scatter == nvinfer1::ScatterMode::kELEMENT) {
        layer->setAxis(axis);
    }
    return add(layer, "addScatter");
}

uint32_t NetworkImpl::select(uint32_t condition, uint32_t a, uint32_t b) {
    return add(network_->addSelect(tensor(condition), tensor(a), tensor(b)), "addSelect");
}

uint32_t NetworkImpl::shape(uint32_t x) {
    return add(network_->addShape(tensor(x)), "addShape");
}

uint32_t NetworkImpl::cast(uint32_t x, int32_t dtype) {
    nvinfer1::DataType const type = data_type(dtype);
#if TRTFUSE_API >= 806
    if (api_ >= 806) {
        return add(network_->addCast(tensor(x), type), "addCast");
    }
#endif
#if NV_TENSORRT_MAJOR == 8
    // Before 8.6 an identity layer whose output has another type converts.
    auto* const layer = made(network_->addIdentity(tensor(x)), "addIdentity");
    layer->setOutputType(0, type);
    return add(layer, "addIdentity");
#else
    throw std::runtime_error("cast is not in this TensorRT");
#endif
}

uint32_t NetworkImpl::identity(uint32_t x) {
    return add(network_->addIdentity(tensor(x)), "addIdentity");
}

uint32_t NetworkImpl::fill(
    int32_t kind, RawDims const& dims, int32_t dtype, RawFillArg const& alpha, RawFillArg const& beta) {
    auto const operation = term<nvinfer1::FillOperation>(kind, "this fill operation");
    nvinfer1::DataType const type = data_type(dtype);
    nvinfer1::Dims extents{};
    if (dims.tensor == NO_TENSOR) {
        extents = dims_of(dims.fixed);
    } else {
        // The rank of the output is the length of the tensor that gives its extents.
        nvinfer1::Dims const length = tensor(dims.tensor).getDimensions();
        extents.nbDims = length.nbDims == 1
            ? static_cast<int32_t>(std::clamp<int64_t>(length.d[0], 0, nvinfer1::Dims::MAX_DIMS))
            : 0;
    }
#if TRTFUSE_API >= 900
    auto* const layer = made(network_->addFill(extents, operation, type), "addFill");
#else
    auto* const layer = made(network_->addFill(extents, operation), "addFill");
    layer->setOutputType(0, type);
#endif
    if (dims.tensor != NO_TENSOR) {
        layer->setInput(0, tensor(dims.tensor));
    }
    if (alpha.tensor != NO_TENSOR) {
        layer->setInput(1, tensor(alpha.tensor));
#if TRTFUSE_API >= 900
    } else if (alpha.is_int) {
        layer->setAlphaInt64(alpha.int_);
#endif
    } else {
        layer->setAlpha(alpha.is_int ? static_cast<double>(alpha.int_) : alpha.float_);
    }
    if (beta.tensor != NO_TENSOR) {
        layer->setInput(2, tensor(beta.tensor));
#if TRTFUSE_API >= 900
    } else if (beta.is_int) {
        layer->setBetaInt64(beta.int_);
#endif
    } else {
        layer->setBeta(beta.is_int ? static_cast<double>(beta.int_) : beta.float_);
    }
    return add(layer, "addFill");
}

uint32_t NetworkImpl::top_k(
    uint32_t x, int32_t kind, uint32_t axis, int32_t k, uint32_t k_tensor, int32_t indices) {
    auto const operation = term<nvinfer1::TopKOperation>(kind, "this TopK operation");
    nvinfer1::ITopKLayer* layer = nullptr;
    if (data_type(indices) == nvinfer1::DataType::kINT32) {
        layer = network_->addTopK(tensor(x), operation, k, axis);
    } else {
        require(1014, "TopK with indices other than Int32");
#if TRTFUSE_API >= 1014
        layer = network_->addTopK(tensor(x), operation, k, axis, data_type(indices));
#endif
    }
    made(layer, "addTopK");
    if (k_tensor != NO_TENSOR) {
        layer->setInput(1, tensor(k_tensor));
    }
    return add(layer, "addTopK");
}

uint32_t NetworkImpl::resize(uint32_t x, RawResize const& raw) {
    auto* const layer = made(network_->addResize(tensor(x)), "addResize");
    layer->setResizeMode(term<nvinfer1::InterpolationMode>(raw.mode, "this interpolation"));
    layer->setCoordinateTransformation(
        term<nvinfer1::ResizeCoordinateTransformation>(raw.transform, "this coordinate transformation"));
    layer->setSelectorForSinglePixel(term<nvinfer1::ResizeSelector>(raw.selector, "this selector"));
    layer->setNearestRounding(term<nvinfer1::ResizeRoundMode>(raw.rounding, "this rounding"));
    if (raw.mode == static_cast<int32_t>(nvinfer1::InterpolationMode::kCUBIC)) {
        layer->setCubicCoeff(raw.cubic_coeff);
    }
    layer->setExcludeOutside(raw.exclude_outside);
    if (!raw.scales.empty()) {
        layer->setScales(raw.scales.data(), static_cast<int32_t>(raw.scales.size()));
    } else if (raw.dims.tensor != NO_TENSOR) {
        layer->setInput(1, tensor(raw.dims.tensor));
    } else {
        layer->setOutputDimensions(dims_of(raw.dims.fixed));
    }
    return add(layer, "addResize");
}

uint32_t NetworkImpl::grid_sample(
    uint32_t x, uint32_t grid, int32_t interpolation, bool align_corners, int32_t mode) {
    auto* const layer = made(network_->addGridSample(tensor(x), tensor(grid)), "addGridSample");
    layer->setInterpolationMode(term<nvinfer1::InterpolationMode>(interpolation, "this interpolation"));
    layer->setAlignCorners(align_corners);
    check(layer->setSampleMode(term<nvinfer1::SampleMode>(mode, "this sample mode")), "setSampleMode");
    return add(layer, "addGridSample");
}

uint32_t NetworkImpl::nms(RawNms const& raw) {
    nvinfer1::INMSLayer* layer = nullptr;
    if (data_type(raw.indices) == nvinfer1::DataType::kINT32) {
        layer = network_->addNMS(tensor(raw.boxes), tensor(raw.scores), tensor(raw.max_output));
    } else {
        require(1014, "NMS with indices other than Int32");
#if TRTFUSE_API >= 1014
        layer = network_->addNMS(
            tensor(raw.boxes), tensor(raw.scores), tensor(raw.max_output), data_type(raw.indices));
#endif
    }
    made(layer, "addNMS");
    layer->setBoundingBoxFormat(term<nvinfer1::BoundingBoxFormat>(raw.format, "this box format"));
    if (raw.top_k_limit > 0) {
        layer->setTopKBoxLimit(static_cast<int32_t>(std::min<int64_t>(raw.top_k_limit, INT32_MAX)));
    }
    if (raw.iou_threshold != NO_TENSOR) {
        layer->setInput(3, tensor(raw.iou_threshold));
    }
    if (raw.score_threshold != NO_TENSOR) {
        layer->setInput(4, tensor(raw.score_threshold));
    }
    return add(layer, "addNMS");
}

uint32_t NetworkImpl::non_zero(uint32_t x, int32_t indices) {
    if (data_type(indices) == nvinfer1::DataType::kINT32) {
        return add(network_->addNonZero(tensor(x)), "addNonZero");
    }
    require(1014, "NonZero with indices other than Int32");
#if TRTFUSE_API >= 1014
    return add(network_->addNonZero(tensor(x), data_type(indices)), "addNonZero");
#else
    return NO_TENSOR;
#endif
}

uint32_t NetworkImpl::one_hot(uint32_t indices, uint32_t values, uint32_t depth, int32_t axis) {
    return add(network_->addOneHot(tensor(indices), tensor(values), tensor(depth), axis), "addOneHot");
}

uint32_t NetworkImpl::reverse_sequence(uint32_t x, uint32_t lengths, int32_t batch_axis, int32_t sequence_axis) {
    require(806, "a reverse sequence layer");
#if TRTFUSE_API >= 806
    auto* const layer = made(network_->addReverseSequence(tensor(x), tensor(lengths)), "addReverseSequence");
    layer->setBatchAxis(batch_axis);
    layer->setSequenceAxis(sequence_axis);
    return add(layer, "addReverseSequence");
#else
    static_cast<void>(x), static_cast<void>(lengths), static_cast<void>(batch_axis), static_cast<void>(sequence_axis);
    return NO_TENSOR;
#endif
}

} // namespace TRTFUSE_SET
} // namespace trtfuse
