"""The card of a model that is about to be served."""

from __future__ import annotations

from typing import Any

from transformers.generation.continuous_batching.model_runner import (
    infer_max_single_request_tokens,
)

from modelhost.checkpoints.config import context_length
from modelhost.types import ModelCard


def describe(model: Any, manager: Any, *, name: str, revision: str, adapter: str) -> ModelCard:
    """What the model and its warmed-up manager can do together."""
    config = model.config
    cache = infer_max_single_request_tokens(manager.batch_processor.cache)
    return ModelCard(
        name=name,
        revision=revision,
        architecture=type(model).__name__,
        parameters=model.num_parameters(),
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        # One block less than fits: the last step of an answer asks for its next block.
        context_length=min(
            context_length(config), cache - manager.continuous_batching_config.page_size
        ),
        vocabulary=int(config.get_text_config().vocab_size),
        adapter=adapter,
    )
