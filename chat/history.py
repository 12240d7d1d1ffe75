"""Between rows and turns: what a prompt follows, and what a resent history already is.

Clients in OpenAI's style send the whole history each time. A running hash over its
turns names the response that it ends in, so only what is new becomes rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from chat.models import Conversation, Prompt, Response, shorten
from modelhost.types import Role, Turn


@dataclass(frozen=True, slots=True)
class Step:
    """A turn and the row that it comes from; None for the persona."""

    turn: Turn
    row_id: str | None


@dataclass(slots=True)
class Place:
    """Where a new prompt goes.

    conversation: None until there is one. follows: the response before the prompt.
    missing: exchanges of a resent history that are no rows yet, oldest first.
    earlier: turns after the last answer that are not the prompt itself.
    """

    conversation: Conversation | None
    system: str = ""
    follows: Response | None = None
    fingerprint: str = ""
    missing: list[Exchange] = field(default_factory=list)
    earlier: list[Turn] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Exchange:
    """Turns up to and including one assistant turn, and the name of the history that ends there."""

    said: list[Turn]
    answer: Turn
    fingerprint: str


def persona(system: str) -> str:
    """The system text that applies: the conversation's own, else the installation's."""
    return system or settings.LLMSITE_SYSTEM


def _own_persona(conversation: Conversation) -> str:
    """The persona that names a conversation's histories; the installation's names none."""
    return "" if conversation.system == settings.LLMSITE_SYSTEM else conversation.system


def extend_fingerprint(before: str, turns: Sequence[Turn]) -> str:
    """The name of a history that continues `before` with these turns (sha256, hex)."""
    said = [turn.as_json() for turn in turns]
    return hashlib.sha256(f"{before}\n{json.dumps(said, sort_keys=True)}".encode()).hexdigest()


def root_fingerprint(system: str) -> str:
    """The name of the empty history under a persona."""
    return extend_fingerprint("", [Turn(Role.SYSTEM, system)] if system else [])


def trail(leaf: Response | None) -> list[Prompt | Response]:
    """The rows from the conversation's beginning to `leaf`, oldest first, in two queries."""
    if leaf is None:
        return []
    conversation_id = leaf.prompt.conversation_id
    prompts = {row.pk: row for row in Prompt.objects.filter(conversation_id=conversation_id)}
    responses = {
        row.pk: row
        for row in Response.objects.filter(prompt__conversation_id=conversation_id).defer(
            "token_ids"
        )
    }
    rows: list[Prompt | Response] = []
    at: Response | None = leaf
    while at is not None:
        prompt = prompts[at.prompt_id]
        rows += [at, prompt]
        at = responses.get(prompt.follows_id) if prompt.follows_id else None
    return rows[::-1]


def steps(place: Place, prompt: Turn) -> list[Step]:
    """The whole conversation as the model shall see it, each turn with its row's id."""
    result: list[Step] = []
    if system := persona(place.system):
        result.append(Step(Turn(Role.SYSTEM, system), None))
    for row in trail(place.follows):
        turns = row.turns() if isinstance(row, Prompt) else [row.turn()]
        result += [Step(turn, row.pk.hex) for turn in turns]
    for exchange in place.missing:
        result += [Step(turn, None) for turn in [*exchange.said, exchange.answer]]
    result += [Step(turn, None) for turn in place.earlier]
    return [*result, Step(prompt, None)]


def place_after(conversation: Conversation) -> Place:
    """Behind the newest answer of a conversation."""
    leaf = conversation.latest_response()
    if leaf is None:
        name = root_fingerprint(_own_persona(conversation))
    else:
        # An interrupted response has no name; its own id keeps what follows from matching others.
        name = leaf.fingerprint or f"response:{leaf.pk.hex}"
    return Place(
        conversation=conversation, system=conversation.system, follows=leaf, fingerprint=name
    )


