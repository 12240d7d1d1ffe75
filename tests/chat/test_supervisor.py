"""Generations belong to the process: they go on, end and are written whoever follows them."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest
from django.db import DataError, OperationalError, connections, transaction
from django.utils import timezone

from chat import recorder, responses
from chat import supervisor as module
from chat.models import Conversation, Prompt, Response
from chat.responses import Question
from chat.supervisor import supervisor
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import eventually


def ask(user, text: str = "a") -> responses.Accepted:
    """A prompt under way."""
    return responses.ask(Question(content=text, surface="test"), user=user)


def row_of(accepted: responses.Accepted) -> Response:
    """Its row as the database has it."""
    return Response.objects.get(pk=accepted.response_id)


@pytest.fixture
def trouble(monkeypatch):
    """Makes the next commits fail; tells when they did."""

    def cause(error: Exception, *, times: int = 1, text: str = "") -> threading.Semaphore:
        write, left, happened = recorder._write, [times], threading.Semaphore(0)

        def failing(record):
            if left[0] and text in record.live.text:
                left[0] -= 1
                happened.release()
                raise error
            return write(record)

        monkeypatch.setattr(recorder, "_write", failing)
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
    write = module.commit

    def counted(records):
        sizes.append(len(records))
        write(records)

    monkeypatch.setattr(module, "commit", counted)
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

    assert all(happened.acquire(timeout=1) for _ in range(times))
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
    assert happened.acquire(timeout=1)
    assert row_of(accepted).status == "done"


def test_stopping_interrupts_what_runs_and_says_so(user, serve):
    gate = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    accepted = ask(user)
    gate.admit()
    eventually(lambda: accepted.live.text)
    supervisor.stop()

    row = row_of(accepted)
    assert (row.status, row.text) == ("interrupted", "Hello")
    assert (
        row.error
        == accepted.live.outcome.error
        == ("The server stopped while it worked on this response.")
    )
    assert supervisor.active == 0
    with pytest.raises(responses.GenerationFailed, match="The server stopped"):
        responses.answer(accepted)


def test_after_a_stop_it_can_begin_again(user, serve, gate):
    serve(ScriptedEngine(gate=gate))
    first = ask(user)
    supervisor.stop()
    supervisor.stop()
    gate.set()
    second = ask(user)

    assert second.live.wait(10)
    assert (row_of(first).status, row_of(second).status) == ("interrupted", "done")


def test_an_interrupted_answer_can_be_followed_by_the_next_prompt(user, serve, gate):
    serve(ScriptedEngine(gate=gate))
    first = ask(user)
    supervisor.stop()
    gate.set()
    conversation = first.prompt.conversation
    question = Question(content="b", surface="test", conversation=conversation)
    second = responses.ask(question, user=user)

    assert second.live.wait(10)
    assert second.prompt.follows == row_of(first)


def abandoned(user, *, lease: timedelta) -> Response:
    """A row that some process left behind."""
    conversation = Conversation.objects.create(user=user)
    prompt = Prompt.objects.create(conversation=conversation, content="a")
    until = timezone.now() + lease
    return Response.objects.create(
        prompt=prompt, user=user, status="streaming", text="Hel", lease_until=until
    )


def test_rows_that_a_dead_process_left_behind_become_interrupted(user, engine):
    dead = abandoned(user, lease=timedelta(seconds=-1))
    alive = abandoned(user, lease=timedelta(minutes=1))
    supervisor.start()

    row = eventually(lambda: Response.objects.filter(pk=dead.pk, status="interrupted").first())
    assert (row.text, row.finish_reason) == ("Hel", "error")
    assert "stopped" in row.error
    assert row.finished_at is not None
    alive.refresh_from_db()
    assert alive.status == "streaming"


def test_a_silent_generation_keeps_its_lease(user, serve, gate, monkeypatch):
    monkeypatch.setattr(recorder, "LEASE", timedelta(seconds=0.3))
    monkeypatch.setattr(module, "LEASE", timedelta(seconds=0.3))
    monkeypatch.setattr(module, "COMMIT_EVERY", 0.01)
    monkeypatch.setattr(module, "REAP_EVERY", 0.01)
    serve(ScriptedEngine(gate=gate))
    accepted = ask(user)
    leases: set = set()

    def renewed() -> bool:
        leases.add(row_of(accepted).lease_until)
        return len(leases) > 5

    eventually(renewed)
    assert row_of(accepted).status == "streaming"
    gate.set()
    assert accepted.live.wait(10)
    assert row_of(accepted).status == "done"


def test_an_answer_settled_elsewhere_ends_as_its_row_says(user, serve):
    gate = Turnstile()
    engine = serve(ScriptedEngine("Hel", "lo", gate=gate))
    accepted = ask(user)
    eventually(lambda: row_of(accepted).status == "streaming")
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


def test_a_finished_answer_is_read_from_its_row(user, engine):
    accepted = ask(user)
    assert accepted.live.wait(10)
    again = responses.resume(responses.find(accepted.response_id, user=user))

    assert again is not accepted.live
    assert (again.text, again.outcome) == ("Hello, world", accepted.live.outcome)


def test_an_answer_that_another_process_makes_is_said_to_be_so(user, engine):
    row = abandoned(user, lease=timedelta(minutes=1))
    live = responses.resume(row)

    assert live.text == "Hel"
    assert "another process" in live.outcome.error


def test_an_engine_that_refuses_at_the_last_moment_leaves_a_failed_row(user, serve):
    class Sudden(ScriptedEngine):
        def submit(self, *args, **options):
            self.max_requests = 0
            return super().submit(*args, **options)

    serve(Sudden())
    with pytest.raises(responses.ModelHostError):
        ask(user)

    row = Response.objects.get()
    assert (row.status, row.error, row.lease_until) == ("failed", "Full.", None)


def test_our_own_responses_are_not_reaped_when_their_lease_could_not_be_renewed(user, serve, gate):
    serve(ScriptedEngine(gate=gate))
    accepted = responses.ask(Question(content="Hi", surface="test"), user=user)
    late = timezone.now() - timedelta(seconds=1)  # as after a long lock of the database
    Response.objects.filter(pk=accepted.response_id).update(lease_until=late)

    supervisor._reap()

    row = Response.objects.get(pk=accepted.response_id)
    assert row.active
    gate.set()
    assert accepted.live.wait(10)
    assert accepted.live.text == "Hello, world"


def test_a_prompt_is_not_accepted_inside_somebody_elses_transaction(user, serve):
    engine = serve(ScriptedEngine())

    with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        responses.ask(Question(content="Hi", surface="test"), user=user)

    assert engine.prompts == []


def test_a_request_that_waits_for_its_answer_holds_no_connection(user, serve):
    serve(ScriptedEngine())
    accepted = responses.ask(Question(content="Hi", surface="test"), user=user)
    assert connections["default"].connection is not None

    responses.answer(accepted)

    assert connections["default"].connection is None
