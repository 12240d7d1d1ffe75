"""The manager's scheduler, cured of a hang and of overtaking, over a cache that knows owners.

When the cache is full, the manager puts some requests back and takes no others in
until one finishes. It never counts a cancelled one as finished: if all that still run
are cancelled (a stop text is a cancel, too), nothing is ever taken in again.

A request that finds no room waits while later and smaller ones are let past it, and with
enough of those it waits for ever. Here nobody overtakes who waits for room, and one that
was put back, whose reader has begun to read, is the next to be taken in.

A prompt of many steps used to fill each of them, and short ones behind it waited for its end. Here
it leaves them up to half of each step, and several long prompts are computed one after the other;
docs/decisions/0028.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from transformers.generation.continuous_batching.requests import RequestStatus
from transformers.generation.continuous_batching.scheduler import (
    SCHEDULER_MAPPING,
    FIFOScheduler,
)

from modelhost.sharing import OwnedBlocks
from modelhost.speculation import Speculator

NAME = "modelhost"
LEAST = 32  # tokens of a prompt in a step: less is not worth an attention of its own
# Tokens of a long prompt that waits for another one's end: they hold its place in the cache, where
# it would be overtaken otherwise. Two, since one alone is computed by another kernel than prompts.
FOOTHOLD = 2


class Scheduler(FIFOScheduler):
    """First in, first out; a cancelled request makes room like a finished one."""

    def __init__(self, cache: Any, *args: Any, **options: Any) -> None:
        super().__init__(cache, *args, **options)
        self.blocks = OwnedBlocks(cache, self._state)
        self.speculator: Speculator | None = None  # where drafts are worth their rows
        self._token_budget = 0  # of the step that is being scheduled
        self._behind = 0  # tokens that are meant for candidates behind the current one
        self._has_cut = False  # a prompt that is too long for this step
        self._has_room = True  # for more than one prompt

    def _state(self, request_id: str) -> Any:
        return self.waiting_requests.get(request_id) or self.active_requests[request_id]

    def add_waiting_request(self, state: Any) -> None:
        """At the end of the queue; before all that never ran, if it was put back."""
        super().add_waiting_request(state)
        if _was_put_back(state):
            order = self.waiting_requests_order
            order.pop()
            order.insert(
                sum(map(_was_put_back, self.waiting_requests.values())) - 1, state.request_id
            )

    def clear_cancelled_requests(self) -> list[Any]:
        """The states of the requests that were cancelled since the last step.

        On a card a step of theirs may be under way, whose blocks are gone now: the library passes
        over a finished request when that step is over, and would die of one that is not.
        """
        cancelled: list[Any] = super().clear_cancelled_requests()
        for state in cancelled:
            state.status = RequestStatus.FINISHED
        if cancelled:
            self.block_new_requests = False
        return cancelled

    def schedule_batch(self, token_budget: int, cache_budget: int) -> Any:
        """The next batch, and drafts for it; see FIFOScheduler."""
        self._token_budget = token_budget
        batch, fast_path, tokens, reads = super().schedule_batch(token_budget, cache_budget)
        if batch and self.speculator:
            drafts = self.speculator.extend(batch, reads=reads)
            batch += drafts
            tokens += len(drafts)
            reads += sum(draft.state.current_len() for draft in drafts)
        return batch, fast_path, tokens, reads

    def _process_candidates(self, candidates: Sequence[Any], *args: Any, **options: Any) -> Any:
        self._has_cut = False
        self._behind = sum(map(self._wanted, candidates))
        return super()._process_candidates(self._in_turn(candidates), *args, **options)

    def _in_turn(self, candidates: Iterable[Any]) -> Iterator[Any]:
        """Up to the first that waits and got no room. Each is scheduled before the next comes."""
        for state in candidates:
            self._behind -= self._wanted(state)
            yield state
            if state.request_id in self.waiting_requests:
                return

    def _try_to_meet_safety_margin(self) -> bool:
        self._has_room = super()._try_to_meet_safety_margin()
        return self._has_room

    def _schedule_request(
        self, state: Any, request_tokens: list[int], token_budget: int, *rest: Any
    ) -> None:
        share = self._share(len(request_tokens), token_budget)
        super()._schedule_request(state, request_tokens, share, *rest)

    def _wanted(self, state: Any) -> int:
        """Tokens that a prompt shall get in this step, even if a long one is ahead of it."""
        tokens = len(state.remaining_prefill_tokens)
        return tokens if self._is_short(tokens) else FOOTHOLD

    def _is_short(self, tokens: int) -> bool:
        return tokens <= self._token_budget // 2

    def _share(self, tokens: int, budget: int) -> int:
        """How much of what is left of a step a request may use.

        The first long one that needs another step anyway leaves up to half to those behind it.
        Other long ones wait for its end with a foothold, or with what nobody else needs.
        """
        if tokens <= budget or self._is_short(tokens) or not self._has_room:
            return budget
        first, self._has_cut = not self._has_cut, True
        if first and budget < 2 * LEAST:
            return budget
        return max(budget - self._behind, budget // 2 if first else min(budget, FOOTHOLD))

    def _infer_request_tokens(self, state: Any, removed: set[str]) -> list[int]:
        """What a request has to compute, less what its owner's blocks already hold.

        A match makes a request active before anyone looks whether there is room for the rest
        of it. It would then be put back, and nobody taken in until another finishes.
        """
        tokens: list[int] = state.remaining_prefill_tokens
        if state.status == RequestStatus.PENDING and not self._fits(state, len(tokens)):
            return tokens
        matched: list[int] = super()._infer_request_tokens(state, removed)
        return matched

    def _fits(self, state: Any, tokens: int) -> bool:
        count = min(tokens, self._token_budget)
        return bool(self.cache.can_store_request_tokens(state, count, dry_run=True))


def _was_put_back(state: Any) -> bool:
    return bool(state.is_cpu_offloaded or state._true_initial_tokens)


SCHEDULER_MAPPING[NAME] = Scheduler  # the manager finds its scheduler by name
