"""Presets: policies with names, in one TOML file. Its format, its one reader and its one writer.

What a policy may say is `routing.policy.policy`'s. A file is read before the engine starts, and
checked against the model once that is known.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from routing.policy.compiled import CompiledPolicy, compile_policy
from routing.policy.error import PolicyError
from routing.policy.policy import Policy, parse_policy
from routing.policy.seed import MAX_WINDOW_SECONDS
from routing.policy.toml_lines import PresetError, Source
from routing.spec import RouterSpec

NAME: Final = re.compile(r"[a-z0-9._-]+")
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
# Of a preset's `results`, see `models.tuning.report`.
RESULTS: Final = (
    *("search", "metric", "trials", "seed", "experts_per_token", "verdict"),
    *("validation", "test"),
)
MEASURED: Final = ("validation", "test", "experts_per_token")  # tables of numbers and intervals

__all__ = ["Preset", "PresetError", "Presets", "near", "write_presets"]


@dataclass(frozen=True, slots=True)
class Preset:
    """A named policy.

    routing: as declared, like the `routing` object of a request.
    results: what `galton tune` measured; shown to people, of no effect.
    seed_window: seconds in which requests that name no seed share one, see `SeedWindows`; None: as
    the server does it.
    policy: the same as routing, with every default of the model filled in; no seed unless one
    is declared. None before `resolved`. compiled: the policy for the engine; None for the
    native one.
    """

    name: str
    description: str
    routing: Mapping[str, Any]
    results: Mapping[str, Any] = field(default_factory=dict)
    seed_window: float | None = None
    policy: Policy | None = None
    compiled: CompiledPolicy | None = None

    def shown(self) -> dict[str, Any]:
        """The policy as clients see it; nothing before `resolved`."""
        return {} if self.policy is None else self.policy.shown()


@dataclass(frozen=True, slots=True)
class Presets:
    """What one file declares. Never changed: a reload makes another one.

    default: the preset of requests that choose no policy otherwise. keys: SHA-256 of an API
    key, in hex -> preset. aliases: a model's name as clients may give it -> preset; a file has
    none, the server gives them (`server.aliases`).
    """

    named: Mapping[str, Preset] = field(default_factory=dict)
    default: str | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    source: Source | None = field(default=None, repr=False)

    @classmethod
    def read(cls, path: Path) -> Presets:
        """Read a file and check what can be checked without a model. Raises PresetError."""
        source = Source.read(path)
        source.refuse_unknown((), source.declared, ("default", "presets", "keys"))
        named = {name: _preset(source, name) for name in source.table("presets")}
        for digest in (keys := source.table("keys")):
            if not DIGEST.fullmatch(digest):
                # Perhaps the key itself: it must not get into a log.
                reason = "every key must be the SHA-256 of an API key: 64 lower-case hex digits"
                raise source.error(("keys", digest), reason, shown="keys")
            _check_reference(source, ("keys", digest), keys[digest], named, "keys")
        default = source.declared.get("default")
        if default is not None:
            _check_reference(source, ("default",), default, named)
        return cls(named, default, keys, source=source)

    def resolved(self, spec: RouterSpec) -> Presets:
        """The same, every policy checked against the model and compiled. Raises PresetError."""
        return replace(self, named={n: self._resolved(p, spec) for n, p in self.named.items()})

    def _resolved(self, preset: Preset, spec: RouterSpec) -> Preset:
        try:
            policy = parse_policy(preset.routing, spec)
        except PolicyError as error:
            raise self._error(preset, error) from None
        policy = replace(policy, seed=preset.routing.get("seed"))
        compiled = None if policy.is_native(spec) else compile_policy(policy, spec)
        return replace(preset, policy=policy, compiled=compiled)

    def _error(self, preset: Preset, error: PolicyError) -> PresetError:
        """The error of a preset's policy, at its line of the file."""
        assert self.source is not None, f"preset {preset.name} comes from no file"
        # "routing.bias.3.0" and "routing.temperature[1]" are paths too.
        at = ("presets", preset.name, *re.split(r"[.\[]", error.field))
        if error.field == "routing":
            at = (*at, str(error.value))
        reason = str(error).removeprefix(error.field).strip()
        return self.source.error(at, reason, shown=f"presets.{preset.name}.{error.field}")

    def of_key(self, api_key: str | None) -> str | None:
        """The preset of an API key."""
        if api_key is None or not self.keys:
            return None
        return self.keys.get(hashlib.sha256(api_key.encode()).hexdigest())


def write_presets(path: Path, head: str, presets: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a presets file, at once or not at all.

    head: its first lines, comments. presets: name -> the table as it stands there.
    """
    import tomli_w  # here: whoever only reads does without

    text = tomli_w.dumps({"presets": presets})
    draft = path.with_name(path.name + ".draft")
    draft.write_text(f"{head}\n\n{text}", encoding="utf-8")
    os.replace(draft, path)


def near(name: str, known: Iterable[str]) -> str:
    """A sentence that names what `name` may have meant; empty if nothing is near."""
    # Cut: comparing takes time, and a request may send megabytes.
    matches = difflib.get_close_matches(name[:200], list(known), n=3)
    return f" Near names: {', '.join(f'`{match}`' for match in matches)}." if matches else ""


def _preset(source: Source, name: str) -> Preset:
    key = ("presets", name)
    if not NAME.fullmatch(name):
        raise source.error(key, f"a name must match {NAME.pattern}")
    table = source.table(*key)
    source.refuse_unknown(key, table, ("description", "routing", "results", "seed_window"))
    description = table.get("description", "")
    if not isinstance(description, str):
        raise source.error((*key, "description"), f"must be a string, got {description!r}")
    if "routing" not in table:
        raise source.error(key, "the key routing is missing: the preset's policy, a table")
    routing, results = source.table(*key, "routing"), source.table(*key, "results")
    _check_results(source, (*key, "results"), results)
    window = table.get("seed_window")
    if window is not None and not (_is_number(window) and 0 <= window <= MAX_WINDOW_SECONDS):
        reason = f"must be seconds from 0 to {MAX_WINDOW_SECONDS:,}, got {window!r}"
        raise source.error((*key, "seed_window"), reason)
    return Preset(name, description, routing, results, window)


def _check_results(source: Source, key: tuple[str, ...], results: Mapping[str, Any]) -> None:
    """Results are as `galton tune` writes them: tables of texts, numbers and intervals."""
    source.refuse_unknown(key, results, RESULTS)
    for name, value in results.items():
        if name in MEASURED:
            for part, number in source.table(*key, name).items():
                if not _is_measured(number):
                    reason = f"must be a finite number or two, got {number!r}"
                    raise source.error((*key, name, part), reason)
        elif not isinstance(value, str) and not _is_measured(value):
            raise source.error((*key, name), f"must be a string or a number, got {value!r}")


def _is_measured(value: object) -> bool:
    """A finite number, or an interval: two of them, the lower first."""
    if isinstance(value, list):
        return len(value) == 2 and all(map(_is_number, value)) and value[0] <= value[1]
    return _is_number(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def _check_reference(
    source: Source,
    key: Sequence[str],
    name: object,
    named: Mapping[str, Preset],
    shown: str | None = None,
) -> None:
    if not isinstance(name, str) or name not in named:
        guess = near(name, named) if isinstance(name, str) else ""
        raise source.error(key, f"must name a preset, got {name!r}.{guess}", shown=shown)
