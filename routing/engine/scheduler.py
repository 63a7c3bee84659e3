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
        """The request's rows of this step, as bytes. The token with which it stopped has none, and
        none after it, as accepted drafts may be.
        """
        rows = output.get(request.request_id) if output else None
        if rows is None:
            return None
        position = rows[:, :4].copy().view(np.int32)[:, 0]  # the first field of `row_dtype`
        return rows[position < request.num_tokens - 1].reshape(-1)

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
        _tell_requests_of_a_signal()
        faulthandler.register(DUMP_SIGNAL)


def _tell_requests_of_a_signal() -> None:
    """Requests that a signal to the engine core cuts short end in an error. vLLM tells them that
    they were aborted, which reaches their clients as answers that ended well.
    """
    from vllm.v1.engine.core import EngineCoreProc, EngineShutdownState  # loaded in the core alone

    def told(original: Callable[..., None], core: Any, ids: list[str], client: int) -> None:
        if core.shutdown_state == EngineShutdownState.RUNNING:
            original(core, ids, client)
        else:
            core._send_error_outputs_to_client(ids, client)

    wrap(EngineCoreProc, "_send_abort_outputs_to_client", told)


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
