"""Who is still there: over a real socket, with views that wait as ours do."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import threading
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx
import pytest
from django.http import StreamingHttpResponse
from django.test import RequestFactory
from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from chat.connections import KEY, Connection, ConnectionWatch, connection_of


class Stage:
    """What the views below did, and what they wait for."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.left = threading.Event()
        self.go_on = threading.Event()
        self.connections: list[Connection] = []

    def watch(self, request: Any) -> None:
        connection = connection_of(request)
        connection.on_close(self.left.set)
        self.connections.append(connection)
        self.began.set()


stage = Stage()


class Waiting(APIView):
    """Blocks its thread until it may go on."""

    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []

    def get(self, request: Request) -> Response:
        here = stage
        here.watch(request)
        here.go_on.wait(20)
        return Response({"answer": 42})


class Streaming(Waiting):
    """As many pieces as asked for, then silence until it may go on; and an error, if asked for."""

    def get(self, request: Request) -> StreamingHttpResponse:
        here = stage
        here.watch(request)
        return StreamingHttpResponse(self.pieces(here, **request.GET.dict()))

    async def pieces(self, here: Stage, pieces: str, error: str = "") -> AsyncGenerator[str, None]:
        for _ in range(int(pieces)):
            yield "piece\n"
        if error:
            raise LookupError(error)
        await asyncio.to_thread(here.go_on.wait, 20)
        yield "end\n"


urlpatterns = [path("waiting", Waiting.as_view()), path("streaming", Streaming.as_view())]


@pytest.fixture(autouse=True)
def views(settings) -> Iterator[Stage]:
    """The routes above, and a new stage for them."""
    global stage
    settings.ROOT_URLCONF = __name__
    stage = Stage()
    yield stage
    stage.go_on.set()


@pytest.fixture
def client(server) -> Iterator[http.client.HTTPConnection]:
    """One TCP connection."""
    host, port = server.address.removeprefix("http://").split(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=10)) as made:
        yield made


def test_a_client_that_leaves_a_stream_is_noticed(views, client):
    client.request("GET", "/streaming?pieces=2")
    answer = client.getresponse()
    assert answer.readline() == b"piece\n"
    answer.close()
    client.close()

    assert views.left.wait(1)
    assert views.connections[0].closed


def test_a_client_that_leaves_before_the_first_byte_is_noticed(views, client):
    client.request("GET", "/streaming?pieces=0")
    assert views.began.wait(5)
    client.close()

    assert views.left.wait(1)


def test_a_client_that_leaves_while_a_thread_works_for_it_is_noticed(views, client):
    client.request("GET", "/waiting")
    assert views.began.wait(5)
    client.close()

    assert views.left.wait(1)
    late = threading.Event()
    views.connections[0].on_close(late.set)
    assert late.is_set(), "who asks after the end is told at once"


def test_a_stream_that_breaks_is_cut_and_the_server_goes_on_looking_after_others(views, server):
    for _ in range(2):  # what cuts the first one would be gone at the second
        with (
            httpx.Client(base_url=server.address, timeout=10) as reader,
            pytest.raises(httpx.RemoteProtocolError),
        ):
            reader.get("/streaming?pieces=2&error=broken")

    assert [one.closed for one in views.connections] == [True, True], "whoever waited, does not"


@pytest.mark.parametrize("route", ["/waiting", "/streaming?pieces=3"])
def test_a_normal_end_calls_nobody(views, client, route):
    views.go_on.set()
    for _ in range(2):  # the same connection: the one that ends belongs to the second exchange
        client.request("GET", route)
        assert client.getresponse().read()
    client.close()

    assert not views.left.wait(0.3)
    first, second = views.connections
    assert first is not second
    assert [(one.finished, one.closed) for one in views.connections] == [(True, False)] * 2


