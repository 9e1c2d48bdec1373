#!/usr/bin/env python3
"""Write what onnxruntime computes for each model under testdata/, as testdata/references/NAME.npy.

    pip install onnxruntime==1.31.1 onnx numpy && python3 scripts/references.py [NAME...]

Inputs are not random: element i of a float input is ((i * 1103515245 + 12345) mod 2^31) / 2^29 - 2, computed in double
and rounded to single precision; integers are tokens or a mask (pattern.py); a dynamic batch is 2, a dynamic sequence 16.
tests/zoo.rs makes the same inputs. The `light_` models get weights (weights.py). Only the first output is kept, of a large one every so-manieth element.
"""
import lzma
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime

from pattern import kept, mask, pattern, tokens
from weights import with_weights

SIZES = {"seq": 16}

root = pathlib.Path(__file__).resolve().parent.parent / "testdata"
wanted = set(sys.argv[1:])
for file in sorted(root.glob("zoo/*.onnx.xz")) + sorted(root.glob("light/*.onnx.xz")):
    name = file.name.removesuffix(".onnx.xz")
    if wanted and name not in wanted:
        continue
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    model = lzma.open(file).read()
    if name.startswith("light_"):
        model = with_weights(onnx.load_from_string(model)).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    initializers = {value.name for value in session.get_overridable_initializers()}
    inputs = {}
    for value in session.get_inputs():
        if value.name not in initializers:
            shape = [dim if isinstance(dim, int) else SIZES.get(dim, 2) for dim in value.shape]
            make = pattern if value.type == "tensor(float)" else mask if "mask" in value.name else tokens
            inputs[value.name] = make(shape)
    output = kept(session.run(None, inputs)[0])
    np.save(root / "references" / f"{name}.npy", output)
    print(name, output.shape, float(np.abs(output).max()), flush=True)
