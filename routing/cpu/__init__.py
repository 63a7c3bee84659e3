"""`routing.reference` for all tokens of a layer at once, compiled by numba for CPUs."""

from numba.core import config
from numba.core.codegen import get_host_cpu_features

# LLVM takes half of an AVX-512 register where it takes a processor for one that slows down when it
# uses all of it. Those before Ice Lake do, and have no vbmi2.
_features = get_host_cpu_features()
if config.CPU_FEATURES is None and "+avx512vbmi2" in _features.split(","):
    config.CPU_FEATURES = f"{_features},-prefer-256-bit"
