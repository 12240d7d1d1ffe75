"""Guards of the product, each with a way to break it: the harness that watches it must notice.

A server or a crashing process of a harness breaks the one that `TORTURE_BREAK` names.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import nullcontext
from typing import Any

VARIABLE = "TORTURE_BREAK"


def owner_filter() -> None:
    """Everybody's responses are everybody's."""
    from chat.models.response import ResponseQuerySet

    ResponseQuerySet.for_user = lambda rows, user: rows.all()  # type: ignore[method-assign]


def one_transaction() -> None:
    """A prompt and its response are stored one after the other."""
    from chat import acceptance

    class Loose:
        atomic = staticmethod(lambda **_: nullcontext())

    acceptance.transaction = Loose  # type: ignore[assignment]


def lease() -> None:
    """Whatever is active counts as abandoned."""
    from chat.models.response import ResponseQuerySet

    ResponseQuerySet.abandoned = lambda rows, **_: rows.active()  # type: ignore[method-assign]


def recovery() -> None:
    """What a process left is nobody's business."""
    from chat.lifecycle import recovery

    recovery.claim = lambda *, ours: iter(())  # type: ignore[assignment]


def late_follow() -> Callable[..., Any]:
    """A `LiveResponse.follow` that leaves out one character behind a reader's cursor."""
    from chat.lifecycle.live import LiveResponse

    follow = LiveResponse.follow

    async def late(live: Any, after: int = 0) -> AsyncGenerator[Any, None]:
        async for delta in follow(live, after + 1 if after else 0):
            yield delta

    return late


GUARDS = {guard.__name__: guard for guard in (owner_filter, one_transaction, lease, recovery)}


def break_guard() -> None:
    """In a process of a harness: the one that was named, if any."""
    if name := os.environ.get(VARIABLE):
        GUARDS[name]()
