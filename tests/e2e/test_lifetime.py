"""Starting, ending, being killed, starting again."""

from __future__ import annotations

import signal
import threading
import time

import httpx
import pytest

from tests.e2e.conftest import Installation
from tests.web import read_events

pytestmark = pytest.mark.model

ASK = "/chat/new/message/"


@pytest.fixture
def stopped(tmp_path):
    """An installation that each test starts by itself."""
    made = Installation(tmp_path / "data")
    yield made
    if made.process is not None:
        made.end(signal.SIGKILL)


def first_piece(installation: Installation) -> tuple[httpx.Client, object, str]:
    """Begin a long stream and read one event of it; client, open stream, message id."""
    client = installation.client()
    body = {"prompt": "Write a very long story.", "stream": True, "max_tokens": 400}
    request = client.build_request("POST", "/chat/new/message/", json=body)
    stream = client.send(request, stream=True)
    event = next(read_events(stream.iter_lines()))
    return client, stream, event.data["message_id"]


def test_sigterm_under_a_stream_ends_quickly_and_keeps_the_text(stopped):
    stopped.start()
    client, stream, message_id = first_piece(stopped)

    before = time.monotonic()
    code = stopped.end(signal.SIGTERM)

    assert code == 0
    assert time.monotonic() - before < 10
    stream.close()
    client.close()
    stopped.start()
    assert "API key" not in stopped.printed, "a second start creates nothing"
    with stopped.client() as again:
        row = again.get(f"/api/responses/{message_id}/").json()
    assert row["status"] == "interrupted"
    assert row["text"]
    assert row["token_ids"]


def test_sigterm_settles_streams_and_waiting_requests_before_it_ends(stopped):
    stopped.start()
    ends: dict[str, object] = {}
    begun = threading.Barrier(4)

    def read_a_stream(name: str) -> None:
        body = {"prompt": "Write a very long story.", "stream": True, "max_tokens": 400}
        with stopped.client() as client, client.stream("POST", ASK, json=body) as stream:
            events = read_events(stream.iter_lines())
            next(events)
            begun.wait()
            *_, last = events
        ends[name] = (last.name, last.data.get("code"))

    def wait_for_an_answer() -> None:
        with stopped.client() as client:
            body = {"prompt": "Tell a long story.", "max_tokens": 500}
            begun.wait()
            ends["whole"] = client.post(ASK, json=body).status_code

    readers = [threading.Thread(target=read_a_stream, args=(name,)) for name in ("one", "two")]
    readers.append(threading.Thread(target=wait_for_an_answer))
    for reader in readers:
        reader.start()
    begun.wait(60)
    with stopped.client() as client:
        running = "/chat/get/messages/?status=streaming"
        deadline = time.monotonic() + 30
        while len(client.get(running).json()["results"]) < 3:
            assert time.monotonic() < deadline

    code = stopped.end(signal.SIGTERM)

    for reader in readers:
        reader.join(10)
    assert code == 0
    assert ends == {
        "one": ("error", "generation_failed"),
        "two": ("error", "generation_failed"),
        "whole": 503,
    }


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LLMSITE_TEMPERATURE", "abc"),
        ("LLMSITE_MAX_BODY", "many"),
        ("PORT", "abc"),
        ("PORT", "99999"),
        ("DATABASE_URL", "nonsense"),
    ],
)
def test_a_wrong_setting_is_a_sentence_that_names_it(tmp_path, variable, value):
    wrong = Installation(tmp_path / "data", **{variable: value}).manage("serve")

    assert wrong.returncode == 1
    assert variable in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_after_kill_nine_the_prompt_is_there_and_nothing_streams_for_ever(stopped):
    stopped.start()
    client, stream, message_id = first_piece(stopped)

    stopped.end(signal.SIGKILL)
    stream.close()
    client.close()
    stopped.start()

    with stopped.client() as again:
        deadline = time.monotonic() + 15
        row = again.get(f"/api/responses/{message_id}/").json()
        while row["status"] == "streaming" or row["status"] == "queued":
            assert time.monotonic() < deadline
            row = again.get(f"/api/responses/{message_id}/").json()
        assert row["status"] == "interrupted"
        answer = again.post("/chat/new/message/", json={"prompt": "Hi", "max_tokens": 3})
    assert answer.status_code == 200


def test_while_it_loads_it_says_how_far_it_is_and_refuses_politely(stopped):
    stopped.start(ready=False)
    with stopped.client() as client:
        asked = client.post("/chat/new/message/", json={"prompt": "Hi"})
        ready = client.get("/readyz")

    assert asked.status_code == 503
    assert int(asked.headers["Retry-After"]) > 0
    assert asked.json()["code"] == "model_loading"
    assert ready.status_code == 503
    assert ready.json()["status"] == "loading"
    assert "stage" in ready.json()["progress"]


def test_a_model_that_cannot_load_leaves_the_server_up(tmp_path):
    broken = tmp_path / "model"
    broken.mkdir()
    made = Installation(tmp_path / "data", LLMSITE_MODEL=str(broken))
    made.start(ready=False)
    try:
        with made.client() as client:
            deadline = time.monotonic() + 60
            while (ready := client.get("/readyz")).json()["status"] == "loading":
                assert time.monotonic() < deadline
            asked = client.post("/chat/new/message/", json={"prompt": "Hi"})
            log = client.get("/chat/get/messages/")
        assert ready.status_code == 503
        assert "config.json" in ready.json()["detail"]
        assert asked.status_code == 503
        assert asked.json()["code"] == "model_failed"
        assert log.status_code == 200
    finally:
        made.end(signal.SIGTERM)


def test_a_taken_port_is_a_sentence(stopped):
    stopped.start(ready=False)

    second = stopped.manage("serve", "--port", str(stopped.port))

    assert second.returncode == 1
    assert "cannot be used" in second.stderr
    assert "Traceback" not in second.stderr
