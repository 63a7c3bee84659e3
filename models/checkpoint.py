"""A checkpoint as far as it can be known without loading its weights.

Reads config.json and the headers of safetensors files; counts parameters by building the
model on torch's meta device, where tensors have shapes and no memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from huggingface_hub import (
    get_hf_file_metadata,
    hf_hub_url,
    parse_local_safetensors_file_metadata,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    OfflineModeIsEnabled,
    SafetensorsParsingError,
)
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig
from transformers.utils import cached_file

from models.spec import MoESpec, UnroutableError, moe_spec

Shape = tuple[int, ...]
# A float32 checkpoint is served in bfloat16 unless vLLM is told otherwise.
CACHE_ELEMENT_BYTES: Final = 2
_MLA: Final = ("kv_lora_rank", "qk_rope_head_dim")


class CheckpointError(ValueError):
    """The checkpoint cannot be described; the message is one line that says why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is known of a checkpoint.

    dtype: of the weights as the configuration says it, such as "bfloat16".
    quantization: its method, such as "fp8" or "mxfp4"; None where there is none.
    num_parameters: all of them, without multi-token-prediction heads; None if unknown.
    num_expert_parameters: those of the routed experts among them.
    weights_bytes: of the files where they are here, else parameters times their size;
        None where a quantization makes that unknown.
    cache_bytes_per_token: keys and values of one token in all layers, in a 16-bit type;
        None where the attention compresses them in a way that is not known here.
    """

    model: str
    spec: MoESpec
    dtype: str
    quantization: str | None
    num_parameters: int | None
    num_expert_parameters: int | None
    weights_bytes: int | None
    cache_bytes_per_token: int | None
    notes: tuple[str, ...] = ()

    def num_active_parameters(self, top_k: int) -> int | None:
        """Parameters that one token uses: all but the experts it is not routed to."""
        if self.num_parameters is None or self.num_expert_parameters is None:
            return None
        unused = self.spec.num_experts - top_k
        return self.num_parameters - self.num_expert_parameters * unused // self.spec.num_experts


def read_checkpoint(model: str) -> Checkpoint:
    """Describe a directory or a Hugging Face name. Raises CheckpointError."""
    path = config_path(model)
    architecture, config = _read_config(model, path)
    try:
        spec = moe_spec(architecture, config.get_text_config())
    except UnroutableError as error:
        raise CheckpointError(f"{model} {error}") from None

    quantization = getattr(config, "quantization_config", None)
    method = None if quantization is None else str(quantization.get("quant_method", "unknown"))
    dtype = str(config.dtype or config.get_text_config().dtype or "float32").split(".")[-1]
    stored, stored_bytes = _stored_tensors(path.parent)
    shapes = _shapes_on_meta(architecture, config)
    if shapes is None and method is None:
        shapes = stored
    num_parameters = num_expert_parameters = None
    if shapes:
        num_expert_parameters = sum(_expert_sizes(shapes, spec))
        num_others = sum(prod(s) for name, s in shapes.items() if not _is_expert(name))
        num_parameters = num_others + num_expert_parameters
    weights_bytes = stored_bytes
    if weights_bytes is None and num_parameters is not None and method is None:
        weights_bytes = num_parameters * getattr(torch, dtype).itemsize
    return Checkpoint(
        model,
        spec,
        dtype,
        method,
        num_parameters,
        num_expert_parameters,
        weights_bytes,
        _cache_bytes_per_token(config.get_text_config(), spec),
        tuple(_notes(config.get_text_config(), method, num_parameters, weights_bytes)),
    )


def config_path(model: str) -> Path:
    """config.json in a directory, in the cache of downloads, or downloaded now."""
    directory = Path(model).expanduser()
    if directory.is_dir():
        if not (directory / "config.json").is_file():
            raise CheckpointError(f"cannot read {model}: the directory has no config.json")
        return directory / "config.json"
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", model):
        raise CheckpointError(f"cannot read {model}: there is no such directory")
    try:
        if not isinstance(try_to_load_from_cache(model, "config.json"), str):
            _check_hub(model)
        return Path(cached_file(model, "config.json"))
    except (OSError, ValueError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), "unknown")
        raise CheckpointError(f"cannot read {model}: {reason}") from None


def _check_hub(model: str) -> None:
    """Find out at once whether the hub can be reached: a download tries for 20 seconds."""
    try:
        get_hf_file_metadata(hf_hub_url(model, "config.json"))
    except (HfHubHTTPError, OfflineModeIsEnabled):
        return  # the download says it better
    except Exception as error:  # of the hub's HTTP client, whichever that is
        raise OSError(
            f"there is no such directory, and Hugging Face cannot be reached ({error})"
        ) from None


def _read_config(model: str, path: Path) -> tuple[str, Any]:
    """Architecture and configuration, with transformers' defaults where it knows the type."""
    try:
        raw = json.loads(path.read_text())
        architecture = str(raw["architectures"][0])
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise CheckpointError(f"{model}: its config.json is not JSON") from None
    except (KeyError, IndexError, TypeError):
        raise CheckpointError(f"{model}: its config.json names no architecture") from None
    model_type = raw.get("model_type")
    if model_type in CONFIG_MAPPING:
        known = CONFIG_MAPPING[model_type]
    else:  # such as Kimi K2, which is DeepSeek-V3 under its own name
        known = getattr(getattr(transformers, architecture, None), "config_class", None)
    try:
        return architecture, (known or PreTrainedConfig).from_dict(raw)
    except Exception as error:  # transformers' validators raise whatever they like
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{model}: its config.json is not valid: {reason}") from None


