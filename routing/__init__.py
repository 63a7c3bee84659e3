"""Stochastic expert routing: policies, noise, selection, kernels, per-step state.

Reading order, ten minutes: `policy` (what a request may ask), `reference` (the random
numbers and the selection, one token at a time, in plain NumPy), `cpu` and `gpu` (the same,
file by file, fused and fast), `state` (which token follows which policy in a step).
Everything that knows vLLM's internals is in `routing.engine`.
"""
