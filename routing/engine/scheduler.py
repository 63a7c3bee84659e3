"""In the engine core: hands recorded rows to vLLM's outputs, and ends with the API process."""

from __future__ import annotations

import faulthandler
import functools
import multiprocessing
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from vllm.v1.core.sched.scheduler import Scheduler

from routing.engine.config import DUMP_SIGNAL, config_of
from routing.engine.hooks import wrap


class RowConnector:
    """In the engine core: vLLM's scheduler asks it what goes out with a request's output.

    Stands for vLLM's `AuxOutputSchedulerConnector`, and keeps nothing.
    """

    def build_connector_meta(self, scheduler_output: Any, requests: Any) -> None:
        """The workers need not be told anything."""

    def take_output(
        self, request: Any, output: dict[str, npt.NDArray[np.uint8]] | None
    ) -> npt.NDArray[np.uint8] | None:
        """The request's rows of this step, as bytes."""
        return output.get(request.request_id) if output else None

    def request_finished(self, request: Any) -> None:
        """Nothing is kept here."""

    def reset(self) -> None:
        """Nothing is kept here."""


def install() -> None:
    """Have vLLM's scheduler, so the engine core, use a `RowConnector`. Idempotent."""
    wrap(Scheduler, "__init__", _scheduler_init)


def _scheduler_init(
    original: Callable[..., None], self: Scheduler, *args: Any, **kwargs: Any
) -> None:
    original(self, *args, **kwargs)
    if config_of(self.vllm_config) is not None:
        self.aux_output_connector = RowConnector()
        end_with_parent()
        faulthandler.register(DUMP_SIGNAL)


@functools.cache
def end_with_parent() -> None:
    """End this process when the one that started it is gone: `kill -9` runs no clean-up, and
    vLLM's engine core would wait for requests for ever. Its workers watch it themselves.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="galton-end-with-parent", daemon=True).start()
