"""The inputs of reference models; see references.py."""
import numpy as np


def pattern(shape):
    index = np.arange(int(np.prod(shape)), dtype=np.int64)
    values = (index * 1103515245 + 12345) % 2**31
    return (values.astype(np.float64) / 2.0**29 - 2.0).astype(np.float32).reshape(shape)
