"""Small file systems for tests that fill them or cut their power; needs root."""

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

# Source: fs/ext4/ext4.h, _IOR('X', 125, __u32); "going down without flushing the journal".
EXT4_IOC_SHUTDOWN = 0x8004587D
EXT4_GOING_FLAGS_NOLOGFLUSH = (2).to_bytes(4, "little")


@contextlib.contextmanager
def mounted(*arguments: str, at: Path) -> Iterator[Path]:
    """Mount a disk at a directory; skip the test without the permission."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a disk")
    at.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *arguments, str(at)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs to be allowed to mount: {done.stderr.strip()}")
    try:
        yield at
    finally:
        if subprocess.run(["umount", str(at)], check=False, capture_output=True).returncode:
            # A process still uses it; the loop device is removed after the last one.
            subprocess.run(["umount", "--lazy", str(at)], check=True)


def tmpfs(at: Path, options: str) -> "contextlib.AbstractContextManager[Path]":
    """Mount a disk in memory."""
    return mounted("-t", "tmpfs", "-o", options, "lakewriter-test", at=at)


class Ext4:
    """An ext4 file system in a file, which keeps little order beyond what fsync demands.

    Args:
        image: the file, which is created.
        at: the directory to mount it at.
    """

    def __init__(self, image: Path, at: Path) -> None:
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("needs mkfs.ext4")
        self._image, self._at = image, at
        with image.open("wb") as file:
            file.truncate(64 * 1024 * 1024)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)

    def mounted(self) -> "contextlib.AbstractContextManager[Path]":
        """Mount it; after a power loss this replays its journal."""
        return mounted("-o", "loop,noauto_da_alloc,data=writeback,commit=600", str(self._image), at=self._at)


def cut_power(mount: Path) -> None:
    """End an ext4 at once; writes that it has not sent are lost."""
    fd = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH)
    finally:
        os.close(fd)
