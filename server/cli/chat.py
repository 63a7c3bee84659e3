"""`galton chat`: talk to a running server, and see by which experts it answered."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from routing.trace.trace import Trace
from server.cli.flags import add_url
from server.preflight import CannotStartError

if TYPE_CHECKING:
    import openai

HELP: Final = """\
/policy NAME_OR_JSON    how experts are chosen from now on; alone: as the server has it
/compare NAME_OR_JSON   the last question by another policy, beside its answer; alone: by top_k
/trace                  the last answer's tokens: how sure the router was, and whether its choice
                        was followed
/trace N                the experts of token N, layer by layer
/new                    forget the conversation
/help                   this
Ctrl-C stops an answer; at the prompt it leaves.
"""
INCLUDE: Final = ("tokens", "trace", "weights")
NATIVE: Final = '{"mode": "top_k"}'
HEAT: Final = (242, 163, 58)


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "chat",
        help="talk to a running server",
        description="Talk to a running server. OPENAI_API_KEY holds the key, if it wants one.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_url(parser)
    parser.add_argument("--model", help="default: the first that the server lists")
    parser.add_argument(
        "--policy", type=policy_text, default="", metavar="NAME_OR_JSON", help="as /policy"
    )
    parser.set_defaults(run=partial(run, parser))


def run(parser: argparse.ArgumentParser, args: argparse.Namespace, unknown: Sequence[str]) -> int:
    """Chat until the input ends. Raises CannotStartError."""
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")

    import openai  # half a second, which no other command should wait for

    key = os.environ.get("OPENAI_API_KEY", "unused")
    client = openai.OpenAI(base_url=f"{args.url.rstrip('/')}/v1", api_key=key)
    try:
        model = args.model or client.models.list().data[0].id
    except openai.OpenAIError as error:
        raise CannotStartError(f"{args.url}: {error}") from None
    chat = Chat(client, model, args.policy)
    while True:
        try:
            chat.heed(input("> ").strip())
        except (EOFError, KeyboardInterrupt):
            print()
            return 0
        except (ValueError, openai.OpenAIError) as error:
            print(f"refused: {error}")


def policy_text(text: str) -> str:
    """A preset's name or a policy in JSON, as the header X-Routing-Policy takes it.

    Raises ValueError.
    """
    if text.startswith("{"):
        json.loads(text)
    text.encode("ascii")
    return text


class Piece(NamedTuple):
    """Text that came at once, and the positions of its tokens."""

    text: str
    positions: range


class Answer:
    """One answer, and what came with it."""

    def __init__(self) -> None:
        self.text = ""
        self.pieces: list[Piece] = []
        self.policy: dict[str, Any] = {}
        # By position: entropy in nats, share of the model's own experts among those used.
        self.measured: dict[int, tuple[float, float]] = {}
        self.traces: list[Trace] = []
        self._next = 0

    def add(self, chunk: Any) -> str:
        """Take in a chunk of the stream; returns its text."""
        said = ""
        extra = chunk.model_extra or {}
        self._next = len(extra.get("prompt_token_ids") or ()) or self._next
        for choice in chunk.choices:
            said = choice.delta.content or ""
            count = len((choice.model_extra or {}).get("token_ids") or ())
            if said or count:
                self.pieces.append(Piece(said, range(self._next, self._next + count)))
                self._next += count
        self.text += said
        self._learn(extra.get("routing") or {})
        return said

    def _learn(self, routing: dict[str, Any]) -> None:
        self.policy = routing.get("policy", self.policy)
        for part in routing.get("tokens", ()):
            measured = zip(part["entropy_nats"], part["own_overlap_ratio"], strict=True)
            self.measured.update(zip(part["positions"], measured, strict=True))
        self.traces += [Trace.decode(part["data"]) for part in routing.get("trace", ())]

    def experts(self, position: int) -> Table | None:
        """Of a token, a row for each layer; None where it was not routed."""
        for trace in self.traces:
            row = position - trace.first_position
            if 0 <= row < len(trace.topk_ids):
                return _experts(trace, row)
        return None


def _experts(trace: Trace, row: int) -> Table:
    table = Table("layer", "experts, with their weights")
    weights = trace.topk_weights
    for i, layer in enumerate(trace.layers):
        used = [
            f"{expert}" if weights is None else f"{expert}: {weights[row, i, slot]:.2f}"
            for slot, expert in enumerate(trace.topk_ids[row, i].tolist())
            if expert >= 0
        ]
        table.add_row(str(layer), "  ".join(used))
    return table


class Chat:
    """A conversation. policy: as the header X-Routing-Policy takes it; "": as the server has it."""

    def __init__(self, client: openai.OpenAI, model: str, policy: str) -> None:
        self._client = client
        self._model = model
        self._policy = policy
        self._messages: list[Any] = []
        self._last: Answer | None = None
        self._console = Console(highlight=False)
        self._commands: dict[str, Callable[[str], None]] = {
            "/policy": self._follow,
            "/compare": self._compare,
            "/trace": self._trace,
            "/new": self._forget,
            "/help": lambda _: print(HELP, end=""),
        }

    def heed(self, line: str) -> None:
        """Do what a line says. Raises ValueError, openai.OpenAIError."""
        command, _, argument = line.partition(" ")
        if command.startswith("/"):
            if command not in self._commands:
                raise ValueError(f"there is no {command}; /help tells what there is")
            self._commands[command](argument.strip())
        elif line:
            asked = [*self._messages, {"role": "user", "content": line}]
            self._last = self._ask(asked, self._policy, partial(print, end="", flush=True))
            print()
            self._messages = [*asked, {"role": "assistant", "content": self._last.text}]

    def _ask(self, messages: list[Any], policy: str, show: Callable[[str], None]) -> Answer:
        answer = Answer()
        try:
            with self._client.chat.completions.create(
                model=self._model,
                messages=messages,
                stream=True,
                extra_headers={"X-Routing-Policy": policy} if policy else None,
                extra_body={"routing": {"include": INCLUDE}, "return_token_ids": True},
            ) as chunks:
                for chunk in chunks:
                    show(answer.add(chunk))
        except KeyboardInterrupt:
            show(" [stopped]")
        return answer

    def _follow(self, argument: str) -> None:
        self._policy = policy_text(argument)

    def _forget(self, _: str) -> None:
        self._messages, self._last = [], None

    def _answered(self) -> Answer:
        if self._last is None:
            raise ValueError("nothing was answered yet")
        return self._last

    def _compare(self, argument: str) -> None:
        """Side by side, the first token that differs set off."""
        first = self._answered()
        with self._console.status("asking ..."):
            other = self._ask(
                self._messages[:-1], policy_text(argument) or NATIVE, lambda text: None
            )
        pairs = zip(first.text, other.text, strict=False)
        same = len([*itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)])
        table = Table(json.dumps(first.policy), json.dumps(other.policy), expand=True)
        table.add_row(_parting(first.text, same), _parting(other.text, same))
        self._console.print(table)

    def _trace(self, argument: str) -> None:
        answer = self._answered()
        if argument:
            self._console.print(self._token(answer, argument))
            return
        table = Table("N", "token", "entropy in nats", "the model's own experts")
        for number, piece in enumerate(answer.pieces):
            measured = [answer.measured[p] for p in piece.positions if p in answer.measured]
            if not measured:
                table.add_row(str(number), repr(piece.text), "-", "-")
                continue
            entropy, overlap = map(statistics.fmean, zip(*measured, strict=True))
            text = Text(repr(piece.text), style=_heat(1 - overlap))
            table.add_row(str(number), text, f"{entropy:.2f}", f"{overlap:.0%}")
        self._console.print(table)

    @staticmethod
    def _token(answer: Answer, argument: str) -> Table | str:
        if not argument.isdecimal() or int(argument) >= len(answer.pieces):
            raise ValueError(f"N must be 0 to {len(answer.pieces) - 1}, got {argument!r}")
        positions = answer.pieces[int(argument)].positions
        experts = answer.experts(positions.start) if positions else None
        return experts or "not routed: an answer's last token is sampled, and never computed"


def _parting(text: str, same: int) -> Text:
    """What is alike, then what is not."""
    return Text.assemble((text[:same], "dim"), (text[same:], "bold"))


def _heat(share: float) -> str:
    """A background, none at 0."""
    if share <= 0:
        return ""
    red, green, blue = (round(40 + share * (channel - 40)) for channel in HEAT)
    return f"white on rgb({red},{green},{blue})"
