"""Workaround: on CPU, vLLM 0.32 dies of a seeded request whose prompt is chunked.

A chunk that does not end the prompt samples a token that is thrown away, and the request's
random generator is then set back by `set_offset`, which CPU generators do not have. Here
they are set back by their state, so that chunks do not change a seeded request's tokens.
To be deleted when `GPUModelRunner._bookkeeping_sync` no longer calls `set_offset` on CPU:
then `tests/engine/test_engine.py::test_chunks_do_not_disturb_seeded_tokens` passes without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch


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
