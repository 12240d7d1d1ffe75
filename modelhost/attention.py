"""Attention over the paged cache on CPUs, request by request.

Without a flash kernel the library computes every request's queries against every request's
keys and masks what is foreign: work that grows with the square of the number of requests.
Here each request meets its own keys only, which also makes its numbers independent of its
neighbours; see docs/decisions/0010.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from modelhost import scores

FULL = "full_attention"  # layers without a window, as configs call them
NAME = "sdpa"  # the only such implementation that the batching manager takes without a GPU


class _UnderWay(threading.local):
    """The batch that this thread computes."""

    batch: dict[str, Any] | None = None


_under_way = _UnderWay()


@contextmanager
def batch(inputs: dict[str, Any]) -> Iterator[None]:
    """What the manager gives a model, for models whose layers do not pass it on to attention.

    Without it their attention would know neither the cache nor where a request ends.
    """
    _under_way.batch = inputs
    try:
        yield
    finally:
        _under_way.batch = None


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cache: Any = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The library's `sdpa` where there is no paged cache, or a GPU; else one request at a time.

    query [1, heads, tokens of all requests, head_dim]; key and value likewise with their own
    heads, new tokens only. Result [1, tokens, heads, head_dim]. Scores that the model caps or
    sends to sinks are computed here in any case: PyTorch's own attention can do neither.
    """
    if cache is None and _under_way.batch is not None:
        kwargs = _under_way.batch | kwargs
        cache = kwargs.pop("cache")
    changes = scores.changes(kwargs)
    if cache is None and changes:
        return scores.attend(query, key, value, attention_mask, scaling, **changes), None
    if cache is None or (query.device.type != "cpu" and not changes):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, cache=cache, **kwargs
        )
    _refuse_what_differs_by_head(attention_mask, kwargs)
    # Puts the new keys and values into the cache, gives all of them back, and leaves this
    # layer's own lengths in kwargs.
    key, value = cache.update(
        key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs
    )
    window = cache.layer_to_allocator[module.layer_idx].layer_type != FULL
    counts, known = lengths(kwargs["cu_seq_lens_q"]), lengths(kwargs["cu_seq_lens_k"])
    result = by_request(
        query, key, value, counts, known,
        mask=attention_mask, scaling=scaling, window=window, changes=changes,
    )  # fmt: skip
    return result, None


def _refuse_what_differs_by_head(mask: torch.Tensor | None, options: dict[str, Any]) -> None:
    """Raises NotImplementedError, whose words end up in the refusal of the model."""
    if mask is not None and mask.shape[:2] != (1, 1):
        raise NotImplementedError("its attention makes a mask of its own for each head")
    if options.get("position_bias") is not None:
        raise NotImplementedError("its attention adds a bias for positions")


def lengths(ends: torch.Tensor) -> list[int]:
    """Of each request, from their cumulative ends: [0, 3, 8] → [3, 5]."""
    found: list[int] = ends.tolist()
    return [end - begin for begin, end in pairwise(found)]


def by_request(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    counts: list[int],
    known: list[int],
    *,
    mask: torch.Tensor | None,
    scaling: float | None,
    window: bool = False,
    changes: scores.Changes | None = None,
) -> torch.Tensor:
    """Each request's queries against its own keys: [1, tokens, heads, head_dim].

    query [1, heads, tokens, head_dim]; key and value likewise, with what was in the cache.
    counts, known: tokens and keys of each request. mask [1, 1, tokens, keys of all], added; a
    window needs it at every place.
    """
    results = []
    parts = zip(
        torch.split(query, counts, dim=2),
        torch.split(key, known, dim=2),
        torch.split(value, known, dim=2),
        strict=True,
    )
    one_token, many_tokens = _one_token, _many_tokens
    if changes:
        one_token = many_tokens = functools.partial(scores.attend, **changes)
    first_row = first_key = 0
    for own, count, keys in zip(parts, counts, known, strict=True):
        part = None
        # One token sees all, and a prompt's beginning what is before: unless a window says else.
        if mask is not None and (window or count not in (1, keys)):
            part = mask[..., first_row : first_row + count, first_key : first_key + keys]
        results.append((one_token if count == 1 else many_tokens)(*own, part, scaling))
        first_row, first_key = first_row + count, first_key + keys
    return results[0] if len(results) == 1 else torch.cat(results, dim=1)


def _one_token(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
) -> torch.Tensor:
    """The heads that share keys become rows, so nothing is repeated."""
    _, heads, _, dim = query.shape
    groups = key.shape[1]
    rows = query.reshape(1, groups, heads // groups, dim)
    result = scaled_dot_product_attention(rows, key, value, attn_mask=mask, scale=scaling)
    return result.reshape(1, 1, heads, dim)


def _many_tokens(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
) -> torch.Tensor:
    """Without a mask each token sees itself and those before it."""
    repeats = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, repeats), repeat_kv(value, repeats)
    result = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling
    )
    return result.transpose(1, 2)


def of_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    mask: torch.Tensor | None,
    scaling: float,
) -> torch.Tensor:
    """One request's tokens to its own keys: (tokens, heads, head_dim), like the query.

    key and value (keys, groups, head_dim). mask [1, 1, tokens, keys], added.
    """
    query, key, value = (one.transpose(0, 1).unsqueeze(0) for one in (query, key, value))
    return _many_tokens(query, key, value, mask, scaling)[0]


def install() -> None:
    """Make it the process's `sdpa`; models without a paged cache do not notice."""
    AttentionInterface.register(NAME, attend)
