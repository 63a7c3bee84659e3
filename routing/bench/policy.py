"""What a policy costs on its way to the engine: `python -m routing.bench.policy`.

For a model of 48 MoE layers with 128 experts: a plain policy, a bias for every expert of
every layer, and a replayed trace of 8,000 tokens. Milliseconds; the median of `--repeats`,
least and most in brackets.

`parse` and `compile` and `echo` (of body and header) run once per request in the API
process; `travel` is msgpack there and in the engine core; `key` is what prefix caching takes
once per request; `step` is what the first step of a request adds in front of a forward.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from routing.backend import Backend, begin_batch
from routing.cpu.backend import CpuBackend
from routing.policy import parse_policy
from routing.policy.compiled import CompiledPolicy, compile_policy
from routing.reference.rule import RouterRule
from routing.spec import RouterSpec
from routing.state import RoutedRequest
from routing.trace import Trace

SPEC = RouterSpec(tuple(range(48)), num_experts=128, top_k=8, max_top_k=8)
NUM_TOKENS = 8000
PARTS = ("parse", "compile", "echo", "travel", "key", "step")


def requests() -> dict[str, dict[str, Any]]:
    """The `routing` objects that are timed, by what they are called in the table."""
    rng = np.random.default_rng(0)
    rows = {
        str(layer): {str(e): round(b, 3) for e, b in enumerate(rng.uniform(-1, 1, 128).tolist())}
        for layer in SPEC.layers
    }
    # Eight different experts each, one of every sixteen.
    ids = rng.integers(0, 16, (NUM_TOKENS, len(SPEC.layers), 8)) + 16 * np.arange(8)
    trace = Trace.from_routed_experts(ids.astype(np.int16), SPEC.layers, SPEC.num_experts)
    return {
        "sample, T = 0.7": {"mode": "sample", "temperature": 0.7, "seed": 7},
        "bias for 48 x 128 experts": {"mode": "sample", "seed": 7, "bias": rows},
        "trace of 8,000 tokens": {"mode": "replay", "trace": trace.encode_base64()},
    }


def measure(routing: dict[str, Any], backend: Backend) -> dict[str, float]:
    """Milliseconds of each part, for one request."""
    seconds = {}

    def timed(part: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        out = work()
        seconds[part] = time.perf_counter() - started
        return out

    policy = timed("parse", lambda: parse_policy(routing, SPEC))
    compiled = timed("compile", lambda: compile_policy(policy, SPEC))
    timed("echo", lambda: [json.dumps(policy.shown()) for _ in range(2)])
    fields = timed("travel", lambda: msgspec.msgpack.decode(msgspec.msgpack.encode(compiled)))
    timed("key", lambda: CompiledPolicy(**fields).cache_key(NUM_TOKENS))

    def step() -> None:
        request = RoutedRequest(CompiledPolicy(**fields), NUM_TOKENS)
        begin_batch(backend, [request], np.array([1]), np.array([NUM_TOKENS - 1]))

    timed("step", step)
    return {part: taken * 1e3 for part, taken in seconds.items()}


def main() -> None:
    """Print one Markdown row per request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=21)
    args = parser.parse_args()
    backend = CpuBackend(SPEC, [RouterRule()] * len(SPEC.layers), 8, 8)
    print(f"| request | {' | '.join(PARTS)} |")
    print("|---" * (len(PARTS) + 1) + "|")
    for name, routing in requests().items():
        measure(routing, backend)
        rounds = [measure(routing, backend) for _ in range(args.repeats)]
        cells = []
        for part in PARTS:
            times = sorted(one[part] for one in rounds)
            median = statistics.median(times)
            cells.append(f"{median:.3f} ({times[0]:.3f} to {times[-1]:.3f})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
