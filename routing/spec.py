"""The routers of one loaded model, as far as a policy needs to know them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class RouterSpec:
    """The routers of one loaded model.

    layers: decoder layer index, as in the checkpoint, of each of the L MoE layers.
    num_experts: E, the same in every layer.
    top_k: K, the model's own number of experts per token.
    max_top_k: the server's `--max-experts-per-token`; K <= max_top_k <= E.
    fingerprint: of the routers' weights, see `routing.trace`.
    """

    layers: tuple[int, ...]
    num_experts: int
    top_k: int
    max_top_k: int
    fingerprint: str = "0" * 16

    def as_dict(self) -> dict[str, Any]:
        """The JSON form; `from_dict` gives the spec back."""
        return {**asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> RouterSpec:
        """The inverse of `as_dict`."""
        return cls(**{**fields, "layers": tuple(fields["layers"])})

    @classmethod
    def union(cls, parts: Sequence[RouterSpec]) -> RouterSpec:
        """The model's routers, from what each worker holds: pipeline stages have other layers.

        Raises ValueError where the parts differ in anything else.
        """
        layers = tuple(sorted({layer for part in parts for layer in part.layers}))
        wholes = {replace(part, layers=layers) for part in parts}
        if len(wholes) != 1:
            raise ValueError(f"the workers' routers differ: {sorted(map(str, parts))}")
        return wholes.pop()
