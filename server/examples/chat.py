"""Chat in the terminal. Ctrl-C stops an answer; at the prompt it leaves.

`/policy NAME_OR_JSON` changes how experts are chosen, `/policy` alone undoes that.
OPENAI_API_KEY holds the key, if the server wants one.
"""

import argparse
import json
import os
import sys
from typing import Any

import openai


def routing(text: str) -> Any:
    return json.loads(text) if text.startswith("{") else text or None


def stream(client: openai.OpenAI, **request: Any) -> str:
    answer = ""
    try:
        with client.chat.completions.create(stream=True, **request) as chunks:
            for part in (c.choices[0].delta.content or "" for c in chunks if c.choices):
                answer += part
                print(part, end="", flush=True)
    except KeyboardInterrupt:
        print(" [stopped]", end="")
    print()
    return answer


os.environ.setdefault("OPENAI_API_KEY", "unused")
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--base-url", default="http://localhost:8000/v1", help="%(default)s")
parser.add_argument("--model", help="default: the first that the server lists")
parser.add_argument("--routing", type=routing, help="the policy: a preset's name, or JSON")
args = parser.parse_args()
client, messages = openai.OpenAI(base_url=args.base_url), list[Any]()
try:
    model = args.model or client.models.list().data[0].id
    while line := input("> ").strip() or " ":
        try:
            if line.startswith("/policy"):
                args.routing = routing(line.removeprefix("/policy").strip())
            elif line != " ":
                asked = [*messages, {"role": "user", "content": line}]
                body = {"routing": args.routing} if args.routing else None
                answer = stream(client, model=model, messages=asked, extra_body=body)
                messages = [*asked, {"role": "assistant", "content": answer}]
        except (ValueError, openai.APIStatusError) as error:
            print(f"refused: {error}")
except (EOFError, KeyboardInterrupt):
    print()
except openai.OpenAIError as error:
    sys.exit(f"chat: {args.base_url}: {error}")
