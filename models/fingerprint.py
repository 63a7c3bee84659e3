"""A model's fingerprint: by which a trace is recognized as this model's own.

Made of the routers' weights as the files hold them, so that it is the same whatever the
dtype, the hardware and the number of ranks that serve them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from models.checkpoint import CheckpointError, config_path, header, weight_files
from routing.trace import UNKNOWN_MODEL

# The last is Granite's.
_ROUTER: Final = re.compile(r"\.(gate|router|router\.layer)\.\w+$")


def fingerprint(model: str) -> str:
    """16 hexadecimal digits for a directory or a Hugging Face name whose files are here.

    Of the configuration alone where no router is found in safetensors files; zeros where
    there is no configuration either.
    """
    try:
        path = config_path(model)
    except CheckpointError:
        return UNKNOWN_MODEL
    digest = hashlib.sha256()
    for part in _routers(path.parent) or [path.read_bytes()]:
        digest.update(part)
    return digest.hexdigest()[:16]


def _routers(directory: Path) -> list[bytes]:
    """Name, type, shape and bytes of each router's tensors, in the order of their names."""
    found: dict[str, bytes] = {}
    for file in weight_files(directory):
        found.update(_routers_in(file))
    return [found[name] for name in sorted(found)]


def _routers_in(file: Path) -> Iterator[tuple[str, bytes]]:
    tensors = header(file)
    with file.open("rb") as opened:
        start = 8 + int.from_bytes(opened.read(8), "little")
        for name, tensor in tensors.items():
            if _ROUTER.search(name):
                begin, end = tensor["data_offsets"]
                opened.seek(start + begin)
                told = json.dumps([name, tensor["dtype"], tensor["shape"]]).encode()
                yield name, told + opened.read(end - begin)
