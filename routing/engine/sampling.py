"""Workarounds for two faults of vLLM 0.32's sampling on CPUs.

It dies of a seeded request whose prompt is chunked: a chunk that does not end the prompt samples a
token that is thrown away, and the request's random generator is then set back by `set_offset`,
which CPU generators do not have. Here they are set back by their state, so that chunks do not
change a seeded request's tokens.

Where tokens are drafted, it samples with a temperature, top_k and top_p of uninitialized memory:
the kernel that repeats them for a request's drafts takes integers, and fills a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from vllm.v1.sample import rejection_sampler

from routing.engine.hooks import wrap


def mend_drafts() -> None:
    """Before a model is loaded. Idempotent."""
    wrap(rejection_sampler, "expand_batch_to_tokens", _expand)


def _expand(
    original: Callable[..., Any],
    values: torch.Tensor,
    ends: torch.Tensor,
    num_tokens: int,
    replace_from: int = 0,
    replace_to: int = 0,
) -> torch.Tensor:
    """Each request's value [B] for each of its tokens, of which the last ones end at `ends` [B]."""
    counts = torch.diff(ends, prepend=ends.new_zeros(1))
    of_tokens = values.repeat_interleave(counts, output_size=num_tokens)
    return torch.where(of_tokens == replace_from, replace_to, of_tokens)


class SeededSampling:
    """Hooks for a V1 model runner on CPU."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self._before: dict[int, torch.Tensor] = {}

    def before_sampling(self) -> None:
        """Keep the generators' states of the rows whose token will be thrown away."""
        generators = self.runner.input_batch.generators
        self._before.clear()
        if generators:
            num_reqs = self.runner.input_batch.num_reqs
            discarded = np.flatnonzero(self.runner.discard_request_mask.np[:num_reqs])
            for row in discarded.tolist():
                if row in generators:
                    self._before[row] = generators[row].get_state()

    def bookkeeping(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Set them back, out of vLLM's sight."""
        generators = self.runner.input_batch.generators
        hidden = {row: generators.pop(row) for row in self._before}
        for row, generator in hidden.items():
            generator.set_state(self._before[row])
        try:
            return original(*args, **kwargs)
        finally:
            generators.update(hidden)
