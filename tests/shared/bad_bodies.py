"""Bodies that no endpoint takes."""

from __future__ import annotations

BAD_JSON = [
    (b"{", "EOF while parsing an object at line 1 column 1"),
    (b"", "EOF while parsing a value"),
    (b'{"a": NaN}', "expected value at line 1 column 7"),
    (b'{"a": [-Infinity]}', "invalid number at line 1 column 9"),
    (b'{"a": 1e999}', "a number is too large for a double"),
    (b'{"a": [1, {"b": [2.5, -1e400]}]}', "a number is too large for a double"),
    (b'{"a": ' + b"9" * 5000 + b"}", "number out of range"),
    (b'{"a": {"b": 1, "b": 2}}', 'duplicate key "b" at line 1 column 20'),
    (b"[" * 100_000, "recursion limit exceeded"),
    (b'{"a": "\xff"}', "invalid unicode code point at line 1 column 8"),
    ('{"a": "\u00e9"}'.encode("utf-16"), "expected value at line 1 column 1"),
    (b'{"a": "\\ud800"}', "unexpected end of hex escape"),
    (b'{"a\\uDFFF": 1}', "lone leading surrogate in hex escape"),
    (b'{"a": "\x00"}', "control character .* found while parsing a string"),
]


CHAT = b'"messages":[{"role":"user","content":"hi"}],"max_tokens":2'


BAD_BODIES = [
    *[("/v1/completions", body) for body, _ in BAD_JSON],
    ("/v1/chat/completions", b"null"),
    ("/v1/chat/completions", b"[]"),
    ("/v1/chat/completions", b"{%b}{}" % CHAT),
    ("/v1/chat/completions", b'{%b,"temperature":NaN}' % CHAT),
    ("/v1/chat/completions", b'{%b,"max_tokens":3}' % CHAT),
    ("/v1/chat/completions", b'{%b,"routing":{"mode":"sample","temperature":1e999}}' % CHAT),
    ("/v1/chat/completions", b'{%b,"routing":{"mode":"sample","seed":%b}}' % (CHAT, b"9" * 400)),
    ("/v1/chat/completions", b'{%b,"routing":{"mode":"sample","heat":1}}' % CHAT),
    ("/v1/chat/completions", b'{%b,"routing":{"mode":"sample\\u0000"}}' % CHAT),
    ("/v1/chat/completions", b'{%b,"routing":%b1%b}' % (CHAT, b"[" * 900, b"]" * 900)),
    ("/v1/chat/completions", b'{%b,"model":"\\ud800"}' % CHAT),
    ("/v1/chat/completions", b'{%b,"structured_outputs":[1]}' % CHAT),
    ("/v1/completions", b'{"prompt":"hi","max_tokens":2,"structured_outputs":"x"}'),
    ("/v1/completions", b'{"prompt":[-1],"max_tokens":2}'),
    ("/v1/completions", b'{"prompt":[999999999],"max_tokens":2}'),
    ("/v1/completions", b'{"prompt":"hi","n":1e308}'),
    ("/v1/completions", b'{"prompt":"hi","n":1000000000,"routing":{"mode":"sample"}}'),
    ("/v1/completions", b'{"prompt":"hi","n":1000000000,"model":"galton-demo-diverse"}'),
    ("/v1/chat/completions", b'{%b,"n":1000000000,"temperature":1}' % CHAT),
    ("/invocations", b'{%b,"n":1000000000,"routing":{"mode":"sample"}}' % CHAT),
    ("/v1/chat/completions/batch", b'{"messages":[%b]}' % b",".join([b"[]"] * 10_000)),
    ("/v1/responses", b'{"input":[{}],"max_output_tokens":2}'),
    (
        "/v1/responses",
        b'{"input":[{"type":"message","role":"assistant","id":"m","status":"completed","content":[]}]}',
    ),
    ("/v1/chat/completions/batch", b'{%b,"routing":{"mode":"sample","heat":1}}' % CHAT),
    ("/invocations", b'{%b,"routing":{"mode":"sample","heat":1}}' % CHAT),
    ("/invocations", b"1"),
    ("/invocations", b'{%b,"x":%b}' % (CHAT, b"[" * 100_000)),
]
