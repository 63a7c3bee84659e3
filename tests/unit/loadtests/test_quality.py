"""`make quality` and `make presets`: their numbers by hand."""

from __future__ import annotations

import argparse
import tomllib
from dataclasses import replace
from itertools import islice
from math import comb, log2
from pathlib import Path

import numpy as np
import pytest

from loadtests import presets as tune_presets
from loadtests.quality import __main__ as quality
from loadtests.quality import plots, report
from loadtests.quality.measure import (
    Measured,
    Passes,
    busiest,
    pass_at,
)
from loadtests.quality.results import Results
from loadtests.quality.rows import DEMO, OWN, Row, all_rows
from loadtests.quality.usage import Usage, information, kind_of, usage
from models.demo import EXPERTS, LAYERS, PRESETS
from models.demo.language.data import Example, examples
from models.demo.language.judge import any_right, right_and_new
from models.demo.language.scores import Score
from routing.policy.presets import Preset, Presets, write_presets
from server.cli.flags import TuneFlags

RNG = np.random.default_rng(0)


def held_out(task: str, count: int) -> list[Example]:
    return list(islice(examples("valid", 0, (task,)), count))


@pytest.mark.parametrize("right", [0, 1, 5, 16])
@pytest.mark.parametrize("n", [1, 4, 16])
def test_pass_at_n_is_the_share_of_draws_with_a_right_answer(n: int, right: int) -> None:
    wrong_draws = comb(16 - right, n)
    assert pass_at(n, 16, right) == pytest.approx(1 - wrong_draws / comb(16, n))
    if n == 1:
        assert pass_at(n, 16, right) == pytest.approx(right / 16)


def test_busiest_is_one_where_load_is_even() -> None:
    assert busiest(np.full((3, 4), 7)) == 1
    assert busiest(np.array([[4, 0], [1, 1]])) == pytest.approx(1.5)  # of 2 and 1


def test_information_of_kinds_with_experts_of_their_own_is_their_entropy() -> None:
    own = np.eye(4)[:, None, :]  # [4 kinds, 1 layer, 4 experts]
    assert information(own) == pytest.approx([log2(4)])
    assert information(np.full((4, 2, 4), 0.25)) == pytest.approx([0, 0])


def planted(examples: list[Example], strength: float) -> np.ndarray:
    """[N, L, E] loads of 40 tokens that lean to an expert of the kind's own."""
    kinds = sorted({kind_of(example) for example in examples})
    p = np.full((len(kinds), EXPERTS), (1 - strength) / EXPERTS)
    p[range(len(kinds)), range(len(kinds))] += strength
    chosen = [p[kinds.index(kind_of(example))] for example in examples]
    return np.stack([RNG.multinomial(40, row, size=LAYERS) for row in chosen])


@pytest.mark.parametrize(("strength", "recognized"), [(0.5, 1.0), (0.0, 0.5)])
def test_kinds_are_told_where_routing_follows_them_and_only_there(
    strength: float, recognized: float
) -> None:
    drawn = held_out("calendar", 60) + held_out("ordering", 60)
    found = usage(drawn, planted(drawn, strength))
    assert found.kinds == ["calendar", "ordering"]
    assert found.recognized / found.classified == pytest.approx(recognized, abs=0.12)
    excess = (found.bits - found.chance_bits).mean()
    assert excess > 0.1 if strength else abs(excess) < 0.01
    again = Usage.from_json(found.as_json())
    assert (again.kinds, again.recognized) == (found.kinds, found.recognized)
    np.testing.assert_allclose(again.share, found.share, atol=1e-5)


def test_essays_are_of_kinds_by_style() -> None:
    kinds = {kind_of(example) for example in held_out("essay", 60)}
    assert kinds == {f"essay, {style}" for style in ("plain", "formal", "poetic", "telegraphic")}


def test_rows_have_names_of_their_own_and_every_preset_is_among_them() -> None:
    rows = all_rows(PRESETS, control=True)
    assert len({row.key for row in rows}) == len(rows)
    assert rows[0].name == OWN
    declared = tomllib.loads(PRESETS.read_text())["presets"]
    assert {row.preset for row in rows} - {""} == set(declared)
    assert {row.draws for row in rows if row.preset} == {
        table["routing"]["mode"] != OWN for table in declared.values()
    }


def made_up(row: Row) -> Measured:
    scores = [Score(task, level, 9, 10) for task in ("calendar", "translation", "questions", "all")
              for level in ("easy", "easy, medium", "all")]  # fmt: skip
    passes = Passes([0.5, 0.6, 0.7, 0.8], [0.1] * 4, 2.5) if row.draws else None
    return Measured(row, scores, 4.0, 0.9, 1.5, passes, [100.0, 110.0])


