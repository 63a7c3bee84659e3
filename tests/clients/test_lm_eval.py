"""The LM Evaluation Harness: log-likelihoods of prompts, and chat, on questions of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lm_eval
import pytest

from tests.clients import MODEL, POLICY
from tests.clients.conftest import Routed
from tests.shared.servers import DEMO, Server

QUESTIONS = [
    ("Translate into French: The cat sleeps.", "Le chat dort.", "Le chien dort."),
    ("What colour is the sky?", "The sky is blue.", "The sky is green."),
    ("Sort these numbers: 12, 3, 7", "3, 7, 12", "12, 7, 3"),
]
# Of the prompt's tokens too: the harness generates none when it asks for log-likelihoods.
EVERYWHERE = {**POLICY, "temperature": 0.2, "scope": "all"}


@pytest.fixture(scope="module", autouse=True)
def _cache_in(tmp_path_factory: pytest.TempPathFactory) -> None:
    import datasets

    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "questions.jsonl"
    rows = [{"question": q, "right": r, "choices": [r, w]} for q, r, w in QUESTIONS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def task(data: Path, output_type: str, metric: str, **settings: Any) -> dict[str, Any]:
    return {
        "task": output_type,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": output_type,
        "doc_to_text": "{{question}}",
        "target_delimiter": "",
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True}],
        **settings,
    }


def evaluate(model: str, at: dict[str, Any], asked: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The task's scores and its samples."""
    found = lm_eval.simple_evaluate(
        model, model_args=at, tasks=[asked], apply_chat_template=True, bootstrap_iters=0
    )
    return found["results"][asked["task"]], found["samples"][asked["task"]]


def test_loglikelihoods_follow_the_policy_of_the_header(
    base_url: str, server: Server, routed: Routed, data: Path
) -> None:
    at = {
        "model": MODEL,
        "base_url": f"{base_url}/completions",
        "tokenizer": str(DEMO),
        "tokenizer_backend": "huggingface",
    }
    asked = task(data, "multiple_choice", "acc", doc_to_choice="{{choices}}", doc_to_target="{{0}}")
    (scores, plain), none = routed(lambda: evaluate("local-completions", at, asked))
    assert (scores["acc,none"], none) == (1.0, 0)

    at["header"] = {"X-Routing-Policy": json.dumps(EVERYWHERE)}
    (scores, sampled), tokens = routed(lambda: evaluate("local-completions", at, asked))
    assert scores["acc,none"] == 1.0
    assert [s["resps"] for s in sampled] != [s["resps"] for s in plain]
    prompts = ["".join(pair) for sample in sampled for pair in sample["arguments"]]
    tokenized = [
        server.post("/tokenize", {"prompt": p, "add_special_tokens": False}) for p in prompts
    ]
    assert tokens == sum(response.json()["count"] for response in tokenized)


def test_chat_follows_the_policy_of_the_tasks_generation_settings(
    base_url: str, routed: Routed, data: Path
) -> None:
    at = {"model": MODEL, "base_url": f"{base_url}/chat/completions"}
    settings = {"until": ["\n"], "max_gen_toks": 24, "routing": EVERYWHERE}
    asked = task(
        data,
        "generate_until",
        "exact_match",
        doc_to_target="{{right}}",
        generation_kwargs=settings,
    )
    (scores, _), tokens = routed(lambda: evaluate("local-chat-completions", at, asked))
    assert scores["exact_match,none"] == 1.0
    assert tokens > 0
