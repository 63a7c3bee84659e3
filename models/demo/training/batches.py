"""Training batches: exchanges as token ids, in blocks that any step can be found in again."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.demo.language.data import TASKS, Example, examples
from models.demo.training.tokenizer import ASSISTANT, END, SYSTEM, USER

BATCH_TOKENS = 4096
BLOCK_EXAMPLES = 2048
PACKED_SHARE = 0.12
PACKED_LENGTHS, PACKED_WEIGHTS = (128, 256, 1024), (9, 5, 1)
IGNORE = -100


class Document(NamedTuple):
    """A tokenized exchange; its answer begins at `start`. `task` is an index into TASKS."""

    ids: list[int]
    start: int
    task: int


class Batch(NamedTuple):
    """ids, labels, tasks: all [B, S]; B * S is at most BATCH_TOKENS.

    labels[b, s] is the token after position s where it belongs to an answer, else IGNORE.
    """

    ids: Tensor
    labels: Tensor
    tasks: Tensor


@dataclass
class Place:
    """Where in the data training stands: a block, and the next batch in it."""

    block: int = 0
    index: int = 0


def render(example: Example, rng: random.Random) -> tuple[str, str]:
    """Prompt and answer as text; now and then without the chat markers, for plain completion."""
    if not example.system and rng.random() < 0.06:
        plain = example.plain or f"Question: {example.user}\nAnswer:"
        return plain, f" {example.assistant}{END}"
    system = f"{SYSTEM}{example.system}{END}" if example.system else ""
    return f"{system}{USER}{example.user}{END}{ASSISTANT}", f"{example.assistant}{END}"


def documents(tokenizer: Any, seed: int, block: int) -> list[Document]:
    """The exchanges of a block."""
    rng = random.Random(f"documents {seed} {block}")
    drawn = list(itertools.islice(examples("train", seed, block=block), BLOCK_EXAMPLES))
    pairs = [render(example, rng) for example in drawn]
    prompts = tokenizer([prompt for prompt, _ in pairs]).input_ids
    answers = tokenizer([answer for _, answer in pairs]).input_ids
    return [
        Document(prompt + answer, len(prompt), TASKS.index(example.task))
        for example, prompt, answer in zip(drawn, prompts, answers, strict=True)
    ]


def _packed(waiting: list[Document], length: int) -> Iterator[list[Document]]:
    """Rows of whole exchanges, at most `length` + 1 tokens each."""
    row: list[Document] = []
    for doc in waiting:
        if sum(len(d.ids) for d in row) + len(doc.ids) > length + 1:
            if row:
                yield row
            row = []
        if len(doc.ids) <= length + 1:
            row.append(doc)
    if row:
        yield row


def _grouped(rows: list[list[Document]]) -> Iterator[list[list[Document]]]:
    """Rows sorted by length, as many together as BATCH_TOKENS holds."""
    rows = sorted(rows, key=lambda row: sum(len(doc.ids) for doc in row))
    group: list[list[Document]] = []
    for row in rows:
        width = sum(len(doc.ids) for doc in row) - 1
        if group and (len(group) + 1) * width > BATCH_TOKENS:
            yield group
            group = []
        group.append(row)
    yield group


def _tensors(rows: list[list[Document]], pad: int) -> Batch:
    length = max(sum(len(doc.ids) for doc in row) for row in rows)
    ids = torch.full((len(rows), length), pad)
    labels = torch.full((len(rows), length), IGNORE)
    tasks = torch.zeros((len(rows), length), dtype=torch.long)
    for i, row in enumerate(rows):
        at = 0
        for doc in row:
            end = at + len(doc.ids)
            ids[i, at:end] = torch.tensor(doc.ids)
            labels[i, at + doc.start : end] = torch.tensor(doc.ids[doc.start :])
            tasks[i, at:end] = doc.task
            at = end
    return Batch(ids[:, :-1], labels[:, 1:], tasks[:, 1:])


def block_batches(tokenizer: Any, seed: int, block: int) -> list[Batch]:
    """The batches of a block, in random order: a function of its arguments alone.

    Most hold one exchange per row, of similar lengths: copying from the prompt is learnt much
    sooner without other exchanges in view. The rest are packed, for longer contexts.
    """
    rng = random.Random(f"batches {seed} {block}")
    docs = documents(tokenizer, seed, block)
    rng.shuffle(docs)
    cut = int(PACKED_SHARE * len(docs))
    length = rng.choices(PACKED_LENGTHS, PACKED_WEIGHTS)[0]
    single = [[doc] for doc in docs[cut:]]
    groups = [*_grouped(single), *_grouped(list(_packed(docs[:cut], length)))]
    rng.shuffle(groups)
    return [_tensors(group, tokenizer.pad_token_id) for group in groups]


def batches(tokenizer: Any, seed: int, place: Place) -> Iterator[Batch]:
    """Endless batches from `place` on; `place` is moved behind each batch before it is given."""
    while True:
        block = block_batches(tokenizer, seed, place.block)
        while place.index < len(block):
            place.index += 1
            yield block[place.index - 1]
        place.block, place.index = place.block + 1, 0
