"""Server-sent events: headers, heartbeats, and what a stream holds while it is open."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import httpx
import pytest
from django.db import connection, connections

from chat import events, openai
from chat.live import LiveResponse
from chat.models import ApiKey, Response
from chat.streams import with_heartbeat
from chat.supervisor import supervisor
from tests.fakes import ScriptedEngine
from tests.web import eventually


async def scripted(gate: asyncio.Event):
    """One event, and another behind a gate."""
    yield "first"
    await gate.wait()
    yield "second"


async def test_a_silent_stream_shows_that_it_lives():
    gate = asyncio.Event()
    seen = []
    async for item in with_heartbeat(scripted(gate), ping=": ping\n\n", every=0.001):
        seen.append(item)
        if seen.count(": ping\n\n") == 3:
            gate.set()

    assert seen[0] == "first"
    assert seen[-1] == "second"
    assert set(seen[1:-1]) == {": ping\n\n"}


async def test_the_heart_beats_before_the_first_token():
    live = LiveResponse(uuid.uuid4())
    stream = with_heartbeat(events.stream(live), ping=": ping\n\n", every=0.001)

    assert await anext(stream) == f"id: {live.id.hex}:0\n\n"
    assert await anext(stream) == ": ping\n\n"
    live.append("a")
    assert '"a"' in await anext(_without(stream, ": ping\n\n"))
    await stream.aclose()


async def test_openais_heartbeat_is_a_comment_without_an_empty_line():
    live = LiveResponse(uuid.uuid4())
    chunks = openai.stream(live, model="m", created=1, include_usage=False)
    stream = with_heartbeat(chunks, ping=openai.PING, every=0.001)

    assert '"role": "assistant"' in await anext(stream)
    assert await anext(stream) == ": ping\n"
    await stream.aclose()


async def test_an_error_in_the_events_reaches_whoever_reads_them():
    async def broken():
        yield "first"
        raise ValueError("broken")

    stream = with_heartbeat(broken(), ping="", every=1)
    assert await anext(stream) == "first"
    with pytest.raises(ValueError, match="broken"):
        await anext(stream)


@pytest.mark.parametrize("seen", [1, 2, 3])
async def test_a_reader_that_leaves_is_forgotten(seen):
    live = LiveResponse(uuid.uuid4())
    live.append("a")
    stream = with_heartbeat(events.stream(live), ping="ping", every=0.001)
    for _ in range(seen):  # the id, the text, a ping
        await anext(stream)
    await stream.aclose()

    assert live.readers == 0


def test_the_headers_come_before_the_first_token(api, serve, gate):
    serve(ScriptedEngine("a", gate=gate))
    for path, body in (
        ("/chat/new/message/", {"prompt": "Say it", "stream": True}),
        ("/v1/chat/completions", {"messages": [_user("Say it")], "stream": True}),
    ):
        with api.stream("POST", path, json=body, timeout=5) as response:
            assert response.status_code == 200
    with api.stream("GET", "/sendMessage?prompt=a", timeout=5) as response:
        assert response.status_code == 200
    accept = {"Accept": "text/event-stream"}
    body = {"prompt": "Say it"}
    with api.stream("POST", "/chat/new/message/", json=body, headers=accept, timeout=5) as response:
        assert response.status_code == 200


def test_a_client_that_leaves_does_not_stop_the_generation(api, serve, gate):
    serve(ScriptedEngine("Hel", "lo", gate=gate))
    body = {"prompt": "Say it", "stream": True}
    with api.stream("POST", "/chat/new/message/", json=body):
        live = next(entry for entry in [supervisor.live(Response.objects.get().pk)] if entry)
        eventually(lambda: live.readers == 1)
    eventually(lambda: live.readers == 0)  # the server knows that the client left
    gate.set()

    assert live.wait(10)
    row = Response.objects.get()
    assert (row.status, row.text) == ("done", "Hello")


def test_forty_idle_streams_hold_no_database_handle(server, user, serve, gate):
    serve(ScriptedEngine("a", gate=gate))
    headers = {"Authorization": f"Bearer {ApiKey.issue(user=user)[1]}"}
    limits = httpx.Limits(max_connections=50)
    with httpx.Client(
        base_url=server.address, headers=headers, timeout=20, limits=limits
    ) as client:
        body = {"prompt": "Say it", "stream": True}
        request = client.build_request("POST", "/chat/new/message/", json=body)
        streams = [client.send(request, stream=True) for _ in range(40)]
        assert {stream.status_code for stream in streams} == {200}
        assert Response.objects.count() == 40
        connections.close_all()

        # The recorder and a request that is ending may have one each; streams have none. What
        # a pool keeps open is nobody's.
        eventually(lambda: database_handles() <= most_handles())
        gate.set()
        for stream in streams:
            assert b"event: done" in stream.read()


def most_handles() -> int:
    """What may stay open: the pool's size, or the recorder's one."""
    pool = connection.settings_dict["OPTIONS"].get("pool")
    return pool["max_size"] if pool else 1


def database_handles() -> int:
    """Open handles of this process on the test database, this look's own excluded."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return cursor.fetchone()[0]
    name = connection.settings_dict["NAME"]
    targets = []
    for handle in Path("/proc/self/fd").iterdir():
        try:
            targets.append(str(handle.readlink()))
        except FileNotFoundError:  # closed while we looked
            continue
    return targets.count(str(name))


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


async def _without(stream, unwanted: str):
    async for item in stream:
        if item != unwanted:
            yield item
