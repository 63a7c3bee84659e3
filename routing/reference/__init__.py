"""Stochastic routing as it is defined: NumPy, one token at a time, slow and obvious.

Reading order, ten minutes: `noise` (the random numbers), `rule` (what a model's own router
does), `choice` (how the best experts are taken), `modes` (what is compared), `route` (the
whole way of one token). `routing.cpu` and `routing.gpu` compute the same, file by file.
"""
