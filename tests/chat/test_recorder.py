"""Writing live responses into their rows."""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager
from functools import partial

import pytest
from django.db import (
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    connection,
)
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from chat.lifecycle.live import LiveResponse
from chat.lifecycle.record import WORKER, Hold, Record
from chat.lifecycle.recorder import commit, release, settle
from chat.models import Conversation, Prompt, Response
from modelhost.types import Finish, FinishReason, Piece, Role, ToolCall, Turn, Usage
from tests.chat.rows import carried_elsewhere


def record_of(user, text: str = "") -> Record:
    """A record whose row exists, with some text that is not in the row yet."""
    conversation = Conversation.objects.create(user=user)
    prompt = Prompt.objects.create(conversation=conversation, content="a")
    row = Response.objects.create(prompt=prompt, user=user, worker=WORKER)
    record = Record(live=LiveResponse(row.pk), history="", said=[Turn(Role.USER, "a")])
    if text:
        record.take(Piece(text, tuple(map(ord, text))))
    return record


def row_of(record: Record) -> Response:
    """Its row as the database has it."""
    return Response.objects.get(pk=record.live.id)


@contextmanager
def trouble(error: Exception, *, times: int = 1, only: str = ""):
    """The database fails on updates of responses, or on those that say `only`."""
    left = times

    def fail(execute, sql, params, many, context):
        nonlocal left
        if sql.startswith("UPDATE") and only in json.dumps(params, default=str) and left:
            left -= 1
            raise error
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fail):
        yield


def test_all_news_go_into_one_transaction(user, django_assert_max_num_queries):
    records = [record_of(user, f"text {at}") for at in range(30)]
    with django_assert_max_num_queries(32):  # the transaction's two ends and one update each
        commit(records)

    assert [row_of(record).text for record in records] == [f"text {at}" for at in range(30)]
    assert {row_of(record).status for record in records} == {"streaming"}
    assert not any(record.dirty or record.hold is Hold.LOST for record in records)


def test_an_end_is_written_with_everything_that_belongs_to_it(user):
    record = record_of(user, "Hi")
    record.settle(Finish(FinishReason.LENGTH, Usage(3, 2)))
    commit([record])

    row = row_of(record)
    assert (row.status, row.finish_reason, row.text, row.token_ids) == (
        "done",
        "length",
        "Hi",
        [72, 105],
    )
    assert (row.prompt_tokens, row.completion_tokens) == (3, 2)
    assert row.finished_at == record.finished_at
    assert (row.lease_until, row.worker, row.continuation) == (None, "", None)
    assert len(row.fingerprint) == 64
    assert record.stored == record.outcome


@pytest.mark.parametrize(
    ("reason", "suspended", "status"),
    [
        (FinishReason.STOP, False, "done"),
        (FinishReason.LENGTH, False, "done"),
        (FinishReason.TOOL_CALLS, False, "done"),
        (FinishReason.CANCELLED, False, "stopped"),
        (FinishReason.STOP, True, "done"),
        (FinishReason.ERROR, False, "failed"),
    ],
)
def test_every_finish_has_its_status(user, reason, suspended, status):
    record = record_of(user)
    record.suspended = suspended
    record.settle(Finish(reason, Usage(1, 1), "why" if reason is FinishReason.ERROR else ""))
    commit([record])

    row = row_of(record)
    assert row.status == status
    assert bool(row.error) == (status == "failed")


@pytest.mark.parametrize(("text", "status"), [("", "queued"), ("Hel", "streaming")])
def test_what_the_end_of_the_process_cut_is_left_open_for_the_next_one(user, text, status):
    record = record_of(user, text)
    record.suspended = True
    record.settle(Finish(FinishReason.CANCELLED, Usage(1, 1)))
    commit([record])

    row = row_of(record)
    assert (row.status, row.text, row.token_ids) == (status, text, [*map(ord, text)])
    assert (row.worker, row.finish_reason, row.finished_at) == ("", "", None)
    assert row.lease_until <= timezone.now()
    assert record.outcome is record.stored is None


def test_what_somebody_stopped_is_stopped_though_the_process_ends_too(user):
    record = record_of(user, "Hel")
    record.stopped = record.suspended = True
    record.settle(Finish(FinishReason.CANCELLED, Usage(1, 3)))
    commit([record])

    assert (row_of(record).status, row_of(record).text) == ("stopped", "Hel")
    assert record.stored == record.outcome


@pytest.mark.parametrize("worker", ["", "another-host:1"])
def test_a_row_that_another_process_carries_is_not_written(user, worker):
    record = record_of(user, "text")
    Response.objects.update(worker=worker)
    commit([record])

    assert record.hold is Hold.LOST
    assert row_of(record).text == ""


