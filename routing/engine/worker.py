"""What vLLM's workers have in addition: bound routers, and answers to vLLM's `collective_rpc`.

`routing.engine.cpu_worker` and `gpu_worker` are chosen by vLLM's own `worker_cls` option.
"""

from __future__ import annotations

import faulthandler
from typing import TYPE_CHECKING, Any

import numpy as np
from vllm.distributed import get_pp_group, get_tensor_model_parallel_rank

from routing.counts import Counts
from routing.engine import runner_v1, runner_v2
from routing.engine.binding import RoutingBindError, bind_model
from routing.engine.config import DUMP_SIGNAL, EXACT_DRAFTS, config_of
from routing.engine.operator import BoundModel
from routing.engine.selftest import disagreements
from routing.policy import parse_policy
from routing.policy.compiled import compile_policy

if TYPE_CHECKING:
    from vllm.config import VllmConfig


class RoutingWorker:
    """Before one of vLLM's workers: binds the routers after loading. backend: of that device."""

    backend: str
    bound: BoundModel
    vllm_config: VllmConfig
    model_runner: Any
    use_v2_model_runner: bool
    problem: str | None = None

    def load_model(self, **kwargs: Any) -> None:
        """Load as vLLM does, then bind every router.

        A model that cannot be bound is reported by `galton_describe`, in one line; an
        exception here would end in a page of every process's tracebacks.
        """
        faulthandler.register(DUMP_SIGNAL)
        config = config_of(self.vllm_config)
        assert config is not None, "the engine was not started with engine_options()"
        self.before_loading(config)
        super().load_model(**kwargs)  # type: ignore[misc]
        drafts = self.vllm_config.speculative_config
        if drafts is not None and drafts.method not in EXACT_DRAFTS:
            self.problem = f"tokens drafted by {drafts.method} are not supported"
            return
        if self.backend == "gpu" and not self.use_v2_model_runner:
            self.problem = "vLLM's model runner V1 is not supported on GPUs: use V2"
            return
        scheduler = self.vllm_config.scheduler_config
        try:
            self.bound = bind_model(
                self.model_runner.model,
                max_experts_per_token=config["max_experts_per_token"],
                max_num_tokens=scheduler.max_num_batched_tokens,
                max_num_seqs=scheduler.max_num_seqs,
                backend=config["backend"] or self.backend,
            )
        except RoutingBindError as error:
            self.problem = str(error)
            return
        runner = runner_v2 if self.use_v2_model_runner else runner_v1
        runner.hook_runner(self.model_runner, self.bound)

    def before_loading(self, config: dict[str, Any]) -> None:
        """What the device needs. config: Galton's part of the engine's."""

    def galton_describe(self) -> dict[str, Any]:
        """What the API process must know of this worker; or its `problem`.

        spec: the `RouterSpec` of its layers, as a dictionary. counts: where its counts are, see
        `routing.engine.shared_memory`; None on a rank that repeats another's, all but the first
        of a tensor-parallel group. counts_tokens: not in later pipeline stages, which route the
        same tokens in other layers.
        """
        if self.problem is not None:
            return {"problem": self.problem}
        counts = self.bound.counts_path if get_tensor_model_parallel_rank() == 0 else None
        return {
            "spec": self.bound.backend.state.spec.as_dict(),
            "counts": counts,
            "counts_tokens": get_pp_group().is_first_rank,
        }

    def galton_listen(self) -> None:
        """Start keeping what the layers do, for `galton_check`, and stop counting."""
        self.bound.observations, self.bound.backend.state.observes = [], True
        self._counts = Counts(*(array.copy() for array in self.bound.backend.counts()))

    def galton_check(
        self, policy: dict[str, Any] | None = None, num_requests: int | None = None
    ) -> list[str]:
        """Hold what the layers did since `galton_listen` against the reference; stop keeping it.

        policy: of scope `all`, which every token must have followed, as a `routing` object;
        None to hold each token to its own request's, if it follows one. num_requests: that there
        were; of one alone it is known where its tokens stood.
        Returns one line per disagreement: empty when all is as it should be.
        """
        state = self.bound.backend.state
        expected = None
        if policy is not None:
            expected = compile_policy(parse_policy(policy, state.spec), state.spec)
        observations, self.bound.observations = self.bound.observations or [], None
        state.observes = False
        before, backend = self._counts, self.bound.backend
        asked = (backend.counts().assignments > before.assignments).any(axis=1)
        backend.set_counts(before)
        problems = [
            f"layer {layer} never asked its router"
            for layer, was_asked in zip(state.spec.layers, asked, strict=True)
            if not was_asked
        ]
        layer_indices = np.flatnonzero(asked).tolist()
        return problems + disagreements(observations, state, layer_indices, expected, num_requests)
