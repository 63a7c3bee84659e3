"""`galton inspect`: every family's spec against its configuration and transformers' own model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

from models.checkpoint import CheckpointError, read_checkpoint
from models.fingerprint import fingerprint
from models.inspect import rows_of, span
from models.spec import FAMILIES, moe_spec
from routing.policy.modes import MODES
from routing.reference.rule import RouterRule
from server.cli import main
from tests.shared.servers import DEMO

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "dtype": "bfloat16",
}
MLA = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
E8K2 = {"num_experts": 8, "num_experts_per_tok": 2}
LOCAL8K2 = {"num_local_experts": 8, "num_experts_per_tok": 2}
ROUTED8K2 = {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1}
DEEPSEEK = {**MLA, **ROUTED8K2, "first_k_dense_replace": 1, "norm_topk_prob": True}
GROUPS = {"n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5}
ALL = (0, 1, 2, 3)


def spec(
    layers: tuple[int, ...] = ALL,
    *,
    bias: bool = False,
    shared: int = 0,
    zero: int = 0,
    **rule: Any,
) -> dict[str, Any]:
    """What the spec must say beside 8 experts, 2 per token."""
    return {
        "layers": layers,
        "has_correction_bias": bias,
        "num_shared_experts": shared,
        "num_zero_experts": zero,
        "rule": RouterRule(**rule),
    }


# architecture, model_type, fields of config.json beside SIZES, what the spec must say
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    # vLLM never renormalizes OLMoE, whatever the configuration says.
    ("OlmoeForCausalLM", "olmoe", {**E8K2, "norm_topk_prob": True}, spec(renormalize=False)),
    ("FlexOlmoForCausalLM", "flex_olmo", E8K2, spec(renormalize=False)),
    ("FlexOlmoForCausalLM", "flex_olmo", {**E8K2, "norm_topk_prob": True}, spec()),
    ("MixtralForCausalLM", "mixtral", LOCAL8K2, spec()),
    (
        "Qwen2MoeForCausalLM",
        "qwen2_moe",
        {**E8K2, "decoder_sparse_step": 2, "shared_expert_intermediate_size": 32},
        spec((1, 3), shared=1, renormalize=False),
    ),
    (
        "Qwen3MoeForCausalLM",
        "qwen3_moe",
        {**E8K2, "norm_topk_prob": True, "mlp_only_layers": [0, 2]},
        spec((1, 3)),
    ),
    ("Qwen3MoeForCausalLM", "qwen3_moe", LOCAL8K2, spec(renormalize=False)),
    ("GraniteMoeForCausalLM", "granitemoe", LOCAL8K2, spec()),
    ("GptOssForCausalLM", "gpt_oss", LOCAL8K2, spec()),
    (
        "DeepseekV2ForCausalLM",
        "deepseek_v2",
        {**DEEPSEEK, "norm_topk_prob": False, "scoring_func": "softmax", "num_key_value_heads": 4},
        spec((1, 2, 3), shared=1, renormalize=False),
    ),
    (
        "DeepseekV3ForCausalLM",
        "deepseek_v3",
        {**DEEPSEEK, **GROUPS, "scoring_func": "sigmoid", "topk_method": "noaux_tc"},
        spec(
            (1, 2, 3),
            bias=True,
            shared=1,
            scoring="sigmoid",
            scaling_factor=2.5,
            num_groups=4,
            topk_groups=2,
        ),
    ),
    (
        "Glm4MoeForCausalLM",
        "glm4_moe",
        {**ROUTED8K2, "first_k_dense_replace": 1, "routed_scaling_factor": 1.5},
        spec((1, 2, 3), bias=True, shared=1, scoring="sigmoid", scaling_factor=1.5),
    ),
    (
        "Dots1ForCausalLM",
        "dots1",
        {**ROUTED8K2, **GROUPS, "first_k_dense_replace": 2, "norm_topk_prob": False},
        spec(
            (2, 3),
            bias=True,
            shared=1,
            scoring="sigmoid",
            renormalize=False,
            scaling_factor=2.5,
            num_groups=4,
            topk_groups=2,
        ),
    ),
    (
        "Llama4ForCausalLM",
        "llama4_text",
        {**LOCAL8K2, "interleave_moe_layer_step": 2, "intermediate_size_mlp": 40},
        spec((1, 3), shared=1, scoring="sigmoid", renormalize=False),
    ),
    ("PhiMoEForCausalLM", "phimoe", LOCAL8K2, spec(scoring="sparsemixer", renormalize=False)),
    (
        "Ernie4_5_MoeForCausalLM",
        "ernie4_5_moe",
        {
            "moe_num_experts": 8,
            "moe_k": 2,
            "moe_num_shared_experts": 2,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": 2,
        },
        spec((1, 2), bias=True, shared=2),
    ),
    ("HunYuanMoEV1ForCausalLM", "hunyuan_v1_moe", {"num_experts": 8, "moe_topk": 2},
        spec(shared=1)),
    (
        "MiniMaxM2ForCausalLM",
        "minimax_m2",
        {**LOCAL8K2, "scoring_func": "sigmoid", "use_routing_bias": True},
        spec(bias=True, scoring="sigmoid"),
    ),
    (
        "BailingMoeV2ForCausalLM",
        "bailing_moe",
        {
            **E8K2,
            **GROUPS,
            "num_shared_experts": 1,
            "norm_topk_prob": True,
            "score_function": "sigmoid",
            "moe_router_enable_expert_bias": True,
            "first_k_dense_replace": 1,
        },
        spec(
            (1, 2, 3),
            bias=True,
            shared=1,
            scoring="sigmoid",
            scaling_factor=2.5,
            num_groups=4,
            topk_groups=2,
        ),
    ),
    (
        "DeepseekV4ForCausalLM",
        "deepseek_v4",
        {**ROUTED8K2, "topk_method": "noaux_tc", "num_hash_layers": 1, "q_lora_rank": 16,
         "routed_scaling_factor": 1.5, "scoring_func": "sqrtsoftplus"},
        spec(bias=True, shared=1, scoring="sqrtsoftplus", scaling_factor=1.5),
    ),
    (
        "LongcatFlashForCausalLM",
        "longcat_flash",
        {**MLA, "num_layers": 4, "num_hidden_layers": 8, "n_routed_experts": 8, "moe_topk": 2,
         "zero_expert_num": 4, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 16,
         "routed_scaling_factor": 6.0},
        spec(bias=True, zero=4, renormalize=False, scaling_factor=6.0),
    ),
]  # fmt: skip
IDS = [f"{case[1]}{n}" for n, case in enumerate(CASES)]
REASONS = {
    "DeepseekV4ForCausalLM": ((0,), "hash"),
    "HunYuanMoEV1ForCausalLM": (ALL, "routes by itself"),
    "LongcatFlashForCausalLM": (ALL, "4 zero experts"),
}
UNKNOWN_TO_TRANSFORMERS = "BailingMoeV2ForCausalLM"
KNOWN_CASES = [case for case in CASES if case[0] != UNKNOWN_TO_TRANSFORMERS]


def write(directory: Path, architecture: str, model_type: str, fields: dict[str, Any]) -> str:
    config = {"architectures": [architecture], "model_type": model_type, **SIZES, **fields}
    (directory / "config.json").write_text(json.dumps(config))
    return str(directory)


def inspected(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    assert main(["inspect", *argv, "--json"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


@pytest.mark.parametrize(("architecture", "model_type", "fields", "expected"), CASES, ids=IDS)
def test_family(
    architecture: str,
    model_type: str,
    fields: dict[str, Any],
    expected: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = write(tmp_path, architecture, model_type, fields)
    found = read_checkpoint(model).spec
    assert {name: getattr(found, name) for name in expected} == expected
    assert (found.num_layers, found.num_experts, found.top_k) == (4, 8, 2)

    closed, word = REASONS.get(architecture, ((), ""))
    assert tuple(found.uncontrolled) == closed
    assert all(word in reason for reason in found.uncontrolled.values())
    facts = inspected(capsys, model)
    assert {entry["layer"]: entry["modes"] for entry in facts["layers"]} == {
        layer: [] if layer in closed else list(MODES) for layer in expected["layers"]
    }
    refused = "`galton serve` refuses a model with a layer that it cannot control."
    assert (refused in facts["notes"]) == bool(closed)


def test_every_known_family_is_tested() -> None:
    same = {"BailingMoeForCausalLM", "Llama4ForConditionalGeneration", "PhimoeForCausalLM"}
    assert {case[0] for case in CASES} | same == set(FAMILIES)


def real_model(model: str) -> Any:
    """The checkpoint's model in memory, with real tensors."""
    config = transformers.AutoConfig.from_pretrained(model)
    return transformers.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("architecture", "model_type", "fields", "expected"),
    KNOWN_CASES,
    ids=[f"{case[1]}{n}" for n, case in enumerate(KNOWN_CASES)],
)
def test_parameters_and_layers_are_those_of_a_real_model(
    architecture: str,
    model_type: str,
    fields: dict[str, Any],
    expected: dict[str, Any],
    tmp_path: Path,
) -> None:
    directory = write(tmp_path, architecture, model_type, fields)
    found = read_checkpoint(directory)
    model = real_model(directory)
    experts = {name: m for name, m in model.named_modules() if name.endswith(".experts")}
    assert (
        tuple(int(name.split(".layers.")[1].split(".")[0]) for name in experts) == found.spec.layers
    )
    # transformers gives zero experts rows of their own; no checkpoint has them.
    rows = [p[: found.spec.num_experts] for m in experts.values() for p in m.parameters()]
    surplus = sum(p.numel() for m in experts.values() for p in m.parameters())
    surplus -= sum(p.numel() for p in rows)
    assert (surplus > 0) == (found.spec.num_zero_experts > 0)
    assert found.num_parameters == sum(p.numel() for p in model.parameters()) - surplus
    assert found.num_expert_parameters == sum(p.numel() for p in rows)
    unused = sum(p[found.spec.top_k :].numel() for p in rows)
    assert found.num_active_parameters(found.spec.top_k) == found.num_parameters - unused
    assert found.num_active_parameters(found.spec.num_experts) == found.num_parameters
    assert found.num_parameters is not None
    assert found.weights_bytes == 2 * found.num_parameters


