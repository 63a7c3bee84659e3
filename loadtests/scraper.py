"""A process that scrapes /metrics, as Prometheus and gateways do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from multiprocessing.synchronize import Event

from loadtests.processes import SPAWN, beside
from loadtests.raw import address


@contextmanager
def scraper(url: str, path: str, per_second: float) -> Iterator[Event]:
    """A process that scrapes while the event is set: here it would hold up the tokens' reader."""
    is_wanted = SPAWN.Event()
    with beside(_scrape, url, path, per_second, is_wanted):
        yield is_wanted


def _scrape(url: str, path: str, per_second: float, is_wanted: Event) -> None:
    connection, due = HTTPConnection(*address(url)), 0.0
    while is_wanted.wait():
        due = max(due, time.monotonic()) + 1 / per_second
        connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
        time.sleep(max(0, due - time.monotonic()))
