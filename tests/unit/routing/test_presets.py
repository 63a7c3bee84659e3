"""Presets files, their errors, and which of a request's policies is in force."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from loadtests.presets import SHARED
from models.demo import PRESETS
from routing.policy import PolicyError, parse_policy
from routing.policy.modes import MODES
from routing.policy.presets import PresetError, Presets, write_presets
from routing.policy.schema import mode_schema
from routing.policy.seed import SeedWindows
from routing.spec import RouterSpec
from server.aliases import read_presets
from server.settle import Settled, Sources, UnknownPresetError, settle

SPEC = RouterSpec(layers=(0, 1, 2), num_experts=8, top_k=2, max_top_k=4)
FILE = """\
default = "of-default"

[presets.of-alias]
description = "first"
routing = { mode = "sample", temperature = 3 }

[presets.of-key]
routing.mode = "sample"
routing.temperature = 4

[presets.of-default.routing]
mode = "sample"
temperature = 5

[presets.steers]
routing = { mode = "sample", ban = { "*" = [0] } }

[presets.seeded]
routing = { mode = "sample", seed = 9 }

[keys]
"%s" = "of-key"
""" % hashlib.sha256(b"my key").hexdigest()  # noqa: UP031


def read(text: str, tmp_path: Path, models: tuple[str, ...] = ("m", "big/m")) -> Presets:
    path = tmp_path / "presets.toml"
    path.write_text(text)
    return read_presets(path, models).resolved(SPEC)


@pytest.fixture
def presets(tmp_path: Path) -> Presets:
    return read(FILE, tmp_path)


def settled(presets: Presets, steering: bool = False, **asked: Any) -> Settled:
    return settle(Sources(**asked), presets, SPEC, allow_steering=steering)


# Which policy a source names: by its temperature, and its own seed if it has one.
BODY: dict[str, dict[str, Any] | None] = {
    "absent": None,
    "whole": {"mode": "sample", "temperature": 1, "seed": 11},
    "seed only": {"seed": 12},
}
HEADER = {
    "absent": None,
    "whole": '{"mode": "sample", "temperature": 2}',
    "seed only": '{"seed": 21}',
}


@pytest.mark.parametrize(
    ("body", "header", "alias", "key", "default"),
    list(itertools.product(BODY, HEADER, *[(False, True)] * 3)),
)
def test_precedence(
    presets: Presets, body: str, header: str, alias: bool, key: bool, default: bool
) -> None:
    if not default:
        presets = Presets(presets.named)
    asked = Sources(
        BODY[body],
        HEADER[header],
        "of-alias" if alias else None,
        "of-key" if key else None,
    )
    got = settle(asked, presets, SPEC, allow_steering=False)

    whole = [body == "whole", header == "whole", alias, key, default]
    winner = whole.index(True) if any(whole) else None
    if winner is None:
        assert got.policy.mode == "top_k"
    else:
        assert got.policy["temperature"] == winner + 1
    names = [None, None, "of-alias", "of-key", "of-default"]
    assert got.preset == (names[winner] if winner is not None else None)
    if body != "absent":
        assert got.policy.seed == {"whole": 11, "seed only": 12}[body]
    elif header == "seed only":
        assert got.policy.seed == 21
    else:
        assert (got.policy.seed is None) == (winner is None)  # drawn


def test_preset_is_not_checked_again_for_a_request(
    presets: Presets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was checked and compiled with its file; a request gives it a seed at most."""
    whole = settled(presets, body={"mode": "sample", "temperature": 3, "seed": 5})

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("checked or compiled again")

    monkeypatch.setattr("server.settle.compile_policy", refuse)
    preset = settled(presets, body={"seed": 5}, alias="of-alias")
    assert (preset.policy, preset.compiled) == (whole.policy, whole.compiled)
    monkeypatch.setattr("server.settle.parse_policy", refuse)
    drawn = [settled(presets, alias="of-alias") for _ in range(2)]
    assert drawn[0].policy.seed != drawn[1].policy.seed
    for one in drawn:
        assert one.compiled is not None
        assert one.compiled.seed == one.policy.seed
        assert one.shown["seed"] == one.policy.seed
    seeded = settled(presets, body="seeded")
    assert seeded.compiled is not None
    assert seeded.compiled.seed == seeded.policy.seed == 9


