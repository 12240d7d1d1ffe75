"""Packed linear layers: the same numbers up to rounding, and the same whoever is beside."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from modelhost import packing
from modelhost.packing import PackedLinear

SHAPES = [(64, 48), (576, 192), (576, 1536), (1536, 576), (576, 4096)]


def layer(inputs: int, outputs: int, *, bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_the_result_is_the_plain_layers(shape, bias):
    plain = layer(*shape, bias=bias)
    packed = PackedLinear(plain, shared=False)
    rows = torch.randn(3, 7, shape[0])

    torch.testing.assert_close(packed(rows), plain(rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_a_row_is_the_same_alone_and_in_any_batch(shape):
    packed = PackedLinear(layer(*shape), shared=False)
    rows = torch.randn(260, shape[0])
    together = packed(rows)

    for count in (1, 2, 3, 5, 8, 16, 17, 31, 64, 65, 128, 255):
        assert torch.equal(packed(rows[:count]), together[:count]), count


def tiny(*, tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("tied", [True, False])
@torch.inference_mode()
def test_a_model_says_what_it_said_and_is_as_large(tied):
    model = tiny(tied=tied)
    ids = torch.arange(12)[None]
    before, size = model(ids).logits, model.num_parameters()

    assert packing.pack(model) == 2 * 7 + 1
    assert packing.pack(model) == 0, "twice is once"

    torch.testing.assert_close(model(ids).logits, before, rtol=1e-5, atol=1e-5)
    assert model.num_parameters() == size
    assert model.device.type == "cpu"


def test_other_dtypes_stay_as_they_are():
    assert packing.pack(tiny(tied=True).to(torch.bfloat16)) == 0


@torch.inference_mode()
def test_without_the_operators_the_model_is_plain_and_the_log_says_so(monkeypatch, caplog):
    monkeypatch.setattr(packing, "OPERATORS", object())
    model = tiny(tied=True)

    assert packing.pack(model) == 0
    assert "stay unpacked" in caplog.text
    assert model(torch.arange(4)[None]).logits.shape == (1, 4, 96)
