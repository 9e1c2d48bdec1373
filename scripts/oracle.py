#!/usr/bin/env python3
"""Run onnxruntime on models that tests/oracle made: FOLDER/*/model.onnx with test_data_set_0/input_N.pb.

    PYTHONPATH=CACHE/packages-onnxruntime-1.31.1 python3 scripts/oracle.py FOLDER

Writes output_N.pb beside the inputs; for a model that onnxruntime does not take, refused.txt with the reason.
"""
import pathlib
import sys

import onnx
import onnxruntime
from onnx import numpy_helper

onnxruntime.set_default_logger_severity(4)
options = onnxruntime.SessionOptions()
# What operators mean, not what becomes of them.
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
options.intra_op_num_threads = 1


def run(folder):
    data = folder / "test_data_set_0"
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    feeds = {
        value.name: numpy_helper.to_array(onnx.load_tensor(str(data / f"input_{at}.pb")))
        for at, value in enumerate(session.get_inputs())
    }
    for at, output in enumerate(session.run(None, feeds)):
        (data / f"output_{at}.pb").write_bytes(numpy_helper.from_array(output).SerializeToString())


for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        run(folder)
    # onnxruntime has no common class of its errors.
    except Exception as error:
        (folder / "refused.txt").write_text(str(error))
