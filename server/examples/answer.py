"""Answer a question from the text files (.txt, .md) of a folder, and say from which.

Each paragraph is a passage; asked are those that share most, and the rarest, words with the
question. OPENAI_API_KEY holds the key, if the server wants one.
"""

import argparse
import json
import os
import re
import sys
from collections import Counter
from math import log
from pathlib import Path
from typing import Any

import openai


def routing(text: str) -> Any:
    return json.loads(text) if text.startswith("{") else text


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


os.environ.setdefault("OPENAI_API_KEY", "unused")
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path)
parser.add_argument("question")
parser.add_argument("--passages", type=int, default=1, help="how many to ask; %(default)s")
parser.add_argument("--base-url", default="http://localhost:8000/v1", help="%(default)s")
parser.add_argument("--model", help="default: the first that the server lists")
parser.add_argument("--routing", type=routing, help="the policy: a preset's name, or JSON")
args = parser.parse_args()
try:
    files = [path for path in sorted(args.folder.rglob("*")) if path.suffix in (".txt", ".md")]
    passages = [(f, p) for f in files for p in re.split(r"\n\s*\n", f.read_text("utf-8-sig"))]
    if not passages:
        sys.exit(f"answer: no .txt or .md file in {args.folder}")
    known = Counter(word for _, text in passages for word in words(text))
    weight = {word: log(1 + len(passages) / known[word]) for word in known}
    asked = words(args.question)
    passages.sort(key=lambda p: -sum(weight[word] for word in words(p[1]) & asked))
    client = openai.OpenAI(base_url=args.base_url)
    model = args.model or client.models.list().data[0].id
    for path, text in passages[: args.passages]:
        prompt = f"Passage: {' '.join(text.split())}\nQuestion: {args.question}"
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            extra_body={"routing": args.routing} if args.routing else None,
        )
        print(f"{answer.choices[0].message.content}  ({path})")
except (OSError, UnicodeDecodeError, openai.OpenAIError) as error:
    sys.exit(f"answer: {args.folder} by {args.base_url}: {error}")
