"""What is open ends with the rights of whoever opened it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError
from django.test import Client
from rest_framework.exceptions import NotAuthenticated

from chat.access import rights as module
from chat.access.callers import Scope, authenticate
from chat.lifecycle.supervisor import supervisor
from chat.limits.readers import readers
from chat.models import ApiKey, Response
from chat.views import asking
from chat.wire import streams
from tests.web import eventually, next_text, read_events, stream, text_of

MESSAGE = "/chat/new/message/"
STREAMED = {"prompt": "Say it", "stream": True}
COMPLETION = {
    "messages": [{"role": "user", "content": "Say it"}],
    "stream": True,
    "on_disconnect": "finish",
}
EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rights are looked at with each event, and no look speaks for another."""
    monkeypatch.setattr(streams, "LOOK_AGAIN", 0.0)
    monkeypatch.setattr(asking, "LOOK_AGAIN", 0.0)
    monkeypatch.setattr(module, "SPEAKS_FOR", 0.0)


@pytest.fixture
def page(server, user) -> Iterator[tuple[httpx.Client, Client]]:
    """A browser in which ada is signed in, as a client of the server and as Django's."""
    browser = Client()
    browser.force_login(user)
    cookies = {name: morsel.value for name, morsel in browser.cookies.items()}
    with httpx.Client(
        base_url=server.address, cookies=cookies, headers=EVENTS, timeout=20
    ) as client:
        yield client, browser


def revoke() -> None:
    ApiKey.objects.get().revoke()


def disable() -> None:
    get_user_model().objects.update(is_active=False)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("ended", [revoke, disable])
@pytest.mark.parametrize(
    ("path", "body"), [(MESSAGE, STREAMED), ("/v1/chat/completions", COMPLETION)]
)
def test_a_stream_is_cut_where_key_or_person_lost_its_rights(api, turnstile, ended, path, body):
    with api.stream("POST", path, json=body) as answer:
        lines = answer.iter_lines()
        turnstile.admit()
        assert "Hello" in next(line for line in lines if "Hello" in line)
        ended()
        turnstile.admit()
        rest = list(lines)

    assert not any(line.startswith("data:") for line in rest), "nothing of what came after"
    eventually(lambda: readers.total == 0)
    row = Response.objects.get()
    assert row.active, "the response itself goes on"
    again = api.get(f"/api/responses/{row.pk}/events?after=5")
    assert again.status_code == 401
    turnstile.set()
    assert supervisor.live(row.pk).wait(10)
    assert Response.objects.get().text == "Hello, world"


@pytest.mark.usefixtures("always")
def test_a_silent_stream_is_cut_at_its_heartbeat(api, turnstile, monkeypatch):
    monkeypatch.setattr("chat.lifecycle.live.HEARTBEAT", 0.02)
    with api.stream("POST", MESSAGE, json=STREAMED) as answer:
        revoke()
        # A place in the queue may be told before; an uncut stream would not end at all.
        assert {event.name for event in read_events(answer.iter_lines())} <= {"queued"}


@pytest.mark.usefixtures("always")
def test_a_page_reads_on_until_its_person_logs_out(page, turnstile):
    client, browser = page
    with client.stream("GET", "/sendMessage?prompt=Say+it") as answer:
        events = read_events(answer.iter_lines())
        turnstile.admit(2)
        assert [next_text(events), next_text(events)] == ["Hello", ", "]
        browser.logout()
        turnstile.admit()
        assert text_of(events) == ""


@pytest.mark.usefixtures("always")
def test_who_takes_its_answers_along_takes_this_one(api, turnstile):
    body = {**STREAMED, "on_disconnect": "stop"}
    with api.stream("POST", MESSAGE, json=body) as answer:
        lines = answer.iter_lines()
        turnstile.admit()
        next(line for line in lines if "Hello" in line)
        revoke()
        turnstile.admit()
        list(lines)

    assert supervisor.live(Response.objects.get().pk).wait(10)
    assert Response.objects.get().status == Response.Status.STOPPED


@pytest.mark.usefixtures("always")
def test_an_answer_in_one_piece_is_not_handed_to_who_lost_its_rights(api, turnstile):
    with ThreadPoolExecutor(1) as elsewhere:
        asked = elsewhere.submit(api.post, MESSAGE, json={"prompt": "Say it"})
        eventually(Response.objects.exists)
        revoke()
        turnstile.set()
        answer = asked.result()

    assert answer.status_code == 401
    assert "Hello" not in answer.text
    assert Response.objects.get().text == "Hello, world"


