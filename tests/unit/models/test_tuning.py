"""Tuning: data, metrics, intervals and searches by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.tuning.data import DataError, Example, read_examples, refuse_shared
from models.tuning.interval import paired_gain
from models.tuning.metrics import METRICS, Metric, MetricError, Scores, find_metric
from models.tuning.objective import Asking, Objective
from models.tuning.path_update import PathUpdate, bias_routing
from models.tuning.report import FIRST_LINE, Found, ReportError, refuse_foreign, write_found
from models.tuning.search import Budget
from models.tuning.spaces import (
    SpaceError,
    TemperatureSpace,
    TopKSpace,
    allocate,
    frozen_layers,
    mean_experts,
)
from models.tuning.study import Studies, StudyError
from models.tuning.tune import Run, Searches
from routing.engine.request import Request
from routing.policy import parse_policy
from routing.policy.keys import MAX_BIAS
from routing.policy.presets import PresetError, Presets
from routing.spec import RouterSpec
from server.cli import main

SPEC = RouterSpec(layers=(0, 2, 3, 5), num_experts=8, top_k=2, max_top_k=4)
EXACT = METRICS["exact_match"]


# --- data -----------------------------------------------------------------------------------


def data(tmp_path: Path, *rows: object, name: str = "data.jsonl") -> Path:
    path = tmp_path / name
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(texts) + "\n")
    return path


def test_prompts_and_chats_with_one_or_more_references_are_read(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Hi"}]
    path = data(
        tmp_path,
        {"prompt": "1+1=", "reference": "2", "id": 7},
        "",
        {"messages": chat, "references": ["Hello", "Hi"]},
    )
    first, second = read_examples(path)
    assert first == Example("1+1=", False, ("2",), 1)
    assert second.is_chat
    assert second.messages() == chat
    assert (second.references, second.line) == (("Hello", "Hi"), 3)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{'prompt'", r":2: not JSON"),
        ("[1]", r":2: must be an object, got \[1\]"),
        ({"reference": "x"}, r":2: must have either prompt or messages"),
        ({"prompt": 3, "reference": "x"}, r":2: prompt: must be a string.*got 3"),
        ({"prompt": "x"}, r":2: must have reference or references"),
        ({"prompt": "x", "references": ["a", 1]}, r":2: references\[1\]: must be a string.*got 1"),
        ({"prompt": "x", "references": "a"}, r":2: references: must be a list"),
        ({"prompt": "x", "reference": "a", "references": []}, r":2: must have either reference"),
        ({"messages": [], "reference": "x"}, r":2: messages: must be a list"),
        ({"messages": [{"role": "user"}], "reference": "x"}, r":2: messages\[0\]\.content: .*null"),
    ],
)
def test_bad_example_names_file_line_and_field(tmp_path: Path, row: object, message: str) -> None:
    path = data(tmp_path, {"prompt": "p", "reference": "r"}, row)
    with pytest.raises(DataError, match=f"data.jsonl{message}"):
        read_examples(path)


def test_references_may_be_absent_where_the_metric_needs_none(tmp_path: Path) -> None:
    (example,) = read_examples(data(tmp_path, {"prompt": "x"}), needs_references=False)
    assert example.references == ()


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.jsonl: cannot be read"):
        read_examples(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match=r"data.jsonl: holds no example"):
        read_examples(data(tmp_path))


def test_a_test_split_that_shares_a_prompt_is_refused(tmp_path: Path) -> None:
    validation = read_examples(data(tmp_path, *({"prompt": p, "reference": "r"} for p in "abc")))
    path = data(tmp_path, *({"prompt": p, "reference": "s"} for p in "dc"), name="test.jsonl")
    with pytest.raises(DataError, match=r"test.jsonl:2: the same prompt as line 3"):
        refuse_shared(validation, read_examples(path), path)


# --- metrics --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "answers", "references", "value"),
    [
        ("exact_match", [" 4\n", "5"], ["4", "four"], 0.5),
        ("exact_match", ["four"], ["4", "four"], 1),
        ("pass_at_n", ["1", "2", "4"], ["4"], 1),
        ("pass_at_n", ["1", "2"], ["4"], 0),
        ("diversity", ["a", "a ", "a"], [], 0),
        ("diversity", ["a", "b", "a"], [], 0.5),
        ("diversity", ["a", "b", "c"], [], 1),
        ("chrf", ["the cat sat", "the cat sat"], ["a dog ran", "the cat sat"], 100),
        ("chrf", ["xyz"], ["abc"], 0),
    ],
)
def test_metric_of_one_example(
    name: str, answers: list[str], references: list[str], value: float
) -> None:
    score = METRICS[name].score
    assert score is not None
    assert score(answers, references) == pytest.approx(value)


def test_perplexity_weighs_tokens_not_examples() -> None:
    scores = Scores(METRICS["perplexity"], np.array([1.0, 2.0]), np.array([3.0, 1.0]))
    assert scores.summary() == pytest.approx(np.exp(5 / 4))


def test_users_metric_is_found_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_metric.py").write_text(
        "def length(answers, references): return len(answers[0]) - len(references)\n"
        "def bad(answers, references): return 'much'\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    score = find_metric("my_metric:length").score
    bad = find_metric("my_metric:bad").score
    assert score is not None
    assert bad is not None
    assert score(["four"], []) == 4
    with pytest.raises(MetricError, match=r"finite number, returned 'much'"):
        bad(["four"], [])
    for name, message in {
        "my_metric:number": "is not a function",
        "my_metric:none": "cannot be imported",
        "no_such_module:f": "cannot be imported",
        "bleu": "must be one of exact_match, chrf, .* or module:function, got 'bleu'",
    }.items():
        with pytest.raises(MetricError, match=message):
            find_metric(name)


# --- intervals ------------------------------------------------------------------------------


def scored(values: Sequence[float] | np.ndarray, metric: Metric = EXACT) -> Scores:
    return Scores(metric, np.array(values, float), np.ones(len(values)))


def test_interval_is_that_of_the_paired_difference() -> None:
    """Of 100 examples 10 turn right: a difference of 0.1, standard error 0.03."""
    own = scored([0] * 10 + [1, 0] * 45)
    tuned = scored([1] * 10 + [1, 0] * 45)
    gain = paired_gain(own, tuned)
    assert gain.estimate == pytest.approx(0.1)
    # Percentiles 2.5 and 97.5 of Binomial(100, 0.1) / 100.
    assert [gain.low, gain.high] == pytest.approx([0.05, 0.16], abs=0.011)
    assert gain.verdict == "gain"
    assert paired_gain(tuned, own).verdict == "loss"


def test_no_gain_is_claimed_where_the_interval_holds_zero() -> None:
    own, tuned = scored([1] * 50 + [0] * 3), scored([1] * 49 + [0] + [1] * 3)
    gain = paired_gain(own, tuned)
    assert gain.estimate > 0
    assert gain.low <= 0 <= gain.high
    assert gain.verdict == "no gain shown"
    assert paired_gain(own, own).verdict == "no gain shown"


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """100 data sets of 60 examples, true difference 0.1: 95 % of intervals hold it.

    Binomial(100, 0.95) is below 88 or is 100 with probability 0.01.
    """
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(100):
        own = rng.random(60)
        gain = paired_gain(scored(own), scored(own + rng.normal(0.1, 0.3, 60)))
        covered += gain.low <= 0.1 <= gain.high
    assert 88 <= covered <= 99


def test_less_perplexity_is_a_gain() -> None:
    metric = METRICS["perplexity"]
    gain = paired_gain(scored([2.0, 3, 4], metric), scored([1.0, 2, 3], metric))
    assert gain.verdict == "gain"
    assert gain.estimate == pytest.approx(np.exp(3) - np.exp(2))


# --- spaces ---------------------------------------------------------------------------------


class Chosen:
    """A trial that suggests given numbers."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = list(numbers)
        self.asked: list[tuple[str, float, float]] = []

    def suggest_float(self, name: str, low: float, high: float) -> float:
        self.asked.append((name, low, high))
        return self.numbers.pop(0)


