"""Translate a subtitle (.srt) or text file: film.srt becomes film.french.srt beside it.

Numbers and timings stay. Interrupted, it goes on next time where it stopped; a finished
translation is never written over. OPENAI_API_KEY holds the key, if the server wants one.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import openai
from rich.progress import track

HEAD = re.compile(r"(?:\d+\s*\n)?.*-->.*(?:\n|$)")  # a subtitle's number and timing


def routing(text: str) -> Any:
    return json.loads(text) if text.startswith("{") else text


def translated(text: str, language: str, client: openai.OpenAI, **request: Any) -> str:
    asked: Any = [{"role": "user", "content": f"Translate into {language}: {text}"}]
    answer = client.chat.completions.create(messages=asked, temperature=0, **request)
    return " ".join((answer.choices[0].message.content or "").split()) or text


os.environ.setdefault("OPENAI_API_KEY", "unused")
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("file", type=Path)
parser.add_argument("--to", default="French", metavar="LANGUAGE", help="%(default)s")
parser.add_argument("--base-url", default="http://localhost:8000/v1", help="%(default)s")
parser.add_argument("--model", help="default: the first that the server lists")
parser.add_argument("--routing", type=routing, help="the policy: a preset's name, or JSON")
args = parser.parse_args()
target = args.file.with_suffix(f".{args.to.lower()}{args.file.suffix}")
part = target.with_name(target.name + ".part")  # finished blocks, a blank line after each
try:
    blocks = re.split(r"\n\s*\n", args.file.read_text("utf-8-sig").strip())
    if target.exists():
        sys.exit(f"translate: {target} is there already: move it away first")
    client = openai.OpenAI(base_url=args.base_url)
    request = {"model": args.model or client.models.list().data[0].id}
    request |= {"extra_body": {"routing": args.routing}} if args.routing else {}
    done = part.read_text("utf-8").split("\n\n")[:-1] if part.exists() else []
    with part.open("w", encoding="utf-8", buffering=1) as out:
        out.writelines(f"{block}\n\n" for block in done)
        for block in track(blocks[len(done) :], "translating"):
            head = match.group() if (match := HEAD.match(block)) else ""
            lines = block[len(head) :].split("\n")
            texts = [" ".join(lines)] if head else lines
            texts = [text and translated(text, args.to, client, **request) for text in texts]
            out.write(head + "\n".join(texts) + "\n\n")
    print(part.rename(target))
except (OSError, UnicodeDecodeError, openai.OpenAIError) as error:
    sys.exit(f"translate: {args.file} by {args.base_url}: {error}")
