"""`galton serve` on vLLM's model runner V2, a step ahead and with Triton's kernels, as on a GPU:
`python -m tests.shared.v2_server ARGUMENTS`.

The processes that it starts read this file too, and so find Triton as it does.
"""

from __future__ import annotations

import functools
import sys
from unittest import mock

from tests.shared.v2_engine import Case, patch_vllm, prepare

CASE = Case(backend="gpu", is_async=True)

prepare(CASE)


def main() -> int:
    """As `galton serve`'s."""
    from routing.engine import engine_options
    from server import cli, launch

    patch_vllm(CASE)
    options = functools.partial(engine_options, backend=CASE.backend)
    with mock.patch.object(launch, "engine_options", options):
        return cli.main(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
