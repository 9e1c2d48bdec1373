#!/usr/bin/env python3
"""Measure ours, OnnxParser and onnxruntime BASIC on the models of testdata, side by side, and print a table; then the passes
on graphs of two lengths, and print another.

    make bench        or        python3 benches/compare.py CACHE [MODEL...]

Needs TensorRT-RTX and the unpacked models in CACHE (make tensorrt models). onnxruntime goes into CACHE/bench-venv.
"""
import json
import pathlib
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ["vit_b_16", "bert_base", "swin_t", "resnet50", "resnet50.raw", "mobilenet_v2", "mobilenet_v2.raw", "inception_v3.raw",
          "densenet121.raw", "efficientnet_b0.raw", "squeezenet1_1"]

cache = pathlib.Path(sys.argv[1])
names = sys.argv[2:] or MODELS
files = [str(cache / "models" / f"{name}.onnx") for name in names]

python = cache / "bench-venv" / "bin" / "python"
if not python.exists():
    venv.create(cache / "bench-venv", with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "onnxruntime==1.31.1"], check=True)

subprocess.run(["cargo", "build", "--release", "--quiet", "--bench", "stages"], cwd=ROOT, check=True)


def rows(command):
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {row["model"]: row for row in (json.loads(line) for line in output.splitlines() if line.startswith("{"))}


ours, theirs = {}, {}
for file in files:
    ours.update(rows(["cargo", "bench", "--quiet", "--bench", "stages", "--", file]))
    theirs.update(rows([str(python), "benches/onnxruntime_basic.py", file]))

print("| model | MB | ours ms | OnnxParser ms | ratio | onnxruntime BASIC ms | ratio | peak MB | of the file |")
print("|---|---|---|---|---|---|---|---|---|")
for name, row in ours.items():
    basic = theirs[name]["onnxruntime_ms"]
    mine, parser, peak, size = (row[key] for key in ("ours_ms", "parser_ms", "peak_anonymous_megabytes", "megabytes"))
    cells = [f"{size:.1f}", f"{mine:.1f}", f"{parser:.1f}", f"{mine / parser:.2f}", f"{basic:.1f}", f"{mine / basic:.2f}", f"{peak:.1f}", f"{peak / size:.2f}"]
    print("| " + " | ".join([name.removesuffix(".onnx")] + cells) + " |")

print()
print("| chain | 10,000 operations, ms | 100,000, ms | of ten times the first |")
print("|---|---|---|---|")
output = subprocess.run(["cargo", "bench", "--quiet", "--bench", "stages", "--", "--chains"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
for chain in (json.loads(line) for line in output.splitlines() if line.startswith("{")):
    short, long, ratio = (chain[key] for key in ("short_ms", "long_ms", "long_by_ten_shorts"))
    print(f"| {chain['chain']} | {short:.1f} | {long:.1f} | {ratio:.2f} |")
