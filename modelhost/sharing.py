"""Cache blocks shared within one owner, and never between two.

The manager's cache finds a block that was computed before by a hash over its tokens and its
parent's hash, so the second turn of a conversation does not compute the first one again. The
hash knows no owners: one caller could time whether another sent the same prompt. Here the
tokens that the first block's hash is made of are mixed with words that only the owner has,
and every later block's hash contains that one.
"""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

WORDS = 8  # salted tokens; pages are larger
WORD = (1 << 31) - 1  # a token is hashed as a signed 32-bit number

KEYWORD = "owner"  # under which a request brings it to the manager


@dataclass(frozen=True, slots=True)
class _Salted:
    """What the cache reads of a request's state when it names the request's blocks."""

    request_id: str
    status: Any
    initial_tokens: list[int]
    generated_tokens: list[int]


class OwnedBlocks:
    """Stands between a scheduler and its cache.

    states: the requests that the scheduler knows, by id.
    reused: tokens that did not have to be computed, over all requests.
    """

    def __init__(self, cache: Any, states: Callable[[str], Any]) -> None:
        self._states = states
        self._secret = secrets.token_bytes(32)  # a new process, whose cache is empty, has another
        self._search, self._mark = cache.search_prefix_match, cache.mark_complete_blocks
        self.reused = 0
        cache.search_prefix_match = self.search
        cache.mark_complete_blocks = self.mark

    def search(self, request_id: str, prompt_ids: list[int]) -> int:
        """How many tokens of the prompt are in the owner's blocks; they are the request's now."""
        owner = owner_of(self._states(request_id))
        found: int = self._search(request_id, self._salted(owner, prompt_ids)) if owner else 0
        self.reused += found
        return found

    def mark(self, state: Any, complete_blocks: Mapping[str, int]) -> None:
        """Make the blocks that a step completed known, to their owner."""
        owner = owner_of(state)
        if complete_blocks and owner:
            tokens = self._salted(owner, state.initial_tokens + state.generated_tokens)
            self._mark(_Salted(state.request_id, state.status, tokens, []), complete_blocks)

    def _salted(self, owner: str, tokens: Sequence[int]) -> list[int]:
        digest = blake2b(owner.encode(), key=self._secret, digest_size=4 * WORDS).digest()
        words = array("I", digest)
        head = [token ^ (word & WORD) for token, word in zip(tokens, words, strict=False)]
        return [*head, *tokens[len(head) :]]


def owner_of(state: Any) -> str:
    """Whose request it is; one without an owner uses nobody's blocks and leaves none to others."""
    owner: str = state.logit_processor_kwargs.get(KEYWORD, "")
    return owner
