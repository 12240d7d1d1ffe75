"""A response that is taken over stays what it was: its moments, tools, place and deaths."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from chat.lifecycle.record import Record
from chat.lifecycle.supervisor import supervisor
from chat.models import Response
from modelhost.types import Sampling
from tests.chat.rows import ELSEWHERE, ask, left_behind
from tests.fakes import ScriptedEngine
from tests.web import eventually


def taken_over(row: Response, **columns: object) -> Response:
    """The row when it says this, some time after this process began to look."""
    supervisor.start(recover=True)
    supervisor._look()
    return eventually(lambda: Response.objects.filter(pk=row.pk, **columns).first())


def test_a_clock_that_was_set_back_leaves_no_row_without_a_process(user, engine):
    row = left_behind(user, "Hel", lease_until=timezone.now() + timedelta(hours=1))

    assert taken_over(row, status="done").text == "Hello, world"


def test_it_keeps_the_moments_of_its_beginning(user, engine):
    began = timezone.now() - timedelta(minutes=1)
    moments = {"started_at": began, "first_token_at": began + timedelta(seconds=1)}
    done = taken_over(left_behind(user, "Hel", **moments), status="done")

    assert {name: getattr(done, name) for name in moments} == moments


def test_a_call_that_was_cut_in_the_middle_becomes_a_call(user, serve):
    call = "get_weather\n```python\ntool_call(city='北京')\n```"
    serve(ScriptedEngine(call))
    done = taken_over(left_behind(user, call[:30], tools=[{"name": "get_weather"}]), status="done")

    assert (done.text, done.finish_reason) == ("", "tool_calls")
    assert done.tool_calls == [{"name": "get_weather", "arguments": {"city": "北京"}}]


@pytest.mark.parametrize("text", ["", "Hel"])
def test_while_it_gets_no_further_its_deaths_are_counted(user, serve, gate, text):
    serve(ScriptedEngine(gate=gate))
    carried = taken_over(left_behind(user, text, attempts=2), started_at__isnull=False)

    assert (carried.text, carried.attempts) == (text, 3)


def test_who_waits_for_it_is_told_how_many_are_ahead(user, serve, gate):
    serve(ScriptedEngine(gate=gate))
    ask(user)
    row = left_behind(user)
    taken_over(row, started_at__isnull=False)

    assert supervisor.live(row.pk).position() == 1


def test_a_full_engine_is_shown_one_row_and_no_more_are_claimed_for_it(user, serve):
    serve(ScriptedEngine(max_requests=0))
    for _ in range(5):
        left_behind(user, "Hel")
    supervisor._upkeep.take_over()

    assert Response.objects.filter(worker="", attempts=0).count() == 1
    assert Response.objects.filter(worker=ELSEWHERE).count() == 4


def test_what_is_carried_already_stays_and_the_second_gives_its_place_back(user, serve, gate):
    engine = serve(ScriptedEngine(gate=gate))
    accepted = ask(user)
    left: list[str] = []
    second = Record(accepted.live, history="", said=[], on_end=lambda: left.append("the second"))
    ticket = engine.submit([1], Sampling(max_tokens=5))
    supervisor.adopt(second, ticket)

    assert (left, ticket.finish.reason) == (["the second"], "cancelled")
    gate.set()
    assert accepted.live.wait(10)
    assert accepted.live.text == "Hello, world"
