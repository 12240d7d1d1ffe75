"""Scores that are capped, or shared with a sink: as the library's own plain attention has them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.gpt_oss import modeling_gpt_oss

from modelhost import scores

HEADS, GROUPS, DIM, SCALING = 6, 2, 8, 0.4


def states(tokens: int, keys: int) -> list[torch.Tensor]:
    torch.manual_seed(tokens)
    return [
        torch.randn(2, heads, count, DIM)
        for heads, count in ((HEADS, tokens), (GROUPS, keys), (GROUPS, keys))
    ]


def causal(tokens: int, keys: int) -> torch.Tensor:
    return torch.ones(tokens, keys, dtype=torch.bool).tril(keys - tokens).view(1, 1, tokens, keys)


def added(mask: torch.Tensor) -> torch.Tensor:
    return torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)


MASKS = {"none": lambda mask: None, "of truths": lambda mask: mask, "added": added}


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(("tokens", "keys"), [(1, 9), (5, 5), (3, 9)])
def test_capped_scores_are_gemmas(tokens, keys, kind):
    query, key, value = states(tokens, keys)
    module = SimpleNamespace(num_key_value_groups=HEADS // GROUPS, training=False)
    mask = causal(tokens, keys)
    expected, _ = modeling_gemma2.eager_attention_forward(
        module, query, key, value, added(mask), scaling=SCALING, softcap=1.5
    )

    result = scores.attend(query, key, value, MASKS[kind](mask), SCALING, softcap=1.5)

    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize(("tokens", "keys"), [(1, 9), (5, 5), (3, 9)])
def test_a_sink_takes_its_share_as_in_gpt_oss(tokens, keys):
    query, key, value = states(tokens, keys)
    sinks = torch.linspace(-1.0, 4.0, HEADS)
    module = SimpleNamespace(num_key_value_groups=HEADS // GROUPS, training=False, sinks=sinks)
    mask = added(causal(tokens, keys))
    expected, _ = modeling_gpt_oss.eager_attention_forward(
        module, query, key, value, mask, scaling=SCALING
    )

    result = scores.attend(query, key, value, mask, SCALING, sinks=sinks)

    torch.testing.assert_close(result, expected)


def test_what_a_layer_does_not_ask_for_is_no_change():
    assert scores.changes({"softcap": None, "s_aux": None, "sliding_window": 4}) == {}
    assert scores.changes({"softcap": 2.0}) == {"softcap": 2.0}
