"""Measures outputs, latency, operator tests and sessions for RESULTS.md, on all GPUs of this machine at once. A line of text for
each job as it starts and ends.

    python3 benches/gpu/all.py MODELS RESULTS [JOB...] [--seconds S] [--tests FOLDER] [--others FOLDER] [--list]

MODELS is a folder of NAME.onnx (`make models`, and siblings.py for the jobs siblings, attention, windows, half, gpt2_body and gpt2_two). RESULTS gets the files that latency.py and outputs.py write, the tables of
the operator tests, and a log for each job. Each GPU takes one job after the other, in the order given, or all of JOBS; so
nothing else runs on a GPU while times are measured there. A job may also be a case of latency.py, which has a colon.
After S seconds (3600) no job starts, and those that run end.
TESTS holds the operator tests (`make operators`), OTHERS any of the models of PaddleOCR and Silero in one folder (`make ocr silero`).
TRT_FUSE names the program, LD_LIBRARY_PATH the folder of TensorRT, and
RUNTIME_TESTS, if it is set, what `cargo test --test runtime --no-run` built.
"""

import argparse
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
# The batch, height and width of PaddleOCR's models, the batch and sequence of Silero's.
OTHERS = {
    "ch_PP-OCRv4_det_infer": ["p2o.DynamicDimension.0=1:1:2", "p2o.DynamicDimension.1=32:96:160",
                              "p2o.DynamicDimension.2=32:128:160"],
    # Of one size, as an engine with ranges was not built in 1,049 s.
    "ch_PP-OCRv4_rec_infer": ["p2o.DynamicDimension.0=2", "x.2=48", "p2o.DynamicDimension.1=96"],
    "ch_ppocr_mobile_v2.0_cls_infer": ["x.0=1:2:4", "x.2=48", "x.3=192"],
    "silero_vad": ["input.0=1:2:4", "input.1=512", "state.1=1:2:4", "sr[0]=16000"],
    "silero_vad_16k_op15": ["batch=1:2:4", "sequence=512", "sr[0]=16000"],
    "silero_vad_op18_ifless": ["batch=1:2:4", "sequence=512", "sr[0]=16000"],
}

# Enough to keep the CPU busy beside one GPU: most of a test is its build.
SHARES = 8


def latency(*cases, options=()):
    return lambda given, seconds: [
        [sys.executable, HERE / "latency.py", given.models, given.results / "latency.jsonl", *cases, "--workers", "2",
         "--seconds", str(int(seconds)), *options]]


def outputs(*families):
    """A process a family: its forms share their kernel times."""
    def commands(given, seconds):
        forms = {family: sorted(file.name.removesuffix(".onnx") for file in given.models.glob("*.onnx")
                                if file.name.split(".")[0] == family) for family in families}
        return [[sys.executable, HERE / "outputs.py", given.models, given.results / "outputs.jsonl", *names,
                 "--seconds", str(int(seconds))] for names in forms.values() if names]
    return commands


def others(given, seconds):
    return [[sys.executable, HERE / "outputs.py", given.others, given.results / "outputs.jsonl", name, "--seconds",
             str(int(seconds)), *(word for text in ranges for word in ("--range", text))]
            for name, ranges in OTHERS.items() if (given.others / f"{name}.onnx").exists()] if given.others else []


def operators(given, _):
    program = os.environ.get("TRT_FUSE", "trt-fuse")
    return [[program, "conformance", given.tests, "--run", "--share", f"{share}/{SHARES}", "--tsv",
             given.results / f"operators.{share}.tsv"] for share in range(SHARES)] if given.tests else []


def half(given, _):
    """What the kernel of an attention makes of f16."""
    program = os.environ.get("TRT_FUSE", "trt-fuse")
    return [[program, "verify", given.models / "siblings_stacked197.onnx", "--fp16", "--tf32", "--json", "--tolerance", "1",
             *way] for way in ([], ["--skip", "split_parts"])]


def runtime(*_):
    tests = os.environ.get("RUNTIME_TESTS")
    return [[tests, "--nocapture", "--test-threads", "1"]] if tests else []


