#!/usr/bin/env python3
"""Write what onnxruntime computes for the models of silero-vad: testdata/references/silero_NAME.npy, outputs in one row.

    pip install onnxruntime==1.31.1 numpy && python3 scripts/fetch.py silero CACHE && python3 scripts/silero.py CACHE

Two sequences of 512 samples at 16 kHz; sound and state are made as in references.py.
"""
import pathlib
import sys

import numpy as np
import onnxruntime

from pattern import pattern

root = pathlib.Path(__file__).resolve().parent.parent / "testdata" / "references"
(folder,) = pathlib.Path(sys.argv[1]).glob("silero-vad-*")
for name in ("silero_vad", "silero_vad_16k_op15", "silero_vad_op18_ifless"):
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
    inputs = {"input": pattern([2, 512]), "state": pattern([2, 2, 128]), "sr": np.array(16000, np.int64)}
    outputs = session.run(None, inputs)
    np.save(root / f"{name}.npy", np.concatenate([output.ravel() for output in outputs]))
    print(name, [output.shape for output in outputs], float(np.abs(outputs[0]).max()))
