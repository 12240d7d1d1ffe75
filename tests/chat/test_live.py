"""A response while it grows: one writer, any number of readers, one cursor."""

from __future__ import annotations

import asyncio
import threading
import uuid

import pytest

from chat.live import Delta, LiveResponse, Outcome
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
    stream = live.follow()
    step = asyncio.ensure_future(anext(stream), loop=loop)
    loop.run_until_complete(asyncio.sleep(0, None))
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(step)
    live._readers.add((loop, asyncio.Event()))  # as if it had not had the time to leave
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
