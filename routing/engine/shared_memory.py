"""Memory that a worker and the API process both map; gone with the last, however they end."""

from __future__ import annotations

import mmap
import os


def create(num_bytes: int) -> tuple[mmap.mmap, str]:
    """Memory of zeros, and a path to it for the same user's processes, while this one lives."""
    file = os.memfd_create("galton")
    os.ftruncate(file, num_bytes)
    return mmap.mmap(file, num_bytes), f"/proc/{os.getpid()}/fd/{file}"


def open_to_read(path: str) -> mmap.mmap:
    """What `create` made in another process. Raises OSError."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