def test_frozen_layers_stay_at_temperature_zero() -> None:
    space = TemperatureSpace(SPEC, 0.5, frozen_layers(["first", "3"], SPEC))
    trial = Chosen(0.1, 0.4)
    routing = space.suggest(trial)
    assert routing == {"mode": "sample", "temperature": [0.0, 0.1, 0.0, 0.4]}
    assert trial.asked == [("layer_2", 0, 0.5), ("layer_5", 0, 0.5)]
    assert parse_policy(routing, SPEC)


def test_layers_that_cannot_be_frozen_are_named() -> None:
    with pytest.raises(SpaceError, match=r"first, last, 0, 2, 3, 5, got '1'"):
        frozen_layers(["1"], SPEC)
    with pytest.raises(SpaceError, match="every layer is frozen"):
        frozen_layers(["first", "last", "2", "3"], SPEC)


@pytest.mark.parametrize("budget", [1.0, 1.75, 2.0, 3.25, 4.0])
def test_every_allocation_spends_the_budget(budget: float) -> None:
    space = TopKSpace(SPEC, budget)
    rng = np.random.default_rng(1)
    for shares in (np.ones(4), np.zeros(4), *rng.random((50, 4))):
        routing = space.suggest(Chosen(*shares))
        assert mean_experts(routing, SPEC) == budget
        assert parse_policy(routing, SPEC)
    even = space.suggest(Chosen(*space.start.values()))["top_k"]
    assert max(even) - min(even) <= 1


