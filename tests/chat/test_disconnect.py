"""What happens when everybody who waited for a response has left: `on_disconnect`."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import pytest

from chat import responses
from chat.lifecycle.live import LiveResponse
from chat.lifecycle.supervisor import supervisor
from chat.models import Response
from tests.chat.refusals import named
from tests.chat.rows import answered
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import ServerThread, eventually, read_events, stream, text_of

MESSAGE = "/chat/new/message/"
COMPLETION = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Say it"}]}
SAY = {"prompt": "Say it"}

Request = tuple[str, str, dict[str, Any] | None]

# The project's own routes, then OpenAI's; each streamed and as JSON.
OURS: list[Request] = [
    ("POST", MESSAGE, SAY),
    ("POST", MESSAGE, {**SAY, "stream": True}),
    ("GET", "/sendMessage?prompt=Say+it", None),
    ("POST", "/api/conversations/{conversation}/prompts/", SAY),
    ("POST", "/api/conversations/{conversation}/prompts/", {**SAY, "stream": True}),
    ("POST", "/api/prompts/{prompt}/responses/", {}),
    ("POST", "/api/prompts/{prompt}/responses/", {"stream": True}),
]
OPENAIS: list[Request] = [
    ("POST", COMPLETION, HELLO),
    ("POST", COMPLETION, {**HELLO, "stream": True}),
    ("POST", COMPLETION, SAY),
    ("POST", COMPLETION, {**SAY, "stream": True}),
]


def asking(request: Request, policy: str) -> Request:
    """The same with `on_disconnect`."""
    method, path, body = request
    if body is None:
        return method, f"{path}&on_disconnect={policy}", None
    return method, path, {**body, "on_disconnect": policy}


@pytest.fixture
def gate(serve) -> Turnstile:
    """Lets the pieces of the answer through."""
    gate = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    return gate


Leave = Callable[[Request], LiveResponse]


@pytest.fixture
def leave(server: ServerThread, user, key, gate) -> Leave:
    """Sends a request and closes its connection when the answer has its first piece."""
    host, port = server.address.removeprefix("http://").split(":")
    row = answered(user, "Earlier")

    def ask_and_leave(request: Request) -> LiveResponse:
        method, path, body = request
        path = path.format(conversation=row.prompt.conversation_id, prompt=row.prompt_id)
        with closing(http.client.HTTPConnection(host, int(port), timeout=10)) as client:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            client.request(method, path, json.dumps(body) if body is not None else None, headers)
            made = eventually(lambda: Response.objects.exclude(pk=row.pk).first())
            live = supervisor.live(made.pk)
            gate.admit()
            eventually(lambda: live.text == "Hello" and live.attached == 1)
        return live

    return ask_and_leave


def stopped_in_time(live: LiveResponse) -> Response:
    """Its row, which says within a second that it was stopped."""
    began = time.monotonic()
    assert live.wait(5)
    row = Response.objects.get(pk=live.id)
    assert time.monotonic() - began < 1
    assert (row.status, row.finish_reason, row.text) == ("stopped", "cancelled", "Hello")
    assert row.completion_tokens == len("Hello")
    return row


def finished(live: LiveResponse, gate: Turnstile) -> Response:
    """Its row, which says that it went on after everybody had left."""
    eventually(lambda: live.attached == 0)
    gate.set()
    assert live.wait(10)
    row = Response.objects.get(pk=live.id)
    assert (row.status, row.text) == ("done", "Hello, world")
    return row


@pytest.mark.parametrize("request_", OURS, ids=str)
def test_on_the_projects_routes_a_response_goes_on(leave, gate, request_):
    assert finished(leave(request_), gate).on_disconnect == "finish"


@pytest.mark.parametrize("request_", OPENAIS, ids=str)
def test_on_openais_route_a_response_ends_with_its_client(leave, request_):
    assert stopped_in_time(leave(request_)).on_disconnect == "stop"


@pytest.mark.parametrize("request_", OURS, ids=str)
def test_a_caller_of_the_projects_routes_may_choose_the_end(leave, request_):
    assert stopped_in_time(leave(asking(request_, "stop"))).on_disconnect == "stop"


@pytest.mark.parametrize("request_", OPENAIS, ids=str)
def test_a_caller_of_openais_route_may_choose_to_go_on(leave, gate, request_):
    assert finished(leave(asking(request_, "finish")), gate).on_disconnect == "finish"


@pytest.mark.parametrize("policy", ["", "Stop", "cancel", None, True, 1, [], {}], ids=repr)
@pytest.mark.parametrize("request_", [*OURS, *OPENAIS], ids=str)
def test_another_policy_is_refused_by_name(api, user, engine, request_, policy):
    row = answered(user, "Earlier")
    method, path, body = request_
    path = path.format(conversation=row.prompt.conversation_id, prompt=row.prompt_id)
    method, path, body = asking((method, path, body), policy)
    answer = api.request(method, path, json=body)

    assert answer.status_code == 400
    assert named(answer) == ("invalid_request", "on_disconnect")
    assert Response.objects.count() == 1
    assert engine.prompts == []


def test_no_thread_waits_for_who_has_left(leave, gate, monkeypatch):
    answer, over = responses.answer, threading.Event()

    def noted(*arguments: Any, **options: Any) -> Any:
        try:
            return answer(*arguments, **options)
        finally:
            over.set()

    monkeypatch.setattr(responses, "answer", noted)
    live = leave(("POST", MESSAGE, SAY))
    assert over.wait(5)
    assert not live.ended
    finished(live, gate)


def test_the_last_one_who_leaves_ends_it(api, gate):
    body = {**SAY, "stream": True, "on_disconnect": "stop"}
    with ExitStack() as second, ExitStack() as first:
        with api.stream("POST", MESSAGE, json=body):
            row = Response.objects.get()
            live = supervisor.live(row.pk)
            for one in (first, second):
                one.enter_context(api.stream("GET", f"/api/responses/{row.pk}/events"))
        eventually(lambda: live.attached == 2)
        first.close()
        eventually(lambda: live.attached == 1)
        gate.admit()
        eventually(lambda: live.text == "Hello")
        assert not live.ended
    stopped_in_time(live)


def test_a_second_client_keeps_it_going_to_its_end(api, gate):
    with ExitStack() as following:
        with api.stream("POST", COMPLETION, json={**HELLO, "stream": True}):
            row = Response.objects.get()
            live = supervisor.live(row.pk)
            address = f"/api/responses/{row.pk}/events"
            response = following.enter_context(api.stream("GET", address))
        eventually(lambda: live.attached == 1)
        gate.set()
        events = list(read_events(response.iter_lines()))

    assert (text_of(events), events[-1].name) == ("Hello, world", "done")
    assert Response.objects.get().status == "done"


def test_who_read_everything_has_not_left(api, gate):
    gate.set()
    for _ in range(3):  # on one connection, which goes on after each answer
        stream(api, "POST", MESSAGE, json={**SAY, "stream": True, "on_disconnect": "stop"})
        api.post(COMPLETION, json=HELLO)

    assert set(Response.objects.values_list("status", flat=True)) == {"done"}
    assert Response.objects.count() == 6


def test_a_client_that_leaves_while_its_response_waits_in_the_queue_takes_it_along(
    server, key, serve, gate
):
    engine = serve(ScriptedEngine(gate=gate))
    host, port = server.address.removeprefix("http://").split(":")
    with closing(http.client.HTTPConnection(host, int(port), timeout=10)) as client:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        client.request("POST", COMPLETION, json.dumps(HELLO), headers)
        live = supervisor.live(eventually(lambda: Response.objects.first()).pk)
        eventually(lambda: live.attached == 1)

    assert live.wait(1)
    row = Response.objects.get()
    assert (row.status, row.text) == ("stopped", "")
    assert engine.tickets[0].finish.reason == "cancelled"
