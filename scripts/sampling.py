#!/usr/bin/env python3
"""Write models of operators that sample images, as testdata/sampling/NAME.onnx, and what onnxruntime computes for them.

    pip install onnx==1.23.2 onnxruntime==1.31.1 numpy && python3 scripts/sampling.py

The image is pattern.py's; regions and offsets are initializers.
"""
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from pattern import pattern

REGIONS = np.array([[0, 0, 9, 7], [4, 3, 20, 18], [10, 2, 11, 3], [-3, -2, 6, 30], [30, 5, 40, 9]], np.float32)
IMAGES = np.array([0, 1, 1, 0, 1], np.int64)
WITH_IMAGES = np.concatenate([IMAGES[:, None].astype(np.float32), np.abs(REGIONS)], axis=1)


def roi_align(opset, **attributes):
    return "RoiAlign", opset, [REGIONS, IMAGES], dict(output_height=3, output_width=4, **attributes)


CASES = {
    "max_roi_pool": ("MaxRoiPool", 11, [WITH_IMAGES], dict(pooled_shape=[3, 4], spatial_scale=0.5)),
    "roi_align_10": roi_align(10, sampling_ratio=2, spatial_scale=0.5),
    "roi_align_average": roi_align(16, sampling_ratio=3, spatial_scale=0.25),
    "roi_align_max": roi_align(16, sampling_ratio=2, mode="max", coordinate_transformation_mode="output_half_pixel"),
}

folder = pathlib.Path(__file__).resolve().parent.parent / "testdata" / "sampling"
folder.mkdir(exist_ok=True)
for name, (op_type, opset, tensors, attributes) in CASES.items():
    names = [f"input{at}" for at in range(len(tensors))]
    node = helper.make_node(op_type, ["X", *names], ["Y"], name=name, **attributes)
    image = helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, [2, 3, 12, 14])
    output = helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, None)
    initializers = [numpy_helper.from_array(tensor, at) for at, tensor in zip(names, tensors)]
    graph = helper.make_graph([node], "sampling", [image], [output], initializers)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(proto, folder / f"{name}.onnx")
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"X": pattern([2, 3, 12, 14])})
    np.save(folder / f"{name}.npy", y)
    print(name, y.shape, float(np.abs(y).max()))
