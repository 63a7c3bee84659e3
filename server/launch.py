"""From Galton's settings and vLLM's flags to the arguments that vLLM's server starts with."""

from __future__ import annotations

import logging
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import ValidationError
from uvicorn.lifespan.off import LifespanOff
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers import launcher
from vllm.entrypoints.launchers.api_server.entry import run_server_worker
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.launchers.launcher import setup_server
from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
from vllm.exceptions import VLLMValidationError
from vllm.logger import configure_logging_from_args
from vllm.platforms import current_platform
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.utils.system_utils import decorate_logs

from models.demo import CHECKPOINT, PRESETS
from routing.engine import CONFIG_KEY, engine_options
from routing.engine.config import EXACT_DRAFTS, UnsupportedVersionError
from routing.engine.executor import prefer_one_process
from routing.engine.startup import SelfTestError
from routing.policy.presets import PresetError
from server.aliases import PresetsFile
from server.fair_queue import Shares
from server.lifetime import Lifetime
from server.preflight import CannotStartError
from server.settings import LOG_LEVEL, Settings

# Before the user's own flags, which win. Eager: it starts in 14 seconds, not 36. Compiled it
# answers twice as fast (loadtests/bench/README.md, Starts), of which who tries it sees nothing.
DEMO_FLAGS = (
    "--served-model-name=galton-demo",
    "--enforce-eager",
    f"--kv-cache-memory-bytes={2**30}",
)
# Requests that the engine runs at once, where --max-num-seqs is not given: vLLM's, on CPU.
MAX_NUM_SEQS = 256
# Tokens of prompts that have no answer yet: a minute of what two cores read of the demo.
MAX_WAITING_TOKENS = 2**18


def parse_vllm_args(settings: Settings, argv: Sequence[str]) -> Namespace:
    """vLLM's own arguments, with Galton switched on. Raises CannotStartError."""
    _refuse_platform(settings)
    cli_env_setup()
    parser = make_arg_parser(
        FlexibleArgumentParser(prog="galton serve", usage="galton serve [MODEL] [flags]")
    )
    args = parser.parse_args(list(argv))
    if args.model_tag is None and args.model == parser.get_default("model"):
        args = parser.parse_args([str(CHECKPOINT), *DEMO_FLAGS, *argv])
        settings = replace(settings, presets=settings.presets or str(PRESETS))
    if args.model_tag is not None:
        args.model = args.model_tag
    _refuse_missing_files(args)
    configure_logging_from_args(args)
    _let_speak(args)
    try:
        validate_parsed_serve_args(args)
    except (TypeError, ValueError, VLLMValidationError) as error:
        raise CannotStartError(str(error)) from None
    _refuse_unsupported(args)
    _set_defaults(args)

    try:
        options = engine_options(
            settings.max_experts_per_token,
            allow_request_steering=settings.allow_request_steering,
            batch_invariant=settings.batch_invariant,
        )
    except UnsupportedVersionError as error:
        raise CannotStartError(str(error)) from None
    args.worker_cls = options["worker_cls"]
    prefer_one_process(args)
    args.additional_config = {**(args.additional_config or {}), **options["additional_config"]}
    args.galton_settings = settings
    args.galton_lifetime = Lifetime(args.shutdown_timeout or settings.drain_seconds)
    _check_presets(args)
    _check_model(args)
    return args


def _let_speak(args: Namespace) -> None:
    """Where vLLM is to warn only: Galton says what it does, and vLLM how much it computes."""
    if args.logging_config.log_level == LOG_LEVEL:
        for handler in logging.getLogger("vllm").handlers:
            handler.setLevel(logging.INFO)
        for name in ("vllm.galton", "vllm.v1.metrics.loggers"):
            logging.getLogger(name).setLevel(logging.INFO)


def _refuse_platform(settings: Settings) -> None:
    """Where vLLM runs on what Galton has no kernel for, or was never seen on."""
    if current_platform.is_cpu():
        return
    if not current_platform.device_type:
        raise CannotStartError("vLLM's CUDA build finds no GPU here: what does nvidia-smi say?")
    if not current_platform.is_cuda():
        raise CannotStartError(
            f"Galton routes on CPUs and NVIDIA's GPUs, vLLM runs on {current_platform.device_type}"
        )
    if not settings.experimental_cuda:
        raise CannotStartError(
            "on a GPU Galton has been tried, on an H100, and not yet been used: --experimental-cuda"
        )
    if settings.batch_invariant:
        raise CannotStartError(
            "--batch-invariant is for CPUs: on a GPU set vLLM's VLLM_BATCH_INVARIANT=1"
        )


def _refuse_unsupported(args: Namespace) -> None:
    """What Galton does not route correctly yet is refused, not ignored."""
    refused = {
        # vLLM's CPU kernels take a token's experts for the rank's own and read past their weights.
        "--enable-expert-parallel": args.enable_expert_parallel,
        "--pipeline-parallel-size": args.pipeline_parallel_size > 1,
        "--prefill-context-parallel-size": args.prefill_context_parallel_size > 1,
        "--decode-context-parallel-size": args.decode_context_parallel_size > 1,
        "--data-parallel-size": args.data_parallel_size > 1,
        "--data-parallel-rank": args.data_parallel_rank is not None,
        "--nnodes": args.nnodes > 1,
        "--enable-dbo": args.enable_dbo,
        "--ubatch-size": args.ubatch_size > 0,
        "--enable-eplb": args.enable_eplb,
        # On experts it would have to follow the policy; on CPU vLLM has no kernels for it.
        "--enable-lora": args.enable_lora,
        "--enable-elastic-ep": args.enable_elastic_ep,
        "--distributed-executor-backend": args.distributed_executor_backend
        not in (None, "mp", "uni"),
        "--api-server-count": (args.api_server_count or 1) > 1,
        "--headless": args.headless,
        "--grpc": args.grpc,
        "--worker-cls": args.worker_cls != "auto",
        "--enable-return-routed-experts": args.enable_return_routed_experts,
    }
    for flag, given in refused.items():
        if given:
            raise CannotStartError(f"{flag} is not supported by Galton yet: leave it out")
    _refuse_drafts(args)
    if CONFIG_KEY in (args.additional_config or {}):
        raise CannotStartError(f"--additional-config: the key '{CONFIG_KEY}' is Galton's own")


