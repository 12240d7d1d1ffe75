"""Ending a server while it answers: nothing is lost, nobody waits for ever."""

from __future__ import annotations

import signal
import threading

import pytest

from tests.e2e.deployed import ASK
from tests.web import eventually, next_text, text_of
from tests.witness import witness_text

SERVERS = ["serve", "daphne", "uvicorn"]
LONG = "alpha 3000"


@pytest.mark.parametrize("server", SERVERS)
def test_long_answers_are_left_to_the_next_process(deploy, server):
    deployed = deploy(server, drain=0.5)
    refused: list[int] = []

    def wait() -> None:
        with deployed.client() as client:
            refused.append(client.post(ASK, json={"prompt": LONG}).status_code)

    waiting = threading.Thread(target=wait)
    waiting.start()
    with deployed.stream(LONG) as events:
        seen = next_text(events)
        eventually(lambda: [text != "" for _, text in deployed.rows()] == [True, True])
        deployed.signal(signal.SIGTERM)
        seen += text_of(events)
        code, seconds = deployed.end()
    waiting.join()

    assert (code, "Traceback" in deployed.printed) == (0, False), deployed.printed
    assert seconds < 5
    assert refused == [503]
    rows = deployed.rows()
    assert [status for status, _ in rows] == ["streaming", "streaming"]
    assert any(text.startswith(seen) for _, text in rows)


@pytest.mark.parametrize("server", SERVERS)
def test_during_the_drain_it_refuses_politely_and_goes_on_serving(deploy, server):
    deployed = deploy(server, drain=20)
    with deployed.stream("alpha 40") as events, deployed.client() as other:
        next(events)
        deployed.drain()
        asked = other.post(ASK, json={"prompt": "beta 1"})
        ready = other.get("/readyz")
        rest = list(events)
        code, seconds = deployed.end()

    for refusal in (asked, ready):
        assert (refusal.status_code, int(refusal.headers["Retry-After"]) > 0) == (503, True)
    assert len(rest) > 20, "the refusals came while the answer went on"
    assert rest[-1].name == "done"
    assert (code, seconds < 5) == (0, True), deployed.printed
    [(status, text)] = deployed.rows()
    assert (status, len(text.split())) == ("done", 40)


@pytest.mark.parametrize(
    ("server", "second"),
    [
        ("serve", signal.SIGTERM),
        ("serve", signal.SIGINT),
        ("daphne", signal.SIGTERM),
        ("uvicorn", signal.SIGINT),
    ],
)
def test_a_second_signal_hurries(deploy, server, second):
    deployed = deploy(server, drain=60)
    with deployed.stream(LONG) as events:
        seen = next_text(events)
        deployed.drain()
        deployed.signal(second)
        seen += text_of(events)
        code, seconds = deployed.end()

    assert (code, "Traceback" in deployed.printed) == (0, False), deployed.printed
    assert seconds < 5
    [(status, text)] = deployed.rows()
    assert status == "streaming"
    assert text.startswith(seen)


@pytest.mark.parametrize("server", SERVERS)
def test_an_interrupt_from_the_keyboard_is_as_good(deploy, server):
    deployed = deploy(server, drain=0)
    with deployed.stream(LONG) as events:
        next(events)
        deployed.signal(signal.SIGINT)
        code, seconds = deployed.end()

    assert (code, seconds < 5) == (0, True), deployed.printed
    assert "Traceback" not in deployed.printed
    assert deployed.rows()[0][0] == "streaming"


def test_the_next_process_goes_on(deploy):
    first = deploy("serve", drain=0)
    with first.stream("alpha 30") as events:
        seen = next(events)
        first.signal(signal.SIGTERM)
        first.end()
    second = deploy("serve", drain=0)

    [(_, text)] = eventually(lambda: [row for row in second.rows() if row[0] == "done"])
    with second.client() as client:
        seed = client.get(f"/api/responses/{seen.data['message_id']}/").json()["seed"]
    assert text == witness_text("alpha", seed, 30)


def test_a_lost_engine_ends_the_process_with_its_rows_open(deploy):
    deployed = deploy("serve", drain=60)
    with deployed.stream(LONG) as events:
        next(events)
        (deployed.data / "lose-the-engine").touch()
        code, seconds = deployed.end()

    assert (code, seconds < 5) == (70, True), deployed.printed
    assert deployed.printed.count("The engine is lost") == 1
    [(status, text)] = deployed.rows()
    assert (status, bool(text)) == ("streaming", True)
