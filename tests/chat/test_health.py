"""`/healthz` and `/readyz`."""

from __future__ import annotations

import threading

import pytest

from modelhost.errors import LoadFailed
from modelhost.host import Host, host
from modelhost.types import ModelSpec
from tests.fakes import ScriptedEngine


def test_the_process_is_alive_with_and_without_a_model(client_for):
    host.unload()
    assert client_for(None).get("/healthz").json() == {"status": "alive"}


def test_it_is_ready_when_a_token_can_be_made(client_for, engine):
    answer = client_for(None).get("/readyz")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "model": "scripted-model", "revision": "r1"}


def test_a_load_under_way_shows_its_progress(client_for, gate, monkeypatch):
    begun = threading.Event()

    def slow(spec, progress):
        progress.begin("reading", total=4, unit="B")
        progress.advance(1)
        begun.set()
        gate.wait(10)
        return ScriptedEngine()

    loading = Host(slow)
    monkeypatch.setattr("chat.monitoring.health.host", loading)
    loading.start(ModelSpec())
    assert begun.wait(10)
    answer = client_for(None).get("/readyz")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    body = answer.json()
    assert body["status"] == "loading"
    assert body["progress"] == {
        "stage": "reading",
        "done": 1,
        "total": 4,
        "unit": "B",
        "fraction": 0.25,
    }
    gate.set()
    loading.wait(10)
    assert client_for(None).get("/readyz").status_code == 200


def test_a_load_that_failed_says_why(client_for, monkeypatch):
    def failing(spec, progress):
        raise LoadFailed("No such folder.")

    failed = Host(failing)
    monkeypatch.setattr("chat.monitoring.health.host", failed)
    failed.start(ModelSpec())
    with pytest.raises(LoadFailed):
        failed.wait(10)
    body = client_for(None).get("/readyz").json()

    assert (body["status"], body["detail"]) == ("failed", "No such folder.")


def test_an_engine_that_died_is_not_called_ready(client_for, serve):
    serve(ScriptedEngine()).alive = False
    answer = client_for(None).get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["status"] == "stopped"
