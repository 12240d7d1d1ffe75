"""Several tokens a step for an answer that repeats what was said before.

A step of one stream on a CPU is as long as reading the weights takes, and a few rows more cost
little. Where an answer's last tokens stand earlier in its conversation, or in what its owner was
answered before, what followed them there is drafted as what comes next (speculative decoding:
Leviathan, Kalman and Matias, 2023; drafts from the text itself: Saxena, "Prompt lookup decoding",
2023). Quotes, code, tables, names and small models' refrains come two to eight tokens a step.

A drafted token is computed in a row of its own, as the request would compute it one step later:
the same products, the same keys, the same noise for the same position. It stands if it is what
the row before it chose, so the answer is the same to the bit, and only its speed is another.
"""

from __future__ import annotations

from typing import Any

from transformers.generation.continuous_batching.requests import (
    FutureRequestState,
    RequestStatus,
)

from modelhost.lookup import KNOWN, Lookup, Memory
from modelhost.sharing import owner_of

ROWS = 8  # of a step with drafts: with more streams a row costs as much as it can bring
LONGEST = 8  # tokens that are compared, before two places


class Draft:
    """Stands in for a request's state in the row of one drafted token.

    The library prepares and updates it like a request that decodes; what is not here is the
    request's own. Its token stands if, when its turn comes, the request has come to its position
    and has chosen that token.
    """

    is_cpu_offloaded = False

    def __init__(self, state: Any, token: int, position: int) -> None:
        self._state = state
        self._token = token
        self._position = position
        self.complete_blocks: dict[str, int] = {}  # of the cache, if the token stands
        self.accepted = False
        # What the library sets in every state:
        self.status = RequestStatus.DECODING
        self.position_offset = position
        self.tokens_to_process = [token]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    @property
    def streaming(self) -> bool:
        """Whether there is anything to tell."""
        return self.accepted

    def current_len(self) -> int:
        """Tokens in the cache before this one."""
        return self.position_offset

    def update_and_check_completion(self, token_id: int, logprob: float | None) -> bool:
        """Take the token that was chosen behind this one, if this one stands; whether it ends."""
        state = self._state
        self.accepted = (
            state.status == RequestStatus.DECODING
            and state.position_offset == self._position
            and state.generated_tokens[-1] == self._token
        )
        if not self.accepted:
            self.complete_blocks.clear()
            return False
        state.position_offset += 1
        return bool(state.update_and_check_completion(token_id, logprob))


class Speculator:
    """Adds drafts to the batches of one scheduler.

    reads: tokens of the cache that the drafts of one step may read.
    drafted, accepted: tokens, over all requests.
    """

    def __init__(self, cache: Any, *, reads: int) -> None:
        self._cache = cache
        self._reads = reads
        self._texts: dict[str, tuple[Any, Lookup]] = {}  # by request, with its state
        self._memory = Memory()
        self._last: list[Draft] = []
        self.drafted = 0
        self.accepted = 0

    def extend(self, batch: list[FutureRequestState], *, reads: int) -> list[FutureRequestState]:
        """The rows for drafts of this batch. reads: tokens of the cache that it reads itself."""
        self.accepted += sum(draft.accepted for draft in self._last)
        self._last = []
        share = ROWS // len(batch) - 1
        if share < 1 or not all(row.query_length == 1 and row.has_new_token for row in batch):
            return []  # a prompt is being read
        self._meet([row.state for row in batch])
        left = min(self._reads, self._cache.max_tokens_read - reads)
        for row in batch:
            most = min(share, left // (row.state.position_offset + ROWS))
            # Every stream pays for a row, and only one of them gains by it.
            made = self._drafts(row.state, most, shortest=min(len(batch), KNOWN))
            left -= sum(draft.current_len() for draft in made)
            self._last += made
        self.drafted += len(self._last)
        return [FutureRequestState(one, True, one.complete_blocks, 1) for one in self._last]

    def _meet(self, states: list[Any]) -> None:
        """Know the texts of these requests, and remember the answers of those that are over."""
        known, self._texts = self._texts, {}
        for state in states:
            lookup = known.pop(state.request_id, (state, None))[1] or Lookup()
            tokens = state.initial_tokens + state.generated_tokens
            lookup.extend(tokens[len(lookup.tokens) :])
            self._texts[state.request_id] = state, lookup
        for state, _ in known.values():
            self._memory.add(owner_of(state), state.generated_tokens)

    def _drafts(self, state: Any, most: int, *, shortest: int) -> list[Draft]:
        guess = self._guess(state, most, shortest)
        if not guess or not self._cache.can_store_request_tokens(state, 1 + len(guess)):
            return []
        first = state.position_offset + 1
        drafts = [Draft(state, token, first + at) for at, token in enumerate(guess)]
        for draft in drafts:
            draft.complete_blocks = self._cache.count_new_complete_blocks(draft, 1)
        return drafts

    def _guess(self, state: Any, most: int, shortest: int) -> list[int]:
        """As many tokens as the last ones agree with a place in: the surer, the more."""
        own = self._texts[state.request_id][1]
        last = own.tokens[-LONGEST:]
        places = [(text, *text.find(last)) for text in (own, self._memory.of(owner_of(state)))]
        text, place, agreed = max(places, key=lambda found: found[2])  # the own one, of equals
        # Each row brings one token at most, the request's own first.
        room = state._new_tokens_limit - state.generated_len() - 1
        return text.follow(place, min(most, agreed, room)) if agreed >= shortest else []
