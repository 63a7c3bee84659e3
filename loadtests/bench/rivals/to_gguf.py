"""llama.cpp's converter of checkpoints, run in its folder: it knows tokenizers by a checksum, and
the demo's is not among them. GPT-2's way to split text is close: it keeps more digits together.
"""

from __future__ import annotations

import importlib
import runpy
import sys

sys.path[:0] = ["gguf-py", "."]
base = importlib.import_module("conversion.base")
base.TextModel.get_vocab_base_pre = lambda *_: "gpt-2"
runpy.run_path("convert_hf_to_gguf.py", run_name="__main__")
