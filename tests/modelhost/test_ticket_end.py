"""A ticket's end: there is one, whoever brings it about, and it counts what was delivered."""

from __future__ import annotations

import asyncio
import threading

import pytest

from modelhost.types import FinishReason, Piece
from tests.modelhost.tickets import make_ticket, read


def test_cancelling_settles_the_finish_and_tells_the_engine_once():
    told = []
    ticket = make_ticket(on_cancel=told.append)
    ticket.deliver(b"a")

    ticket.cancel()
    ticket.cancel()

    assert told == ["r1"]
    assert ticket.finish.reason is FinishReason.CANCELLED
    assert ticket.finish.usage.completion_tokens == 1


def test_cancelling_what_has_ended_changes_nothing():
    told = []
    ticket = make_ticket(on_cancel=told.append)
    ticket.end(FinishReason.LENGTH)

    ticket.cancel()

    assert told == []
    assert ticket.finish.reason is FinishReason.LENGTH


def test_what_comes_after_the_end_is_dropped():
    ticket = make_ticket()
    ticket.deliver(b"a")
    ticket.cancel()

    assert not ticket.deliver(b"abc")
    assert not ticket.end(FinishReason.STOP)
    assert asyncio.run(read(ticket)) == [Piece("a", tuple(b"a"))]
    assert ticket.finish.reason is FinishReason.CANCELLED


def test_a_filter_that_cannot_read_the_rest_keeps_no_generation_from_its_end():
    class Broken:
        def feed(self, text: str) -> str:
            return text

        def finish(self) -> tuple[str, tuple[()]]:
            raise ZeroDivisionError

    ticket = make_ticket(answer=Broken())
    ticket.deliver(b"a")

    assert ticket.end(FinishReason.STOP)
    assert asyncio.run(read(ticket)) == [Piece("a", tuple(b"a"))]
    assert ticket.finish.reason is FinishReason.ERROR
    assert ticket.finish.error == "ZeroDivisionError in the decoder."
    assert ticket.finish.usage.completion_tokens == 1


def test_the_end_can_be_waited_for_by_a_thread():
    ticket = make_ticket()
    assert not ticket.wait(0)

    threading.Thread(target=ticket.cancel).start()

    assert ticket.wait(10)


async def test_cancelling_from_another_thread_wakes_the_consumer():
    ticket = make_ticket()
    reading = asyncio.create_task(read(ticket))
    await asyncio.sleep(0)

    threading.Thread(target=ticket.cancel).start()

    assert await reading == []


def test_a_consumer_whose_loop_is_gone_does_not_disturb_the_producer():
    ticket = make_ticket()

    async def leave():
        reading = asyncio.create_task(read(ticket))
        await asyncio.sleep(0)
        reading.cancel()

    asyncio.run(leave())

    assert ticket.deliver(b"ab")
    assert ticket.end(FinishReason.STOP)
    assert asyncio.run(read(ticket)) == [Piece("ab", tuple(b"ab"))]


@pytest.mark.parametrize("attempt", range(5))
def test_of_many_threads_that_end_a_ticket_one_does(attempt):
    told = []
    ticket = make_ticket(on_cancel=told.append)
    together = threading.Barrier(8)
    settled = []

    def end(reason):
        together.wait()
        settled.append(ticket.end(reason))

    def cancel():
        together.wait()
        ticket.cancel()

    threads = [threading.Thread(target=end, args=(reason,)) for reason in list(FinishReason)[:4]]
    threads += [threading.Thread(target=cancel) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert settled.count(True) + len(told) == 1


@pytest.mark.parametrize("attempt", range(5))
def test_an_end_amid_deliveries_counts_exactly_what_was_delivered(attempt):
    ticket = make_ticket(stops=["never"])
    answer = b"neve" * 200
    half_way = threading.Event()

    def produce():
        for length in range(1, len(answer) + 1):
            ticket.deliver(answer[:length])
            if length == len(answer) // 2:
                half_way.set()

    producer = threading.Thread(target=produce)
    producer.start()
    half_way.wait(10)
    ticket.cancel()
    producer.join()

    pieces = asyncio.run(read(ticket))
    ids = bytes(one for piece in pieces for one in piece.token_ids)
    assert answer.startswith(ids)
    assert ticket.finish.usage.completion_tokens == len(ids)
    assert "".join(piece.text for piece in pieces) == ids.decode()


async def test_a_producer_and_a_consumer_at_full_speed_lose_nothing():
    ticket = make_ticket()
    answer = "你好 hello ".encode() * 100

    def produce():
        for length in range(1, len(answer) + 1):
            ticket.deliver(answer[:length])
        ticket.end(FinishReason.LENGTH)

    producer = threading.Thread(target=produce)
    producer.start()
    pieces = await read(ticket)
    producer.join()

    assert "".join(piece.text for piece in pieces) == answer.decode()
    assert bytes(one for piece in pieces for one in piece.token_ids) == answer