def test_shares_decide_who_gets_experts_and_frozen_layers_keep_theirs() -> None:
    assert allocate(np.array([1.0, 0, 0, 0.1]), 7, 4) == [4, 1, 1, 1]
    space = TopKSpace(SPEC, 2.0, frozenset({0}))
    assert space.suggest(Chosen(1.0, 0, 0))["top_k"] == [2, 4, 1, 1]


def test_budget_that_no_allocation_meets_is_refused_with_its_range() -> None:
    with pytest.raises(SpaceError, match="from 1 to 4 experts per token, got 5"):
        TopKSpace(SPEC, 5)
    with pytest.raises(SpaceError, match=r"from 1.25 to 3.5 experts per token, got 1"):
        TopKSpace(SPEC, 1, frozenset({0}))


# --- the path update ------------------------------------------------------------------------


def climbed(update: PathUpdate, reward: Any, generations: int) -> np.ndarray:
    bias = update.start()
    for generation in range(generations):
        rewards = np.array([reward(b) for b in update.candidates(bias, generation)])
        bias = update.updated(bias, generation, rewards)
    return bias


def test_path_update_finds_a_planted_optimum() -> None:
    """A reward as an accuracy is one, a step function: of 64 tokens, the share of choices that
    are the two planted experts of their layer. By chance it is a quarter.
    """
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 1.5, (64, 4, 8))
    planted = rng.permuted(np.tile(np.arange(8), (4, 1)), axis=1)[:, :2]

    def reward(bias: np.ndarray) -> float:
        chosen = (logits + bias).argsort(-1)[..., -2:]
        return float((chosen[..., None] == planted[:, None, :]).any(-1).mean())

    start = reward(PathUpdate(SPEC).start())
    assert start < 0.35
    assert reward(climbed(PathUpdate(SPEC), reward, 40)) > 0.95
    # As many updates without a reward do not move.
    assert reward(climbed(PathUpdate(SPEC), lambda _: 0.5, 40)) == start


def test_bias_stays_within_what_a_request_may_ask() -> None:
    update = PathUpdate(SPEC, sigma=5, rate=10)
    bias = climbed(update, lambda bias: bias.sum(), 40)
    assert np.abs(bias).max() == MAX_BIAS
    routing = bias_routing(bias, SPEC)
    assert set(routing["bias"]) == {"0", "2", "3", "5"}
    assert parse_policy(routing, SPEC)


def test_frozen_layers_get_no_bias() -> None:
    update = PathUpdate(SPEC, frozen=frozenset({2}))
    bias = climbed(update, lambda bias: bias.sum(), 3)
    assert not bias[1].any()
    assert bias[[0, 2, 3]].all()
    assert "2" not in bias_routing(bias, SPEC)["bias"]
    assert bias_routing(update.start(), SPEC) == {"mode": "top_k"}


def test_every_example_serves_once_per_round() -> None:
    update = PathUpdate(SPEC, minibatch=4)
    rounds = [
        [i for g in range(3) for i in update.examples(3 * round_ + g, 12)] for round_ in range(2)
    ]
    assert [sorted(r) for r in rounds] == [list(range(12))] * 2
    assert rounds[0] != rounds[1]
    assert sorted(update.examples(5, 3)) == [0, 1, 2]


# --- a run without an engine ----------------------------------------------------------------


class Tokenizer:
    def encode(self, text: str, **_: object) -> list[int]:
        return list(text.encode())


class PlantedEngine:
    """Answers "right" the more often, the nearer the temperatures are to 0, 0.3, 0, 0.8."""

    tokenizer = Tokenizer()
    max_model_len = 100
    planted = np.array([0, 0.3, 0, 0.8])

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> list[str]:
        self.requests += requests
        return [self._answer(request) for request in requests]

    def prompt_logprobs(self, requests: Sequence[Request]) -> list[list[float]]:
        self.requests += requests
        return [[-1.0] * (len(r.prompt_token_ids) - 1) for r in requests]

    def _answer(self, request: Request) -> str:
        temperature = np.array(request.routing.get("temperature", 0.0)) * np.ones(4)
        distance = np.abs(temperature - self.planted).sum()
        hardness = sum(request.prompt_token_ids) % 50 / 50 * 2
        return "right" if distance < hardness else "wrong"


