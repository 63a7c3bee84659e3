"""`galton top`: what the experts of a running server do, in the terminal."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from server.cli.flags import add_url
from server.names import (
    EXPERT_ASSIGNMENTS,
    NAMES,
    NATIVE_ASSIGNMENTS,
    POLICY_ASSIGNMENTS,
    ROUTED_TOKENS,
    ROUTER_ENTROPY,
)
from server.preflight import CannotStartError

TIMEOUT_SECONDS: Final = 10
MAX_ROWS: Final = 8

# In the order of which a scrape has the labels of Galton's metrics; of others, by name.
LABELS: Final = {name.name: [x for x in name.labels if x != "model_name"] for name in NAMES}
Labels = tuple[str, ...]


class Scrape(NamedTuple):
    """One page of metrics. at: when, in seconds of a steady clock. values: by name, then labels."""

    at: float
    values: Mapping[str, Mapping[Labels, float]]


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "top",
        help="watch the experts of a running server",
        description="Show what the experts of a running server do, from its /metrics: load, "
        "balance, dead experts, policies, throughput. Ctrl-C ends it.",
        allow_abbrev=False,
    )
    add_url(parser)
    parser.add_argument(
        "--interval", type=float, default=2.0, metavar="S", help="seconds (default: %(default)g)"
    )
    parser.add_argument("--once", action="store_true", help="show one interval, then end")
    parser.add_argument("--json", action="store_true", help="print JSON; with --once")
    parser.set_defaults(run=partial(run, parser))


def run(parser: argparse.ArgumentParser, args: argparse.Namespace, unknown: Sequence[str]) -> int:
    """Watch until Ctrl-C. Raises CannotStartError."""
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if args.interval <= 0:
        parser.error(f"--interval must be above 0, got {args.interval:g}")
    if args.json and not args.once:
        parser.error("--json needs --once")
    before = scrape(args.url)
    if args.once:
        time.sleep(args.interval)
        seen = view(scrape(args.url), before)
        if args.json:
            print(json.dumps(seen, indent=2))
        else:
            Console().print(shown(seen, args.url))
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        watch(args.url, args.interval, before)
    return 0


def watch(url: str, interval: float, before: Scrape) -> None:
    """Draw the screen anew after each interval."""
    with Live(screen=True, auto_refresh=False) as live:
        live.update("watching…", refresh=True)
        while True:
            time.sleep(interval)
            try:
                now = scrape(url)
            except CannotStartError as error:  # gone for a while: it may come back
                live.update(f"{error}", refresh=True)
                continue
            live.update(shown(view(now, before), url), refresh=True)
            before = now


def scrape(url: str) -> Scrape:
    """Raises CannotStartError."""
    page = url.rstrip("/") + "/metrics"
    try:
        with urllib.request.urlopen(page, timeout=TIMEOUT_SECONDS) as answer:
            text = answer.read().decode()
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise CannotStartError(f"{page} cannot be read: {error}") from None
    values: dict[str, dict[Labels, float]] = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            keys = LABELS.get(sample.name, sorted(sample.labels))
            values[sample.name][tuple(sample.labels[key] for key in keys)] = sample.value
    if ROUTED_TOKENS.name not in values:
        raise CannotStartError(f"{page} is not a Galton's: it has no {ROUTED_TOKENS.name}")
    return Scrape(time.monotonic(), values)


def view(now: Scrape, before: Scrape) -> dict[str, Any]:
    """What happened between two scrapes, rates per second."""
    seconds = now.at - before.at

    def rates(name: str) -> dict[Labels, float]:
        """0 where a counter began anew."""
        then = before.values.get(name, {})
        return {
            labels: max(0.0, value - then.get(labels, 0.0)) / seconds
            for labels, value in now.values.get(name, {}).items()
        }

    def total(name: str) -> float:
        return sum(now.values.get(name, {}).values())

    by_layer: dict[str, dict[str, float]] = defaultdict(dict)
    for (layer, expert), rate in rates(EXPERT_ASSIGNMENTS.name).items():
        by_layer[layer][expert] = rate
    ratios = [
        (rate * len(experts) / total_rate, layer, expert)
        for layer, experts in by_layer.items()
        if (total_rate := sum(experts.values()))
        for expert, rate in experts.items()
    ]
    hottest = sorted(ratios, reverse=True)
    worst = {layer: ratio for ratio, layer, _ in sorted(ratios)}
    entropy, tokens = (sum(rates(f"{ROUTER_ENTROPY.name}_{x}").values()) for x in ("sum", "count"))
    return {
        "seconds": round(seconds, 3),
        "running": total("vllm:num_requests_running"),
        "waiting": total("vllm:num_requests_waiting"),
        "kv_cache_usage": total("vllm:kv_cache_usage_perc"),
        "tokens_per_second": {
            "prompt": sum(rates("vllm:prompt_tokens_total").values()),
            "answer": sum(rates("vllm:generation_tokens_total").values()),
        },
        "imbalance": {layer: round(ratio, 3) for layer, ratio in worst.items()},
        "router_entropy_nats": entropy / tokens if tokens else None,
        "hottest": [
            {"layer": layer, "expert": expert, "ratio": round(ratio, 3)}
            for ratio, layer, expert in hottest[:MAX_ROWS]
        ],
        "dead": sum(ratio == 0 for ratio, _, _ in ratios),
        "experts": len(ratios),
        "policies": _policies(rates),
    }


def _policies(rates: Any) -> list[dict[str, Any]]:
    """Those that route tokens now, the busiest first."""
    tokens: dict[Labels, float] = defaultdict(float)
    for (mode, preset, _), rate in rates(ROUTED_TOKENS.name).items():
        tokens[mode, preset] += rate
    computed, native = rates(POLICY_ASSIGNMENTS.name), rates(NATIVE_ASSIGNMENTS.name)
    return [
        {
            "mode": pair[0],
            "preset": pair[1],
            "tokens_per_second": round(rate, 2),
            "experts_saved": round(1 - computed[pair] / native[pair], 4) if native[pair] else None,
        }
        for pair, rate in sorted(tokens.items(), key=lambda item: -item[1])
        if rate
    ]


def shown(seen: dict[str, Any], url: str) -> Any:
    """The screen, for 80 columns."""
    tokens = seen["tokens_per_second"]
    entropy = seen["router_entropy_nats"]
    worst = max(seen["imbalance"].values(), default=None)
    head = Table.grid(expand=True)
    for _ in range(3):
        head.add_column(ratio=1)
    head.add_row(
        f"running [b]{seen['running']:.0f}[/b]  waiting [b]{seen['waiting']:.0f}[/b]",
        f"answer [b]{tokens['answer']:.1f}[/b] tokens/s",
        f"prompt [b]{tokens['prompt']:.1f}[/b] tokens/s",
    )
    head.add_row(
        f"cache [b]{seen['kv_cache_usage']:.0%}[/b]",
        "imbalance " + ("-" if worst is None else f"[b]{worst:.2f}[/b]"),
        "router entropy " + ("-" if entropy is None else f"[b]{entropy:.2f}[/b] nats"),
    )
    return Group(Panel(head, title=f"Galton at {url}"), _experts(seen), _modes(seen))


def _experts(seen: dict[str, Any]) -> Any:
    table = Table(expand=True, title=f"Hottest experts; {seen['dead']} of {seen['experts']} idle")
    for name in ("layer", "expert", "load / fair share"):
        table.add_column(name, justify="right")
    table.add_column("", ratio=1)
    for row in seen["hottest"]:
        bar = ProgressBar(total=seen["hottest"][0]["ratio"] or 1, completed=row["ratio"])
        table.add_row(row["layer"], row["expert"], f"{row['ratio']:.2f}", bar)
    return table


def _modes(seen: dict[str, Any]) -> Any:
    table = Table(expand=True, title="Policies")
    table.add_column("mode")
    table.add_column("preset", ratio=1)
    table.add_column("tokens/s", justify="right")
    table.add_column("experts saved", justify="right")
    for row in seen["policies"][:MAX_ROWS]:
        saved = row["experts_saved"]
        table.add_row(
            row["mode"],
            row["preset"],
            f"{row['tokens_per_second']:.1f}",
            "-" if saved is None else f"{saved:.0%}",
        )
    return table
