"""Starting, ending, being killed, starting again."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.conftest import Installation
from tests.web import eventually, next_text, opening_of, read_events, text_of

pytestmark = pytest.mark.model

ASK = "/chat/new/message/"
# Two starts and twice these tokens: a busy machine was seen to make 3 tokens a second.
slow_machines = pytest.mark.timeout(400)
LONG = {"prompt": "Write a very long story.", "max_tokens": 70, "temperature": 0.9}


@pytest.fixture
def stopped(tmp_path):
    """An installation that each test starts by itself."""
    made = Installation(tmp_path / "data")
    yield made
    if made.process is not None:
        made.end(signal.SIGKILL)


def first_piece(installation: Installation) -> tuple[httpx.Client, Iterator[str], str]:
    """Begin a long stream; client, the lines that it brings, message id."""
    client = installation.client()
    body = {**LONG, "stream": True, "seed": 7}
    request = client.build_request("POST", ASK, json=body)
    stream = client.send(request, stream=True)
    lines = stream.iter_lines()
    return client, lines, opening_of(lines).partition(":")[0]


def read_some(lines: Iterator[str], *, characters: int) -> tuple[str, str]:
    """The next characters at least, and the cursor behind them."""
    text = ""
    for event in read_events(lines):
        text += text_of([event])
        if len(text) >= characters:
            return text, event.id
    raise AssertionError(f"the stream ended after {text!r}")


def active(client: httpx.Client) -> list[dict]:
    """What is being generated."""
    rows = client.get("/chat/get/messages/").json()["results"]
    return [row for row in rows if row["status"] in ("queued", "streaming")]


def settled(client: httpx.Client, message_id: str) -> dict:
    """The row once it has its outcome."""
    path = f"/api/responses/{message_id}/"

    def look() -> dict | None:
        row = client.get(path).json()
        return None if row["status"] in ("queued", "streaming") else row

    return eventually(look, seconds=120)


@slow_machines
def test_sigterm_under_a_stream_ends_in_time_and_the_text_goes_on(stopped):
    stopped.environment["LLMSITE_DRAIN_SECONDS"] = "0"
    stopped.start()
    client, _, message_id = first_piece(stopped)

    before = time.monotonic()
    code = stopped.end(signal.SIGTERM)

    assert code == 0
    assert time.monotonic() - before < 5
    assert not list(stopped.data.glob("llmsite.sqlite3-*")), "the database is one whole file"
    client.close()
    stopped.start()
    assert "API key" not in stopped.printed, "a second start creates nothing"
    with stopped.client() as again:
        row = settled(again, message_id)
        uncut = again.post(ASK, json={**LONG, "seed": row["seed"]}).json()["response"]
    assert (row["status"], row["finish_reason"]) == ("done", "length")
    assert row["text"] == uncut


def test_sigterm_tells_streams_and_waiting_requests_before_it_ends(stopped):
    stopped.environment["LLMSITE_DRAIN_SECONDS"] = "0.2"
    stopped.start()
    ends: dict[str, str] = {}
    begun = threading.Barrier(4)

    def read_a_stream(name: str, path: str, body: dict) -> None:
        with stopped.client() as client, client.stream("POST", path, json=body) as stream:
            data = (line for line in stream.iter_lines() if line.startswith("data:"))
            ends[name] = next(data)
            begun.wait()
            for line in data:
                ends[name] = line

    def wait_for_an_answer() -> None:
        with stopped.client() as client:
            begun.wait()
            answer = client.post(ASK, json={"prompt": "Tell a long story.", "max_tokens": 500})
        ends["whole"] = answer.text

    own = {**LONG, "max_tokens": 500, "stream": True}
    chat = {"messages": [{"role": "user", "content": "Write a long story."}], "stream": True}
    readers = [
        threading.Thread(target=read_a_stream, args=("own", ASK, own)),
        threading.Thread(target=read_a_stream, args=("v1", "/v1/chat/completions", chat)),
        threading.Thread(target=wait_for_an_answer),
    ]
    for reader in readers:
        reader.start()
    begun.wait(60)
    with stopped.client() as client:
        eventually(lambda: len(active(client)) == 3, seconds=30)

    code = stopped.end(signal.SIGTERM)

    for reader in readers:
        reader.join(10)
    assert code == 0
    terminal = ('"finish_reason"', '"detail"')
    assert not any(word in ends["own"] for word in terminal), "the reader shall come back"
    assert '"code": "server_stopping"' in ends["v1"]
    assert '"code":"server_stopping"' in ends["whole"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LLMSITE_TEMPERATURE", "abc"),
        ("LLMSITE_MAX_BODY", "many"),
        ("LLMSITE_SPECULATION", "maybe"),
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


@slow_machines
def test_after_kill_nine_a_reader_who_comes_back_reads_one_text_without_a_seam(stopped):
    stopped.start()
    client, lines, message_id = first_piece(stopped)
    seen, cursor = read_some(lines, characters=60)

    stopped.end(signal.SIGKILL)
    client.close()
    stopped.start(ready=False)

    with stopped.client() as again:
        follow = f"/api/responses/{message_id}/events"
        with again.stream("GET", follow, headers={"Last-Event-ID": cursor}) as rest:
            stopped.wait_for("readyz")
            ready = time.monotonic()
            events = read_events(rest.iter_lines())
            seen += next_text(events)
            waited = time.monotonic() - ready
            *pieces, last = events
        row = again.get(f"/api/responses/{message_id}/").json()
        uncut = again.post(ASK, json={**LONG, "seed": row["seed"]}).json()["response"]
    assert last.name == "done"
    assert seen + text_of(pieces) == row["text"] == uncut
    assert waited < 10, "the time until the model is there is the machine's, what follows is ours"


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
