#!/usr/bin/env python3
"""Write what onnxruntime computes for single operators, as testdata/operators.tsv.

    pip install onnx==1.23.2 onnxruntime==1.31.1 numpy && python3 scripts/operators.py

A line is a node in the text form of the graph, its inputs' types, the output's shape, and the output's elements. Element i
of input k is that of scripts/pattern.py at i + 1000 k; a Bool is whether that is above -0.5. ir/eval/tests/operators.rs
makes the same inputs.
"""
import itertools
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from pattern import pattern

TYPES = {"f32": TensorProto.FLOAT, "bool": TensorProto.BOOL}
rows = []


def inputs_of(shapes):
    for k, (dtype, shape) in enumerate(shapes):
        count = int(np.prod(shape))
        x = pattern([1000 * k + count])[1000 * k :].reshape(shape)
        yield x > -0.5 if dtype == "bool" else x


def row(text, op_type, opset, shapes, **attributes):
    names = [f"x{k}" for k in range(len(shapes))]
    node = helper.make_node(op_type, names, ["y"], **attributes)
    values = [helper.make_tensor_value_info(n, TYPES[d], s) for n, (d, s) in zip(names, shapes)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", values, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, dict(zip(names, inputs_of(shapes))))
    types = ";".join(f"{d}{list(s)}" for d, s in shapes)
    rows.append("\t".join([text, types, str(list(y.shape)), " ".join(f"{x:.9g}" for x in y.flatten())]))


def attention():
    q, k, v = ("f32", [2, 4, 3, 8]), ("f32", [2, 2, 5, 8]), ("f32", [2, 2, 5, 6])
    masks = [None, ("bool", [3, 5]), ("bool", [2, 1, 3, 5]), ("f32", [1, 4, 3, 5])]
    for mask, causal, cap in itertools.product(masks, [0, 1], [0.0, 2.0]):
        shapes = [q, k, v] + ([mask] if mask else [])
        names = ", ".join(f"%{n}" for n in range(len(shapes)))
        kind = "upper_left" if causal else "none"
        softcap = f" softcap={cap}" if cap else ""
        text = f"attention({names}) scale=0.3{softcap} causal={kind} zero_hidden=true scores=product"
        row(text, "Attention", 23, shapes, scale=0.3, softcap=cap, is_causal=causal)


def rotary_embedding():
    for interleaved, dim in itertools.product([0, 1], [4, 6]):
        shapes = [("f32", [2, 3, 5, 6]), ("f32", [2, 5, dim // 2]), ("f32", [2, 5, dim // 2])]
        text = f"rotary_embedding(%0, %1, %2) interleaved={'true' if interleaved else 'false'} dim={dim}"
        row(text, "RotaryEmbedding", 23, shapes, interleaved=interleaved, rotary_embedding_dim=dim)


def grid_sample():
    flat = [("f32", [2, 2, 4, 5]), ("f32", [2, 3, 4, 2])]
    volume = [("f32", [1, 2, 3, 4, 5]), ("f32", [1, 2, 3, 2, 3])]
    paddings = ["zeros", "border", "reflection"]
    for (shapes, kinds), padding, corners in itertools.product(
        [(flat, ["linear", "nearest", "cubic"]), (volume, ["linear", "nearest"])], paddings, [0, 1]
    ):
        for kind in kinds:
            text = f"grid_sample(%0, %1) kind={kind} padding={padding} align_corners={'true' if corners else 'false'}"
            row(text, "GridSample", 20, shapes, mode=kind, padding_mode=padding, align_corners=corners)


attention()
rotary_embedding()
grid_sample()
file = pathlib.Path(__file__).resolve().parent.parent / "testdata" / "operators.tsv"
file.write_text("\n".join(rows) + "\n")
print(len(rows), "operators,", file.stat().st_size, "bytes")
