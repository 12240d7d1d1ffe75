"""Beyond a rate, pieces are joined: streams take turns, and lose and repeat nothing."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from chat.lifecycle.live import Delta, LiveResponse, Outcome
from chat.lifecycle.pace import BURST, Pace, pace
from chat.models import Response
from modelhost.types import Usage
from tests.fakes import Clock

DONE = Outcome(Response.Status.DONE, "stop", Usage(1, 2))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a turn has to wait for an hour."""
    monkeypatch.setattr(type(pace), "turn", lambda *_: 3600.0)


def test_below_the_rate_nobody_waits(clock):
    pace = Pace(lambda: 100.0, clock)
    for _ in range(1000):
        assert pace.turn("a") == 0
        clock.now += 0.01


def test_the_streams_of_one_step_do_not_queue(clock):
    pace = Pace(lambda: 100.0, clock)
    together = int(BURST * 100)

    assert [pace.turn(at) for at in range(together)] == pytest.approx([0] * together)
    assert pace.turn("one more") == pytest.approx(0.01)


def test_beyond_the_rate_turns_come_one_after_the_other(clock):
    pace = Pace(lambda: 100.0, clock)
    waits = [pace.turn(at) for at in range(50)]

    assert waits[-1] == pytest.approx(50 / 100 - BURST)
    assert waits == sorted(waits)
    clock.now += 10  # a rest is no credit
    assert pace.turn(0) == 0
    assert [pace.turn(0) for _ in range(50)][-1] > 0


def test_responses_that_want_more_than_there_is_get_equal_shares(clock):
    pace = Pace(lambda: 100.0, clock)
    turns = dict.fromkeys(range(20), 0)
    free_at = dict.fromkeys(turns, clock.now)
    for _ in range(1000):  # ten seconds
        clock.now += 0.01
        for response, free in free_at.items():
            if clock.now >= free:
                turns[response] += 1
                free_at[response] = clock.now + pace.turn(response)

    assert sum(turns.values()) == pytest.approx(1000, rel=0.1)
    assert max(turns.values()) - min(turns.values()) <= 3


def test_a_crowd_around_one_response_delays_only_itself(clock):
    pace = Pace(lambda: 100.0, clock)

    assert max(pace.turn("crowd") for _ in range(2000)) > 10
    assert pace.turn("another") == 0
    clock.now += 0.1
    assert pace.turn("another") == 0


@pytest.mark.usefixtures("busy")
async def test_the_first_piece_waits_for_nobody():
    live = LiveResponse(uuid.uuid4())
    stream = live.follow()
    live.append("a")

    assert await anext(stream) == Delta("a", 1)
    await stream.aclose()


@pytest.mark.usefixtures("busy")
async def test_what_comes_until_a_readers_turn_is_one_piece_and_the_end_ends_the_wait():
    live = LiveResponse(uuid.uuid4())
    live.append("a")
    stream = live.follow()
    assert await anext(stream) == Delta("a", 1)
    live.append("bc")
    following = asyncio.ensure_future(anext(stream))
    for text in ("d", "ef"):
        await asyncio.sleep(0)
        live.append(text)
    assert not following.done()
    live.close(DONE)

    assert await following == Delta("bcdef", 6)
    assert [piece async for piece in stream] == []


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("after", range(5))
async def test_a_replay_of_what_is_over_is_two_pieces_from_any_cursor(after):
    live = LiveResponse(uuid.uuid4())
    for text in ("a", "bc", "d", "e"):
        live.append(text)
    live.close(DONE)
    pieces = [piece async for piece in live.follow(after)]

    assert "".join(piece.text for piece in pieces) == "abcde"[after:]
    assert len(pieces) <= 2
    assert pieces[-1].cursor == 5


async def test_a_reader_whose_turn_comes_gets_the_rest_while_more_is_made(monkeypatch):
    monkeypatch.setattr(type(pace), "turn", lambda *_: 0.001)
    live = LiveResponse(uuid.uuid4())
    live.append("a")
    stream = live.follow()
    assert await anext(stream) == Delta("a", 1)
    live.append("b")
    live.append("c")

    assert await anext(stream) == Delta("bc", 3)
    live.append("d")
    assert await anext(stream) == Delta("d", 4)
    await stream.aclose()


async def test_a_reader_with_more_than_this_process_has_gets_only_what_is_new():
    live = LiveResponse(uuid.uuid4())
    live.append("ab")
    stream = live.follow(3)
    following = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    live.append("c")
    await asyncio.sleep(0)
    assert not following.done()
    live.append("de")

    assert await following == Delta("de", 5)
    await stream.aclose()
