"""Weights for the `light_` models, whose own are all 0.02, so that every class gets the same number whatever is computed."""
import numpy as np
from onnx import numpy_helper


def weights(shape, number):
    """Element i of weight `number`: v in [-1, 1) of i and the number, mixed as splitmix64 does. Of matrices and kernels
    v * sqrt(2 / fan-in), a third of the variance that ReLU keeps (He et al. 2015), as residuals add up; else 0.75 + v / 4.
    """
    bits = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(number << 32)
    bits = (bits + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    values = (bits >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)
    if len(shape) < 2:
        values = np.float32(0.75) + values / np.float32(4)
    else:
        values *= np.float32(np.sqrt(2 / np.prod(shape[1:])))
    return values.reshape(shape)


def with_weights(model):
    """The model with such weights for the constants that its ConstantOfShape nodes make."""
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = [node for node in model.graph.node if node.op_type == "ConstantOfShape"]
    for number, node in enumerate(makers):
        values = weights([int(size) for size in shapes[node.input[0]]], number)
        model.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        model.graph.node.remove(node)
    return model
