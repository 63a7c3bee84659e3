"""The registry of modes. A new one is a file here and its name in this tuple."""

from __future__ import annotations

from typing import Final

from routing.modes import head_sample, replay, sample, top_k, top_p, uniform
from routing.modes.mode import Mode

MODES: Final[dict[str, Mode]] = {
    module.MODE.name: module.MODE for module in (top_k, sample, top_p, head_sample, uniform, replay)
}
MAX_PARAMETERS: Final = max(len(mode.parameters) for mode in MODES.values())