def test_a_request_without_a_seed_takes_that_of_the_window(tmp_path: Path) -> None:
    """Its preset's own window before the server's; whoever names a seed has that."""
    presets = read(
        "[presets.own]\nseed_window = 40000\nrouting.mode = 'sample'\n"
        "[presets.none]\nseed_window = 0\nrouting.mode = 'sample'\n"
        "[presets.servers]\nrouting.mode = 'sample'\n",
        tmp_path,
    )
    windows = SeedWindows(86_400)

    def seed(**asked: Any) -> int | None:
        got = settle(Sources(**asked), presets, SPEC, allow_steering=False, windows=windows)
        assert got.compiled is not None
        assert got.compiled.seed == got.policy.seed == got.shown["seed"]
        return got.policy.seed

    assert seed(body={"mode": "sample"}) == seed(alias="servers") == windows.seed()
    assert seed(alias="own") == windows.seed(40_000)
    assert seed(alias="none") != seed(alias="none")
    assert seed(body={"mode": "sample", "seed": 3}) == seed(body={"seed": 3}, alias="own") == 3
    assert seed(body={"mode": "uniform"}, token_seed=4) == 4


def test_name_in_body_and_header_chooses_the_preset(presets: Presets) -> None:
    assert settled(presets, body="seeded").preset == "seeded"
    for header in ("seeded", '"seeded"'):
        assert settled(presets, header=header).preset == "seeded"
    assert settled(presets, body="seeded").policy.seed == 9
    assert settled(presets, body={"seed": 1}, header="seeded").policy.seed == 1


def test_include_is_no_part_of_the_policy(presets: Presets) -> None:
    got = settled(presets, body={"include": ["trace", "stats", "trace"]}, alias="seeded")
    assert (got.preset, got.policy.seed) == ("seeded", 9)
    assert got.report is not None
    assert got.report.include == ("trace", "stats")
    assert "include" not in got.policy.as_dict()
    assert settled(presets, body={"mode": "uniform", "include": None}).report is None
    for bad in ("stats", ["all"], [["stats"]], {"stats": 1}):
        with pytest.raises(PolicyError, match=r"routing.include must be a list of 'stats' or"):
            settled(presets, body={"include": bad})


def test_null_leaves_the_policy_to_the_next_source(presets: Presets) -> None:
    body = {"mode": None, "top_k": None, "seed": 1}
    got = settled(presets, body=body, alias="of-alias")
    assert (got.preset, got.policy.seed) == ("of-alias", 1)
    with pytest.raises(PolicyError, match="'mod'"):
        settled(presets, body={"mod": None}, alias="of-alias")


def test_presets_steer_where_requests_may_not(presets: Presets) -> None:
    steering = settled(presets, body={"seed": 7}, alias="steers").policy.steering
    assert steering is not None
    assert steering.requested == {"ban": {"*": [0]}}
    ban = {"mode": "sample", "ban": {"*": [0]}}
    with pytest.raises(PolicyError, match="--allow-request-steering"):
        settled(presets, body=ban, alias="steers")
    assert settled(presets, steering=True, body=ban).preset is None


def test_unknown_preset_names_near_ones(presets: Presets) -> None:
    with pytest.raises(UnknownPresetError, match=r"`seedde` does not exist. Near names: `seeded`"):
        settled(presets, body="seedde")
    with pytest.raises(UnknownPresetError, match="GET /v1/routing/presets"):
        settled(presets, header="zzz")
    with pytest.raises(UnknownPresetError) as raised:
        settled(presets, body="seeded" * 10**6)  # at once, in few words
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("body", [[1], 7, True])
def test_body_that_is_neither_object_nor_name(presets: Presets, body: object) -> None:
    with pytest.raises(PolicyError, match=r"routing must be an object .* or a preset's name"):
        settled(presets, body=body)


