"""A memory buffer that Arrow allocates and frees."""

import numpy as np
import pyarrow as pa


def arrow_buffer(data: bytes | memoryview) -> pa.Buffer:
    """Return a copy of the bytes that Arrow can free without Python.

    Arrow's readers prefetch in a separate thread. If a reader fails, its thread
    frees the bytes later. Freeing bytes of Python needs the interpreter's lock.
    Interpreter shutdown removes this lock, and then the process aborts.
    """
    buffer = pa.allocate_buffer(len(data))
    np.frombuffer(buffer, np.uint8)[:] = np.frombuffer(data, np.uint8)
    return buffer
