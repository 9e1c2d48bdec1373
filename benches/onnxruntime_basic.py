#!/usr/bin/env python3
"""Time onnxruntime's offline optimisation at level BASIC: load, optimise, save. Prints one JSON object a model.

    pip install onnxruntime==1.31.1 && python3 benches/onnxruntime_basic.py [--runs N] MODEL...
"""
import argparse
import json
import os
import statistics
import tempfile
import time

import onnxruntime

parser = argparse.ArgumentParser()
parser.add_argument("--runs", type=int, default=5)
parser.add_argument("models", nargs="+")
arguments = parser.parse_args()
for model in arguments.models:
    times = []
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory() as folder:
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.optimized_model_filepath = os.path.join(folder, "optimized.onnx")
            options.log_severity_level = 3
            start = time.perf_counter()
            onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            times.append((time.perf_counter() - start) * 1e3)
    print(json.dumps({"model": os.path.basename(model), "onnxruntime_ms": statistics.median(times)}), flush=True)
