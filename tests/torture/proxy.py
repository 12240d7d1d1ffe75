"""A proxy on loopback that cuts a response off at an exact byte, in one of three ways."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

STALL = 0.2  # seconds of silence before a stalled connection dies
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset
NEVER = 1 << 30


class How(StrEnum):
    """How a connection ends: as if all were sent, torn, or after a silence."""

    CLOSE = "close"
    RESET = "reset"
    STALL = "stall"


@dataclass(frozen=True)
class Cut:
    """After so many bytes of the response, its head included."""

    at: int = NEVER
    how: How = How.CLOSE


class CuttingProxy:
    """Forwards connections to a port. The next ones are cut as `cuts` says, then none.

    passed: what the last connection let through. made: how many cuts were reached.
    """

    def __init__(self, port: int) -> None:
        self.cuts: list[Cut] = []
        self.passed = b""
        self.made = 0
        self._to = port
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0)
        )
        self._open: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """End it with every connection."""
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _finish(self) -> None:
        self._server.close()
        for writer in self._open:
            writer.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        source, request = await asyncio.open_connection("127.0.0.1", self._to)
        self._open |= {answer, request}
        upload = asyncio.create_task(forward(client, request))
        try:
            cut = self.cuts.pop(0) if self.cuts else Cut()
            if await self._download(source, answer, cut.at):
                self.made += 1  # before the client can see it
                await end(answer, cut.how)
        finally:
            for writer in (request, answer):
                writer.close()
            await upload
            self._open -= {answer, request}

    async def _download(
        self, source: asyncio.StreamReader, answer: asyncio.StreamWriter, at: int
    ) -> bool:
        """Forward up to the cut; whether it was reached."""
        self.passed = b""
        with suppress(ConnectionError):  # the client left
            while data := await source.read(min(4096, at - len(self.passed))):
                answer.write(data)
                await answer.drain()
                self.passed += data
                if len(self.passed) == at:
                    return True
        return False


async def forward(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Everything, until either side is gone."""
    with suppress(ConnectionError):
        while data := await source.read(4096):
            target.write(data)
            await target.drain()
        target.close()


async def end(answer: asyncio.StreamWriter, how: How) -> None:
    """Close what is left for the client to see."""
    if how is How.STALL:
        await asyncio.sleep(STALL)
    if how is not How.CLOSE:
        connection = answer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
