"""What a model can be asked for: whatever would end the engine's thread is refused here.

Apart from `sampling`, so that asking costs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelhost.errors import BadSampling, PromptTooLong
from modelhost.types import ModelCard, Sampling

MAX_STOPS = 16
MAX_STOP_LENGTH = 256


def check(card: ModelCard, token_ids: Sequence[int], choice: Sampling) -> None:
    """Everything at once. Raises BadSampling, PromptTooLong."""
    context = card.context_length
    check_sampling(choice, vocabulary=card.vocabulary)
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


def check_sampling(sampling: Sampling, *, vocabulary: int) -> None:
    """Refuse what would end the engine's thread or mean nothing. Raises BadSampling.

    Types are checked too: a float for a seed is found by no type checker when it comes
    from outside, and would only raise in the engine's thread, for everybody.
    """
    for field, right, message in _rules(sampling, vocabulary):
        if not right:
            raise BadSampling(field, message)


def _rules(sampling: Sampling, vocabulary: int) -> Iterator[tuple[str, bool, str]]:
    """Each rule as field, whether it is kept, and the sentence when it is not."""
    count = _whole(sampling.max_tokens) and sampling.max_tokens >= 1
    yield "max_tokens", count, "max_tokens must be a whole number, at least 1."
    heat = _number(sampling.temperature) and 0 <= sampling.temperature <= 2
    yield "temperature", heat, "temperature must be a number from 0 to 2."
    share = _number(sampling.top_p) and 0 < sampling.top_p <= 1
    yield "top_p", share, "top_p must be a number above 0 and not above 1."
    best = _whole(sampling.top_k) and 0 <= sampling.top_k <= vocabulary
    yield "top_k", best, f"top_k must be from 0 to {vocabulary}, the vocabulary's size."
    seed = _whole(sampling.seed) and -(1 << 63) <= sampling.seed < (1 << 63)
    yield "seed", seed, "seed must be a 64-bit integer."
    listed = isinstance(sampling.stop, tuple | list)
    texts = listed and all(isinstance(stop, str) for stop in sampling.stop)
    yield "stop", texts, "stop must be texts."
    yield "stop", len(sampling.stop) <= MAX_STOPS, f"stop may hold at most {MAX_STOPS} texts."
    sized = all(0 < len(stop) <= MAX_STOP_LENGTH for stop in sampling.stop)
    yield "stop", sized, f"each stop text needs 1 to {MAX_STOP_LENGTH} characters."


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    """Any int or float; the comparisons that follow are false for NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool)
