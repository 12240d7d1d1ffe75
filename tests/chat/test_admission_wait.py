"""When to come again: measured, for everybody and for one caller."""

from __future__ import annotations

from chat.limits.admission import LONGEST_WAIT, UNKNOWN_WAIT
from tests.chat.admitting import fill, refused


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


def test_after_hours_of_work_the_wait_is_still_that_of_its_last_minute(places, clock):
    places.enter("bob", tokens=1)
    for _ in range(1000):
        clock.now += 6
        places.enter("eve", tokens=1)()
    fill(places, 3)

    assert refused(places).retry_after == 6


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
