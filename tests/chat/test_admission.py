"""How much is taken in at once, and when to come again: the rules, under a clock of our own."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from chat.admission import LONGEST_WAIT, UNKNOWN_WAIT, Admission, Load, Overloaded, caller_of
from tests.fakes import Clock

Leave = Callable[[], None]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def places(clock: Clock, settings: Any) -> Admission:
    """Four requests with 100 tokens for all, three with 60 for one."""
    settings.LLMSITE_MAX_REQUESTS = 4
    settings.LLMSITE_MAX_QUEUED_TOKENS = 100
    settings.LLMSITE_MAX_REQUESTS_PER_CALLER = 3
    settings.LLMSITE_MAX_TOKENS_PER_CALLER = 60
    return Admission(clock)


def fill(places: Admission, count: int, *, caller: str = "", tokens: int = 1) -> list[Leave]:
    """That many requests inside; of callers of their own, or of one."""
    return [places.enter(caller or f"caller {at}", tokens=tokens) for at in range(count)]


def refused(places: Admission, caller: str = "ada", *, tokens: int = 1) -> Overloaded:
    """The refusal of one more."""
    before = places.total
    with pytest.raises(Overloaded) as caught:
        places.enter(caller, tokens=tokens)
    assert places.total == before
    return caught.value


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


def test_while_nothing_has_left_the_wait_is_a_guess(places):
    fill(places, 4)

    assert refused(places).retry_after == UNKNOWN_WAIT


def test_the_wait_is_what_the_measured_rate_promises(places, clock):
    leaving = fill(places, 4)
    for leave in leaving[:2]:
        clock.now += 15
        leave()
    fill(places, 2)  # two left within 30 seconds, so the next one is expected in 15

    assert refused(places).retry_after == 15


def test_a_single_end_is_measured_against_the_work_before_it(places, clock):
    leaving = fill(places, 4)
    clock.now += 40
    leaving[0]()
    fill(places, 1)

    assert refused(places).retry_after == 40


def test_a_rest_is_no_work(places, clock):
    for _ in range(3):
        leave = places.enter("eve", tokens=1)
        clock.now += 5
        leave()
        clock.now += 10
    fill(places, 4)

    assert refused(places).retry_after == 5


def test_the_wait_grows_with_what_is_too_much(places, clock):
    leave = places.enter("eve", tokens=30)
    clock.now += 10  # 3 tokens a second
    leave()
    fill(places, 2, tokens=40)

    assert refused(places, tokens=50).retry_after == 10  # 30 tokens too many
    assert refused(places, tokens=80).retry_after == 20


def test_of_requests_and_tokens_the_scarcer_decides(places, clock):
    leave = places.enter("eve", tokens=3)
    clock.now += 6  # a request in 6 seconds, a token in 2
    leave()
    fill(places, 4, tokens=24)

    assert refused(places, tokens=34).retry_after == 60  # 30 tokens


def test_a_caller_waits_for_its_own_places_to_become_free(places, clock):
    mine = fill(places, 3, caller="ada")
    for _ in range(20):  # others come and go all the time
        clock.now += 1
        places.enter("bob", tokens=1)()
    mine[0]()
    places.enter("ada", tokens=1)

    assert refused(places, "ada").retry_after == 20


def test_how_fast_others_are_says_nothing_about_a_caller_of_whom_nothing_has_left(places, clock):
    fill(places, 3, caller="ada")
    for _ in range(20):
        clock.now += 1
        places.enter("bob", tokens=1)()

    assert refused(places, "ada").retry_after == UNKNOWN_WAIT == 10


def test_only_the_last_minute_of_work_is_measured(places, clock):
    places.enter("eve", tokens=1)()
    fill(places, 4)
    clock.now += 59
    assert refused(places).retry_after == 59
    clock.now += 2

    assert refused(places).retry_after == UNKNOWN_WAIT


def test_what_was_before_a_long_rest_says_nothing(places, clock):
    leave = places.enter("eve", tokens=1)
    clock.now += 30
    leave()
    clock.now += 61
    fill(places, 4)
    clock.now += 1

    assert refused(places).retry_after == UNKNOWN_WAIT


def test_callers_who_rest_are_forgotten(places, clock):
    for at in range(500):
        places.enter(f"caller {at}", tokens=1)()
        clock.now += 1
    fill(places, 1, caller="ada")

    assert len(places._of) < 150


def test_nobody_is_sent_away_for_less_than_a_second(places, clock):
    for _ in range(1000):
        places.enter("eve", tokens=1)()
    fill(places, 4)

    assert refused(places).retry_after == 1


def test_nobody_is_sent_away_for_more_than_two_minutes(places, clock, settings):
    settings.LLMSITE_MAX_QUEUED_TOKENS = 10_000
    leave = places.enter("eve", tokens=1)
    clock.now += 50
    leave()
    fill(places, 2, tokens=4000)

    assert refused(places, tokens=9000).retry_after == LONGEST_WAIT == 120


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
