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

import torch
from safetensors import safe_open

from models.checkpoint import CheckpointError, config_path, weight_files
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
    with safe_open(file, framework="pt") as tensors:
        for name in filter(_ROUTER.search, tensors.keys()):
            stored = tensors.get_slice(name)
            label = json.dumps([name, stored.get_dtype(), stored.get_shape()]).encode()
            weights = tensors.get_tensor(name).reshape(-1).view(torch.uint8)
            yield name, label + weights.numpy().tobytes()