# A job each, so that what is done is known when the time ends. Not measured yet first; see "Open" in RESULTS.md.
CASES = [
    "densenet121:1:fp16", "convnext_tiny:1:fp16", "gpt2:1:fp32", "gpt2:1:fp16", "swin_t:1:fp16",
    "bert_base:1:fp16:always", "densenet121:1:fp32", "efficientnet_b0:1:fp32", "swin_t:1:fp32", "convnext_tiny:1:fp32",
    "squeezenet1_1:1:fp32:never", "squeezenet1_1:32:fp16:never", "mobilenet_v2:32:fp16", "resnet50.dyn:32:fp16",
    "mobilenet_v3_large:1:fp32", "googlenet:1:fp32", "mobilenet_v2:1:fp32", "shufflenet_v2:1:fp32",
    "bert_base.dyn:32:fp16", "googlenet:1:fp16", "mobilenet_v3_large:1:fp16", "efficientnet_b0:1:fp16",
    "inception_v3:1:fp16", "squeezenet1_1:1:fp16:never", "squeezenet1_1:32:fp32:always", "resnet50.dyn:32:fp32",
    "vit_b_16.dyn:32:fp16", "resnet50:1:fp16", "mobilenet_v2:1:fp16", "shufflenet_v2:1:fp16", "vit_b_16:1:fp16",
    "resnet50:1:fp32", "bert_base:1:fp32", "vit_b_16:1:fp32", "llama_tiny:1:fp16", "llama_tiny:1:fp32",
]

JOBS = {
    "operators": operators,
    "runtime": runtime,
    # The first size of the LSTM is time.
    "siblings": latency(*(f"siblings_lstm{steps}:{steps}:{precision}{way}" for precision in ("fp16", "fp32")
                          for steps, way in ((1, ":skip.fold_control_flow"), (80, ""))), options=["--no-torch", "--kernels"]),
    "attention": latency(*(f"siblings_{form}{tokens}:1:fp16{way}" for tokens in (49, 64, 197, 256)
                          for form, way in (("rows", ""), ("stacked", ":skip.split_parts"))),
                         options=["--no-torch", "--kernels"]),
    "windows": latency(*(f"siblings_{form}:fp16:skip.split_parts" for form in ("biased49:1", "windows32:64", "windows64:64")),
                       options=["--no-torch", "--no-parser", "--kernels"]),
    "swin_t": latency("swin_t:1:fp32:skip.sink_reshape", options=["--no-torch", "--no-parser"]),
    "half": half,
    "gpt2_body": latency("gpt2_body:1:fp16", options=["--no-torch"]),
    "gpt2_two": latency("gpt2_two:1:fp16", "gpt2_two:1:fp32:skip.sink_parts", options=["--no-torch", "--kernels"]),
} | {case: latency(case) for case in CASES} | {
    "outputs1": outputs("mobilenet_v3_large", "shufflenet_v2"),
    "outputs2": outputs("efficientnet_b0", "convnext_tiny"),
    "outputs3": outputs("densenet121"),
    "outputs4": outputs("inception_v3", "swin_t"),
    "outputs5": outputs("gpt2", "resnet50"),
    "outputs6": outputs("light_bvlc_alexnet", "light_inception_v1", "light_inception_v2", "light_resnet50", "light_shufflenet",
                        "light_squeezenet", "light_vgg19", "light_zfnet512", "light_densenet121"),
    "others": others,
}


def gpus():
    listed = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True)
    return listed.stdout.split()


def say(text):
    print(time.strftime("%T"), text, flush=True)


def work(gpu, jobs, given, end):
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": gpu}
    while True:
        try:
            name = jobs.get_nowait()
        except queue.Empty:
            return
        left = end - time.monotonic()
        if left < 30:
            say(f"{name}: no time left")
            continue
        start = time.monotonic()
        commands = (JOBS.get(name) or latency(name))(given, left)
        say(f"{name} on GPU {gpu}: {len(commands)} processes")
        with (given.results / f"{name.replace(':', '_')}.log").open("ab") as log:
            running = [subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
                       for command in commands]
            codes = []
            for process in running:
                try:
                    codes.append(process.wait(max(end - time.monotonic(), 1)))
                except subprocess.TimeoutExpired:
                    process.kill()
                    codes.append("stopped")
        say(f"{name} took {time.monotonic() - start:.0f} s" + "".join(f", {code}" for code in codes if code))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("models", type=Path, nargs="?")
    parser.add_argument("results", type=Path, nargs="?")
    parser.add_argument("jobs", nargs="*")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--tests", type=Path)
    parser.add_argument("--others", type=Path)
    parser.add_argument("--list", action="store_true")
    given = parser.parse_intermixed_args()
    if given.list:
        return print("\n".join(JOBS))
    if not given.results:
        parser.error("MODELS and RESULTS are needed")
    unknown = [name for name in given.jobs if name not in JOBS and ":" not in name]
    found = gpus()
    if unknown or not found:
        sys.exit(f"no job is called {', '.join(unknown)}: see --list" if unknown else "nvidia-smi finds no GPU")
    if not any(given.models.glob("*.onnx")):
        sys.exit(f"{given.models} has no models: make models")
    given.results.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + given.seconds
    jobs = queue.Queue()
    for name in given.jobs or JOBS:
        jobs.put(name)
    workers = [threading.Thread(target=work, args=(gpu, jobs, given, end)) for gpu in found]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


main()
