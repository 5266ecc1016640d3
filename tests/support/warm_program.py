"""A program `lakewriter` for shells: it asks the test's process to start a forked one, and waits for it.

A shell's command takes a fiftieth of the time of a new Python with the imports. The long
form of the tests starts Python each time. A signal to the program ends it and its process
with SIGKILL, so tests of signals and terminals need `python -m lakewriter`.
"""

import atexit
import json
import os
import select
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from support import warm_processes
from support.lengths import LONG

# Its descriptors are those of the process; all text is bytes in Latin-1.
_CLIENT = """
import json, os, socket, sys
text = lambda data: data.decode("latin-1")
asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
asking.connect(sys.argv[1])
request = {
    "arguments": [text(os.fsencode(each)) for each in sys.argv[2:]],
    "cwd": text(os.getcwdb()),
    "environment": {text(name): text(value) for name, value in os.environb.items()},
}
socket.send_fds(asking, [json.dumps(request).encode()], [0, 1, 2])
code = int(asking.recv(64) or b"-9")
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""

_REQUEST_BYTES_MAX = 1 << 17

_place: Path | None = None
_starting = threading.Lock()


def write_program(path: Path) -> Path:
    """Write an executable file that runs `lakewriter` with its arguments; return its path."""
    if LONG:
        words = [sys.executable, "-m", "lakewriter"]
    else:
        place = _listening()
        words = [sys.executable, "-IS", str(place / "client.py"), str(place / "socket")]
    path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    path.chmod(0o755)
    return path


def _listening() -> Path:
    """Listen, once in each process; return the directory of the socket and its client."""
    global _place
    with _starting:
        if _place is None:
            _place = Path(tempfile.mkdtemp(prefix="lakewriter-warm-"))
            atexit.register(shutil.rmtree, _place, ignore_errors=True)
            (_place / "client.py").write_text(_CLIENT)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            listener.bind(str(_place / "socket"))
            listener.listen()
            atexit.register(listener.close)
            threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        return _place


def _accept(listener: socket.socket) -> None:
    while True:
        try:
            asking, _ = listener.accept()
        except OSError:  # closed
            return
        threading.Thread(target=_serve, args=(asking,), daemon=True).start()


def _serve(asking: socket.socket) -> None:
    """Run the process that a client asks for, and send its exit code; kill it if the client goes away."""
    with asking:
        data, descriptors, _, _ = socket.recv_fds(asking, _REQUEST_BYTES_MAX, 3)
        try:
            request = json.loads(data)
            process = warm_processes.start(
                [each.encode("latin-1") for each in request["arguments"]],
                stdin=descriptors[0],
                stdout=descriptors[1],
                stderr=descriptors[2],
                cwd=Path(_text(request["cwd"])),
                environment={_text(name): _text(value) for name, value in request["environment"].items()},
            )
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        code = None
        while code is None:
            if select.select([asking], [], [], 0)[0]:
                process.kill()
            try:
                code = process.wait(0.5)
            except subprocess.TimeoutExpired:
                continue
        try:
            asking.send(b"%d" % code)
        except OSError:  # it is gone
            return


def _text(latin: str) -> str:
    return os.fsdecode(latin.encode("latin-1"))
