"""What of a GPU's build of vLLM can be tried without a GPU: `make gpu-dry-run`, two minutes.

The set-up of `make gpu-setup` is installed beside the CPU's. There: the kernels equal the
reference, interpreted, and compile; the worker can be imported; and for each GPU, which vLLM takes
this machine to have, the engine is configured as Galton wants it, and of the expert kernels vLLM
chooses one that takes any choice. vLLM's CUDA code wants the driver's library, for which an empty
one stands in.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

GPUS: Final = {"A100": (8, 0), "H100": (9, 0), "B200": (10, 0), "RTX 5090": (12, 0)}
# What vLLM's CUDA code links to; each says that there is no device.
DRIVER: Final = (
    *("cuCtxGetCurrent", "cuCtxSetCurrent", "cuDeviceGetAttribute", "cuDevicePrimaryCtxRetain"),
    *("cuGetErrorString", "cuGetProcAddress_v2", "cuMemAddressFree", "cuMemAddressReserve"),
    *("cuMemCreate", "cuMemGetAllocationGranularity", "cuMemMap", "cuMemRelease"),
    *("cuMemSetAccess", "cuMemUnmap", "cuPointerGetAttribute", "cuTensorMapEncodeTiled"),
)
NO_DEVICE: Final = 100


def main() -> None:
    """Raises CalledProcessError where something is not as it should be."""
    parser = argparse.ArgumentParser(prog="make gpu-dry-run", description=__doc__)
    parser.add_argument("--gpu", choices=GPUS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.gpu is not None:
        print(f"{args.gpu}: {try_gpu(*GPUS[args.gpu])}")
        return
    python("-m", "pytest", "-q", "tests/unit/routing/test_triton_kernel.py")
    with tempfile.TemporaryDirectory() as folder:
        make_driver(Path(folder))
        env = {"LD_LIBRARY_PATH": folder, "VLLM_LOGGING_LEVEL": "ERROR"}
        for name in GPUS:
            python("-m", __spec__.name, f"--gpu={name}", env=env)


def python(*arguments: str, env: Mapping[str, str] | None = None) -> None:
    subprocess.run([sys.executable, *arguments], env={**os.environ, **(env or {})}, check=True)


def make_driver(folder: Path) -> None:
    """A library of its name and functions."""
    source = folder / "driver.c"
    source.write_text("".join(f"int {name}(void) {{ return {NO_DEVICE}; }}\n" for name in DRIVER))
    library = ["-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so.1")]
    subprocess.run(["gcc", "-shared", "-fPIC", *library, str(source)], check=True)


def try_gpu(major: int, minor: int) -> str:
    """What vLLM chooses on a GPU of that compute capability."""
    import torch
    import triton
    from vllm import platforms
    from vllm.platforms.cuda import NonNvmlCudaPlatform
    from vllm.platforms.interface import DeviceCapability

    class Pretended(NonNvmlCudaPlatform):
        get_device_capability = classmethod(lambda *_, **__: DeviceCapability(major, minor))
        get_device_name = classmethod(lambda *_, **__: "NVIDIA")
        get_device_total_memory = classmethod(lambda *_, **__: 80 * 2**30)
        num_compute_units = classmethod(lambda *_, **__: 132)
        device_count = classmethod(lambda _: 1)

    # Before anything else of vLLM's is imported.
    platforms._current_platform = Pretended()
    triton.backends.backends["nvidia"].driver.is_active = staticmethod(lambda: True)
    from vllm.config import set_current_vllm_config
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.layers.fused_moe.activation import MoEActivation
    from vllm.model_executor.layers.fused_moe.config import (
        FusedMoEConfig,
        FusedMoEParallelConfig,
        RoutingMethodType,
    )
    from vllm.model_executor.layers.fused_moe.oracle import fp8, mxfp4, unquantized
    from vllm.model_executor.layers.quantization.utils import quant_utils

    from routing.engine import engine_options
    from routing.engine.experts import BEAR_REPETITION, leave_out_unfit
    from routing.engine.gpu_worker import RoutingGPUWorker

    config = EngineArgs(model="models/demo/checkpoint", **engine_options(8)).create_engine_config()
    assert config.parallel_config.worker_cls.endswith(RoutingGPUWorker.__name__)
    assert config.scheduler_config.async_scheduling
    assert config.use_v2_model_runner
    leave_out_unfit()
    layer = FusedMoEConfig(
        num_experts=64,
        experts_per_token=8,
        hidden_dim=2048,
        intermediate_size=1024,
        num_local_experts=64,
        num_logical_experts=64,
        activation=MoEActivation.SILU,
        device="cuda",
        moe_parallel_config=FusedMoEParallelConfig.make_no_parallel(),
        in_dtype=torch.bfloat16,
        routing_method=RoutingMethodType.Renormalize,
    )
    blocks = quant_utils.kFp8Static128BlockSym, quant_utils.kFp8Dynamic128Sym
    tensors = quant_utils.kFp8StaticTensorSym, quant_utils.kFp8StaticTensorSym
    with set_current_vllm_config(config):
        chosen: dict[str, Any] = {
            "bfloat16": unquantized.select_unquantized_moe_backend(layer)[1],
            "float8 in blocks": fp8.select_fp8_moe_backend(layer, *blocks)[1],
            "float8": fp8.select_fp8_moe_backend(layer, *tensors)[1],
            "mxfp4": mxfp4.select_mxfp4_moe_backend(layer)[1],
        }
    for kernel in chosen.values():
        assert kernel.__name__ in BEAR_REPETITION, kernel
    graphs = config.compilation_config.cudagraph_mode.name
    kernels = ", ".join(f"{dtype} {kernel.__name__}" for dtype, kernel in chosen.items())
    return f"graphs {graphs}; {kernels}"


if __name__ == "__main__":
    main()
