"""A scripted engine: the web side's view of a model, without one.

Its vocabulary is Unicode: a token id is a code point, so every text renders and
decodes to itself and tests can write ids as text.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from modelhost import prompts, validation
from modelhost.errors import Busy, NotReady, PromptTooLong
from modelhost.text import ResponseDecoder
from modelhost.ticket import Ticket, ahead
from modelhost.toolcalls import ChatGLMAnswer
from modelhost.types import FinishReason, ModelCard, Rendered, Sampling, Tool, Turn

STOP = 0x110000  # one past the last code point: no text can hold it


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Turnstile:
    """A gate that lets single pieces through: `admit(2)`, and two pass."""

    def __init__(self) -> None:
        self._permits = threading.Semaphore(0)
        self._open = False

    def admit(self, count: int = 1) -> None:
        self._permits.release(count)

    def set(self) -> None:
        """Open it for good."""
        self._open = True
        self._permits.release(1)

    def wait(self) -> None:
        if not self._open:
            self._permits.acquire()
            if self._open:
                self._permits.release(1)  # whoever waits behind us may pass as well


class ScriptFormat:
    """Turns as text, one token a character."""

    stop_ids = frozenset({STOP})

    def encode(self, turns: Sequence[Turn], tools: Sequence[Tool] = ()) -> list[int]:
        said = [f"{turn.role}: {turn.content}{_calls(turn)}\n" for turn in turns]
        return [ord(char) for line in said for char in line]

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(chr(token_id) for token_id in token_ids if token_id != STOP)

    def answer(self, tools: Sequence[Tool] = ()) -> ChatGLMAnswer | None:
        return ChatGLMAnswer([tool["name"] for tool in tools]) if tools else None


class PretendEngine:
    """What engines without a model share: a card, prompts as text, admission, tickets."""

    lost = False
    restarts = 0

    def __init__(self, *, name: str, context_length: int, max_requests: int) -> None:
        self.alive = True
        self.max_requests = max_requests
        self.card = ModelCard(
            name=name,
            revision="r1",
            architecture="Scripted",
            parameters=0,
            dtype="float32",
            device="cpu",
            context_length=context_length,
            vocabulary=STOP + 1,
        )
        self.tools: Sequence[Tool] = ()

    @property
    def active(self) -> int:
        raise NotImplementedError

    def when_lost(self, call: Callable[[], None]) -> None:
        """It never is."""

    def render(
        self,
        turns: Sequence[Turn],
        *,
        max_tokens: int | None = None,
        tools: Sequence[Tool] = (),
    ) -> Rendered:
        self.tools = tools
        return prompts.render(
            ScriptFormat(),
            turns,
            context=self.card.context_length,
            max_tokens=max_tokens,
            tools=tools,
        )

    def room(self, prompt_tokens: int) -> int:
        return max(1, min(512, self.card.context_length - prompt_tokens))

    def decode(self, token_ids: Sequence[int]) -> str:
        return ScriptFormat().decode(token_ids)

    def validate(self, token_ids: Sequence[int], choice: Sampling) -> None:
        validation.check_sampling(choice, vocabulary=self.card.vocabulary)
        if len(token_ids) + choice.max_tokens > self.card.context_length:
            raise PromptTooLong("The prompt does not fit.")
        if self.active >= self.max_requests:
            raise Busy("Full.")
        if not self.alive:
            raise NotReady("Stopped.")


def new_ticket(
    token_ids: Sequence[int],
    choice: Sampling,
    *,
    resume: Sequence[int] = (),
    tools: Sequence[Tool] = (),
    on_cancel: Callable[[str], None] = lambda request_id: None,
) -> Ticket:
    """A ticket as the real engine makes it: one whose answer was over already has its end."""
    decoder = ResponseDecoder(
        ScriptFormat().decode, stops=choice.stop, answer=ScriptFormat().answer(tools)
    )
    ticket = Ticket(
        uuid.uuid4().hex,
        prompt_tokens=len(token_ids),
        decoder=decoder,
        stop_ids=ScriptFormat.stop_ids,
        resumed=resume,
        on_cancel=on_cancel,
    )
    if decoder.stopped or list(resume[-1:]) == [STOP]:
        ticket.end(FinishReason.STOP)
    elif len(resume) >= choice.max_tokens:
        ticket.end(FinishReason.LENGTH)
    return ticket


class ScriptedEngine(PretendEngine):
    """Answers every prompt with `pieces`, each let out when `gate` allows.

    Continued from ids, it goes on behind as many of the script's, in the middle of a piece
    where they end there.

    gate: set it to let pieces flow; with a closed gate nothing comes, not even the end.
    A Turnstile lets them through one by one.
    fail_at: index of the piece instead of which the engine dies.
    """

    def __init__(
        self,
        *pieces: str,
        gate: threading.Event | Turnstile | None = None,
        fail_at: int | None = None,
        context_length: int = 4096,
        max_requests: int = 256,
    ) -> None:
        super().__init__(
            name="scripted-model", context_length=context_length, max_requests=max_requests
        )
        self.pieces = pieces or ("Hello", ", ", "world")
        self.gate = gate or _open_gate()
        self.fail_at = fail_at
        self.prompts: list[list[int]] = []
        self.samplings: list[Sampling] = []
        self.resumes: list[list[int]] = []
        self.owners: list[str] = []
        self.tickets: list[Ticket] = []

    @property
    def active(self) -> int:
        return sum(ticket.finish is None for ticket in self.tickets)

    def position(self, ticket: Ticket) -> int:
        return ahead(ticket, self.tickets)

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
        self.prompts.append(list(token_ids))
        self.samplings.append(choice)
        self.resumes.append(list(resume))
        self.owners.append(owner)
        ticket = new_ticket(token_ids, choice, resume=resume, tools=tools)
        self.tickets.append(ticket)
        if ticket.finish is None:
            play = (ticket, len(resume), choice.max_tokens - len(resume))
            threading.Thread(target=self._play, args=play, daemon=True).start()
        return ticket

    def stop(self, **options: Any) -> None:
        self.alive = False
        self.gate.set()
        for ticket in self.tickets:
            ticket.end(FinishReason.ERROR, error="The server is stopping.")

    def prompt_text(self, index: int = -1) -> str:
        """What the model was shown, as text."""
        return ScriptFormat().decode(self.prompts[index])

    def _play(self, ticket: Ticket, said: int, room: int) -> None:
        """The script behind its first `said` ids, at most `room` of it."""
        ids: list[int] = []
        for index, piece in enumerate(self.pieces):
            if said and said >= len(piece):
                said -= len(piece)
                continue
            self.gate.wait()
            if index == self.fail_at:
                ticket.end(FinishReason.ERROR, error="The engine died.")
                return
            ids += [ord(char) for char in piece[said:]]
            said = 0
            if len(ids) >= room:
                ticket.deliver(ids[:room])
                ticket.end(FinishReason.LENGTH)
                return
            if not ticket.deliver(ids):
                ticket.end(FinishReason.STOP)
                return
        self.gate.wait()
        ticket.deliver([*ids, STOP])
        ticket.end(FinishReason.STOP)


class Crowded(ScriptedEngine):
    """Has as many ahead of whoever asks as the test says."""

    ahead = 2

    def position(self, ticket: Ticket) -> int:
        return self.ahead


def _calls(turn: Turn) -> str:
    return "".join(f" {call.name}{dict(call.arguments)}" for call in turn.tool_calls)


def _open_gate() -> threading.Event:
    gate = threading.Event()
    gate.set()
    return gate
