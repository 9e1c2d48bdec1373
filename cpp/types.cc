// The model's types on versions whose networks are weakly typed: TensorRT 8. There, what a layer computes in is the
// builder's choice unless it is told.

#include "network.h"

namespace trtfuse {
namespace TRTFUSE_SET {

#if NV_TENSORRT_MAJOR == 8

namespace {

// The input whose type the first output has; -1 where the layer itself tells the type.
int32_t type_giver(nvinfer1::ILayer const& layer) {
    using nvinfer1::ElementWiseOperation;
    using nvinfer1::LayerType;
    switch (layer.getType()) {
    case LayerType::kELEMENTWISE:
        switch (static_cast<nvinfer1::IElementWiseLayer const&>(layer).getOperation()) {
        case ElementWiseOperation::kEQUAL:
        case ElementWiseOperation::kGREATER:
        case ElementWiseOperation::kLESS: return -1;
        default: return 0;
        }
    case LayerType::kUNARY:
        // After rounding come the questions, whose answers are booleans.
        return static_cast<nvinfer1::IUnaryLayer const&>(layer).getOperation() <= nvinfer1::UnaryOperation::kROUND
                && static_cast<nvinfer1::IUnaryLayer const&>(layer).getOperation() != nvinfer1::UnaryOperation::kNOT
            ? 0
            : -1;
    case LayerType::kSELECT:
    case LayerType::kONE_HOT: return 1;
    case LayerType::kACTIVATION:
    case LayerType::kCONCATENATION:
    case LayerType::kCONVOLUTION:
    case LayerType::kDECONVOLUTION:
    case LayerType::kEINSUM:
    case LayerType::kGATHER:
    case LayerType::kGRID_SAMPLE:
    case LayerType::kLRN:
    case LayerType::kMATRIX_MULTIPLY:
    case LayerType::kNORMALIZATION:
    case LayerType::kPARAMETRIC_RELU:
    case LayerType::kPOOLING:
    case LayerType::kREDUCE:
    case LayerType::kRESIZE:
    case LayerType::kREVERSE_SEQUENCE:
    case LayerType::kSCALE:
    case LayerType::kSCATTER:
    case LayerType::kSHUFFLE:
    case LayerType::kSLICE:
    case LayerType::kSOFTMAX:
    case LayerType::kTOPK: return 0;
    default: return -1;
    }
}

bool is_float(nvinfer1::DataType type) {
    return type == nvinfer1::DataType::kFLOAT || type == nvinfer1::DataType::kHALF;
}

} // namespace

nvinfer1::DataType NetworkImpl::type_of(nvinfer1::ITensor& tensor) const {
    // A product says that it is f32 whatever it was told.
    return halves_.count(&tensor) != 0 ? nvinfer1::DataType::kHALF : tensor.getType();
}

void NetworkImpl::keep_type(nvinfer1::ILayer& layer) {
    int32_t const giver = type_giver(layer);
    if (giver >= 0 && giver < layer.getNbInputs() && layer.getInput(giver)) {
        nvinfer1::DataType const type = type_of(*layer.getInput(giver));
        if (type == nvinfer1::DataType::kHALF) {
            layer.setPrecision(type);
            layer.setOutputType(0, type);
            halves_.insert(layer.getOutput(0));
        }
    }
    // A constant says so too.
    if (layer.getType() == nvinfer1::LayerType::kCONSTANT
        && static_cast<nvinfer1::IConstantLayer const&>(layer).getWeights().type == nvinfer1::DataType::kHALF) {
        halves_.insert(layer.getOutput(0));
    }
    for (int32_t i = 0; i < layer.getNbOutputs(); ++i) {
        has_half_ |= type_of(*layer.getOutput(i)) == nvinfer1::DataType::kHALF;
    }
    has_quantization_ |= layer.getType() == nvinfer1::LayerType::kQUANTIZE
        || layer.getType() == nvinfer1::LayerType::kDEQUANTIZE;
}

void NetworkImpl::set_types(nvinfer1::IBuilderConfig& config, bool fp16) const {
    if (has_quantization_) {
        config.setFlag(nvinfer1::BuilderFlag::kINT8);
    }
    if (fp16) {
        config.setFlag(nvinfer1::BuilderFlag::kFP16);
        return;
    }
    if (!has_half_) {
        // Nothing to choose from: without flags all floats are f32.
        return;
    }
    config.setFlag(nvinfer1::BuilderFlag::kFP16);
    config.setFlag(nvinfer1::BuilderFlag::kOBEY_PRECISION_CONSTRAINTS);
    for (int32_t i = 0; i < network_->getNbLayers(); ++i) {
        nvinfer1::ILayer& layer = *network_->getLayer(i);
        if (type_giver(layer) < 0 || layer.precisionIsSet()) {
            continue;
        }
        nvinfer1::DataType const type = type_of(*layer.getOutput(0));
        if (is_float(type)) {
            layer.setPrecision(type);
            layer.setOutputType(0, type);
        }
    }
}

#else

nvinfer1::DataType NetworkImpl::type_of(nvinfer1::ITensor& tensor) const {
    return tensor.getType();
}

void NetworkImpl::keep_type(nvinfer1::ILayer&) {}

void NetworkImpl::set_types(nvinfer1::IBuilderConfig&, bool fp16) const {
    if (fp16) {
        throw std::runtime_error("f16 in place of f32 is for TensorRT 8; this network has the types of its model");
    }
}

#endif

} // namespace TRTFUSE_SET
} // namespace trtfuse
