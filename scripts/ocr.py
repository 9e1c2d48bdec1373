#!/usr/bin/env python3
"""Write what onnxruntime computes for the models of rapidocr: testdata/references/ocr_NAME.npy, the output in one row.

    pip install onnxruntime==1.31.1 numpy && python3 scripts/fetch.py ocr CACHE && python3 scripts/ocr.py CACHE
"""
import pathlib
import sys

import numpy as np
import onnxruntime



def bars(shape):
    """Dark strokes on a light ground, which a detector takes for text; tests/ocr.rs makes the same."""
    n, _, h, w = np.indices(shape)
    inside = (h >= 20) & (h < 44) & (w >= 8) & (w < shape[3] - 8)
    stroke = (w % 16 < 3) | ((n == 0) & ((h - 20) % 10 < 3) & (w // 16 % 2 == 0))
    return np.where(inside & stroke, -2, 2).astype(np.float32)


MODELS = {
    "ch_PP-OCRv4_det_infer": [2, 3, 64, 96],
    "ch_PP-OCRv4_rec_infer": [1, 3, 48, 64],
    "ch_ppocr_mobile_v2.0_cls_infer": [2, 3, 48, 192],
}

root = pathlib.Path(__file__).resolve().parent.parent / "testdata" / "references"
(folder,) = pathlib.Path(sys.argv[1]).glob("rapidocr-*")
for name, shape in MODELS.items():
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"x": bars(shape)})
    np.save(root / f"ocr_{name}.npy", output.ravel())
    print(name, output.shape, float(np.abs(output).max()))
