#!/usr/bin/env python3
"""Writes README's table of models: nodes, network layers and engine layers, ours and OnnxParser's.

    python3 scripts/models.py CACHE [MODEL...]

Needs `fuse-report` built in release mode, the models unpacked in CACHE/models and TensorRT-RTX in CACHE
(`make table` does all that). Only rows of the given models are measured anew; all if none is given.
"""
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- models: written by scripts/models.py -->", "<!-- end of models -->"
HEAD = [
    "| model | nodes | after | network layers | parser's | engine layers | parser's |",
    "|---|---|---|---|---|---|---|",
]
# Dynamic forms, by the symbols in their inputs.
RANGES = {
    "resnet50.dyn": ["batch=1:4:8"],
    "vit_b_16.dyn": ["batch=1:4:8"],
    "bert_base.dyn": ["batch=1:4:8", "seq=8:64:128"],
}
FAMILIES = [
    "resnet50", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "googlenet", "inception_v3", "densenet121",
    "squeezenet1_1", "shufflenet_v2", "convnext_tiny", "vit_b_16", "swin_t", "bert_base", "gpt2", "llama_tiny", "light",
]


def order(name):
    family = next((at for at, family in enumerate(FAMILIES) if name.startswith(family)), len(FAMILIES))
    return family, name


def row(name, path):
    command = [ROOT / "target/release/fuse-report", path, "--json", "--build", "--compare-parser"]
    for symbol in RANGES.get(name, []):
        command += ["--range", symbol]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{name}: {done.stderr.strip()}")
    report = json.loads(done.stdout)
    ours, parser = report["layers"], report["parser"]
    cells = [
        name, report["nodes"]["before"], report["nodes"]["after"], ours["without_constants"],
        parser["without_constants"], ours["engine"], parser["engine"],
    ]
    print(*cells, sep="\t", file=sys.stderr, flush=True)
    return "| " + " | ".join("-" if cell is None else str(cell) for cell in cells) + " |"


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    cache, wanted = pathlib.Path(sys.argv[1]), sys.argv[2:]
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    old, after = rest.split(END)
    rows = {line.split("|")[1].strip(): line for line in old.strip().splitlines()[2:]}
    models = {path.name.removesuffix(".onnx"): path for path in (cache / "models").glob("*.onnx")}
    for name in sorted(models, key=order):
        if not wanted or name in wanted:
            rows[name] = row(name, models[name])
    table = "\n".join(HEAD + [rows[name] for name in sorted(rows, key=order)])
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


if __name__ == "__main__":
    main()
