"""What a model can be asked for: everything that would end the engine's thread is refused here."""

from __future__ import annotations

from collections.abc import Sequence

from modelhost import limits
from modelhost.errors import BadSampling, PromptTooLong
from modelhost.types import ModelCard, Sampling


def check(card: ModelCard, token_ids: Sequence[int], choice: Sampling) -> None:
    """Raises BadSampling, PromptTooLong."""
    context = card.context_length
    limits.validate(choice, vocabulary=card.vocabulary)
    if choice.max_tokens >= context:
        raise BadSampling("max_tokens", f"max_tokens must be from 1 to {context - 1}.")
    if not token_ids:
        raise PromptTooLong("The prompt has no tokens.")
    check_ids(card, "token_ids", token_ids)
    if len(token_ids) + choice.max_tokens > context:
        raise PromptTooLong(
            f"The prompt has {len(token_ids)} tokens and max_tokens is {choice.max_tokens}; "
            f"together they may be at most {context}."
        )


def check_ids(card: ModelCard, field: str, token_ids: Sequence[int]) -> None:
    """Raises BadSampling."""
    vocabulary = card.vocabulary
    if not all(isinstance(one, int) and 0 <= one < vocabulary for one in token_ids):
        raise BadSampling(field, f"{field} must be whole numbers from 0 to {vocabulary - 1}.")
