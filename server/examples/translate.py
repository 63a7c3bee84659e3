"""Translate a subtitle (.srt) or text file: film.srt becomes film.french.srt beside it.

Numbers and timings stay. Interrupted, it goes on next time where it stopped; a finished
translation is never written over. OPENAI_API_KEY holds the key, if the server wants one.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
from rich.progress import track

HEAD = re.compile(r"(?:\d+\s*\n)?.*-->.*(?:\n|$)")  # a subtitle's number and timing
BLANK_LINE = re.compile(r"\n\s*\n")

Translate = Callable[[str], str]


def parse_routing(text: str) -> Any:
    """A policy: a preset's name, or JSON."""
    return json.loads(text) if text.startswith("{") else text


def translator(client: openai.OpenAI, model: str, language: str, routing: Any) -> Translate:
    """A function that translates one line of text."""

    def translate(text: str) -> str:
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": f"Translate into {language}: {text}"}],
            temperature=0,
            extra_body={"routing": routing} if routing else None,
        )
        return " ".join((answer.choices[0].message.content or "").split()) or text

    return translate


def translate_block(block: str, translate: Translate) -> str:
    """A subtitle, whose lines are one text, or a paragraph, line by line."""
    match = HEAD.match(block)
    head = match.group() if match else ""
    lines = block[len(head) :].split("\n")
    texts = [" ".join(lines)] if head else lines
    return head + "\n".join(translate(text) if text else "" for text in texts)


def translate_file(file: Path, target: Path, translate: Translate) -> None:
    """Translate block by block; finished ones wait in a file beside the target."""
    blocks = BLANK_LINE.split(file.read_text("utf-8-sig").strip())
    part = target.with_name(target.name + ".part")
    # A blank line ends a finished block; what follows the last one was cut off.
    finished = part.read_text("utf-8").split("\n\n")[:-1] if part.exists() else []
    with part.open("w", encoding="utf-8", buffering=1) as out:
        for block in finished:
            out.write(f"{block}\n\n")
        for block in track(blocks[len(finished) :], "translating"):
            out.write(translate_block(block, translate) + "\n\n")
    part.rename(target)


def main() -> None:
    """Translate as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--to", default="French", metavar="LANGUAGE", help="%(default)s")
    parser.add_argument("--base-url", default="http://localhost:8000/v1", help="%(default)s")
    parser.add_argument("--model", help="default: the first that the server lists")
    parser.add_argument(
        "--routing", type=parse_routing, help="the policy: a preset's name, or JSON"
    )
    args = parser.parse_args()

    target = args.file.with_suffix(f".{args.to.lower()}{args.file.suffix}")
    if target.exists():
        sys.exit(f"translate: {target} is there already: move it away first")
    os.environ.setdefault("OPENAI_API_KEY", "unused")
    client = openai.OpenAI(base_url=args.base_url)
    try:
        model = args.model or client.models.list().data[0].id
        translate_file(args.file, target, translator(client, model, args.to, args.routing))
    except (OSError, UnicodeDecodeError, openai.OpenAIError) as error:
        sys.exit(f"translate: {args.file} by {args.base_url}: {error}")
    print(target)


if __name__ == "__main__":
    main()
