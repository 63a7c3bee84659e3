"""The pictures: accuracy by policy, passes at n, and which experts serve what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from loadtests.quality.measure import PASSES, Measured, score
from loadtests.quality.rows import CONTROL, DEMO, OWN
from loadtests.quality.usage import Usage
from models.demo import EXPERTS, LAYERS, TOP_K

GROUPS: Final = ("translation", "questions")
PASSES_SHOWN: Final = (
    *("sample 0.7, all", "sample 1, all", "sample 1.5, all", "preset diverse"),
    *("tokens at T=0.5", "tokens at T=1"),
)


def draw(out: Path, measured: Sequence[Measured], usages: dict[str, Usage]) -> None:
    """Write accuracy.svg, passes.svg, and usage.png of the demo."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "galton"
    found = {m.row.key: m for m in measured}
    _accuracy(found, out / "accuracy.svg")
    _passes(found, out / "passes.svg")
    _usage(usages[DEMO], out / "usage.png")


def _accuracy(found: dict[str, Measured], path: Path) -> None:
    from matplotlib import pyplot

    figure, (by_k, by_t) = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for color_index, group in enumerate(GROUPS):
        for checkpoint, style in ((DEMO, "-"), (CONTROL, "--")):
            label = group if checkpoint == DEMO else f"{group}, control"
            look: dict[str, Any] = {"color": f"C{color_index}", "linestyle": style, "label": label}
            ks = [(k, OWN if k == TOP_K else f"{OWN} {k}") for k in range(1, EXPERTS + 1)]
            _line(by_k, found, checkpoint, group, ks, look)
            ts = [(0.0, OWN), *((t, f"sample {t:g}, all") for t in (0.3, 0.5, 0.7, 1.0, 1.5))]
            _line(by_t, found, checkpoint, group, ts, look)
    by_k.set(xlabel="experts per token, top_k", ylabel="right answers", ylim=(0.8, 1))
    by_t.set(xlabel="temperature of sample, scope all; 0 is top_k")
    by_t.legend(fontsize="small")
    _save(figure, path)


def _line(
    axes: Any,
    found: dict[str, Measured],
    checkpoint: str,
    group: str,
    points: Sequence[tuple[float, str]],
    look: dict[str, Any],
) -> None:
    """One line with 95 % intervals through the rows that were measured."""
    rows = [(x, found.get(f"{checkpoint} {name}")) for x, name in points]
    at = [(x, s) for x, m in rows if m and (s := score(m.scores, group))]
    if not at:
        return
    shares = np.array([s.right / s.total for _, s in at])
    low, high = np.array([s.interval for _, s in at]).T
    errors = [shares - low, high - shares]
    axes.errorbar([x for x, _ in at], shares, errors, capsize=2, marker=".", **look)


def _passes(found: dict[str, Measured], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.5, 4), layout="constrained")
    for name in PASSES_SHOWN:
        measured = found.get(f"{DEMO} {name}")
        if measured and (passes := measured.passes):
            style = "--" if name.startswith("tokens") else "-"
            axes.errorbar(PASSES, passes.share, passes.half, capsize=2, linestyle=style, label=name)
    axes.set(xlabel="answers, n", ylabel="one of n is right", xscale="log", xticks=PASSES)
    axes.set_xticklabels(map(str, PASSES))
    axes.minorticks_off()
    axes.legend(fontsize="small")
    _save(figure, path)


def _usage(usage: Usage, path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(14, 5), layout="constrained")
    relative = (usage.share * EXPERTS).reshape(len(usage.kinds), LAYERS * EXPERTS)
    top = float(np.quantile(relative, 0.995))
    image = axes.imshow(relative, aspect="auto", cmap="magma", vmin=0, vmax=top)
    for layer in range(1, LAYERS):
        axes.axvline(layer * EXPERTS - 0.5, color="white", linewidth=1)
    middles = [layer * EXPERTS + EXPERTS / 2 - 0.5 for layer in range(LAYERS)]
    axes.set_xticks(middles, [f"layer {layer}" for layer in range(LAYERS)])
    axes.set_yticks(range(len(usage.kinds)), usage.kinds)
    axes.set_xlabel(f"experts 0 to {EXPERTS - 1} of each layer")
    figure.colorbar(image, label="load over an even share")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    # No date: the same results give the same file.
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
