"""How tests start Debian's Chromium: without a screen, and asking nobody else anything."""

from __future__ import annotations

from typing import Final

FLAGS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
