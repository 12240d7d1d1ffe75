"""Packed linear layers: the plain ones' numbers, and siblings multiplied at once."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from modelhost.cpu import floats, halves, packing
from modelhost.cpu.floats import Floats
from modelhost.cpu.halves import Halves
from modelhost.cpu.packing import joined

SHAPES = [(64, 48), (576, 192), (576, 1536), (1536, 576), (576, 4096)]


KINDS = [torch.float32, torch.float16, torch.bfloat16]  # that weights are published in


def layer(
    inputs: int, outputs: int, *, bias: bool = False, kind: torch.dtype = torch.float32
) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias).to(kind).float()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_the_result_is_the_plain_layers(shape, bias, kind):
    plain = layer(*shape, bias=bias, kind=kind)
    [packed] = joined([plain])
    rows = torch.randn(3, 7, shape[0])

    torch.testing.assert_close(packed(rows), plain(rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("count", [1, 2, 32, 250])
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_joined_layers_change_no_bit(bias, count, kind):
    plain = [layer(576, outputs, bias=bias, kind=kind) for outputs in (576, 192, 192)]
    rows = torch.randn(1, count, 576)

    together = [one(rows) for one in joined(plain)]

    for one, result in zip(plain, together, strict=True):
        [alone] = joined([one])
        assert torch.equal(alone(rows), result)


@pytest.mark.skipif(not halves.available(), reason="this processor or PyTorch has no FBGEMM")
def test_weights_that_16_bits_hold_are_kept_in_16():
    kinds = [type(joined([layer(64, 48, kind=kind)])[0].packed.multiply) for kind in KINDS]

    assert kinds == [Floats, Halves, Halves]


@torch.inference_mode()
def test_joined_layers_asked_with_different_inputs_answer_each():
    first, second = joined([layer(64, 48), layer(64, 32)])
    one, other = torch.randn(3, 64), torch.randn(3, 64)
    expected = first(one), second(other)

    assert torch.equal(second(other), expected[1])
    assert torch.equal(first(one), expected[0])
    assert not torch.equal(first(other), expected[0])


@torch.inference_mode()
def test_nothing_is_kept_when_all_were_asked():
    layers = joined([layer(64, 48), layer(64, 32)])
    rows = torch.randn(3, 64)
    kept = weakref.ref(rows)

    for one in layers:
        one(rows)
    del rows

    assert kept() is None


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


@torch.inference_mode()
def test_a_layer_that_differs_from_its_siblings_is_packed_apart():
    model = tiny(tied=True)
    model.model.layers[0].self_attn.k_proj.bias = nn.Parameter(torch.ones(32))
    ids = torch.arange(12)[None]
    before = model(ids).logits

    assert packing.pack(model) == 2 * 7 + 1

    torch.testing.assert_close(model(ids).logits, before, rtol=1e-5, atol=1e-5)


def test_other_dtypes_stay_as_they_are():
    assert packing.pack(tiny(tied=True).to(torch.bfloat16)) == 0


@torch.inference_mode()
def test_without_the_operators_the_model_is_plain_and_the_log_says_so(monkeypatch, caplog):
    monkeypatch.setattr(floats, "OPERATORS", object())
    model = tiny(tied=True)

    assert packing.pack(model) == 0
    assert "stay unpacked" in caplog.text
    assert model(torch.arange(4)[None]).logits.shape == (1, 4, 96)
