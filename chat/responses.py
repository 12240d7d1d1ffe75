"""What is done with responses that exist: join, follow, wait, stop, remove.

How one begins is in `chat.acceptance`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from uuid import UUID

from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404

from chat.connections import Connection
from chat.conversations import history
from chat.database import when_unlocked
from chat.errors import ServerStopping, Unanswered
from chat.lifecycle import remote
from chat.lifecycle.live import LiveResponse, Outcome
from chat.lifecycle.supervisor import supervisor
from chat.limits.request_slots import hold_nothing
from chat.models import Conversation, Response
from chat.questions import Accepted, Question
from modelhost.errors import GenerationFailed

GOES_ON = "The server is stopping; the response goes on when it is back, and can be followed then."
LOOK = 0.5  # seconds between looks whether the one who waits is still there
SETTLES_WITHIN = 2.0  # seconds that a stop waits for the row to say so


def join(response: Response, question: Question) -> Accepted:
    """A response that was asked for before, for one more to wait for it.

    Raises Http404 where it was removed meanwhile.
    """
    known = question.history
    if known is None:
        try:
            place = history.place_again(response.prompt)
        except ObjectDoesNotExist:
            raise Http404 from None
        known = history.before(history.steps(place, question.turn))
    turns = [*known, question.turn]
    return Accepted(response.pk, response.prompt, follow(response), turns, response.omitted)


def answer(accepted: Accepted, *, gone: Callable[[], bool] = lambda: False) -> Outcome:
    """Block until the response is complete. Raises Unanswered: it failed, or the process ends.

    gone: whether the one who waits has left, and nobody needs this any more.
    """
    hold_nothing()
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


def stop(response: Response) -> bool:
    """End a response where it is; its text so far stays. Whether there was anything to end."""
    return response.active and (supervisor.cancel(response.pk) or remote.request_stop(response))


def is_being_stopped(response: Response) -> bool:
    """Whether somebody stopped it, here or elsewhere, and its row has no end yet."""
    asked = response.stop_requested or supervisor.is_stopping(response.pk)
    return response.active and asked


def settled(live: LiveResponse) -> bool:
    """Block until a response that was stopped has its end, for a moment; whether it has."""
    hold_nothing()
    return live.wait(SETTLES_WITHIN)


def remove(conversation: Conversation, *, among: QuerySet[Conversation] | None = None) -> bool:
    """Delete a conversation with everything in it; an answer under way ends at once.

    among: those that it must still be one of. Whether it was deleted. Raises OperationalError
    where another session keeps a row of it.
    """
    candidates = Conversation.objects.all() if among is None else among
    under_way = when_unlocked(lambda: _remove(candidates.filter(pk=conversation.pk)))
    for response_id in under_way or ():
        supervisor.recheck(response_id)
    return under_way is not None


def _remove(rows: QuerySet[Conversation]) -> list[UUID] | None:
    """Delete the one that there is; what was being answered in it. None: there is none."""
    with transaction.atomic():
        # As `_hold` does: Django looks for all that depends on it before it deletes any of it.
        held = rows.select_for_update(of=("self",)).first()
        if held is None:
            return None
        rows_of_it = Response.objects.filter(prompt__conversation=held)
        under_way = rows_of_it.active().hold()
        rows_of_it.hold()  # else somebody judges one while Django deletes what it has found
        held.delete()
        return under_way
