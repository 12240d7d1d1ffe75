"""Between rows and turns: what a prompt follows, and what a resent history already is.

Clients in OpenAI's style send the whole history each time; only what is new becomes rows.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from chat.conversations.exchanges import Exchange, cut_exchanges, root_fingerprint, split_system
from chat.conversations.personas import own_persona, persona
from chat.conversations.trails import trail
from chat.models import Conversation, Prompt, Response, shorten
from chat.statements import insert
from modelhost.types import Role, Turn

BRANCHES = 16  # behind turns that a client sent; more are no edits of one conversation


@dataclass(frozen=True, slots=True)
class Step:
    """A turn and the row that it comes from; None for the persona."""

    turn: Turn
    row_id: str | None


@dataclass(slots=True)
class Place:
    """Where a new prompt goes.

    conversation: None until there is one. system: the persona that the model shall see.
    follows: the response before the prompt. fingerprint: names the history that ends in it.
    missing: exchanges of a resent history that are no rows yet, oldest first.
    earlier: turns after the last answer that are not the prompt itself.
    again: the prompt itself, when it is a row already and gets one more response.
    prompt_id: the id that the new prompt will have, or has.
    """

    conversation: Conversation | None
    system: str = ""
    follows: Response | None = None
    fingerprint: str = ""
    missing: list[Exchange] = field(default_factory=list)
    earlier: list[Turn] = field(default_factory=list)
    again: Prompt | None = None
    prompt_id: UUID = field(default_factory=uuid.uuid4)

    @property
    def fingerprint_before(self) -> str:
        """Names everything before the prompt, what is still missing included."""
        return self.missing[-1].fingerprint if self.missing else self.fingerprint


def steps(place: Place, prompt: Turn) -> list[Step]:
    """The whole conversation as the model shall see it, each turn with its row's id."""
    result: list[Step] = []
    if place.system:
        result.append(Step(Turn(Role.SYSTEM, place.system), None))
    for row in trail(place.follows):
        turns = row.turns() if isinstance(row, Prompt) else [row.turn()]
        result += [Step(turn, row.pk.hex) for turn in turns]
    for exchange in place.missing:
        result += [Step(turn, exchange.prompt_id.hex) for turn in exchange.said]
        result.append(Step(exchange.answer, exchange.response_id.hex))
    # Its own id stands for the turns before it: they are kept in its row.
    return [*result, *(Step(turn, place.prompt_id.hex) for turn in [*place.earlier, prompt])]


def row_ids(steps: Sequence[Step], indices: Sequence[int]) -> list[str]:
    """The rows that these steps come from, in their order, each once; a persona is no row."""
    unique = dict.fromkeys(steps[index].row_id for index in indices)
    return [row_id for row_id in unique if row_id]


def before(steps: Sequence[Step]) -> list[Turn]:
    """The turns before the last one, without the persona."""
    return [step.turn for step in steps[:-1] if step.turn.role != Role.SYSTEM]


def place_after(conversation: Conversation) -> Place:
    """Behind the newest answer of a conversation."""
    return place_behind(conversation.latest_readable_response(), conversation)


def place_behind(response: Response | None, conversation: Conversation) -> Place:
    """Behind this answer, whatever follows it already; None is the conversation's beginning."""
    if response is None:
        name = root_fingerprint(own_persona(conversation))
    else:
        # Where the history is not known, the id keeps what follows from matching others.
        name = response.fingerprint or f"response:{response.pk.hex}"
    return Place(
        conversation=conversation,
        system=persona(conversation.system),
        follows=response,
        fingerprint=name,
    )


def place_again(prompt: Prompt) -> Place:
    """Where a prompt is already, for one more response to it."""
    place = place_behind(prompt.follows, prompt.conversation)
    place.earlier = [Turn.from_json(turn) for turn in prompt.earlier]
    place.again, place.prompt_id = prompt, prompt.pk
    return place


