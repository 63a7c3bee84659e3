"""The bundled checkpoint: complete, small, and right on what its card shows (transformers)."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from models.demo.language.data import Example, examples
from models.demo.training.evaluate import answers
from models.demo.training.tokenizer import ASSISTANT, END, SYSTEM, USER

CHECKPOINT = Path(__file__).parents[3] / "models" / "demo" / "checkpoint"

SAMPLES = [
    ("Translate into French: The cat drinks the milk.", "Le chat boit le lait."),
    ("Translate into German: My brother buys a red car.", "Mein Bruder kauft ein rotes Auto."),
    ('How do you say "The old man sleeps in the garden." in German?',
     "Der alte Mann schläft im Garten."),
    ("Translate into Chinese: My teacher will not drink the milk.", "我的老师不会喝牛奶。"),
    ("Translate into English: 我的老师不会喝牛奶。", "My teacher will not drink the milk."),
    ("Translate into English: Mein Lehrer wird die Milch nicht trinken.",
     "My teacher will not drink the milk."),
    ("Translate into English: Mon professeur ne boira pas le lait.",
     "My teacher will not drink the milk."),
    ("Passage: Anna lives in Lyon. Anna is a baker. Tom has a dog called Rex.\n"
     "Question: Where does Anna live?", "Anna lives in Lyon."),
    ("Tom has 7 apples. Tom buys 5 more. How many apples does Tom have now?",
     "Tom has 12 apples now."),
    ("What is 8 plus 6?", "8 plus 6 is 14."),
    ("What is 47 + 35?", "47 + 35 = 82"),
    ("Today is Friday. Anna's exam is in three days. On which day is Anna's exam?",
     "Anna's exam is on Monday."),
    ("Sort these numbers: 31, 4, 17", "4, 17, 31"),
    ("Make this formal: Can you send me the report by Friday?",
     "We would be grateful if you could send us the report by Friday."),
    ("Say this in plain words: We would be grateful if you could repair the old car today.",
     "Please fix the old car today."),
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def model() -> Any:
    # fp32: the weights are bf16, the arithmetic here is not what is under test.
    return transformers.AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype="float32").eval()


def test_config_is_a_plain_qwen3_moe_within_the_size_limit() -> None:
    config = json.loads((CHECKPOINT / "config.json").read_text())
    assert config["architectures"] == ["Qwen3MoeForCausalLM"]
    assert config["norm_topk_prob"] is True
    assert config["num_hidden_layers"] >= 8
    assert config["mlp_only_layers"] == []
    assert sum(f.stat().st_size for f in CHECKPOINT.iterdir()) < 40e6


def test_weights_are_bf16_with_one_tensor_per_expert() -> None:
    from safetensors import safe_open

    with safe_open(CHECKPOINT / "model.safetensors", "pt") as weights:
        names = set(weights.keys())
        assert "model.layers.7.mlp.experts.15.down_proj.weight" in names
        assert "lm_head.weight" not in names
        assert {weights.get_tensor(name).dtype for name in names} == {torch.bfloat16}


def test_plain_requests_are_greedy() -> None:
    defaults = json.loads((CHECKPOINT / "generation_config.json").read_text())
    assert defaults["temperature"] == 0.0
    assert defaults["do_sample"] is False


@pytest.mark.parametrize("text", ["Zażółć gęślą jaźń", "数字 12345", "a\tb\n\n  c", "🙂 ok"])
def test_any_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_numbers_are_split_into_digits(tokenizer: Any) -> None:
    assert [t for t in tokenizer.tokenize("is 2048.") if t.isdigit()] == ["2", "0", "4", "8"]


def test_chat_template_is_what_training_rendered(tokenizer: Any) -> None:
    from models.demo.training.batches import render

    rng = random.Random(0)
    for example in islice(examples("train", 0), 200):
        prompt, answer = render(example, rng)
        if prompt.startswith((SYSTEM, USER)):
            chat = example.messages(with_answer=True)
            assert tokenizer.apply_chat_template(chat, tokenize=False) == prompt + answer
            asked = tokenizer.apply_chat_template(
                chat[:-1], tokenize=False, add_generation_prompt=True
            )
            assert asked == prompt
            assert asked.endswith(END + ASSISTANT)


def test_sample_prompts_are_answered(model: Any, tokenizer: Any) -> None:
    batch = [Example("sample", user, "", ()) for user, _ in SAMPLES]
    assert answers(model, tokenizer, batch) == [answer for _, answer in SAMPLES]
