"""What callers ask, before it is stored, and what they hold once it is."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.conf import settings

from chat.conversations.history import Place
from chat.lifecycle.live import LiveResponse
from chat.models import Conversation, Prompt, Response
from modelhost.types import Role, Sampling, Tool, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """Sampling as a caller may ask for it; None is the installation's default."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: Sequence[str] = ()

    def decide(self, *, room: int) -> Sampling:
        """The sampling actually used; a seed is drawn here, so that it can be stored.

        53 bits: more would be rounded by JavaScript clients that read it.
        """
        return Sampling(
            max_tokens=room if self.max_tokens is None else self.max_tokens,
            temperature=_or(self.temperature, settings.LLMSITE_TEMPERATURE),
            top_p=_or(self.top_p, settings.LLMSITE_TOP_P),
            top_k=self.top_k or 0,
            seed=secrets.randbits(53) if self.seed is None else self.seed,
            stop=tuple(self.stop),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A prompt with everything that decides its answer and its place.

    role: the user's, or a tool's whose result `content` is.
    history: the turns before it as the client sent them; None when it sent none.
    place: where it goes, when the caller said so; else it follows the newest answer.
    tools: functions that the model may call.
    surface: the route's name in the record. client: what the client said of itself.
    """

    content: str
    surface: str
    conversation: Conversation | None = None
    history: Sequence[Turn] | None = None
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    client: Mapping[str, Any] = field(default_factory=dict)
    role: Role = Role.USER
    tools: Sequence[Tool] = ()
    place: Place | None = None
    on_disconnect: Response.OnDisconnect = Response.OnDisconnect.FINISH

    @property
    def names_a_place(self) -> bool:
        """Whether the caller said where it goes; else its history is looked for."""
        return self.conversation is not None or self.place is not None

    @property
    def turn(self) -> Turn:
        return Turn(self.role, self.content)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A stored prompt whose response is being generated, or was.

    turns: the conversation before the answer as the client knows it, without a persona
    that it did not send. omitted: ids of the prompts and responses that the model did not see.
    """

    response_id: UUID
    prompt: Prompt
    live: LiveResponse
    turns: list[Turn]
    omitted: list[str]


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