def place_of(history: Sequence[Turn], *, user: Any, within: Conversation | None = None) -> Place:
    """Where a resent history ends: behind the longest beginning of it that is already rows."""
    system, turns = split_system(history)
    root = root_fingerprint(system or (own_persona(within) if within else ""))
    exchanges, rest = cut_exchanges(root, turns)
    known = _known([exchange.fingerprint for exchange in exchanges], user=user, within=within)
    for count in range(len(exchanges), 0, -1):
        row = _behind(known.get(exchanges[count - 1].fingerprint))
        if row is not None and within is None and _is_opening(row):
            break  # what is before it is as well
        if row is not None:
            return Place(
                conversation=row.prompt.conversation,
                system=persona(system or row.prompt.conversation.system),
                follows=row,
                fingerprint=row.fingerprint,
                missing=exchanges[count:],
                earlier=rest,
            )
    return Place(
        conversation=within,
        system=persona(system or (within.system if within else "")),
        fingerprint=root,
        missing=exchanges,
        earlier=rest,
    )


def _known(
    fingerprints: Sequence[str], *, user: Any, within: Conversation | None
) -> dict[str, uuid.UUID]:
    """The newest answer's id behind each of these histories, of those that there are."""
    if not fingerprints:
        return {}  # Django builds the whole query before it notices
    rows = Response.objects.for_user(user).filter(
        fingerprint__in=fingerprints, status__in=Response.READABLE
    )
    if within is not None:
        rows = rows.filter(prompt__conversation=within)
    # Only the longest history's row is read: a text and its ids may be long, and there may be many.
    return dict(rows.order_by("created_at").values_list("fingerprint", "pk"))


def _behind(response_id: uuid.UUID | None) -> Response | None:
    if response_id is None:
        return None
    rows = Response.objects.select_related("prompt__conversation")
    return rows.filter(pk=response_id).first()


def _is_opening(row: Response) -> bool:
    """Whether it is how a client begins each of its chats: every one is a conversation of its own.

    What a client sent as history is rows once, and an edit or a second answer a branch of these.
    """
    return row.imported and row.followed_by.count() >= BRANCHES


def store(place: Place, turn: Turn, *, user: Any, surface: str, now: datetime) -> Prompt:
    """Make the rows for what is new: the conversation, missing exchanges, the prompt.

    now: behind everything in the conversation.
    """
    if place.again is not None:
        return place.again
    conversation = place.conversation
    if conversation is None:
        conversation = Conversation.objects.begin(
            user=user, title=shorten(_topic(place, turn)), system=place.system
        )
    new = Prompt(
        id=place.prompt_id,
        conversation=conversation,
        follows=_import(place, conversation, surface=surface, now=now),
        role=turn.role,
        content=turn.content,
        earlier=[earlier.as_json() for earlier in place.earlier],
        created_at=now + timedelta(microseconds=len(place.missing)),
    )
    insert(new)
    return new


def _import(
    place: Place, conversation: Conversation, *, surface: str, now: datetime
) -> Response | None:
    """Rows for the missing exchanges, in their order; the response that the prompt follows."""
    follows = place.follows
    prompts: list[Prompt] = []
    responses: list[Response] = []
    for index, exchange in enumerate(place.missing):
        at = now + timedelta(microseconds=index)
        prompt = _imported_prompt(exchange, conversation, follows=follows, at=at)
        follows = _imported_response(exchange, prompt, surface=surface)
        prompts.append(prompt)
        responses.append(follows)
    Prompt.objects.bulk_create(prompts)
    Response.objects.bulk_create(responses)
    return follows


def _topic(place: Place, turn: Turn) -> str:
    """What the user said first: of a conversation that came whole, not its newest turn."""
    said = [*(turn for exchange in place.missing for turn in exchange.said), *place.earlier, turn]
    first = (one.content for one in said if one.role == Role.USER and one.content)
    return next(first, turn.content)


def _imported_prompt(
    exchange: Exchange, conversation: Conversation, *, follows: Response | None, at: datetime
) -> Prompt:
    *earlier, last = exchange.said or [Turn(Role.USER, "")]
    whole = last.role not in (Role.USER, Role.TOOL)
    return Prompt(
        id=exchange.prompt_id,
        conversation=conversation,
        follows=follows,
        role=Role.USER if whole else last.role,
        content="" if whole else last.content,
        earlier=[turn.as_json() for turn in (exchange.said if whole else earlier)],
        created_at=at,
    )


def _imported_response(exchange: Exchange, prompt: Prompt, *, surface: str) -> Response:
    return Response(
        id=exchange.response_id,
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
