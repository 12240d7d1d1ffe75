"""Packed linear layers: the same numbers up to rounding, and the same whoever is beside."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from modelhost import packing
from modelhost.packing import joined

SHAPES = [(64, 48), (576, 192), (576, 1536), (1536, 576), (576, 4096)]


def layer(inputs: int, outputs: int, *, bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_the_result_is_the_plain_layers(shape, bias):
    plain = layer(*shape, bias=bias)
    [packed] = joined([plain])
    rows = torch.randn(3, 7, shape[0])

    torch.testing.assert_close(packed(rows), plain(rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_a_row_is_the_same_alone_and_in_any_batch(shape):
    [packed] = joined([layer(*shape)])
    rows = torch.randn(260, shape[0])
    together = packed(rows)

    for count in (1, 2, 3, 5, 8, 16, 17, 31, 64, 65, 128, 255):
        assert torch.equal(packed(rows[:count]), together[:count]), count


@torch.inference_mode()
def test_of_all_numbers_of_rows_few_are_multiplied(monkeypatch):
    """Each one costs memory for good."""
    [packed] = joined([layer(64, 48)])
    multiplied = set()

    class Watched:
        @staticmethod
        def _linear_pointwise(rows: torch.Tensor, *rest: object) -> torch.Tensor:
            multiplied.add(rows.shape[0])
            return torch.ops.mkldnn._linear_pointwise(rows, *rest)

    monkeypatch.setattr(packing, "OPERATORS", Watched)
    for count in range(1, 257):
        assert packed(torch.ones(count, 64)).shape == (count, 48)

    assert len(multiplied) <= 16 + 12 + 12
    assert max(multiplied) == 256, "and none is multiplied beside many zeros"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("count", [1, 2, 32, 250])
@torch.inference_mode()
def test_joined_layers_change_no_bit(bias, count):
    plain = [layer(576, outputs, bias=bias) for outputs in (576, 192, 192)]
    rows = torch.randn(1, count, 576)

    together = [one(rows) for one in joined(plain)]

    for one, result in zip(plain, together, strict=True):
        [alone] = joined([one])
        assert torch.equal(alone(rows), result)


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
    monkeypatch.setattr(packing, "OPERATORS", object())
    model = tiny(tied=True)

    assert packing.pack(model) == 0
    assert "stay unpacked" in caplog.text
    assert model(torch.arange(4)[None]).logits.shape == (1, 4, 96)
