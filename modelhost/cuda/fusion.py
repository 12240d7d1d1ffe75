"""Fewer and larger kernels for a step on CUDA, where a step of one token is a thousand small ones.

A captured step costs what its kernels cost, and each costs two microseconds however little it
does. Norms become one kernel, and ChatGLM's attention multiplies query, key and value at once and
turns them as complex numbers. Both round less often than the library does: for half precision
only, where results agree no better than that anyway. See docs/decisions/0015.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, GlmForCausalLM
from transformers.models.glm.modeling_glm import GlmAttention

HALF = (torch.float16, torch.bfloat16)
LEAST_AGREEMENT = 2e-2  # of a norm's largest difference, a few roundings of bfloat16


class FusedNorm(nn.Module):
    """Root mean square norm (Zhang and Sennrich, 2019): (…, size) → (…, size)."""

    def __init__(self, weight: torch.Tensor, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.epsilon = epsilon

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """In float32 inside."""
        return nn.functional.rms_norm(
            hidden_states, self.weight.shape, self.weight, eps=self.epsilon
        )


class FusedRotary(nn.Module):
    """Positions as turns: complex64 (batch, tokens, 1, pairs); stands in for GlmRotaryEmbedding.

    Su et al., "RoFormer", 2021, section 3.4, in ChatGLM's form: neighbours are pairs.
    """

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.frequencies = nn.Buffer(plain.inv_freq.float(), persistent=False)

    def forward(self, _: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """The library's own signature; its hidden states only tell a device."""
        angles = position_ids[..., None].float() * self.frequencies
        return torch.polar(torch.ones_like(angles), angles).unsqueeze(2)


class FusedAttention(nn.Module):
    """GlmAttention with one product for query, key and value; to be used with FusedRotary."""

    def __init__(self, plain: GlmAttention) -> None:
        super().__init__()
        self.config, self.layer_idx = plain.config, plain.layer_idx
        self.head_dim, self.scaling, self.is_causal = plain.head_dim, plain.scaling, True
        self.num_key_value_groups = plain.num_key_value_groups
        self.heads = plain.config.num_attention_heads
        self.groups = plain.config.num_key_value_heads
        self.qkv_proj = joined([plain.q_proj, plain.k_proj, plain.v_proj])
        self.o_proj = plain.o_proj

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """(batch, tokens, hidden) → the same; position_embeddings are FusedRotary's."""
        batch, tokens, _ = hidden_states.shape
        every = self.qkv_proj(hidden_states).view(batch, tokens, -1, self.head_dim)
        turn(every[:, :, : self.heads + self.groups], position_embeddings)
        sizes = (self.heads, self.groups, self.groups)
        query, key, value = (part.transpose(1, 2) for part in every.split(sizes, dim=2))
        attend = AttentionInterface()[self.config._attn_implementation]
        result, _ = attend(self, query, key, value, attention_mask, scaling=self.scaling, **kwargs)
        return self.o_proj(result.reshape(batch, tokens, -1)), None


def turn(heads: torch.Tensor, turns: torch.Tensor) -> None:
    """Turn the first dimensions of heads (batch, tokens, heads, dim) in place; others stay."""
    part = heads[..., : 2 * turns.shape[-1]]
    pairs = torch.view_as_complex(part.float().view(*part.shape[:-1], -1, 2))
    part.copy_(torch.view_as_real(pairs * turns).flatten(-2))


def joined(linears: list[nn.Linear]) -> nn.Linear:
    """One linear layer whose outputs are those of several, one behind the other."""
    outputs = sum(one.out_features for one in linears)
    biased = linears[0].bias is not None
    made = nn.Linear(linears[0].in_features, outputs, bias=biased, device="meta")
    made.weight = nn.Parameter(torch.cat([one.weight.detach() for one in linears]), False)
    if biased:
        made.bias = nn.Parameter(torch.cat([one.bias.detach() for one in linears]), False)
    return made


def fuse(model: Any) -> int:
    """Fuse what can be, in place; how many modules became others."""
    if model.dtype not in HALF:
        return 0
    count = 0
    for path, module in list(model.named_modules()):
        if _is_plain_norm(module):
            model.set_submodule(path, FusedNorm(module.weight, module.variance_epsilon))
            count += 1
    if isinstance(model, GlmForCausalLM) and _can_be_joined(model):
        for path, attention in _attentions(model).items():
            model.set_submodule(path, FusedAttention(attention))
            count += 1
        model.model.rotary_emb = FusedRotary(model.model.rotary_emb)
    return count


def _attentions(model: nn.Module) -> dict[str, GlmAttention]:
    return {path: part for path, part in model.named_modules() if isinstance(part, GlmAttention)}


def _can_be_joined(model: GlmForCausalLM) -> bool:
    """Other kinds of positions scale or stretch with the length, which FusedRotary does not."""
    plain = model.model.rotary_emb.rope_type == "default"
    return plain and all(map(_is_unquantized, _attentions(model).values()))


def _is_unquantized(attention: GlmAttention) -> bool:
    return all(
        type(one) is nn.Linear and type(one.weight.data) is torch.Tensor
        for one in (attention.q_proj, attention.k_proj, attention.v_proj)
    )


def _is_plain_norm(module: Any) -> bool:
    """Whether a module is such a norm and no variation of it: by its name and what it answers."""
    if not (type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")):
        return False
    size = module.weight.numel()
    probe = torch.arange(2.0 * size, device=module.weight.device).sin().view(2, size)
    probe = probe.to(module.weight.dtype)
    with torch.no_grad():
        other = FusedNorm(module.weight, module.variance_epsilon)(probe)
        apart = (module(probe).float() - other.float()).abs().max()
    return bool(apart <= LEAST_AGREEMENT * other.float().abs().max())