@pytest.mark.parametrize(
    ("case", "num_bytes"),
    [
        (3, 4 * 2 * 2 * 8 * 2),  # layers x keys and values x heads x head size x 2 bytes
        (10, 4 * (16 + 8) * 2),  # one latent vector and one rotary key
        (19, None),
        (20, 4 * 2 * (16 + 8) * 2),  # LongCat's layers have two attentions
    ],
)
def test_cache_bytes_per_token(case: int, num_bytes: int | None, tmp_path: Path) -> None:
    found = read_checkpoint(write(tmp_path, *CASES[case][:3]))
    assert found.cache_bytes_per_token == num_bytes


def test_model_type_that_transformers_does_not_know_is_read_by_its_architecture(
    tmp_path: Path,
) -> None:
    """Kimi K2 is DeepSeek-V3 under its own name."""
    as_kimi = read_checkpoint(write(tmp_path, CASES[10][0], "kimi_k2", CASES[10][2]))
    as_deepseek = read_checkpoint(write(tmp_path, *CASES[10][:3]))
    assert as_kimi == as_deepseek


def test_first_dense_layers_and_their_frequency_both_count() -> None:
    config = transformers.PreTrainedConfig(**{**SIZES, **DEEPSEEK, "moe_layer_freq": 2})
    assert moe_spec("DeepseekV3ForCausalLM", config).layers == (2,)


