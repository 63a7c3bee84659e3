"""Training's noise, which is serving's: for all tokens of a batch at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from routing.cpu.noise import gumbel_into
from routing.policy.seed import derive_seed


@dataclass(frozen=True)
class Draw:
    """With what the routers of a step draw: each of its B sequences has a seed and a temperature.

    seeds: [B] uint64. temperatures: [B] float64. length: S, tokens of each sequence.
    """

    seeds: NDArray[np.uint64]
    temperatures: NDArray[np.float64]
    length: int

    @classmethod
    def of_step(cls, seed: int, step: int, shape: tuple[int, int], hottest: float) -> Draw:
        """Of step number `step` of a run: temperatures below `hottest` for a batch [B, S]."""
        num_sequences, length = shape
        of_step = derive_seed(seed, step + 1)
        seeds = [derive_seed(of_step, row + 1) for row in range(num_sequences)]
        generator = torch.Generator().manual_seed(of_step)
        temperatures = torch.rand(num_sequences, generator=generator, dtype=torch.float64) * hottest
        return cls(np.array(seeds, np.uint64), temperatures.numpy(), length)

    def noise(self, layer: int, num_experts: int) -> Tensor:
        """[B * S, E] float64: of each token, its sequence's temperature times Gumbel noise.

        The noise is `routing.reference.noise.gumbel(seed, layer, position, E)`: a request with that
        seed, mode sample and that temperature, has the same in the server.
        """
        width = -(-num_experts // 4) * 4
        noise = np.empty((len(self.seeds), self.length, width))
        _fill(noise, np.empty(width), self.seeds, self.temperatures, layer)
        return torch.from_numpy(noise).view(-1, width)[:, :num_experts]


@njit(error_model="numpy", nogil=True)
def _fill(noise: Any, scratch: Any, seeds: Any, temperatures: Any, layer: Any) -> None:
    for row in range(noise.shape[0]):
        for position in range(noise.shape[1]):
            token = noise[row, position]
            gumbel_into(token, scratch, seeds[row], layer, position)
            token *= temperatures[row]
