"""What the hooks of vLLM's model runner V2 tell of a request that was preempted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from routing.engine import runner_v2
from routing.state import RoutedRequest


class _Runner:
    """One request, "a", in slot 0, as far as the hooks look; steps of `step`."""

    def __init__(self) -> None:
        self.req_states: Any = SimpleNamespace(max_num_reqs=4, req_id_to_index={})
        self.input_buffers = SimpleNamespace(positions=None)
        self.told: list[int] = []
        backend = SimpleNamespace(
            write_slot=lambda slot, request: self.told.append(request.num_routed),
            begin_step=lambda *args: None,
        )
        bound: Any = SimpleNamespace(backend=backend, fit=lambda slots: None)
        self.steps = runner_v2._Steps(self, bound)

    def add(self, num_tokens: int) -> None:
        new = SimpleNamespace(
            req_id="a", sampling_params=None, prompt_len=100, prefill_token_ids=[0] * num_tokens
        )
        self.req_states.req_id_to_index["a"] = 0
        scheduled = SimpleNamespace(scheduled_new_reqs=[new])
        self.steps.add_requests(lambda output: None, scheduled)

    def step(self, computed: int, scheduled: int) -> None:
        batch = SimpleNamespace(
            num_reqs=1,
            query_start_loc=np.array([0, scheduled]),
            idx_mapping=None,
            idx_mapping_np=np.array([0]),
            num_computed_tokens_np=np.array([computed]),
            num_scheduled_tokens=np.array([scheduled]),
        )
        self.steps.prepare_inputs(lambda: batch)

    def preempt(self) -> None:
        output = SimpleNamespace(preempted_req_ids={"a"}, finished_req_ids=set())
        self.steps.finish_requests(lambda output: None, output)


def test_tokens_are_routed_again_up_to_the_farthest_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_v2, "request_of", lambda params, length: RoutedRequest(None, length))
    runner = _Runner()
    runner.add(100)
    runner.step(0, 32)
    runner.step(32, 32)
    runner.preempt()
    runner.add(100)
    runner.step(0, 32)
    runner.preempt()  # again, before it came as far
    runner.add(100)
    runner.step(0, 99)
    runner.step(99, 5)  # with drafts, of which some may be rejected
    runner.preempt()
    runner.add(102)
    assert runner.told == [0, 64, 64, 101]
