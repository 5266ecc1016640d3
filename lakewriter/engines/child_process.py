"""A worker process that ends with its parent."""

import os
import threading
from multiprocessing import parent_process


def die_with_parent() -> None:
    """Start a thread that ends this worker process when the parent process ends."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
