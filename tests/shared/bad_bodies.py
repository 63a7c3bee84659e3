"""Bodies that no endpoint takes."""

from __future__ import annotations

BAD_JSON = [
    (b"{", "Expecting property name"),
    (b"", "Expecting value"),
    (b'{"a": NaN}', "NaN is not a number"),
    (b'{"a": [-Infinity]}', "-Infinity is not a number"),
    (b'{"a": 1e999}', "1e999 is too large"),
    (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
    (b'{"a": {"b": 1, "b": 2}}', "key 'b' is given twice"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"a": "\xff"}', "can't decode byte 0xff"),
    ('{"a": "\u00e9"}'.encode("utf-16"), "can't decode byte"),
    (b'{"a": "\\ud800"}', "half a surrogate pair"),
    (b'{"a\\uDFFF": 1}', "half a surrogate pair"),
    (b'{"a": "\x00"}', "Invalid control character"),
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
    ("/v1/responses", b'{"input":[{}],"max_output_tokens":2}'),
    ("/v1/chat/completions/batch", b'{%b,"routing":{"mode":"sample","heat":1}}' % CHAT),
    ("/invocations", b'{%b,"routing":{"mode":"sample","heat":1}}' % CHAT),
    ("/invocations", b"1"),
    ("/invocations", b'{%b,"x":%b}' % (CHAT, b"[" * 100_000)),
]
