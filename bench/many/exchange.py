"""HTTP/1.1 with next to no work: bytes and when they came; what they say is read afterwards.

The client shares two cores with what it measures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass

HOST = "127.0.0.1"
PATIENCE = 900.0  # seconds for one answer


@dataclass(frozen=True, slots=True)
class Raw:
    """Everything that a server sent on one connection. begun: before it was opened."""

    begun: float
    reads: list[tuple[float, bytes]]

    @property
    def status(self) -> int:
        head = self.reads[0][1] if self.reads else b""
        return int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.1 ") else 0

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.pieces())

    @property
    def whole(self) -> bool:
        """Whether the chunk that ends a body came."""
        return b"".join(data for _, data in self.reads[-2:]).endswith(b"0\r\n\r\n")

    def pieces(self) -> Iterator[tuple[float, bytes]]:
        """The body as it came, without the marks of chunks."""
        buffer = b""
        chunked: bool | None = None
        for at, data in self.reads:
            buffer += data
            if chunked is None:
                head, end, rest = buffer.partition(b"\r\n\r\n")
                if not end:
                    continue
                chunked, buffer = b"transfer-encoding: chunked" in head.lower(), rest
            if not chunked:
                yield at, buffer
                buffer = b""
                continue
            ready, buffer = unchunk(buffer)
            if ready:
                yield at, ready


def unchunk(buffer: bytes) -> tuple[bytes, bytes]:
    """The content of the whole chunks at its beginning, and the rest."""
    content = b""
    while True:
        size, end, rest = buffer.partition(b"\r\n")
        if not end:
            return content, buffer
        length = int(size, 16)
        if len(rest) < length + 2:
            return content, buffer
        content, buffer = content + rest[:length], rest[length + 2 :]


async def exchange(port: int, method: str, path: str, *, body: bytes = b"", key: str = "") -> Raw:
    """One request on a connection of its own. Raises OSError, TimeoutError."""
    head = [f"{method} {path} HTTP/1.1", f"Host: {HOST}:{port}", "Connection: close"]
    if key:
        head.append(f"Authorization: Bearer {key}")
    if body:
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    begun = time.perf_counter()
    reads = []
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write("\r\n".join([*head, "", ""]).encode() + body)
            while data := await reader.read(1 << 16):
                reads.append((time.perf_counter(), data))
        finally:
            writer.close()
    return Raw(begun, reads)
