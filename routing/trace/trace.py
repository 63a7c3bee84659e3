"""A trace's format. The layout is little-endian: a header of 32 bytes

    offset  type    what
    0       4 s     "GLTN"
    4       u16     version, 1
    6       u16     flags: 1, weights follow the ids
    8       8 s     the model's fingerprint; zeros where it is unknown
    16      u32     position of the first token
    20      u32     N, tokens
    24      u32     E, experts
    28      u16     L, MoE layers
    30      u16     K, slots per token and layer

then u16 [L] the decoder layers' indices, u8 [N] whether the model's own router chose,
i16 [N, L, K] expert ids, and f32 [N, L, K] their weights where the flag says so.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pybase64

from routing.policy.keys import FOREIGN_DTYPES
from routing.spec import RouterSpec

_HEADER: Final = struct.Struct("<4sHH8sIIIHH")
_MAGIC: Final = b"GLTN"
_VERSION: Final = 1
_HAS_WEIGHTS: Final = 1
UNKNOWN_MODEL: Final = "0" * 16


class TraceError(ValueError):
    """Bytes that are no trace; the message says what was expected of them."""


@dataclass(frozen=True, eq=False)
class Trace:
    """The experts of N consecutive tokens of one sequence. Arrays that were decoded are read-only.

    layers: [L] decoder layer index of each MoE layer. num_experts: E.
    topk_ids: [N, L, K] int16, best first; -1 in a slot that the token does not use, and in
        every slot of a token that was not computed, as where its keys and values came from
        the prefix cache.
    native: [N] bool, whether the model's own router chose. Replayed, such a token keeps the
        model's own weights bit for bit, as long as the model's router still agrees.
    topk_weights: [N, L, K] float32, 0 where the id is -1; None where not asked for.
    first_position: absolute position of the first token.
    fingerprint: of the model, 16 hexadecimal digits.

    The last token of an answer has no row: it was sampled and never computed.
    """

    layers: tuple[int, ...]
    num_experts: int
    topk_ids: npt.NDArray[np.int16]
    native: npt.NDArray[np.bool_]
    topk_weights: npt.NDArray[np.float32] | None = None
    first_position: int = 0
    fingerprint: str = UNKNOWN_MODEL

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and self.encode() == other.encode()

    @property
    def end(self) -> int:
        """Position after the last token."""
        return self.first_position + self.topk_ids.shape[0]

    @property
    def computed(self) -> npt.NDArray[np.bool_]:
        """[N] whether the token has its experts here."""
        mask: npt.NDArray[np.bool_] = self.topk_ids[:, 0, 0] >= 0
        return mask

    def experts(self, position: int, layer_index: int) -> npt.NDArray[np.int64]:
        """The experts, best first, of the token at an absolute position; none if not held."""
        row = position - self.first_position
        if not 0 <= row < len(self.native):
            return np.zeros(0, np.int64)
        ids = self.topk_ids[row, layer_index].astype(np.int64)
        return ids[ids >= 0]

    def encode(self) -> bytes:
        """The layout above."""
        return self._encoded

    @cached_property
    def _encoded(self) -> bytes:
        num_tokens, num_layers, top_k = self.topk_ids.shape
        has_weights = self.topk_weights is not None
        header = _HEADER.pack(
            _MAGIC,
            _VERSION,
            _HAS_WEIGHTS if has_weights else 0,
            bytes.fromhex(self.fingerprint),
            self.first_position,
            num_tokens,
            self.num_experts,
            num_layers,
            top_k,
        )
        parts = [
            np.array(self.layers, "<u2"),
            self.native.astype("u1"),
            self.topk_ids.astype("<i2"),
        ]
        if self.topk_weights is not None:
            parts.append(self.topk_weights.astype("<f4"))
        return header + b"".join(part.tobytes() for part in parts)

    def encode_base64(self) -> str:
        """`encode` as the API carries it."""
        return pybase64.b64encode_as_string(self.encode())

    def description(self) -> dict[str, Any]:
        """What an echo says of it: first position, number of tokens, digest of `encode`."""
        return {
            "first_position": self.first_position,
            "tokens": len(self.native),
            "sha256": self.sha256.hex(),
        }

    @cached_property
    def sha256(self) -> bytes:
        """Digest of `encode`."""
        return hashlib.sha256(self.encode()).digest()

    def without_weights(self) -> Trace:
        """The same experts without their weights, which a replay does not use."""
        return self if self.topk_weights is None else replace(self, topk_weights=None)

    @classmethod
    def decode(cls, data: bytes | str) -> Trace:
        """From `encode`'s bytes, or from their base64. Raises TraceError."""
        raw = _from_base64(data) if isinstance(data, str) else data
        if len(raw) < _HEADER.size or raw[:4] != _MAGIC:
            raise TraceError("it does not begin with a trace's header")
        header = _HEADER.unpack_from(raw)
        _, version, flags, fingerprint, first, num_tokens, num_experts, num_layers, top_k = header
        if version != _VERSION or flags & ~_HAS_WEIGHTS:
            raise TraceError(f"version {version} with flags {flags} is not known here")
        if not (num_layers and top_k):
            raise TraceError("it has no layers or no experts")
        num_ids = num_tokens * num_layers * top_k
        sizes = (2 * num_layers, num_tokens, 2 * num_ids, 4 * num_ids if flags else 0)
        if len(raw) != _HEADER.size + sum(sizes):
            expected = _HEADER.size + sum(sizes)
            raise TraceError(f"its header tells of {expected} bytes, there are {len(raw)}")
        starts = np.cumsum((_HEADER.size, *sizes)).tolist()
        shape = (num_tokens, num_layers, top_k)
        layers, native, ids, weights = (
            np.frombuffer(memoryview(raw)[start:end], dtype)
            for start, end, dtype in zip(
                starts[:-1], starts[1:], ("<u2", "u1", "<i2", "<f4"), strict=True
            )
        )
        trace = cls(
            tuple(layers.tolist()),
            num_experts,
            ids.reshape(shape).astype(np.int16, copy=False),
            native.astype(np.bool_),
            weights.reshape(shape).astype(np.float32, copy=False) if flags else None,
            first,
            fingerprint.hex(),
        )
        if native.max(initial=0) <= 1:  # else a truth value of another writing
            trace.__dict__["_encoded"] = raw
        return trace

    @classmethod
    def from_routed_experts(
        cls,
        routed_experts: npt.NDArray[np.integer[Any]],
        layers: Sequence[int],
        num_experts: int,
        *,
        first_position: int = 0,
        fingerprint: str = UNKNOWN_MODEL,
    ) -> Trace:
        """From the array that vLLM and SGLang return, [N, L, K] expert ids of any integer type.

        Raises TraceError where the array is not of that shape or holds other numbers.
        """
        if routed_experts.dtype.kind not in "iu":
            raise TraceError(f"dtype {routed_experts.dtype} is not of integers")
        if (
            routed_experts.ndim != 3
            or not routed_experts.shape[2]
            or routed_experts.shape[1] != len(layers)
        ):
            expected = f"[tokens, {len(layers)}, top-k]"
            raise TraceError(f"shape {list(routed_experts.shape)} is not {expected}")
        if routed_experts.size and not -1 <= routed_experts.min() <= routed_experts.max() < 2**15:
            raise TraceError("expert ids must be -1 or from 0 to 32767")
        native = np.zeros(routed_experts.shape[0], np.bool_)
        ids = routed_experts.astype(np.int16)
        return cls(tuple(layers), num_experts, ids, native, None, first_position, fingerprint)


