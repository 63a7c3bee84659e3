"""`routing.reference.modes` in Triton: (Token, parameters, K, S) -> places.

parameters: pointer to the layer's, in the mode's order. NATIVE_TOP_K, MAX_TOP_K: the native
and the largest number of experts per token.
"""

from __future__ import annotations

from typing import Any, Final

import triton
import triton.language as tl

from routing.gpu.choice import best, keys_of, largest, noisy_scores, take_largest
from routing.gpu.noise import gumbel
from routing.gpu.rule import LAST, scores
from routing.policy import modes as declared
from routing.reference import modes


def _places(mode: str, *names: str) -> list[tl.constexpr]:
    """Places of a mode's parameters: Triton reads a global only where it is a constexpr."""
    return [tl.constexpr(declared.MODES[mode].index(name)) for name in names]


_TOP_K_MASS, _ALMOST = tl.constexpr(modes.TOP_K_MASS), tl.constexpr(modes.ALMOST)
(_TOP_K,) = _places("top_k", "top_k")
_SAMPLE_TOP_K, _SAMPLE_TEMPERATURE = _places("sample", "top_k", "temperature")
_TOP_P, _MAX_EXPERTS, _MIN_EXPERTS, _MASS = _places(
    "top_p", "top_p", "max_experts", "min_experts", "mass"
)
_HEAD_TOP_K, _HEAD, _POOL, _HEAD_TEMPERATURE = _places(
    "head_sample", "top_k", "head", "pool", "temperature"
)
(_UNIFORM_TOP_K,) = _places("uniform", "top_k")


@triton.jit
def top_k(token, parameters, NATIVE_TOP_K: tl.constexpr, MAX_TOP_K: tl.constexpr):
    return best(token, tl.load(parameters + _TOP_K).to(tl.int32))


@triton.jit
def sample(token, parameters, NATIVE_TOP_K: tl.constexpr, MAX_TOP_K: tl.constexpr):
    noisy = noisy_scores(token, tl.load(parameters + _SAMPLE_TEMPERATURE))
    return largest(token, noisy, tl.load(parameters + _SAMPLE_TOP_K).to(tl.int32))


@triton.jit
def top_p(token, parameters, NATIVE_TOP_K: tl.constexpr, MAX_TOP_K: tl.constexpr):
    min_experts = tl.load(parameters + _MIN_EXPERTS).to(tl.int32)
    max_experts = tl.load(parameters + _MAX_EXPERTS).to(tl.int32)
    place = best(token, tl.maximum(max_experts, NATIVE_TOP_K))
    mass = tl.where(token.allowed, scores(token.logits, token.real, token.rule.scoring), 0.0)
    total = tl.sum(mass)
    if tl.load(parameters + _MASS) == _TOP_K_MASS:
        total = tl.sum(tl.where(place < NATIVE_TOP_K, mass, 0.0))
    to_reach = tl.load(parameters + _TOP_P) * total * _ALMOST
    enough = max_experts
    for count in range(min_experts, max_experts):
        reached = tl.sum(tl.where(place < count, mass, 0.0))
        enough = tl.where(reached >= to_reach, tl.minimum(enough, count), enough)
    return tl.where(place < enough, place, LAST)


@triton.jit
def head_sample(token, parameters, NATIVE_TOP_K: tl.constexpr, MAX_TOP_K: tl.constexpr):
    """The head's keys are put above all others, in its order."""
    head = tl.load(parameters + _HEAD).to(tl.int32)
    place = best(token, tl.load(parameters + _POOL).to(tl.int32))
    noisy = noisy_scores(token, tl.load(parameters + _HEAD_TEMPERATURE))
    keys = keys_of(noisy, token.allowed & (place < LAST), token.forced)
    above = ((place ^ LAST) - 1).to(tl.int64) << 32
    keys = tl.where(place < head, above, keys)
    return take_largest(keys, tl.load(parameters + _HEAD_TOP_K).to(tl.int32))


@triton.jit
def uniform(token, parameters, NATIVE_TOP_K: tl.constexpr, MAX_TOP_K: tl.constexpr):
    noise = gumbel(token.seed, token.layer, token.position, token.logits.shape[0])
    return largest(token, noise, tl.load(parameters + _UNIFORM_TOP_K).to(tl.int32))


@triton.jit
def replay(token, parameters, NATIVE_TOP_K: tl.constexpr, MAX_TOP_K: tl.constexpr):
    experts = tl.arange(0, token.logits.shape[0])
    place = tl.full(token.logits.shape, LAST, tl.int32)
    for j in range(MAX_TOP_K):
        expert = tl.load(token.replayed + j, mask=j < token.columns, other=-1)
        place = tl.where(experts == expert, j, place)
    return place


CHOOSE: Final[dict[str, Any]] = {
    "top_k": top_k,
    "sample": sample,
    "top_p": top_p,
    "head_sample": head_sample,
    "uniform": uniform,
    "replay": replay,
}
# Triton cannot call a function from a table.
_TOP_K_CODE, _SAMPLE_CODE, _TOP_P_CODE, _HEAD_SAMPLE_CODE, _UNIFORM_CODE, _REPLAY_CODE = (
    tl.constexpr(declared.MODES[name].code) for name in CHOOSE
)


@triton.jit
def choose(mode, token, parameters, NATIVE_TOP_K: tl.constexpr, MAX_TOP_K: tl.constexpr):
    """The places that the mode of this code gives."""
    if mode == _TOP_K_CODE:
        place = top_k(token, parameters, NATIVE_TOP_K, MAX_TOP_K)
    elif mode == _SAMPLE_CODE:
        place = sample(token, parameters, NATIVE_TOP_K, MAX_TOP_K)
    elif mode == _TOP_P_CODE:
        place = top_p(token, parameters, NATIVE_TOP_K, MAX_TOP_K)
    elif mode == _HEAD_SAMPLE_CODE:
        place = head_sample(token, parameters, NATIVE_TOP_K, MAX_TOP_K)
    elif mode == _UNIFORM_CODE:
        place = uniform(token, parameters, NATIVE_TOP_K, MAX_TOP_K)
    elif mode == _REPLAY_CODE:
        place = replay(token, parameters, NATIVE_TOP_K, MAX_TOP_K)
    else:
        place = tl.full(token.logits.shape, LAST, tl.int32)
    return place
