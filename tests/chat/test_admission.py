"""How much is taken in at once, and when to come again: the rules, under a clock of our own."""

from __future__ import annotations

import pickle
import threading

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from chat.limits.admission import Admission, Load, Overloaded, caller_of
from tests.chat.admitting import fill, refused
from tests.fakes import Clock


def test_everybody_together_may_have_so_many_requests(places):
    leaving = fill(places, 4)
    assert "4 requests with 100 prompt tokens at once" in str(refused(places))
    leaving[0]()
    places.enter("ada", tokens=1)

    assert places.total == Load(4, 4)


def test_one_caller_may_have_so_many_requests_and_keeps_nobody_else_out(places):
    fill(places, 3, caller="ada")
    assert "One caller may have 3 requests" in str(refused(places, "ada"))

    places.enter("bob", tokens=1)


def test_everybody_together_may_have_so_many_tokens(places):
    fill(places, 2, tokens=45)
    refused(places, tokens=11)

    places.enter("ada", tokens=10)


def test_one_caller_may_have_so_many_tokens(places):
    places.enter("ada", tokens=31)
    assert "60 prompt tokens" in str(refused(places, "ada", tokens=30))
    places.enter("bob", tokens=30)

    places.enter("ada", tokens=29)


def test_a_single_prompt_of_any_length_fits(places):
    leave = places.enter("ada", tokens=5000)
    refused(places, "ada")
    refused(places, "bob")
    leave()

    places.enter("bob", tokens=5000)


def test_a_place_is_given_back_once(places):
    leave, *_ = fill(places, 2, tokens=7)
    for _ in range(3):
        leave()

    assert places.total == Load(1, 7)


def test_a_look_takes_no_place(places):
    for _ in range(10):
        places.check("ada")
    fill(places, 4)
    with pytest.raises(Overloaded):
        places.check("ada")


def test_what_was_inside_before_is_not_refused_but_counts(places):
    fill(places, 4)
    leave = places.enter("ada", tokens=500, always=True)
    assert places.total == Load(5, 504)
    refused(places)
    leave()

    assert places.total == Load(4, 4)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.floats(0, 40), st.integers(0, 200), st.booleans()), max_size=60))
def test_whatever_happens_a_wait_is_whole_seconds_from_1_to_120(settings, steps):
    settings.LLMSITE_MAX_REQUESTS, settings.LLMSITE_MAX_QUEUED_TOKENS = 3, 300
    settings.LLMSITE_MAX_REQUESTS_PER_CALLER, settings.LLMSITE_MAX_TOKENS_PER_CALLER = 2, 200
    clock = Clock()
    places, inside = Admission(clock), []
    waits: list[int] = []
    for seconds, tokens, leaves in steps:
        clock.now += seconds
        if leaves and inside:
            inside.pop(0)()
        try:
            inside.append(places.enter("ada" if tokens % 2 else "bob", tokens=tokens))
        except Overloaded as error:
            waits.append(error.retry_after)
    for leave in inside:
        leave()

    assert all(isinstance(wait, int) and 1 <= wait <= 120 for wait in waits)
    assert places.total == Load(0, 0)
    assert {meter.load for meter in places._of.values()} <= {Load(0, 0)}


def test_many_threads_never_get_more_places_than_there_are(places, settings):
    settings.LLMSITE_MAX_REQUESTS_PER_CALLER = 100
    most, barrier = [], threading.Barrier(8)

    def work() -> None:
        barrier.wait(10)
        for _ in range(300):
            try:
                leave = places.enter("ada", tokens=1)
            except Overloaded:
                continue
            most.append(places.total.requests)
            leave()
            leave()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert max(most) <= 4
    assert places.total == Load(0, 0)


def test_a_caller_is_a_key_or_a_person_without_one():
    names = {caller_of(1, 1), caller_of(2, 1), caller_of(None, 1), caller_of(None, 2)}

    assert len(names) == 4
    assert caller_of(1, 1) == caller_of(1, 1)


def test_what_left_long_ago_takes_no_memory(places, clock):
    always_busy = places.enter("ada", tokens=1)
    sizes = []
    for _ in range(3):
        for _ in range(200):
            leave = places.enter("bob", tokens=1)
            clock.now += 1
            leave()
        sizes.append(len(pickle.dumps([places._all, places._of])))
    always_busy()

    assert max(sizes) < 1.1 * sizes[0]


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (Load(1, 1), "1 request with 1 prompt token"),
        (Load(2, 500), "2 requests with 500 prompt tokens"),
    ],
)
def test_a_load_is_said_in_words(load, said):
    assert str(load) == said
