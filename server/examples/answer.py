"""Answer a question from the text files (.txt, .md) of a folder, and say from which.

Each paragraph is a passage. The model reads the passages that share most words with the
question, rare words counting more. OPENAI_API_KEY holds the key, if the server wants one.
"""

import argparse
import json
import os
import re
import sys
from collections import Counter
from math import log
from pathlib import Path
from typing import Any, NamedTuple

import openai

BLANK_LINE = re.compile(r"\n\s*\n")


class Passage(NamedTuple):
    """A paragraph of a file."""

    file: Path
    text: str


def parse_routing(text: str) -> Any:
    """A policy: a preset's name, or JSON."""
    return json.loads(text) if text.startswith("{") else text


def read_passages(folder: Path) -> list[Passage]:
    """Every paragraph of every text file, in the order of the files' names."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".txt", ".md")]
    return [
        Passage(file, text)
        for file in files
        for text in BLANK_LINE.split(file.read_text("utf-8-sig"))
    ]


def words(text: str) -> set[str]:
    """The words of a text, in lower case."""
    return set(re.findall(r"\w+", text.lower()))


def best_first(passages: list[Passage], question: str) -> list[Passage]:
    """Passages by the words that they share with the question, rare words counting more."""
    frequency = Counter(word for passage in passages for word in words(passage.text))

    def score(passage: Passage) -> float:
        shared = words(passage.text) & words(question)
        return sum(log(1 + len(passages) / frequency[word]) for word in shared)

    return sorted(passages, key=score, reverse=True)


def main() -> None:
    """Answer as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("question")
    parser.add_argument("--passages", type=int, default=1, help="how many to ask; %(default)s")
    parser.add_argument("--base-url", default="http://localhost:8000/v1", help="%(default)s")
    parser.add_argument("--model", help="default: the first that the server lists")
    parser.add_argument(
        "--routing", type=parse_routing, help="the policy: a preset's name, or JSON"
    )
    args = parser.parse_args()

    os.environ.setdefault("OPENAI_API_KEY", "unused")
    client = openai.OpenAI(base_url=args.base_url)
    try:
        passages = read_passages(args.folder)
        if not passages:
            sys.exit(f"answer: no .txt or .md file in {args.folder}")
        model = args.model or client.models.list().data[0].id
        for passage in best_first(passages, args.question)[: args.passages]:
            prompt = f"Passage: {' '.join(passage.text.split())}\nQuestion: {args.question}"
            answer = client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": prompt}],
                extra_body={"routing": args.routing} if args.routing else None,
            )
            print(f"{answer.choices[0].message.content}  ({passage.file})")
    except (OSError, UnicodeDecodeError, openai.OpenAIError) as error:
        sys.exit(f"answer: {args.folder} by {args.base_url}: {error}")


if __name__ == "__main__":
    main()
