"""Galton's part of vLLM's HTTP application: the `vllm.endpoint_plugins` entry point.

vLLM's own handlers do the work; what is new is the policy on the way in and its echo on the
way out.
"""

from __future__ import annotations

import asyncio
import os
import signal
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient

from routing.engine.hooks import wrap
from routing.policy.presets import PresetError
from server import api, catalog, health, playground, statistics
from server.app import Galton
from server.docs import attach_docs
from server.edge import attach_edge
from server.exposition import attach_metrics, own_port
from server.fair_queue import FairQueue
from server.settings import Settings
from server.vllm_handlers import adopt
from server.welcome import welcome


class GaltonEndpoints:
    """Satisfies vLLM's `EndpointPlugin` protocol."""

    name = "galton"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes, which replace vLLM's of the same path, and the edge around all."""
        app.include_router(api.api)
        app.include_router(catalog.api)
        app.include_router(catalog.models)
        app.include_router(statistics.api)
        app.include_router(health.api)
        attach_docs(app)
        args = app.state.args
        settings: Settings = args.galton_settings
        if not settings.no_playground:
            app.include_router(playground.api)
        attach_metrics(app, has_own_port=settings.metrics_port is not None)
        app.add_middleware(health.Gate, lifetime=args.galton_lifetime, queued=api.PATHS)
        if args.galton_shares is not None:
            app.add_middleware(FairQueue, shares=args.galton_shares)
        _run_after_start(app)
        attach_edge(app, settings.max_body_bytes)

    async def init_state(
        self, engine_client: EngineClient | None, state: State, args: Namespace
    ) -> None:
        """Start, with an engine that runs. Raises SelfTestError, PresetError."""
        assert engine_client is not None, "Galton needs an engine"
        if args.galton_shares is not None:
            wrap(engine_client, "check_admission", args.galton_shares.admit)
        state.galton = await Galton.start(engine_client, args)
        adopt(state, state.galton)


def _run_after_start(app: FastAPI) -> None:
    """Signals are heeded and the engine watched while the application runs: vLLM installs its own
    handlers of signals shortly before.
    """
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def watched(app: FastAPI) -> AsyncIterator[Any]:
        galton: Galton = app.state.galton
        args: Namespace = app.state.args
        args.galton_lifetime.heed_signals(app.state.engine_client)
        _heed_hangup(galton)
        watch = asyncio.create_task(galton.watchdog.run())
        async with lifespan(app) as state:
            with own_port(galton.pages, args.host or "0.0.0.0", galton.settings.metrics_port):
                welcome(galton, args)
                yield state
        watch.cancel()

    app.router.lifespan_context = watched


def _heed_hangup(galton: Galton) -> None:
    """SIGHUP reloads the presets; a server without any it ends, as it always does.

    In order, though, like SIGTERM: else the engine would stay.
    """

    def heed() -> None:
        if galton.file.path is None:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        with suppress(PresetError):  # logged
            galton.reload()

    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # by nohup
    if galton.file.path is not None or not ignored:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, heed)