TRIALS = 14  # Optuna's TPE draws at random until it has 10
EXAMPLES = [Example(f"question {i}", False, ("right",), i) for i in range(40)]


def a_run(path: Path, engine: PlantedEngine, trials: int, progress: Any = None) -> Run:
    settings = {"metric": "exact_match"}
    return Run(
        SPEC,
        Searches([TemperatureSpace(SPEC, 1.0), TopKSpace(SPEC, 1.5)], PathUpdate(SPEC)),
        Studies(path, settings, higher_is_better=True),
        Objective(engine, EXAMPLES, EXACT, Asking(), "validation"),
        Objective(engine, EXAMPLES, EXACT, Asking(), "test"),
        Budget(trials),
        seed=3,
        progress=progress or (lambda *_: None),
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Found]]:
    path = tmp_path_factory.mktemp("tuning") / "study.db"
    return path, a_run(path, PlantedEngine(), TRIALS).found()


def test_every_search_starts_from_the_model_and_reports_its_baseline(
    undisturbed: tuple[Path, list[Found]],
) -> None:
    temperature, top_k, bias = undisturbed[1]
    assert temperature.value > temperature.own
    assert temperature.random is not None
    assert temperature.verdict == "gain"
    assert top_k.experts == (2.0, 1.5)
    assert (bias.random, bias.routing) == (None, {"mode": "top_k"})
    assert bias.verdict == "no gain shown"
    assert [found.trials for found in undisturbed[1]] == [TRIALS] * 3


def test_a_run_that_was_cut_short_goes_on_to_the_same_result(
    undisturbed: tuple[Path, list[Found]], tmp_path: Path
) -> None:
    class Cut(BaseException):
        pass

    class DyingEngine(PlantedEngine):
        """Breaks in the middle of a trial, every seventh batch."""

        batches = 0

        def generate(self, requests: Sequence[Request]) -> list[str]:
            type(self).batches += 1
            if self.batches % 7 == 0:
                raise Cut
            return super().generate(requests)

    path, runs = tmp_path / "study.db", 0
    while True:
        try:
            found = a_run(path, DyingEngine(), TRIALS).found()
            break
        except Cut:
            runs += 1
    assert runs > 5
    assert [f.results() for f in found] == [f.results() for f in undisturbed[1]]
    assert [f.routing for f in found] == [f.routing for f in undisturbed[1]]


def test_the_baseline_draws_other_policies(undisturbed: tuple[Path, list[Found]]) -> None:
    studies = Studies(undisturbed[0], {"metric": "exact_match"}, higher_is_better=True)
    guided, control = (studies.open(name).trials for name in ("temperature", "temperature-random"))
    same = [g.routing == c.routing for g, c in zip(guided, control, strict=True)]
    assert same == [True] + [False] * (TRIALS - 1)  # both start from the model's own


def test_stopping_keeps_what_is_done_and_begins_no_further_search(tmp_path: Path) -> None:
    def stop_at_four(_search: str, done: int, _own: float, _best: float) -> None:
        run.budget.stopped = done == 4

    run = a_run(tmp_path / "study.db", PlantedEngine(), 25, stop_at_four)
    (found,) = run.found()
    assert (found.search, found.trials) == ("temperature", 4)


def test_policies_meet_the_same_noise_and_the_test_split_other(tmp_path: Path) -> None:
    engine = PlantedEngine()
    routings = [{"mode": "sample", "temperature": t} for t in (0.2, 0.4)]
    asking = Asking(samples=2)
    for split in ("validation", "test"):
        Objective(engine, EXAMPLES[:3], EXACT, asking, split).scores(routings)
    seeds = np.array([r.routing["seed"] for r in engine.requests]).reshape(2, 2, 6)
    assert (seeds[:, 0] == seeds[:, 1]).all()
    assert len(set(seeds[:, 0].flat)) == 12


def test_perplexity_is_of_the_reference_under_the_policy() -> None:
    engine = PlantedEngine()
    objective = Objective(engine, EXAMPLES[:2], METRICS["perplexity"], Asking(), "validation")
    (scores,) = objective.scores([objective.in_scope({"mode": "sample", "temperature": 0.5})])
    assert scores.weights.tolist() == [5, 5]
    assert scores.summary() == pytest.approx(np.e)
    assert bytes(engine.requests[0].prompt_token_ids) == b"question 0right"
    assert engine.requests[0].routing["scope"] == "all"


