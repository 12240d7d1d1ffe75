"""Tickets for tests: their ids are bytes."""

from __future__ import annotations

import asyncio

from modelhost.text import ResponseDecoder
from modelhost.ticket import Ticket

STOP_ID = 4  # ids are bytes here; this one ends an answer


def decode(token_ids):
    return bytes(token_ids).decode("utf-8", "replace")


def make_ticket(*, stops=(), resumed=(), answer=None, on_cancel=lambda request_id: None):
    return Ticket(
        "r1",
        prompt_tokens=7,
        decoder=ResponseDecoder(decode, stops=stops, answer=answer),
        stop_ids=frozenset({STOP_ID}),
        resumed=resumed,
        on_cancel=on_cancel,
    )


async def read(ticket):
    async with asyncio.timeout(10):
        return [piece async for piece in ticket]