def test_where_vllm_on_cpu_does_less_is_said(tmp_path: Path) -> None:
    notes = {}
    for number in (10, 15, 17):
        directory = tmp_path / str(number)
        directory.mkdir()
        architecture = CASES[number][0]
        notes[architecture] = read_checkpoint(write(directory, *CASES[number][:3])).spec.notes
    assert notes["DeepseekV3ForCausalLM"] == ()
    assert "leaves the correction bias out" in notes["Ernie4_5_MoeForCausalLM"][0]
    assert "cannot run it" in notes["MiniMaxM2ForCausalLM"][0]


def test_bundled_demo(capsys: pytest.CaptureFixture[str]) -> None:
    facts = inspected(capsys)
    assert facts == inspected(capsys, str(DEMO))
    assert facts["moe_layers"] == list(range(8))
    assert (facts["num_layers"], facts["num_experts"], facts["top_k"]) == (8, 16, 4)
    assert facts["router"]["scoring"] == "softmax"
    assert facts["router"]["renormalize"] is True
    assert facts["expert_metrics"] == {"num_series": 128, "auto": "full", "num_exported": 128}
    model = real_model(str(DEMO))
    assert facts["parameters"]["total"] == sum(p.numel() for p in model.parameters())
    assert facts["memory"]["weights_bytes"] == 2 * facts["parameters"]["total"]
    assert facts["memory"]["kv_cache_bytes_per_token"] == 8 * 2 * 2 * 32 * 2
    assert facts["notes"] == []


