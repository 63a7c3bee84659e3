"""The GPU kernel's cost beside torch's softmax and top-k: `python -m routing.bench.gpu`.

One layer's router call on a GPU, with nothing of vLLM. `torch` is softmax, top-k and
renormalization of float32 logits; ours is the Triton kernel with every token following a
policy, a column for each mode. All are captured in CUDA graphs, as a server replays them, so
that launches from Python do not count. Alternating; the median of `--repeats` rounds, and the
smallest and largest of their ratios ours / torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import triton

from routing.backend import begin_batch
from routing.gpu.backend import GpuBackend
from routing.policy import parse_policy
from routing.policy.compiled import compile_policy
from routing.policy.modes import MODES
from routing.reference.rule import RouterRule
from routing.spec import RouterSpec
from routing.state import RoutedRequest

TOKENS = (1, 8, 64, 512, 4096)
EXPERTS = (8, 64, 128, 256, 512)
CALLS_PER_GRAPH = 20

Router = Callable[[], tuple[torch.Tensor, torch.Tensor]]


def torch_router(logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the kernel is compared with: [T, K] weights float32 and ids int32."""
    weights, ids = torch.topk(torch.softmax(logits, dim=-1), top_k)
    return weights / weights.sum(dim=-1, keepdim=True), ids.int()


def our_router(logits: torch.Tensor, mode: str, top_k: int) -> Router:
    """A call of the kernel on logits [T, E], every token following one request's policy."""
    num_tokens, num_experts = logits.shape
    spec = RouterSpec((0,), num_experts, top_k, top_k)
    backend = GpuBackend(spec, [RouterRule()], num_tokens, 1)
    policy = parse_policy({"mode": mode, "seed": 1, "scope": "all"}, spec)
    request = RoutedRequest(compile_policy(policy, spec), 0)
    begin_batch(backend, [request], np.array([num_tokens]), np.array([0]))
    native_weights, native_ids = torch_router(logits, top_k)
    return partial(backend.route, logits, native_weights, native_ids, 0, top_k)


def _microseconds(call: Router) -> Callable[[], float]:
    """Capture some calls; the function returned replays them and gives the time of one."""
    for _ in range(3):  # compile, and let torch allocate
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS_PER_GRAPH):
            call()

    begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def replay(of: Router = call) -> float:
        """Keeps the call, and so the tensors that the graph reads."""
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e3 / CALLS_PER_GRAPH

    replay()
    return replay


def main() -> None:
    """Print one Markdown row per shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    modes = [name for name, mode in MODES.items() if not mode.takes_trace]
    parser.add_argument("--modes", nargs="+", choices=modes, default=modes, metavar="MODE")
    parser.add_argument("--repeats", type=int, default=25)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(1, "routing.bench.gpu: no GPU found; it times the kernel on one\n")
    versions = f"torch {torch.__version__}, triton {triton.__version__}"
    print(f"{torch.cuda.get_device_name()}, {versions}; top-8 (top-2 of 8 experts)\n")
    columns = ["experts", "tokens", "torch µs", *(f"`{mode}` µs (ratio)" for mode in args.modes)]
    print("|", " | ".join(columns), "|")
    print("|---" * len(columns), end="|\n")
    for num_experts in EXPERTS:
        top_k = min(8, num_experts // 4)
        for num_tokens in TOKENS:
            logits = torch.randn(num_tokens, num_experts, device="cuda")
            theirs = _microseconds(partial(torch_router, logits, top_k))
            ours = [_microseconds(our_router(logits, mode, top_k)) for mode in args.modes]
            times = np.array([[theirs(), *(time() for time in ours)] for _ in range(args.repeats)])
            ratios = times[:, 1:] / times[:, :1]
            torch_median, *medians = np.median(times, axis=0)
            cells = [
                f"{median:.1f} ({low:.2f} to {high:.2f})"
                for median, low, high in zip(
                    medians, ratios.min(axis=0), ratios.max(axis=0), strict=True
                )
            ]
            row = [str(num_experts), str(num_tokens), f"{torch_median:.1f}", *cells]
            print("|", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
