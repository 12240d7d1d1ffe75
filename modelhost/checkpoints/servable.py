"""Which of transformers' models can be served in batches, found out before weights are read.

The engine gives a request's keys and values places in one paged cache, and needs attention that
goes through the library's interface. A model that keeps something else from token to token, or
computes its attention with code of its own, cannot be served so; docs/models.md lists them.
"""

from __future__ import annotations

import inspect
from copy import deepcopy
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.generation.continuous_batching.cache import ATTN_TYPE_TO_ALLOCATOR
from transformers.generation.continuous_batching.utils import find_head_dim
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.quantizers.auto import get_hf_quantizer

from modelhost.errors import LoadFailed, first_line

SEE = "docs/models.md lists what can be"


def check(folder: Path, config: Any) -> None:
    """Raises LoadFailed for a model that the engine cannot serve."""
    if reason := _reason(config):
        raise LoadFailed(f"The model in {folder} cannot be served: {reason}; {SEE}.")
    try:  # whether all is here that reads weights which were stored quantized
        get_hf_quantizer(deepcopy(config), None, None, weights_only=True, user_agent={})
    except Exception as error:  # each kind's own
        raise LoadFailed(f"The model in {folder} cannot be loaded: {first_line(error)}.") from error


def _reason(config: Any) -> str:
    kind = network(config)
    if kind is None:
        return f"transformers has no causal language model for a {type(config).__name__}"
    if not (kind._supports_sdpa or kind._supports_attention_backend):
        return f"{kind.__name__} computes its attention, or what it has instead, in its own way"
    plain = config.get_text_config()
    if hasattr(plain, "add_cross_attention") and getattr(plain, "is_decoder", None) is False:
        return f"{kind.__name__} sees what follows: its config.json says that it is no decoder"
    if "position_ids" not in inspect.signature(kind.forward).parameters:
        return f"{kind.__name__} counts positions itself, as if there were one request"
    if others := sorted(_layer_types(plain) - set(ATTN_TYPE_TO_ALLOCATOR)):
        return f"{kind.__name__} has layers of the kind {others[0]}, for which there is no cache"
    if not _is_one_size(plain):
        return f"{kind.__name__} has keys and values of several sizes, for which there is no cache"
    return ""


def network(config: Any) -> type[PreTrainedModel] | None:
    """The class that reads such a checkpoint."""
    try:
        found: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except KeyError:
        return None
    return found[0] if isinstance(found, tuple) else found


def attention(config: Any) -> str:
    """The attention that a model is loaded with: `sdpa`, or where it has none the plain one."""
    kind = network(config)
    return "sdpa" if kind is None or kind._supports_sdpa else "eager"


def _layer_types(config: Any) -> set[str]:
    return set(getattr(config, "layer_types", None) or ())


def _is_one_size(config: Any) -> bool:
    """Whether every layer's keys and values are as long as the cache makes all of them.

    Where keys and values are compressed (DeepSeek), a key has a part with positions and one
    without, and a value a third length.
    """
    try:
        size = find_head_dim(config)
        value = getattr(config, "v_head_dim", None) or size
        parts = [getattr(config, f"qk_{name}_head_dim", None) or 0 for name in ("nope", "rope")]
    except (AttributeError, RuntimeError, ValueError):  # the library's, where layers differ
        return False
    return value == size and sum(parts) in (0, size)
