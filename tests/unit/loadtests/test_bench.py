"""The bench's scenarios, texts, figures and report; nothing is served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from loadtests.bench import __main__ as bench
from loadtests.bench import report, start
from loadtests.bench.measure import Experts, Run
from loadtests.bench.results import Point, Results
from loadtests.bench.scenario import (
    Load,
    Scenario,
    ScenarioError,
    Share,
    Variant,
    find,
    names,
)
from loadtests.bench.texts import questions
from routing.policy import parse_policy
from routing.spec import RouterSpec

LOAD = Load(requests=40, in_flight=8)
SCENARIO = Scenario(
    name="ours",
    title="Ours beside theirs",
    rounds=3,
    loads=(LOAD,),
    variants=(Variant(name="theirs", server="stock"), Variant(name="ours")),
)


def run_of(speed: float) -> Run:
    times = [1.0, 2.0, 3.0]
    experts = Experts(imbalance=1.5, active=12.0, per_token=4.0)
    return Run(speed, 1.0, 0.5, times, times, times, 2.0, 900.0, 0.0, experts)


@pytest.mark.parametrize("name", names())
def test_every_scenario_that_comes_with_galton_can_be_read(name: str) -> None:
    scenario = find(name)
    assert scenario.name == name
    assert len(scenario.variants) > 1


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "title: Field required"),
        ("title = 'x'\nloads = []\nvariants = []", "loads: Tuple should have at least 1 item"),
        ("round = 3", "title: Field required"),
        ("title = 'x'\nround = 3\nloads = [{in_flight = 1}]\nvariants = [{name = 'a'}]", "round: "),
        ("title = 'x'\nloads = [{}]\nvariants = [{name = 'a'}]", "loads.0: Value error, either"),
        (
            "title = 'x'\nloads = [{in_flight = 1}]\nvariants = [{name = 'a'}, {name = 'a'}]",
            "file: Value error, two variants have the same name",
        ),
        (
            "title = 'x'\nloads = [{in_flight = 1}]\n"
            "[[variants]]\nname = 'a'\nserver = 'stock'\npolicies = [{routing = {top_k = 1}}]",
            "variants.0: Value error, only Galton has policies",
        ),
        ("title = ", "Invalid value"),
    ],
)
def test_a_wrong_scenario_names_its_field(tmp_path: Path, text: str, wrong: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError) as raised:
        find(str(path))
    assert str(raised.value).startswith(f"{path}: ")
    assert wrong in str(raised.value)


SPECS = {
    "demo": RouterSpec(tuple(range(8)), 16, 4, 4),
    "olmoe": RouterSpec(tuple(range(8)), 64, 8, 8),
    "qwen3-moe": RouterSpec(tuple(range(8)), 128, 8, 8),
}


@pytest.mark.parametrize("name", names())
def test_a_scenarios_server_takes_its_policies(name: str) -> None:
    scenario = find(name)
    for variant in scenario.variants:
        takes_steering = "--allow-request-steering" in {*scenario.flags, *variant.flags}
        for share in variant.policies:
            policy = {k: v for k, v in (share.routing or {}).items() if k != "include"}
            if policy.get("mode") != "replay":  # its trace is recorded first
                parse_policy(policy, SPECS[scenario.checkpoint], allow_steering=takes_steering)


def test_another_server_is_a_command_line_with_the_checkpoint_filled_in() -> None:
    command = ("serve", "{checkpoint}")
    variant = Variant(name="other", server=command, body={"model": "{checkpoint}"}).of("/models/a")
    assert variant.server == ("serve", "/models/a")
    assert variant.body == {"model": "/models/a"}
    with pytest.raises(ValueError, match="only Galton has policies"):
        Variant(name="other", server=command, policies=(Share(routing={"top_k": 1}),))


@pytest.mark.parametrize("name", ["rivals", "rivals-olmoe"])
def test_rivals_are_scenarios(name: str) -> None:
    scenario = find(str(Path(bench.__file__).parent / "rivals" / f"{name}.toml"))
    assert scenario.variants[0].server == "galton"
    assert any(variant.server[0].endswith("llama-server") for variant in scenario.variants)


def test_starts_are_compared_pair_by_pair() -> None:
    ours = [{"/health answers": 12.0}, {"/health answers": 15.0}]
    theirs = [{"/health answers": 11.0}, {"/health answers": 11.5}]
    rows = start.table({"stock vLLM": theirs, "Galton": ours}).splitlines()
    assert rows[0] == "| until | stock vLLM | Galton | more |"
    assert (
        "| /health answers | 11.2 s (11.0 to 11.5) | 13.5 s (12.0 to 15.0) | 2.2 s (1.0 to 3.5) |"
        in rows
    )


def test_an_unknown_scenario_is_told_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ScenarioError, match=r"no scenario 'nobody'; there are .*routing"):
        find("nobody")


def test_variants_are_asked_the_same_and_share_no_beginning() -> None:
    ours = questions(SCENARIO, LOAD, "round 1", "ours")
    theirs = questions(SCENARIO, LOAD, "round 1", "theirs")
    later = questions(SCENARIO, LOAD, "round 2", "ours")
    assert ours == questions(SCENARIO, LOAD, "round 1", "ours")
    assert len({q.messages[0]["content"][:10] for q in ours + theirs + later}) == 120
    for one, other in zip(ours, theirs, strict=True):
        assert (one.messages[1:], one.output_tokens) == (other.messages[1:], other.output_tokens)
    assert ours[0].messages[1:] != later[0].messages[1:]
    assert len({q.output_tokens for q in ours}) > 10


def test_a_history_stands_before_the_question() -> None:
    load = Load(requests=3, in_flight=1, history=4, output_tokens=7)
    for asked in questions(SCENARIO, load, "x"):
        roles = [message["role"] for message in asked.messages]
        assert roles == ["system", *["user", "assistant"] * 4, "user"]
        assert asked.output_tokens == 7


def test_a_ratio_is_of_the_same_round(tmp_path: Path) -> None:
    results = Results(tmp_path, SCENARIO)
    for round_, (theirs, ours) in enumerate([(100, 110), (10, 12), (50, 65)]):
        results.runs[Point(round_, LOAD.label, "theirs")] = run_of(theirs)
        results.runs[Point(round_, LOAD.label, "ours")] = run_of(ours)
    ratio = results.ratio("ours", LOAD.label, "tokens_per_second")
    assert ratio is not None
    assert ratio.median == pytest.approx(1.2)
    assert ratio.low == pytest.approx(1.1)
    assert ratio.high == pytest.approx(1.3)
    assert results.ratio("theirs", LOAD.label, "tokens_per_second") is None


def test_a_killed_bench_goes_on_and_another_scenario_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def measure(_: Any, __: Any, scenario: Scenario, variant: Variant, load: Load, key: str) -> Run:
        if len(asked) == 6:
            raise KeyboardInterrupt
        asked.append(f"{key} {variant.name}")
        return run_of(100 + len(asked))

    @contextmanager
    def tool() -> Iterator[None]:
        yield None

    path = tmp_path / "ours.toml"
    path.write_text(
        "title = 'x'\nrounds = 3\nloads = [{in_flight = 1}]\n"
        "variants = [{name = 'a'}, {name = 'b'}]\n"
    )
    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(bench, "load_tool", tool)
    monkeypatch.setattr(bench, "GAP_SECONDS", 0)
    monkeypatch.setattr(bench, "_ceiling", lambda *_: 5000.0)
    monkeypatch.setattr(bench, "_start", lambda *_: {("galton", ()): None})
    command = [str(path), "--out", str(tmp_path / "out")]
    assert bench.main(command) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert asked[2:] == ["round 0 a", "round 0 b", "round 1 a", "round 1 b"]
    asked.clear()
    assert bench.main(command) == 0
    assert asked == ["warm-up a", "warm-up b", "round 2 a", "round 2 b"]
    found = json.loads((tmp_path / "out" / "ours" / "results.json").read_text())
    assert len(found["runs"]) == 6
    assert "| 1 streams | b |" in capsys.readouterr().out

    path.write_text(path.read_text().replace("in_flight = 1", "in_flight = 2"))
    asked.clear()
    assert bench.main(command) == 130
    assert "round 0 a" in asked


def test_the_report_stands_alone_and_escapes(tmp_path: Path) -> None:
    variants = (Variant(name="stock", server="stock"), Variant(name="<b>", policies=(Share(),)))
    results = Results(tmp_path, SCENARIO.model_copy(update={"variants": variants}))
    for round_ in range(3):
        for variant in variants:
            results.runs[Point(round_, LOAD.label, variant.name)] = run_of(100)
    results.ceiling = 12345.6
    results.save()
    assert Results.load(results.path).runs == results.runs
    path = tmp_path / "report.html"
    report.write(results, path)
    page = path.read_text()
    assert "<td>&lt;b&gt;</td>" in page
    assert "12,346" in page
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert "src=" not in page
