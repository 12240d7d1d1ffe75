"""A step computed lean: the library's numbers, or the library."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GlmConfig,
    GlmForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from modelhost.checkpoints import Loaded
from modelhost.cpu import packing
from modelhost.cpu.steps import LeanRunner, Trait
from modelhost.engine import Engine
from modelhost.types import Sampling
from tests.modelhost.test_attention import LENGTHS, SHAPE, alone, mistral, prompt

COUNT = 12  # tokens of each answer
TWO_SHARE = {**SHAPE, "num_key_value_heads": 2}
LEAN = {
    "Llama": lambda: LlamaForCausalLM(LlamaConfig(**TWO_SHARE)),
    "Llama with biases": lambda: LlamaForCausalLM(
        LlamaConfig(**TWO_SHARE, attention_bias=True, mlp_bias=True)
    ),
    "Mistral without a window": lambda: MistralForCausalLM(
        MistralConfig(**TWO_SHARE, sliding_window=None)
    ),
    "Qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**TWO_SHARE)),
    "ChatGLM": lambda: GlmForCausalLM(GlmConfig(**TWO_SHARE, head_dim=8, attention_bias=True)),
    "ChatGLM, all of a head turns": lambda: GlmForCausalLM(
        GlmConfig(**TWO_SHARE, head_dim=8, partial_rotary_factor=1.0)
    ),
}
OTHERS = {
    "a window": mistral,
    "another kind": lambda: GemmaForCausalLM(GemmaConfig(**TWO_SHARE, head_dim=8)),
    "another activation": lambda: LlamaForCausalLM(LlamaConfig(**TWO_SHARE, hidden_act="gelu")),
}


def packed(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    torch.manual_seed(20)
    model = make().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # they begin as zeros, which would hide a forgotten one
                parameter.normal_(0.0, 0.3)
        model.lm_head.weight[2] = 0.0  # it never ends by itself
    assert packing.pack(model)
    return model


def runner(engine: Engine) -> LeanRunner:
    return engine._manager.batch_processor.model_runner


def make_other(lean: LeanRunner) -> None:
    """From now on it computes what is nearly the same: a norm is a thousandth too long."""
    layers = lean._decoder._layers
    norm = layers[-1].attention_norm
    layers[-1] = replace(layers[-1], attention_norm=lambda *rows: norm(*rows) * 1.001)


@pytest.fixture
def start(serve, tiny_format) -> Callable[[torch.nn.Module], Engine]:
    return lambda model: serve(Loaded(model, tiny_format), speculate=False)


@pytest.fixture
def ask(ids_of):
    def together(engine: Engine, *, count: int = COUNT) -> list[list[int]]:
        tickets = [engine.submit(prompt(one), Sampling(max_tokens=count)) for one in LENGTHS]
        return [ids_of(ticket) for ticket in tickets]

    return together


@pytest.mark.parametrize("make", LEAN.values(), ids=LEAN)
def test_every_trait_of_a_batch_has_the_librarys_numbers(make, start, ask, ids_of):
    model = packed(make)
    expected = [alone(model, prompt(length), COUNT) for length in LENGTHS]
    engine = start(model)

    assert ask(engine) == expected
    assert ids_of(engine.submit(prompt(7), Sampling(max_tokens=3)))  # a row alone

    assert runner(engine).lean
    assert runner(engine)._proven == set(Trait)


def test_what_is_proven_the_library_does_not_compute_again(start, ask, ids_of):
    model = packed(LEAN["Llama"])
    engine = start(model)
    before = ask(engine), ids_of(engine.submit(prompt(7), Sampling(max_tokens=9)))
    passes = []
    model.register_forward_pre_hook(lambda *_: passes.append(1))

    again = ask(engine), ids_of(engine.submit(prompt(7), Sampling(max_tokens=9)))

    assert again == before
    assert not passes


def test_the_first_answers_of_a_process_are_to_the_bit_what_they_are_later(start, ids_of):
    engine = start(packed(LEAN["Llama"]))
    compute, told = runner(engine)._compute, []

    def note(*batch: object) -> object:
        told.append(compute(*batch).logits.clone())
        return SimpleNamespace(logits=told[-1])

    runner(engine)._compute = note
    for _ in range(2):
        ids_of(engine.submit(prompt(7), Sampling(max_tokens=COUNT)))

    assert runner(engine).lean
    first, later = told[:COUNT], told[COUNT:]
    assert all(map(torch.equal, first, later))


@pytest.mark.parametrize("make", LEAN.values(), ids=LEAN)
def test_the_first_difference_ends_it_and_no_answer_shows_it(make, start, ask, caplog):
    model = packed(make)
    expected = [alone(model, prompt(length), COUNT) for length in LENGTHS]
    engine = start(model)
    make_other(runner(engine))

    assert ask(engine) == expected

    assert not runner(engine).lean
    assert "slower: other numbers" in caplog.text


def test_a_trait_that_comes_later_is_compared_when_it_comes(start, ids_of):
    model = packed(LEAN["Llama"])
    expected = alone(model, prompt(290), COUNT)
    engine = start(model)
    assert ids_of(engine.submit(prompt(5), Sampling(max_tokens=COUNT)))
    assert runner(engine).lean
    make_other(runner(engine))

    assert ids_of(engine.submit(prompt(290), Sampling(max_tokens=COUNT))) == expected

    assert not runner(engine).lean


@pytest.mark.parametrize("error", [KeyError("read_index"), RuntimeError("other shapes")])
def test_a_library_that_it_does_not_know_computes_itself(error, start, ask, caplog):
    model = packed(LEAN["Llama"])
    expected = [alone(model, prompt(length), COUNT) for length in LENGTHS]
    engine = start(model)

    def fail(*_: object) -> torch.Tensor:
        raise error

    runner(engine)._decoder._attend = fail

    assert ask(engine) == expected

    assert engine.restarts == 0
    assert repr(error) in caplog.text


def test_a_model_with_other_names_is_computed_by_the_library(start):
    model = packed(LEAN["Llama"])
    model.model.layers[1].mlp.last_proj = model.model.layers[1].mlp._modules.pop("down_proj")

    assert not runner(start(model)).lean


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_what_is_another_model_the_library_computes(make, start, ask):
    model = packed(make)
    expected = [alone(model, prompt(length), COUNT) for length in LENGTHS]
    engine = start(model)

    assert not runner(engine).lean
    assert ask(engine) == expected


def test_a_model_that_is_not_packed_the_library_computes(serve, load_tiny):
    assert not runner(serve(load_tiny())).lean


def test_layers_that_were_not_packed_together_have_no_common_product():
    model = packed(LEAN["Llama"])
    one, other = model.model.layers[0].self_attn, model.model.layers[1].self_attn

    assert packing.product_of([one.q_proj, one.k_proj, one.v_proj]) is not None
    assert packing.product_of([one.q_proj, one.k_proj]) is None
    assert packing.product_of([one.q_proj, one.v_proj, one.k_proj]) is None
    assert packing.product_of([one.q_proj, other.k_proj, other.v_proj]) is None
    assert packing.product_of([torch.nn.Linear(2, 2)]) is None


def test_a_pass_that_raises_is_survived_like_the_librarys(start, ask):
    engine = start(packed(LEAN["Llama"]))
    expected = ask(engine)
    runner(engine)._proven = set(Trait)  # else a batch of another kind may be the one that fails
    decoder = runner(engine)._decoder
    embed, left = decoder._embed, iter([True] * 3)

    def fail_once(ids: torch.Tensor) -> torch.Tensor:
        if next(left, None) and not next(left, None):
            raise RuntimeError("a kernel went wrong")
        return embed(ids)

    decoder._embed = fail_once

    assert ask(engine) == expected

    assert engine.restarts == 1
    assert runner(engine).lean


def test_where_kernels_cannot_be_compiled_the_library_computes(monkeypatch, start, ask, caplog):
    monkeypatch.delattr("modelhost.cpu.lean", raising=False)
    monkeypatch.setitem(sys.modules, "modelhost.cpu.lean", None)  # an ImportError for who asks
    model = packed(LEAN["Llama"])
    expected = [alone(model, prompt(length), COUNT) for length in LENGTHS]

    engine = start(model)

    assert ask(engine) == expected
    assert not runner(engine).lean
    assert "slower" in caplog.text
