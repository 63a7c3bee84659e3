"""vLLM's model runner V2, a GPU's, on a CPU: `python -m tests.shared.v2_engine CASE ANSWER`.

vLLM takes it on a CPU where Triton has a backend for CPUs, which PyPI's has not; Triton's
interpreter stands in for it. CASE and ANSWER are files of JSON, see `Case` and `main`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import types
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.demo import CHECKPOINT
from tests.shared.drafts import ngrams
from tests.shared.interpreter import patch_language_once


@dataclass(frozen=True)
class Case:
    """How the engine runs. backend: of Galton. is_async: vLLM schedules a step ahead of the device.
    num_drafts: tokens that are guessed, from the prompt or, draft_model, by a model, the same one.
    num_blocks: of the key-value cache, so few that requests are preempted. with_dummies: the model
    runs idle before each step, as a replica does that waits for others. num_requests: the first of
    `requests_of` are asked.
    """

    runner: str = "v2"
    backend: str = "cpu"
    is_async: bool = False
    num_drafts: int = 0
    draft_model: bool = False
    num_blocks: int | None = None
    with_dummies: bool = False
    num_requests: int = 12

    def options(self) -> dict[str, Any]:
        """Keyword arguments of vLLM's `LLM`."""
        options: dict[str, Any] = {}
        if self.draft_model:
            options["speculative_config"] = {
                "method": "draft_model",
                "model": str(CHECKPOINT),
                "num_speculative_tokens": self.num_drafts,
            }
        elif self.num_drafts:
            method = "ngram_gpu" if self.is_async else "ngram"
            options["speculative_config"] = ngrams(self.num_drafts, method)
        if self.num_blocks:
            options |= {"num_gpu_blocks_override": self.num_blocks}
        return options


def requests_of(
    prompts: list[list[int]],
) -> list[tuple[list[int], dict[str, Any], list[str]]]:
    """Prompts under every mode, some with a trace and statistics: what to include."""
    policies: list[dict[str, Any]] = [
        {},
        {"mode": "sample", "temperature": 1.5, "seed": 7, "scope": "all"},
        {"mode": "top_k", "top_k": 1},
        {"mode": "head_sample", "seed": 3, "top_k": 6, "scope": "all"},
        {"mode": "top_p", "top_p": 0.7, "scope": "all"},
        {"mode": "uniform", "seed": 5, "noise": "request"},
    ]
    asked = [(prompt, policy) for prompt in prompts for policy in policies]
    include: list[list[str]] = [[], ["trace", "stats", "weights"]]
    return [(*both, include[i % 7 % 2]) for i, both in enumerate(asked)]


def prepare(case: Case) -> None:
    """Before vLLM is imported."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "1" if case.runner == "v2" else "0"
    if case.runner == "v2":
        os.environ["TRITON_INTERPRET"] = "1"
        patch_language_once()
        pretend_triton_has_a_backend()


def pretend_triton_has_a_backend() -> None:
    """For CPUs, where vLLM looks for one."""
    import triton.backends

    driver = types.SimpleNamespace(is_active=lambda: True)
    triton.backends.backends["cpu"] = types.SimpleNamespace(driver=driver, compiler=None)


def patch_vllm(case: Case) -> None:
    """What vLLM's CPU platform does not do, or its kernels not in the interpreter."""
    from vllm.platforms.cpu import CpuPlatform

    if case.is_async:
        check = CpuPlatform.check_and_update_config.__func__

        def check_and_update_config(cls: Any, config: Any) -> None:
            check(cls, config)
            config.scheduler_config.async_scheduling = True

        CpuPlatform.check_and_update_config = classmethod(check_and_update_config)
    if case.num_drafts and case.runner == "v2":
        import numpy as np
        import triton.language as tl
        from triton.runtime import interpreter

        load = interpreter.InterpreterBuilder.create_masked_load

        def create_masked_load(
            self: Any, pointers: Any, mask: Any, *args: Any, **kwargs: Any
        ) -> Any:
            """vLLM's n-gram kernel gives an integer as a mask."""
            if mask.data.dtype != np.bool_:
                mask = interpreter.TensorHandle(mask.data.astype(np.bool_), tl.int1)
            return load(self, pointers, mask, *args, **kwargs)

        interpreter.InterpreterBuilder.create_masked_load = create_masked_load


