"""vLLM's worker on a CPU, with bound routers."""

from __future__ import annotations

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from routing.engine import amx, sampling
from routing.engine.worker import RoutingWorker


class RoutingCPUWorker(RoutingWorker, CPUWorker):
    """See `RoutingWorker`."""

    backend = "cpu"

    def before_loading(self, config: dict[str, Any]) -> None:
        """Ask for AMX, or leave it out; mend how drafted tokens are sampled."""
        amx.prepare(batch_invariant=config["batch_invariant"])
        sampling.mend_drafts()
