"""A response while it grows: one writer, any number of readers, one cursor."""

from __future__ import annotations

import asyncio
import threading
import uuid

import pytest

from chat.lifecycle.listener import Listener
from chat.lifecycle.live import Delta, LiveResponse, Outcome, stored_outcome
from chat.models import Response
from modelhost.types import Usage

PIECES = ["Hel", "lo, ", "你好", "👋", "!"]
TEXT = "".join(PIECES)
DONE = Outcome(Response.Status.DONE, "stop", Usage(1, 2))


def finished() -> LiveResponse:
    """A response that is over."""
    live = LiveResponse(uuid.uuid4())
    for piece in PIECES:
        live.append(piece)
    live.close(DONE)
    return live


async def read(live: LiveResponse, after: int) -> list[Delta]:
    """Everything behind the cursor."""
    return [delta async for delta in live.follow(after)]


@pytest.mark.parametrize("after", range(len(TEXT) + 2))
async def test_from_every_offset_a_reader_gets_exactly_the_rest(after):
    deltas = await read(finished(), after)

    assert "".join(delta.text for delta in deltas) == TEXT[after:]
    assert all(delta.text for delta in deltas)
    for delta in deltas:
        assert TEXT[: delta.cursor].endswith(delta.text)


def test_readers_on_different_loops_get_the_same_while_it_grows():
    live = LiveResponse(uuid.uuid4())
    results: dict[int, str] = {}

    def reader(after: int) -> None:
        deltas = asyncio.run(read(live, after))
        results[after] = "".join(delta.text for delta in deltas)

    readers = [threading.Thread(target=reader, args=(at,)) for at in range(len(TEXT) + 1)]
    for at, thread in enumerate(readers):
        thread.start()
        if at < len(PIECES):
            live.append(PIECES[at])
    live.close(DONE)
    for thread in readers:
        thread.join(10)

    assert results == {after: TEXT[after:] for after in range(len(TEXT) + 1)}
    assert live.readers == 0


async def test_a_long_replay_leaves_the_loop_to_others():
    live = LiveResponse(uuid.uuid4())
    for _ in range(20):
        live.append("a")
    live.close(DONE)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    working = asyncio.ensure_future(others())
    deltas = await read(live, 0)
    working.cancel()
    assert turns >= len(deltas) - 1 > 0


async def test_a_reader_waits_for_what_comes():
    live = LiveResponse(uuid.uuid4())
    follower = asyncio.ensure_future(read(live, 0))
    await asyncio.sleep(0)
    assert live.readers == 1
    live.append("a")
    live.close(DONE)

    assert await follower == [Delta("a", 1)]


async def test_a_reader_that_is_cancelled_is_forgotten():
    live = LiveResponse(uuid.uuid4())
    follower = asyncio.ensure_future(read(live, 0))
    await asyncio.sleep(0)
    follower.cancel()
    await asyncio.wait({follower})

    assert live.readers == 0


def test_a_reader_whose_loop_is_closed_disturbs_nobody():
    live = LiveResponse(uuid.uuid4())
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        live._readers.add(Listener())  # as if it had not had the time to leave

    loop.run_until_complete(begin())
    loop.close()

    live.append("a")
    live.close(DONE)
    assert live.text == "a"


def test_a_thread_can_wait_for_the_end():
    live = LiveResponse(uuid.uuid4())
    assert not live.wait(0)
    live.close(DONE)
    assert live.wait(0)


def test_nothing_is_added_after_the_end():
    live = finished()
    live.append("more")
    assert live.text == TEXT


def test_a_longer_version_of_the_text_adds_what_is_new():
    live = LiveResponse(uuid.uuid4())
    for text in ("", "Hel", "Hel", "H", "Hello"):
        live.catch_up(text)

    assert (live.text, live.cursor) == ("Hello", 5)
    assert [delta.text for delta in live._deltas] == ["Hel", "lo"]


async def test_a_suspended_response_ends_for_its_readers_without_an_outcome():
    live = LiveResponse(uuid.uuid4())
    live.append("Hel")
    follower = asyncio.ensure_future(read(live, 1))
    await asyncio.sleep(0)
    live.suspend()

    assert await follower == [Delta("el", 3)]
    assert live.ended
    assert live.wait(0)
    live.append("lo")
    live.close(DONE)
    assert (live.text, live.outcome) == ("Hel", None)


def test_there_is_one_outcome():
    live = finished()
    live.close(Outcome(Response.Status.FAILED, "error", Usage(0, 0), "Late."))

    assert live.outcome is DONE


def test_the_last_of_those_who_wait_is_known():
    live = LiveResponse(uuid.uuid4())
    for _ in range(3):
        live.attach()

    assert live.attached == 3
    assert [live.detach() for _ in range(3)] == [False, False, True]


async def test_whoever_waits_hears_of_each_place_once():
    live = LiveResponse(uuid.uuid4())
    places = [2, 2, 1, 1, 1, 0]

    def position() -> int:
        if len(places) == 1:
            live.append("a")
        return places.pop(0)

    live.position = position
    assert [place async for place in live.queue(every=0.001)] == [2, 1, 0]
    assert live.readers == 0


@pytest.mark.parametrize("end", [lambda live: live.append("a"), LiveResponse.suspend])
async def test_the_first_piece_or_the_end_ends_the_queue(end):
    live = LiveResponse(uuid.uuid4())
    live.position = lambda: 3
    queue = live.queue(every=60)
    assert await anext(queue) == 3
    following = asyncio.ensure_future(anext(queue, None))
    await asyncio.sleep(0)
    end(live)

    assert await following is None


async def test_who_is_next_hears_of_it_when_that_lasts():
    live = LiveResponse(uuid.uuid4())
    looks = []

    def position() -> int:
        looks.append(0)
        if len(looks) == 4:
            live.append("a")
        return 0

    live.position = position
    assert [place async for place in live.queue(every=0.001)] == [0]
    assert len(looks) == 4


async def test_who_is_next_and_begins_at_once_hears_nothing_of_it():
    live = LiveResponse(uuid.uuid4())
    live.position = lambda: 0
    queueing = asyncio.ensure_future(anext(live.queue(every=60), None))
    await asyncio.sleep(0)
    live.append("a")

    assert await queueing is None


async def test_where_nobody_knows_the_place_nothing_is_told():
    live = LiveResponse(uuid.uuid4())
    places = [None, None, None]

    def position() -> None:
        places.pop()
        if not places:
            live.append("a")

    live.position = position
    assert [place async for place in live.queue(every=0.001)] == []


async def test_who_is_served_at_once_hears_of_no_queue():
    live = LiveResponse(uuid.uuid4())
    live.append("a")

    assert [place async for place in live.queue()] == []


def row(status: str, **columns: object) -> Response:
    """A row that is not in the database."""
    return Response(status=status, **columns)


@pytest.mark.parametrize("status", ["queued", "streaming"])
def test_a_row_under_way_has_no_outcome(status):
    assert stored_outcome(row(status)) is None


def test_a_rows_outcome_is_what_it_says():
    calls = [{"name": "weather", "arguments": {"city": "Basel"}}]
    outcome = stored_outcome(
        row("done", finish_reason="tool_calls", prompt_tokens=3, tool_calls=calls)
    )

    assert outcome is not None
    assert (outcome.status, outcome.finish_reason) == ("done", "tool_calls")
    assert outcome.usage == Usage(3, 0)
    assert outcome.tool_calls[0].arguments == {"city": "Basel"}
    assert not outcome.failed
    assert stored_outcome(row("done")).finish_reason == "stop"
    assert stored_outcome(row("interrupted")).failed
