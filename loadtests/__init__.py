"""What speaks HTTP to Galton from outside: servers as subprocesses, their clients, measurements.

Knows the command line and the API, and nothing of what is behind them: it imports neither `server`
nor the engine nor torch, and so starts at once.
"""
