"""Engine core and worker in one process, on a CPU with one worker.

vLLM starts two there, since OpenMP learns where its threads may run when it is loaded. Two that
wait for each other spin, a second long after each message (`SpinCondition`), and on few cores they
take what the model and the API process need. Here the engine core itself is started with what its
worker's OpenMP must know. `--distributed-executor-backend mp` is vLLM's way.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from typing import Any, Final

from vllm.engine.arg_utils import EngineArgs
from vllm.platforms import current_platform
from vllm.utils.ompmultiprocessing import OMPProcessManager
from vllm.v1.engine.utils import CoreEngineProcManager
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from routing.engine.hooks import wrap

NAME: Final = f"{__name__}.OneProcessExecutor"


class OneProcessExecutor(UniProcExecutor):
    """Chosen by vLLM's own option `distributed_executor_backend`."""

    def _init_executor(self) -> None:
        super()._init_executor()
        # Where OpenMP has bound this thread. Threads inherit that: it is lifted until vLLM has
        # started those that talk to the API process.
        self._cores: set[int] | None = os.sched_getaffinity(0)
        os.sched_setaffinity(0, os.sched_getaffinity(os.getppid()))

    def execute_model(self, *args: Any, **kwargs: Any) -> Any:
        """As vLLM's, on the core of OpenMP's first thread."""
        if self._cores is not None:
            os.sched_setaffinity(0, self._cores)
            self._cores = None
        return super().execute_model(*args, **kwargs)


def prefer_one_process(args: EngineArgs | Namespace) -> None:
    """Where there is one worker, on a CPU, and nobody chose an executor."""
    if (
        current_platform.is_cpu()
        and args.distributed_executor_backend is None
        and args.tensor_parallel_size == 1
    ):
        args.distributed_executor_backend = NAME


def install() -> None:
    """Tell an engine core that is started OpenMP's threads and cores. Idempotent."""
    wrap(CoreEngineProcManager, "__init__", _start)


def _start(original: Callable[..., None], self: CoreEngineProcManager, **kwargs: Any) -> None:
    if issubclass(kwargs["executor_class"], OneProcessExecutor):
        with OMPProcessManager(kwargs["vllm_config"]).configure_omp_envs(0, 0):
            original(self, **kwargs)
    else:
        original(self, **kwargs)
