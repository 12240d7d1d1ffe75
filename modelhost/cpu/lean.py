"""The forward pass of a step on a CPU: its operators, without the modules around them.

For one stream of the demo model the library's decoder calls 2,600 operators through 400 modules,
and on some processors their Python takes as long as reading the weights. Here a layer is four
products and five compiled kernels, which also read the cache where it is. What that brings is in
docs/decisions/0020 and 0022.

That the numbers are the library's is not assumed: see `modelhost.cpu.steps`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import nn
from transformers import GlmModel, LlamaModel, MistralModel, Qwen2Model

from modelhost.attention import FULL, lengths, of_one
from modelhost.cpu import kernels
from modelhost.cpu.openmp import Kernel
from modelhost.cpu.packing import Product, product_of

ADD_AND_NORM = Kernel(kernels.add_and_norm)
TURN_AND_STORE = Kernel(kernels.turn_and_store)
ATTEND = Kernel(kernels.attend)
GATE = Kernel(kernels.gate)

# Whether the two numbers of a rotary pair are neighbours, as in ChatGLM, or half of the rotated
# dimensions apart. Exactly these models: what derives from them may compute something else.
NEIGHBOURS: dict[type[nn.Module], bool] = {
    GlmModel: True,
    LlamaModel: False,
    MistralModel: False,
    Qwen2Model: False,
}


class NotLean(Exception):
    """This model cannot be computed so; the text says why."""


class Norm:
    """The root mean square norm in front of a product."""

    def __init__(self, plain: Any) -> None:
        self._weight = plain.weight.detach()
        self._epsilon = float(plain.variance_epsilon)

    def __call__(self, rows: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """(n, size) → (n, size). added: what the rows are increased by first, and stay so."""
        result = torch.empty_like(rows)
        ADD_AND_NORM(
            *(*rows.shape, self._epsilon, self._weight, rows, added, result),
            work=2 * rows.numel(),
        )
        return result


@dataclass(frozen=True, slots=True)
class Layer:
    """What a decoder's layer computes with."""

    attention_norm: Norm
    query_key_value: Product
    attention_output: Product
    feed_forward_norm: Norm
    gate_and_up: Product
    down: Product

    @classmethod
    def of(cls, plain: Any) -> Layer:
        """Raises NotLean."""
        attention, feed_forward = plain.self_attn, plain.mlp
        joined = getattr(feed_forward, "gate_up_proj", None)
        gate_and_up = (joined,) if joined else (feed_forward.gate_proj, feed_forward.up_proj)
        return cls(
            Norm(plain.input_layernorm),
            _product(attention.q_proj, attention.k_proj, attention.v_proj),
            _product(attention.o_proj),
            Norm(plain.post_attention_layernorm),
            _product(*gate_and_up),
            _product(feed_forward.down_proj),
        )


@dataclass(frozen=True, slots=True)
class Part:
    """One request in a batch: the rows of its tokens, and the places of its keys."""

    row: int
    tokens: int
    first: int  # in the list of places that are read
    keys: int


@dataclass(frozen=True, slots=True)
class Places:
    """What all layers need to know of a batch: where keys are, and the rotation of positions."""

    views: dict[int, tuple[torch.Tensor, torch.Tensor]]  # a layer's keys and values in the cache
    write: torch.Tensor
    read: torch.Tensor  # empty if nothing is known but what this batch brings
    single: torch.Tensor  # of requests with one token: its row, first and number of its keys
    most: int  # keys of these
    keys: int  # of all of these
    prompts: list[Part]
    mask: torch.Tensor | None
    cos: torch.Tensor
    sin: torch.Tensor


