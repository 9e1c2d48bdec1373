"""Times models on this machine's GPU: our engine, OnnxParser's of the same TensorRT, PyTorch. One line of JSON a case.

    python3 benches/gpu/latency.py MODELS OUT.jsonl CASE... [--workers W] [--seconds S] [--no-parser] [--no-torch] [--kernels]

MODELS is a folder of NAME.onnx. A CASE is MODEL:BATCH:PRECISION, precision `fp32` (no TF32), `tf32` or `fp16`, and after it
more ways of ours to build it, if any: `bert_base:1:fp16:never` is also measured with `--siblings never`. They are `always`
and `never`; `dynamic`, where sizes stay symbols, in ranges that end at the size; `unmasked`, with an attention mask of ones
for a constant; `cold`, without OnnxParser's kernel times; and `skip.PASS`, without a pass. TRT_FUSE names the program, LD_LIBRARY_PATH the folder of
TensorRT.

OnnxParser's engine of a case is built first, then ours with the kernel times that it left, so that equal layers get equal
kernels; W (1) are built at the same time. When all are built, one case after the other is measured with nothing else on
the GPU: as a CUDA graph with tensors on the GPU and plainly with copies, OnnxParser's twice, first and last, to tell noise
from gain; then the same model in PyTorch (eager.py, at most four of them), which compiles while engines are built. What S
seconds do not suffice for is left out. With `--no-parser` only ours are built. TensorRT 8.5 builds on the GPU: more than two at a time are slower than two.
`layers` are milliseconds of each engine layer, measured one by one; `kernels`, by ncu if it is asked for, name, launches
and microseconds.

A batch other than the model's own is its symbol `batch`, or else is written into the input, which fits models that look at
the batch nowhere. OnnxParser of TensorRT 8 takes LayerNormalization through a plugin that needs cuDNN only; the operator is
written out for it (`"expanded": true`).
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import onnx
from onnx import helper, numpy_helper

PRECISION = {"fp32": [], "tf32": ["--tf32"], "fp16": ["--fp16", "--tf32"]}
MEASURE = ["--iterations", "200", "--duration", "0.3", "--warmUp", "200"]
ONCE = ["--iterations", "1", "--duration", "0", "--warmUp", "0"]
WAYS = {"always": ["--siblings", "always"], "never": ["--siblings", "never"], "unmasked": ["--range", "attention_mask[]=1"],
        "dynamic": [], "cold": []}
SKIP = "skip."


def options_of(way):
    """What a way adds to the command; none if there is no such way."""
    return ["--skip", way.removeprefix(SKIP)] if way.startswith(SKIP) else WAYS.get(way)


def run(command, seconds):
    """The last line of JSON that a command prints, or what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        return dict(error=f"not done in {seconds:.0f} s")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else dict(error=done.stderr.strip()[-400:])


def with_batch(model, batch):
    """The model with a fixed batch written into its inputs."""
    for value in list(model.graph.input) + list(model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]
    return model


def expanded(model):
    """The model with each LayerNormalization as the operators that PyTorch's exporter wrote before opset 17."""
    nodes = []
    for node in model.graph.node:
        if node.op_type != "LayerNormalization":
            nodes.append(node)
            continue
        attributes = {attribute.name: attribute for attribute in node.attribute}
        epsilon = attributes["epsilon"].f if "epsilon" in attributes else 1e-5
        x, out = node.input[0], node.output[0]
        axes = dict(axes=[attributes["axis"].i if "axis" in attributes else -1])
        for name, value in ((f"{out}/two", 2.0), (f"{out}/epsilon", epsilon)):
            model.graph.initializer.append(numpy_helper.from_array(numpy.array(value, numpy.float32), name))
        steps = [("ReduceMean", [x], "mean", axes), ("Sub", [x, "mean"], "centred", {}),
                 ("Pow", ["centred", "two"], "square", {}), ("ReduceMean", ["square"], "variance", axes),
                 ("Add", ["variance", "epsilon"], "shifted", {}), ("Sqrt", ["shifted"], "deviation", {}),
                 ("Div", ["centred", "deviation"], "normal", {}), ("Mul", ["normal", node.input[1]], "scaled", {})]
        if len(node.input) > 2:
            steps.append(("Add", ["scaled", node.input[2]], "moved", {}))
        inner = {name for _, _, name, _ in steps} | {"two", "epsilon"}
        for at, (op, taken, given, options) in enumerate(steps):
            taken = [f"{out}/{name}" if name in inner else name for name in taken]
            given = out if at + 1 == len(steps) else f"{out}/{given}"
            nodes.append(helper.make_node(op, taken, [given], name=f"{node.name}/{given}", **options))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


