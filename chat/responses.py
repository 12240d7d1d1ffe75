"""The one use case: accept a prompt, store it, have it answered, let anyone follow.

accept → one durable transaction with prompt and response → engine → supervisor.
What can be refused is refused before anything is stored; a retry joins what it repeats.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import connections, transaction
from django.http import Http404
from django.utils import timezone

from chat import history, remote, storage
from chat.admission import admission
from chat.connections import Connection
from chat.errors import ConversationBusy, ServerStopping, Unanswered
from chat.idempotency import Attempt, KeyTaken
from chat.live import LiveResponse, Outcome
from chat.models import Conversation, Response
from chat.questions import Accepted, Question
from chat.record import LEASE, WORKER, Record
from chat.recorder import release, settle
from chat.recovery import Continuation
from chat.request_slots import request_slots
from chat.statements import insert
from chat.supervisor import supervisor
from modelhost.errors import GenerationFailed, ModelHostError
from modelhost.host import host
from modelhost.types import Rendered, Role, Sampling

if TYPE_CHECKING:
    from modelhost.engine import Engine

GOES_ON = "The server is stopping; the response goes on when it is back, and can be followed then."
LOOK = 0.5  # seconds between looks whether the one who waits is still there


def ask(question: Question, attempt: Attempt) -> Accepted:
    """Accept a prompt. When this returns, prompt and response are stored and under way.

    Raises ConversationBusy, Overloaded, KeyReused, ServerStopping, DiskFull and what the model
    host raises: NotReady, LoadFailed, BadTurns, BadSampling, PromptTooLong.
    """
    with attempt.in_turn():
        return _ask(question, attempt)


def _ask(question: Question, attempt: Attempt) -> Accepted:
    if (earlier := attempt.earlier()) is not None:
        return join(earlier, question)
    if supervisor.draining:
        raise ServerStopping
    storage.check()
    caller = attempt.caller
    admission.check(caller)
    engine = host.engine()
    place = _place(question, attempt.user)
    steps = history.steps(place, question.turn)
    rendered = engine.render(
        [step.turn for step in steps],
        max_tokens=question.sampling.max_tokens,
        tools=question.tools,
    )
    sampling = question.sampling.decide(room=engine.room(len(rendered.token_ids)))
    engine.validate(rendered.token_ids, sampling)
    leave = admission.enter(caller, tokens=len(rendered.token_ids))
    try:
        response = _draft(question, attempt, engine, sampling, rendered, place)
        # In their order, each once; the installation's persona is no row.
        unseen = dict.fromkeys(steps[index].row_id for index in rendered.omitted)
        response.omitted = [row_id for row_id in unseen if row_id]
        _store(response, question, attempt, place)
        live = _start(response, question, engine, sampling, rendered, leave)
    except KeyTaken:
        leave(served=False)
        return _ask(question, attempt)  # another process was faster: there is a row to join
    except BaseException:
        leave(served=False)
        raise
    known = question.history
    if known is None:
        known = [step.turn for step in steps[:-1] if step.turn.role != Role.SYSTEM]
    turns = [*known, steps[-1].turn]
    return Accepted(response.pk, response.prompt, live, turns, response.omitted)


def join(response: Response, question: Question) -> Accepted:
    """A response that was asked for before, for one more to wait for it."""
    known = question.history
    if known is None:
        *before, _ = history.steps(history.place_again(response.prompt), question.turn)
        known = [step.turn for step in before if step.turn.role != Role.SYSTEM]
    turns = [*known, question.turn]
    return Accepted(response.pk, response.prompt, follow(response), turns, response.omitted)


def answer(accepted: Accepted, *, gone: Callable[[], bool] = lambda: False) -> Outcome:
    """Block until the response is complete. Raises Unanswered: it failed, or the process ends.

    gone: whether the one who waits has left, and nobody needs this any more.
    """
    connections.close_all()  # nothing is read while waiting
    request_slots.release()
    while not accepted.live.wait(LOOK):
        # At exit the interpreter joins this thread, and nobody would end the wait.
        if gone() or not threading.main_thread().is_alive():
            break
    outcome = accepted.live.outcome
    if outcome is None:
        raise Unanswered(accepted.response_id, ServerStopping(GOES_ON))
    if outcome.failed:
        failed = GenerationFailed(outcome.error or "It was cut off.")
        raise Unanswered(accepted.response_id, failed)
    return outcome


def follow(response: Response) -> LiveResponse:
    """The response as something to follow, wherever it is being made, or was."""
    live = supervisor.live(response.pk)
    if not supervisor.carries(response.pk):
        # It may have ended, or be gone, since it was read.
        remote.show(live, Response.objects.filter(pk=response.pk).first())
        supervisor.watch(live)
    return live


def wait_for(live: LiveResponse, connection: Connection) -> None:
    """Note that one more client waits for this response, until it leaves."""
    live.attach()
    connection.on_close(lambda: supervisor.left(live))


def stop(response: Response) -> None:
    """End a response where it is; its text so far stays. One that has ended stays as it is."""
    if not response.active:
        return
    if not supervisor.cancel(response.pk):
        remote.request_stop(response)


def remove(conversation: Conversation) -> None:
    """Delete a conversation with everything in it; an answer under way ends at once."""
    rows = Response.objects.active().filter(prompt__conversation=conversation)
    with transaction.atomic():
        # As `_hold` does: Django looks for all that depends on it before it deletes any of it.
        held = Conversation.objects.select_for_update().filter(pk=conversation.pk).first()
        under_way = list(rows.values_list("pk", flat=True))
        if held is not None:
            held.delete()
    for response_id in under_way:
        supervisor.recheck(response_id)


def find(response_id: UUID, *, user: Any) -> Response | None:
    """The caller's response with this id."""
    rows = Response.objects.for_user(user).select_related("prompt")
    return rows.filter(pk=response_id).first()