def _shapes_on_meta(architecture: str, config: Any) -> dict[str, Shape] | None:
    """Every parameter's shape; None if transformers has no such architecture."""
    model_class = getattr(transformers, architecture, None)
    model_class = model_class or MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if model_class is None:
        return None
    with torch.device("meta"):
        model = model_class(config)
    # A tied matrix is listed once.
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def _stored_tensors(directory: Path) -> tuple[dict[str, Shape] | None, int | None]:
    """Shapes and bytes of all tensors in a directory; None unless every file is there."""
    files = weight_files(directory)
    if not files:
        return None, None
    shapes: dict[str, Shape] = {}
    num_bytes = 0
    for file in files:
        try:
            tensors = parse_local_safetensors_file_metadata(file).tensors
        except SafetensorsParsingError:
            raise CheckpointError(f"{file} is not a safetensors file: download it again") from None
        for name, tensor in tensors.items():
            shapes[name] = tuple(tensor.shape)
            begin, end = tensor.data_offsets
            num_bytes += end - begin
    return shapes, num_bytes


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint; none unless every one is there."""
    files = sorted(directory.glob("*.safetensors"))
    index = directory / "model.safetensors.index.json"
    if index.exists():
        names = set(json.loads(index.read_text())["weight_map"].values())
        files = [directory / name for name in sorted(names)]
    return files if all(file.exists() for file in files) else []


def _is_expert(name: str) -> bool:
    """Whether a parameter belongs to routed experts: stacked, or of one expert."""
    # Granite's own files call them input_linear and output_linear.
    return bool(re.search(r"\.experts\.|\.block_sparse_moe\.(in|out)put_linear\.", name))


def _expert_sizes(shapes: Mapping[str, Shape], spec: MoESpec) -> Iterator[int]:
    for name, shape in shapes.items():
        if not _is_expert(name):
            continue
        # transformers gives LongCat's zero experts rows in one matrix; no file has them.
        padded = spec.num_experts + spec.num_zero_experts
        whole = prod(shape)
        yield whole * spec.num_experts // padded if shape[0] == padded else whole


def _cache_bytes_per_token(config: Any, spec: MoESpec) -> int | None:
    if spec.architecture == "DeepseekV4ForCausalLM":
        return None
    if all(getattr(config, name, None) for name in _MLA):
        width = sum(getattr(config, name) for name in _MLA)
    else:
        heads = config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        width = 2 * head_dim * (getattr(config, "num_key_value_heads", None) or heads)
    return int(config.num_hidden_layers * width * CACHE_ELEMENT_BYTES)


def _notes(
    config: Any, method: str | None, num_parameters: int | None, weights_bytes: int | None
) -> Iterator[str]:
    if num_parameters is None:
        yield "Parameters unknown: transformers has no code for it, and its weights are not here."
    elif weights_bytes is None:
        yield f"Size of the weights unknown: they are quantized ({method}) and not here."
    kinds = getattr(config, "layer_types", None) or ()
    local = sum(kind in ("sliding_attention", "chunked_attention") for kind in kinds)
    if local:
        yield (
            f"{local} of {len(kinds)} layers attend to a window only and keep no more of the "
            "cache than that."
        )
