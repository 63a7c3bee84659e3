"""What popular frontends send, by their files' names."""

from __future__ import annotations

import tomllib
from pathlib import Path

PROFILES = {
    path.stem: tomllib.loads(path.read_text())
    for path in sorted(Path(__file__).parent.glob("*.toml"))
}
