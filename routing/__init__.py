"""Stochastic expert routing: policies, noise, selection, kernels, per-step state.

Reading order, ten minutes: `policy` (what a request may ask), `noise` (the random
numbers), `reference` (the selection, one token at a time, in plain NumPy), `kernel`
(the same, fused and fast), `state` (which token follows which policy in a step).
Everything that knows vLLM's internals is in `routing.engine`.
"""