def test_report_and_pictures_show_every_row(tmp_path: Path) -> None:
    rows = all_rows(PRESETS, control=True)
    measured = [made_up(row) for row in rows]
    drawn = held_out("calendar", 5) + held_out("ordering", 5)
    usages = {DEMO: usage(drawn, planted(drawn, 0.5))}
    plots.draw(tmp_path, measured, usages)
    assert {path.name for path in tmp_path.iterdir()} == {
        "accuracy.svg", "passes.svg", "usage.png"
    }  # fmt: skip
    settings = {"per_task": 1, "sampled_per_task": 1, "machine": "this"}
    text = report.full(settings, measured, usages)
    for row in rows:
        assert f"| {row.key.removeprefix('demo ')} | 90 (60-98) |" in text
    assert report.summary(measured).count("90 (60-98)") == 10 * 3


def test_results_are_gone_on_with_unless_made_otherwise(tmp_path: Path) -> None:
    rows = all_rows(PRESETS, control=False)
    results = Results.at(tmp_path, {"per_task": 1}, rows)
    for row in (rows[0], rows[-1]):
        results.measured[row.key] = made_up(row)
    results.save()
    assert Results.at(tmp_path, {"per_task": 1}, rows).measured == results.measured
    assert Results.at(tmp_path, {"per_task": 2}, rows).measured == {}
    other_preset = replace(rows[-1], routing={"mode": "uniform"})
    kept = Results.at(tmp_path, {"per_task": 1}, [rows[0], other_preset]).measured
    assert kept == {rows[0].key: results.measured[rows[0].key]}


def test_a_checkpoint_that_is_not_there_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quality.main([f"--checkpoint={tmp_path / 'none'}", f"--out={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("quality: ")
    assert "none" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("flag", ["--per-task", "--sampled-per-task"])
def test_a_count_below_one_is_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quality.main([f"{flag}=0"])
    assert f"{flag}: 0: must be 1 or more" in capsys.readouterr().err


# --- the demo's presets ---------------------------------------------------------------------


def test_different_right_answers_count_once_each() -> None:
    assert right_and_new(["4", "4", "5", " 4 "], ["4"]) == 0.25
    assert any_right(["5", " 4 "], ["4"]) == 1
    assert any_right(["5", "44"], ["4"]) == 0
    first, *others = [e for e in held_out("essay", 400) if e.user.startswith("Write two")]
    same = [e for e in others if e.essay == first.essay]
    answers = [first.assistant, same[0].assistant, "No essay.", first.assistant]
    assert right_and_new(answers, [first.assistant]) == 0.5


@pytest.mark.parametrize("recipe", tune_presets.RECIPES, ids=lambda recipe: recipe.name)
def test_recipes_are_command_lines_of_galton_tune(
    recipe: tune_presets.Recipe, tmp_path: Path
) -> None:
    parser = argparse.ArgumentParser()
    TuneFlags.add_arguments(parser)
    args = parser.parse_args([f"--data={tmp_path}", f"--trials={recipe.trials}", *recipe.flags])
    assert args.search in ("bias", "temperature", "top_k")
    tune_presets.write_data(tmp_path / "data.jsonl", "valid", recipe, 20)
    assert len((tmp_path / "data.jsonl").read_text().splitlines()) >= 20


@pytest.mark.parametrize(("name", "verdict", "ships"), [
    ("precise", "gain", True),
    ("precise", "no gain shown", False),
    ("translate", "no gain shown", True),
    ("translate", "loss", False),
    ("fast", "loss", True),
])  # fmt: skip
def test_a_preset_that_is_not_worth_it_is_the_models_own_routing(
    name: str, verdict: str, ships: bool, tmp_path: Path
) -> None:
    [recipe] = [recipe for recipe in tune_presets.RECIPES if recipe.name == name]
    results = {"verdict": verdict, "test": {"interval": [-1.0, 0.5]}}
    tuned = Preset(name, 'Tuned "so"', {"mode": "top_k", "top_k": 3}, results=results)
    shipped = tune_presets.shipped(recipe, tuned)
    write_presets(tmp_path / "presets.toml", "# Head", {name: shipped})
    preset = Presets.read(tmp_path / "presets.toml").named[name]
    assert preset.routing == ({"mode": "top_k", "top_k": 3} if ships else {"mode": "top_k"})
    assert preset.description.startswith(recipe.meaning)
    assert bool(preset.results) == ships
