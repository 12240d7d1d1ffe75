"""A scripted engine: the web side's view of a model, without one.

Its vocabulary is Unicode: a token id is a code point, so every text renders and
decodes to itself and tests can write ids as text.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from typing import Any

from modelhost import prompts, sampling
from modelhost.errors import Busy, NotReady, PromptTooLong
from modelhost.text import ResponseDecoder
from modelhost.ticket import Ticket
from modelhost.toolcalls import ChatGLMAnswer
from modelhost.types import FinishReason, ModelCard, Rendered, Sampling, Tool, Turn

STOP = 0x110000  # one past the last code point: no text can hold it


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


class ScriptedEngine:
    """Answers every prompt with `pieces`, each let out when `gate` allows.

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
        self.pieces = pieces or ("Hello", ", ", "world")
        self.gate = gate or _open_gate()
        self.fail_at = fail_at
        self.max_requests = max_requests
        self.alive = True
        self.card = ModelCard(
            name="scripted-model",
            revision="r1",
            architecture="Scripted",
            parameters=0,
            dtype="float32",
            device="cpu",
            context_length=context_length,
            vocabulary=STOP + 1,
        )
        self.prompts: list[list[int]] = []
        self.samplings: list[Sampling] = []
        self.tickets: list[Ticket] = []
        self.tools: Sequence[Tool] = ()

    @property
    def active(self) -> int:
        return sum(ticket.finish is None for ticket in self.tickets)

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

    def validate(self, token_ids: Sequence[int], choice: Sampling) -> None:
        sampling.validate(choice, vocabulary=self.card.vocabulary)
        if len(token_ids) + choice.max_tokens > self.card.context_length:
            raise PromptTooLong("The prompt does not fit.")
        if self.active >= self.max_requests:
            raise Busy("Full.")
        if not self.alive:
            raise NotReady("Stopped.")

    def submit(
        self,
        token_ids: Sequence[int],
        choice: Sampling,
        *,
        resume: Sequence[int] = (),
        tools: Sequence[Tool] = (),
    ) -> Ticket:
        self.validate(token_ids, choice)
        self.prompts.append(list(token_ids))
        self.samplings.append(choice)
        ticket = Ticket(
            uuid.uuid4().hex,
            prompt_tokens=len(token_ids),
            decoder=ResponseDecoder(
                ScriptFormat().decode, stops=choice.stop, answer=ScriptFormat().answer(tools)
            ),
            stop_ids=ScriptFormat.stop_ids,
            resumed=resume,
            on_cancel=lambda request_id: None,
        )
        self.tickets.append(ticket)
        threading.Thread(target=self._play, args=(ticket, choice), daemon=True).start()
        return ticket

    def stop(self, **options: Any) -> None:
        self.alive = False
        self.gate.set()
        for ticket in self.tickets:
            ticket.end(FinishReason.ERROR, error="The server is stopping.")

    def prompt_text(self, index: int = -1) -> str:
        """What the model was shown, as text."""
        return ScriptFormat().decode(self.prompts[index])

    def _play(self, ticket: Ticket, choice: Sampling) -> None:
        ids: list[int] = []
        for index, piece in enumerate(self.pieces):
            self.gate.wait()
            if index == self.fail_at:
                ticket.end(FinishReason.ERROR, error="The engine died.")
                return
            ids += [ord(char) for char in piece]
            if len(ids) >= choice.max_tokens:
                ticket.deliver(ids[: choice.max_tokens])
                ticket.end(FinishReason.LENGTH)
                return
            if not ticket.deliver(ids):
                ticket.end(FinishReason.STOP)
                return
        self.gate.wait()
        ticket.deliver([*ids, STOP])
        ticket.end(FinishReason.STOP)


def _calls(turn: Turn) -> str:
    return "".join(f" {call.name}{dict(call.arguments)}" for call in turn.tool_calls)


def _open_gate() -> threading.Event:
    gate = threading.Event()
    gate.set()
    return gate
