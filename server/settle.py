"""Which of the policies that a request could follow it does follow.

Highest first: the body's field, the header, the model's alias, the API key's preset, the
server's default, the native routing. The highest that names a policy replaces all below; an
object that names only `seed` or `include` leaves the policy to those below.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from routing.policy import Policy, PolicyError, parse_policy
from routing.policy.compiled import CompiledPolicy, compile_policy
from routing.policy.keys import INCLUDE, INCLUDE_KEY
from routing.policy.presets import Preset, Presets, near
from routing.policy.seed import MAX_SEED, SeedWindows
from routing.spec import RouterSpec
from routing.trace.report import Report

HEADER: Final = "x-routing-policy"
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


class UnknownPresetError(ValueError):
    """A request names a preset that is not declared; the message names near ones."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a request may name its policy.

    body: the field `routing`, an object or a preset's name. header: JSON of such an object
    or name, or the bare name. alias, key: the presets of the model's name and of the API key.
    token_seed: OpenAI's field `seed`, all that many a frontend can send: noise follows it where
    no policy names a seed.
    """

    body: object = None
    header: str | None = None
    alias: str | None = None
    key: str | None = None
    token_seed: int | None = None

    @classmethod
    def of(
        cls,
        routing: object,
        model: str | None,
        token_seed: int | None,
        headers: Mapping[str, str],
        presets: Presets,
    ) -> Sources:
        """Of a request with those fields `routing`, `model` and `seed`, and those headers."""
        return cls(
            routing,
            headers.get(HEADER),
            presets.aliases.get(model or ""),
            presets.of_key(_api_key(headers)),
            None if token_seed is None else token_seed & MAX_SEED,
        )

    def in_order(self, default: str | None) -> Iterator[tuple[str, object]]:
        """(what errors call it, its value), highest first; default: the server's.

        A header that a policy in the body makes idle is not looked at.
        """
        yield "", self.body
        if self.header is not None:
            yield f"header {HEADER}", _from_header(self.header)
        for preset in (self.alias, self.key, default):
            yield "", preset


@dataclass(frozen=True, slots=True)
class Settled:
    """The policy in force and the preset it came from, if any; kept whole on the request.

    compiled: the policy for the engine; None for the native one. shown: the policy as the
    client gets it. report: what the answer carries about the routing of its tokens, where the
    request wants that. group: whom its tokens count for, see `routing.counts`.
    """

    policy: Policy
    compiled: CompiledPolicy | None
    shown: Mapping[str, Any]
    preset: str | None = None
    report: Report | None = None
    group: int = 0


def settle(
    sources: Sources,
    presets: Presets,
    spec: RouterSpec,
    *,
    allow_steering: bool,
    windows: SeedWindows | None = None,
) -> Settled:
    """Find the policy in force and check it. Where noise needs a seed and none is named, it is
    that of the tokens, or of the window, or drawn.

    allow_steering: whether requests may steer; presets always may, the operator wrote them.
    windows: None for a request that shares its noise with no other.
    Raises PolicyError, or UnknownPresetError.
    """
    seed: int | None = None

    def default_seed(seconds: float | None = None) -> int | None:
        if sources.token_seed is not None or windows is None:
            return sources.token_seed
        return windows.seed(seconds)

    include: tuple[str, ...] | None = None
    settled: Settled | None = None
    for name, source in sources.in_order(presets.default):
        if isinstance(source, str):
            preset = _preset(presets, source)
            settled = _of_preset(preset, seed, default_seed(preset.seed_window))
        elif source is not None:
            with _named(name):
                own = _object(source)
                own_include = own.pop(INCLUDE_KEY.name, None)
                include = _included(own_include) if include is None else include
                # An explicit null means what leaving the key out means; the key must exist.
                if {key for key, value in own.items() if value is not None} - {"seed"}:
                    own = own if seed is None else {**own, "seed": seed}
                    policy = parse_policy(
                        own, spec, allow_steering=allow_steering, default_seed=default_seed()
                    )
                    settled = _of_request(policy, spec)
                else:
                    own_seed = parse_policy(own, spec).seed
                    seed = own_seed if seed is None else seed
        if settled is not None:
            break
    settled = settled or _of_request(parse_policy({"seed": seed}, spec), spec)
    return replace(settled, report=Report(spec, include)) if include else settled


def _of_preset(preset: Preset, seed: int | None, default_seed: int | None) -> Settled:
    """A preset's policy, which was checked and compiled when the file was read."""
    assert preset.policy is not None, f"preset {preset.name} was never resolved"
    policy = preset.policy.with_seed(preset.policy.seed if seed is None else seed, default_seed)
    compiled = preset.compiled
    if compiled is not None and policy.seed is not None:
        compiled = compiled.with_seed(policy.seed)
    return Settled(policy, compiled, policy.shown(), preset.name)


def _of_request(policy: Policy, spec: RouterSpec) -> Settled:
    """A request's own policy."""
    compiled = None if policy.is_native(spec) else compile_policy(policy, spec)
    return Settled(policy, compiled, policy.shown())


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Errors of a policy that does not stand in the body say where it stands."""
    try:
        yield
    except PolicyError as error:
        if not source:
            raise
        key = error.field.removeprefix("routing").removeprefix(".")
        field = f"{source}: {key}" if key else source
        raise PolicyError(field, error.value, error.accepted) from None


def _preset(presets: Presets, name: str) -> Preset:
    if name not in presets.named:
        raise UnknownPresetError(
            f"The preset `{name[:80]}` does not exist.{near(name, presets.named)} "
            "GET /v1/routing/presets lists all."
        )
    return presets.named[name]


def _object(source: object) -> dict[str, Any]:
    if not isinstance(source, Mapping):
        accepted = "an object such as {'mode': 'sample', 'seed': 7}, or a preset's name"
        raise PolicyError("routing", source, accepted)
    return dict(source)


def _included(include: object) -> tuple[str, ...] | None:
    if include is None:
        return None
    if not isinstance(include, list) or any(part not in INCLUDE for part in include):
        accepted = "a list of " + " or ".join(f"'{part}'" for part in INCLUDE)
        raise PolicyError("routing.include", include, accepted)
    if "weights" in include and "trace" not in include:
        raise PolicyError("routing.include", include, "with 'trace' where it has 'weights'")
    return tuple(dict.fromkeys(include))


def _from_header(header: str) -> object:
    if _NAME.fullmatch(header):
        return header
    try:
        return json.loads(header)
    except (ValueError, RecursionError):
        accepted = 'a JSON object such as {"mode": "sample"}, or a preset\'s name'
        raise PolicyError(f"header {HEADER}", header, accepted) from None


def _api_key(headers: Mapping[str, str]) -> str | None:
    """Other headers that carry keys have become this one: `server.edge`."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
