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


def parse_routing(text: str) -> Any:
    """A policy: a preset's name, or JSON; nothing for an empty text."""
    if text.startswith("{"):
        return json.loads(text)
    return text or None


def stream_answer(client: openai.OpenAI, **request: Any) -> str:
    """Print an answer as it comes; returns what came of it before its end or a Ctrl-C."""
    answer = ""
    try:
        with client.chat.completions.create(stream=True, **request) as chunks:
            for chunk in chunks:
                if chunk.choices:
                    text = chunk.choices[0].delta.content or ""
                    answer += text
                    print(text, end="", flush=True)
    except KeyboardInterrupt:
        print(" [stopped]", end="")
    print()
    return answer


def chat(client: openai.OpenAI, model: str, routing: Any) -> None:
    """Read lines and answer them, until the input ends."""
    messages: list[Any] = []
    while True:
        line = input("> ").strip()
        try:
            if line.startswith("/policy"):
                routing = parse_routing(line.removeprefix("/policy").strip())
            elif line:
                question = {"role": "user", "content": line}
                answer = stream_answer(
                    client,
                    model=model,
                    messages=[*messages, question],
                    extra_body={"routing": routing} if routing else None,
                )
                messages += [question, {"role": "assistant", "content": answer}]
        except (ValueError, openai.APIStatusError) as error:
            print(f"refused: {error}")


def main() -> None:
    """Chat as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", default="http://localhost:8000/v1", help="%(default)s")
    parser.add_argument("--model", help="default: the first that the server lists")
    parser.add_argument(
        "--routing", type=parse_routing, help="the policy: a preset's name, or JSON"
    )
    args = parser.parse_args()

    os.environ.setdefault("OPENAI_API_KEY", "unused")
    client = openai.OpenAI(base_url=args.base_url)
    try:
        model = args.model or client.models.list().data[0].id
        chat(client, model, args.routing)
    except (EOFError, KeyboardInterrupt):
        print()
    except openai.OpenAIError as error:
        sys.exit(f"chat: {args.base_url}: {error}")


if __name__ == "__main__":
    main()
