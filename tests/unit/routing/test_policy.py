"""Policies: defaults, the round trip of the echo, derived seeds. Bad values: test_http."""

from __future__ import annotations

import math
import subprocess
import sys
from array import array
from typing import Any

import msgspec
import pytest

from routing.policy import (
    Policy,
    PolicyError,
    parse_policy,
)
from routing.policy.compiled import CompiledPolicy, compile_policy
from routing.policy.keys import WEIGHTS
from routing.policy.seed import MAX_SEED, derive_seed
from routing.spec import RouterSpec

SPEC = RouterSpec(layers=(1, 2, 5), num_experts=16, top_k=4, max_top_k=8)


def test_empty_policy_is_the_models_own_routing() -> None:
    policy = parse_policy({}, SPEC)
    assert policy == Policy("top_k", (4,), None, "decode")
    assert policy.is_native(SPEC)
    assert not parse_policy({"top_k": 3}, SPEC).is_native(SPEC)


def test_null_means_left_out() -> None:
    assert parse_policy({"top_k": None, "seed": None, "scope": None}, SPEC) == parse_policy(
        {}, SPEC
    )


def test_absent_seed_is_drawn_anew_and_echoed() -> None:
    drawn = {parse_policy({"mode": "sample"}, SPEC).as_dict()["seed"] for _ in range(20)}
    assert len(drawn) == 20
    assert all(0 <= seed <= MAX_SEED for seed in drawn)


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"mode": "top_k", "top_k": 8, "seed": 3, "scope": "all"},
        {"mode": "sample", "seed": 7},
        {"mode": "sample", "temperature": [0, 0.5, 10], "top_k": 1, "seed": MAX_SEED},
    ],
)
def test_echo_parses_to_the_same_policy(raw: dict[str, object]) -> None:
    policy = parse_policy(raw, SPEC)
    assert parse_policy(policy.as_dict(), SPEC) == policy


def test_temperature_zero_draws_no_noise() -> None:
    assert parse_policy({"mode": "sample", "temperature": 0}, SPEC).is_native(SPEC)
    assert parse_policy({"mode": "sample", "temperature": [0, 0, 0]}, SPEC).is_native(SPEC)
    assert parse_policy({"mode": "sample", "temperature": [0, 0, 0.1]}, SPEC).draws_noise()


def test_equal_numbers_in_every_layer_are_one_number() -> None:
    listed = parse_policy({"mode": "sample", "temperature": [1, 1, 1.0], "seed": 7}, SPEC)
    assert listed == parse_policy({"mode": "sample", "temperature": 1, "seed": 7}, SPEC)


def test_error_names_field_value_and_range() -> None:
    with pytest.raises(PolicyError, match=r"routing\.top_k must be an integer from 1 to 8, got 9"):
        parse_policy({"top_k": 9}, SPEC)
    with pytest.raises(PolicyError, match=r"a list of 3 values, one per MoE layer"):
        parse_policy({"mode": "sample", "temperature": [1.0]}, SPEC)
    with pytest.raises(PolicyError, match=r"from 0 to 10, got nan"):
        parse_policy({"mode": "sample", "temperature": float("nan")}, SPEC)


def test_long_values_are_not_echoed_whole() -> None:
    with pytest.raises(PolicyError) as error:
        parse_policy({"mode": "x" * 10_000}, SPEC)
    assert len(str(error.value)) < 200


def test_children_have_distinct_seeds_and_the_first_keeps_its_parents() -> None:
    assert derive_seed(7, 0) == 7
    family = {derive_seed(seed, choice) for seed in range(100) for choice in range(100)}
    assert len(family) == 100 * 100
    assert all(0 <= seed <= MAX_SEED for seed in family)


def test_misspelt_key_is_told_every_key() -> None:
    with pytest.raises(
        PolicyError, match=r"one of the keys mode, top_k, .*, include, got 'includ'"
    ):
        parse_policy({"includ": ["trace"]}, SPEC)


