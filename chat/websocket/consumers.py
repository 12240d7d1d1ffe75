"""The WebSocket: ask, follow and stop any number of responses through one connection.

`receive` only hands messages on. One task works on them in their order, and each response is
followed by a task of its own, so that a `stop` is heard and a client that is gone is noticed in the
middle of an answer. What is said back waits while the client does not read (`llmsite.sockets`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.core.exceptions import DisallowedHost

from chat.access.rights import REFUSED, rights
from chat.connections import Connection
from chat.errors import failure_of
from chat.lifecycle.live import LiveResponse
from chat.limits.readers import readers
from chat.limits.threads import in_thread
from chat.websocket.handshake import identify
from chat.websocket.socket_replies import Reply, refused, reply_to
from chat.wire import events

MOST = 32  # responses that one socket follows at once
LOOK_AGAIN = 25.0  # seconds without a message after which rights are looked at again
WAITING = 16  # messages of one socket that nobody has looked at; beyond it the client waits
WORKED_OFF = 5.0  # seconds for what a client had sent before it left; daphne allows 10

logger = logging.getLogger(__name__)


class SocketState(StrEnum):
    """How far a socket is. HUNG_UP: we closed it. LEFT: the client is gone."""

    OPEN = "open"
    HUNG_UP = "hung up"
    LEFT = "left"


class ChatConsumer(AsyncWebsocketConsumer):
    """One socket of one caller."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Carry the socket to its end; nothing that it began is left behind."""
        self._leave: Callable[[], None] = lambda: None
        self._messages: asyncio.Queue[str] = asyncio.Queue(WAITING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[Connection] = set()  # of what is followed
        self._worker: asyncio.Task[None] | None = None
        self._state = SocketState.OPEN
        try:
            await super().__call__(scope, receive, send)
            await self._work_off()
        finally:
            self._leave()
            for connection in list(self._open):
                connection.close()
            for task in self._tasks:
                task.cancel()

    async def connect(self) -> None:
        """Let a known caller in. Daphne can only answer 403 to others, whatever the reason."""
        try:
            caller = await in_thread(identify, self.scope)
            self._leave = readers.enter(caller.name)
        except Exception as error:
            failure = failure_of(error)
            if failure is None and not isinstance(error, DisallowedHost):
                raise
            if failure is None or failure.status in REFUSED:
                await self._said(self.close())
                return
            await self._said(self.accept())  # so that it can be said: come again later
            await self._tell(refused(error))
            await self.hang_up(failure.status)
            return
        await self._said(self.accept())
        self._worker = self._begin(self._work)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """A message: have it worked on, after those before it."""
        if self._state is SocketState.HUNG_UP:
            return  # it was on its way
        if text_data is None:
            await self.hang_up(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        elif len(text_data.encode()) > settings.LLMSITE_MAX_BODY:  # `serve` lets none pass
            await self.hang_up(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            await self._messages.put(text_data)

    async def disconnect(self, code: int) -> None:
        """The client is gone: nothing is said from now on, also while that is being dealt with."""
        if self._state is SocketState.OPEN:
            self._state = SocketState.LEFT

    async def hang_up(self, status: int) -> None:
        """Close for a reason that has a status in HTTP: codes from 4000 on are an application's.

        daphne takes no others of its application (RFC 6455, section 7.4.2).
        """
        if self._state is SocketState.OPEN:
            self._state = SocketState.HUNG_UP
            await self._said(self.close(4000 + status))

    def _begin(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(self._guarded(work, *arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        try:
            await work(*arguments)
        except Exception:  # nobody waits for a task: without this the client would, for ever
            logger.exception("a socket cannot be carried on")
            await self.hang_up(HTTPStatus.INTERNAL_SERVER_ERROR)

    async def _work(self) -> None:
        """One message after the other."""
        while True:
            text = await self._next()
            if self._state is SocketState.HUNG_UP:
                return  # nobody would hear of what is begun now
            try:
                await self._take(text)
            finally:
                self._messages.task_done()

    async def _take(self, text: str) -> None:
        full, connection = len(self._open) >= MOST, Connection()
        self._open.add(connection)
        if self._state is SocketState.LEFT:
            connection.close()  # what is begun now has nobody who waits for it
        reply = await in_thread(reply_to, text, self.scope, connection, full)
        await self._tell(reply.message)
        if reply.live is not None and self._state is SocketState.OPEN:
            self._begin(self._follow, reply.live, reply, connection)
            return
        self._open.discard(connection)
        if reply.message.get("status") == HTTPStatus.UNAUTHORIZED:
            await self.hang_up(HTTPStatus.UNAUTHORIZED)  # the key or session is over

    async def _work_off(self) -> None:
        """What a client had sent before it left counts, as a request does over HTTP."""
        if self._state is not SocketState.LEFT or self._worker is None:
            return
        for connection in list(self._open):
            connection.close()
        rest = asyncio.create_task(self._messages.join())
        first = asyncio.FIRST_COMPLETED
        await asyncio.wait({rest, self._worker}, timeout=WORKED_OFF, return_when=first)
        rest.cancel()

    async def _next(self) -> str:
        """The next message. While none comes, whoever opened the socket is looked at again."""
        while True:
            try:
                async with asyncio.timeout(LOOK_AGAIN):
                    return await self._messages.get()
            except TimeoutError:
                if not await rights.hold(self.scope):
                    await self.hang_up(HTTPStatus.UNAUTHORIZED)

    async def _follow(self, live: LiveResponse, reply: Reply, connection: Connection) -> None:
        try:
            async with aclosing(events.follow(live, reply.after, omitted=reply.omitted)) as told:
                async for event in told:
                    if self._state is not SocketState.OPEN:
                        return
                    if event is not None:
                        await self._tell(event.as_message())
            connection.finish()
        finally:
            self._open.discard(connection)
            connection.close()  # unless it finished: one client less waits for the response
        if live.outcome is None:  # the process stops, and the response goes on in the next one
            await self.hang_up(HTTPStatus.SERVICE_UNAVAILABLE)

    async def _tell(self, message: dict[str, Any]) -> None:
        if self._state is SocketState.OPEN:
            await self._said(self.send(text_data=events.one_line(message)))

    async def _said(self, sending: Awaitable[None]) -> None:
        """To a client that is gone nothing is said; each server has its own error for that."""
        try:
            await sending
        except (OSError, RuntimeError):
            if self._state is SocketState.OPEN:
                self._state = SocketState.LEFT