def test_a_kept_connection_that_closes_later_calls_only_the_exchange_under_way(views, client):
    views.go_on.set()
    client.request("GET", "/waiting")
    client.getresponse().read()
    views.go_on.clear()
    views.began.clear()
    client.request("GET", "/waiting")
    assert views.began.wait(5)
    client.close()

    assert views.left.wait(1)
    assert [one.closed for one in views.connections] == [False, True]


def test_outside_asgi_there_is_a_connection_that_never_closes():
    request = RequestFactory().get("/")

    for one in (connection_of(request), connection_of(Request(request))):
        one.on_close(lambda: pytest.fail("nobody left"))
        assert not one.closed


def test_each_callback_is_called_once_and_none_keeps_the_others_from_it(caplog):
    connection, calls = Connection(), []
    connection.on_close(lambda: calls.append("first"))
    connection.on_close(lambda: 1 // 0)
    connection.on_close(lambda: calls.append("last"))

    connection.close()
    connection.close()
    connection.on_close(lambda: calls.append("late"))

    assert calls == ["first", "last", "late"]
    assert "callback" in caplog.text


def test_after_the_end_nothing_counts_any_more():
    connection = Connection()
    connection.on_close(lambda: pytest.fail("it had finished"))
    connection.finish()
    connection.on_close(lambda: pytest.fail("it had finished"))
    connection.close()

    assert not connection.closed


@pytest.mark.parametrize("end", [Connection.close, Connection.finish])
def test_every_end_is_heard_once(end):
    connection, calls = Connection(), []
    connection.on_end(lambda: calls.append("in time"))
    for _ in range(2):
        end(connection)
    connection.on_end(lambda: calls.append("late"))

    assert calls == ["in time", "late"]


@pytest.mark.parametrize("cut", [OSError("broken"), asyncio.CancelledError("stopped")], ids=repr)
async def test_an_application_that_breaks_off_has_ended_as_well(cut):
    calls = []

    async def application(scope, receive, send) -> None:
        scope[KEY].on_end(lambda: calls.append("end"))
        raise cut

    with pytest.raises(type(cut)):
        await ConnectionWatch(application)({"type": "http"}, None, None)

    assert calls == ["end"]


async def test_a_client_that_leaves_with_the_last_piece_has_had_it_all():
    left = asyncio.Event()

    async def application(scope, receive, send) -> None:
        scope[KEY].on_close(lambda: pytest.fail("it had finished"))
        listening = asyncio.create_task(receive())
        await send({"type": "http.response.body", "body": b"all", "more_body": False})
        assert (await listening)["type"] == "http.disconnect"
        assert not scope[KEY].closed

    async def receive() -> dict[str, Any]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        left.set()
        await asyncio.sleep(0)  # who listens hears of it before this is over
        await asyncio.sleep(0)

    await ConnectionWatch(application)({"type": "http"}, receive, send)


def test_outside_asgi_an_exchange_is_taken_for_over():
    calls = []
    connection_of(RequestFactory().get("/")).on_end(lambda: calls.append("end"))

    assert calls == ["end"]


def test_callbacks_from_many_threads_meet_the_end_exactly_once():
    for _ in range(50):
        connection, calls = Connection(), []
        barrier = threading.Barrier(5)

        def listen(connection=connection, calls=calls, barrier=barrier) -> None:
            barrier.wait()
            connection.on_close(lambda: calls.append(1))

        def close(connection=connection, barrier=barrier) -> None:
            barrier.wait()
            connection.close()

        threads = [threading.Thread(target=work) for work in (*[listen] * 4, close)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(calls) == 4


async def test_other_protocols_pass_untouched():
    seen = []

    async def application(scope, receive, send) -> None:
        seen.append((scope, receive, send))

    scope = {"type": "lifespan"}
    await ConnectionWatch(application)(scope, "receive", "send")
    assert seen == [(scope, "receive", "send")]


async def test_the_servers_own_scope_is_left_alone():
    async def application(scope, receive, send) -> None:
        assert isinstance(scope[KEY], Connection)

    scope = {"type": "http"}
    await ConnectionWatch(application)(scope, None, None)
    assert scope == {"type": "http"}
