"""`/healthz` and `/readyz` are answered by the event loop, whatever becomes of the rest."""

from __future__ import annotations

import json

import pytest

from chat.lifecycle.supervisor import supervisor
from chat.monitoring.health import liveness, readiness
from llmsite.probes import Probes

PAGE = "https://chat.example.org"
PROBES = {"/healthz": liveness, "/readyz": readiness}


async def asked(
    method: str, path: str, *headers: tuple[bytes, bytes]
) -> tuple[list[dict], list[str]]:
    """What was sent, and which paths reached the application behind."""
    sent: list[dict] = []
    reached: list[str] = []

    async def application(scope, receive, send):
        reached.append(scope["path"])

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    await Probes(application, PROBES)(scope, None, send)
    return sent, reached


async def test_it_answers_by_itself():
    (start, body), reached = await asked("GET", "/healthz")

    assert (start["status"], json.loads(body["body"])) == (200, {"status": "alive"})
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    assert reached == []


async def test_readiness_needs_no_thread_and_no_row(engine):
    (start, body), reached = await asked("GET", "/readyz")

    assert start["status"] == 200
    assert json.loads(body["body"])["status"] == "ready"
    assert reached == []


@pytest.mark.parametrize("alive", [True, False])
@pytest.mark.parametrize("path", list(PROBES))
async def test_the_views_behind_would_say_the_same(client, engine, path, alive):
    engine.alive = alive
    (start, body), _ = await asked("GET", path)
    view = client.get(path)

    assert (start["status"], body["body"]) == (view.status_code, view.content)
    for name, value in dict(start["headers"]).items():
        assert view.headers[name.decode()] == value.decode()


@pytest.mark.parametrize("path", list(PROBES))
async def test_a_page_of_a_named_origin_reads_them(client, engine, settings, path):
    settings.CORS_ALLOWED_ORIGINS = [PAGE]
    (named, _), _ = await asked("GET", path, (b"origin", PAGE.encode()))
    (other, _), _ = await asked("GET", path, (b"origin", b"https://evil.example"))

    assert dict(named["headers"])[b"access-control-allow-origin"] == PAGE.encode()
    assert b"access-control-allow-origin" not in dict(other["headers"])
    view = client.get(path, headers={"Origin": PAGE})
    assert view.headers["access-control-allow-origin"] == PAGE


async def test_who_may_not_ask_any_more_is_told_when_to_come_again(engine, monkeypatch):
    monkeypatch.setattr(supervisor, "draining", True)
    (start, body), _ = await asked("GET", "/readyz")

    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (503, b"5")
    assert json.loads(body["body"])["status"] == "stopped"


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/healthz"), ("HEAD", "/healthz"), ("HEAD", "/readyz"), ("GET", "/")],
)
async def test_everything_else_is_djangos(method, path):
    assert await asked(method, path) == ([], [path])
