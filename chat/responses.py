"""The one use case: accept a prompt, store it, have it answered, let anyone follow.

accept → one durable transaction with prompt and response → engine → supervisor.
What can be refused is refused before anything is stored.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.conf import settings
from django.db import connections, transaction
from django.http import Http404
from django.utils import timezone

from chat import history
from chat.errors import ConversationBusy
from chat.live import LiveResponse, Outcome, stored_outcome, usage_of
from chat.models import ApiKey, Conversation, Prompt, Response
from chat.recorder import LEASE, Record
from chat.supervisor import supervisor
from modelhost.errors import GenerationFailed, ModelHostError, NotReady
from modelhost.host import host
from modelhost.types import FinishReason, Role, Sampling, Tool, Turn

if TYPE_CHECKING:
    from modelhost.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
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
    tools: functions that the model may call.
    surface: the route's name in the record. client: what the client said of itself.
    """

    content: str
    surface: str
    conversation: Conversation | None = None
    history: Sequence[Turn] | None = None
    wishes: Wishes = field(default_factory=Wishes)
    client: Mapping[str, Any] = field(default_factory=dict)
    role: Role = Role.USER
    tools: Sequence[Tool] = ()

    @property
    def turn(self) -> Turn:
        return Turn(self.role, self.content)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A stored prompt whose response is being generated.

    turns: the conversation before the answer as the client knows it, without a persona
    that it did not send.
    """

    response_id: UUID
    prompt: Prompt
    live: LiveResponse
    turns: list[Turn]


def ask(question: Question, *, user: Any, api_key: ApiKey | None = None) -> Accepted:
    """Accept a prompt. When this returns, prompt and response are stored and under way.

    Raises ConversationBusy and what the model host raises: NotReady, LoadFailed, Busy,
    BadTurns, BadSampling, PromptTooLong.
    """
    engine = host.engine()
    place = _place(question, user)
    steps = history.steps(place, question.turn)
    rendered = engine.render(
        [step.turn for step in steps],
        max_tokens=question.wishes.max_tokens,
        tools=question.tools,
    )
    sampling = question.wishes.decide(room=engine.room(len(rendered.token_ids)))
    engine.validate(rendered.token_ids, sampling)
    omitted = [row_id for index in rendered.omitted if (row_id := steps[index].row_id)]
    with transaction.atomic(durable=True):
        if place.conversation is not None:
            _hold(place, in_order=question.history is None)
        prompt = history.store(place, question.turn, user=user, surface=question.surface)
        response = _store_response(
            question, prompt, engine, sampling, user=user, api_key=api_key, omitted=omitted
        )
        response.prompt_tokens = len(rendered.token_ids)
        response.save()
    record = Record(
        live=LiveResponse(response.pk),
        history=_name_before(place),
        said=[*place.earlier, question.turn],
    )
    try:
        ticket = engine.submit(rendered.token_ids, sampling, tools=question.tools)
        supervisor.adopt(record, ticket)
    except ModelHostError as error:
        _settle_unstarted(response, str(error))
        raise
    known = question.history
    if known is None:
        known = [step.turn for step in steps[:-1] if step.turn.role != Role.SYSTEM]
    return Accepted(response.pk, prompt, record.live, [*known, steps[-1].turn])


def answer(accepted: Accepted) -> Outcome:
    """Block until the response is complete. Raises GenerationFailed, NotReady."""
    connections.close_all()  # nothing is read while waiting
    while not accepted.live.wait(1.0):
        # At exit the interpreter joins this thread, and nobody would end the wait.
        if not threading.main_thread().is_alive():
            raise NotReady("The server is stopping.")
    outcome = accepted.live.outcome
    if outcome is None or outcome.failed:
        raise GenerationFailed(outcome.error if outcome and outcome.error else "It was cut off.")
    return outcome


def remove(conversation: Conversation) -> None:
    """Delete a conversation with everything in it; an answer under way ends at once."""
    rows = Response.objects.filter(prompt__conversation=conversation, status__in=Response.ACTIVE)
    under_way = list(rows.values_list("pk", flat=True))
    conversation.delete()
    for response_id in under_way:
        supervisor.recheck(response_id)


def find(response_id: UUID, *, user: Any) -> Response | None:
    """The caller's response with this id."""
    rows = Response.objects.for_user(user).select_related("prompt")
    return rows.filter(pk=response_id).first()


def resume(response: Response) -> LiveResponse:
    """The response as something to follow: live where it is being made, else from its row."""
    live = supervisor.live(response.pk)
    if live is not None:
        return live
    response.refresh_from_db()  # it may have ended between the two looks
    finished = LiveResponse(response.pk)
    if response.text:
        finished.append(response.text)
    finished.close(
        stored_outcome(response)
        or Outcome(
            Response.Status.INTERRUPTED,
            FinishReason.ERROR,
            usage_of(response),
            "The response is being generated by another process.",
        )
    )
    return finished


def _place(question: Question, user: Any) -> history.Place:
    conversation = question.conversation
    if question.history is not None:
        return history.place_of(question.history, user=user, within=conversation)
    if conversation is not None:
        return history.place_after(conversation)
    return history.place_of([], user=user)


def _name_before(place: history.Place) -> str:
    return place.missing[-1].fingerprint if place.missing else place.fingerprint


def _hold(place: history.Place, *, in_order: bool) -> None:
    """Lock the conversation until the prompt is stored: two simultaneous prompts take turns.

    in_order: nothing may be running, and nothing may have come since the place was found.
    Raises ConversationBusy, Http404 when the conversation is gone by now.
    """
    held: Any = place.conversation
    conversation = Conversation.objects.select_for_update().filter(pk=held.pk).first()
    if conversation is None:
        raise Http404
    if in_order and (conversation.answering() or conversation.latest_response() != place.follows):
        raise ConversationBusy("This conversation's last prompt is still being answered.")


def _store_response(
    question: Question,
    prompt: Prompt,
    engine: Engine,
    sampling: Sampling,
    *,
    user: Any,
    api_key: ApiKey | None,
    omitted: list[str],
) -> Response:
    return Response(
        prompt=prompt,
        user=user,
        api_key=api_key,
        surface=question.surface,
        client=dict(question.client),
        model=engine.card.name,
        revision=engine.card.revision,
        adapter=engine.card.adapter,
        tools=list(question.tools),
        seed=sampling.seed,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        stop=list(sampling.stop),
        omitted=omitted,
        created_at=prompt.created_at + timedelta(microseconds=1),
        lease_until=timezone.now() + LEASE,
    )


def _settle_unstarted(response: Response, sentence: str) -> None:
    Response.objects.filter(pk=response.pk).update(
        status=Response.Status.FAILED,
        finish_reason=FinishReason.ERROR,
        error=sentence,
        finished_at=timezone.now(),
        lease_until=None,
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
