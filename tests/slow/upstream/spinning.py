"""Engine core and worker spin for a second after each message, each on a whole core.

On two cores they take turns with the API process and with the model's own threads: the same 64
requests take 0.9 or 6.4 seconds, by chance. `SpinCondition`, in
vllm/distributed/device_communicators/shm_broadcast.py, calls `sched_yield` until a second after the
last message; on CPU `MultiprocExecutor` is taken for one worker too.
"""

import sys
import time

import psutil
from vllm import LLM, SamplingParams


def seconds() -> float:
    """CPU time of all processes that this one started."""
    return sum(sum(p.cpu_times()[:2]) for p in psutil.Process().children(recursive=True))


def main() -> None:
    llm = LLM(sys.argv[1], enforce_eager=True, max_model_len=256, kv_cache_memory_bytes=2**28)
    llm.generate({"prompt_token_ids": [20, 21]}, SamplingParams(max_tokens=1))
    before = seconds()
    time.sleep(0.8)
    used = seconds() - before
    print(f"in 0.8 s without work: expected next to nothing, found {used:.1f} s of CPU")
    assert used > 0.4, "mended"


if __name__ == "__main__":
    main()
