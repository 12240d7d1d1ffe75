"""One generation as its consumer sees it: pieces to await, a finish, a cancel."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from modelhost.text import ResponseDecoder
from modelhost.types import Finish, FinishReason, Piece, Usage
from modelhost.wakeups import Wakeups, wakeups

logger = logging.getLogger(__name__)


class Ticket:
    """`async for piece in ticket` until it ends; then `ticket.finish` says how.

    Fed from the engine's dispatcher thread, awaited on any one event loop,
    cancelled from anywhere. Pieces that came before the consumer are kept for it.

    resumed_text: what the resumed ids had let out; the pieces go on behind it.
    """

    def __init__(
        self,
        request_id: str,
        *,
        prompt_tokens: int,
        decoder: ResponseDecoder,
        stop_ids: frozenset[int],
        resumed: Sequence[int],
        on_cancel: Callable[[str], None],
    ) -> None:
        self.request_id = request_id
        self.finish: Finish | None = None
        self._decoder = decoder
        self._stop_ids = stop_ids
        self._prompt_tokens = prompt_tokens
        self._resumed = len(resumed)
        self._delivered: list[int] = []  # ids already turned into pieces
        self._on_cancel = on_cancel
        self._lock = threading.Lock()
        self._pieces: deque[Piece] = deque()
        self._ended = threading.Event()
        self._waiter: tuple[Wakeups, asyncio.Event] | None = None
        # One by one, as they once came: where a tokenizer's text depends on how its ids are
        # cut, this is the text that the reader saw.
        self.resumed_text = "".join(decoder.feed([one]) for one in self._shown(resumed))

    @property
    def waiting(self) -> bool:
        """Whether its first token is still to come."""
        return self.finish is None and not self._delivered

    @property
    def delivered(self) -> list[int]:
        """A copy of the ids that came so far, the resumed ones not among them."""
        with self._lock:
            return list(self._delivered)

    # The consumer's side.

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Piece]:
        wake = asyncio.Event()
        with self._lock:
            self._waiter = (wakeups(), wake)
        while True:
            wake.clear()  # before looking, so that nothing put after the look is missed
            with self._lock:
                piece = self._pieces.popleft() if self._pieces else None
                ended = self.finish is not None
            if piece is not None:
                yield piece
            elif ended:
                return
            else:
                await wake.wait()

    def cancel(self) -> None:
        """End the generation; idempotent, from any thread. The text so far stays."""
        if self.end(FinishReason.CANCELLED):
            self._on_cancel(self.request_id)

    def wait(self, timeout: float) -> bool:
        """Block a thread until the end, at most `timeout` seconds; returns whether it came."""
        return self._ended.wait(timeout)

    # The engine's side.

    def deliver(self, generated: Sequence[int], *, after: int = 0) -> bool:
        """Take the full list of ids so far, as the engine sends it; returns whether to go on.

        after: ids delivered before the run that the list belongs to.
        """
        with self._lock:
            fresh = generated[len(self._delivered) - after :]
            if not fresh or self.finish is not None:
                return self.finish is None
            self._pieces.append(self._piece(fresh))
            going_on = not self._decoder.stopped
        self._wake()
        return going_on

    def _piece(self, fresh: Sequence[int]) -> Piece:
        """One piece of these ids, up to the one that ends the answer: a step may bring several.

        They are decoded one by one, as a continued answer's are: text and usage do not depend
        on how many came together.
        """
        text, begin = "", len(self._delivered)
        for one in fresh:
            self._delivered.append(one)
            text += self._decoder.feed(self._shown([one]))
            if self._decoder.stopped:
                break
        return Piece(text, tuple(self._delivered[begin:]))

    def end(self, reason: FinishReason, *, error: str = "") -> bool:
        """Settle the finish, once; returns whether this call did."""
        with self._lock:
            if self.finish is not None:
                return False
            try:
                rest = self._decoder.flush()
            except Exception as failure:  # no text may keep a generation from its end
                logger.exception("the rest of generation %s cannot be read", self.request_id)
                rest, reason = "", FinishReason.ERROR
                error = error or f"{type(failure).__name__} in the decoder."
            if rest:
                self._pieces.append(Piece(rest, ()))
            calls = self._decoder.tool_calls
            if calls and reason is FinishReason.STOP:
                reason = FinishReason.TOOL_CALLS
            usage = Usage(self._prompt_tokens, self._resumed + len(self._delivered))
            self.finish = Finish(reason, usage, error, calls)
        self._ended.set()
        self._wake()
        return True

    def _shown(self, token_ids: Sequence[int]) -> Sequence[int]:
        """The ids without the one that ends the answer, which need not be a special token."""
        return token_ids[:-1] if token_ids and token_ids[-1] in self._stop_ids else token_ids

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            loop, event = waiter
            loop.call(event.set)


def ahead(ticket: Ticket, line: Iterable[Ticket]) -> int:
    """How many of those in a line, oldest first, came before a waiting ticket and wait as well."""
    if not ticket.waiting:
        return 0
    before = 0
    for other in line:
        if other is ticket:
            return before
        before += other.waiting
    return 0
