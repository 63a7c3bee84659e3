"""Which experts computed every token: as bytes to keep, read with NumPy, and replay.

To read what a server answered to `"include": ["trace"]`:

    from routing.trace import Trace
    trace = Trace.decode(answer["routing"]["trace"][0]["data"])
    trace.topk_ids          # [N, L, K], -1 where nothing was computed

`trace` holds the format, `rows` what is recorded of a token, `report` what an answer carries.
"""

from routing.trace.trace import UNKNOWN_MODEL, Trace, TraceError, check_trace, join, parse_trace

__all__ = ["UNKNOWN_MODEL", "Trace", "TraceError", "check_trace", "join", "parse_trace"]