def test_import_takes_the_standard_library_only() -> None:
    imported = (
        "import sys, routing.policy; print(*{name.partition('.')[0] for name in sys.modules})"
    )
    bare = subprocess.run([sys.executable, "-c", "import sys; print(*sys.modules)"], **OUTPUT)
    loaded = subprocess.run([sys.executable, "-c", imported], **OUTPUT).stdout.split()
    others = set(loaded) - sys.stdlib_module_names - set(bare.stdout.split())
    assert others == {"routing"}


OUTPUT: dict[str, Any] = {"check": True, "capture_output": True, "text": True}


def test_router_spec_survives_the_trip_to_another_process() -> None:
    assert RouterSpec.from_dict(SPEC.as_dict()) == SPEC


def _compiled(**routing: Any) -> CompiledPolicy:
    return compile_policy(parse_policy(routing, SPEC), SPEC)


def test_compiled_numbers_are_the_policys_by_layer() -> None:
    compiled = _compiled(mode="head_sample", temperature=[0.5, 1, 2], seed=7, weights="renormalize")
    assert (compiled.mode_row.name, compiled.seed, WEIGHTS[compiled.weights]) == (
        "head_sample",
        7,
        "renormalize",
    )
    for layer_index, temperature in enumerate((0.5, 1, 2)):
        expected = {"top_k": 4, "head": 3, "pool": 16, "temperature": temperature}
        assert compiled.parameters_of(layer_index) == expected
    assert _compiled(mode="top_p").parameters_of(0)["mass"] == 1  # the second of its choices


def test_compiled_steering_is_what_is_added_to_each_logit() -> None:
    compiled = _compiled(ban={"1": [3]}, force={"*": [5]}, bias={"5": {"0": -1.5}})
    rows = array("f", compiled.steering).tolist()
    expected = [[0.0] * 16 for _ in SPEC.layers]
    expected[0][3] = -math.inf
    expected[2][0] = -1.5
    for row in expected:
        row[5] = math.inf
    assert rows == [bias for row in expected for bias in row]
    assert _compiled().steering == b""


def test_scope_says_where_a_policy_begins() -> None:
    assert _compiled(scope="decode").first_position(12) == 12
    assert _compiled(scope="all").first_position(12) == 0


def test_blocks_are_shared_by_equal_policies_alone() -> None:
    alike: dict[str, Any] = {"mode": "sample", "temperature": 1, "seed": 7}
    key = _compiled(**alike).cache_key(12)
    assert _compiled(**{**alike, "temperature": [1, 1, 1]}).cache_key(12) == key
    others: list[dict[str, Any]] = [
        {"seed": 8},
        {"temperature": 0.9},
        {"temperature": [1, 1, 0]},
        {"top_k": 3},
        {"weights": "renormalize"},
        {"scope": "all"},
        {"bias": {"1": {"0": 0.5}}},
    ]
    assert key not in [_compiled(**{**alike, **other}).cache_key(12) for other in others]
    assert _compiled(**alike).cache_key(13) != key  # within a block it decides whose a token is
    whole = {**alike, "scope": "all"}
    assert _compiled(**whole).cache_key(12) == _compiled(**whole).cache_key(13)


def test_seed_is_of_no_effect_where_no_noise_is_drawn() -> None:
    keys = {_compiled(top_k=2, seed=seed).for_choice(seed).cache_key(12) for seed in (1, 2)}
    keys |= {_compiled(mode="sample", top_k=2, temperature=0, seed=3).cache_key(12)}
    assert len(keys) == 2  # by mode


def test_choices_have_derived_seeds() -> None:
    compiled = _compiled(mode="uniform", seed=7)
    assert compiled.for_choice(0) == compiled
    assert compiled.for_choice(3).seed == derive_seed(7, 3)
    assert compiled.for_choice(3).cache_key(12) != compiled.cache_key(12)


def test_compiled_policy_survives_msgpack() -> None:
    compiled = _compiled(mode="sample", seed=7, bias={"1": {"0": 0.5}})
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(compiled))
    assert CompiledPolicy(**fields) == compiled
