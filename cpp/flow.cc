// Conditionals and loops.

#include "network.h"

namespace trtfuse {
namespace TRTFUSE_SET {

uint32_t NetworkImpl::conditional(uint32_t condition, rust::Str name, rust::Str metadata) {
    log_.mark();
    auto* const made_conditional = made(network_->addIfConditional(), "addIfConditional");
    made_conditional->setName(std::string(name).c_str());
    auto* const layer = made(made_conditional->setCondition(tensor(condition)), "setCondition");
    name_layer(*layer, std::string(name), std::string(metadata));
    conditionals_.push_back(made_conditional);
    return static_cast<uint32_t>(conditionals_.size() - 1);
}

uint32_t NetworkImpl::conditional_input(uint32_t conditional, uint32_t x) {
    return add(at(conditionals_, conditional, "conditional").addInput(tensor(x)), "addInput");
}

uint32_t NetworkImpl::conditional_output(uint32_t conditional, uint32_t a, uint32_t b) {
    return add(at(conditionals_, conditional, "conditional").addOutput(tensor(a), tensor(b)), "addOutput");
}

uint32_t NetworkImpl::start_loop(rust::Str name) {
    log_.mark();
    auto* const loop = made(network_->addLoop(), "addLoop");
    loop->setName(std::string(name).c_str());
    loops_.push_back(loop);
    return static_cast<uint32_t>(loops_.size() - 1);
}

void NetworkImpl::trip_limit(
    uint32_t looped, uint32_t limit, int32_t kind, rust::Str name, rust::Str metadata) {
    log_.mark();
    auto const trip_limit = term<nvinfer1::TripLimit>(kind, "this trip limit");
    auto* const layer = made(at(loops_, looped, "loop").addTripLimit(tensor(limit), trip_limit), "addTripLimit");
    name_layer(*layer, std::string(name), std::string(metadata));
}

uint32_t NetworkImpl::recurrence(uint32_t looped, uint32_t initial) {
    return add(at(loops_, looped, "loop").addRecurrence(tensor(initial)), "addRecurrence");
}

void NetworkImpl::set_recurrence(uint32_t recurrence, uint32_t next) {
    tensor(recurrence);
    nvinfer1::ILayer* const layer = values_[recurrence].layer;
    if (!layer || layer->getType() != nvinfer1::LayerType::kRECURRENCE) {
        throw std::runtime_error("not a recurrence");
    }
    layer->setInput(1, tensor(next));
}

uint32_t NetworkImpl::iterator(uint32_t looped, uint32_t x, int32_t axis, bool reverse) {
    return add(at(loops_, looped, "loop").addIterator(tensor(x), axis, reverse), "addIterator");
}

uint32_t NetworkImpl::loop_output(uint32_t looped, uint32_t x, int32_t kind, int32_t axis, uint32_t length) {
    auto const output = term<nvinfer1::LoopOutput>(kind, "this loop output");
    auto* const layer = made(at(loops_, looped, "loop").addLoopOutput(tensor(x), output, axis), "addLoopOutput");
    if (length != NO_TENSOR) {
        layer->setInput(1, tensor(length));
    }
    return add(layer, "addLoopOutput");
}

} // namespace TRTFUSE_SET
} // namespace trtfuse
