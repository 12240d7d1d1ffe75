"""What people send stays out of logs and refusals: prompts, keys, passwords, cookies, headers."""

from __future__ import annotations

import logging

import pytest
from websockets.exceptions import InvalidStatus

from tests.fakes import ScriptedEngine
from tests.sockets import socket_to

CANARY = "canary7f3a"
WRONG_KEY = f"llms_{CANARY}" + "x" * 38
MESSAGE = "/chat/new/message/"
OUTSIDE = ("httpx", "httpcore", "websockets")  # the clients of this test, in the same process
SENT = {
    "Cookie": f"sessionid={CANARY}; csrftoken={CANARY}",
    "X-Canary": CANARY,
    "User-Agent": CANARY,
    "Referer": f"http://{CANARY}.example/",
    "Idempotency-Key": CANARY,
}
ASKED = {"messages": [{"role": "user", "content": CANARY}]}


def refused_requests(api, stranger):
    """Answers in which nothing of what was sent may be."""
    bodies = [{"prompt": CANARY, "top_p": 7}, {"prompt": CANARY, "history": [{"content": CANARY}]}]
    for body in bodies:
        yield api.post(MESSAGE, json=body, headers=SENT)
    yield api.post(MESSAGE, content=f'{{"prompt": "{CANARY}"', headers=SENT)
    yield api.post(MESSAGE, json={"prompt": CANARY}, headers={**SENT, "Content-Type": "text/plain"})
    yield api.post(MESSAGE, json={"prompt": CANARY * (1 << 17)}, headers=SENT)
    yield api.post("/v1/chat/completions", json={**ASKED, "n": 2}, headers=SENT)
    yield api.get("/sendMessage", params={"prompt": CANARY, "top_p": 7}, headers=SENT)
    yield api.get("/api/conversations/", params={"search": CANARY * 30}, headers=SENT)
    yield api.get("/nothing/here", params={"prompt": CANARY}, headers=SENT)
    for headers in (SENT, {**SENT, "Authorization": f"Bearer {WRONG_KEY}"}):
        yield stranger.post(MESSAGE, json={"prompt": CANARY}, headers=headers)
        yield stranger.get("/v1/models", headers=headers)


def test_nothing_that_was_sent_is_in_the_log_or_in_a_refusal(
    api, client_for, server, key, serve, caplog
):
    caplog.set_level(logging.INFO)
    serve(ScriptedEngine("Hi"))
    stranger = client_for(None)

    for answer in refused_requests(api, stranger):
        assert answer.status_code >= 400
        assert CANARY not in answer.text, answer.request.url.path
        assert key not in answer.text
    assert api.post(MESSAGE, json={"prompt": CANARY}).status_code == 200
    assert api.get("/sendMessage", params={"prompt": CANARY}).status_code == 200
    form = {"username": "ada", "password": CANARY, "csrfmiddlewaretoken": "a" * 32}
    signing_in = {**SENT, "Cookie": f"csrftoken={'a' * 32}"}
    assert stranger.post("/login/", data=form, headers=signing_in).status_code == 200
    with pytest.raises(InvalidStatus), socket_to(server, WRONG_KEY):
        pass

    told = [one.getMessage() + str(one.exc_text) for one in caplog.records if not outside(one)]
    assert not [text for text in told if CANARY in text or key in text]


def outside(record: logging.LogRecord) -> bool:
    return record.name.startswith(OUTSIDE)


def test_nor_is_it_when_something_went_wrong_here(client_for, key, serve, caplog, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("nobody foresaw this")

    serve(ScriptedEngine("Hi"))
    monkeypatch.setattr("chat.acceptance.accept", fail)
    answer = client_for(key).post(MESSAGE, json={"prompt": CANARY}, headers=SENT)

    assert answer.status_code == 500
    assert CANARY not in answer.text
    [record] = [one for one in caplog.records if not outside(one)]
    assert "nobody foresaw this" in caplog.text
    assert CANARY not in logging.Formatter().format(record)
