"""Many who follow a response that waits: what each of them costs."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.many.exchange import HOST, exchange
from bench.many.jobs import Target
from bench.many.processes import Program
from bench.many.servers import Server

SETTLES = 3.0  # seconds until memory shows what followers cost
AT_ONCE = 50  # connections that are opened at a time
WATCHED = 10.0  # seconds in which their CPU time is taken
LEASE = timedelta(seconds=5)  # as processes write it; one that is much longer counts as over
RENEWED = 1.0  # seconds between two leases


def measure(server: Server, number: int) -> str:
    """One sentence about a server that was started for this."""
    return asyncio.run(followed(server, number))


async def followed(server: Server, number: int) -> str:
    """Open the streams, look at the process, close them."""
    program, target = server.program, server.target
    data = Path(server.launch.environment["LLMSITE_DATA"])
    async with waiting_response(target, data) as response:
        await close_all(await open_all(target, response, AT_ONCE))  # what the first ones import
        await asyncio.sleep(SETTLES)
        memory, handles = program.resident(), database_handles(program, data)
        streams = await open_all(target, response, number)
        await asyncio.sleep(SETTLES)
        grown, more = program.resident() - memory, database_handles(program, data) - handles
        cpu, begun = program.cpu(), time.perf_counter()
        await asyncio.sleep(WATCHED)
        busy = (program.cpu() - cpu) / (time.perf_counter() - begun)
        await check_waiting(target, response)
        await close_all(streams)
    return (
        f"{number} idle followers of one response: {grown / number / 1000:.1f} kB of memory each, "
        f"{more / number:g} more handles of the database each, {busy:.1%} of a core for all."
    )


@asynccontextmanager
async def waiting_response(target: Target, data: Path) -> AsyncIterator[str]:
    """The id of a response that another process, which does not exist, seems to carry."""
    body = json.dumps({"prompt": "Hi", "max_tokens": 1}).encode()
    raw = await exchange(target.port, "POST", "/chat/new/message/", body=body, key=target.key)
    response: str = json.loads(raw.body)["message_id"]
    with closing(sqlite3.connect(data / "llmsite.sqlite3", isolation_level=None)) as rows:
        carried = asyncio.create_task(carry(rows, response))
        await asyncio.sleep(0)  # it is waiting now
        try:
            yield response
        finally:
            carried.cancel()


async def carry(rows: sqlite3.Connection, response: str) -> None:
    """What the row of a response says while a process carries it and nothing comes."""
    while True:
        rows.execute(
            "UPDATE chat_response SET status = 'queued', text = '', token_ids = '[]', "
            "worker = 'elsewhere', lease_until = ? WHERE id = ?",
            (str((datetime.now(UTC) + LEASE).replace(tzinfo=None)), response),
        )
        await asyncio.sleep(RENEWED)


async def check_waiting(target: Target, response: str) -> None:
    """Raises RuntimeError where the followers had nothing to wait for any more."""
    raw = await exchange(target.port, "GET", f"/api/responses/{response}/", key=target.key)
    if (status := json.loads(raw.body)["status"]) != "queued":
        raise RuntimeError(f"the response that was followed is {status}")


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def open_all(target: Target, response: str, number: int) -> list[Stream]:
    """So many streams that have begun."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one() -> Stream:
        async with limit:
            reader, writer = await asyncio.open_connection(HOST, target.port)
            writer.write(
                f"GET /api/responses/{response}/events HTTP/1.1\r\nHost: {HOST}\r\n"
                f"Authorization: Bearer {target.key}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.partition(b"\r\n")[0]:
                raise RuntimeError(f"a follower was refused: {head!r}")
            await reader.readuntil(b"id: ")
            return reader, writer

    return await asyncio.gather(*(one() for _ in range(number)))


async def close_all(streams: list[Stream]) -> None:
    """Leave."""
    for _, writer in streams:
        writer.close()


def database_handles(program: Program, data: Path) -> int:
    """Open files of the process that are the database's."""
    names = Path(f"/proc/{program.pid}/fd").iterdir()
    return sum(is_database(name, data) for name in names)


def is_database(name: Path, data: Path) -> bool:
    """Whether an open file is the database, or stands beside it."""
    try:
        return str(name.readlink()).startswith(str(data / "llmsite.sqlite3"))
    except OSError:  # closed meanwhile
        return False
