"""`/metrics`: what a process counted, and what it carries, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from chat.connections import KEY, Connection
from chat.errors import ServerStopping, exception_handler
from chat.failures import Code
from chat.lifecycle.supervisor import supervisor
from chat.models import ApiKey, Response
from chat.monitoring import metrics
from modelhost.errors import Busy
from modelhost.host import host
from tests.chat.rows import left_behind
from tests.fakes import ScriptedEngine
from tests.web import eventually, next_text, read_events

MESSAGE = "/chat/new/message/"
PATH = "/metrics"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def watcher(client_for, django_user_model) -> httpx.Client:
    """A program with a key of somebody with staff status."""
    staff = django_user_model.objects.create_user("prometheus", is_staff=True)
    return client_for(ApiKey.issue(user=staff)[1])


def read(watcher: httpx.Client) -> Samples:
    """Every sample by its name and labels, read as Prometheus' own client reads them."""
    answer = watcher.get(PATH)
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, /, **labels: str) -> float:
    """Of one sample; 0 for one that nothing was counted for yet."""
    return samples.get((f"llmsite_{name}", frozenset(labels.items())), 0.0)


@pytest.fixture
def grown(watcher) -> Callable[..., float]:
    """By how much a counter grew since the test began."""
    before = read(watcher)

    def since(name: str, /, **labels: str) -> float:
        return value(read(watcher), name, **labels) - value(before, name, **labels)

    return since


def test_an_answer_is_counted_with_its_tokens_and_times(api, engine, grown):
    usage = api.post(MESSAGE, json={"prompt": "Hi"}).json()["usage"]

    assert grown("responses_total", status="done") == 1
    assert grown("prompt_tokens_total") == usage["prompt_tokens"]
    assert grown("completion_tokens_total") == usage["completion_tokens"]
    for name in ("first_token_seconds", "response_seconds"):
        assert grown(f"{name}_count") == 1
        assert 0 <= grown(f"{name}_sum") < 20


def test_what_runs_is_seen_while_it_runs(api, turnstile, watcher, grown):
    def stages() -> tuple[float, float]:
        samples = read(watcher)
        return value(samples, "responses_queued"), value(samples, "responses_streaming")

    with api.stream("POST", MESSAGE, json={"prompt": "Hi", "stream": True}) as answer:
        assert stages() == (1, 0)
        samples = read(watcher)
        assert value(samples, "streams_open") == 1
        assert value(samples, "prompt_tokens_inside") == len("user: Hi\n")
        turnstile.admit()
        events = read_events(answer.iter_lines())
        assert next_text(events) == "Hello"
        assert stages() == (0, 1)
        assert grown("completion_tokens_total") == len("Hello")
        assert grown("responses_total", status="done") == 0
        turnstile.set()
        assert [event.name for event in events][-1] == "done"
    assert stages() == (0, 0)


def test_a_response_that_another_process_began_is_counted_with_what_was_made_here(
    user, serve, grown
):
    row = left_behind(user, "Hel", started_at=timezone.now() - timedelta(seconds=60))
    serve(ScriptedEngine("Hello"))
    supervisor.start(recover=True)
    assert eventually(lambda: Response.objects.get(pk=row.pk).status == "done")

    assert eventually(lambda: grown("responses_total", status="done") == 1)
    assert grown("completion_tokens_total") == Response.objects.get().completion_tokens - 3
    assert grown("response_seconds_sum") >= 60


def test_a_response_that_cannot_go_on_is_counted_once(user, serve, grown):
    row = left_behind(user, "Hel", model="another model")
    serve(ScriptedEngine("Hello"))
    supervisor.start(recover=True)
    assert eventually(lambda: Response.objects.get(pk=row.pk).status == "interrupted")

    assert eventually(lambda: grown("responses_total", status="interrupted") == 1)


def test_a_response_that_nobody_carries_is_counted_once_when_it_is_stopped(api, user, grown):
    row = left_behind(user, "Hel")
    for _ in range(2):
        assert api.post(f"/api/responses/{row.pk}/stop").json()["status"] == "stopped"

    assert grown("responses_total", status="stopped") == 1


