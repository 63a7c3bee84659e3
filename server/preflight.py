"""Checks before anything slow starts: one clear line saying what is wrong and what to do."""

from __future__ import annotations

import importlib.metadata
import os
import socket
from pathlib import Path

import psutil

GIB = 2**30
# vLLM's processes (front end, engine core, one worker) without weights and cache.
BASE_BYTES = 3 * GIB


_claims: list[socket.socket] = []  # open as long as the process lives


class CannotStartError(RuntimeError):
    """The server cannot start here; the message says why and what to do."""


def check_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Refuse a CPU that vLLM's CPU build has no code for."""
    if os.path.exists("/dev/nvidiactl") or not cpuinfo.exists():
        return
    text = cpuinfo.read_text()
    if "flags" in text and "avx2" not in text.split():
        raise CannotStartError(
            "this CPU has no AVX2, which vLLM's CPU build needs: use a machine from 2015 or later"
        )


def check_plugins() -> None:
    """Refuse to start where vLLM would not find Galton: it swallows a plugin's errors, and would
    serve without it.
    """
    for group in ("vllm.general_plugins", "vllm.endpoint_plugins"):
        entries = importlib.metadata.entry_points(group=group, name="galton")
        if not entries:
            raise CannotStartError(f"Galton is not among vLLM's plugins ({group}): run make setup")
        for entry in entries:
            try:
                entry.load()
            except (ImportError, AttributeError) as error:
                raise CannotStartError(
                    f"Galton's plugin {entry.value} cannot be loaded ({error}): run make setup"
                ) from None


def check_port(host: str | None, port: int, flag: str = "--port") -> None:
    """Refuse a port that somebody else listens on, or that another server claims as it starts.

    vLLM listens once the engine runs only, and of two servers that start together the second would
    say that it is up, and never be asked.
    """
    family = socket.AF_INET6 if host and ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host or "", port))
        except OSError as error:
            raise CannotStartError(
                f"port {port} cannot be used ({error.strerror}): stop the program that has it, "
                f"or choose another with {flag} {port + 1}"
            ) from None
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0galton:{host or ''}:{port}")  # of this network namespace, as ports are
    except OSError:
        claim.close()
        raise CannotStartError(
            f"port {port} is taken by another server that is starting: "
            f"choose another with {flag} {port + 1}"
        ) from None
    _claims.append(claim)


def check_memory(model: str, cache_bytes: int | None, available: int | None = None) -> None:
    """Refuse a model that plainly does not fit: weights, key-value cache and vLLM itself.

    Only a local directory can be measured before it is loaded.
    """
    weights = sum(f.stat().st_size for f in Path(model).glob("*.safetensors"))
    if not weights or os.path.exists("/dev/nvidiactl"):
        return
    available = psutil.virtual_memory().available if available is None else available
    cache = cache_bytes or GIB
    needed = weights + cache + BASE_BYTES
    if available < needed:
        raise CannotStartError(
            f"too little memory: {available / GIB:.1f} GiB free, about {needed / GIB:.1f} GiB "
            f"needed (weights {weights / GIB:.1f}, key-value cache {cache / GIB:.1f}, "
            f"vLLM {BASE_BYTES / GIB:.0f}): close other programs or use --kv-cache-memory-bytes"
        )
