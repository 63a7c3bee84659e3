"""Faults of vLLM 0.32 on CPUs, each as a program of vLLM alone that shows it: `make upstream`.

Galton works around them (`routing.engine.seams`); they are written to be reported. Each says what
is expected and what happens, and ends with status 0 where the fault is still there.
"""