@pytest.mark.parametrize("header", ["mode=sample", "{", "[" * 100_000, ""])
def test_header_that_is_neither_json_nor_name(presets: Presets, header: str) -> None:
    with pytest.raises(PolicyError, match="header x-routing-policy must be a JSON object"):
        settled(presets, header=header)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"mode": "best"}, r"header x-routing-policy: mode must be .*, got 'best'"),
        ({"mode": "sample", "temperature": [1, 11, 1]}, r"policy: temperature\[1\] must be a num"),
        ({"temprature": 1}, r"header x-routing-policy must be one of the keys mode, .*'tempra"),
        ({"seed": -1}, r"header x-routing-policy: seed must be an integer"),
        ({"include": ["all"]}, r"header x-routing-policy: include must be a list of"),
        ([1], r"header x-routing-policy must be an object .* or a preset's name, got \[1\]"),
    ],
)
def test_error_in_the_header_names_the_header(
    presets: Presets, header: object, message: str
) -> None:
    with pytest.raises(PolicyError, match=f"{message}") as raised:
        settled(presets, header=json.dumps(header), body={"seed": 3})
    assert raised.value.field.startswith("header x-routing-policy")
    # The same in the body, above a header that is right, is the body's.
    with pytest.raises(PolicyError) as raised:
        settled(presets, body=header, header="seeded")
    assert raised.value.field.startswith("routing")


def test_request_is_read_wherever_clients_put_things(presets: Presets) -> None:
    for headers in ({"authorization": "Bearer my key"}, {"authorization": "bearer my key"}):
        assert Sources.of(None, "m", None, headers, presets) == Sources(key="of-key")
    assert Sources.of(None, None, None, {"authorization": "Basic my key"}, presets) == Sources()
    headers = {"x-routing-policy": "seeded", "authorization": "Bearer other"}
    asked = Sources.of({"seed": 1}, "big/m-of-alias", -1, headers, presets)
    assert asked == Sources({"seed": 1}, "seeded", "of-alias", None, token_seed=2**63 - 1)


@pytest.mark.parametrize(
    ("asked", "seed"),
    [
        ({"alias": "of-alias"}, 42),
        ({"body": {"mode": "sample"}}, 42),
        ({"header": '{"mode": "uniform"}'}, 42),
        ({"body": {"mode": "sample", "seed": 11}}, 11),
        ({"body": {"seed": 12}, "alias": "of-alias"}, 12),
        ({"alias": "seeded"}, 9),
        ({"body": {"top_k": 1}}, None),
        ({}, None),
    ],
)
def test_noise_follows_the_tokens_seed_where_no_policy_names_one(
    presets: Presets, asked: dict[str, Any], seed: int | None
) -> None:
    got = settled(Presets(presets.named), token_seed=42, **asked)
    assert got.policy.seed == seed
    assert got.compiled is None or got.compiled.seed == seed


def test_every_model_has_every_alias(presets: Presets) -> None:
    assert len(presets.aliases) == 2 * 5
    assert presets.aliases["big/m-seeded"] == "seeded"


def test_resolved_policy_has_a_seed_only_where_one_is_declared(presets: Presets) -> None:
    assert presets.named["seeded"].shown() == {
        **{"mode": "sample", "top_k": 2, "temperature": 1.0, "seed": 9},
        "scope": "decode",
    }
    assert presets.named["of-key"].shown()["mode"] == "sample"
    assert "seed" not in presets.named["of-key"].shown()


def test_the_demos_file_suits_the_demo() -> None:
    spec = RouterSpec(tuple(range(8)), 16, 4, 4)
    presets = read_presets(PRESETS, ["galton-demo"]).resolved(spec)
    assert set(presets.named) == {
        *("precise", "balanced", "diverse", "fast", "translate", "qa", "write", "shared")
    }
    assert presets.named["shared"].seed_window == SHARED["seed_window"]
    assert presets.named["shared"].routing == SHARED["routing"]
    assert presets.named["shared"].description == SHARED["description"]
    assert all(preset.description for preset in presets.named.values())
    assert presets.default is None


