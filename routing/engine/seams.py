"""Every place at which Galton's engine side touches vLLM beyond its public interface.

Written for the vLLM of `config.VLLM_VERSION`, which is checked at start. A test holds that
each target exists and that no module wraps what is not listed here.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Seam(NamedTuple):
    """target: the name in vLLM. how: wrapped, subclassed, replaced or read, and by which module.

    why: what it is needed for. until: what would let it go.
    """

    target: str
    how: str
    why: str
    until: str


SEAMS: Final = (
    Seam(
        "vllm.v1.engine.input_processor.InputProcessor.process_inputs",
        "wrapped by intake",
        "checks policies that come from endpoints which are not Galton's",
        "vLLM has a hook that validates extra_args",
    ),
    Seam(
        "vllm.v1.engine.parallel_sampling.ParentRequest._get_child_sampling_params",
        "wrapped by intake",
        "each choice of n > 1 draws its own noise",
        "children's parameters can be made by a plugin",
    ),
    Seam(
        "vllm.v1.engine.output_processor.OutputProcessor.add_request",
        "wrapped by intake",
        "rows recorded of a request go to its report",
        "auxiliary outputs reach the caller on the CPU's runner too",
    ),
    Seam(
        "vllm.v1.engine.async_llm.AsyncLLM._add_request",
        "wrapped by intake",
        "a request that is not sent stays among the running ones for ever",
        "vLLM takes it back, as it does with several choices",
    ),
    Seam(
        "vllm.v1.engine.core_client.AsyncMPClient.add_request_async",
        "wrapped by intake",
        "an integer of more than 64 bits is the client's error",
        "vLLM bounds every field: repetition_detection, 0.32",
    ),
    Seam(
        "vllm.v1.core.kv_cache_utils._gen_prompt_embeds_extra_hash_keys",
        "wrapped by cache",
        "blocks computed under different policies must not be shared",
        "vLLM lets a plugin add extra keys to a block's hash",
    ),
    Seam(
        "vllm.v1.core.sched.scheduler.Scheduler.__init__",
        "wrapped by scheduler",
        "sets aux_output_connector, which takes recorded rows to a request's output; has the "
        "engine core end with the process that started it",
        "a connector can be named in the configuration, and vLLM's core watches its parent",
    ),
    Seam(
        "vllm.v1.engine.core.EngineCoreProc._send_abort_outputs_to_client",
        "wrapped by scheduler",
        "what SIGTERM to the engine core cuts short ends in an error, not as if it were whole",
        "vLLM tells requests that its shutdown aborts apart from those that clients abort",
    ),
    Seam(
        "vllm.v1.executor.uniproc_executor.UniProcExecutor",
        "subclassed by executor, through vLLM's option distributed_executor_backend",
        "engine core and worker in one process, which do not spin while they wait for each other",
        "vLLM's CPU platform takes its own executor for one process",
    ),
    Seam(
        "vllm.v1.engine.utils.CoreEngineProcManager.__init__",
        "wrapped by executor",
        "OpenMP learns its threads and cores from the environment, when it is loaded",
        "vLLM's CPU platform takes its own executor for one process",
    ),
    Seam(
        "vllm.v1.worker.cpu_worker.CPUWorker",
        "subclassed by cpu_worker, through vLLM's option worker_cls",
        "binds the routers once the model is loaded",
        "never: this is vLLM's own extension point",
    ),
    Seam(
        "vllm.v1.worker.gpu_worker.Worker",
        "subclassed by gpu_worker, through vLLM's option worker_cls",
        "the same on a GPU; what its warm-up counted is forgotten",
        "never: this is vLLM's own extension point",
    ),
    Seam(
        "vllm.model_executor.layers.fused_moe.modular_kernel.FusedMoEExperts.is_supported_config",
        "wrapped by experts",
        "on GPUs vLLM prefers kernels that route by themselves, or go wrong with an expert twice",
        "vLLM has an option for kernels that take any choice",
    ),
    Seam(
        "vllm.v1.worker.gpu_model_runner.GPUModelRunner._model_forward",
        "wrapped by runner_v1, as its docstring invites",
        "fills the arrays of a step before the forward",
        "the runner offers a hook before the forward",
    ),
    Seam(
        "vllm.v1.worker.gpu_model_runner.GPUModelRunner.sample_tokens",
        "wrapped by runner_v1",
        "sends recorded rows along with a step's tokens",
        "V1 asks an auxiliary output connector, as V2 does",
    ),
    Seam(
        "vllm.v1.worker.gpu.model_runner.GPUModelRunner.add_requests",
        "wrapped by runner_v2",
        "a new request's policy is written into its slot",
        "the runner's model state can be a plugin's",
    ),
    Seam(
        "vllm.v1.worker.gpu.model_runner.GPUModelRunner.finish_requests",
        "wrapped by runner_v2",
        "what is kept of a request goes with it; how far a preempted one had come",
        "the runner's model state can be a plugin's",
    ),
    Seam(
        "vllm.v1.worker.gpu.model_runner.GPUModelRunner.prepare_inputs",
        "wrapped by runner_v2",
        "says before the forward whose policy each token follows",
        "the runner offers a hook before the forward",
    ),
    Seam(
        "vllm.v1.worker.gpu.model_runner.GPUModelRunner.execute_model",
        "wrapped by runner_v2",
        "a dummy run's tokens follow no policy and are not counted",
        "the runner offers a hook before the forward",
    ),
    Seam(
        "vllm.v1.worker.gpu.model_runner.GPUModelRunner",
        "its attribute aux_output_connector is set by runner_v2",
        "recorded rows and counts leave the device with a step's tokens",
        "a connector can be named in the configuration",
    ),
    Seam(
        "vllm.v1.worker.gpu_model_runner.GPUModelRunner._bookkeeping_sync",
        "wrapped by runner_v1, for sampling",
        "on CPU a seeded request whose prompt is chunked ends the engine: its generator has no "
        "set_offset",
        "tests/engine/test_engine.py::test_chunks_do_not_disturb_seeded_tokens passes without it",
    ),
    Seam(
        "vllm.v1.sample.rejection_sampler.expand_batch_to_tokens",
        "wrapped by sampling",
        "on CPU drafted tokens are sampled with a temperature of uninitialized memory",
        "tests/engine/test_drafts.py::test_tokens_are_drawn_as_without_drafts passes without it",
    ),
    Seam(
        "vllm.v1.attention.backends.cpu_attn._get_attn_isa",
        "wrapped by amx",
        "AMX orders sums by the shape of the batch: a batch-invariant engine does without",
        "VLLM_BATCH_INVARIANT works on CPUs",
    ),
    Seam(
        "vllm.model_executor.layers.fused_moe.runner.moe_runner.MoERunner",
        "its attribute router is replaced by binding",
        "a layer's experts are chosen by the request's policy",
        "vLLM lets a plugin register a router",
    ),
    Seam(
        "vllm.model_executor.layers.fused_moe.router.cpu_router.CPURouter._compute_routing",
        "called by binding, its fields read by routers",
        "the native choice, and the rule that it follows",
        "routers describe their rule",
    ),
)


def seams_table() -> str:
    """The table as Markdown."""
    rows = ["| in vLLM | how | why | until |", "|---|---|---|---|"]
    for seam in SEAMS:
        name = ".".join(seam.target.split(".")[-2:])
        rows.append(f"| `{name}` | {seam.how} | {seam.why} | {seam.until} |")
    return "\n".join(rows)
