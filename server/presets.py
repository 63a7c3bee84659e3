"""Presets: policies with names, which the operator declares in one TOML file.

Owns the file's format and the names of aliases; what a policy may say is `routing.policy`'s.
A file is read before the engine starts, and checked against the model once it runs.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from routing.policy import PolicyError, parse_policy
from routing.spec import RouterSpec

NAME: Final = re.compile(r"[a-z0-9._-]+")
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
# Popular frontends take models with such names for others, and rewrite their requests.
REWRITTEN_STARTS: Final = (
    *("o1", "o3", "o4", "gpt-5", "codex", "computer-use"),
    *("text-", "dall-", "tts-", "davinci"),
)
REWRITTEN_PART: Final = "-search-"
# Of a preset's `results`, see `models.tuning.report`.
RESULTS: Final = (
    *("search", "metric", "trials", "seed", "experts_per_token", "verdict"),
    *("validation", "test"),
)


class PresetError(ValueError):
    """A presets file that cannot be used: names the file, the line and the key."""


class UnknownPresetError(ValueError):
    """A request names a preset that is not declared; the message names near ones."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A named policy.

    routing: as declared, like the `routing` object of a request. policy: the same with every
    default of the model filled in; no seed unless one is declared. None before `resolved`.
    results: what `galton tune` measured; told to people, of no effect.
    """

    name: str
    description: str
    routing: Mapping[str, Any]
    policy: Mapping[str, Any] | None = None
    results: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Presets:
    """What one file declares, for one server. Never changed: a reload makes another one.

    keys: SHA-256 of an API key, in hex -> preset. aliases: name of a model as clients may
    give it -> preset. default: for requests that choose no policy otherwise.
    """

    named: Mapping[str, Preset] = field(default_factory=dict)
    default: str | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    source: Source | None = field(default=None, repr=False)

    @classmethod
    def read(cls, path: Path, models: Sequence[str], taken: Sequence[str] = ()) -> Presets:
        """Read a file and check what can be checked without the model's routers.

        models: the names under which the model is served: each preset is the alias
        MODEL-PRESET of each. taken: other names that an alias must not have.
        Raises PresetError.
        """
        source = Source.read(path)
        source.refuse_unknown((), source.declared, ("default", "presets", "keys"))
        named = {name: _preset(source, name) for name in source.table("presets")}
        for alias, name in (aliases := _aliases(models, named)).items():
            if reason := _unusable(alias, {*models, *taken}):
                raise source.error(("presets", name), reason)
        for digest in (keys := source.table("keys")):
            if not DIGEST.fullmatch(digest):
                # Perhaps the key itself: it must not get into a log.
                reason = "every key must be the SHA-256 of an API key: 64 lower-case hex digits"
                raise source.error(("keys", digest), reason, shown="keys")
            _check_reference(source, ("keys", digest), keys[digest], named, "keys")
        default = source.declared.get("default")
        if default is not None:
            _check_reference(source, ("default",), default, named)
        return cls(named, default, keys, aliases, source)

    def resolved(self, spec: RouterSpec) -> Presets:
        """The same, every policy checked against the model. Raises PresetError."""
        return replace(self, named={n: self._resolved(p, spec) for n, p in self.named.items()})

    def _resolved(self, preset: Preset, spec: RouterSpec) -> Preset:
        try:
            policy = parse_policy(preset.routing, spec).shown()
        except PolicyError as error:
            assert self.source is not None
            # "routing.bias.3.0" and "routing.temperature[1]" are paths too.
            at = ("presets", preset.name, *re.split(r"[.\[]", error.field))
            if error.field == "routing":
                at = (*at, str(error.value))
            reason = str(error).removeprefix(error.field).strip()
            shown = f"presets.{preset.name}.{error.field}"
            raise self.source.error(at, reason, shown=shown) from None
        if preset.routing.get("seed") is None:
            policy.pop("seed", None)
        return replace(preset, policy=policy)

    def get(self, name: str) -> Preset:
        """The preset of that name. Raises UnknownPresetError."""
        if name not in self.named:
            raise UnknownPresetError(
                f"The preset `{name[:80]}` does not exist.{near(name, self.named)} "
                "GET /v1/routing/presets lists all."
            )
        return self.named[name]

    def of_key(self, api_key: str | None) -> str | None:
        """The preset of an API key."""
        if api_key is None or not self.keys:
            return None
        return self.keys.get(hashlib.sha256(api_key.encode()).hexdigest())


@dataclass(frozen=True, slots=True)
class Source:
    """A TOML file, with the lines of its keys, which tomllib does not tell."""

    path: Path
    text: str
    declared: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Source:
        """Raises PresetError."""
        try:
            text = path.read_text(encoding="utf-8")
            return cls(path, text, tomllib.loads(text))
        except OSError as error:
            raise PresetError(f"{path}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError as error:
            raise PresetError(f"{path}: not UTF-8 (byte {error.start})") from None
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"at line (\d+)", str(error))
            line = int(found[1]) if found else len(text.splitlines())
            raise PresetError(f"{path}:{line}: {error}") from None

    def error(self, key: Sequence[str], reason: str, *, shown: str | None = None) -> PresetError:
        """About that key; shown: how the message names it."""
        return PresetError(f"{self.path}:{self.line(key)}: {shown or '.'.join(key)}: {reason}")

    def line(self, key: Sequence[str]) -> int:
        """Line of a key, else the first line that has most of its path."""
        best, line = 0, 1
        for number, path in self._keys():
            pairs = zip(path, key, strict=False)
            shared = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
            if shared > best:
                best, line = shared, number
        return line

    def _keys(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Every line that opens a table or sets a key, and the path of that."""
        table: tuple[str, ...] = ()
        for number, line in enumerate(self.text.splitlines(), 1):
            header = line.lstrip().startswith("[")
            key = line if header else line.partition("=")[0] + " = 0"
            try:
                path = _path(tomllib.loads(key))
            except tomllib.TOMLDecodeError:
                continue  # in the middle of a value
            if header:
                table = path
            yield number, path if header else (*table, *path)

    def table(self, *key: str) -> Mapping[str, Any]:
        """The table at that key, empty if there is none. Raises PresetError."""
        found: Any = self.declared
        for part in key:
            found = found.get(part, {})
        if not isinstance(found, dict):
            raise self.error(key, f"must be a table, got {found!r}")
        return found

    def refuse_unknown(
        self, key: tuple[str, ...], given: Mapping[str, Any], known: Sequence[str]
    ) -> None:
        for name in given:
            if name not in known:
                raise self.error((*key, name), f"unknown key; known are {', '.join(known)}")


