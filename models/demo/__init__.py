"""The bundled demo checkpoint: the data it learns from, its training and its evaluation."""

from pathlib import Path
from typing import Final

CHECKPOINT: Final = Path(__file__).parent / "checkpoint"
PRESETS: Final = Path(__file__).parent / "presets.toml"
