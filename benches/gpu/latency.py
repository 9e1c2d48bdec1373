"""Builds engines of models, ours and OnnxParser's, and times them on this machine's GPU. One line of JSON each.

    python3 benches/gpu/latency.py MODELS OUT.jsonl [--build-seconds S] [--measure-seconds S] [--only TEXT]

MODELS is a folder of NAME.onnx, those of CASES. TRT_FUSE names the program, LD_LIBRARY_PATH the folder of TensorRT. The
engines of a case share one timing cache, so that equal layers get equal kernels; cases are built side by side, and
measured one after the other: as a CUDA graph with tensors on the GPU, and plainly with copies. What the time does not
suffice for is left out, the last cases first.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BATCH = {1: ["--range", "batch=1"], 32: ["--range", "batch=32"]}
SEQ = ["--range", "seq=128"]


def case(model, batch, precision, *variants):
    """A model, and ways of ours to build it besides the usual one: (name, options)."""
    return dict(model=model, batch=batch, precision=precision, variants=variants)


APART = ("siblings never", ["--siblings", "never"])
ALWAYS = ("siblings always", ["--siblings", "always"])
CASES = [
    case("resnet50", 1, "fp16"),
    case("bert_base", 1, "fp16", APART),
    case("vit_b_16", 1, "fp16", APART),
    case("swin_t", 1, "fp16"),
    case("resnet50", 1, "fp32"),
    case("bert_base", 1, "fp32", APART),
    case("vit_b_16", 1, "fp32"),
    case("swin_t", 1, "fp32"),
    case("llama_tiny", 1, "fp16", ALWAYS),
    case("llama_tiny", 1, "fp32"),
    case("bert_base.dyn", 32, "fp16"),
    case("vit_b_16.dyn", 32, "fp16"),
    case("resnet50.dyn", 32, "fp16"),
    case("googlenet", 1, "fp16", ALWAYS),
    case("mobilenet_v2", 1, "fp16"),
    case("gpt2", 1, "fp16"),
    case("gpt2", 1, "fp32"),
    case("resnet50", 1, "tf32"),
    case("convnext_tiny", 1, "fp16"),
    case("shufflenet_v2", 1, "fp16"),
    case("resnet50.dyn", 32, "fp32"),
    case("bert_base.dyn", 32, "fp32"),
    case("vit_b_16.dyn", 32, "fp32"),
    case("mobilenet_v2", 1, "fp32"),
    case("googlenet", 1, "fp32", ALWAYS),
]
PRECISION = {"fp32": [], "tf32": ["--tf32"], "fp16": ["--fp16", "--tf32"]}


def run(command, seconds):
    """The last line of JSON that a command prints, or what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        return dict(error=f"not done in {seconds:.0f} s")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else dict(error=done.stderr.strip()[-400:])


def options_of(model, batch):
    if not model.endswith(".dyn"):
        return []
    return BATCH[batch] + (SEQ if model.startswith("bert") else [])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("models", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--build-seconds", type=float, default=1800)
    parser.add_argument("--measure-seconds", type=float, default=900)
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    program = os.environ.get("TRT_FUSE", "trt-fuse")
    folder = Path(tempfile.mkdtemp())
    build_end = time.monotonic() + given.build_seconds
    once = ["--warmUp", "0", "--duration", "0", "--iterations", "1"]

    def build(index, one):
        built = []
        file = given.models / f"{one['model']}.onnx"
        sides = [("parser", ["--parser"]), ("ours", []), *one["variants"]]
        for side, extra in sides:
            plan = folder / f"{index}-{len(built)}.plan"
            options = options_of(one["model"], one["batch"]) + PRECISION[one["precision"]] + extra
            caches = ["--timing-cache", folder / f"{index}.times"]
            left = build_end - time.monotonic()
            line = dict(error="no time left") if left < 5 else run(
                [program, "bench", file, "--saveEngine", plan, *once, *options, *caches], left)
            built.append((side, plan, line))
        return one, built

    cases = [(index, one) for index, one in enumerate(CASES) if given.only in one["model"]]
    with ThreadPoolExecutor(given.workers) as pool:
        all_built = list(pool.map(lambda pair: build(*pair), cases))
    given.out.with_suffix(".jsonl.built").touch()
    measure_end = time.monotonic() + given.measure_seconds
    with given.out.open("w") as out:
        for one, built in all_built:
            for side, plan, line in built:
                told = {key: one[key] for key in ("model", "batch", "precision")} | dict(side=side)
                told |= {key: line[key] for key in ("build_s", "network_layers", "engine_layers", "tensorrt", "gpu", "error")
                         if key in line}
                left = measure_end - time.monotonic()
                if plan.exists() and left > 5:
                    how = ["--iterations", "200", "--duration", "0.3", "--warmUp", "100"]
                    graph = run([program, "bench", plan, "--useCudaGraph", "--noDataTransfers", *how], left)
                    plain = run([program, "bench", plan, *how], left)
                    told |= dict(graph=graph.get("ms", graph), plain=plain.get("ms", plain),
                                 graph_refusal=graph.get("graph_refusal"))
                print(json.dumps(told), file=out, flush=True)


main()
