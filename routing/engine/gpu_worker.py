"""vLLM's worker on a GPU, with bound routers."""

from __future__ import annotations

from typing import Any

from vllm.v1.worker.gpu_worker import Worker

from routing.counts import Counts
from routing.engine import experts
from routing.engine.worker import RoutingWorker


class RoutingGPUWorker(RoutingWorker, Worker):
    """See `RoutingWorker`."""

    backend = "gpu"

    def before_loading(self, config: dict[str, Any]) -> None:
        """vLLM takes kernels first that ask no router, or could not take what ours says."""
        experts.leave_out_unfit()

    def compile_or_warm_up_model(self) -> Any:
        """Warm up as vLLM does, with steps like any other: what they counted is forgotten."""
        times = super().compile_or_warm_up_model()
        if self.problem is None:
            backend = self.bound.backend
            backend.set_counts(Counts(*(0 * array for array in backend.counts())))
        return times