def run_dummies(runner: Any) -> None:
    """Before each step from now on."""
    execute = runner.execute_model

    def execute_model(scheduled: Any, *args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("dummy_run") and scheduled.total_num_scheduled_tokens:
            runner._dummy_run(8)
        return execute(scheduled, *args, **kwargs)

    runner.execute_model = execute_model


def widths_of(backend: Any) -> set[int]:
    """The numbers of columns of the steps from now on."""
    widths, route = set[int](), backend.route

    def seen(*args: Any) -> Any:
        widths.add(args[-1])
        return route(*args)

    backend.route = seen
    return widths


def main() -> None:
    """ANSWER: tokens and reports of each request, what was counted, and what vLLM did."""
    case = Case(**json.loads(Path(sys.argv[1]).read_text()))
    prepare(case)
    from vllm import LLM, SamplingParams

    patch_vllm(case)
    from routing.engine import engine_options

    llm = LLM(
        model=str(CHECKPOINT),
        dtype="bfloat16",
        enforce_eager=True,
        max_model_len=96,
        max_num_seqs=8,
        max_num_batched_tokens=64,
        block_size=32,
        kv_cache_memory_bytes=2**27,
        disable_log_stats=False,
        **engine_options(8, batch_invariant=True, backend=case.backend),
        **case.options(),
    )
    # With numba behind them: not before the engine, see `routing.engine.plugin`.
    from routing.engine.intake import travelling
    from routing.engine.offline import AwaitableLLM
    from routing.engine.startup import attach
    from routing.engine.travel import REQUEST_KEY
    from routing.policy import parse_policy
    from routing.policy.compiled import compile_policy
    from routing.policy.modes import MODES
    from routing.trace.report import Report

    core = llm.llm_engine.engine_core.engine_core
    runner = core.model_executor.driver_worker.worker.model_runner
    is_v2 = "gpu.model_runner" in type(runner).__mro__[1].__module__
    spec, counts = asyncio.run(attach(AwaitableLLM(llm)))
    tokenizer = llm.get_tokenizer()
    sentences = ("the old man reads", "the dog is in the house and the dog")
    prompts = [tokenizer.encode(sentence * 3) for sentence in sentences]
    asked = requests_of(prompts)[: case.num_requests]
    params, reports = [], []
    for _, routing, include in asked:
        policy = parse_policy(routing, spec)
        report = Report(spec, include) if include else None
        compiled = None if policy.is_native(spec) else compile_policy(policy, spec)
        travels = travelling(compiled, group=MODES[policy.mode].code, report=report)
        extra = {REQUEST_KEY: travels} if travels is not None else None
        params.append(
            SamplingParams(max_tokens=16, temperature=0, ignore_eos=True, extra_args=extra)
        )
        reports.append(report)
    inputs = [{"prompt_token_ids": prompt} for prompt, _, _ in asked]
    before = counts.totals()
    if case.with_dummies:
        run_dummies(runner)
    widths = widths_of(core.model_executor.driver_worker.worker.bound.backend)
    outputs = llm.generate(inputs, params, use_tqdm=False)
    counted = counts.totals().since(before)
    seen = {metric.name: getattr(metric, "value", None) for metric in llm.get_metrics()}
    answer = {
        "case": asdict(case),
        "is_v2": is_v2,
        "is_async": core.batch_queue_size > 1,
        "tokens": [list(output.outputs[0].token_ids) for output in outputs],
        "reports": [report.whole() if report is not None else None for report in reports],
        "assignments": counted.assignments.tolist(),
        "widths": sorted(widths),
        "routed_tokens": counted.routed_tokens[: len(MODES)].tolist(),
        "preempted": seen["vllm:num_preemptions"],
        "accepted": seen.get("vllm:spec_decode_num_accepted_tokens", 0),
    }
    Path(sys.argv[2]).write_text(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)  # an engine's own end is not what is tested


if __name__ == "__main__":
    main()