@pytest.mark.parametrize("error", [OperationalError("locked"), InterfaceError("closed")])
def test_trouble_with_the_database_loses_nothing(user, error):
    records = [record_of(user, "one"), record_of(user, "two")]
    with trouble(error):
        commit(records)
    assert all(record.dirty for record in records)
    assert row_of(records[0]).text == ""

    commit(records)
    assert [row_of(record).text for record in records] == ["one", "two"]
    for record in records:
        assert row_of(record).first_token_at == record.first_token_at is not None


def test_only_what_is_new_is_written(user):
    record = record_of(user)
    record.started_at = timezone.now()
    with CaptureQueriesContext(connection) as queries:
        commit([record])
        record.take(Piece("a", (97,)))
        commit([record])
        record.take(Piece("b", (98,)))
        commit([record])
        record.leased_at -= 2
        commit([record])

    written = [one["sql"] for one in queries if "UPDATE" in one["sql"]]
    columns = ["started_at", "first_token_at", '"text"', "lease_until"]
    assert [[name for name in columns if name in sql] for sql in written] == [
        columns,
        ["first_token_at", '"text"'],
        ['"text"'],
        ["lease_until"],
    ]
    row = row_of(record)
    assert (row.started_at, row.first_token_at) == (record.started_at, record.first_token_at)
    assert (row.text, row.status, row.attempts) == ("ab", "streaming", 0)
    assert row.lease_until > timezone.now()


def test_of_many_rows_those_that_are_gone_are_known(user):
    records = [record_of(user, f"text {at}") for at in range(5)]
    row_of(records[1]).delete()
    Response.objects.filter(pk=records[3].live.id).update(worker="another-host:1")
    commit(records)

    assert [record.hold is Hold.LOST for record in records] == [False, True, False, True, False]
    assert [row_of(records[at]).text for at in (0, 2, 4)] == ["text 0", "text 2", "text 4"]
    assert row_of(records[3]).text == ""


@pytest.mark.parametrize(
    "error",
    [
        DataError("too long"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no"),
        OverflowError("too big"),
        TypeError("not to be compared"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_row_that_cannot_be_stored_fails_alone(user, error):
    good, bad = record_of(user, "good"), record_of(user, "bad")
    with trouble(error, times=2, only='"bad"'):
        commit([good, bad])

    assert (row_of(good).text, row_of(good).status) == ("good", "streaming")
    row = row_of(bad)
    assert (row.text, row.status, row.error) == ("", "failed", "The response could not be stored.")
    assert bad.stored == bad.outcome
    assert bad.stored.failed
    assert row.lease_until is None


def test_a_value_that_is_no_json_keeps_nobody_else_from_being_written(user):
    good, bad = record_of(user, "good"), record_of(user, "bad")
    calls = (ToolCall("f", {"x": {1: "a key that is no text", "b": "and one that is"}}),)
    bad.settle(Finish(FinishReason.TOOL_CALLS, Usage(1, 3), tool_calls=calls))
    commit([bad, good])

    assert row_of(good).text == "good"
    assert row_of(bad).status == "failed"


@pytest.mark.parametrize("error", [InternalError("read only"), ProgrammingError("no such column")])
def test_what_takes_nothing_at_all_is_no_fault_of_a_row(user, error):
    records = [record_of(user, "one"), record_of(user, "two")]
    with trouble(error, times=99):
        assert commit(records) is error
    assert [(record.dirty, record.finish) for record in records] == [(True, None)] * 2

    assert commit(records) is None
    assert [row_of(record).text for record in records] == ["one", "two"]


def test_a_row_that_is_gone_is_noticed(user):
    record = record_of(user, "text")
    Response.objects.all().delete()
    commit([record])

    assert record.hold is Hold.LOST


@pytest.mark.parametrize("status", ["done", "stopped", "failed", "interrupted"])
def test_a_settled_row_is_never_written_again(user, status):
    record = record_of(user, "text")
    Response.objects.update(status=status)
    commit([record])

    assert record.hold is Hold.LOST
    assert (row_of(record).text, row_of(record).status) == ("", status)


def test_the_database_knows_only_our_statuses(user):
    record = record_of(user)
    with pytest.raises(IntegrityError):
        Response.objects.filter(pk=record.live.id).update(status="nonsense")


def test_a_record_of_nothing_has_no_row(db):
    record = Record(live=LiveResponse(uuid.uuid4()), history="", said=[])
    commit([record])
    assert record.hold is Hold.LOST


@pytest.mark.parametrize("end", [release, partial(settle, status=Response.Status.FAILED)])
def test_a_response_that_another_process_carries_is_not_ended_from_here(user, end):
    row = carried_elsewhere(user, "Hel")
    end(row.pk)

    assert Response.objects.filter(
        pk=row.pk, worker=row.worker, lease_until=row.lease_until, status="streaming"
    ).exists()
