"""Bytes in Arrow's own memory."""

import numpy as np
import pyarrow as pa


def arrow_buffer(data: bytes | memoryview) -> pa.Buffer:
    """Return a copy of the bytes that Arrow can free without Python.

    Arrow's readers read ahead in a thread of their own. If a reader fails, its
    thread frees the bytes later. Bytes of Python's take the interpreter's lock
    for that; while the interpreter ends there is none, and the process aborts.
    """
    buffer = pa.allocate_buffer(len(data))
    np.frombuffer(buffer, np.uint8)[:] = np.frombuffer(data, np.uint8)
    return buffer
