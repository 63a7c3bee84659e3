"""Which of the policies that a request could follow it does follow.

Highest first: the body's field, the header, the model's alias, the API key's preset, the
server's default, the model's own routing. The highest that names a policy replaces all
below; an object that names only `seed` or `include` leaves the policy to those below.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from routing.policy import Policy, PolicyError, parse_policy
from routing.policy.compiled import CompiledPolicy, compile_policy
from routing.policy.keys import INCLUDE
from routing.policy.presets import Preset, Presets, near
from routing.spec import RouterSpec

HEADER: Final = "x-routing-policy"
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


class UnknownPresetError(ValueError):
    """A request names a preset that is not declared; the message names near ones."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Where a request may name its policy.

    body: the field `routing`, an object or a preset's name. header: JSON of such an object
    or name, or the bare name. alias, key: the presets of the model's name and of the API key.
    """

    body: object = None
    header: str | None = None
    alias: str | None = None
    key: str | None = None

    @classmethod
    def of(
        cls, routing: object, model: str | None, headers: Mapping[str, str], presets: Presets
    ) -> Asked:
        """What a request with that field `routing`, model and headers asks."""
        return cls(
            routing,
            headers.get(HEADER),
            presets.aliases.get(model or ""),
            presets.of_key(_api_key(headers)),
        )


@dataclass(frozen=True, slots=True)
class Settled:
    """The policy in force, and the preset it came from, if any.

    compiled: the policy for the engine; None for the native one.
    include: what the answer shall carry about the routing; not part of the policy.
    """

    policy: Policy
    compiled: CompiledPolicy | None
    preset: str | None = None
    include: tuple[str, ...] = ()


def settle(asked: Asked, presets: Presets, spec: RouterSpec, *, allow_steering: bool) -> Settled:
    """Find the policy in force and check it; a seed is drawn where none is named.

    allow_steering: whether requests may steer; presets always may, the operator wrote them.
    Raises PolicyError, or UnknownPresetError.
    """
    policy: Mapping[str, Any] = {}
    preset, seed, include = None, None, None
    for source in _sources(asked, presets):
        if source is None:
            continue
        if isinstance(source, str):
            preset = _preset(presets, source)
            policy = preset.routing
            break
        own = _object(source)
        asked_include = own.pop("include", None)
        include = asked_include if include is None else include
        seed = own.get("seed") if seed is None else seed
        # An explicit null means what leaving the key out means; the key must exist.
        if {key for key, value in own.items() if value is not None} - {"seed"}:
            policy = own
            break
        parse_policy(own, spec)
    if seed is not None:
        policy = {**policy, "seed": seed}
    resolved = parse_policy(policy, spec, allow_steering=allow_steering or preset is not None)
    return Settled(
        resolved,
        None if resolved.is_native(spec) else compile_policy(resolved, spec),
        preset.name if preset is not None else None,
        _included(include),
    )


def _sources(asked: Asked, presets: Presets) -> Iterator[object]:
    """Highest first; a header that a policy in the body makes idle is not looked at."""
    yield asked.body
    yield _from_header(asked.header)
    yield asked.alias
    yield asked.key
    yield presets.default


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


def _included(include: object) -> tuple[str, ...]:
    if include is None:
        return ()
    if not isinstance(include, list) or any(part not in INCLUDE for part in include):
        accepted = "a list of " + " or ".join(f"'{part}'" for part in INCLUDE)
        raise PolicyError("routing.include", include, accepted)
    if "weights" in include and "trace" not in include:
        raise PolicyError("routing.include", include, "with 'trace' where it has 'weights'")
    return tuple(dict.fromkeys(include))


def _from_header(header: str | None) -> object:
    if header is None or _NAME.fullmatch(header):
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