def test_a_response_that_no_engine_takes_is_counted_once(api, engine, grown, monkeypatch):
    def refuse(*_, **__):
        raise Busy("No place is left.")

    monkeypatch.setattr(engine, "submit", refuse)
    assert api.post(MESSAGE, json={"prompt": "Hi"}).status_code == 429

    assert grown("responses_total", status="failed") == 1


def test_a_response_whose_row_refuses_its_values_is_counted_once(api, serve, grown):
    serve(ScriptedEngine("a\x00b"))
    answer = api.post(MESSAGE, json={"prompt": "Hi"})
    ended = Response.objects.get()

    assert (answer.status_code == 200) is (ended.status == "done")  # SQLite takes it
    assert grown("responses_total", status=ended.status) == 1


def test_what_is_refused_is_counted_by_its_code(api, engine, socket, grown):
    api.post(MESSAGE, json={})
    api.post("/v1/chat/completions", json={"messages": []})
    api.get("/api/nothing")
    socket.tell("shout")
    assert socket.hear()["type"] == "refused"
    api.post(MESSAGE, content=b"x" * (1 << 21))

    assert grown("refusals_total", code="invalid_request") == 3
    assert grown("refusals_total", code="not_found") == 1
    assert grown("refusals_total", code="body_too_large") == 1


def test_a_process_that_cannot_answer_says_so_and_counts_on(watcher):
    host.unload()
    samples = read(watcher)

    assert value(samples, "ready") == 0
    assert not [name for name, _ in samples if name == "llmsite_model_info"]


def test_it_says_which_model_is_ready_and_how_often_its_engine_died(watcher, engine):
    engine.restarts = 2
    samples = read(watcher)

    assert value(samples, "ready") == 1
    assert value(samples, "model_info", name="scripted-model", revision="r1", adapter="") == 1
    assert value(samples, "engine_restarts_total") == 2


def test_no_text_and_no_name_is_in_it(api, engine, watcher, key):
    api.post(MESSAGE, json={"prompt": "a canary"})
    api.post("/v1/chat/completions", json={"messages": [{"role": "canary", "content": "canary"}]})
    api.post("/v1/chat/completions", json={"canary": 1, "messages": []})
    text = watcher.get(PATH).text

    assert 'code="invalid_request"' in text
    assert "canary" not in text
    assert key not in text


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=1.0.0", "*/*", ""])
def test_the_format_is_the_one_that_is_asked_for(watcher, accept):
    answer = watcher.get(PATH, headers={"Accept": accept})
    asked = accept.startswith("application/openmetrics-text")

    assert answer.headers["Content-Type"].startswith(accept if asked else "text/plain")
    assert answer.text.endswith("# EOF\n") is asked
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("version", ["x", "1.x", "1..0", "²"])
def test_a_version_that_is_none_is_answered_in_the_plain_format(watcher, version):
    for kind in ("application/openmetrics-text", "text/plain"):
        answer = watcher.get(PATH, headers={"Accept": f"{kind};version={version}".encode()})
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain")


def test_who_is_no_staff_is_refused(api, client_for):
    assert api.get(PATH).json()["code"] == "forbidden"
    assert client_for(None).get(PATH).json()["code"] == "not_authenticated"


def test_a_browser_of_staff_may_look(administrator: Client, user: Any):
    assert administrator.get(PATH).status_code == 200


def test_what_never_happened_is_counted_as_none(watcher):
    samples = read(watcher)

    assert ("llmsite_responses_total", frozenset({("status", "failed")})) in samples
    assert ("llmsite_responses_total", frozenset({("status", "queued")})) not in samples
    for code in Code:
        assert ("llmsite_refusals_total", frozenset({("code", code.value)})) in samples


@pytest.mark.parametrize("there", [True, False])
def test_what_nobody_hears_is_not_counted(rf, monkeypatch, there):
    counted: list[Code] = []
    monkeypatch.setattr(metrics, "refused", counted.append)
    request = rf.get("/chat/new/message/")
    request.scope = {KEY: (connection := Connection())}
    if not there:
        connection.close()

    assert exception_handler(ServerStopping(), {"request": request, "view": None}) is not None
    assert counted == [Code.SERVER_STOPPING] * there
