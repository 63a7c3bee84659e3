"""Examples to tune on: one JSON object a line, a prompt or chat messages and references."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class DataError(ValueError):
    """Data that cannot be used: names the file, the line and the field."""


@dataclass(frozen=True, slots=True)
class Example:
    """prompt: raw text, or a chat's messages as JSON. references: right answers, best first."""

    prompt: str
    is_chat: bool
    references: tuple[str, ...]
    line: int

    def messages(self) -> list[dict[str, Any]]:
        """The chat's messages; only of a chat."""
        messages: list[dict[str, Any]] = json.loads(self.prompt)
        return messages


def read_examples(path: Path, *, needs_references: bool = True) -> list[Example]:
    """Every example of a JSONL file; blank lines are skipped, further fields ignored.

    Raises DataError.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start})") from None
    examples = []
    # By "\n" alone: a JSON string may hold other characters that end a line elsewhere.
    for line, row in enumerate(text.split("\n"), 1):
        if not row.strip():
            continue
        try:
            examples.append(_example(row, line, needs_references))
        except ValueError as error:
            raise DataError(f"{path}:{line}: {error}") from None
    if not examples:
        raise DataError(f"{path}: holds no example")
    return examples


def refuse_shared(validation: Sequence[Example], test: Sequence[Example], path: Path) -> None:
    """Raise DataError where the test split, at `path`, has a prompt of the validation split."""
    seen = {example.prompt: example.line for example in validation}
    for example in test:
        if example.prompt in seen:
            line = seen[example.prompt]
            raise DataError(
                f"{path}:{example.line}: the same prompt as line {line} of the validation data: "
                "a test split must be untouched"
            )


def _example(row: str, line: int, needs_references: bool) -> Example:
    try:
        given = json.loads(row)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(given, dict):
        raise ValueError(f"must be an object, got {_shown(given)}")
    if ("prompt" in given) == ("messages" in given):
        raise ValueError("must have either prompt or messages")
    if "prompt" in given:
        prompt = _string("prompt", given["prompt"])
    else:
        prompt = json.dumps(_messages(given["messages"]), ensure_ascii=False)
    references = _references(given)
    if needs_references and not references:
        raise ValueError("must have reference or references, which the metric compares with")
    return Example(prompt, "messages" in given, references, line)


def _references(given: dict[str, Any]) -> tuple[str, ...]:
    if "reference" in given and "references" in given:
        raise ValueError("must have either reference or references")
    if "reference" in given:
        return (_string("reference", given["reference"]),)
    listed = given.get("references", [])
    if not isinstance(listed, list):
        raise ValueError(f"references: must be a list of strings, got {_shown(listed)}")
    return tuple(_string(f"references[{i}]", value) for i, value in enumerate(listed))


def _messages(given: object) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not given:
        raise ValueError(f"messages: must be a list of messages, got {_shown(given)}")
    for i, message in enumerate(given):
        if not isinstance(message, dict):
            raise ValueError(f"messages[{i}]: must be an object, got {_shown(message)}")
        for key in ("role", "content"):
            _string(f"messages[{i}].{key}", message.get(key))
    return given


def _string(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name}: must be a string that is not empty, got {_shown(value)}")
    return value


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
