"""What makes the weights what they are: numbers, and how two of them change on the way."""

from __future__ import annotations

from dataclasses import dataclass

from models.demo import LAYERS

WARM_UP_STEPS, FLAT_SHARE = 50, 0.4


@dataclass(frozen=True)
class Recipe:
    """Stored with a run's state; the same on resuming."""

    seed: int
    routing: str  # sample: stochastic; top_k: the control
    threads: int
    lr: float
    aux_coef: float
    start_temperature: float
    end_temperature: float
    layers: int = LAYERS

    def temperature(self, progress: float) -> float:
        """The highest temperature of a sequence: annealed in a straight line; progress is 0..1."""
        if self.routing == "top_k":
            return 0.0
        return self.start_temperature + progress * (self.end_temperature - self.start_temperature)

    def learning_rate(self, progress: float, step: int) -> float:
        """50 steps up, flat until 40 % of the steps, then straight to zero."""
        falling = max(0.0, (1 - progress) / (1 - FLAT_SHARE))
        return self.lr * min(1.0, (step + 1) / WARM_UP_STEPS, falling)
