"""What the experts have done, as JSON: since the server started, or since an answer before."""

from __future__ import annotations

import math
import secrets
import time
from collections import OrderedDict
from http import HTTPStatus
from typing import Any, Final, Literal

from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import BaseModel
from vllm.entrypoints.serve.engine.protocol import ErrorResponse

from routing.counts import PHASES, imbalance, load_entropy
from routing.engine.counts import Totals
from server.load import Load

MAX_MARKS: Final = 64

api = APIRouter(prefix="/v1/routing", tags=["routing"])


class LayerStatistics(BaseModel):
    """assignments: (token, expert) pairs of each expert. imbalance_ratio: the busiest expert's over
    the mean. load_entropy_ratio: the entropy of the assignments' experts over ln(experts).
    router_entropy_nats: mean, per token, of the entropy of P(expert | token). active_experts: mean,
    per engine step, of the distinct experts used. Null where nothing was routed.
    """

    layer: int
    assignments: list[int]
    imbalance_ratio: float | None
    load_entropy_ratio: float | None
    router_entropy_nats: float | None
    active_experts: float | None


class PolicyStatistics(BaseModel):
    """Of tokens routed in a mode, by a preset or, where that is "", by none. tokens: by phase, of
    which `recompute` counts again what a preemption threw away. assignments: (token, expert) pairs
    computed in all layers; native_assignments: those that the model's own top-k would have.
    """

    mode: str
    preset: str
    tokens: dict[str, int]
    assignments: int
    native_assignments: int


class Statistics(BaseModel):
    """mark: to be given as `since`, for what comes after this answer. seconds: how long it was."""

    object: Literal["routing.statistics"] = "routing.statistics"
    mark: str
    since: str | None
    seconds: float
    steps: int
    layers: list[LayerStatistics]
    policies: list[PolicyStatistics]


class Marks:
    """The last totals that were told, to be compared with."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._told = OrderedDict[str, tuple[float, Totals]]()

    def tell(self, load: Load, since: str | None) -> Statistics:
        """The statistics since a mark. Raises KeyError where it is not known."""
        now, totals = time.monotonic(), load.totals()
        began, counted = self._start, totals
        if since is not None:
            began, before = self._told[since]
            counted = totals.since(before)
        mark = secrets.token_hex(8)
        self._told[mark] = (now, totals)
        if len(self._told) > MAX_MARKS:
            self._told.popitem(last=False)
        return Statistics(
            mark=mark,
            since=since,
            seconds=round(now - began, 3),
            steps=int(counted.steps.max()),
            layers=_layers(counted),
            policies=_policies(counted, load),
        )


@api.get("/stats", response_model=Statistics, responses={404: {"model": ErrorResponse}})
async def statistics(
    raw_request: Request,
    since: str | None = Query(None, description="The `mark` of an answer before."),
) -> Statistics:
    """What the experts have done since the server started, or since an answer before. Nothing is
    reset: whoever else reads these counts, Prometheus too, is not disturbed.
    """
    galton = raw_request.app.state.galton
    try:
        told: Statistics = galton.marks.tell(galton.load, since)
    except KeyError:
        raise HTTPException(
            HTTPStatus.NOT_FOUND,
            f"since must be the mark of one of the last {MAX_MARKS} answers, got {since!r:.80}",
        ) from None
    return told


def _layers(counted: Totals) -> list[LayerStatistics]:
    columns = zip(
        counted.layers,
        counted.assignments.tolist(),
        imbalance(counted.assignments).tolist(),
        load_entropy(counted.assignments).tolist(),
        _means(counted.router_entropy, counted.tokens),
        _means(counted.active_experts, counted.steps),
        strict=True,
    )
    return [
        LayerStatistics(
            layer=layer,
            assignments=assignments,
            imbalance_ratio=_number(ratio),
            load_entropy_ratio=_number(entropy),
            router_entropy_nats=_number(router),
            active_experts=_number(active),
        )
        for layer, assignments, ratio, entropy, router, active in columns
    ]


def _means(sums: Any, counts: Any) -> list[float]:
    return [total / count if count else math.nan for total, count in zip(sums, counts, strict=True)]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _policies(counted: Totals, load: Load) -> list[PolicyStatistics]:
    """Those that routed a token."""
    told = []
    for group, (mode, preset) in enumerate(load.groups.pairs()):
        tokens = counted.routed_tokens[group]
        if tokens.any():
            told.append(
                PolicyStatistics(
                    mode=mode,
                    preset=preset,
                    tokens=dict(zip(PHASES, tokens.tolist(), strict=True)),
                    assignments=int(counted.group_assignments[group]),
                    native_assignments=load.native_assignments(int(tokens.sum())),
                )
            )
    return told
