"""How the demo checkpoint is made: `galton train`.

`recipe` says what makes the weights what they are, `run` is a run and its state, `train` the
command. `batches` turns exchanges into token ids, `moe` is the model, `experts` and `router` what
training puts in place of its parts, `muon` the optimizer. `curves` draws runs, `evaluate` counts
right answers, `bench` times the experts.
"""