def test_table_says_what_json_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write(tmp_path, *CASES[10][:3])
    facts = inspected(capsys, model)
    assert main(["inspect", model]) == 0
    table = capsys.readouterr().out
    rows = rows_of(facts)
    assert all(name in table and text in table for name, text in rows)
    text = dict(rows)
    assert text["MoE layers"] == "3 of 4: 1-3"
    assert text["experts per layer"] == "8, 1 shared"
    assert text["router"] == (
        "sigmoid, renormalized, 2 of 4 groups, correction bias, weights times 2.5"
    )
    assert text["parameters"].startswith(f"{facts['parameters']['total']:,}")
    assert text["active per token"].startswith(f"{facts['parameters']['active_per_token']:,}")
    assert text["weights"].startswith(f"{facts['memory']['weights_bytes']:,} bytes")
    assert text["modes"] == f"layers 1-3: {', '.join(MODES)}"


def test_experts_that_requests_may_ask_for_widen_ranges_and_cost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    facts = inspected(capsys, "--max-experts-per-token=8")
    parameters, modes = facts["parameters"], facts["modes"]
    assert modes["sample"]["parameters"] == {
        "top_k": "from 1 to 8",
        "temperature": "from 0 to 10",
    }
    assert modes["head_sample"]["parameters"]["head"] == "from 0 to top_k"
    assert modes["top_p"]["parameters"]["mass"] == "full or top_k"
    grown = parameters["active_per_token_at_most"] - parameters["active_per_token"]
    assert grown == 4 * 8 * 3 * 192 * 96  # experts x layers x matrices of one expert


def test_many_experts_are_exported_as_sums_per_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write(tmp_path, *CASES[6][:2], {**LOCAL8K2, "num_local_experts": 6000})
    facts = inspected(capsys, model)
    assert facts["expert_metrics"] == {"num_series": 24_000, "auto": "layer", "num_exported": 4}
    assert dict(rows_of(facts))["expert series"] == "24,000; 4 by default: sums per layer"