def test_scope_is_part_of_the_policy() -> None:
    for scope, added in {"decode": {}, "all": {"scope": "all"}}.items():
        objective = Objective(PlantedEngine(), EXAMPLES, EXACT, Asking(scope=scope), "validation")
        assert objective.in_scope({"mode": "top_k"}) == {"mode": "top_k", **added}


def test_example_longer_than_the_model_takes_is_named() -> None:
    long = [Example("x" * 100, False, ("r",), 9)]
    with pytest.raises(
        DataError, match="test data, line 9: 100 tokens, the model takes at most 99"
    ):
        Objective(PlantedEngine(), long, EXACT, Asking(), "test")


def test_study_of_other_settings_or_no_study_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    Studies(path, {"metric": "chrf"}, higher_is_better=True).open("own")
    with pytest.raises(StudyError, match=r"study.db was made otherwise \(metric was 'chrf', is"):
        Studies(path, {"metric": "diversity"}, higher_is_better=True).open("own")
    (tmp_path / "text.db").write_text("not a database at all, but long enough to look like one")
    with pytest.raises(StudyError, match=r"text.db: is no study"):
        Studies(tmp_path / "text.db", {}, higher_is_better=True)


# --- presets --------------------------------------------------------------------------------


def test_presets_are_read_back_with_their_results(
    undisturbed: tuple[Path, list[Found]], tmp_path: Path
) -> None:
    path = tmp_path / "tuned.toml"
    write_found(path, {f"tuned-{f.search}": f for f in undisturbed[1]})
    presets = Presets.read(path).resolved(SPEC)
    assert list(presets.named) == ["tuned-temperature", "tuned-top_k", "tuned-bias"]
    for found in undisturbed[1]:
        preset = presets.named[f"tuned-{found.search}"]
        assert preset.routing == found.routing
        assert preset.results == found.results()
        assert preset.description == found.description()
    low, high = presets.named["tuned-temperature"].results["test"]["interval"]
    assert 0 < low < high


def test_without_a_test_split_no_gain_is_claimed(
    undisturbed: tuple[Path, list[Found]], tmp_path: Path
) -> None:
    (found,) = (
        Found(f.search, f.routing, f.metric, 1, 0, f.own, f.value, None, 40, f.experts)
        for f in undisturbed[1][:1]
    )
    path = tmp_path / "tuned.toml"
    write_found(path, {"tuned": found})
    preset = Presets.read(path).named["tuned"]
    assert preset.description.endswith("not tested, so no gain is claimed")
    assert preset.results["verdict"] == "not tested"
    assert "test" not in preset.results


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gained = 1", r":5: presets.p.results.gained: unknown key; known are search, metric"),
        ("test = { gain = [2, 1] }", r":5: presets.p.results.test.gain: must be a finite number"),
        ("test = 3", r":5: presets.p.results.test: must be a table"),
        ("trials = [1]", r":5: presets.p.results.trials: must be a string or a number"),
        ("verdict = nan", r":5: presets.p.results.verdict: must be"),
    ],
)
def test_results_that_are_none_are_refused(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "presets.toml"
    path.write_text(f"[presets.p]\nrouting = {{}}\n\n[presets.p.results]\n{line}\n")
    with pytest.raises(PresetError, match=f"presets.toml{message}"):
        Presets.read(path)


def test_only_its_own_files_are_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "presets.toml"
    refuse_foreign(path)
    path.write_text(FIRST_LINE)
    refuse_foreign(path)
    path.write_text('default = "mine"')
    with pytest.raises(ReportError, match=r"presets.toml exists"):
        refuse_foreign(path)


# --- the command ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--metric=bleu"], "--metric must be one of exact_match"),
        (["--test={data}"], "data.jsonl:1: the same prompt as line 1"),
        (["--data=none.jsonl"], "none.jsonl: cannot be read"),
    ],
)
def test_what_cannot_be_tuned_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    path = data(tmp_path, {"prompt": "p", "reference": "r"})
    argv = ["tune", f"--data={path}", *(flag.format(data=path) for flag in flags)]
    assert main(argv) == 1
    error = capsys.readouterr().err
    assert error.startswith("galton: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "flag", ["--trials=0", "--population=3", "--max-temperature=11", "--name=A"]
)
def test_flag_out_of_range_names_itself_and_what_is_accepted(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["tune", "--data=x", flag])
    name, value = flag.split("=")
    assert re.search(f"argument {name}: must .*got '{value}'", capsys.readouterr().err)
