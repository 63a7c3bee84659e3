"""What temperature does to the chosen experts: `python -m routing.bench.overlap` draws overlap.svg.

Mean share of the clean top-k that `sample` and `head_sample` keep, over 300 tokens with
normal logits of three spreads, 8 of 64 experts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from routing.policy.modes import MODES
from routing.reference.route import select_experts
from routing.reference.rule import RouterRule

NUM_EXPERTS, TOP_K, NUM_TOKENS = 64, 8, 300
SPREADS = {"flat (0.5)": 0.5, "middling (1)": 1.0, "peaked (3)": 3.0}
TEMPERATURES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)


def kept(mode: str, spread: float, temperature: float) -> float:
    """Share of the clean top-k among the chosen experts, from 0 to 1."""
    rng = np.random.default_rng(0)
    shared = 0
    for position in range(NUM_TOKENS):
        logits = rng.normal(0, spread, NUM_EXPERTS)
        clean = np.argsort(-logits)[:TOP_K]
        numbers = {"top_k": TOP_K, "head": TOP_K // 2 + 1, "pool": 4 * TOP_K}
        _, ids = select_experts(
            logits,
            mode,
            {**numbers, "temperature": temperature},
            rule=RouterRule(),
            native_top_k=TOP_K,
            position=position,
        )
        shared += np.isin(clean, ids).sum()
    return float(shared / (NUM_TOKENS * TOP_K))


def draw(path: Path) -> None:
    """Write the picture."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "galton"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for color_index, (name, spread) in enumerate(SPREADS.items()):
        for mode, style in (("sample", "-"), ("head_sample", "--")):
            assert mode in MODES
            line: list[Any] = [kept(mode, spread, t) for t in TEMPERATURES]
            axes.plot(TEMPERATURES, line, style, color=f"C{color_index}", label=f"{mode}, {name}")
    axes.axhline(TOP_K / NUM_EXPERTS, color="grey", linewidth=0.8)
    axes.annotate("uniform", (2.0, TOP_K / NUM_EXPERTS), (1.78, 0.06), color="grey")
    axes.set(xlabel="temperature", ylabel="share of the clean top-8 kept", ylim=(0, 1.02))
    axes.legend(fontsize="small", ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(__file__).with_name("overlap.svg"))