def near(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """A sentence that names what `name` may have meant; empty if nothing is near."""
    # Cut: comparing takes time, and a request may send megabytes.
    found = difflib.get_close_matches(name[:200], list(known), n=3)
    return f" Near names: {', '.join(f'`{n}`' for n in found)}." if found else ""


def _path(nested: Any) -> tuple[str, ...]:
    """("a", "b") of {"a": {"b": ...}}."""
    if not isinstance(nested, dict) or not nested:
        return ()
    ((key, value),) = nested.items()
    return (key, *_path(value))


def _preset(source: Source, name: str) -> Preset:
    if not NAME.fullmatch(name):
        raise source.error(("presets", name), f"a name must match {NAME.pattern}")
    key = ("presets", name)
    given = source.table(*key)
    source.refuse_unknown(key, given, ("description", "routing", "results"))
    description = given.get("description", "")
    if not isinstance(description, str):
        raise source.error((*key, "description"), f"must be a string, got {description!r}")
    if "routing" not in given:
        raise source.error(key, "the key routing is missing: the preset's policy, a table")
    routing, results = source.table(*key, "routing"), source.table(*key, "results")
    _check_results(source, (*key, "results"), results)
    return Preset(name, description, routing, results=results)


def _check_results(source: Source, key: tuple[str, ...], given: Mapping[str, Any]) -> None:
    """Results are as `galton tune` writes them: tables of texts, numbers and intervals."""
    source.refuse_unknown(key, given, RESULTS)
    for name, value in given.items():
        if name in ("validation", "test", "experts_per_token"):
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


def _aliases(models: Sequence[str], named: Mapping[str, Preset]) -> dict[str, str]:
    return {f"{model}-{name}": name for model in models for name in named}


def _unusable(alias: str, taken: set[str]) -> str | None:
    """Why a model must not have that name; None if it may."""
    lower = alias.lower()
    if alias in taken:
        return f"its alias '{alias}' is the name of a model: choose another name"
    parts = [start for start in REWRITTEN_STARTS if lower.startswith(start)]
    if REWRITTEN_PART in f"{lower}-":
        parts.append(REWRITTEN_PART)
    if parts:
        return (
            f"its alias '{alias}' has '{parts[0]}', from which popular frontends conclude that "
            "it is another model, and rewrite requests: choose another name, or another "
            "--served-model-name"
        )
    return None


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
