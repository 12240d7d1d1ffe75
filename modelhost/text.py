"""From token ids to text that may be shown: one incremental decoder per response.

What a decoder lets out is both what is streamed and what is stored. It holds
back the bytes of an unfinished character and the beginning of what may become
a stop text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from modelhost.types import ToolCall

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

MOST_WAITING = 64  # ids behind the last clean boundary; an unfinished character needs a few
ENDS = 8  # of these ids, at either end, where they are more: they say what becomes of the next

Decode = Callable[[Sequence[int]], str]


class IncrementalDetokenizer:
    """Text of a growing id sequence, in linear time.

    Decodes a short window that begins at an earlier clean boundary, because many
    tokenizers treat the first token of a text specially (a leading space that is
    dropped). A trailing run of U+FFFD is an unfinished character and waits. Where no boundary
    comes, as in a run of broken bytes or of control tokens, the window's middle is left out.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._context = 0  # ids at the window's start whose text is out already
        self._emitted = 0  # characters of the window's text that are out

    def feed(self, token_ids: Sequence[int]) -> str:
        """The text that these ids make certain."""
        self._window.extend(token_ids)
        text = self._decode(self._window)
        settled = text.rstrip(REPLACEMENT)
        delta = settled[self._emitted :]
        self._emitted = max(self._emitted, len(settled))
        if settled == text and delta:
            self._slide()
        elif len(self._window) - self._context > MOST_WAITING:
            delta += self._shorten(waiting=len(text) - self._emitted)
        return delta

    def _slide(self) -> None:
        self._window = self._window[self._context :]
        self._context = len(self._window)
        self._emitted = len(self._decode(self._window))

    def _shorten(self, *, waiting: int) -> str:
        """Leave out the window's middle; returns what of the text that waits is in it no more.

        waiting: characters, all U+FFFD; only the last of them can still become another one.
        """
        self._window = self._window[: self._context + ENDS] + self._window[-ENDS:]
        text = self._decode(self._window)
        kept = min(waiting, len(text) - len(text.rstrip(REPLACEMENT)))
        self._emitted = len(text) - kept
        return REPLACEMENT * (waiting - kept)


class StopMatcher:
    """Lets text through until the first stop text; a possible beginning of one waits.

    First is the one that is complete first, and of several that end together the one
    that began first. So the cut does not depend on how the text came in pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.matched = False

    def feed(self, text: str) -> str:
        """The part of the text so far that no stop text can still swallow."""
        if self.matched:
            return ""
        self._held += text
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.matched = True
            return self._take(min(found)[1])
        return self._take(len(self._held) - self._pending())

    def flush(self) -> str:
        """The answer is over: what was held is plain text after all."""
        return self._take(len(self._held))

    def _take(self, count: int) -> str:
        out, self._held = self._held[:count], self._held[count:]
        return out

    def _pending(self) -> int:
        """Length of the longest suffix of the held text that is a prefix of a stop text."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0


class AnswerFilter(Protocol):
    """Parts an answer into what is shown and what is data; see modelhost.toolcalls."""

    def feed(self, text: str) -> str:
        """The visible part of what came."""

    def finish(self) -> tuple[str, tuple[ToolCall, ...]]:
        """Text that was held back after all, and the calls, once the answer is over."""


class ResponseDecoder:
    """The text of one response: characters whole, stop texts and stop tokens unseen.

    A NUL is dropped: PostgreSQL cannot store it, and nobody can read it. The
    bytes of a character that never finished are dropped at the end.
    """

    def __init__(
        self, decode: Decode, *, stops: Sequence[str] = (), answer: AnswerFilter | None = None
    ) -> None:
        self._detokenizer = IncrementalDetokenizer(decode)
        self._answer = answer
        self.tool_calls: tuple[ToolCall, ...] = ()
        self._matcher = StopMatcher(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop text came: nothing follows, the generation can end."""
        return self._matcher.matched

    def feed(self, token_ids: Sequence[int]) -> str:
        """The text that these ids let out."""
        text = self._detokenizer.feed(token_ids).replace("\0", "")
        if self._answer:
            text = self._answer.feed(text)
        return self._matcher.feed(text) if text else ""

    def flush(self) -> str:
        """The rest, when the answer is over; from now on `tool_calls` is known."""
        rest = ""
        if self._answer:
            rest, self.tool_calls = self._answer.finish()
        return self._matcher.feed(rest) + ("" if self.stopped else self._matcher.flush())
