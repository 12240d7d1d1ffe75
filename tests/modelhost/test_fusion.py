"""Fused modules answer what the library's own do, up to rounding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import AttentionInterface, GlmConfig, GlmForCausalLM
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from modelhost.cuda import fusion


@pytest.fixture(params=[True, False], ids=["bias", "no bias"])
def glm(request):
    """A small GLM in bfloat16 with ChatGLM's kind of attention."""
    torch.manual_seed(5)
    config = GlmConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, attention_bias=request.param,
        partial_rotary_factor=0.5, max_position_embeddings=256, pad_token_id=0,
        attn_implementation="sdpa", initializer_range=0.2,
    )  # fmt: skip
    model = GlmForCausalLM(config).to(torch.bfloat16).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model


@torch.no_grad()
def logits(model):
    ids = torch.randint(1, 64, (1, 40), generator=torch.Generator().manual_seed(1))
    return model(ids, use_cache=False).logits.float()


def test_a_fused_model_is_as_near_to_float32_as_the_librarys(glm):
    exact = logits(copy.deepcopy(glm).float())
    before = (logits(glm) - exact).norm()

    count = fusion.fuse(glm)

    assert count == 2 + 5, "two attentions; two norms a layer and the last one"
    assert (logits(glm) - exact).norm() < 1.1 * before < 0.1 * exact.norm()
    assert glm.num_parameters() == sum(p.numel() for p in glm.parameters())


def test_positions_count(glm):
    """Else the test above would hold without any turning."""
    fusion.fuse(glm)
    right = logits(glm)
    glm.model.rotary_emb.frequencies.zero_()

    assert (logits(glm) - right).norm() / right.norm() > 5e-2


@torch.no_grad()
def test_turning_is_what_the_library_does():
    from transformers.models.glm import modeling_glm

    config = GlmConfig(head_dim=32, partial_rotary_factor=0.5, hidden_size=64)
    plain = modeling_glm.GlmRotaryEmbedding(config)
    positions = torch.arange(7)[None] + 90
    heads = torch.randn(1, 7, 6, 32)
    cos, sin = plain(heads, positions)
    query, key = heads[:, :, :4].transpose(1, 2), heads[:, :, 4:].transpose(1, 2)
    expected = modeling_glm.apply_rotary_pos_emb(query, key, cos, sin)

    fusion.turn(heads, fusion.FusedRotary(plain)(heads, positions))

    torch.testing.assert_close(heads[:, :, :4].transpose(1, 2), expected[0])
    torch.testing.assert_close(heads[:, :, 4:].transpose(1, 2), expected[1])


def test_what_is_not_half_precision_stays_as_it_is(glm):
    assert fusion.fuse(glm.float()) == 0


def test_a_norm_of_another_kind_stays():
    model = nn.Module()
    model.dtype = torch.bfloat16
    model.gemma = GemmaRMSNorm(16).to(torch.bfloat16)  # its weight is an addition to 1
    model.gemma.variance_epsilon = model.gemma.eps
    model.llama = LlamaRMSNorm(16).to(torch.bfloat16)
    nn.init.uniform_(model.gemma.weight, 0.5, 1.5)

    assert fusion.fuse(model) == 1
    assert isinstance(model.gemma, GemmaRMSNorm)
    assert isinstance(model.llama, fusion.FusedNorm)


def test_quantized_attention_is_not_joined(glm):
    glm.model.layers[1].self_attn.k_proj = nn.Identity()

    fusion.fuse(glm)

    assert not any(isinstance(part, fusion.FusedAttention) for part in glm.modules())


def test_positions_of_another_kind_stay_the_librarys(glm):
    rotary = glm.model.rotary_emb
    rotary.rope_type = "dynamic"

    fusion.fuse(glm)

    assert glm.model.rotary_emb is rotary
    assert not any(isinstance(part, fusion.FusedAttention) for part in glm.modules())


def test_the_attention_of_the_config_is_asked(glm):
    seen = []

    def watching(module, query, key, value, mask, **kwargs):
        seen.append((query.shape, key.shape))
        return torch.zeros(1, query.shape[2], query.shape[1], query.shape[3]).bfloat16(), None

    AttentionInterface.register("watching", watching)
    fusion.fuse(glm)
    glm.config._attn_implementation = "watching"

    logits(glm)

    assert seen == [((1, 4, 40, 16), (1, 2, 40, 16))] * 2
