"""Attention whose scores a model changes before they become weights, in plain operators.

PyTorch's own attention has no place for it. Gemma 2 caps scores softly, "Gemma 2", 2024, section 2;
gpt-oss gives every head a sink, a score without a value that takes its share of the weights (Xiao
et al., "Efficient Streaming Language Models with Attention Sinks", 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import torch


class Changes(TypedDict, total=False):
    """softcap: scores stay between this and its negative. sinks: a score for each head."""

    softcap: float
    sinks: torch.Tensor


def changes(arguments: Mapping[str, Any]) -> Changes:
    """What a model's layer asks its attention for, under the library's names; empty if nothing."""
    found: Changes = {}
    if (softcap := arguments.get("softcap")) is not None:
        found["softcap"] = softcap
    if (sinks := arguments.get("s_aux")) is not None:
        found["sinks"] = sinks
    return found


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    *,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """query [batch, heads, tokens, dim]; key and value likewise, with what was in the cache and
    their own number of heads. Result [batch, tokens, heads, dim].

    mask: added, or false where nothing is seen; without one each token sees itself and those before
    it. The heads that share keys become rows, so nothing is repeated.
    """
    batch, heads, tokens, dim = query.shape
    groups, keys = key.shape[1], key.shape[2]
    rows = query.reshape(batch, groups, -1, dim)
    scores = (rows @ key.transpose(2, 3)).view(batch, heads, tokens, keys)
    scores = scores * (dim**-0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    scores = _masked(scores, mask)
    if sinks is not None:
        column = sinks.to(scores.dtype).view(1, -1, 1, 1).expand(batch, -1, tokens, 1)
        scores = torch.cat([scores, column], dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.float32)[..., :keys].to(value.dtype)
    result = weights.reshape(batch, groups, -1, keys) @ value
    return result.view(batch, heads, tokens, -1).transpose(1, 2).contiguous()


def _masked(scores: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    if mask is None:
        tokens, keys = scores.shape[-2:]
        if tokens == 1:
            return scores
        everything = torch.ones(tokens, keys, dtype=torch.bool, device=scores.device)
        mask = everything.tril(keys - tokens)
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores + mask
