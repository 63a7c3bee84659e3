"""`routing.reference` for all tokens of a layer at once, in Triton for GPUs.

All arithmetic on scores and noise is float64, as on the CPU, rounded to float32 where keys
are compared: then one seed chooses the same experts on both. float32 would not do for the
noise: it rounds the largest u to 1, where -ln(-ln u) is infinite, and a GPU's float32 ln
may be off by 2^-22 (PTX ISA, lg2.approx), 8 times the smallest -ln u.

Vectors are [LANES], one lane per expert. A choice is `place`: where in the list of chosen
ones an expert comes, from 0, or LAST for one that is not chosen.
"""
