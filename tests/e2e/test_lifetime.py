"""Starting, ending, being killed, starting again."""

from __future__ import annotations

import signal
import time

import httpx
import pytest

from tests.e2e.conftest import Installation
from tests.web import read_events

pytestmark = pytest.mark.model


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
