"""A scenario: which servers are asked what, how often, and which of them is the baseline.

One TOML file each, in scenarios/; the file's name is the scenario's. Fields not named in a file
have the defaults below.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

SCENARIOS: Final = Path(__file__).parent / "scenarios"
Text = Literal["chat", "questions", "translation"]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class ScenarioError(Exception):
    """A file that is no scenario: its name, the field and what is wrong with it."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Share(_Table):
    """A part of the requests, by weight, and the policy that they name.

    A `replay` without a trace follows the request's own, recorded before the clock starts.
    """

    share: Positive = 1
    routing: dict[str, Any] = {}
    preset: str = ""


class Variant(_Table):
    """One of the things that are compared. flags: added to the server's command line.

    server: a command line for any other that takes --host and --port and answers /health. body:
    what requests carry besides, that no answer ends early. In both {checkpoint} is the
    checkpoint's path. scrape_seconds: /metrics is asked so often meanwhile; None: not at all.
    """

    name: str
    server: Literal["galton", "stock"] | tuple[str, ...] = "galton"
    body: dict[str, Any] = {"ignore_eos": True}
    policies: tuple[Share, ...] = (Share(),)
    flags: tuple[str, ...] = ()
    scrape_seconds: Positive | None = None

    @model_validator(mode="after")
    def _only_galton_has_policies(self) -> Variant:
        if self.server != "galton" and self.policies != (Share(),):
            raise ValueError("only Galton has policies")
        return self

    def of(self, checkpoint: str) -> Variant:
        """With the checkpoint's path filled in."""
        return Variant.model_validate_json(
            self.model_dump_json().replace("{checkpoint}", checkpoint)
        )


class Load(_Table):
    """How requests arrive: `in_flight` at once, each followed by the next (closed loop); or
    `requests_per_second`, whoever is still waiting (open loop).

    burstiness: shape of the gamma distribution of the gaps; 1 is Poisson's, less comes in bursts.
    output_tokens: of every answer; None: as many as answers to such a text have. history: earlier
    exchanges that stand before the question.
    """

    requests: Count = 64
    in_flight: Count | None = None
    requests_per_second: Positive | None = None
    burstiness: Positive = 1
    output_tokens: Count | None = None
    history: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_of_two(self) -> Load:
        if (self.in_flight is None) == (self.requests_per_second is None):
            raise ValueError("either in_flight or requests_per_second")
        return self

    @property
    def label(self) -> str:
        """A few words."""
        arrivals = (
            f"{self.in_flight} streams"
            if self.requests_per_second is None
            else f"{self.requests_per_second:g} requests/s"
            + (f", burstiness {self.burstiness:g}" if self.burstiness != 1 else "")
        )
        history = f", {self.history} exchanges before" if self.history else ""
        tokens = f", {self.output_tokens} tokens each" if self.output_tokens else ""
        return arrivals + history + tokens


class Goal(_Table):
    """An answer within these counts as good. Per token: after the first, mean of an answer."""

    ttft_ms: Positive = 2000
    per_token_ms: Positive = 100


class Scenario(_Table):
    """Rounds over all variants in turn, at each of the loads; the first variant is the baseline.

    checkpoint: "demo" or one of models.shapes. router_spread: of the latter, as there. texts:
    shares of the kinds of text. flags: of every server that is Galton or stock vLLM. busy: loops
    that spin beside, each on a core.
    """

    name: str
    title: str
    checkpoint: str = "demo"
    router_spread: Positive = 1
    rounds: Count = 10
    texts: dict[Text, Positive] = {"chat": 1, "questions": 1, "translation": 1}
    flags: tuple[str, ...] = ()
    busy: Annotated[int, Field(ge=0)] = 0
    goal: Goal = Goal()
    loads: Annotated[tuple[Load, ...], Field(min_length=1)]
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_are_different(self) -> Scenario:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError(f"two variants have the same name: {names}")
        return self


def read(path: Path) -> Scenario:
    """A scenario's file. Raises ScenarioError."""
    try:
        return Scenario(name=path.stem, **tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        raise ScenarioError(f"{path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise ScenarioError(f"{path}: {where}: {first['msg']}") from None


def names() -> list[str]:
    """Of the scenarios that come with Galton."""
    return sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def find(name: str) -> Scenario:
    """One of `names`, or a file that ends in .toml. Raises ScenarioError."""
    if name.endswith(".toml"):
        return read(Path(name))
    if name not in names():
        raise ScenarioError(f"no scenario {name!r}; there are {', '.join(names())}")
    return read(SCENARIOS / f"{name}.toml")
