"""What a value, a header or a byte may be instead of what it should be."""

from __future__ import annotations

from typing import Final

# NaN and Infinity: Python writes them into JSON.
_NUMBERS: Final = (
    *(True, False, 0, -0.0, 1, -1, 0.5, 2**31, 2**63, -(2**63), 2**64),
    *(10**400, 1e308, 5e-324, float("nan"), float("inf")),
)
_TEXTS: Final = (
    *("", " ", "x", "0", "*", "null", "\0", "\ud800", "é" * 300, "a" * 70_000),
    *("sample", "top_k", "GLTN", "../../etc/passwd", "{{7*7}}", "%s%n", "<|im_end|>"),
)
_CONTAINERS: Final[tuple[object, ...]] = (
    *([], [None], [[]], [0] * 5000, [1e308, -1]),
    *({}, {"": 0}, {"mode": "sample"}, {"*": [0]}),
)
JUNK: Final[tuple[object, ...]] = (None, *_NUMBERS, *_TEXTS, *_CONTAINERS)

_H2C: Final = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n"
PIECES: Final = (
    *(b"\r\n", b"\r", b"\n", b"\0", b" ", b"\t", b":", b"\xff" * 9, b"0\r\n\r\n", b"{", b"]"),
    *(b"HTTP/1.1", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", _H2C),
    *(
        b"Content-Length: 0\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 9%b\r\n" % (b"9" * 20),
    ),
    *(b"Connection: close\r\n", b"Upgrade: websocket\r\n", b"X: " + b"y" * 70_000),
    *(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"),
)

_OF_BODIES: Final = "Content-Type Content-Encoding Content-Length Transfer-Encoding Expect"
_OF_CONNECTIONS: Final = "Host Connection Upgrade Range If-None-Match Accept Accept-Encoding Cookie"
_OF_CLIENTS: Final = "Authorization Api-Key X-Api-Key Anthropic-Version Origin X-Forwarded-For"
_OF_VLLM: Final = "X-Request-Id X-Session-Id X-Vllm-Priority X-Data-Parallel-Rank Traceparent"
_OF_ROUTING: Final = "X-Routing-Policy Endpoint-Load-Metrics-Format"
HEADERS: Final = " ".join((_OF_BODIES, _OF_CONNECTIONS, _OF_CLIENTS, _OF_VLLM, _OF_ROUTING)).split()
VALUES: Final = (
    *("", "0", "-1", "1" * 400, "1e308", "nan", "*/*", "gzip", "chunked", "h2c", "100-continue"),
    *("text/plain", "multipart/form-data", "application/json;" * 300, "bytes=0-,0-,0-", "Bearer "),
    *("application/json; charset=utf-16", "[" * 3000, ";" * 5000, "x" * 30_000),
    *("\x7f", "é", "a\tb"),
    *('{"mode": "sample"}', '{"mode": "sample", "seed": -1}', '{"temperature": NaN}', "diverse"),
    "00-" + "f" * 32 + "-" + "f" * 16 + "-01",
)
