"""A running `lakewriter` with its output in pipes, which a short run forks."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from support import warm_processes


class Piped:
    """A process, with the part of `subprocess.Popen` that tests use.

    Args:
        stderr: a descriptor; a pipe if it is None.
    """

    def __init__(
        self,
        *arguments: str,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        stderr: int | None = None,
    ) -> None:
        out_reading, out_writing = os.pipe()
        err_reading, err_writing = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            self.process = warm_processes.start(
                arguments,
                stdin=nothing,
                stdout=out_writing,
                stderr=err_writing if stderr is None else stderr,
                cwd=cwd,
                environment=environment,
            )
        finally:
            for descriptor in (nothing, out_writing, err_writing):
                os.close(descriptor)
        self.stdout: BinaryIO = os.fdopen(out_reading, "rb")
        self.stderr: BinaryIO = os.fdopen(err_reading, "rb")
        self.send_signal, self.poll = self.process.send_signal, self.process.poll
        self.terminate, self.kill, self.wait = self.process.terminate, self.process.kill, self.process.wait

    @property
    def returncode(self) -> int | None:
        """The exit code, once the process was waited for."""
        return self.process.returncode

    def communicate(self, timeout: float) -> tuple[bytes, bytes]:
        """Read both outputs to their ends, and wait for the end of the process."""
        said: list[bytes] = []
        listening = threading.Thread(target=lambda: said.append(self.stderr.read()), daemon=True)
        listening.start()
        printed = self.stdout.read()
        self.wait(timeout)
        listening.join(timeout)
        return printed, b"".join(said)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pipes, and wait for the end; kill the process if the block raised an error."""
        if error is not None:
            self.kill()
        self.stdout.close()
        self.stderr.close()
        self.wait()
