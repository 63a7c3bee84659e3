"""Python processes beside this one, for what would hold it up, or be held up by it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

# Started afresh: a fork would share this one's threads and event loops.
SPAWN: Final = multiprocessing.get_context("spawn")


@contextmanager
def beside(target: Callable[..., None], *args: Any) -> Iterator[None]:
    """One that calls `target`, while the block lasts. args: what can be sent, `SPAWN`'s too."""
    process = SPAWN.Process(target=target, args=args, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()
