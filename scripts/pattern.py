"""The inputs of reference models; see references.py."""
import numpy as np


def pattern(shape):
    index = np.arange(int(np.prod(shape)), dtype=np.int64)
    values = (index * 1103515245 + 12345) % 2**31
    return (values.astype(np.float64) / 2.0**29 - 2.0).astype(np.float32).reshape(shape)


def tokens(shape):
    index = np.arange(int(np.prod(shape)), dtype=np.int64)
    return (index * 7919 % 1000).reshape(shape)


def mask(shape):
    """The last quarter of each sequence is padding."""
    ones = np.ones(shape, np.int64)
    ones[..., shape[-1] * 3 // 4 :] = 0
    return ones


def kept(output):
    """The elements of an output that a reference keeps: all of a small one, of others every so-manieth."""
    step = -(-output.size // 65536)
    return output if step <= 1 else np.ascontiguousarray(output.ravel()[::step])