@pytest.mark.usefixtures("always")
def test_streams_end_as_ever_while_rights_hold(api, page, engine):
    client, _ = page
    assert text_of(stream(api, "POST", MESSAGE, json=STREAMED)) == "Hello, world"
    assert text_of(stream(client, "GET", "/sendMessage?prompt=Say+it")) == "Hello, world"


@pytest.mark.usefixtures("always")
def test_a_database_that_is_away_ends_nothing(api, turnstile, monkeypatch, caplog):
    def away(_: Any) -> Any:
        raise OperationalError("gone for a while")

    with api.stream("POST", MESSAGE, json=STREAMED) as answer:
        events = read_events(answer.iter_lines())
        turnstile.admit()
        assert next_text(events) == "Hello"
        monkeypatch.setattr(module, "authenticate", away)
        turnstile.set()
        assert text_of(events) == ", world"
    assert "gone for a while" in caplog.text


def test_one_look_speaks_for_all_that_one_key_opened(api, turnstile, monkeypatch):
    monkeypatch.setattr(streams, "LOOK_AGAIN", 0.0)
    monkeypatch.setattr(module, "SPEAKS_FOR", 60.0)
    looks: list[str] = []
    monkeypatch.setattr(
        module,
        "authenticate",
        lambda request: (looks.append(request.path), authenticate(request))[1],
    )
    with ExitStack() as opened:
        answers = [
            opened.enter_context(api.stream("POST", MESSAGE, json=STREAMED)) for _ in range(5)
        ]
        turnstile.set()
        for answer in answers:
            assert text_of(read_events(answer.iter_lines())) == "Hello, world"
    assert len(looks) == 1


def opened_with(cookie: bytes) -> Scope:
    """The scope of a request that a browser sent."""
    headers = [(b"accept", b"text/event-stream"), (b"cookie", cookie)]
    return {"method": "GET", "path": "/", "query_string": b"", "headers": headers}


async def test_one_persons_session_does_not_speak_for_anothers(monkeypatch):
    def look(request: Any) -> None:
        if request.headers["Cookie"] == "sessionid=over":
            raise NotAuthenticated

    monkeypatch.setattr(module, "authenticate", look)
    assert await module.rights.hold(opened_with(b"sessionid=lasting"))
    assert not await module.rights.hold(opened_with(b"sessionid=over"))


async def test_who_leaves_during_a_look_takes_it_from_nobody(monkeypatch):
    looking, go_on = threading.Event(), threading.Event()

    def look(_: Any) -> None:
        looking.set()
        assert go_on.wait(10)

    monkeypatch.setattr(module, "authenticate", look)
    one, two = (
        asyncio.ensure_future(module.rights.hold(opened_with(b"sessionid=shared")))
        for _ in range(2)
    )
    await asyncio.to_thread(looking.wait, 10)
    one.cancel()
    await asyncio.wait([one])
    go_on.set()

    assert await two


async def test_nobody_waits_long_for_a_database_that_hangs_and_one_look_waits_there(monkeypatch):
    looks, go_on, over = [], threading.Event(), threading.Event()

    def look(_: Any) -> None:
        looks.append(threading.current_thread())
        assert go_on.wait(10)
        if over.is_set():
            raise NotAuthenticated

    monkeypatch.setattr(module, "authenticate", look)
    monkeypatch.setattr(module, "SPEAKS_FOR", 0.0)
    monkeypatch.setattr(module, "WAITED_FOR", 0.05)
    scope = opened_with(b"sessionid=hanging")
    assert await module.rights.hold(scope)
    assert await module.rights.hold(scope)
    assert len(looks) == 1

    monkeypatch.setattr(module, "WAITED_FOR", 10.0)
    go_on.set()
    await module.rights.hold(scope)
    over.set()
    assert not await module.rights.hold(scope)


def test_what_one_credential_lost_another_one_keeps(api, client_for, user, turnstile, always):
    _, secret = ApiKey.issue(user=user, name="second")
    second = client_for(secret)
    with (
        api.stream("POST", MESSAGE, json=STREAMED) as one,
        second.stream("POST", MESSAGE, json=STREAMED) as two,
    ):
        ApiKey.objects.exclude(name="second").get().revoke()
        turnstile.set()
        assert text_of(read_events(one.iter_lines())) == ""
        assert text_of(read_events(two.iter_lines())) == "Hello, world"
