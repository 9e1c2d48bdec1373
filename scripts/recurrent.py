#!/usr/bin/env python3
"""Write models of one recurrent layer each, and what onnxruntime computes: testdata/recurrent/NAME.onnx and NAME.npy.

    pip install onnx==1.23.2 onnxruntime==1.31.1 numpy && python3 scripts/recurrent.py

Weights and states are initializers, X is the input, made as in references.py. NAME.npy has all outputs in one row. A
dynamic dimension is 2. onnxruntime has no layout 1: it computes the model of layout 0, of what is transposed.
"""
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from pattern import pattern

folder = pathlib.Path(__file__).resolve().parent.parent / "testdata" / "recurrent"
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
TIME, BATCH, SIZE, HIDDEN = 4, 3, 2, 3

# Name: operator, inputs given besides X, W, R, attributes; `dynamic` and `opset` are no attributes.
CASES = {
    "rnn_plain": ("RNN", [], {}),
    "rnn_reverse_bias": ("RNN", ["B"], {"direction": "reverse"}),
    "rnn_bidirectional_lengths": ("RNN", ["B", "lens", "h"], {"direction": "bidirectional"}),
    "rnn_relu_clip": ("RNN", ["B"], {"activations": ["Relu"], "clip": 0.75}),
    "rnn_affine": ("RNN", [], {"activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.25]}),
    "rnn_scaled_tanh": (
        "RNN", [], {"activations": ["ScaledTanh"], "activation_alpha": [0.5], "activation_beta": [1.5]}),
    "rnn_two_functions": ("RNN", ["B"], {
        "direction": "bidirectional", "activations": ["LeakyRelu", "Elu"], "activation_alpha": [0.1, 0.7]}),
    "rnn_thresholded": ("RNN", ["B"], {"activations": ["ThresholdedRelu"], "activation_alpha": [0.3]}),
    "rnn_dynamic_opset7": ("RNN", ["B"], {"dynamic": True, "opset": 7}),
    "gru_plain": ("GRU", [], {}),
    "gru_bias_states": ("GRU", ["B", "h"], {}),
    "gru_reset_after": ("GRU", ["B", "h"], {"linear_before_reset": 1}),
    "gru_reset_after_reverse": ("GRU", ["B", "lens"], {"linear_before_reset": 1, "direction": "reverse"}),
    "gru_reset_after_no_bias": ("GRU", [], {"linear_before_reset": 1}),
    "gru_bidirectional_lengths": ("GRU", ["B", "lens", "h"], {"direction": "bidirectional"}),
    "gru_clip": ("GRU", ["B"], {"clip": 0.5}),
    "gru_functions": ("GRU", ["B"], {
        "activations": ["HardSigmoid", "Softsign"], "activation_alpha": [0.3], "activation_beta": [0.4]}),
    "gru_bidirectional_reset_after": ("GRU", ["B", "lens", "h"], {
        "linear_before_reset": 1, "direction": "bidirectional"}),
    "gru_dynamic": ("GRU", ["B"], {"dynamic": True, "direction": "bidirectional"}),
    "lstm_plain": ("LSTM", [], {}),
    "lstm_bias_states": ("LSTM", ["B", "h", "c"], {}),
    "lstm_peepholes": ("LSTM", ["B", "h", "c", "P"], {}),
    "lstm_peepholes_reverse": ("LSTM", ["B", "lens", "h", "c", "P"], {"direction": "reverse"}),
    "lstm_bidirectional_lengths": ("LSTM", ["B", "lens", "h", "c"], {"direction": "bidirectional"}),
    "lstm_bidirectional_peepholes": ("LSTM", ["B", "h", "c", "P"], {"direction": "bidirectional"}),
    "lstm_bidirectional_all": ("LSTM", ["B", "lens", "h", "c", "P"], {"direction": "bidirectional"}),
    "lstm_bidirectional_batch_first": ("LSTM", ["B", "lens", "h", "c"], {"direction": "bidirectional", "layout": 1}),
    "lstm_coupled": ("LSTM", ["B", "h", "c"], {"input_forget": 1}),
    "lstm_clip": ("LSTM", ["B", "h", "c"], {"clip": 0.5}),
    "lstm_functions": ("LSTM", ["B"], {
        "activations": ["HardSigmoid", "Softplus", "Affine"], "activation_alpha": [0.3, 0.8],
        "activation_beta": [0.4, 0.1]}),
    "lstm_dynamic_opset14": ("LSTM", ["B"], {"dynamic": True, "direction": "bidirectional", "opset": 14}),
    "lstm_dynamic_lengths": ("LSTM", ["B", "lens"], {"dynamic": True, "direction": "bidirectional"}),
    "lstm_dynamic_batch_first": ("LSTM", ["B"], {
        "dynamic": True, "direction": "bidirectional", "layout": 1}),
    "lstm_one_step": ("LSTM", ["B", "h", "c"], {"steps": 1}),
}


def weights(seed, *shape):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def model(op, given, attributes):
    attributes = dict(attributes)
    dynamic, opset = attributes.pop("dynamic", False), attributes.pop("opset", 22)
    time = attributes.pop("steps", TIME)
    batch_first = attributes.get("layout") == 1
    gates, directions = GATES[op], 2 if attributes.get("direction") == "bidirectional" else 1
    batch = 2 if dynamic else BATCH
    tensors = {
        "W": weights(1, directions, gates * HIDDEN, SIZE),
        "R": weights(2, directions, gates * HIDDEN, HIDDEN),
        "B": weights(3, directions, 2 * gates * HIDDEN),
        "lens": np.array([2, 1] if dynamic else [2, 4, 1], np.int32),
        "h": weights(4, directions, batch, HIDDEN),
        "c": weights(5, directions, batch, HIDDEN),
        "P": weights(6, directions, 3 * HIDDEN),
    }
    if batch_first:
        tensors |= {name: tensors[name].transpose(1, 0, 2) for name in "hc"}
    slots = ["X", "W", "R", "B", "lens", "h"] + (["c", "P"] if op == "LSTM" else [])
    inputs = [name if name in ("X", "W", "R") or name in given else "" for name in slots]
    while not inputs[-1]:
        inputs.pop()
    outputs = ["Y", "Y_h"] + (["Y_c"] if op == "LSTM" else [])
    node = helper.make_node(op, inputs, outputs, name="layer", hidden_size=HIDDEN, **attributes)
    shape = ["time", "batch", SIZE] if dynamic else [time, batch, SIZE]
    if batch_first:
        shape = [shape[1], shape[0], SIZE]
    graph = helper.make_graph(
        [node], "recurrent",
        [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(tensors[name], name) for name in inputs if name and name != "X"])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


for name, case in CASES.items():
    proto = model(*case)
    onnx.save(proto, folder / f"{name}.onnx")
    op, given, attributes = case
    batch_first = attributes.get("layout") == 1
    if batch_first:
        proto = model(op, given, {key: value for key, value in attributes.items() if key != "layout"})
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = [dim if isinstance(dim, int) else 2 for dim in session.get_inputs()[0].shape]
    x = pattern([shape[1], shape[0], SIZE]).transpose(1, 0, 2) if batch_first else pattern(shape)
    outputs = session.run(None, {"X": x})
    if batch_first:
        outputs = [output.transpose([2, 0, 1, 3] if output.ndim == 4 else [1, 0, 2]) for output in outputs]
    np.save(folder / f"{name}.npy", np.concatenate([output.ravel() for output in outputs]))
    print(name, [output.shape for output in outputs])
