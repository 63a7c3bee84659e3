"""Presets as models: MODEL-PRESET is a name that clients may give. Which such names will do."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from routing.policy.presets import Presets

# Popular frontends take models with such names for others, and rewrite their requests.
REWRITTEN_STARTS: Final = (
    *("o1", "o3", "o4", "gpt-5", "codex", "computer-use"),
    *("text-", "dall-", "tts-", "davinci"),
)
REWRITTEN_PART: Final = "-search-"


@dataclass(frozen=True, slots=True)
class PresetsFile:
    """The presets file of a server, which may have none, and the names of its models.

    models: under which the model is served. taken: other names that an alias must not have.
    """

    path: Path | None
    models: Sequence[str]
    taken: Sequence[str] = ()

    @classmethod
    def of(cls, args: Namespace) -> PresetsFile:
        """As vLLM's arguments have it."""
        path = args.galton_settings.presets
        return cls(
            None if path is None else Path(path),
            args.served_model_name or [args.model],
            [module.name for module in args.lora_modules or ()],
        )

    def read(self) -> Presets:
        """Its presets, each an alias of each model. Raises PresetError."""
        return Presets() if self.path is None else read_presets(self.path, self.models, self.taken)


def read_presets(path: Path, models: Sequence[str], taken: Sequence[str] = ()) -> Presets:
    """The presets of a file, each an alias of each model.

    models: the names under which the model is served. taken: other names that an alias must
    not have. Raises PresetError.
    """
    presets = Presets.read(path)
    aliases = {f"{model}-{name}": name for model in models for name in presets.named}
    for alias, name in aliases.items():
        if reason := _unusable(alias, {*models, *taken}):
            assert presets.source is not None
            raise presets.source.error(("presets", name), reason)
    return replace(presets, aliases=aliases)


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
