"""Galton's metrics, once: what the server exports, and what dashboards and rules ask for."""

from __future__ import annotations

from typing import Final, NamedTuple


class Name(NamedTuple):
    """A metric as queries name it. A summary is a `_sum` and a `_count`; a histogram has a
    `_bucket`, too.
    """

    name: str
    type: str
    meaning: str
    labels: tuple[str, ...]


EXPERT_ASSIGNMENTS: Final = Name(
    "galton_expert_assignments_total",
    "counter",
    "(token, expert) assignments computed; padding, warm-up and zero-weight slots excluded",
    ("model_name", "layer", "expert"),
)
ACTIVE_EXPERTS: Final = Name(
    "galton_active_experts",
    "summary",
    "Distinct experts that the tokens of an engine step used, once per step",
    ("model_name", "layer"),
)
ROUTER_ENTROPY: Final = Name(
    "galton_router_entropy_nats",
    "summary",
    "Entropy of P(expert | token) = softmax(router logits), once per token; at most ln(experts)",
    ("model_name", "layer"),
)
LAYER_IMBALANCE: Final = Name(
    "galton_layer_imbalance_ratio",
    "gauge",
    "Assignments of the busiest expert over the mean of all, in the last minute or since the "
    "scrape before",
    ("model_name", "layer"),
)
LAYER_LOAD_ENTROPY: Final = Name(
    "galton_layer_load_entropy_ratio",
    "gauge",
    "Entropy of the assignments' experts over ln(experts), in the last minute or since the "
    "scrape before: 1 where all are as busy, 0 where one has all",
    ("model_name", "layer"),
)
ROUTED_TOKENS: Final = Name(
    "galton_routed_tokens_total",
    "counter",
    "Computed tokens, by the policy that routed them; drafts that were rejected are among them; "
    "phase recompute: once more, after a preemption",
    ("model_name", "mode", "preset", "phase"),
)
POLICY_ASSIGNMENTS: Final = Name(
    "galton_policy_assignments_total",
    "counter",
    "(token, expert) assignments computed, in all layers, by the policy that chose them",
    ("model_name", "mode", "preset"),
)
NATIVE_ASSIGNMENTS: Final = Name(
    "galton_native_assignments_total",
    "counter",
    "(token, expert) assignments that the model's own top-k would have computed for these tokens",
    ("model_name", "mode", "preset"),
)
REQUESTS: Final = Name(
    "galton_requests_total",
    "counter",
    "Requests by the policy that they followed and by their end",
    ("model_name", "mode", "preset", "outcome"),
)
REQUEST_SECONDS: Final = Name(
    "galton_request_duration_seconds",
    "histogram",
    "Time from a request's arrival to the end of its answer, of those that end well",
    ("model_name", "mode", "preset"),
)
ROUTERS: Final = Name(
    "galton_routers_info",
    "gauge",
    "The model's MoE layers, experts in each, its own top-k, and the most that a request may use",
    ("model_name", "layers", "experts", "top_k", "max_experts_per_token"),
)
LAST_STEP: Final = Name(
    "galton_last_step_timestamp_seconds",
    "gauge",
    "When the engine's last step began, in seconds since 1970; 0 before the first",
    ("model_name",),
)
NAMES: Final = (
    EXPERT_ASSIGNMENTS,
    ACTIVE_EXPERTS,
    ROUTER_ENTROPY,
    LAYER_IMBALANCE,
    LAYER_LOAD_ENTROPY,
    ROUTED_TOKENS,
    POLICY_ASSIGNMENTS,
    NATIVE_ASSIGNMENTS,
    REQUESTS,
    REQUEST_SECONDS,
    ROUTERS,
    LAST_STEP,
)


def names_table() -> str:
    """The metrics as Markdown."""
    rows = ["| name | type | labels | meaning |", "|---|---|---|---|"]
    for name in NAMES:
        labels = ", ".join(f"`{label}`" for label in name.labels if label != "model_name")
        rows.append(f"| `{name.name}` | {name.type} | {labels} | {name.meaning} |")
    return "\n".join(rows)
