"""Architectures of transformers, each through the product's own way: the library's answers, or a
sentence. docs/models.md says the same to users.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import logging as transformers_logging

from modelhost import loading
from modelhost.errors import LoadFailed
from modelhost.progress import Progress
from modelhost.types import Sampling
from tests.modelhost.conftest import make_tokenizer
from tests.modelhost.folders import spec_of
from tests.modelhost.questions import generate

DOCS = Path(__file__).resolve().parents[2] / "docs" / "models.md"
FULL, WINDOW = "full_attention", "sliding_attention"
LENGTHS = [3, 40, 280, 17]  # beyond the windows, and beyond what one step reads
COUNT = 8  # tokens of each answer
EOS = 2

SHAPE = {
    "vocab_size": 301,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "pad_token_id": 0,
    "eos_token_id": EOS,
}
WINDOWS = {"sliding_window": 24, "layer_types": [WINDOW, FULL, WINDOW]}
ROUTED = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}


def turns(kind: str, **more: object) -> dict[str, object]:
    """Rotary positions of another kind."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


LONG = turns(
    "longrope", long_factor=[4.0] * 4, short_factor=[1.0] * 4, original_max_position_embeddings=64
)
SERVED = {
    "Llama, one matrix for words": ("llama", {"tie_word_embeddings": True}),
    "Llama, positions as Llama 3 has them": (
        "llama",
        turns(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
    ),
    "Llama 4 without chunks": (
        "llama4_text",
        {**EXPERTS, "layer_types": [FULL] * 3, "head_dim": 8, "intermediate_size_mlp": 48},
    ),
    "Mistral with a window": ("mistral", {"sliding_window": 24}),
    "Mixtral": ("mixtral", EXPERTS),
    "Qwen2-MoE": (
        "qwen2_moe",
        {**ROUTED, "shared_expert_intermediate_size": 24},
    ),
    "Qwen3": ("qwen3", {"head_dim": 16}),
    "Qwen3-MoE": ("qwen3_moe", {**ROUTED, "head_dim": 8}),
    "Gemma 2": (
        "gemma2",
        {**WINDOWS, "head_dim": 8, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    ),
    "Gemma 3": ("gemma3_text", {**WINDOWS, "head_dim": 8, "query_pre_attn_scalar": 8}),
    "gpt-oss": ("gpt_oss", {**WINDOWS, **EXPERTS, "head_dim": 8}),
    "Phi-3": ("phi3", {"sliding_window": None}),
    "GLM-4": ("glm4", {"head_dim": 8}),
    "GPT-2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}),
    "GPT-NeoX": ("gpt_neox", {}),
    "OPT": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "StableLM": ("stablelm", {"use_qkv_bias": True}),
    "StarCoder2": ("starcoder2", {"sliding_window": 24}),
    "OLMo 2": ("olmo2", {}),
    "Granite with windows": ("granite_swa", WINDOWS),
    "Cohere 2": ("cohere2", {**WINDOWS, "head_dim": 8}),
    "SmolLM3, a layer without positions": ("smollm3", {"no_rope_layers": [1, 0, 1]}),
    "Nemotron": ("nemotron", {}),
    "EXAONE 4": ("exaone4", WINDOWS),
}
REFUSED = {
    "Mamba": ("mamba", {}, "in its own way"),
    "Bloom": ("bloom", {}, "in its own way"),
    "Qwen3-Next": ("qwen3_next", {"layer_types": ["linear_attention"] * 3}, "linear_attention"),
    "Llama 4 with chunks": (
        "llama4_text",
        {"layer_types": ["chunked_attention"] * 3},
        "chunked_attention",
    ),
    "DeepSeek-V3": ("deepseek_v3", {"num_key_value_heads": 4}, "several sizes"),
    "Gemma 4": ("gemma4_text", {"layer_types": [WINDOW, WINDOW, FULL]}, "several sizes"),
    "BERT": ("bert", {}, "no decoder"),
    "BART": ("bart", {}, "positions itself"),
    "Falcon": ("falcon", {}, "first tokens did not come"),
    "DiffLlama": ("diffllama", {}, "not those that it chooses alone"),
}
HEAVY = {"Falcon", "DiffLlama"}  # found out only with weights


def prompt(length: int) -> list[int]:
    return [3 + (7 * length + 11 * step) % 290 for step in range(length)]


def config_of(kind: str, changes: dict[str, object]):
    cls = CONFIG_MAPPING[kind]
    named = {name for base in cls.__mro__ for name in getattr(base, "__annotations__", {})}
    return cls(**{name: value for name, value in SHAPE.items() if name in named} | changes)


@torch.no_grad()
def save(folder: Path, kind: str, changes: dict[str, object]) -> Path:
    """A model with random weights, wide enough apart, that never ends by itself."""
    torch.manual_seed(20)
    model = AutoModelForCausalLM.from_config(config_of(kind, changes))
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "sinks")):  # zeros would hide a forgotten one
            parameter.normal_(0.0, 0.3)
    model.get_output_embeddings().weight[EOS] = 0.0
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    transformers_logging.enable_progress_bar()
    make_tokenizer().save_pretrained(folder)
    return folder


def plain(folder: Path):
    """The library's own model, with the attention that every architecture has."""
    loader = AutoModelForCausalLM
    transformers_logging.disable_progress_bar()
    model = loader.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    transformers_logging.enable_progress_bar()
    return model.eval()


@pytest.mark.parametrize("name", SERVED)
def test_it_answers_as_the_library_does_alone_and_among_others(name, tmp_path, ids_of):
    model = plain(save(tmp_path / "model", *SERVED[name]))
    expected = [generate(model, prompt(length), COUNT) for length in LENGTHS]
    engine = loading.load(spec_of(tmp_path / "model"), Progress())
    try:
        tickets = [engine.submit(prompt(one), Sampling(max_tokens=COUNT)) for one in LENGTHS]
        assert [ids_of(ticket) for ticket in tickets] == expected
        last = engine.submit(prompt(LENGTHS[-1]), Sampling(max_tokens=COUNT))
        assert ids_of(last) == expected[-1]
        assert engine.restarts == 0
    finally:
        engine.stop()


def test_positions_that_turn_otherwise_when_they_are_many_end_before_that(tmp_path, ids_of):
    folder = save(tmp_path / "model", "llama", LONG)
    model, lengths = plain(folder), [5, 40, 52]
    expected = [generate(model, prompt(length), COUNT) for length in lengths]
    assert loading.describe(spec_of(folder)).context_length == 64
    engine = loading.load(spec_of(folder), Progress())
    try:
        assert engine.card.context_length == 64
        tickets = [engine.submit(prompt(one), Sampling(max_tokens=COUNT)) for one in lengths]
        assert [ids_of(ticket) for ticket in tickets] == expected
    finally:
        engine.stop()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused_in_a_sentence(name, tmp_path):
    kind, changes, reason = REFUSED[name]
    folder = tmp_path / "model"
    if name in HEAVY:
        save(folder, kind, changes)
    else:  # nothing but its config is asked
        config = config_of(kind, changes)
        config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__name__]
        config.save_pretrained(folder)

    with pytest.raises(LoadFailed, match=re.escape(reason)) as refusal:
        loading.load(spec_of(folder), Progress())

    sentence = str(refusal.value)
    assert str(folder) in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize("name", [*SERVED, *REFUSED])
def test_the_documentation_names_it(name):
    assert name.partition(",")[0].partition(" with")[0] in DOCS.read_text()
