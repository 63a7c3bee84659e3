"""Search a routing policy on validation data: what `galton tune` does.

Read it in this order: `data` (examples), `metrics` (a score of each), `objective` (scores of a
policy by an engine), `spaces` and `path_update` (where a search looks), `study` (trials, kept
in SQLite), `interval` (what may be called a gain), `report` (the presets file), `tune` (all of
it in turn). Knows nothing of HTTP; the engine is `routing.engine.offline`'s.
"""
