"""Times models in PyTorch on this machine's GPU, as told on stdin, a line each; answers lines of JSON.

    echo 'measure resnet50 1 fp16 eager' | python3 benches/gpu/eager.py

A line is `prepare` or `measure`, the model, the batch, `fp32`, `tf32` or `fp16`, and `eager` or `compiled`. `prepare` makes a
model ready and answers nothing; `measure` also does that if need be, and answers with the milliseconds of a run: the median
of 200 by CUDA events, inputs and outputs on the GPU. `compiled` is torch.compile with mode="reduce-overhead" (CUDA graphs),
images in channels-last.

Needs torch, torchvision and transformers; weights are random. `fp32` is without TF32 everywhere, as TensorRT's engines in
benches/gpu/latency.py; `tf32` lets convolutions and products have it.
"""

import json
import statistics
import sys

import torch
import torchvision
import transformers

RUNS = 200
SEQUENCES = {"bert_base": 128, "gpt2": 64, "llama_tiny": 64}
TORCHVISION = {"shufflenet_v2": "shufflenet_v2_x1_0"}
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16}


def make(name):
    if name in SEQUENCES:
        llama = dict(vocab_size=8192, hidden_size=512, intermediate_size=1376, num_hidden_layers=4,
                     num_attention_heads=8, num_key_value_heads=2)
        model = {
            "bert_base": lambda: transformers.BertModel(transformers.BertConfig()),
            "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(use_cache=False)),
            "llama_tiny": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(use_cache=False, **llama)),
        }[name]()
    else:
        options = {"weights": None}
        if name in ("googlenet", "inception_v3"):
            options |= {"init_weights": False, "aux_logits": False}
        model = getattr(torchvision.models, TORCHVISION.get(name, name))(**options)
    return model.eval().cuda()


def inputs(name, batch, dtype):
    if name in SEQUENCES:
        ids = torch.ones(batch, SEQUENCES[name], dtype=torch.long, device="cuda")
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    size = 299 if name == "inception_v3" else 224
    return {"x": torch.rand(batch, 3, size, size, device="cuda", dtype=dtype)}


def call(model, given):
    return model(given["x"]) if "x" in given else model(**given)


def ready(name, batch, precision, how):
    allowed = precision != "fp32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    dtype = DTYPES[precision]
    model, given = make(name).to(dtype), inputs(name, batch, dtype)
    if how == "compiled":
        if "x" in given:
            model = model.to(memory_format=torch.channels_last)
            given["x"] = given["x"].to(memory_format=torch.channels_last)
        model = torch.compile(model, mode="reduce-overhead")
    for _ in range(20):
        call(model, given)
    return model, given


def median_ms(model, given):
    for _ in range(20):
        call(model, given)
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(RUNS)]
    for start, end in pairs:
        start.record()
        call(model, given)
        end.record()
        end.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in pairs)


def main():
    prepared = {}
    with torch.inference_mode():
        for line in sys.stdin:
            verb, name, batch, precision, how = line.split()
            key = (name, int(batch), precision, how)
            try:
                made = prepared.pop(key, None) or ready(*key)
                if verb == "prepare":
                    prepared[key] = made
                    told = dict(prepared=True)
                else:
                    told = dict(ms=median_ms(*made))
                made = None
            except Exception as error:
                told = dict(error=str(error)[-300:])
            names = dict(zip(("model", "batch", "precision", "how"), key))
            print(json.dumps(names | told | dict(torch=torch.__version__)), flush=True)


main()
