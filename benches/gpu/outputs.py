"""Compares engines' outputs on this machine's GPU with the evaluator's and with onnxruntime's. One line of JSON a model.

    python3 benches/gpu/outputs.py MODELS OUT.jsonl [NAME...] [--range R]... [--value INPUT=NUMBER]... [--seconds S]

MODELS is a folder of NAME.onnx; all of them if none is named. Each is built once (f32 without TF32) and compared by
`trt-fuse verify` at the ends of its ranges, and by `trt-fuse run` on one random input with onnxruntime on the CPU: the
largest difference relative to the largest number of an output (`of`, where the evaluator differs most). TRT_FUSE names the program, LD_LIBRARY_PATH the folder of
TensorRT. Symbols get the ranges of RANGES, or those that `--range` gives as `trt-fuse build` takes them (a dimension
without a name is `INPUT.AXIS`); onnxruntime gets their middle. `--value` fills an input of that name for onnxruntime, and
so does a number that is fixed (`--range 'INPUT[0]=NUMBER'`). The `light_` models get weights (scripts/weights.py).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import onnx
import onnxruntime

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
from weights import with_weights

RANGES = {"batch": "1:2:4", "seq": "8:16:32"}
DTYPES = {"tensor(float)": numpy.float32, "tensor(int64)": numpy.int64, "tensor(int32)": numpy.int32}


def run(command, seconds):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        return None, f"not done in {seconds:.0f} s"
    return (done.stdout, None) if done.returncode == 0 else (done.stdout, done.stderr.strip()[-400:])


def symbol(value, axis):
    """What `--range` calls a dimension that is not known."""
    named = value.shape[axis] in RANGES
    return value.shape[axis] if named else f"{value.name}.{axis}"


def middle(name):
    smallest, *more = RANGES[name].split(":")
    return int(more[0] if more else smallest)


def random_input(value, random, values):
    shape = [dim if isinstance(dim, int) else middle(symbol(value, axis)) for axis, dim in enumerate(value.shape)]
    dtype = DTYPES[value.type]
    told = values.get(value.name)
    if isinstance(told, dict):
        return numpy.array([told[at] for at in sorted(told)], dtype).reshape(shape)
    if told is not None:
        return numpy.full(shape, told, dtype)
    if dtype == numpy.float32:
        return random.standard_normal(shape).astype(dtype)
    if "mask" in value.name:
        mask = numpy.ones(shape, dtype)
        mask[..., shape[-1] * 3 // 4:] = 0
        return mask
    return random.integers(0, 1000, shape).astype(dtype)


def compare(file, program, folder, options, fixed, values, seconds):
    end = time.monotonic() + seconds
    left = lambda: end - time.monotonic()
    if file.name.startswith("light_"):
        model, file = onnx.load(file), folder / file.name
        onnx.save(with_weights(model), file)
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, session_options, providers=["CPUExecutionProvider"])
    symbols = {symbol(value, axis) for value in session.get_inputs() for axis, dim in enumerate(value.shape)
               if not isinstance(dim, int)}
    ranges = [word for name in sorted(symbols) for word in ("--range", f"{name}={RANGES[name]}")]
    ranges += [word for text in fixed for word in ("--range", text)]
    plan = folder / "model.plan"
    start = time.monotonic()
    _, error = run([program, "build", file, "-o", plan, *ranges, *options], left())
    if error:
        return dict(error=error)
    told = dict(build_s=time.monotonic() - start)
    out, error = run([program, "verify", file, "--plan", plan, "--json", *ranges], left())
    lines = [json.loads(line) for line in (out or "").splitlines() if line.startswith("{")]
    if not lines:
        return told | dict(error=error)
    worst = max(lines[0]["outputs"], key=lambda output: output["difference"])
    told["evaluator"], told["of"] = worst["difference"], worst["largest"]
    told["at"] = sorted({output["at"] for output in lines[0]["outputs"]})

    random = numpy.random.default_rng(7)
    given = {value.name: random_input(value, random, values) for value in session.get_inputs()}
    words = []
    for at, (name, array) in enumerate(given.items()):
        numpy.save(folder / f"{at}.npy", array)
        words += ["--input", f"{name}={folder / f'{at}.npy'}"]
    _, error = run([program, "run", plan, *words, "--output-dir", folder / "outputs"], left())
    if error:
        return told | dict(error=error)
    told["onnxruntime"] = 0.0
    for value, expected in zip(session.get_outputs(), session.run(None, given)):
        name = value.name
        for mark in "/\\:":
            name = name.replace(mark, "_")
        found = numpy.load(folder / "outputs" / f"{name}.npy")
        if found.shape != expected.shape:
            return told | dict(error=f"{value.name} is {found.shape}, not {expected.shape}")
        if not numpy.isfinite(found[numpy.isfinite(expected)]).all():
            return told | dict(error=f"{value.name} is not finite where onnxruntime is")
        gap = numpy.abs(found.astype(numpy.float64) - expected).max() / max(numpy.abs(expected).max(), 1e-30)
        told["onnxruntime"] = max(told["onnxruntime"], float(gap))
    return told


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("models", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--range", action="append", default=[])
    parser.add_argument("--value", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=3600)
    given = parser.parse_args()
    fixed = [text for text in given.range if "[" in text]
    RANGES.update(text.rsplit("=", 1) for text in given.range if text not in fixed)
    values = {name: float(number) for name, number in (text.rsplit("=", 1) for text in given.value)}
    for name, number in (text.rsplit("=", 1) for text in fixed):
        name, _, at = name.rstrip("]").partition("[")
        if ":" not in number:
            values[name] = float(number) if not at else values.get(name, {}) | {int(at): float(number)}
    program = os.environ.get("TRT_FUSE", "trt-fuse")
    end = time.monotonic() + given.seconds
    names = given.names or sorted(file.name.removesuffix(".onnx") for file in given.models.glob("*.onnx"))
    with tempfile.TemporaryDirectory() as times, given.out.open("a") as out:
        for name in names:
            if end - time.monotonic() < 10:
                break
            # The exporters' forms of a model have most layers in common.
            options = ["--timing-cache", Path(times) / name.split(".")[0]]
            with tempfile.TemporaryDirectory() as folder:
                try:
                    told = compare(given.models / f"{name}.onnx", program, Path(folder), options, fixed, values,
                                   end - time.monotonic())
                except Exception as error:
                    told = dict(error=f"{type(error).__name__}: {error}"[-400:])
            print(json.dumps(dict(model=name) | told), file=out, flush=True)


main()
