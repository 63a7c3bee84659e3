"""A TOML file with the line of each key, for messages: tomllib tells values only."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any


class PresetError(ValueError):
    """A presets file that cannot be used: names the file, the line and the key."""


@dataclass(frozen=True, slots=True)
class Source:
    """A TOML file, and where its keys stand."""

    path: Path
    text: str
    declared: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Source:
        """Raises PresetError."""
        if path.exists() and not path.is_file():  # reading a pipe waits for who writes
            raise PresetError(f"{path}: cannot be read (not a regular file)")
        try:
            text = path.read_text(encoding="utf-8")
            return cls(path, text, tomllib.loads(text))
        except OSError as error:
            raise PresetError(f"{path}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError as error:
            raise PresetError(f"{path}: not UTF-8 (byte {error.start})") from None
        except tomllib.TOMLDecodeError as error:
            at_line = re.search(r"at line (\d+)", str(error))
            line = int(at_line[1]) if at_line else len(text.splitlines())
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
        value: Any = self.declared
        for part in key:
            value = value.get(part, {})
        if not isinstance(value, dict):
            raise self.error(key, f"must be a table, got {value!r}")
        return value

    def refuse_unknown(
        self, key: tuple[str, ...], table: Mapping[str, Any], known: Sequence[str]
    ) -> None:
        """Raises PresetError if the table at `key` has another key than the known ones."""
        for name in table:
            if name not in known:
                raise self.error((*key, name), f"unknown key; known are {', '.join(known)}")


def _path(nested: Any) -> tuple[str, ...]:
    """("a", "b") of {"a": {"b": ...}}."""
    if not isinstance(nested, dict) or not nested:
        return ()
    ((key, value),) = nested.items()
    return (key, *_path(value))
