"""What one round does with the rows of this process when something in it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, connection

from chat.lifecycle.live import LiveResponse
from chat.lifecycle.record import WORKER, Record
from chat.lifecycle.upkeep import Running, Upkeep
from chat.models import Response
from modelhost.types import Finish, FinishReason, Piece, Sampling, Usage
from tests.chat.rows import left_behind
from tests.fakes import new_ticket


def carried(user: Any, running: Running) -> Record:
    """The record of a response that this process carries, some of whose text is stored."""
    row = left_behind(user, "Hel", worker=WORKER)
    record = Record(live=LiveResponse(row.pk), history="", said=[])
    record.take(Piece("Hel", tuple(map(ord, "Hel"))))
    running[row.pk] = record, new_ticket([1], Sampling(max_tokens=9))
    return record


def upkeep_of(running: Running) -> Upkeep:
    """An upkeep that only writes."""
    return Upkeep(running, lives=list, live=LiveResponse, adopt=lambda record, ticket: None)


@contextmanager
def next_look_fails() -> Iterator[None]:
    """The database goes away at the next look at a response."""
    left = [OperationalError("the server closed the connection")]

    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("SELECT") and left:
            raise left.pop()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fail):
        yield
    assert not left


def test_who_ends_in_a_round_that_fails_behind_its_commit_hears_the_right_end(user):
    running: Running = {}
    removed, whole = carried(user, running), carried(user, running)
    upkeep = upkeep_of(running)
    upkeep.write()
    Response.objects.get(pk=removed.live.id).prompt.conversation.delete()
    removed.take(Piece("lo", (108, 111)))
    whole.take(Piece("lo", (108, 111)))
    whole.settle(Finish(FinishReason.STOP, Usage(3, 6)))
    with next_look_fails():
        upkeep.write()
    assert Response.objects.get().status == "done"
    assert not whole.live.ended
    upkeep.write()

    outcome = whole.live.outcome
    assert outcome is not None
    assert (outcome.status, outcome.error, outcome.usage) == ("done", "", Usage(3, 6))
    assert whole.live.text == Response.objects.get().text == "Hello"
    assert (running, upkeep.failing_since) == ({}, None)


def test_there_is_always_something_to_write_about_a_row(user):
    record = carried(user, {})
    record.settle(Finish(FinishReason.STOP, Usage(3, 6)))
    outcome = record.outcome
    record.written(record.news(outcome, record.hold), outcome, record.hold)

    assert record.news(outcome, record.hold) == {"status": "done"}


def test_what_could_not_be_written_and_has_gone_is_no_trouble_any_more(user):
    running: Running = {}
    record = carried(user, running)
    upkeep = upkeep_of(running)
    with writes_fail():
        upkeep.write()
    assert upkeep.failing_since is not None
    del running[record.live.id]
    upkeep.write()

    assert upkeep.failing_since is None


@contextmanager
def writes_fail() -> Iterator[None]:
    """The database takes no updates."""

    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("UPDATE"):
            raise OperationalError("disk I/O error")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fail):
        yield


def test_a_record_that_raises_what_nobody_foresaw_keeps_no_other_from_its_end(user):
    running: Running = {}
    bad, good = carried(user, running), carried(user, running)
    bad.said = [object()]  # no turn
    for record in (bad, good):
        record.settle(Finish(FinishReason.STOP, Usage(3, 6)))
    upkeep_of(running).write()

    assert list(running) == [bad.live.id]
    assert good.live.outcome.status == "done"
    assert {row.pk: row.status for row in Response.objects.all()} == {
        bad.live.id: "streaming",
        good.live.id: "done",
    }
    assert bad.due, "and it is tried again"
