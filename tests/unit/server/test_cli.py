"""The command and its settings; whatever cannot start says so in one line."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import io
import json
import os
import socket
import warnings
from contextlib import redirect_stderr
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from pydantic import BaseModel, PositiveInt

from loadtests.servers import free_port
from server import preflight
from server.cli import main
from server.preflight import CannotStartError
from server.settings import SettingError, Settings, variable
from tests.shared.servers import DEMO


def settings(*argv: str, **environ: str) -> Settings:
    parser = argparse.ArgumentParser()
    Settings.add_arguments(parser)
    return Settings.from_args(parser.parse_args(argv), environ)


def test_flag_beats_variable_beats_default() -> None:
    assert settings() == Settings(None, "auto", allow_request_steering=False)
    environ = {"GALTON_MAX_EXPERTS_PER_TOKEN": "6", "GALTON_EXPERT_METRICS": "off"}
    assert settings(**environ) == Settings(6, "off")
    assert settings("--max-experts-per-token=7", **environ) == Settings(7, "off")
    assert settings("--allow-request-steering").allow_request_steering
    assert settings(GALTON_ALLOW_REQUEST_STEERING="1").allow_request_steering


@pytest.mark.parametrize(
    ("argv", "environ", "message"),
    [
        (["--max-experts-per-token=0"], {}, r"--max-experts-per-token .* integer from 1, got '0'"),
        (["--expert-metrics=some"], {}, r"--expert-metrics must be one of auto, full.*'some'"),
        ([], {"GALTON_EXPERT_METRICS": ""}, r"GALTON_EXPERT_METRICS must be one of .*got ''"),
    ],
)
def test_bad_setting_names_itself_and_what_is_accepted(
    argv: list[str], environ: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        settings(*argv, **environ)


def test_help_is_short_names_every_variable_and_points_to_vllm(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(variable(name) in text for name in Settings.__dataclass_fields__)
    assert "https://docs.vllm.ai" in text
    assert len(text.splitlines()) < 75


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"galton {importlib.metadata.version('galton')}"


def test_cpu_without_avx2_is_refused(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : fpu sse sse2 avx\n")
    with pytest.raises(CannotStartError, match="no AVX2"):
        preflight.check_machine(cpuinfo)
    cpuinfo.write_text("flags : fpu sse sse2 avx avx2\n")
    preflight.check_machine(cpuinfo)


def test_too_little_memory_says_how_much_is_needed() -> None:
    preflight.check_memory(str(DEMO), 2**30, available=8 * 2**30)
    with pytest.raises(CannotStartError, match=r"2\.0 GiB free, about 4\.0 GiB needed.*weights"):
        preflight.check_memory(str(DEMO), 2**30, available=2 * 2**30)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "not among vLLM's plugins"),
        ("server.gone:Plugin", r"server\.gone:Plugin cannot be loaded"),
    ],
)
def test_server_without_its_plugin_does_not_start(
    monkeypatch: pytest.MonkeyPatch, value: str | None, reason: str
) -> None:
    """vLLM would serve without Galton, and say so in its log only."""
    entries = [] if value is None else [EntryPoint("galton", value, "vllm.general_plugins")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: entries)
    with pytest.raises(CannotStartError, match=reason):
        preflight.check_plugins()


def failed_start(*args: str) -> str:
    """`galton serve` that must end by itself before an engine starts; what it says last."""
    said = io.StringIO()
    # vLLM, imported once for all of these tests, warns, and sets variables of its own.
    with (
        warnings.catch_warnings(action="ignore"),
        patch.dict(os.environ),
        redirect_stderr(said),
    ):
        assert main(["serve", *args]) == 1
    return said.getvalue().strip().splitlines()[-1]


def test_busy_port_is_one_line() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        line = failed_start("--host=127.0.0.1", f"--port={port}")
    assert line.startswith(f"galton: port {port} cannot be used")
    assert f"--port {port + 1}" in line


def test_port_of_a_server_that_is_starting_is_refused() -> None:
    port = free_port()
    preflight.check_port("127.0.0.1", port)
    with pytest.raises(CannotStartError, match=f"port {port} is taken by another server that is"):
        preflight.check_port("127.0.0.1", port)


def test_bad_variable_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALTON_MAX_EXPERTS_PER_TOKEN", "many")
    assert (
        failed_start()
        == "galton: GALTON_MAX_EXPERTS_PER_TOKEN must be an integer from 1, got 'many'"
    )


def test_more_experts_than_the_model_has_are_refused() -> None:
    line = failed_start("--max-experts-per-token=17")
    assert "--max-experts-per-token must be at most 16" in line


def test_missing_model_is_one_line() -> None:
    assert "cannot load model ./nowhere" in failed_start("./nowhere")


@pytest.mark.parametrize(
    "flag",
    [
        "--enable-expert-parallel",
        "--pipeline-parallel-size=2",
        "--prefill-context-parallel-size=2",
        "--decode-context-parallel-size=2",
        "--data-parallel-size=2",
        "--data-parallel-rank=0",
        "--nnodes=2",
        "--enable-dbo",
        "--ubatch-size=2",
        "--enable-eplb",
        "--enable-lora",
        "--enable-elastic-ep",
        "--distributed-executor-backend=ray",
    ],
)
def test_what_is_not_routed_correctly_yet_is_refused(flag: str) -> None:
    assert f"{flag.partition('=')[0]} is not supported by Galton yet" in failed_start(flag)


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ('={"method": "eagle"}', "method must be one of ngram, draft_model, got eagle"),
        ("=3", "must be a JSON object, got 3"),
    ],
)
def test_drafts_that_were_not_seen_to_be_exact_are_refused(flag: str, reason: str) -> None:
    assert reason in failed_start(f"--speculative-config{flag}")


@pytest.mark.parametrize("flag", ["--spec-method=medusa", "--spec-tokens=3", "--spec-model=other"])
def test_so_are_they_by_their_short_names(flag: str) -> None:
    assert "--speculative-config: method must be one of" in failed_start(flag)


def test_a_setting_that_vllm_refuses_late_is_one_line() -> None:
    from server.launch import quiet_failure

    class Setting(BaseModel):
        num_tokens: PositiveInt

    line = "num_tokens: Input should be greater than 0"
    with pytest.raises(CannotStartError, match=f"^{line}$"), quiet_failure():
        Setting(num_tokens=-2)


def test_a_gpu_is_tried_only_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from server import launch

    def platform(name: str) -> Any:
        return SimpleNamespace(
            device_type=name, is_cpu=lambda: name == "cpu", is_cuda=lambda: name == "cuda"
        )

    monkeypatch.setattr(launch, "current_platform", platform("cuda"))
    launch._refuse_platform(Settings(experimental_cuda=True))
    with pytest.raises(CannotStartError, match="not yet been used: --experimental-cuda"):
        launch._refuse_platform(Settings())
    with pytest.raises(CannotStartError, match="VLLM_BATCH_INVARIANT=1"):
        launch._refuse_platform(Settings(experimental_cuda=True, batch_invariant=True))
    monkeypatch.setattr(launch, "current_platform", platform(""))
    with pytest.raises(CannotStartError, match="finds no GPU here"):
        launch._refuse_platform(Settings(experimental_cuda=True))
    monkeypatch.setattr(launch, "current_platform", platform("xpu"))
    with pytest.raises(CannotStartError, match="vLLM runs on xpu"):
        launch._refuse_platform(Settings(experimental_cuda=True))
    monkeypatch.setattr(launch, "current_platform", platform("cpu"))
    launch._refuse_platform(Settings())


@pytest.mark.parametrize(
    "flag", ["--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--log-config-file"]
)
def test_missing_file_is_one_line(flag: str) -> None:
    assert failed_start(f"{flag}=./nowhere") == f"galton: {flag}: there is no file ./nowhere"


def test_a_server_can_end_before_it_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn
    from vllm.entrypoints.launchers import launcher

    from server.launch import let_servers_end_before_they_begin

    server = type("Server", (launcher.NoSignalServer,), {})
    monkeypatch.setattr(launcher, "NoSignalServer", server)
    with pytest.raises(AttributeError):
        asyncio.run(server(uvicorn.Config("")).shutdown())  # or it is no longer needed
    let_servers_end_before_they_begin()
    asyncio.run(server(uvicorn.Config("")).shutdown())


def test_missing_chat_template_is_one_line() -> None:
    assert "(./nowhere) appears path-like" in failed_start("--chat-template=./nowhere")


def test_dense_model_is_refused_before_the_engine_starts(tmp_path: Path) -> None:
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": 128,
        "max_position_embeddings": 64,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "is not a mixture-of-experts model: there is nothing to route" in failed_start(
        str(tmp_path)
    )
