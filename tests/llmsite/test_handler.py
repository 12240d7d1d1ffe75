"""A request enters its thread once for all middleware and the view."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from io import BytesIO
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.core.handlers.asgi import ASGIRequest
from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from django.utils.deprecation import MiddlewareMixin

from chat.limits.request_slots import AT_ONCE, request_slots
from llmsite.handler import Handler
from tests.chat.test_request_slots import waiting
from tests.web import eventually

SCOPE = {"type": "http", "method": "GET", "path": "/", "query_string": b""}

seen: list[tuple[str, int]] = []  # what ran, and in which thread


class Noting(MiddlewareMixin):
    """Can be asynchronous, as Django's own can."""

    def process_request(self, request: HttpRequest) -> None:
        seen.append(("before", threading.get_ident()))

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        seen.append(("after", threading.get_ident()))
        return response


def view(request: HttpRequest) -> HttpResponse:
    """What everybody is let through to."""
    seen.append(("view", threading.get_ident()))
    return HttpResponse("here")


async def asynchronous(request: HttpRequest) -> HttpResponse:
    """Not ours, but a later one's."""
    await asyncio.sleep(0)
    return HttpResponse("there")


def broken(request: HttpRequest) -> HttpResponse:
    """A view with a mistake."""
    raise RuntimeError("no")


class Breaking:
    """A stream with a mistake."""

    def __aiter__(self) -> Breaking:
        return self

    async def __anext__(self) -> bytes:
        raise RuntimeError("no")

    def close(self) -> None:
        seen.append(("closed", threading.get_ident()))


def breaking(request: HttpRequest) -> StreamingHttpResponse:
    """Begins well."""
    return StreamingHttpResponse(Breaking())


def held(request: HttpRequest) -> HttpResponse:
    """Holds everybody until the test lets them go."""
    seen.append(("view", threading.get_ident()))
    assert let_go.wait(10)
    return HttpResponse("held")


def reading(request: HttpRequest) -> HttpResponse:
    """Needs the database for as long as the test likes."""
    connection.ensure_connection()
    handles.append(connections[DEFAULT_DB_ALIAS])
    return held(request)


def views() -> int:
    """How many got through to their view."""
    return sum(what == "view" for what, _ in seen)


let_go = threading.Event()
handles: list[Any] = []  # a thread's own, of the database

urlpatterns = [
    path("", view),
    path("async", asynchronous),
    path("broken", broken),
    path("breaking", breaking),
    path("held", held),
    path("reading", reading),
]


@pytest.fixture(autouse=True)
def site(settings):
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [*[f"{__name__}.Noting"] * 3, *settings.MIDDLEWARE]
    seen.clear()
    handles.clear()
    let_go.clear()


@pytest.fixture
def crossings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the event loop had done in a thread."""
    made: list[Any] = []
    call = SyncToAsync.__call__

    async def noted(self: SyncToAsync[Any, Any], *args: Any, **options: Any) -> Any:
        made.append(self.func)
        return await call(self, *args, **options)

    monkeypatch.setattr(SyncToAsync, "__call__", noted)
    return made


async def get(where: str = "/") -> tuple[int, bytes]:
    """Status and body."""
    sent: list[dict[str, Any]] = []
    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, Any]:
        for message in asked:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await Handler()({**SCOPE, "path": where, "headers": [(b"host", b"localhost")]}, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


async def test_middleware_and_view_are_one_call_in_one_thread(crossings):
    assert await get() == (200, b"here")

    assert [what for what, _ in seen] == ["before"] * 3 + ["view"] + ["after"] * 3
    assert len({thread for _, thread in seen}) == 1
    assert threading.get_ident() not in {thread for _, thread in seen}
    assert len(crossings) <= 3  # the signal before, the chain, the response's end


async def test_an_asynchronous_view_is_answered_as_well():
    assert await get("/async") == (200, b"there")


async def test_what_a_view_raises_is_a_500():
    status, _ = await get("/broken")
    assert status == 500


async def test_a_stream_that_breaks_is_closed_like_any_other():
    with pytest.raises(RuntimeError):
        await get("/breaking")

    assert seen[-1][0] == "closed"


async def test_a_few_requests_are_worked_on_at_a_time(monkeypatch):
    monkeypatch.setattr(request_slots, "longest", 3600.0)
    several = [asyncio.create_task(get("/held")) for _ in range(AT_ONCE + 3)]
    await asyncio.to_thread(eventually, lambda: waiting(request_slots) == 3)
    await asyncio.to_thread(eventually, lambda: views() == AT_ONCE)
    assert len({thread for _, thread in seen}) == AT_ONCE

    let_go.set()
    assert await asyncio.gather(*several) == [(200, b"held")] * (AT_ONCE + 3)


@pytest.mark.django_db(transaction=True)
async def test_a_request_that_the_server_gave_up_on_gives_its_connection_back():
    """daphne cancels it again ten seconds after its client left, and its thread goes on alone."""
    scope = {**SCOPE, "path": "/reading", "headers": [(b"host", b"localhost")]}

    async def asked() -> None:
        async with ThreadSensitiveContext():
            with closing(BytesIO()) as body:
                await Handler().get_response_async(ASGIRequest(scope, body))

    request = asyncio.create_task(asked())
    await asyncio.to_thread(eventually, views)
    while not request.done():
        request.cancel()
        await asyncio.sleep(0)
    assert handles[0].connection is not None

    let_go.set()

    await asyncio.to_thread(eventually, lambda: handles[0].connection is None)
