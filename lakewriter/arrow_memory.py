"""Buffers in Arrow's own memory."""

import numpy as np
import pyarrow as pa


def arrow_buffer(data: bytes | memoryview) -> pa.Buffer:
    """Return a copy of the bytes that Arrow can free without Python.

    Arrow's readers prefetch in a thread of their own. If a reader fails, its
    thread frees the bytes later. Freeing Python's bytes needs the interpreter's
    lock. During interpreter shutdown there is none, and the process aborts.
    """
    buffer = pa.allocate_buffer(len(data))
    np.frombuffer(buffer, np.uint8)[:] = np.frombuffer(data, np.uint8)
    return buffer