def _place(question: Question, user: Any) -> history.Place:
    if question.place is not None:
        return question.place
    conversation = question.conversation
    if question.history is not None:
        return history.place_of(question.history, user=user, within=conversation)
    if conversation is not None:
        return history.place_after(conversation)
    return history.place_of([], user=user)


def _draft(
    question: Question,
    attempt: Attempt,
    engine: Engine,
    sampling: Sampling,
    rendered: Rendered,
    place: history.Place,
) -> Response:
    """The row as it begins, without its prompt."""
    prompt_ids = list(rendered.token_ids)
    return Response(
        user=attempt.user,
        api_key=attempt.api_key,
        request_digest=attempt.digest,
        surface=question.surface,
        client=dict(question.client),
        on_disconnect=question.on_disconnect,
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
        prompt_tokens=len(prompt_ids),
        continuation=Continuation(prompt_ids, place.name).as_json(),
        worker=WORKER,
    )


def _store(response: Response, question: Question, attempt: Attempt, place: history.Place) -> None:
    """One transaction: all of it is there afterwards, or nothing. Raises KeyTaken, KeyReused."""
    with transaction.atomic(durable=True):
        if place.conversation is not None:
            _hold(place, in_order=question.history is None and question.place is None)
        prompt = history.store(place, question.turn, user=attempt.user, surface=question.surface)
        response.prompt = prompt
        response.created_at = max(timezone.now(), prompt.created_at + timedelta(microseconds=1))
        response.lease_until = timezone.now() + LEASE
        insert(response)
        attempt.remember(response)


def _hold(place: history.Place, *, in_order: bool) -> None:
    """Lock the conversation until the prompt is stored: two simultaneous prompts take turns.

    in_order: nothing may be running, and nothing may have come since the place was found.
    Raises ConversationBusy, Http404 when the conversation is gone by now.
    """
    held: Any = place.conversation
    conversation = Conversation.objects.select_for_update().filter(pk=held.pk).first()
    if conversation is None:
        raise Http404
    if in_order and (
        conversation.answering() or conversation.latest_readable_response() != place.follows
    ):
        raise ConversationBusy("This conversation's last prompt is still being answered.")


def _start(
    response: Response,
    question: Question,
    engine: Engine,
    sampling: Sampling,
    rendered: Rendered,
    leave: Callable[[], None],
) -> LiveResponse:
    """Have a stored response generated."""
    try:
        ticket = engine.submit(
            rendered.token_ids, sampling, tools=question.tools, owner=str(response.user_id)
        )
    except ModelHostError as error:
        if supervisor.draining:  # the engine was stopped after it had said that it would
            release(response.pk)
            raise ServerStopping from error
        settle(response.pk, Response.Status.FAILED, error=str(error))
        raise
    live = supervisor.live(response.pk)
    live.position = lambda: engine.position(ticket)
    record = Record(
        live=live,
        history=Continuation.of(response).history,  # type: ignore[union-attr]
        said=response.prompt.turns(),
        stop_on_leave=question.on_disconnect == Response.OnDisconnect.STOP,
        on_end=leave,
    )
    supervisor.adopt(record, ticket)
    return live
