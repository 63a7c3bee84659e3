"""What a Prometheus answers, for those who have no Grafana at hand: tests and pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple

import httpx

# What Grafana puts in the place of its variables, with a scrape each second.
VARIABLES: Final = {
    "$instance": ".*",
    "$model": ".*",
    "$layer": "3",
    "$__rate_interval": "10s",
    "$__range": "1m",
}
Labels = dict[str, str]


class Series(NamedTuple):
    """times: seconds since 1970, of the values."""

    labels: Labels
    times: list[float]
    values: list[float]


class Prometheus(AbstractContextManager["Prometheus"]):
    """A running one. url: of its API."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60)

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _ask(self, path: str, query: str, **more: Any) -> dict[str, Any]:
        answer = self._client.get(f"/api/v1/{path}", params={"query": query, **more}).json()
        if answer["status"] != "success":
            raise ValueError(f"{query}: {answer}")
        data: dict[str, Any] = answer["data"]
        return data

    def ask(self, query: str) -> list[tuple[Labels, float]]:
        """The labels and the value of each series, now. Raises ValueError, httpx.HTTPError."""
        data = self._ask("query", query)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def course(self, query: str, seconds: float, step: float) -> list[Series]:
        """Each series over the last seconds. Raises ValueError, httpx.HTTPError."""
        now = time.time()
        data = self._ask("query_range", query, start=now - seconds, end=now, step=step)
        return [
            Series(
                series["metric"],
                [when for when, _ in series["values"]],
                [float(value) for _, value in series["values"]],
            )
            for series in data["result"]
        ]

    def scrapes(self) -> bool:
        """Whether it has scraped its only target."""
        try:
            return [value for _, value in self.ask("up")] == [1]
        except (httpx.TransportError, ValueError):
            return False


def filled(expression: str, variables: Mapping[str, str] = VARIABLES) -> str:
    """The expression as Grafana would send it. Raises ValueError."""
    for variable, value in variables.items():
        expression = expression.replace(variable, value)
    if "$" in expression:
        raise ValueError(f"a variable without a value: {expression}")
    return expression