def join(parts: Iterable[Trace]) -> Trace:
    """One trace from position 0 on, from the parts that a stream brought.

    Gaps are filled with -1; of a token that was computed twice, as after a preemption, the
    later part counts. Raises TraceError without parts, or if they are of different models.
    """
    parts = list(parts)
    if not parts:
        raise TraceError("there are no parts to join")
    first = parts[0]
    if any(part.fingerprint != first.fingerprint for part in parts):
        raise TraceError("the parts are of different models")
    end = max(part.end for part in parts)
    top_k = max(part.topk_ids.shape[2] for part in parts)
    ids = np.full((end, len(first.layers), top_k), -1, np.int16)
    weights = None if first.topk_weights is None else np.zeros(ids.shape, np.float32)
    native = np.zeros(end, np.bool_)
    for part in parts:
        held = np.flatnonzero(part.computed)
        at, slots = held + part.first_position, part.topk_ids.shape[2]
        ids[at] = -1
        ids[at, :, :slots], native[at] = part.topk_ids[held], part.native[held]
        if weights is not None and part.topk_weights is not None:
            weights[at] = 0
            weights[at, :, :slots] = part.topk_weights[held]
    return replace(first, topk_ids=ids, native=native, topk_weights=weights, first_position=0)


def parse_trace(raw: object, layers: Sequence[int], num_experts: int) -> Trace:
    """A trace as a request carries it. Raises TraceError.

    raw: base64 of the layout above, or of a .npy file as vLLM's `routed_experts` is one; or,
    for bare arrays such as SGLang's, {"data": base64 of the array's bytes, "dtype": its type,
    "shape": [N, L, K], "first_position": 0}.
    """
    if isinstance(raw, str):
        decoded = _from_base64(raw)
        if not decoded.startswith(np.lib.format.MAGIC_PREFIX):
            return Trace.decode(decoded)
        return Trace.from_routed_experts(_load(decoded), layers, num_experts)
    if not isinstance(raw, Mapping):
        raise TraceError("it is neither a string of base64 nor an object")
    known = {"data", "dtype", "shape", "first_position"}
    if unknown := set(raw) - known:
        raise TraceError(f"unknown key {sorted(unknown)[0]!r}")
    dtype, shape, first = raw.get("dtype", "int32"), raw.get("shape"), raw.get("first_position", 0)
    if dtype not in FOREIGN_DTYPES:
        raise TraceError(f"dtype {dtype!r} is none of {', '.join(FOREIGN_DTYPES)}")
    if not (isinstance(shape, list) and len(shape) == 3 and all(_is_count(n) and n for n in shape)):
        raise TraceError("shape must be [tokens, layers, top-k], none of them 0")
    if not _is_count(first):
        raise TraceError("first_position must be an integer from 0")
    data = raw.get("data")
    if not isinstance(data, str):
        raise TraceError("data must be a string of base64")
    number, bytes_of_ids = np.dtype(dtype).newbyteorder("<"), _from_base64(data)
    if len(bytes_of_ids) != number.itemsize * shape[0] * shape[1] * shape[2]:
        raise TraceError(f"data holds {len(bytes_of_ids)} bytes, not {shape} of {dtype}")
    array: npt.NDArray[Any] = np.frombuffer(bytes_of_ids, number).reshape(shape)
    return Trace.from_routed_experts(array, layers, num_experts, first_position=first)


