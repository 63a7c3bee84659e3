"""The GPU's backend: the Triton kernel on tensors that follow the arrays of `StepState`.

The tensors are made once and only written to: a captured launch follows the next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from routing.counts import Counts, Memory
from routing.gpu.route import route
from routing.reference.rule import RouterRule
from routing.spec import RouterSpec
from routing.state import COUNTED, RoutedRequest, StepState
from routing.step import Step


class GpuBackend:
    """A `routing.backend.Backend`. Without a GPU, for Triton's interpreter, its device is cpu."""

    def __init__(
        self,
        spec: RouterSpec,
        rules: Sequence[RouterRule],
        max_num_tokens: int,
        max_num_seqs: int,
        memory: Memory | None = None,
    ) -> None:
        self.state = StepState(spec, rules, max_num_tokens, max_num_seqs, memory)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        on_host = map(torch.from_numpy, self.state.arrays)
        self.step = Step(*(tensor.to(self.device, copy=True) for tensor in on_host))

    def begin_step(
        self,
        requests: Sequence[RoutedRequest],
        num_scheduled_tokens: npt.NDArray[np.integer[Any]],
        num_computed_tokens: npt.NDArray[np.integer[Any]],
    ) -> None:
        """See `Backend`. Copies every array but those that the kernel writes."""
        self.state.begin_step(requests, num_scheduled_tokens, num_computed_tokens)
        for name, array in self.state.arrays._asdict().items():
            if name not in COUNTED and name != "expert_step":
                getattr(self.step, name).copy_(torch.from_numpy(array))

    def route(
        self,
        router_logits: torch.Tensor,
        native_weights: torch.Tensor,
        native_ids: torch.Tensor,
        layer_index: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Backend`."""
        shape = (len(native_ids), self.state.spec.max_top_k)
        topk_weights, topk_ids = native_weights.new_empty(shape), native_ids.new_empty(shape)
        route(
            router_logits.contiguous(),
            native_weights.contiguous(),
            native_ids.contiguous(),
            topk_weights,
            topk_ids,
            layer_index,
            self.step,
        )
        return topk_weights, topk_ids

    def end_step(self) -> None:
        """See `Backend`."""
        self.state.end_step()
        self.step.num_tokens.zero_()

    def counts(self) -> Counts:
        """See `Backend`. Until then the host's have what the host counts alone."""
        for name in COUNTED:
            getattr(self.state.counts, name)[...] = getattr(self.step, name).cpu().numpy()
        return self.state.counts
