"""The bundled demo checkpoint: the language it knows, its training, its files and its shape."""

from pathlib import Path
from typing import Final

CHECKPOINT: Final = Path(__file__).parent / "checkpoint"
PRESETS: Final = Path(__file__).parent / "presets.toml"
# Decoder layers, all of them MoE layers; experts of each; how many of them serve a token.
LAYERS: Final = 8
EXPERTS: Final = 16
TOP_K: Final = 4
