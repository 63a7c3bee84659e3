"""llama.cpp's converter of checkpoints, run in its folder, where it falls short of these two.

It knows tokenizers by a checksum, and the demo's is not among them: GPT-2's way to split text is
close, it keeps more digits together. Its OLMoE has an output matrix of its own, which in
`models.shapes` is the embeddings.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Iterator
from typing import Any

sys.path[:0] = ["gguf-py", "."]
base = importlib.import_module("conversion.base")
base.TextModel.get_vocab_base_pre = lambda *_: "gpt-2"
get_tensors = base.ModelBase.get_tensors


def _with_output(self: Any) -> Iterator[tuple[str, Any]]:
    for name, tensor in get_tensors(self):
        yield name, tensor
        if name == "model.embed_tokens.weight" and self.model_arch.name == "OLMOE":
            yield "lm_head.weight", tensor


base.ModelBase.get_tensors = _with_output
runpy.run_path("convert_hf_to_gguf.py", run_name="__main__")
