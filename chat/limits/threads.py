"""Synchronous work on behalf of the event loop: in a thread of its own, in turn with requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections

from chat.limits.request_slots import request_slots

Made = TypeVar("Made")


async def in_thread(work: Callable[..., Made], *arguments: Any) -> Made:
    """What the work returns; work that is slow holds nobody up.

    Shielded: a thread cannot be cancelled, and its context is left when it is done.
    """
    return await asyncio.shield(_in_thread(work, *arguments))


async def _in_thread(work: Callable[..., Made], *arguments: Any) -> Made:
    async with ThreadSensitiveContext():
        return await sync_to_async(_in_turn)(work, *arguments)


def _in_turn(work: Callable[..., Made], *arguments: Any) -> Made:
    with request_slots.acquired():
        try:
            return work(*arguments)
        finally:
            connections.close_all()
