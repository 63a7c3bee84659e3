"""What each mode does, in NumPy and compiled; which modes there are says `routing.policy.modes`."""

from __future__ import annotations

from routing.modes import head_sample, replay, sample, top_k, top_p, uniform

_MODULES = {
    "top_k": top_k,
    "sample": sample,
    "top_p": top_p,
    "head_sample": head_sample,
    "uniform": uniform,
    "replay": replay,
}
SELECT = {name: module.select for name, module in _MODULES.items()}
KERNELS = {name: module.kernel for name, module in _MODULES.items()}
