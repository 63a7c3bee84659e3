"""`routing.reference` for all tokens of a layer at once, compiled by numba for CPUs."""
