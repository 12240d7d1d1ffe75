"""The forward pass of a step on a CPU with nothing around its operators.

For one stream of the demo model the library's decoder calls 2,600 operators through 400 modules,
and on some processors their Python takes as long as reading the weights. Here 1,400 follow one
another, and each computes the same bits: query and key are turned in one piece and in place, the
requests' lengths are read once for all layers, and a norm is six operators. What that brings is
in docs/decisions/0020.

That the bits are equal is not assumed: see `modelhost.steps`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import GlmModel, LlamaModel, MistralModel, Qwen2Model

from modelhost.attention import FULL, by_request, lengths
from modelhost.packing import Product, product_of


class NotLean(Exception):
    """A model is none that can be computed so; the text says why."""


class Norm:
    """Root mean square norm (Zhang and Sennrich, 2019), rounded as the library rounds."""

    def __init__(self, plain: Any) -> None:
        self._weight = plain.weight.detach()
        # As tensors: a plain number becomes one at each call, which takes longer than to divide.
        self._size = torch.tensor(float(self._weight.numel()))
        self._epsilon = torch.tensor(plain.variance_epsilon)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, size) → (n, size)."""
        squares = rows.square().sum(-1, keepdim=True)
        scale = torch.addcdiv(self._epsilon, squares, self._size).rsqrt_()
        return torch.mul(rows, scale).mul_(self._weight)


class HalfTurns:
    """Positions as turns (Su et al., "RoFormer", 2021) of pairs that are half a head apart."""

    @staticmethod
    def prepare(cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The library's (tokens, size) each → the same, for `exchange`d numbers."""
        low, high = sin.chunk(2, dim=-1)
        return cos, torch.cat((-low, high), dim=-1)

    @staticmethod
    def exchange(part: torch.Tensor) -> torch.Tensor:
        """Each number's partner in its place."""
        return part.roll(part.shape[-1] // 2, -1)


class PairTurns:
    """The same of pairs that are neighbours, as ChatGLM turns them."""

    @staticmethod
    def prepare(cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See HalfTurns."""
        pairs = cos.shape[-1] // 2
        cos, sin = (one[:, :pairs].repeat_interleave(2, dim=-1) for one in (cos, sin))
        sin[:, ::2].neg_()
        return cos, sin

    @staticmethod
    def exchange(part: torch.Tensor) -> torch.Tensor:
        """See HalfTurns."""
        return part.reshape(*part.shape[:-1], -1, 2).flip(-1).view(part.shape)


Turns = type[HalfTurns] | type[PairTurns]
# Exactly these: what derives from them may compute something else.
KINDS: dict[type[nn.Module], Turns] = {
    GlmModel: PairTurns,
    LlamaModel: HalfTurns,
    MistralModel: HalfTurns,
    Qwen2Model: HalfTurns,
}


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
class Places:
    """Of one batch, for all of its layers: where keys are, and how far positions turn."""

    cache: Any
    write: list[torch.Tensor]
    read: list[torch.Tensor]
    counts: list[int]
    known: list[int]
    mask: torch.Tensor | None
    cos: torch.Tensor
    sin: torch.Tensor


class LeanDecoder:
    """Stands in for a causal language model where a batch with a paged cache is computed."""

    def __init__(self, model: Any) -> None:
        """Raises NotLean."""
        decoder, config = model.model, model.config
        kind = KINDS.get(type(decoder))
        if kind is None or config.hidden_act != "silu":
            raise NotLean(f"{type(model).__name__} is another kind of model")
        self._turns: Turns = kind
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
        for at, layer in enumerate(self._layers):
            seen = self._attend(at, layer.query_key_value(layer.attention_norm(hidden)), places)
            hidden = layer.attention_output(seen).add_(hidden)
            gate, up = layer.gate_and_up(layer.feed_forward_norm(hidden)).chunk(2, dim=-1)
            hidden = layer.down(nn.functional.silu(gate).mul_(up)).add_(hidden)
        return self._head(self._norm(hidden[batch["logits_indices"]])).unsqueeze(0)

    def _places(self, batch: dict[str, Any], hidden: torch.Tensor) -> Places:
        cos, sin = self._rotary(hidden, position_ids=batch["position_ids"])
        cos, sin = self._turns.prepare(cos[0], sin[0])
        return Places(
            cache=batch["cache"],
            write=batch["write_index"],
            read=batch["read_index"],
            counts=lengths(batch["cu_seq_lens_q"]),
            known=lengths(batch["cu_seq_lens_k"][FULL]),
            mask=batch["attention_mask"],
            cos=cos.unsqueeze(1),
            sin=sin.unsqueeze(1),
        )

    def _attend(self, at: int, every: torch.Tensor, places: Places) -> torch.Tensor:
        """Of layer `at`: (n, all heads' dimensions) → (n, the queries' dimensions)."""
        heads = every.view(-1, self._heads + 2 * self._groups, self._head_dim)
        self._turn(heads, places)
        sizes = [self._heads, self._groups, self._groups]
        query, key, value = torch.split(heads, sizes, dim=1)
        allocator = places.cache.layer_to_allocator[at]
        where = places.read[allocator.index], places.write[allocator.index]
        key, value = allocator.update(key, value, at, *where)
        query, key, value = (one.transpose(0, 1).unsqueeze(0) for one in (query, key, value))
        counts, known = places.counts, places.known
        seen = by_request(query, key, value, counts, known, mask=places.mask, scaling=self._scaling)
        return seen.reshape(every.shape[0], -1)

    def _turn(self, heads: torch.Tensor, places: Places) -> None:
        """Query and key in place: (n, heads, head_dim), of which the first dimensions turn."""
        cos, sin = places.cos, places.sin
        part = heads[:, : self._heads + self._groups, : cos.shape[-1]]
        torch.add(part * cos, self._turns.exchange(part).mul_(sin), out=part)


def _product(*linears: nn.Module) -> Product:
    found = product_of(linears)
    if found is None:
        raise NotLean("its layers are not packed together")
    return found