class Torch:
    """eager.py at work."""

    def __init__(self):
        self.preparing = 0
        script = Path(__file__).with_name("eager.py")
        self.process = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)

    def tell(self, verb, case, precision, how):
        try:
            self.process.stdin.write(f"{verb} {case['torch']} {case['batch']} {precision} {how}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # It is not installed, or has ended: there is no answer.

    def answer(self, seconds):
        answer = {}
        reader = threading.Thread(target=lambda: answer.update(json.loads(self.process.stdout.readline() or "{}")))
        reader.start()
        reader.join(max(seconds, 1))
        return answer

    def prepare(self, case, precision, how):
        self.tell("prepare", case, precision, how)
        self.preparing += 1

    def settle(self, end):
        """Wait until nothing is prepared any more: what compiles would be measured with."""
        while self.preparing and self.answer(end - time.monotonic()):
            self.preparing -= 1

    def measure(self, case, precision, how, seconds):
        if self.preparing:
            return "no answer"
        self.tell("measure", case, precision, how)
        answer = self.answer(seconds)
        return answer.get("ms", answer.get("error", "no answer"))


class Case:
    def __init__(self, text, models, folder, torch, parser):
        self.torch = torch
        name, batch, precision, *self.ways = text.split(":")
        for way in self.ways:
            if options_of(way) is None:
                sys.exit(f"{text}: there is no way {way}, only {', '.join(WAYS)} and {SKIP}PASS")
        self.sizes = {}
        self.names = dict(model=name, batch=int(batch), precision=precision, torch=name.split(".")[0])
        self.options = list(PRECISION[precision])
        self.file = models / f"{name}.onnx"
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.parsed = self.file
        self.expanded = False
        self.plans = {side: self.folder / f"{side}.plan" for side in [*parser, *self.sides()]}
        self.prepare()
        self.told = dict(self.names, expanded=self.expanded, sides={})
        if torch:
            torch.prepare(self.names, precision, "compiled")

    def prepare(self):
        model = onnx.load(self.file)
        shape = model.graph.input[0].type.tensor_type.shape
        symbols = {dim.dim_param for value in model.graph.input for dim in value.type.tensor_type.shape.dim}
        if "batch" in symbols:
            self.sizes = {"batch": self.names["batch"]} | ({"seq": 128} if "seq" in symbols else {})
        elif shape.dim[0].dim_value != self.names["batch"]:
            self.file = self.parsed = self.folder / "batch.onnx"
            onnx.save(with_batch(model, self.names["batch"]), self.file)
        if any(node.op_type == "LayerNormalization" for node in model.graph.node):
            self.expanded, self.parsed = True, self.folder / "expanded.onnx"
            onnx.save(expanded(model), self.parsed)

    def sides(self):
        return ["ours", *self.ways]

    def build(self, side, program, end):
        kept = ("build_s", "network_layers", "engine_layers", "tensorrt", "gpu", "error")
        plan = self.plans[side]
        low = 1 if side == "dynamic" else 0
        ranges = [word for symbol, size in self.sizes.items()
                  for word in ("--range", f"{symbol}={max(size - low, 1)}:{size}:{size}")]
        file, extra = (self.parsed, ["--parser"]) if side == "parser" else (self.file, options_of(side) or [])
        # Its own file of kernel times, as several are built at a time.
        times, made = plan.with_suffix(".times"), self.folder / "parser.times"
        if side not in ("parser", "cold") and made.exists():
            shutil.copy(made, times)
        line = run([program, "bench", file, "--saveEngine", plan, *ONCE, *self.options, *ranges, *extra,
                    "--timing-cache", times], end - time.monotonic())
        self.told["sides"][side] = {key: line[key] for key in kept if key in line}

    def kernels(self, program, plan, seconds):
        """Name, launches and microseconds of each kernel of some runs."""
        log = self.folder / "kernels.csv"
        run(["ncu", "--csv", "--log-file", log, "--metrics", "gpu__time_duration.sum", "--target-processes", "all",
             program, "bench", plan, "--noDataTransfers", *ONCE], seconds)
        if not log.exists():
            return "ncu did not run"
        lines = [line for line in log.read_text().splitlines() if line.startswith('"')]
        log.unlink()
        found = {}
        try:
            for row in csv.DictReader(lines):
                name, unit = row["Kernel Name"], row["Metric Unit"].replace("second", "s")
                time = float(row["Metric Value"].replace(",", "")) * {"ns": 1e-3, "us": 1.0, "ms": 1e3}[unit]
                count, total = found.get(name, (0, 0.0))
                found[name] = count + 1, total + time
        except (KeyError, ValueError) as error:
            return f"not what ncu is known to write: {error}"
        return sorted(([name, *sums] for name, sums in found.items()), key=lambda kernel: -kernel[2])

    def measure(self, program, end, kernels):
        left = lambda: end - time.monotonic()
        for side in [*self.plans, "parser"]:
            plan, line = self.plans.get(side), self.told["sides"].get(side)
            if not plan or not plan.exists() or left() < 2:
                continue
            graph = run([program, "bench", plan, "--useCudaGraph", "--noDataTransfers", *MEASURE], left())
            if "graph" in line:
                line["graph_again"] = graph.get("ms", graph)
                continue
            line["graph"] = graph.get("ms", graph)
            line["graph_refusal"] = graph.get("graph_refusal")
            plain = run([program, "bench", plan, "--dumpProfile", *MEASURE], left())
            line["plain"] = plain.get("ms", plain)
            line["layers"] = plain.get("layers")
            if kernels:
                line["kernels"] = self.kernels(program, plan, min(left(), 60))
        if self.torch:
            precision = self.names["precision"]
            self.told["eager_ms"] = self.torch.measure(self.names, precision, "eager", left())
            if precision == "fp16":
                self.told["eager_fp32_ms"] = self.torch.measure(self.names, "fp32", "eager", left())
            self.told["compiled_ms"] = self.torch.measure(self.names, precision, "compiled", left())
        return self.told


def build(cases, sides, workers, program, end):
    """OnnxParser's engines, each followed by those that its kernel times are for."""
    def start(case):
        for side in sides:
            case.build(side, program, end)
        return [pool.submit(case.build, side, program, end) for side in case.sides()]

    with ThreadPoolExecutor(workers) as pool:
        for started in [pool.submit(start, case) for case in cases]:
            for engine in started.result():
                engine.result()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("models", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--no-parser", action="store_true")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--kernels", action="store_true")
    given = parser.parse_args()
    program = os.environ.get("TRT_FUSE", "trt-fuse")
    end = time.monotonic() + given.seconds
    # Measuring a case takes some seconds a side, and more in PyTorch.
    build_end = end - len(given.cases) * (12 if given.no_torch else 20)
    sides = [] if given.no_parser else ["parser"]
    torches = [None] if given.no_torch else [Torch() for _ in range(min(given.workers, 4))]
    with tempfile.TemporaryDirectory() as folder, given.out.open("a") as out:
        cases = [Case(text, given.models, folder, torches[at % len(torches)], sides) for at, text in enumerate(given.cases)]
        build(cases, sides, given.workers, program, build_end)
        for torch in filter(None, torches):
            torch.settle(build_end)
        for case in cases:
            print(json.dumps(case.measure(program, end, given.kernels)), file=out, flush=True)
    for torch in filter(None, torches):
        torch.process.kill()


main()
