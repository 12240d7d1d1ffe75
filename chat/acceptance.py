"""The one use case: a question becomes a response that is under way.

accept → one durable transaction with prompt and response → engine → supervisor.

Whatever can be refused is refused before anything is stored; what is stored is answered, by this
process or by the next.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction
from django.http import Http404
from django.utils import timezone
from rest_framework.exceptions import NotAuthenticated

from chat import responses
from chat.conversations import history, personas
from chat.errors import ConversationBusy, ServerStopping
from chat.idempotency import Attempt, KeyTaken
from chat.lifecycle.live import LiveResponse
from chat.lifecycle.record import LEASE, WORKER, Record
from chat.lifecycle.recorder import release, settle
from chat.lifecycle.recovery import Continuation
from chat.lifecycle.supervisor import supervisor
from chat.limits import storage
from chat.limits.admission import admission
from chat.limits.long_prompts import long_prompts
from chat.models import Conversation, Response
from chat.monitoring import metrics
from chat.questions import Accepted, Question
from chat.statements import insert
from modelhost.errors import ModelHostError
from modelhost.host import host
from modelhost.types import Rendered, Sampling

if TYPE_CHECKING:
    from modelhost.engine import Engine


@dataclass(frozen=True, slots=True)
class Prepared:
    """A question that the engine would take. Nothing of it is stored.

    steps: the turns that it is asked with, and the rows that they come from.
    """

    question: Question
    engine: Engine
    place: history.Place
    steps: list[history.Step]
    rendered: Rendered
    sampling: Sampling

    @property
    def omitted(self) -> list[str]:
        """The rows that the model does not see."""
        return history.row_ids(self.steps, self.rendered.omitted)

    def draft(self, attempt: Attempt) -> Response:
        """The row as it begins, without its prompt."""
        question, card, sampling = self.question, self.engine.card, self.sampling
        prompt_ids = list(self.rendered.token_ids)
        return Response(
            user=attempt.user,
            api_key=attempt.api_key,
            request_digest=attempt.digest,
            surface=question.surface,
            client=dict(question.client),
            on_disconnect=question.on_disconnect,
            model=card.name,
            revision=card.revision,
            adapter=card.adapter,
            tools=list(question.tools),
            seed=sampling.seed,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop),
            prompt_tokens=len(prompt_ids),
            omitted=self.omitted,
            continuation=Continuation(prompt_ids, self.place.fingerprint_before).as_json(),
            worker=WORKER,
        )


def accept(question: Question, attempt: Attempt) -> Accepted:
    """Accept a prompt. When this returns, prompt and response are stored and under way.

    Raises ConversationBusy, Overloaded, TooManyStreams, KeyReused, ServerStopping, DiskFull and
    what the model host raises: Busy, NotReady, LoadFailed, BadTurns, BadSampling, PromptTooLong.
    Http404 where it was to go into a conversation that was deleted meanwhile, NotAuthenticated
    where the caller was.
    """
    with attempt.in_turn():
        while True:
            try:
                return _accept(question, attempt)
            except KeyTaken:
                pass  # another process was faster: there is a row to join
            except Http404:
                if question.names_a_place:
                    raise
                # Else where its history was found is gone: it is stored anew.


def _accept(question: Question, attempt: Attempt) -> Accepted:
    if (earlier := _earlier(attempt)) is not None:
        with suppress(Http404):  # removed since it was found, and its key with it: asked anew
            return responses.join(earlier, question)
    if supervisor.draining:
        raise ServerStopping
    storage.check()
    admission.check(attempt.caller)
    prepared = _prepare(question, attempt)
    leave = admission.enter(attempt.caller, tokens=len(prepared.rendered.token_ids))
    try:
        response = _store(prepared, attempt)
        live = _start(response, prepared, leave)
    except BaseException:
        leave(served=False)
        raise
    known = question.history
    if known is None:
        known = history.before(prepared.steps)
    turns = [*known, question.turn]
    return Accepted(response.pk, response.prompt, live, turns, response.omitted)


def _earlier(attempt: Attempt) -> Response | None:
    """The response of an earlier attempt, to be joined.

    Where that is being stopped, as when whoever waited for it left, its end comes first: half an
    answer would look like a whole one.
    """
    earlier = attempt.earlier()
    if earlier is not None and responses.is_being_stopped(earlier):
        responses.settled(responses.follow(earlier))
        return attempt.earlier()
    return earlier


def _prepare(question: Question, attempt: Attempt) -> Prepared:
    engine = host.engine()
    place = _place(question, attempt.user)
    steps = history.steps(place, question.turn)
    turns = [step.turn for step in steps]
    characters = sum(len(f"{turn.content}{turn.tool_calls}") for turn in turns)
    with long_prompts.in_turn(characters + len(str(question.tools)), attempt.caller):
        rendered = engine.render(
            turns, max_tokens=question.sampling.max_tokens, tools=question.tools
        )
    sampling = question.sampling.decide(room=engine.room(len(rendered.token_ids)))
    engine.validate(rendered.token_ids, sampling)
    return Prepared(question, engine, place, steps, rendered, sampling)


def _place(question: Question, user: Any) -> history.Place:
    if question.place is not None:
        return question.place
    conversation = question.conversation
    if question.history is not None:
        return history.place_of(question.history, user=user, within=conversation)
    if conversation is not None:
        return history.place_after(conversation)
    return history.place_of([], user=user)


def _store(prepared: Prepared, attempt: Attempt) -> Response:
    """One transaction: all of it is there afterwards, or nothing.

    Raises KeyTaken, KeyReused, NotAuthenticated.
    """
    try:
        with transaction.atomic(durable=True):
            return _insert(prepared, attempt)
    except IntegrityError as error:
        if get_user_model()._default_manager.filter(pk=attempt.user.pk).exists():
            raise
        raise NotAuthenticated from error  # who asks was deleted meanwhile


def _insert(prepared: Prepared, attempt: Attempt) -> Response:
    question, place, response = prepared.question, prepared.place, prepared.draft(attempt)
    now = timezone.now()
    if place.conversation is not None:
        in_order = question.history is None and question.place is None
        held = _hold(place.conversation, place.follows, in_order=in_order)
        response.system = personas.to_keep(place.system, held)
        now = held.next_moment()
    prompt = history.store(
        place, question.turn, user=attempt.user, surface=question.surface, now=now
    )
    response.prompt = prompt
    response.created_at = max(now, prompt.created_at + timedelta(microseconds=1))
    response.lease_until = timezone.now() + LEASE
    insert(response)
    attempt.remember(response)
    return response


def _hold(conversation: Conversation, follows: Response | None, *, in_order: bool) -> Conversation:
    """The conversation as it is now, locked until the prompt is stored: prompts take turns.

    in_order: nothing may be running, and nothing may have come behind the response that the prompt
    follows. Raises ConversationBusy, Http404 when the conversation is gone by now.
    """
    held = Conversation.objects.select_for_update().filter(pk=conversation.pk).first()
    if held is None:
        raise Http404
    if in_order and (held.answering() or held.latest_readable_response() != follows):
        raise ConversationBusy("This conversation's last prompt is still being answered.")
    return held


def _start(response: Response, prepared: Prepared, leave: Callable[[], None]) -> LiveResponse:
    """Have a stored response generated."""
    engine, question = prepared.engine, prepared.question
    try:
        ticket = engine.submit(
            prepared.rendered.token_ids,
            prepared.sampling,
            tools=question.tools,
            owner=str(response.user_id),
        )
    except ModelHostError as error:
        if supervisor.draining:  # the engine was stopped after it had said that it would
            release(response.pk)
            raise ServerStopping from error
        if settle(response.pk, Response.Status.FAILED, error=str(error)):
            metrics.given_up(Response.Status.FAILED)
        raise
    live = supervisor.live(response.pk)
    live.position = lambda: engine.position(ticket)
    record = Record(
        live=live,
        history=prepared.place.fingerprint_before,
        said=response.prompt.turns(),
        stop_on_leave=question.on_disconnect == Response.OnDisconnect.STOP,
        on_end=leave,
    )
    supervisor.adopt(record, ticket)
    return live
