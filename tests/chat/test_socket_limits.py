"""What a WebSocket refuses, how many it takes, and when it is closed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from websockets.exceptions import ConnectionClosed

from chat.access.rights import rights
from chat.lifecycle.supervisor import supervisor
from chat.limits.readers import readers
from chat.models import ApiKey, Prompt, Response
from chat.websocket import consumers, socket_replies
from chat.wire import events
from tests.chat.holding import Hold
from tests.chat.rows import answered
from tests.sockets import said
from tests.web import eventually

NOBODYS = "7" * 32


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Hold]:
    """Makes messages of a type slow."""

    def make(kind: str) -> Hold:
        hold, handle = Hold(), socket_replies.HANDLERS[kind]
        monkeypatch.setitem(
            socket_replies.HANDLERS, kind, lambda *arguments: (hold(), handle(*arguments))[1]
        )
        return hold

    return make


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("nonsense", "body"),
        ("[]", "body"),
        ("7", "body"),
        ("[" * 100_000, "body"),
        ("{}", "type"),
        ('{"type": "sing"}', "type"),
        ('{"type": ["ask"]}', "type"),
        ('{"type": "ask"}', "prompt"),
        ('{"type": "ask", "prompt": " "}', "prompt"),
        ('{"type": "ask", "prompt": "a\\u0000"}', "prompt"),
        ('{"type": "ask", "prompt": "Hi", "stream": true}', "stream"),
        ('{"type": "ask", "prompt": "Hi", "temperature": NaN}', "temperature"),
        ('{"type": "ask", "prompt": "Hi", "idempotency_key": ""}', "idempotency_key"),
        ('{"type": "ask", "prompt": "Hi", "idempotency_key": "a\\nb"}', "idempotency_key"),
        ('{"type": "follow"}', "message_id"),
        ('{"type": "follow", "message_id": "7"}', "message_id"),
        ('{"type": "stop", "message_id": 7}', "message_id"),
        ('{"type": "ping", "after": 7}', "after"),
        (f'{{"type": "ping", "id": "{"x" * 101}"}}', "id"),
    ],
)
def test_nonsense_is_refused_by_its_fields_name_and_the_socket_goes_on(
    socket, engine, message, field
):
    socket.connection.send(message)
    refused = socket.hear()

    assert (refused["type"], refused["status"]) == ("refused", 400)
    assert refused["code"] == "invalid_request"
    assert list(refused["errors"]) == [field]
    socket.tell("ping", id="there?")
    assert socket.hear() == {"type": "pong", "id": "there?"}
    assert not Prompt.objects.exists()


def test_a_refusal_says_which_message_it_refuses(socket, engine):
    socket.tell("ask", id="mine", prompt="")
    assert socket.hear()["id"] == "mine"


def test_binary_messages_close_the_socket(socket):
    socket.connection.send(b"\x00\x01")
    assert socket.closed() == 4415


def test_what_belongs_to_somebody_else_does_not_exist(socket, engine, other):
    row = answered(other, "Secret")
    conversation = str(row.prompt.conversation_id)
    for message in (
        {"kind": "follow", "message_id": row.pk.hex},
        {"kind": "stop", "message_id": row.pk.hex},
        {"kind": "follow", "message_id": NOBODYS},
        {"kind": "ask", "prompt": "Hi", "conversation": conversation},
    ):
        socket.tell(**message)
        assert (socket.hear()["code"]) == "not_found"
    assert Prompt.objects.count() == 1


def test_a_retry_under_the_same_key_joins_through_whatever_socket(opened, turnstile):
    first, second = opened(), opened()
    answers = [
        one.ask("Say it", id=name, idempotency_key="k")
        for one, name in ((first, "a"), (second, "b"))
    ]
    assert answers[0]["message_id"] == answers[1]["message_id"]
    turnstile.set()
    assert said(first.rest()) == said(second.rest()) == "Hello, world"
    assert Response.objects.count() == 1

    refused = first.ask("Something else", idempotency_key="k")
    assert (refused["status"], refused["code"]) == (422, "idempotency_key_reused")
    assert list(refused["errors"]) == ["idempotency_key"]


def test_a_revoked_key_ends_with_its_next_message(socket, engine):
    ApiKey.objects.get().revoke()
    refused = socket.ask("Say it")

    assert (refused["status"], refused["code"]) == (401, "not_authenticated")
    assert socket.closed() == 4401
    assert not Prompt.objects.exists()


def test_a_revoked_key_ends_a_socket_that_only_listens(opened, turnstile, monkeypatch):
    monkeypatch.setattr(consumers, "LOOK_AGAIN", 0.05)
    socket = opened()
    socket.ask("Say it")
    turnstile.admit()
    socket.hear_text()
    ApiKey.objects.get().revoke()

    assert socket.closed() == 4401
    eventually(lambda: readers.total == 0)


def test_one_that_is_looked_at_again_goes_on_while_its_key_is_good(opened, engine, monkeypatch):
    monkeypatch.setattr(consumers, "LOOK_AGAIN", 0.01)
    looks: list[object] = []
    hold = rights.hold
    monkeypatch.setattr(rights, "hold", lambda scope: (looks.append(scope), hold(scope))[1])
    socket = opened()
    eventually(lambda: len(looks) > 3)
    assert said([socket.ask("Say it"), *socket.rest()]) == "Hello, world"


def test_one_socket_follows_only_so_many_at_once(socket, turnstile, monkeypatch):
    monkeypatch.setattr(consumers, "MOST", 2)
    for _ in range(2):
        assert socket.ask("Say it")["type"] == "accepted"
    refused = socket.ask("Say it", id="mine")
    assert (refused["type"], refused["code"]) == ("refused", "too_many_streams")
    assert refused["id"] == "mine"
    socket.tell("ping")
    assert socket.hear()["type"] == "pong", "what needs no place is heard all the same"

    turnstile.set()
    assert [socket.rest()[-1]["type"] for _ in range(2)] == ["done"] * 2
    eventually(lambda: socket.ask("Say it")["type"] == "accepted")
    assert said(socket.rest()) == "Hello, world"


def test_one_caller_opens_only_so_many_sockets(opened, settings):
    settings.LLMSITE_MAX_STREAMS_PER_CALLER = 2
    first, _ = opened(), opened()
    third = opened()
    refused = third.hear()
    assert (refused["status"], refused["code"]) == (429, "too_many_streams")
    assert refused["retry_after"] > 0
    assert third.closed() == 4429

    first.connection.close()
    eventually(lambda: readers.total == 1)
    fourth = opened()
    fourth.tell("ping")
    assert fourth.hear()["type"] == "pong"


def test_a_slow_message_holds_up_nobody_elses(opened, engine, slow):
    stop = slow("stop")
    first, second = opened(), opened()
    first.tell("stop", message_id=NOBODYS)
    assert stop.reached.wait(10)
    second.tell("ping")
    assert second.hear()["type"] == "pong"
    second.ask("Say it")
    assert said(second.rest()) == "Hello, world"
    first.tell("ping")
    stop.released.set()
    assert [first.hear().get("code"), first.hear()["type"]] == ["not_found", "pong"]


def test_a_mistake_of_ours_is_refused_and_logged(socket, engine, monkeypatch, caplog):
    def broken(*arguments):
        raise RuntimeError("no")

    monkeypatch.setitem(socket_replies.HANDLERS, "ping", broken)
    socket.tell("ping", id="a")
    refused = socket.hear()

    assert (refused["status"], refused["code"], refused["id"]) == (500, "internal_error", "a")
    assert "RuntimeError: no" in caplog.text
    assert said([socket.ask("Say it"), *socket.rest()]) == "Hello, world"


def test_a_stream_that_nobody_can_make_closes_the_socket_and_is_logged(
    socket, engine, monkeypatch, caplog
):
    def broken(*_, **__):
        raise RuntimeError("no")

    monkeypatch.setattr(events, "follow", broken)
    socket.ask("Say it")

    assert socket.closed() == 4500
    assert "RuntimeError: no" in caplog.text


def test_when_the_process_stops_clients_are_told_to_come_back(socket, turnstile):
    socket.ask("Say it")
    turnstile.admit()
    socket.hear_text()
    supervisor.stop()

    assert socket.closed() == 4503
    assert Response.objects.get().active


def test_while_it_drains_nothing_new_is_taken_in(socket, engine):
    supervisor.draining = True
    refused = socket.ask("Say it")
    assert (refused["status"], refused["code"]) == (503, "server_stopping")
    assert refused["retry_after"] > 0


def test_after_the_end_of_a_socket_nothing_is_said(opened, turnstile):
    socket = opened()
    socket.ask("Say it")
    socket.connection.close()
    with pytest.raises(ConnectionClosed):
        socket.tell("ping")
    eventually(lambda: readers.total == 0)


def test_an_answer_that_begins_when_its_client_was_sent_away_has_nobody_who_waits(
    opened, turnstile, slow
):
    ask = slow("ask")
    socket = opened()
    socket.tell("ask", prompt="Say it", on_disconnect="stop")
    assert ask.reached.wait(10)
    socket.connection.send(b"\x00")
    assert socket.closed() == 4415
    eventually(lambda: readers.total == 0)
    ask.released.set()

    eventually(lambda: Response.objects.filter(status="stopped").exists())


def test_a_client_that_left_is_missed_at_once_although_its_last_message_is_slow(
    opened, turnstile, slow
):
    ping = slow("ping")
    socket = opened()
    socket.ask("Say it", on_disconnect="stop")
    turnstile.admit()
    socket.hear_text()
    socket.tell("ping")
    assert ping.reached.wait(10)
    socket.connection.close()

    eventually(lambda: Response.objects.filter(status="stopped").exists(), seconds=3)
    ping.released.set()
