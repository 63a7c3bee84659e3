"""A request with a seed whose prompt is computed in chunks ends the engine on CPU.

`GPUModelRunner._bookkeeping_sync` sets back the generator of a request whose sampled token is
thrown away, by `generator.set_offset`, which CPU generators do not have: "CPU Generator does not
use offset".
"""

import sys

from vllm import LLM, SamplingParams


def main() -> None:
    llm = LLM(
        sys.argv[1],
        enforce_eager=True,
        max_num_batched_tokens=32,
        max_model_len=256,
        kv_cache_memory_bytes=2**28,
    )
    params = SamplingParams(temperature=1, seed=1, max_tokens=4)
    try:
        llm.generate({"prompt_token_ids": [20] * 100}, params)
    except Exception as error:
        print(f"expected four tokens, found {type(error).__name__}")
    else:
        raise AssertionError("mended")


if __name__ == "__main__":
    main()