class LeanDecoder:
    """Stands in for a causal language model where a batch with a paged cache is computed."""

    def __init__(self, model: Any, cache: Any) -> None:
        """Raises NotLean."""
        decoder, config = model.model, model.config
        if type(decoder) not in NEIGHBOURS or config.hidden_act != "silu":
            raise NotLean(f"{type(model).__name__} is another kind of model")
        [self._allocator] = cache.cache_allocators.values()
        if self._allocator.layer_type != FULL:
            raise NotLean("its layers have a window")
        self._views = self._allocator._kv_token_views
        self._neighbours = NEIGHBOURS[type(decoder)]
        self._embed, self._rotary = decoder.embed_tokens, decoder.rotary_emb
        self._layers = [Layer.of(one) for one in decoder.layers]
        self._norm, self._head = Norm(decoder.norm), _product(model.lm_head)
        self._heads, self._groups = config.num_attention_heads, config.num_key_value_heads
        attention = decoder.layers[0].self_attn
        self._head_dim, self._scaling = attention.head_dim, attention.scaling

    def logits(self, batch: dict[str, Any]) -> torch.Tensor:
        """(1, rows that are asked for, vocabulary). The batch is what the manager gives a model."""
        hidden = self._embed(batch["input_ids"][0])
        places = self._places(batch, hidden)
        hidden = _with_room(hidden, self._layers[0].query_key_value)
        added = None
        for at, layer in enumerate(self._layers):
            every = layer.query_key_value(layer.attention_norm(hidden, added))
            added = layer.attention_output(self._attend(at, every, places))
            both = layer.gate_and_up(layer.feed_forward_norm(hidden, added))
            added = layer.down(_gated(both))
        rows = hidden[batch["logits_indices"]]
        if added is not None:
            rows += added[batch["logits_indices"]]
        return self._head(self._norm(rows)).unsqueeze(0)

    def _places(self, batch: dict[str, Any], hidden: torch.Tensor) -> Places:
        cos, sin = self._rotary(hidden, position_ids=batch["position_ids"])
        pairs = cos.shape[-1] // 2
        parts = _parts(lengths(batch["cu_seq_lens_q"]), lengths(batch["cu_seq_lens_k"][FULL]))
        single = [(one.row, one.first, one.keys) for one in parts if one.tokens == 1]
        return Places(
            views=self._views,
            write=batch["write_index"][self._allocator.index],
            read=batch["read_index"][self._allocator.index],
            single=torch.tensor(single, dtype=torch.int64),
            most=max((keys for *_, keys in single), default=0),
            keys=sum(keys for *_, keys in single),
            prompts=[one for one in parts if one.tokens > 1],
            mask=batch["attention_mask"],
            cos=cos[0, :, :pairs].contiguous(),
            sin=sin[0, :, :pairs].contiguous(),
        )

    def _attend(self, at: int, every: torch.Tensor, places: Places) -> torch.Tensor:
        """Of layer `at`: (n, all heads' dimensions) → (n, the queries' dimensions)."""
        heads, groups, dim = self._heads, self._groups, self._head_dim
        keys, values = places.views[at]
        count, pairs = places.cos.shape
        apart, step = (1, 2) if self._neighbours else (pairs, 1)
        TURN_AND_STORE(
            *(count, heads, groups, dim, pairs, apart, step),
            *(every, places.cos, places.sin, places.write, keys, values),
            work=count * every.shape[1],
        )
        room = every.shape[0]
        seen = (torch.zeros if room > count else torch.empty)(room, heads, dim)
        if places.most:
            read = places.read if places.read.numel() else places.write
            ATTEND(
                *(len(places.single), heads, groups, dim, places.most, self._scaling),
                *(places.single, every, read, keys, values, seen),
                work=2 * places.keys * heads * dim,
            )
        if places.prompts:
            self._attend_in_prompts(every.view(room, -1, dim), keys, values, places, seen)
        return seen.view(room, -1)

    def _attend_in_prompts(
        self,
        every: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        places: Places,
        seen: torch.Tensor,
    ) -> None:
        query, key, value = torch.split(every, [self._heads, self._groups, self._groups], dim=1)
        for one in places.prompts:
            own = slice(one.row, one.row + one.tokens)
            mask = None
            if one.keys == one.tokens:
                known = key[own], value[own]
            else:
                where = slice(one.first, one.first + one.keys)
                known = keys[places.read[where]], values[places.read[where]]
                mask = None if places.mask is None else places.mask[..., own, where]
            seen[own] = of_one(query[own], *known, mask=mask, scaling=self._scaling)


def _parts(counts: list[int], known: list[int]) -> list[Part]:
    rows, firsts = accumulate(counts, initial=0), accumulate(known, initial=0)
    return [Part(*one) for one in zip(rows, counts, firsts, known, strict=False)]


def _gated(both: torch.Tensor) -> torch.Tensor:
    """(n, 2 · size) → (n, size)."""
    count, size = both.shape[0], both.shape[1] // 2
    result = torch.empty(count, size)
    GATE(count, size, both, result, work=both.numel())
    return result


def _with_room(rows: torch.Tensor, product: Product) -> torch.Tensor:
    """Padded once with the rows of zeros that each product would add for itself."""
    missing = product.room(rows.shape[0]) - rows.shape[0]
    return nn.functional.pad(rows, (0, 0, 0, missing)) if missing else rows


def _product(*linears: nn.Module) -> Product:
    found = product_of(linears)
    if found is None:
        raise NotLean("its layers are not packed together")
    return found