def place_of(history: Sequence[Turn], *, user: Any, within: Conversation | None = None) -> Place:
    """Where a resent history ends: behind the longest beginning of it that is already rows."""
    system, turns = _split_system(history)
    root = root_fingerprint(system or (_own_persona(within) if within else ""))
    exchanges, rest = _exchanges(root, turns)
    known = Response.objects.for_user(user).filter(
        fingerprint__in=[exchange.fingerprint for exchange in exchanges],
        status__in=Response.READABLE,
    )
    if within is not None:
        known = known.filter(prompt__conversation=within)
    newest_last = known.select_related("prompt__conversation").order_by("created_at")
    by_name = {row.fingerprint: row for row in newest_last}
    for count in range(len(exchanges), 0, -1):
        row = by_name.get(exchanges[count - 1].fingerprint)
        if row is not None:
            return Place(
                conversation=row.prompt.conversation,
                system=system or row.prompt.conversation.system,
                follows=row,
                fingerprint=row.fingerprint,
                missing=exchanges[count:],
                earlier=rest,
            )
    return Place(
        conversation=within,
        system=system or (within.system if within else ""),
        fingerprint=root,
        missing=exchanges,
        earlier=rest,
    )


def store(place: Place, turn: Turn, *, user: Any, surface: str) -> Prompt:
    """Make the rows for what is new: the conversation, missing exchanges, the prompt."""
    now = timezone.now()
    conversation = place.conversation
    if conversation is None:
        conversation = Conversation.objects.begin(
            user=user, title=shorten(turn.content), system=place.system
        )
    follows = place.follows
    prompts: list[Prompt] = []
    responses: list[Response] = []
    for index, exchange in enumerate(place.missing):
        # Before the prompt, in their order.
        at = now - timedelta(microseconds=len(place.missing) - index)
        prompt = _imported_prompt(exchange, conversation, follows=follows, at=at)
        follows = _imported_response(exchange, prompt, surface=surface)
        prompts.append(prompt)
        responses.append(follows)
    Prompt.objects.bulk_create(prompts)
    Response.objects.bulk_create(responses)
    return Prompt.objects.create(
        conversation=conversation,
        follows=follows,
        role=turn.role,
        content=turn.content,
        earlier=[earlier.as_json() for earlier in place.earlier],
        created_at=now,
    )


def _imported_prompt(
    exchange: Exchange, conversation: Conversation, *, follows: Response | None, at: datetime
) -> Prompt:
    *earlier, last = exchange.said or [Turn(Role.USER, "")]
    whole = last.role not in (Role.USER, Role.TOOL)
    return Prompt(
        conversation=conversation,
        follows=follows,
        role=Role.USER if whole else last.role,
        content="" if whole else last.content,
        earlier=[turn.as_json() for turn in (exchange.said if whole else earlier)],
        created_at=at,
    )


def _imported_response(exchange: Exchange, prompt: Prompt, *, surface: str) -> Response:
    return Response(
        prompt=prompt,
        user_id=prompt.conversation.user_id,
        surface=surface,
        imported=True,
        status=Response.Status.DONE,
        text=exchange.answer.content,
        tool_calls=[asdict(call) for call in exchange.answer.tool_calls],
        fingerprint=exchange.fingerprint,
        created_at=prompt.created_at,
        finished_at=prompt.created_at,
    )


def _split_system(history: Sequence[Turn]) -> tuple[str, list[Turn]]:
    """The persona that a history begins with, and the turns after it."""
    texts: list[str] = []
    for turn in history:
        if turn.role != Role.SYSTEM:
            break
        texts.append(turn.content)
    return "\n".join(texts), list(history[len(texts) :])


def _exchanges(root: str, turns: Sequence[Turn]) -> tuple[list[Exchange], list[Turn]]:
    """Turns cut behind each assistant turn, and what follows the last one."""
    exchanges: list[Exchange] = []
    said: list[Turn] = []
    name = root
    for turn in turns:
        if turn.role != Role.ASSISTANT:
            said.append(turn)
            continue
        name = extend_fingerprint(name, [*said, turn])
        exchanges.append(Exchange(said, turn, name))
        said = []
    return exchanges, said