def check_trace(trace: Trace, spec: RouterSpec) -> None:
    """Raises TraceError unless the trace can be replayed by a model with these routers.

    A trace of an unknown model is taken at its word.
    """
    known = UNKNOWN_MODEL not in (trace.fingerprint, spec.fingerprint)
    if known and trace.fingerprint != spec.fingerprint:
        raise TraceError(f"it is of model {trace.fingerprint}, this is {spec.fingerprint}")
    if trace.layers != spec.layers:
        raise TraceError(f"its MoE layers {list(trace.layers)} are not {list(spec.layers)}")
    if trace.num_experts != spec.num_experts:
        raise TraceError(f"it has {trace.num_experts} experts, the model {spec.num_experts}")
    # Column by column, in vector instructions: traces may have millions of ids.
    num_tokens, num_layers, top_k = trace.topk_ids.shape
    ids = np.ascontiguousarray(trace.topk_ids.reshape(-1, top_k).T)
    if ids.size and not -1 <= ids.min() <= ids.max() < spec.num_experts:
        raise TraceError(f"expert ids must be -1 or from 0 to {spec.num_experts - 1}")
    used = ids >= 0
    if (used[1:] > used[:-1]).any():
        raise TraceError("a token's experts must come before its -1")
    computed = used[0].reshape(num_tokens, num_layers)
    if (computed != computed[:, :1]).any():
        raise TraceError("a token must have experts in every layer, or in none")
    if used[spec.max_top_k :].any():
        raise TraceError(f"a token may have at most {spec.max_top_k} experts")
    for column in range(1, top_k):
        if ((ids[:column] == ids[column]) & used[column]).any():
            raise TraceError("a token has the same expert twice")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _load(file: bytes) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(io.BytesIO(file), allow_pickle=False)
    except (ValueError, EOFError, MemoryError):  # the last for a shape that is a lie
        raise TraceError("it is a .npy file that cannot be read") from None
    return array


def _from_base64(text: str) -> bytes:
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        raise TraceError("it is not base64") from None
