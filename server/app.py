"""What the server knows beyond vLLM: one object, `app.state.galton`."""

from __future__ import annotations

import logging
from argparse import Namespace
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY

from models.fingerprint import fingerprint
from routing.counts import Groups
from routing.engine.startup import attach
from routing.policy.presets import PresetError, Presets
from routing.policy.seed import SeedWindows
from routing.spec import RouterSpec
from server.aliases import PresetsFile
from server.cost import Limits
from server.exposition import Pages
from server.load import Load
from server.metrics import ExpertLoad, RequestCounter
from server.settings import Settings
from server.statistics import Marks
from server.watchdog import Watchdog

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

logger = logging.getLogger("vllm.galton")


class Galton:
    """The routers, the presets in force and the counters of one server.

    presets: replaced as a whole by a reload; a request keeps what it has read of them.
    """

    def __init__(
        self,
        spec: RouterSpec,
        settings: Settings,
        file: PresetsFile,
        limits: Limits,
        requests: RequestCounter,
        watchdog: Watchdog,
        load: Load,
        pages: Pages,
    ) -> None:
        """Raises PresetError."""
        self.spec = spec
        self.load = load
        self.pages = pages
        self.marks = Marks()
        self.limits = limits
        self.settings = settings
        self.seed_windows = SeedWindows(settings.seed_window)
        self.requests = requests
        self.watchdog = watchdog
        self.file = file
        self.presets: Presets = file.read().resolved(spec)

    @classmethod
    async def start(cls, engine: AsyncLLM, args: Namespace) -> Galton:
        """Self-test the routers, start counting. Raises SelfTestError, PresetError."""
        spec, counts = await attach(engine, fingerprint(args.model))
        settings: Settings = args.galton_settings
        file = PresetsFile.of(args)
        limits = Limits(
            max_choices=settings.max_choices,
            max_logprobs=settings.max_logprobs_per_request,
            max_model_len=engine.model_config.max_model_len,
            vocab_size=engine.model_config.get_vocab_size(),
        )
        watchdog = Watchdog(engine, counts, args.galton_lifetime, settings.stall_seconds)
        requests = RequestCounter(file.models[0])
        load = Load(spec, counts, Groups(), settings.metrics_min_tokens)
        experts = ExpertLoad(load, file.models[0], settings.expert_metrics)
        pages = Pages(experts, REGISTRY, settings.metrics_kept_seconds)
        return cls(spec, settings, file, limits, requests, watchdog, load, pages)

    def reload(self) -> None:
        """Read and check the file the server was started with, then put it in force at once.

        Running requests keep their policy. Raises PresetError, logged, with the old presets
        still in force.
        """
        try:
            self.presets = self.file.read().resolved(self.spec)
        except PresetError as error:
            logger.error("presets not reloaded, the old ones stay in force: %s", error)
            raise
        logger.info("presets reloaded: %s", ", ".join(self.presets.named) or "none")
