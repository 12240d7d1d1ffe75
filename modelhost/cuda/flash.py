"""Flash attention over the paged cache on CUDA, with the kernel that PyTorch itself brings.

The batching manager knows two forms of attention there: packages that are built apart
(`flash_attn`), and `sdpa`, which builds a mask of all queries against everybody's keys and
cannot be captured in a CUDA graph. This is a third one: no mask, no package, every request
meets its own keys only. See docs/decisions/0015.

Kernel: Dao, "FlashAttention-2", 2023, as `torch.nn.attention.varlen`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import flash_attention_mask

# The library looks for the word "flash": it then builds no mask and may capture graphs. A digit
# behind it would name one of the packages.
NAME = "torch_flash"
OLDEST_CARD = (8, 0)  # compute capability
LARGEST_HEAD = 256


def fits(model: Any) -> bool:
    """Whether the kernel can serve this model where it is."""
    if model.device.type != "cuda" or model.dtype not in (torch.float16, torch.bfloat16):
        return False
    config = model.config.get_text_config()
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    special = getattr(config, "attn_logit_softcapping", None) is not None or any(
        name.endswith("sinks") for name, _ in model.named_parameters()
    )
    return (
        bool(model._supports_flash_attn)
        and not special
        and dim <= LARGEST_HEAD
        and dim % 8 == 0
        and torch.cuda.get_device_capability(model.device) >= OLDEST_CARD
    )


def use(model: Any) -> None:
    """Have a model compute its attention here."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, flash_attention_mask)
    model.config._attn_implementation = NAME


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cache: Any = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """query [1, heads, tokens of all requests, dim]; key and value likewise with their own heads,
    new tokens only. Result [1, tokens, heads, dim].

    Rows that only fill a CUDA graph up belong to no request; what they hold is never read.
    """
    if cache is None:  # outside the batching manager
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
    # Puts the new keys and values into the cache, gives all of them back, and leaves this
    # layer's own lengths in kwargs.
    key, value = cache.update(
        key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs
    )
    keys, values = key[0].transpose(0, 1), value[0].transpose(0, 1)
    ends_q, ends_k = kwargs["cu_seq_lens_q"], kwargs["cu_seq_lens_k"]
    longest_q, longest_k = kwargs["max_length_q"], kwargs["max_length_k"]
    window = -1 if sliding_window is None else sliding_window - 1
    _, heads, tokens, dim = query.shape
    if longest_q > 1 or window >= 0:
        rows, right = query[0].transpose(0, 1), 0
    else:
        # One token each, which sees everything: the heads that share keys become its rows, so
        # that the kernel reads the keys once for all of them.
        groups = keys.shape[1]
        longest_q, right = heads // groups, -1
        rows = query[0].transpose(0, 1).reshape(tokens, groups, longest_q, dim)
        rows = rows.transpose(1, 2).reshape(tokens * longest_q, groups, dim)
        ends_q = ends_q * longest_q
    result: Any = varlen_attn(
        rows, keys, values, ends_q, ends_k, longest_q, longest_k,
        scale=scaling, window_size=(window, right), enable_gqa=True,
    )  # fmt: skip
    if right < 0:
        result = result.view(tokens, longest_q, -1, dim).transpose(1, 2)
    return result.reshape(1, tokens, heads, dim), None
