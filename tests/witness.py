"""An engine whose answer is known beforehand: a function of the prompt's last words and the seed.

To `alpha 40` with seed 7 it says `alpha:7:0 alpha:7:1 … alpha:7:39`, so that a word which is
missing, doubled or of another response can be seen, whoever produced it and when. It imports
no torch: a process with it starts at once and can be killed as often as a test likes.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelhost.errors import NotReady
from modelhost.ticket import Ticket, ahead
from modelhost.types import FinishReason, Sampling, Tool
from tests.fakes import STOP, PretendEngine, ScriptFormat, new_ticket

ASKED = re.compile(r"(\S+)\s+(\d+)\s*\Z")


def witness_text(name: str, seed: int, words: int) -> str:
    """The whole answer to `<name> <words>`."""
    return " ".join(f"{name}:{seed}:{index}" for index in range(words))


def witness_ids(prompt: str, seed: int) -> list[int]:
    """The ids of the answer to a prompt, the one that ends it among them."""
    asked = ASKED.search(prompt.rpartition("user: ")[2])
    if asked is None:
        raise ValueError(f"A witness answers to a name and a number, not to {prompt!r}.")
    return [*map(ord, witness_text(asked[1], seed, int(asked[2]))), STOP]


@dataclass(eq=False, slots=True)
class Play:
    """A ticket and what it is still to get; `said` counts what it got."""

    ticket: Ticket
    ids: list[int]
    full: bool  # whether the last id ends the answer; otherwise max_tokens does
    said: int = 0


class WitnessEngine(PretendEngine):
    """Plays all tickets on one thread, a token of each at a time.

    every: seconds between two tokens of a ticket. generations: how many were started.
    A token is a character.
    """

    def __init__(
        self, *, every: float = 0.0, context_length: int = 1 << 20, max_requests: int = 1024
    ) -> None:
        super().__init__(
            name="witness-model", context_length=context_length, max_requests=max_requests
        )
        self.every = every
        self.generations = 0
        self._lock = threading.Lock()
        self._plays: dict[str, Play] = {}
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._player = threading.Thread(target=self._run, name="witness-player", daemon=True)
        self._player.start()

    @property
    def active(self) -> int:
        return len(self._plays)

    def room(self, prompt_tokens: int) -> int:
        return max(1, self.card.context_length - prompt_tokens)

    def position(self, ticket: Ticket) -> int:
        with self._lock:
            line = [play.ticket for play in self._plays.values()]
        return ahead(ticket, line)

    def submit(
        self,
        token_ids: Sequence[int],
        choice: Sampling,
        *,
        resume: Sequence[int] = (),
        tools: Sequence[Tool] = (),
        owner: str = "",
    ) -> Ticket:
        self.validate(token_ids, choice)
        answer = witness_ids(ScriptFormat().decode(token_ids), choice.seed)
        if answer[: len(resume)] != list(resume):
            raise ValueError("The ids to continue from are no beginning of the answer.")
        ticket = new_ticket(token_ids, choice, resume=resume, tools=tools, on_cancel=self._forget)
        if ticket.finish is None:
            rest = answer[len(resume) : choice.max_tokens]
            self._take(Play(ticket, rest, full=len(answer) <= choice.max_tokens))
        return ticket

    def stop(self, **options: Any) -> None:
        with self._lock:
            self.alive = False
            plays = list(self._plays.values())
            self._plays.clear()
        self._stopped.set()
        self._wanted.set()
        self._player.join(5)
        for play in plays:
            play.ticket.end(FinishReason.ERROR, error="The server is stopping.")

    def _take(self, play: Play) -> None:
        with self._lock:
            if not self.alive:
                raise NotReady("Stopped.")
            self._plays[play.ticket.request_id] = play
            self.generations += 1
        self._wanted.set()

    def _forget(self, request_id: str) -> None:
        with self._lock:
            self._plays.pop(request_id, None)

    def _snapshot(self) -> list[Play]:
        with self._lock:
            return list(self._plays.values())

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wanted.wait()
            self._wanted.clear()
            while (plays := self._snapshot()) and not self._stopped.wait(self.every):
                for play in plays:
                    self._advance(play)

    def _advance(self, play: Play) -> None:
        play.said += 1
        # Only the newest id: a full list for each would make a long answer quadratic.
        going_on = play.ticket.deliver(play.ids[play.said - 1 : play.said], after=play.said - 1)
        if going_on and play.said < len(play.ids):
            return
        self._forget(play.ticket.request_id)
        over = FinishReason.STOP if play.full or not going_on else FinishReason.LENGTH
        play.ticket.end(over)