def test_files_that_are_here_are_measured(tmp_path: Path) -> None:
    """One tensor per expert, in shards, of an architecture that transformers does not know."""
    model = write(tmp_path, *next(c for c in CASES if c[0] == UNKNOWN_TO_TRANSFORMERS)[:3])
    unknown = read_checkpoint(model)
    assert unknown.num_parameters is None
    assert unknown.weights_bytes is None
    assert "Parameters unknown" in unknown.notes[0]

    weight = torch.zeros(16, 32, dtype=torch.bfloat16)
    shards = {
        "a.safetensors": {"model.embed.weight": torch.zeros(96, 32)},
        "b.safetensors": {
            f"model.layers.{layer}.mlp.experts.{expert}.up_proj.weight": weight.clone()
            for layer in (1, 2, 3)
            for expert in range(8)
        },
    }
    weight_map = {name: file for file, tensors in shards.items() for name in tensors}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    save_file(shards["a.safetensors"], tmp_path / "a.safetensors")
    assert read_checkpoint(model).num_parameters is None, "a shard is missing"
    save_file(shards["b.safetensors"], tmp_path / "b.safetensors")
    found = read_checkpoint(model)
    assert found.num_expert_parameters == 24 * 16 * 32
    assert found.num_parameters == 96 * 32 + 24 * 16 * 32
    assert found.num_active_parameters(2) == 96 * 32 + 6 * 16 * 32
    assert found.weights_bytes == 4 * 96 * 32 + 2 * 24 * 16 * 32


def test_quantized_weights_that_are_not_here_have_no_size(tmp_path: Path) -> None:
    quantized = {**LOCAL8K2, "quantization_config": {"quant_method": "mxfp4"}}
    found = read_checkpoint(write(tmp_path, "GptOssForCausalLM", "gpt_oss", quantized))
    assert found.quantization == "mxfp4"
    assert found.num_parameters is not None
    assert found.weights_bytes is None
    assert any("quantized (mxfp4)" in note for note in found.notes)


def test_text_model_inside_a_vision_model(tmp_path: Path) -> None:
    text = {**SIZES, **LOCAL8K2, "model_type": "llama4_text", "interleave_moe_layer_step": 2}
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
              "intermediate_size": 32, "vision_output_dim": 32, "projector_input_dim": 32,
              "projector_output_dim": 32, "image_size": 28, "patch_size": 14}  # fmt: skip
    config = {
        "architectures": ["Llama4ForConditionalGeneration"],
        "model_type": "llama4",
        "text_config": text,
        "vision_config": vision,
        "dtype": "bfloat16",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = read_checkpoint(str(tmp_path))
    assert found.spec.layers == (1, 3)
    assert found.num_expert_parameters == 2 * 8 * 3 * 32 * 48
    assert found.num_parameters is not None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}, "nothing to route"),
        ({"architectures": ["NewMoE"], "num_experts": 4}, "the router of NewMoE is not known"),
        ({"model_type": "olmoe"}, "names no architecture"),
        ({"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "hidden_size": "wide"},
            "is not valid"),
        ({"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
            "mlp_only_layers": list(range(24))}, "has no MoE layer"),
    ],
)  # fmt: skip
def test_what_cannot_be_described_is_one_line(
    config: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["inspect", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("galton: ")
    assert message in said.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["./nowhere"], "there is no such directory"),
        (["no-such-organisation/no-such-model"], "cannot read no-such-organisation/no-such-model"),
        ([str(Path(__file__).parent)], "the directory has no config.json"),
        (["--max-experts-per-token=17"], "must be from 4 (the model's own top-k) to 16"),
        (["--max-experts-per-token=3"], "must be from 4 (the model's own top-k) to 16"),
    ],
)
def test_what_cannot_be_inspected_is_one_line(
    argv: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["inspect", *argv]) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert message in said


def test_unknown_flags_are_refused() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["inspect", "--port=8000"])
    assert stopped.value.code == 2


def test_span_joins_neighbors() -> None:
    assert span([0, 3, 4, 5, 9]) == "0, 3-5, 9"
    assert span([7]) == "7"


def test_the_demos_fingerprint_is_that_of_its_traces() -> None:
    """It stands in every trace that was ever recorded, however the files are read."""
    assert fingerprint(str(DEMO)) == "93345ef06fe05234"


def test_a_cut_weights_file_is_named(tmp_path: Path) -> None:
    shutil.copy(DEMO / "config.json", tmp_path)
    weights = (DEMO / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a safetensors file"):
        read_checkpoint(str(tmp_path))
