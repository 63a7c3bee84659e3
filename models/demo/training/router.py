"""What training puts in place of the routers: experts chosen by Gumbel-top-k."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen3MoeForCausalLM

from models.demo.training.noise import Draw


class StochasticRouter:
    """Replaces a router's forward: Gumbel-top-k, the `sample` mode of serving, in training.

    With a draw the experts are the top k of logits + temperature * Gumbel noise, the noise that
    serving draws for the same seed, layer and position; without one they are the top k of the
    logits. Weights come from the clean logits of the chosen experts,
    so the gradient flows through these experts and their weights, never through the choice.

    aux_loss: the load-balancing loss of the last call, E * sum over experts of (share of
    assignments * mean probability), 1 when balanced; Switch Transformers, arXiv 2101.03961. A loss
    and not a selection bias: Qwen3-MoE has no place for a bias, so the exported model would route
    differently from the trained one.
    load: [E], each expert's share of assignments in the last call.
    """

    def __init__(self, router: Any, layer: int) -> None:
        self.router, self.layer = router, layer
        self.draw: Draw | None = None
        self.aux_loss = torch.zeros(())
        self.load = torch.zeros(router.weight.shape[0])

    def __call__(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(logits [T, E], weights [T, K], ids [T, K]), as transformers' router returns them."""
        with torch.autocast("cpu", enabled=False):
            flat = hidden.reshape(-1, hidden.shape[-1]).float()
            logits = F.linear(flat, self.router.weight.float())
        ids = self._choose(logits.detach())
        probs = logits.softmax(dim=-1)
        chosen = probs.gather(1, ids)
        self.load = torch.bincount(ids.reshape(-1), minlength=logits.shape[-1]) / ids.numel()
        self.aux_loss = logits.shape[-1] * (self.load * probs.mean(dim=0)).sum()
        return logits, chosen / chosen.sum(dim=-1, keepdim=True), ids

    def _choose(self, logits: Tensor) -> Tensor:
        if self.draw is not None:
            logits = logits.double() + self.draw.noise(self.layer, logits.shape[1])
        return logits.topk(self.router.top_k, dim=-1).indices


def add_routers(model: Qwen3MoeForCausalLM) -> list[StochasticRouter]:
    """Put a `StochasticRouter` in every layer; returns them."""
    layers = model.model.layers
    routers = [StochasticRouter(layer.mlp.gate, i) for i, layer in enumerate(layers)]
    for layer, router in zip(layers, routers, strict=True):
        layer.mlp.gate.forward = router
    return routers
