"""Pages of other origins: those that are named call the API with a key, the others see nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from chat.lifecycle.supervisor import supervisor
from chat.models import Response

pytest_plugins = ["tests.browser"]

MESSAGE = "/chat/new/message/"
PAGE = "https://chat.example.org"
ALLOWED = "access-control-allow-origin"
# What a page does that was written against the API: ask with a key and read the stream.
ASK = """async ([address, key, body]) => {
    const headers = {
        "Authorization": `Bearer ${key}`, "Content-Type": "application/json",
        "Idempotency-Key": crypto.randomUUID(), "X-Stainless-Retry-Count": "0",
    };
    const answer = await fetch(address, {method: "POST", headers, body: JSON.stringify(body)});
    return {status: answer.status, retry: answer.headers.get("Retry-After"),
            text: await answer.text()};
}"""
GET = """async ([address, key]) => {
    const answer = await fetch(address, {headers: {"Authorization": `Bearer ${key}`}});
    return {status: answer.status, text: await answer.text()};
}"""


@pytest.fixture
def named(settings) -> None:
    """One other origin may call."""
    settings.CORS_ALLOWED_ORIGINS = [PAGE]


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The address of an empty page of another origin."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><link rel=icon href=data:,>")

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def leave(client: Any, path: str, origin: str, *headers: str, method: str = "POST") -> Any:
    """What a browser asks before it sends such a request (Fetch, CORS-preflight)."""
    return client.options(
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": ",".join(headers),
        },
    )


@pytest.mark.parametrize("path", [MESSAGE, "/chat/new/message", "/v1/chat/completions"])
def test_a_page_that_is_named_has_leave_without_a_key(client_for, named, path):
    answer = leave(client_for(None), path, PAGE, "authorization", "content-type")

    assert (answer.status_code, answer.headers[ALLOWED]) == (200, PAGE)
    allowed = answer.headers["access-control-allow-headers"].split(", ")
    assert {"authorization", "content-type", "idempotency-key", "last-event-id"} <= {*allowed}
    assert "PATCH" in answer.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://chat.example.org"])
def test_another_page_has_none(client_for, api, engine, named, origin):
    assert ALLOWED not in leave(client_for(None), MESSAGE, origin).headers
    assert ALLOWED not in api.get("/v1/models", headers={"Origin": origin}).headers


def test_nobody_is_named_unless_somebody_is(client_for, api, engine):
    assert ALLOWED not in leave(client_for(None), MESSAGE, PAGE).headers
    assert ALLOWED not in api.get("/v1/models", headers={"Origin": PAGE}).headers


@pytest.mark.parametrize("path", ["/", "/login/", "/admin/login/", "/metrics", "/chatter"])
def test_what_is_for_people_is_for_no_other_page(client_for, named, path):
    client = client_for(None)

    assert ALLOWED not in leave(client, path, PAGE).headers
    assert ALLOWED not in client.get(path, headers={"Origin": PAGE}).headers


def test_every_page_may_be_named(client_for, api, engine, settings):
    settings.CORS_ALLOW_ALL_ORIGINS = True

    assert leave(client_for(None), MESSAGE, "https://any.example").headers[ALLOWED] == "*"
    answer = api.post(MESSAGE, json={"prompt": "Hi"}, headers={"Origin": "https://any.example"})
    assert (answer.status_code, answer.headers[ALLOWED]) == (200, "*")


def test_a_page_that_is_named_reads_why_it_is_refused(client_for, named):
    answer = client_for(None).get("/v1/models", headers={"Origin": PAGE})

    assert (answer.status_code, answer.headers[ALLOWED]) == (401, PAGE)


def test_a_key_is_asked_of_a_page_that_is_named_and_a_session_is_not_enough(
    client, user, engine, named
):
    client.force_login(user)
    headers = {"Origin": PAGE, "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}

    assert client.get("/sendMessage?prompt=Hi", headers=headers).status_code == 403
    assert Response.objects.count() == 0


def test_a_page_that_is_named_may_follow_a_get(api, engine, named):
    headers = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    answer = api.get("/sendMessage", params={"prompt": "Hi"}, headers=headers)

    assert answer.status_code == 200
    assert "event: done" in answer.text


def test_in_a_browser_a_page_that_is_named_asks_and_reads(
    page, server, key, engine, elsewhere, settings, problems
):
    problems.excuse("503")
    settings.CORS_ALLOWED_ORIGINS = [elsewhere]
    page.goto(elsewhere)
    body = {"prompt": "Hi", "stream": True}
    asked = page.evaluate(ASK, [server.address + MESSAGE, key, body])
    followed = page.evaluate(GET, [f"{server.address}/sendMessage?prompt=Hi", key])

    for answer in (asked, followed):
        assert answer["status"] == 200
        assert "event: done" in answer["text"]
    supervisor.draining = True
    refused = page.evaluate(ASK, [server.address + "/v1/chat/completions", key, {"prompt": "Hi"}])
    assert (refused["status"], refused["retry"]) == (503, "10")


def test_in_a_browser_a_page_that_is_named_reads_that_its_body_is_too_large(
    page, server, key, engine, elsewhere, settings, problems
):
    problems.excuse("413")
    settings.CORS_ALLOWED_ORIGINS = [elsewhere]
    page.goto(elsewhere)
    body = {"prompt": "x" * (2 << 20)}
    refused = page.evaluate(ASK, [server.address + MESSAGE, key, body])

    assert refused["status"] == 413
    assert "The body is larger than" in refused["text"]


def test_in_a_browser_a_page_that_is_not_named_starts_nothing(
    page, server, key, engine, elsewhere, problems
):
    problems.excuse("CORS policy", "net::ERR_FAILED", "401")
    page.goto(elsewhere)
    for script, path in ((ASK, MESSAGE), (GET, "/sendMessage?prompt=Hi")):
        asking = f"async (given) => {{ try {{ await ({script})(given) }} catch {{ return true }} }}"
        assert page.evaluate(asking, [server.address + path, key, {"prompt": "Hi"}])

    assert Response.objects.count() == 0
