"""What every client asks: one question whose answer depends on the experts, under one policy."""

import json

MODEL = "galton-demo"
QUESTION = "Write a poem about the sea."
MESSAGES = [{"role": "user", "content": QUESTION}]
POLICY = {"mode": "sample", "temperature": 1.5, "seed": 7}
HEADERS = {"X-Routing-Policy": json.dumps(POLICY)}
ALIAS = f"{MODEL}-seeded"
PRESETS = f"""
[presets.seeded]
routing = {{ mode = "sample", temperature = {POLICY["temperature"]}, seed = {POLICY["seed"]} }}
"""
ECHO = {**POLICY, "top_k": 4, "scope": "decode"}
BAD_POLICY = {"mode": "sample", "temperature": 11}
