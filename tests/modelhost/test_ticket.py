"""Tickets: what a producer's thread puts in comes out on the consumer's event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from modelhost.ticket import ahead
from modelhost.toolcalls import ChatGLMAnswer, TaggedAnswer
from modelhost.types import FinishReason, Piece, Usage
from tests.modelhost.tickets import STOP_ID, make_ticket, read


async def test_pieces_that_came_before_the_consumer_are_kept_for_it():
    ticket = make_ticket()
    ticket.deliver(b"Hel")
    ticket.deliver(b"Hello")
    ticket.end(FinishReason.LENGTH)

    assert await read(ticket) == [Piece("Hel", tuple(b"Hel")), Piece("lo", tuple(b"lo"))]


async def test_pieces_reach_a_consumer_that_waits():
    ticket = make_ticket()
    reading = asyncio.create_task(read(ticket))
    await asyncio.sleep(0)  # let it begin to wait

    producer = threading.Thread(
        target=lambda: (ticket.deliver(b"a"), ticket.deliver(b"ab"), ticket.end(FinishReason.STOP))
    )
    producer.start()

    assert "".join(piece.text for piece in await reading) == "ab"
    producer.join()


async def test_a_second_reader_goes_on_where_the_first_left_off():
    ticket = make_ticket()
    ticket.deliver(b"a")
    async for piece in ticket:
        assert piece.text == "a"
        break
    ticket.deliver(b"ab")
    ticket.end(FinishReason.STOP)

    assert [piece.text for piece in await read(ticket)] == ["b"]


async def test_an_ended_ticket_that_is_empty_reads_as_nothing():
    ticket = make_ticket()
    ticket.end(FinishReason.ERROR, error="It broke.")

    assert await read(ticket) == []
    assert ticket.finish.error == "It broke."


def test_the_same_ids_again_are_no_new_piece():
    ticket = make_ticket()
    ticket.deliver(b"ab")

    assert ticket.deliver(b"ab")
    assert ticket.deliver(b"a")
    ticket.end(FinishReason.STOP)

    assert asyncio.run(read(ticket)) == [Piece("ab", tuple(b"ab"))]


def test_the_id_that_ends_the_answer_is_counted_but_not_shown():
    ticket = make_ticket()
    ticket.deliver([*b"Hi", STOP_ID])
    ticket.end(FinishReason.STOP)

    assert asyncio.run(read(ticket)) == [Piece("Hi", (*b"Hi", STOP_ID))]
    assert ticket.finish.usage == Usage(prompt_tokens=7, completion_tokens=3)
    assert ticket.finish.usage.total_tokens == 10


def test_ids_whose_text_is_held_back_are_delivered_at_once():
    ticket = make_ticket()
    for length in range(1, 4):
        ticket.deliver("你".encode()[:length])
    ticket.end(FinishReason.LENGTH)

    assert asyncio.run(read(ticket)) == [
        Piece("", (0xE4,)),
        Piece("", (0xBD,)),
        Piece("你", (0xA0,)),
    ]


def test_held_back_text_comes_with_the_end():
    ticket = make_ticket(stops=["###"])
    ticket.deliver(b"a#")
    ticket.end(FinishReason.LENGTH)

    assert asyncio.run(read(ticket)) == [Piece("a", tuple(b"a#")), Piece("#", ())]


def test_a_stop_text_tells_the_producer_to_stop():
    ticket = make_ticket(stops=["##"])

    assert ticket.deliver(b"a#")
    assert not ticket.deliver(b"a##b")
    ticket.end(FinishReason.STOP)

    assert "".join(piece.text for piece in asyncio.run(read(ticket))) == "a"
    assert ticket.finish.usage.completion_tokens == 3, "what came behind the stop text is nobody's"


def test_a_resumed_answer_counts_and_continues_what_there_was():
    ticket = make_ticket(resumed=[*b"caf", 0xC3])
    ticket.deliver([0xA9, *b"!"])
    ticket.end(FinishReason.STOP)

    assert asyncio.run(read(ticket)) == [Piece("é!", (0xA9, *b"!"))]
    assert ticket.finish.usage == Usage(7, 6)


def test_a_resumed_answer_does_not_show_the_id_that_had_ended_it():
    ticket = make_ticket(stops=["\x04\x04"], resumed=[*b"done", STOP_ID])
    ticket.end(FinishReason.STOP)

    assert asyncio.run(read(ticket)) == []


CALL = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'


@pytest.mark.parametrize(
    ("answer", "stops", "new_filter"),
    [
        (b"", (), None),
        ("né 你好 \N{WAVING HAND SIGN}!".encode(), (), None),
        (b"a\0b\xff\xfec" + bytes([STOP_ID]), (), None),
        (b"one ### two ##", ("###", "##!"), None),
        (f"Well, <tool> {CALL} done<too".encode(), ("ne<t",), TaggedAnswer),
        (b"\n Hello you", (), lambda: ChatGLMAnswer(["Hell"])),
        (b"get\n```python\ntool_call(a=1)\n```", (), lambda: ChatGLMAnswer(["get"])),
    ],
)
def test_the_resumed_text_is_what_the_same_ids_had_let_out_and_the_rest_follows(
    answer, stops, new_filter
):
    def fresh_filter():
        return new_filter and new_filter()

    async def run(cut):
        first = make_ticket(stops=stops, answer=fresh_filter())
        for length in range(1, cut + 1):
            first.deliver(answer[:length])
        shown = "".join(piece.text for piece in first._pieces)
        second = make_ticket(stops=stops, answer=fresh_filter(), resumed=answer[:cut])
        assert second.resumed_text == shown
        for length in range(1, len(answer) - cut + 1):
            first.deliver(answer[: cut + length])
            second.deliver(answer[cut : cut + length])
        first.end(FinishReason.STOP)
        second.end(FinishReason.STOP)
        whole = "".join([piece.text for piece in await read(first)])
        assert shown + "".join([piece.text for piece in await read(second)]) == whole
        assert second.finish == first.finish

    for cut in range(len(answer) + 1):
        asyncio.run(run(cut))


def test_the_list_of_a_later_run_goes_on_behind_what_came_before_it():
    ticket = make_ticket()
    ticket.deliver(b"abc")

    ticket.deliver(b"d", after=3)
    ticket.deliver(b"de", after=3)

    assert ticket.delivered == [*b"abcde"]
    ticket.end(FinishReason.LENGTH)
    assert [piece.text for piece in asyncio.run(read(ticket))] == ["abc", "d", "e"]


def test_a_place_in_the_line_counts_those_before_that_wait():
    line = [make_ticket() for _ in range(5)]
    line[0].deliver(b"a")
    line[2].cancel()

    assert [ahead(ticket, line) for ticket in line] == [0, 0, 0, 1, 2]
    assert ahead(make_ticket(), line) == 0
