"""Whether a caller may still read what it opened: a stream or a socket can outlive its key.

A key is revoked, a person is disabled or logs out; what is open then is looked at again now and
then. One look speaks for all that was opened by the same means, be it a thousand streams.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from http import HTTPStatus

from chat.access.callers import Scope, as_get_request, authenticate
from chat.errors import failure_of
from chat.limits.threads import in_thread

REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
SPEAKS_FOR = 5.0  # seconds after its begin a look is as good as a new one
# Seconds after its begin nobody waits for a look any more: a database that hangs would hold up
# every stream. There is no second one beside it, as each takes a thread and a connection.
WAITED_FOR = 5.0
NAMING = (b"authorization", b"cookie")  # the headers that say who somebody is

logger = logging.getLogger(__name__)

Look = asyncio.Task[bool]


class Rights:
    """The looks that were begun a moment ago, by loop and by what callers show of themselves."""

    def __init__(self) -> None:
        self._looks: dict[object, tuple[float, Look]] = {}

    async def hold(self, scope: Scope, permission: str = "") -> bool:
        """Whether whoever sent this request would still be let in, as far as that can be told soon.

        permission: what else staff must still have for it.
        """
        loop, now = asyncio.get_running_loop(), time.monotonic()
        shown = tuple(pair for pair in scope["headers"] if pair[0] in NAMING)
        name = loop, shown, permission
        looks = {
            key: (begun, look)
            for key, (begun, look) in self._looks.items()
            if now - begun < SPEAKS_FOR or not look.done()
        }
        if name not in looks:
            # An empty context: with the request's it would keep that one's database handle alive.
            task = loop.create_task(
                in_thread(_hold, scope, permission), context=contextvars.Context()
            )
            looks[name] = now, task
        self._looks = looks
        begun, look = looks[name]
        await asyncio.wait({look}, timeout=max(0.0, begun + WAITED_FOR - now))
        return look.result() if look.done() else True


def _hold(scope: Scope, permission: str) -> bool:
    try:
        user = authenticate(as_get_request(scope)).user
        return not permission or (user.is_staff and user.has_perm(permission))
    except Exception as error:  # noqa: BLE001  a database that is away says nothing of rights
        failure = failure_of(error)
        if failure is not None and failure.status in REFUSED:
            return False
        logger.warning("whether a caller still may cannot be told now: %r", error)
    return True


rights = Rights()
