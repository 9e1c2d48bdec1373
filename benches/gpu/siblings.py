"""Writes models of nothing but siblings, one for each pattern of passes/siblings.rs that the zoo has not.

    python3 benches/gpu/siblings.py MODELS
    python3 benches/gpu/latency.py MODELS OUT.jsonl --no-torch $(for m in gate_up towers branches parts4 parts8 inputs2 inputs4 inputs8; do
        echo siblings_$m:1:fp16:always:never siblings_$m:1:fp32:always:never; done)

gate_up    two products of one input, as in a gated network: f32[64, 512] by f32[512, 1376], their product read by a third
towers     two convolutions of 3x3 over f32[1, 256, 80, 80], as in the head of a detector, each followed by another
branches   three convolutions of 1x1 over f32[1, 512, 14, 14], two of them followed by others, joined, as in GoogLeNet
partsK     a tensor f32[1, 256, K * 64] in K parts, each times a f32[64, 64] and through Relu, joined again
inputsK    K inputs f32[1, 256, 64], each times a f32[64, 64] and through Relu, their sum the output
kernels    convolutions of 1x1 and 3x3 over f32[1, 64, 27, 27], 128 channels each, joined, as in SqueezeNet
rowsT      two self-attentions of 12 heads over f32[1, T, 768], their queries, keys and values the parts of one product
stackedT   the same, the parts cut after their transposition, as in timm's and torchvision's vision transformers
biasedT    as stackedT, each head's scores with a bias of their own
windowsD   the same in 64 windows of 49 tokens, four heads of D, as in Swin
gpt2_two   the first two layers of MODELS/gpt2.onnx, if it is there, without the embedding and the vocabulary
gpt2_body  all its layers
lstmT      both directions of an LSTM of 256 over T steps, f32[T, 1, 512], joined, as in a reader of text lines
"""

import sys
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper


class Model:
    def __init__(self):
        self.random = numpy.random.default_rng(0)
        self.nodes, self.weights, self.inputs = [], [], []

    def input(self, name, *shape):
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def weight(self, *shape):
        name = f"w{len(self.weights)}"
        values = self.random.standard_normal(shape).astype(numpy.float32) / numpy.sqrt(numpy.prod(shape[1:]))
        self.weights.append(numpy_helper.from_array(values.astype(numpy.float32), name))
        return name

    def constant(self, value):
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(numpy.asarray(value), name))
        return name

    def __call__(self, op, *given, outputs=1, **attributes):
        names = [f"{op}{len(self.nodes)}.{at}" for at in range(outputs)]
        self.nodes.append(helper.make_node(op, given, names, name=f"{op}{len(self.nodes)}", **attributes))
        return names[0] if outputs == 1 else names

    def save(self, file, *outputs):
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, file.stem, self.inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.save(onnx.shape_inference.infer_shapes(model), file)


def gate_up(m):
    x = m.input("x", 64, 512)
    gate, up = (m("MatMul", x, m.weight(512, 1376)) for _ in range(2))
    gated = m("Mul", m("Mul", gate, m("Sigmoid", gate)), up)
    return [m("MatMul", gated, m.weight(1376, 512))]


def towers(m):
    x = m.input("x", 1, 256, 80, 80)
    conv = lambda x, channels: m("Conv", x, m.weight(channels, 256, 3, 3), pads=[1] * 4)
    return [conv(m("Relu", conv(x, 256)), channels) for channels in (80, 64)]


def branches(m):
    x = m.input("x", 1, 512, 14, 14)
    conv = lambda x, channels, size, given: m(
        "Relu", m("Conv", x, m.weight(channels, given, size, size), pads=[size // 2] * 4))
    apart = [conv(x, channels, 1, 512) for channels in (128, 128, 24)]
    return [m("Concat", apart[0], conv(apart[1], 256, 3, 128), conv(apart[2], 64, 3, 24), axis=1)]


def parts(m, count):
    cut = m("Split", m.input("x", 1, 256, count * 64), outputs=count, axis=2, num_outputs=count)
    return [m("Concat", *[m("Relu", m("MatMul", part, m.weight(64, 64))) for part in cut], axis=2)]


def inputs(m, count):
    given = [m.input(f"x{at}", 1, 256, 64) for at in range(count)]
    return [m("Sum", *[m("Relu", m("MatMul", x, m.weight(64, 64))) for x in given])]


def kernels(m):
    x = m.input("x", 1, 64, 27, 27)
    return [m("Concat", *[m("Relu", m("Conv", x, m.weight(128, 64, size, size), pads=[size // 2] * 4)) for size in (1, 3)],
              axis=1)]


def lstm(m, steps):
    x = m.input("x", steps, 1, 512)
    weights = [m.weight(2, 1024, 512), m.weight(2, 1024, 256), m.weight(2, 2048)]
    y = m("LSTM", x, *weights, direction="bidirectional", hidden_size=256)
    return [m("Transpose", y, perm=[0, 2, 1, 3])]


def attention(m, tokens, is_stacked, is_biased=False, windows=1, heads=12, size=64):
    width = heads * size

    def head(part):
        shape = m.constant([windows, tokens, heads, size])
        return m("Transpose", m("Reshape", part, shape), perm=[0, 2, 1, 3])

    x = m.input("x", windows, tokens, width)
    for _ in range(2):
        qkv = m("Add", m("MatMul", x, m.weight(width, 3 * width)), m.weight(3 * width))
        if is_stacked:
            shape = m.constant([windows, tokens, 3, heads, size])
            stacked = m("Transpose", m("Reshape", qkv, shape), perm=[2, 0, 3, 1, 4])
            q, k, v = (m("Gather", stacked, m.constant(at), axis=0) for at in range(3))
        else:
            q, k, v = map(head, m("Split", qkv, outputs=3, axis=2, num_outputs=3))
        scores = m("Mul", m("MatMul", q, m("Transpose", k, perm=[0, 1, 3, 2])), m.constant(numpy.float32(size ** -0.5)))
        if is_biased:
            scores = m("Add", scores, m.weight(1, heads, tokens, tokens))
        mixed = m("Transpose", m("MatMul", m("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        joined = m("Reshape", mixed, m.constant([windows, tokens, width]))
        x = m("Add", x, m("MatMul", joined, m.weight(width, width)))
    return [x]


def main(folder):
    makers = dict(gate_up=gate_up, towers=towers, branches=branches, kernels=kernels)
    makers |= {f"lstm{steps}": lambda m, steps=steps: lstm(m, steps) for steps in (1, 80)}
    makers |= {f"parts{count}": lambda m, count=count: parts(m, count) for count in (4, 8)}
    makers |= {f"inputs{count}": lambda m, count=count: inputs(m, count) for count in (2, 4, 8)}
    for tokens in (49, 64, 197, 256):
        for form in ("rows", "stacked"):
            makers[f"{form}{tokens}"] = lambda m, at=(tokens, form == "stacked"): attention(m, *at)
    makers["biased49"] = lambda m: attention(m, 49, True, True)
    for size in (32, 64):
        makers[f"windows{size}"] = lambda m, size=size: attention(m, 49, True, True, 64, 4, size)
    for name, make in makers.items():
        model = Model()
        model.save(folder / f"siblings_{name}.onnx", *make(model))
    whole = folder / "gpt2.onnx"
    if whole.exists():
        for name, last in (("gpt2_two", 1), ("gpt2_body", 11)):
            onnx.utils.extract_model(str(whole), str(folder / f"{name}.onnx"),
                                     ["/m/transformer/Add_output_0", "attention_mask"],
                                     [f"/m/transformer/h.{last}/Add_1_output_0"])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
