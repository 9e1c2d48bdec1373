"""Times models in PyTorch on this machine's GPU: eagerly, and compiled where named in COMPILED. One line of JSON each.

    python3 benches/gpu/eager.py OUT.jsonl [WAIT]

Needs torch, torchvision and transformers; weights are random. What is compiled is measured once the file WAIT exists, so that
other measurements do not overlap; OUT.jsonl.eager appears when the eager ones are done. Times are medians of 200 runs by
CUDA events, inputs and outputs on the GPU. Defaults of PyTorch: convolutions of f32 in TF32, products not.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch
import torchvision
import transformers

RUNS = 200
VISION = ["resnet50", "mobilenet_v2", "vit_b_16", "swin_t", "convnext_tiny", "shufflenet_v2_x1_0", "densenet121", "googlenet"]
SEQUENCES = {"bert_base": 128, "gpt2": 64, "llama_tiny": 64}
COMPILED = [("resnet50", 1, "fp16"), ("resnet50", 1, "fp32"), ("bert_base", 1, "fp16")]


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
        options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
        model = getattr(torchvision.models, name)(weights=None, **options)
    return model.eval().cuda()


def inputs(name, batch, dtype):
    if name in SEQUENCES:
        ids = torch.ones(batch, SEQUENCES[name], dtype=torch.long, device="cuda")
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {"x": torch.rand(batch, 3, 224, 224, device="cuda", dtype=dtype)}


def call(model, given):
    return model(given["x"]) if "x" in given else model(**given)


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
    out, wait = Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None
    file = out.open("w")

    def tell(name, batch, precision, how, ms):
        line = dict(model=name, batch=batch, precision=precision, how=how, ms=ms, torch=torch.__version__)
        print(json.dumps(line), file=file, flush=True)

    def measured(name, batch, precision, how, model, given):
        try:
            tell(name, batch, precision, how, median_ms(model, given))
        except Exception as error:
            tell(name, batch, precision, how, None)
            print(name, how, error, file=sys.stderr)

    with torch.inference_mode():
        for name in VISION + list(SEQUENCES):
            for precision, dtype in [("fp32", torch.float32), ("fp16", torch.float16)]:
                model = make(name).to(dtype)
                for batch in (1, 32):
                    measured(name, batch, precision, "eager", model, inputs(name, batch, dtype))
        out.with_suffix(".jsonl.eager").touch()
        compiled = []
        for name, batch, precision in COMPILED:
            dtype = {"fp32": torch.float32, "fp16": torch.float16}[precision]
            model, given = make(name).to(dtype), inputs(name, batch, dtype)
            if name not in SEQUENCES:
                model, given = model.to(memory_format=torch.channels_last), {
                    "x": given["x"].to(memory_format=torch.channels_last)}
            model = torch.compile(model, mode="reduce-overhead")
            try:
                for _ in range(5):
                    call(model, given)
                compiled.append((name, batch, precision, model, given))
            except Exception as error:
                print(name, "compile", error, file=sys.stderr)
        while wait and not wait.exists():
            time.sleep(0.5)
        for name, batch, precision, model, given in compiled:
            measured(name, batch, precision, "torch.compile", model, given)


main()
