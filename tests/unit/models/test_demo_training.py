"""Training of the demo: reproducible, resumable after a kill, balanced, measured."""

from __future__ import annotations

import csv
import itertools
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen3MoeForCausalLM

from models.demo.language.data import Example
from models.demo.language.scores import tally, wilson
from models.demo.training import batches, train
from models.demo.training.log import CURVES
from models.demo.training.moe import build_config, build_model
from models.demo.training.noise import Draw
from models.demo.training.recipe import Recipe
from models.demo.training.router import StochasticRouter
from models.demo.training.run import Run
from routing.reference.noise import gumbel
from server.cli import main

STEPS = 6
RECIPE = Recipe(0, "sample", 1, 4e-3, 0.01, 1.0, 0.3, layers=1)
# One layer, small batches, a small tokenizer: the loop under test is the same.
SMALL = """
import functools, sys
from models.demo.training import batches, train
batches.BATCH_TOKENS, batches.BLOCK_EXAMPLES, train.TOKENIZER_EXAMPLES = 384, 96, 500
train.Recipe = functools.partial(train.Recipe, layers=1)
"""
TRAIN = SMALL + "sys.exit(train.main(sys.argv[1:]))"
# In the middle of a step: the state of the one before is saved, the curves have a row of step 4.
KILLED_AFTER = 5
TRAIN_UNTIL_KILLED = f"""{SMALL}
import os, signal
from models.demo.training.run import Run
train_step = Run.train_step
def train_or_die(run, batch):
    train_step(run, batch)
    if run.step == {KILLED_AFTER}:
        os.kill(os.getpid(), signal.SIGKILL)
Run.train_step = train_or_die
sys.exit(train.main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_TOKENS", 384)
    monkeypatch.setattr(batches, "BLOCK_EXAMPLES", 96)
    monkeypatch.setattr(train, "TOKENIZER_EXAMPLES", 500)


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


def trained(run: Run, until: int) -> Run:
    stream = batches.batches(run.tokenizer, run.recipe.seed, run.place)
    while run.step < until:
        run.train_step(next(stream))
    return run


def same(first: Run, second: Run) -> bool:
    pairs = zip(weights_of(first).values(), weights_of(second).values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def unbroken() -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "BATCH_TOKENS", 384)
        patch.setattr(batches, "BLOCK_EXAMPLES", 96)
        patch.setattr(train, "TOKENIZER_EXAMPLES", 500)
        return trained(Run(RECIPE, STEPS, train.make_tokenizer(0)), STEPS)


def test_same_seed_same_weights_and_another_seed_others(unbroken: Run) -> None:
    again = trained(Run(RECIPE, STEPS, unbroken.tokenizer), STEPS)
    assert same(unbroken, again)
    other = Run(replace(RECIPE, seed=1), STEPS, unbroken.tokenizer)
    assert not same(unbroken, trained(other, STEPS))


def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(
    unbroken: Run, tmp_path: Path
) -> None:
    run = trained(Run(RECIPE, STEPS, unbroken.tokenizer), 3)
    run.save(tmp_path)
    trained(run, 5)  # what a kill would lose
    resumed = Run.load(tmp_path)
    assert (resumed.step, resumed.steps) == (3, STEPS)
    assert same(trained(resumed, STEPS), unbroken)


def test_killed_and_started_again_it_finishes_as_if_unbroken(unbroken: Run, tmp_path: Path) -> None:
    """The command itself, killed with SIGKILL in the middle; its curves have every row once."""
    flags = f"--steps {STEPS} --threads 1 --looks 0 --save-minutes 0 --log-every 2"
    arguments = ["--out", str(tmp_path), *flags.split()]

    def run(code: str) -> int:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode

    curves = tmp_path / CURVES
    assert run(TRAIN_UNTIL_KILLED) == -signal.SIGKILL
    assert Run.load(tmp_path).step == KILLED_AFTER - 1
    assert "\n4," in curves.read_text()
    assert run(TRAIN) == 0
    assert same(Run.load(tmp_path), unbroken)
    with curves.open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4", "6"]
    assert (tmp_path / "checkpoint" / "model.safetensors").exists()


def test_another_recipe_is_refused_in_the_same_directory(
    tmp_path: Path, unbroken: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    unbroken.save(tmp_path)
    flags = f"--steps {STEPS} --threads 1 --routing top_k"
    assert main(["train", "--out", str(tmp_path), *flags.split()]) == 1
    assert "routing sample (asked: top_k)" in capsys.readouterr().err


def test_the_temperature_is_annealed_and_the_control_has_none() -> None:
    assert [RECIPE.temperature(x) for x in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.65, 0.3])
    assert replace(RECIPE, routing="top_k").temperature(0.0) == 0.0


def test_gradients_reach_chosen_experts_and_the_router_only_through_weights(
    unbroken: Run,
) -> None:
    model = build_model(build_config(unbroken.tokenizer, 1))
    router = StochasticRouter(model.model.layers[0].mlp.gate, 0)
    router.draw = Draw(np.array([7], np.uint64), np.array([0.5]), 3)
    hidden = torch.randn(1, 3, 192)
    _, weights, ids = router(hidden)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(3))
    experts = model.model.layers[0].mlp.experts
    experts(hidden[0], ids, weights).square().sum().backward()
    touched = experts.down_proj.grad.abs().sum(dim=(1, 2)) > 0
    assert touched.nonzero().flatten().tolist() == sorted(set(ids.flatten().tolist()))
    assert router.router.weight.grad.abs().sum() > 0


def test_noise_follows_the_gumbel_distribution_of_serving() -> None:
    """First choice at temperature 1 is softmax: N = 20,000, 4 sigma on each of 4 experts."""

    class Gate:
        weight, top_k = torch.tensor([[0.0], [0.5], [1.0], [2.0]]), 1

    router = StochasticRouter(Gate(), 0)
    router.draw = Draw(np.array([3], np.uint64), np.array([1.0]), 20_000)
    ids = router(torch.ones(1, 20_000, 1))[2]
    share = torch.bincount(ids.flatten(), minlength=4) / 20_000
    expected = Gate.weight.flatten().softmax(dim=0)
    assert ((share - expected).abs() < 4 * (expected * (1 - expected) / 20_000).sqrt()).all()


def test_noise_is_what_serving_draws_for_the_same_seed_layer_and_position() -> None:
    draw = Draw.of_step(seed=5, step=11, shape=(3, 4), hottest=0.8)
    assert len(set(draw.seeds.tolist())) == 3
    assert ((draw.temperatures > 0) & (draw.temperatures < 0.8)).all()
    for layer, num_experts in ((0, 16), (6, 10)):
        noise = draw.noise(layer, num_experts).view(3, 4, num_experts)
        for row, position in itertools.product(range(3), range(4)):
            expected = gumbel(int(draw.seeds[row]), layer, position, num_experts)
            expected *= draw.temperatures[row]
            np.testing.assert_allclose(noise[row, position], expected, rtol=1e-12, atol=1e-12)


def test_every_step_and_run_draws_its_own_noise() -> None:
    draws = [Draw.of_step(seed, step, (2, 1), 1.0) for seed in (0, 1) for step in (0, 1)]
    assert len({seed for draw in draws for seed in draw.seeds.tolist()}) == 8
    assert len({t for draw in draws for t in draw.temperatures.tolist()}) == 8


def test_fast_experts_and_attention_equal_transformers_own(unbroken: Run) -> None:
    torch.manual_seed(5)
    fast = build_model(build_config(unbroken.tokenizer, 2)).eval()
    plain = Qwen3MoeForCausalLM(fast.config).eval()
    plain.set_attn_implementation("sdpa")
    plain.set_experts_implementation("eager")
    plain.load_state_dict(fast.state_dict())
    for length in (9, 300):  # short rows, and those that take the fused kernel
        ids = torch.randint(10, 500, (2, length))
        torch.testing.assert_close(fast(ids).logits, plain(ids).logits, atol=1e-4, rtol=1e-4)


def test_wilson_interval_and_table_of_results() -> None:
    assert wilson(90, 100) == pytest.approx((0.8256, 0.9448), abs=1e-4)  # Wilson 1927
    assert wilson(10, 10)[1] == 1.0
    good = Example("arithmetic", "1 + 1", "2", ("k",))
    hard = Example("arithmetic", "100 + 1", "101", ("k",), difficulty="hard")
    scores = tally([(good, "2"), (good, "3"), (hard, "101")])
    by_name = {(s.task, s.difficulty): (s.right, s.total) for s in scores}
    assert by_name["arithmetic", "easy"] == (1, 2)
    assert by_name["questions", "easy, medium"] == (1, 2)
    assert by_name["all", "all"] == (2, 3)
