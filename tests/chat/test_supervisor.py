"""Generations belong to the process: they go on, end and are written whoever follows them."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest
from django.db import DataError, OperationalError, connections, transaction
from django.utils import timezone

from chat import responses
from chat.lifecycle import record, recorder, upkeep
from chat.lifecycle import supervisor as module
from chat.lifecycle.lives import Lives
from chat.lifecycle.supervisor import supervisor
from chat.models import Response
from modelhost.errors import Busy
from tests.chat.rows import ask, row_of
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import eventually


@pytest.fixture
def trouble(monkeypatch):
    """Makes the next commits fail; tells when they did."""

    def cause(error: Exception, *, times: int = 1, text: str = "") -> threading.Semaphore:
        news, left, happened = recorder._news, [times], threading.Semaphore(0)

        def failing(record):
            if left[0] and text in record.live.text:
                left[0] -= 1
                happened.release()
                raise error
            return news(record)

        monkeypatch.setattr(recorder, "_news", failing)
        return happened

    return cause


def test_text_is_stored_while_it_comes(user, serve):
    gate = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    accepted = ask(user)
    gate.admit(2)

    row = eventually(lambda: Response.objects.filter(text="Hello, ").first())
    assert row.status == "streaming"
    assert row.token_ids == [*map(ord, "Hello, ")]
    assert row.lease_until > timezone.now()
    gate.set()
    assert accepted.live.wait(10)
    assert row_of(accepted).text == "Hello, world"


def test_the_end_is_told_only_after_the_row_says_it(user, engine, monkeypatch):
    seen = []
    tell = module.LiveResponse.close

    def close(live, outcome):
        seen.append((Response.objects.get(pk=live.id).status, outcome.status))
        tell(live, outcome)

    monkeypatch.setattr(module.LiveResponse, "close", close)
    assert ask(user).live.wait(10)

    assert seen == [("done", "done")]


def test_many_generations_share_the_commits(user, serve, gate, monkeypatch):
    sizes = []
    write = upkeep.commit

    def counted(records):
        sizes.append(len(records))
        write(records)

    monkeypatch.setattr(upkeep, "commit", counted)
    serve(ScriptedEngine("Hel", "lo", gate=gate))
    asked = [ask(user, str(at)) for at in range(30)]
    gate.set()
    for accepted in asked:
        assert accepted.live.wait(10)

    assert {row.text for row in Response.objects.all()} == {"Hello"}
    assert len(sizes) < 30


@pytest.mark.parametrize("times", [1, 3])
def test_trouble_with_the_database_loses_nothing(user, serve, gate, trouble, times):
    serve(ScriptedEngine("Hel", "lo", gate=gate))
    happened = trouble(OperationalError("database is locked"), times=times)
    asked = [ask(user, str(at)) for at in range(3)]
    gate.set()
    for accepted in asked:
        assert accepted.live.wait(20)

    assert all(happened.acquire(timeout=10) for _ in range(times))
    assert {(row.text, row.status) for row in Response.objects.all()} == {("Hello", "done")}


def test_an_answer_that_cannot_be_stored_fails_alone(user, serve, trouble):
    gate = Turnstile()
    serve(ScriptedEngine("bad", "more", gate=gate))
    trouble(DataError("no"), times=2, text="bad")
    bad = ask(user)
    gate.admit()
    assert bad.live.wait(10)
    assert bad.live.outcome.failed
    assert row_of(bad).status == "failed"
    assert supervisor.active == 0

    gate.set()
    serve(ScriptedEngine("good"))
    good = ask(user)
    assert good.live.wait(10)
    assert row_of(good).text == "good"


def test_an_answer_that_failed_to_be_stored_is_generated_no_further(user, serve, trouble):
    gate = Turnstile()
    engine = serve(ScriptedEngine("bad", "more", gate=gate))
    trouble(DataError("no"), text="bad")
    accepted = ask(user)
    gate.admit()
    assert accepted.live.wait(10)

    assert engine.tickets[0].finish.reason == "cancelled"
    assert accepted.live.text == "bad"


def test_an_error_that_nobody_foresaw_stops_no_answer(user, engine, trouble):
    happened = trouble(RuntimeError("unforeseen"))
    accepted = ask(user)

    assert accepted.live.wait(10)
    assert happened.acquire(timeout=10)
    assert row_of(accepted).status == "done"


def test_a_silent_generation_keeps_its_lease(user, serve, gate, monkeypatch):
    monkeypatch.setattr(record, "LEASE", timedelta(seconds=0.3))
    monkeypatch.setattr(module, "COMMIT_EVERY", 0.01)
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    serve(ScriptedEngine(gate=gate))
    supervisor.start(recover=True)
    accepted = ask(user)
    leases: set = set()

    def renewed() -> bool:
        leases.add(row_of(accepted).lease_until)
        return len(leases) > 5

    eventually(renewed)
    assert row_of(accepted).status == "queued"
    gate.set()
    assert accepted.live.wait(10)
    assert row_of(accepted).status == "done"


def test_an_answer_settled_elsewhere_ends_as_its_row_says(user, serve):
    gate = Turnstile()
    engine = serve(ScriptedEngine("Hel", "lo", gate=gate))
    accepted = ask(user)
    Response.objects.update(status="interrupted", finish_reason="error", error="Elsewhere.")
    gate.admit()

    assert accepted.live.wait(10)
    assert accepted.live.outcome.error == "Elsewhere."
    assert engine.tickets[0].finish.reason == "cancelled"


def test_an_answer_is_followed_from_any_loop(user, engine):
    accepted = ask(user)

    async def read() -> str:
        return "".join([delta.text async for delta in accepted.live.follow()])

    assert asyncio.run(read()) == "Hello, world"


def test_a_finished_answer_is_read_from_its_row(user, engine, monkeypatch):
    accepted = ask(user)
    assert accepted.live.wait(10)
    monkeypatch.setattr(supervisor, "_lives", Lives())  # as in another process
    again = responses.follow(row_of(accepted))

    assert again is not accepted.live
    assert (again.text, again.outcome) == ("Hello, world", accepted.live.outcome)


def test_all_who_hold_a_response_hold_the_same(user, serve, gate):
    serve(ScriptedEngine(gate=gate))
    accepted = ask(user)

    assert responses.follow(row_of(accepted)) is accepted.live
    gate.set()
    assert accepted.live.wait(10)
    assert responses.follow(row_of(accepted)) is accepted.live


def test_an_engine_that_refuses_at_the_last_moment_leaves_a_failed_row(user, serve):
    class Sudden(ScriptedEngine):
        def submit(self, *args, **options):
            self.max_requests = 0
            return super().submit(*args, **options)

    serve(Sudden())
    with pytest.raises(Busy):
        ask(user)

    row = Response.objects.get()
    assert (row.status, row.error, row.lease_until) == ("failed", "Full.", None)


def test_our_own_responses_are_not_claimed_when_their_lease_could_not_be_renewed(user, serve, gate):
    engine = serve(ScriptedEngine(gate=gate))
    supervisor.start(recover=True)
    accepted = ask(user)
    first = row_of(accepted).lease_until
    eventually(lambda: row_of(accepted).lease_until != first)
    late = timezone.now() - timedelta(seconds=1)  # as after a long lock of the database
    Response.objects.filter(pk=accepted.response_id).update(lease_until=late)

    supervisor._look()

    assert row_of(accepted).attempts == 0
    assert len(engine.prompts) == 1
    gate.set()
    assert accepted.live.wait(10)
    assert accepted.live.text == "Hello, world"


def test_a_prompt_is_not_accepted_inside_somebody_elses_transaction(user, serve):
    engine = serve(ScriptedEngine())

    with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        ask(user)

    assert engine.prompts == []


def test_a_request_that_waits_for_its_answer_holds_no_connection(user, serve):
    serve(ScriptedEngine())
    accepted = ask(user)
    assert connections["default"].connection is not None

    responses.answer(accepted)

    assert connections["default"].connection is None
