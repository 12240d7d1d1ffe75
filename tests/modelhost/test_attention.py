"""Attention request by request: the answers of transformers' own loop, whatever the window."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from modelhost.checkpoints import Loaded
from modelhost.types import Sampling

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "pad_token_id": None,
    "eos_token_id": 2,
}
LENGTHS = [3, 15, 16, 17, 40, 100, 290, 5]  # the longest is read in more than one step


def llama(groups: int):
    return LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=groups))


def mistral():
    return MistralForCausalLM(MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=24))


def mixed():
    """Two layers that see everything, then two that see a window."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            **SHAPE,
            num_key_value_heads=2,
            use_sliding_window=True,
            sliding_window=24,
            max_window_layers=2,
        )
    )


MODELS = {
    "each head its own keys": lambda: llama(4),
    "two heads share": lambda: llama(2),
    "all heads share": lambda: llama(1),
    "a window": mistral,
    "two kinds of layers": mixed,
}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(20)
    made = MODELS[request.param]().eval()
    with torch.no_grad():
        made.lm_head.weight[2] = 0.0  # it never ends by itself
    return made


def prompt(length: int) -> list[int]:
    return [3 + (7 * length + 11 * step) % 290 for step in range(length)]


def alone(model, ids: list[int], count: int) -> list[int]:
    tokens = torch.tensor([ids])
    made = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
    )
    return made[0, len(ids) :].tolist()


def test_a_batch_of_all_lengths_answers_as_each_alone(model, serve, ids_of, tiny_format):
    expected = [alone(model, prompt(length), 40) for length in LENGTHS]
    engine = serve(Loaded(model, tiny_format))

    tickets = [engine.submit(prompt(length), Sampling(max_tokens=40)) for length in LENGTHS]

    assert [ids_of(ticket) for ticket in tickets] == expected
    assert engine.restarts == 0


def test_a_plain_forward_pass_is_the_librarys(model, serve, tiny_format):
    ids = torch.tensor([prompt(60)])
    with torch.inference_mode():
        before = model(ids).logits
        serve(Loaded(model, tiny_format))  # from now on it is the process's attention
        after = model(ids).logits

    assert torch.equal(before, after)
