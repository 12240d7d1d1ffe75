"""What a process left behind is continued by the next one, as if it had never been cut."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone

from chat.lifecycle import recovery
from chat.lifecycle.record import WORKER
from chat.lifecycle.supervisor import supervisor
from chat.limits.admission import admission
from chat.models import Response
from modelhost.host import host
from tests.chat.rows import ELSEWHERE, ask, carried_elsewhere, left_behind, row_of
from tests.fakes import STOP, ScriptedEngine, Turnstile
from tests.web import eventually

WHOLE = "Hello, world"


@pytest.fixture
def recover() -> Callable[[], None]:
    """Take over at once, then begin as the server does: two looks at a time share the rows."""

    def begin() -> None:
        supervisor._upkeep.take_over()
        supervisor.start(recover=True)

    return begin


def settled(row: Response) -> Response:
    """The row when it has its outcome."""
    return eventually(
        lambda: Response.objects.exclude(status__in=Response.ACTIVE).filter(pk=row.pk).first()
    )


@pytest.mark.parametrize("said", ["", "H", "Hello", "Hello,", "Hello, w", WHOLE])
def test_the_text_becomes_what_it_would_have_been(user, engine, recover, said):
    whole = ask(user)
    assert whole.live.wait(10)
    row = left_behind(user, said)
    recover()

    left, uncut = settled(row), row_of(whole)
    for name in ("status", "finish_reason", "text", "token_ids", "fingerprint", "error"):
        assert getattr(left, name) == getattr(uncut, name), name
    assert (left.prompt_tokens, left.completion_tokens) == (uncut.prompt_tokens, len(WHOLE) + 1)
    assert (left.worker, left.lease_until, left.continuation, left.attempts) == ("", None, None, 0)
    assert engine.prompts[0] == engine.prompts[1]
    assert engine.resumes[1] == [*map(ord, said)]
    assert engine.owners == [str(user.pk)] * 2


def test_it_is_continued_with_its_own_sampling(user, engine, recover):
    settings = {"seed": -7, "temperature": 0.5, "top_p": 0.25, "top_k": 3, "max_tokens": 8}
    row = left_behind(user, "Hel", stop=["!"], **settings)
    recover()

    left = settled(row)
    assert (left.text, left.finish_reason) == ("Hello, w", "length")
    [used] = engine.samplings
    assert {name: getattr(used, name) for name in settings} == settings
    assert used.stop == ("!",)


def test_ids_are_the_truth_and_not_the_text(user, engine, recover):
    """A text that may become a stop text is held back, and is lost with its process."""
    held = left_behind(user, "Hello", token_ids=[*map(ord, "Hello, w")], stop=[", world!"])
    cut = left_behind(user, "Hello", token_ids=[*map(ord, "Hello, w")], stop=[", wo"])
    recover()

    assert settled(held).text == WHOLE
    assert settled(cut).text == "Hello"


@pytest.mark.parametrize(
    ("ids", "columns", "reason"),
    [
        ([*map(ord, WHOLE), STOP], {}, "stop"),
        ([*map(ord, WHOLE)], {"max_tokens": 12}, "length"),
        ([*map(ord, WHOLE)], {"stop": ["world"]}, "stop"),
    ],
)
def test_a_response_that_only_missed_its_end_gets_it(user, engine, recover, ids, columns, reason):
    row = left_behind(user, WHOLE, token_ids=ids, **columns)
    recover()

    left = settled(row)
    assert (left.status, left.finish_reason, left.token_ids) == ("done", reason, ids)
    assert left.text == ("Hello, " if "stop" in columns else WHOLE)


def test_what_a_living_process_carries_is_left_alone(user, engine, recover):
    row = carried_elsewhere(user, "Hel")
    before = Response.objects.filter(pk=row.pk).values().get()
    recover()

    assert Response.objects.filter(pk=row.pk).values().get() == before
    assert engine.prompts == []


def test_a_command_that_only_asks_takes_nothing_over(user, engine):
    row = left_behind(user, "Hel")
    supervisor.start()
    supervisor._look()

    row.refresh_from_db()
    assert (row.status, row.worker) == ("streaming", ELSEWHERE)


def test_nobody_takes_over_what_is_only_just_stored(user, serve):
    found: list[list[Response]] = []

    class Slow(ScriptedEngine):
        def submit(self, *arguments, **options):
            found.append([*recovery.abandoned(ours=[])])
            return super().submit(*arguments, **options)

    serve(Slow())
    assert ask(user).live.wait(10)
    assert found == [[]]


def test_of_two_who_read_a_row_one_gets_it(user, engine):
    first, second = left_behind(user, "a"), left_behind(user, "b")
    claiming = recovery.claim(ours=[])
    assert next(claiming) == first
    later = timezone.now() + timedelta(seconds=5)
    Response.objects.filter(pk=second.pk).update(worker="a-third:1", lease_until=later)

    assert list(claiming) == []
    rows = {row.text: (row.worker, row.attempts) for row in Response.objects.all()}
    assert rows == {"a": (WORKER, 1), "b": ("a-third:1", 0)}


def test_many_claimers_get_each_row_once(user, engine):
    rows = {left_behind(user, str(at)).pk for at in range(20)}
    claimed: list = []
    barrier = threading.Barrier(6)

    def claim() -> None:
        barrier.wait(10)
        claimed.extend(row.pk for row in recovery.claim(ours=[]))
        connections.close_all()

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(claimed) == 20
    assert set(claimed) == rows
    assert set(Response.objects.values_list("attempts", flat=True)) == {1}


def test_many_rows_are_continued_oldest_first(user, engine):
    rows = [left_behind(user, "Hel", prompt=f"Prompt {at:02}") for at in range(30)]
    supervisor.start(recover=True)

    assert {settled(row).text for row in rows} == {WHOLE}
    prompts = [engine.prompt_text(at) for at in range(30)]
    assert prompts == [f"user: Prompt {at:02}\n" for at in range(30)]


@pytest.mark.parametrize(
    "columns", [{"model": "gpt-5"}, {"revision": "r0"}, {"adapter": "lora@1"}], ids=str
)
def test_another_model_cannot_go_on(user, engine, recover, columns):
    row = left_behind(user, "Hel", **columns)
    recover()

    left = settled(row)
    assert (left.status, left.finish_reason, left.text) == ("interrupted", "error", "Hel")
    assert left.error == (
        "The server stopped while it worked on this response; "
        "another model is served now (scripted-model)."
    )
    assert left.completion_tokens == 3
    assert left.fingerprint == recovery.fingerprint_of(row) != ""
    assert left.finished_at is not None
    assert engine.prompts == []


def test_a_row_from_before_there_were_continuations_is_interrupted(user, engine, recover):
    row = left_behind(user, "Hel", continuation=None)
    recover()

    assert (settled(row).status, settled(row).text) == ("interrupted", "Hel")
    assert "not known any more" in settled(row).error


def test_what_was_there_at_each_death_is_given_up(user, engine, recover):
    suspect = left_behind(user, "Hel", attempts=recovery.ATTEMPTS)
    unlucky = left_behind(user, "Hel", attempts=recovery.ATTEMPTS - 1)
    recover()

    assert settled(suspect).status == "interrupted"
    assert "5 times" in settled(suspect).error
    assert settled(unlucky).text == WHOLE


def test_a_response_that_grows_is_not_what_makes_processes_die(user, serve, recover):
    gate = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    row = left_behind(user, "Hel", attempts=3)
    recover()
    assert Response.objects.get().attempts == 4
    gate.admit()

    eventually(lambda: Response.objects.filter(attempts=0, text="Hello").exists())
    gate.set()
    assert settled(row).text == WHOLE


def test_a_prompt_that_does_not_fit_any_more_is_interrupted_with_the_reason(user, serve, recover):
    serve(ScriptedEngine(context_length=10))
    row = left_behind(user, "Hel")
    recover()

    assert settled(row).status == "interrupted"
    assert "does not fit" in settled(row).error


def test_what_was_stopped_meanwhile_is_stopped(user, engine, recover):
    row = left_behind(user, "Hel", stop_requested=True)
    recover()

    left = settled(row)
    assert (left.status, left.finish_reason, left.error) == ("stopped", "cancelled", "")
    assert (left.text, left.completion_tokens) == ("Hel", 3)
    assert engine.prompts == []


def test_what_a_full_engine_refuses_waits_and_is_continued_later(user, serve, recover):
    engine = serve(ScriptedEngine(max_requests=0))
    row = left_behind(user, "Hel")
    recover()

    back = eventually(lambda: Response.objects.filter(worker="").first())
    assert (back.status, back.text, back.attempts) == ("streaming", "Hel", 0)
    assert back.lease_until <= timezone.now()
    engine.max_requests = 256
    assert settled(row).text == WHOLE


def test_it_waits_for_the_model(user, serve, recover):
    host.unload()
    row = left_behind(user, "Hel")
    recover()
    row.refresh_from_db()
    assert (row.worker, row.attempts) == (ELSEWHERE, 0)

    serve(ScriptedEngine())
    assert settled(row).text == WHOLE


def test_what_was_taken_over_takes_a_place_whatever_the_limit(user, serve, gate, settings, recover):
    settings.LLMSITE_MAX_REQUESTS = 1
    serve(ScriptedEngine(gate=gate))
    rows = [left_behind(user, "Hel") for _ in range(3)]
    before = admission.total.requests
    recover()

    assert admission.total.requests == before + 3
    gate.set()
    assert {settled(row).text for row in rows} == {WHOLE}
    eventually(lambda: admission.total.requests == before)


def test_its_last_reader_still_takes_it_along(user, serve, gate, recover):
    serve(ScriptedEngine(gate=gate))
    row = left_behind(user, "Hel", on_disconnect="stop")
    live = supervisor.live(row.pk)
    live.attach()
    recover()
    supervisor.left(live)

    assert (settled(row).status, settled(row).text) == ("stopped", "Hel")


def test_a_row_that_nobody_foresaw_ends_nothing_else(user, engine, recover):
    left_behind(user, "Hel", continuation={"something": "else"})
    row = left_behind(user, "Hel")
    recover()

    assert settled(row).text == WHOLE
    accepted = ask(user)
    assert accepted.live.wait(10)
    assert row_of(accepted).status == "done"
