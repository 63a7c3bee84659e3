"""The one place that knows vLLM's internals.

By the process in which they work:

    config      the options that switch Galton on; the version of vLLM that it needs
    plugin      what vLLM calls in each of its processes
    API         intake (unchecked policies, seeds of choices), startup (self-test), offline
    engine core cache (block hashes), scheduler (recorded rows on their way out)
    worker      worker, runner_v1 (each step), binding and operator (each layer), recorder,
                selftest, sampling (a workaround)
    between     travel (what a request carries from one to the next)

`seams` lists every place at which vLLM is wrapped, replaced or looked into.
"""

from routing.engine.config import CONFIG_KEY, engine_options

__all__ = ["CONFIG_KEY", "engine_options"]
