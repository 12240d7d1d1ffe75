"""Who makes the engine die again and again is found, and fails alone."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest

from modelhost.types import FinishReason
from tests.modelhost.deaths import Poison, crew, submit_killer


@pytest.mark.parametrize("position", [0, 30])
@pytest.mark.parametrize("place", ["first", "last"])
def test_who_kills_fails_alone_and_the_neighbours_get_their_answers(serve, story, position, place):
    engine = serve()
    expected = [story(ticket) for ticket in crew(engine, 6)]
    sentence = "The engine died 3 times while it worked on this generation."

    with Poison(engine, position).held():
        killer = submit_killer(engine) if place == "first" else None
        neighbours = crew(engine, 6)
        killer = killer or submit_killer(engine)

    assert [story(ticket) for ticket in neighbours] == expected
    assert killer.wait(30)
    assert killer.finish.reason is FinishReason.ERROR
    assert killer.finish.error == sentence
    revived(engine)
    assert engine.restarts == 3
    assert story(crew(engine, 1)[0]) == expected[0]
    assert engine.active == 0


def test_several_that_kill_are_all_found(serve, story):
    engine = serve()
    expected = [story(ticket) for ticket in crew(engine, 4)]

    with Poison(engine, 20).held():
        killers = [submit_killer(engine) for _ in range(3)]
        neighbours = crew(engine, 4)

    assert [story(ticket) for ticket in neighbours] == expected
    assert all(ticket.wait(30) for ticket in killers)
    assert {ticket.finish.reason for ticket in killers} == {FinishReason.ERROR}


def test_one_that_is_sent_again_and_again_does_not_add_up_against_the_others(serve, story):
    engine = serve()
    expected = [story(ticket) for ticket in crew(engine, 4, max_tokens=400)]
    Poison(engine, 20)

    neighbours = crew(engine, 4, max_tokens=400)
    for _ in range(4):
        killer = submit_killer(engine)
        assert killer.wait(30)
        revived(engine)

    assert [story(ticket) for ticket in neighbours] == expected


def revived(engine):
    """Wait until it is alive again after a death that was noticed."""
    with engine._life:
        assert engine.alive


def test_of_those_under_suspicion_one_runs_at_a_time(serve, story):
    engine = serve()
    poison = Poison(engine, 20)
    prepare = engine._manager.logit_processor.prepare_tensor_args
    together = {0: 0, 1: 0, 2: 0, 3: 0}  # requests of the largest batch, by deaths before

    def count(requests_in_batch, arg_storage):
        deaths = engine.restarts
        ids = {request.state.request_id for request in requests_in_batch}
        together[deaths] = max(together[deaths], len(ids))
        return prepare(requests_in_batch, arg_storage)

    engine._manager.logit_processor.prepare_tensor_args = count
    with poison.held():
        killer = submit_killer(engine)
        neighbours = crew(engine, 5)

    assert all(story(ticket) for ticket in neighbours)
    assert killer.wait(30)
    assert together == {0: 6, 1: 6, 2: 1, 3: together[3]}


def test_one_under_suspicion_that_goes_on_is_not_why_when_a_newcomer_kills(serve, story):
    engine = serve()
    (expected,) = map(story, crew(engine, 1, max_tokens=400))
    poison = Poison(engine, 20)

    with poison.held():
        killers = [submit_killer(engine)]
        (neighbour,) = crew(engine, 1, max_tokens=400)
    with third_step_behind_two_deaths(engine):  # of the neighbour, which runs apart as the newest
        killers.append(submit_killer(engine))

    assert story(neighbour) == expected
    assert all(ticket.wait(30) for ticket in killers)
    assert {ticket.finish.reason for ticket in killers} == {FinishReason.ERROR}


@contextmanager
def third_step_behind_two_deaths(engine):
    """Inside, the engine waits there."""
    reached, go_on, steps = threading.Event(), threading.Event(), []
    prepare = engine._manager.logit_processor.prepare_tensor_args

    def wait(requests_in_batch, arg_storage):
        if engine.restarts == 2 and requests_in_batch:
            steps.append(len(requests_in_batch))
            if len(steps) == 3:
                reached.set()
                assert go_on.wait(10)
        return prepare(requests_in_batch, arg_storage)

    engine._manager.logit_processor.prepare_tensor_args = wait
    assert reached.wait(30)
    yield
    go_on.set()
