"""The folder of the sockets between a server's processes: its user's alone, and gone with it.

vLLM makes them in /tmp, where any user may connect and where killed processes leave them.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

VARIABLE: Final = "VLLM_RPC_BASE_PATH"
_PREFIX: Final = "galton-sockets-"

_own: list[Path] = []


def make_folder() -> None:
    """Make this server's, unless the environment names one. Folders of killed servers go: a server
    that lives holds a lock on its own.
    """
    if VARIABLE in os.environ:
        return
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # locked, another user's, or gone
            os.close(_locked(left))
            shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    _locked(folder)
    os.environ[VARIABLE] = str(folder)
    _own.append(folder)
    atexit.register(remove_folder)


def remove_folder() -> None:
    """To be called by whoever ends the process without Python's own end."""
    while _own:
        shutil.rmtree(_own.pop(), ignore_errors=True)


def _locked(folder: Path) -> int:
    """The descriptor whose lock lives as long as it is open. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
