"""Server-sent events: headers, heartbeats, and what a stream holds while it is open."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from pathlib import Path

import httpx
import pytest
from django.db import connection, connections

from chat.lifecycle.live import Delta, LiveResponse, Outcome
from chat.lifecycle.supervisor import supervisor
from chat.models import ApiKey, Prompt, Response
from chat.questions import Accepted
from chat.wire import events, openai
from llmsite.sqlite.base import KEPT
from modelhost.types import Usage
from tests.fakes import ScriptedEngine
from tests.web import eventually, read_events


@pytest.fixture
def quick_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A beat each millisecond."""
    monkeypatch.setattr("chat.lifecycle.live.HEARTBEAT", 0.001)


@pytest.mark.usefixtures("quick_heart")
@pytest.mark.parametrize("kind", [events.stream, events.whole])
async def test_a_silent_stream_shows_that_it_lives(kind):
    live = LiveResponse(uuid.uuid4())
    seen = []
    async for item in kind(live, conversation=live.id):
        seen.append(item)
        beats = seen.count(events.PING) if item == events.PING else 0
        if beats == 3:
            live.append("a")
        if beats == 6:
            live.close(Outcome(Response.Status.DONE, "stop", Usage(1, 1)))

    assert seen[0].startswith(f"event: accepted\nid: {live.id.hex}:0\ndata: {{")
    assert seen[1:4] == [events.PING] * 3, "before the first token"
    told = [item for item in seen[1:] if item != events.PING]
    assert ['"text": "a"' in told[0], "event: done" in told[1]] == [True, True]


@pytest.mark.usefixtures("quick_heart")
@pytest.mark.parametrize("kind", [events.stream, events.whole])
async def test_every_empty_line_ends_an_event_with_data(kind):
    """Some clients, httpx-sse and fetch-event-source among them, make an event of each."""
    live, conversation = LiveResponse(uuid.uuid4()), uuid.uuid4()
    sent = ""
    async for item in kind(live, conversation=conversation):
        sent += item
        if sent.count(": ping") == 3:
            live.append("a")
            live.close(Outcome(Response.Status.DONE, "stop", Usage(1, 1)))

    *blocks, rest = sent.split("\n\n")
    assert rest == ""
    data = [json.loads(re.findall("^data: (.*)$", block, re.M)[0]) for block in blocks]
    assert data[0] == {"message_id": live.id.hex, "conversation": str(conversation)}
    assert [one.get("text") for one in data] == [None, "a", None]


@pytest.mark.usefixtures("quick_heart")
async def test_the_heart_of_a_whole_answer_beats_while_its_pieces_come():
    live = LiveResponse(uuid.uuid4())
    told = events.whole(live, conversation=live.id)
    assert (await anext(told)).startswith("event: accepted\n")
    for _ in range(3):
        live.append("a")
        assert await anext(told) == events.PING
    live.close(Outcome(Response.Status.DONE, "stop", Usage(1, 3)))

    pieces = [item async for item in told if item != events.PING]
    assert '"text": "aaa"' in pieces[0]


@pytest.mark.usefixtures("quick_heart")
async def test_the_heart_beats_in_the_queue_and_the_place_is_told_once():
    live = LiveResponse(uuid.uuid4())
    live.position = lambda: 3
    stream = events.stream(live, conversation=live.id)

    seen = [await anext(stream) for _ in range(4)]
    await stream.aclose()

    assert "event: queued" in seen[1]
    assert seen[2:] == [events.PING] * 2


@pytest.mark.usefixtures("quick_heart")
async def test_openais_heartbeat_is_a_comment_without_an_empty_line():
    live = LiveResponse(uuid.uuid4())
    accepted = Accepted(live.id, Prompt(), live, [], [])
    stream = openai.stream(accepted, model="m", created=1, include_usage=False)

    assert '"role": "assistant"' in await anext(stream)
    assert await anext(stream) == ": ping\n"
    await stream.aclose()


async def test_a_replay_of_many_pieces_lets_others_have_their_turn(settings):
    settings.LLMSITE_EVENTS_PER_SECOND = 1e6
    live = LiveResponse(uuid.uuid4())
    for _ in range(100):
        live.append("a")
    live.close(Outcome(Response.Status.DONE, "stop", Usage(1, 1)))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.ensure_future(other())
    async for _ in events.stream(live, conversation=live.id):
        pass
    task.cancel()

    assert turns >= 90


@pytest.mark.usefixtures("quick_heart")
@pytest.mark.parametrize("seen", [1, 2, 3])
async def test_a_reader_that_leaves_is_forgotten(seen):
    live = LiveResponse(uuid.uuid4())
    live.append("a")
    stream = events.stream(live, conversation=live.id)
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


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/chat/new/message/", {"prompt": "Say it", "stream": True}, lambda end: end["code"]),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "Say it"}], "stream": True},
            lambda end: end["error"]["code"],
        ),
    ],
)
def test_a_stream_that_breaks_has_an_end_all_the_same(api, engine, monkeypatch, path, body, code):
    async def breaks(live: LiveResponse, after: int = 0):
        yield Delta("Hel", 3)
        raise LookupError("nobody foresaw this")

    monkeypatch.setattr(LiveResponse, "follow", breaks)
    with api.stream("POST", path, json=body, timeout=5) as response:
        *_, end = read_events(line for line in response.iter_lines() if "[DONE]" not in line)

    assert code(end.data) == "internal_error"
    eventually(lambda: supervisor.live(Response.objects.get().pk).attached == 0)


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
    """What may stay open: the pool's size, or the recorder's one and what is kept."""
    pool = connection.settings_dict["OPTIONS"].get("pool")
    return pool["max_size"] if pool else 1 + KEPT


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