def _refuse_drafts(args: Namespace) -> None:
    """Speculative decoding but in those ways that leave routing exact."""
    drafts = {} if args.speculative_config is None else args.speculative_config
    if not isinstance(drafts, dict):
        raise CannotStartError(f"--speculative-config must be a JSON object, got {drafts}")
    if drafts or args.spec_method or args.spec_model or args.spec_tokens:
        method = args.spec_method or drafts.get("method")
        methods = [m for m in EXACT_DRAFTS if not (m == "ngram_gpu" and current_platform.is_cpu())]
        if method not in methods:
            raise CannotStartError(
                f"--speculative-config: method must be one of {', '.join(methods)}, got {method}"
            )


def _refuse_missing_files(args: Namespace) -> None:
    """vLLM reads these once the engine runs, and ends in a traceback."""
    paths = {
        "--ssl-keyfile": args.ssl_keyfile,
        "--ssl-certfile": args.ssl_certfile,
        "--ssl-ca-certs": args.ssl_ca_certs,
        "--log-config-file": getattr(args, "log_config_file", None),
    }
    for flag, path in paths.items():
        if path and not Path(path).is_file():
            raise CannotStartError(f"{flag}: there is no file {path}")


def _set_defaults(args: Namespace) -> None:
    """What vLLM leaves unbounded, to the first request that comes, or to a terminal."""
    args.enable_offline_docs = True  # /docs works without the internet
    if not sys.stderr.isatty():
        args.use_tqdm_on_load = False  # in a log the bar is no help, and a log may be full
    if args.max_num_queued_reqs is None:
        args.max_num_queued_reqs = max(64, 4 * (args.max_num_seqs or MAX_NUM_SEQS))
    if args.max_num_queued_tokens is None:
        args.max_num_queued_tokens = MAX_WAITING_TOKENS
    args.galton_shares = None
    if len(set(args.api_key or ())) > 1 and args.scheduling_policy == "fcfs":
        args.scheduling_policy = "priority"
        args.galton_shares = Shares(args.max_num_queued_reqs)
    structured = args.structured_outputs_config
    if structured.backend == "auto":
        # "auto" keeps, for everybody, what it chose for the first structured request: xgrammar
        # mostly, which compiles some small schemas for ever while all others wait.
        structured.backend = "guidance"


def _check_presets(args: Namespace) -> None:
    """Refuse a presets file as far as it can be judged before the engine starts."""
    try:
        PresetsFile.of(args).read()
    except PresetError as error:
        raise CannotStartError(str(error)) from None


def _check_model(args: Namespace) -> None:
    """Refuse a model that cannot be loaded or has no experts, before the engine starts."""
    try:
        model = AsyncEngineArgs.from_cli_args(args).create_model_config()
    except (OSError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = next((line for line in lines if not line.endswith("ModelConfig")), "unknown")
        raise CannotStartError(f"cannot load model {args.model}: {reason}") from None
    if not model.is_moe:
        raise CannotStartError(
            f"{args.model} is not a mixture-of-experts model: there is nothing to route. "
            "Serve it with vLLM itself"
        )
    settings: Settings = args.galton_settings
    most = settings.max_experts_per_token
    if most is not None and most > model.get_num_experts():
        raise CannotStartError(
            f"--max-experts-per-token must be at most {model.get_num_experts()}, the model's "
            f"number of experts, got {most}"
        )


async def run_server(args: Namespace, **uvicorn_options: Any) -> None:
    """vLLM's function of this name without its handler of SIGTERM, whose exception gets lost while
    the engine starts.
    """
    decorate_logs("APIServer", skip_if_decorated=True)
    # Forked from the running loop, as on GPUs, the engine's processes would pass it their signals.
    os.register_at_fork(after_in_child=partial(signal.set_wakeup_fd, -1))
    # As it ends, vLLM asks of every process of the machine whether it has the port, the ones that
    # it has just killed among them, and ends in an error if one is gone meanwhile.
    launcher.find_process_using_port = lambda port: None
    let_servers_end_before_they_begin()
    address, listening = setup_server(args, reuse_port=False)
    await run_server_worker(address, listening, args, **uvicorn_options)


def let_servers_end_before_they_begin() -> None:
    """Ctrl-C between the making of uvicorn's server and its start ended in an AttributeError."""
    launcher.NoSignalServer.servers = []
    launcher.NoSignalServer.lifespan = LifespanOff(uvicorn.Config(""))


@contextmanager
def quiet_failure() -> Iterator[None]:
    """Turn a failed start into one line; vLLM has logged its own reason above it."""
    try:
        yield
    except (SelfTestError, PresetError) as error:
        raise CannotStartError(str(error)) from None
    except ValidationError as error:
        # Of vLLM's settings some are judged together with others, once all are known.
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ").partition("\n")[0]
        named = [*map(str, first["loc"]), reason]
        raise CannotStartError(": ".join(named)) from None
    except RuntimeError as error:
        if "initialization failed" not in str(error):
            raise
        raise CannotStartError("the engine did not start: vLLM's reason stands above") from None