GOOD_PRESET = '[presets.a]\nrouting = { mode = "sample" }\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n[presets.a\n", r":2: Expected ']'"),
        ("a = ", r":1: Invalid value"),
        ("\ndefaults = 'a'", r":2: defaults: unknown key; known are default, presets, keys"),
        ("presets = 1", r":1: presets: must be a table, got 1"),
        ("[presets]\na = 1", r":2: presets.a: must be a table, got 1"),
        ("[presets.'A b']\nrouting = {}", r":1: presets.A b: a name must match \[a-z"),
        ("[presets.a]\ndescription = 'x'", r":1: presets.a: the key routing is missing"),
        (GOOD_PRESET + "seed_window = -1", r":3: presets.a.seed_window: must be seconds from 0 to"),
        (GOOD_PRESET + "policy = 1", r":3: presets.a.policy: unknown key; known are desc"),
        (GOOD_PRESET + "description = 1", r":3: presets.a.description: must be a string, got 1"),
        ("[presets.a]\n\nrouting = 'b'", r":3: presets.a.routing: must be a table, got 'b'"),
        (GOOD_PRESET + "[keys]\nsecret-key = 'a'", r":4: keys: every key must be the SHA-256"),
        (GOOD_PRESET + f"[keys]\n{'a' * 64} = 'b'", r":4: keys: must name a preset, got 'b'"),
        (f"[keys]\n{'a' * 64} = 1", r":2: keys: must name a preset, got 1"),
        ("default = 'aa'\n" + GOOD_PRESET, r":1: default: must .* got 'aa'. Near names: `a`"),
        (GOOD_PRESET * 2, r":3: Cannot declare \('presets', 'a'\) twice"),
        # What only the model can tell.
        ("[presets.a.routing]\nmode = 'best'", r":2: presets.a.routing.mode: must be .*'best'"),
        (
            "[presets.a]\ndescription = '''\nx = 1\n'''\nrouting.mode = 'sample'\n"
            "routing.temperature = [1,\n 11, 1]",
            r":6: presets.a.routing.temperature\[1\]: must be a number from 0 to 10, got 11",
        ),
        (
            "[presets.a]\nrouting = { top_k = 5 }",
            r":2: presets.a.routing.top_k: must be an integer from 1 to 4, got 5",
        ),
        (
            "[presets.a.routing]\nmode = 'sample'\n[presets.a.routing.bias]\n0.5 = 1\n"
            "1 = { 3 = 'x' }",
            r":5: presets.a.routing.bias.1.3: must be a number from -20 to 20, got 'x'",
        ),
        (
            "[presets.a.routing.ban]\n0 = [1]\n1 = [8]",
            r":3: presets.a.routing.ban.1: must be experts from 0 to 7, got 8",
        ),
        (
            "[presets.a.routing]\nmode = 'sample'\ntemprature = 1",
            r":3: presets.a.routing: must be one of the keys mode, .*, got 'temprature'",
        ),
        (
            "[presets.a.routing]\ninclude = ['stats']",
            r":2: presets.a.routing.include: must be left out of a policy",
        ),
        ("[presets.a.routing]\nseed = 1.5", r":2: presets.a.routing.seed: must be an integer"),
    ],
)
def test_bad_file_names_file_line_and_key(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(PresetError, match=r"presets\.toml" + message) as raised:
        read(text, tmp_path)
    assert "secret-key" not in str(raised.value)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    tables = {
        "0.5-a": {
            "description": 'says "so"\n# and = more \\ \N{SNOWMAN}',
            "routing": {"mode": "sample", "temperature": [0, 0.5, 1], "bias": {"*": {"7": -1.5}}},
            "results": {"verdict": "gain", "test": {"interval": [-1.0, 0.5], "examples": 3}},
        },
        "b": {"description": "", "routing": {}},
    }
    path = tmp_path / "presets.toml"
    write_presets(path, "# Head", tables)
    assert path.read_text().startswith("# Head\n")
    assert [file.name for file in tmp_path.iterdir()] == ["presets.toml"]
    presets = Presets.read(path).resolved(SPEC)
    for name, table in tables.items():
        preset = presets.named[name]
        assert (preset.description, preset.routing) == (table["description"], table["routing"])
        assert preset.results == table.get("results", {})


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(PresetError, match=r"cannot be read \(not a regular file\)"):
            Presets.read(other)
    with pytest.raises(PresetError, match=r"none.toml: cannot be read \(No such file"):
        Presets.read(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(PresetError, match=r"latin.toml: not UTF-8 \(byte 2\)"):
        Presets.read(tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("model", "name", "part"),
    [
        *((f"{start}m", "a", f"'{start}'") for start in ("o1", "o3", "o4", "gpt-5", "codex")),
        *((f"{start}m", "a", f"'{start}'") for start in ("computer-use", "text-", "dall-")),
        *((f"{start}m", "a", f"'{start}'") for start in ("tts-", "davinci")),
        *(("m", name, "'-search-'") for name in ("search-a", "a-search-b", "search")),
    ],
)
def test_alias_that_frontends_rewrite_is_refused(
    model: str, name: str, part: str, tmp_path: Path
) -> None:
    text = f"[presets.{name}]\nrouting = {{}}"
    for served in (model, model.capitalize()):
        with pytest.raises(PresetError, match=rf":1: presets.{name}: its alias .* has {part}"):
            read(text, tmp_path, (served,))


@pytest.mark.parametrize("name", ["research", "o1", "text-a", "searching"])
def test_harmless_names_are_accepted(name: str, tmp_path: Path) -> None:
    assert read(f"[presets.{name}]\nrouting = {{}}", tmp_path).named


def test_alias_that_is_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match="its alias 'm-a' is the name of a model"):
        read(GOOD_PRESET, tmp_path, ("m", "m-a"))


@pytest.mark.parametrize(
    ("routing", "accepted"),
    [
        ({}, True),
        ({"top_k": 4, "scope": "all", "weights": "renormalize"}, True),
        ({"mode": "sample", "temperature": [0, 1, 10], "seed": 2**63 - 1}, True),
        ({"mode": "top_p", "top_p": 1, "mass": "full", "include": ["stats"]}, True),
        ({"mode": "head_sample", "head": 0, "pool": 8, "ban": {"2": [7]}}, True),
        ({"mode": "uniform", "bias": {"*": {"0": -20}}, "force": {"0": [1]}}, True),
        ({"top_k": 5}, False),
        ({"temperature": 1}, False),
        ({"mode": "sample", "temperature": [1, 1]}, False),
        ({"mode": "sample", "temperature": 10.5}, False),
        ({"mode": "sample", "seed": -1}, False),
        ({"mode": "top_p", "top_p": 0}, False),
        ({"mode": "top_p", "mass": "some"}, False),
        ({"mode": "head_sample", "pool": 9}, False),
        ({"mode": "uniform", "ban": {"3": [0]}}, False),
        ({"mode": "uniform", "ban": {"0": [8]}}, False),
        ({"mode": "uniform", "bias": {"0": {"0": 21}}}, False),
        ({"mode": "best"}, False),
        ({"include": ["all"]}, False),
    ],
)
def test_published_schema_accepts_what_the_server_does(
    presets: Presets, routing: dict[str, Any], accepted: bool
) -> None:
    schema = {"anyOf": [mode_schema(mode, SPEC) for mode in MODES.values()]}
    assert jsonschema.Draft202012Validator(schema).is_valid(routing) == accepted
    try:
        settled(Presets(), steering=True, body=routing)
    except PolicyError:
        assert not accepted
    else:
        assert accepted


@pytest.mark.parametrize(
    "mode", [mode for mode in MODES.values() if not mode.takes_trace], ids=lambda mode: mode.name
)
def test_published_defaults_are_the_servers(mode: Any) -> None:
    properties = mode_schema(mode, SPEC)["properties"]
    policy = parse_policy({"mode": mode.name}, SPEC).as_dict()
    for parameter in mode.parameters:
        assert properties[parameter.name]["default"] == policy[parameter.name]
