"""The WebSocket: any number of responses through one connection, each with its cursor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from websockets.exceptions import ConnectionClosed

from chat import consumers, socket_replies
from chat.models import ApiKey, Prompt, Response
from chat.readers import readers
from chat.supervisor import supervisor
from tests.chat.rows import answered
from tests.fakes import ScriptedEngine, Turnstile
from tests.sockets import Socket, said, socket_to
from tests.web import eventually, stream

NOBODYS = "7" * 32


@pytest.fixture
def opened(server, key) -> Iterator[Callable[..., Socket]]:
    """Opens sockets of ada, or of whoever has this key."""
    with ExitStack() as sockets:

        def open_one(secret: str = key) -> Socket:
            return sockets.enter_context(socket_to(server, secret))

        yield open_one


@pytest.fixture
def socket(opened) -> Socket:
    """One of them."""
    return opened()


@pytest.fixture
def turnstile(serve) -> Turnstile:
    """Lets the pieces of answers through."""
    turnstile = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "world", gate=turnstile))
    return turnstile


def test_a_prompt_is_accepted_answered_and_stored(socket, engine, user, key):
    accepted = socket.ask("Say it", id="mine", max_tokens=5, temperature=0.5, seed=7)
    told = socket.rest()

    row = Response.objects.get()
    assert accepted == {
        "type": "accepted",
        "id": "mine",
        "message_id": row.pk.hex,
        "conversation": str(row.prompt.conversation_id),
    }
    assert said(told) == row.text == "Hello"
    assert told[-1] == {
        "type": "done",
        "message_id": row.pk.hex,
        "finish_reason": "length",
        "usage": {"prompt_tokens": 13, "completion_tokens": 5, "total_tokens": 18},
        "omitted": [],
        "cursor": 5,
    }
    assert (row.surface, row.user, row.api_key) == ("websocket", user, ApiKey.objects.get())
    assert (row.max_tokens, row.temperature, row.seed) == (5, 0.5, 7)


def test_every_piece_has_the_cursor_that_an_event_stream_gives_it(socket, api, turnstile):
    message_id = socket.ask("Say it")["message_id"]
    turnstile.set()
    told = socket.rest()
    events = stream(api, "GET", f"/api/responses/{message_id}/events")

    assert [message["cursor"] for message in told if message["type"] == "text"] == [5, 7, 12]
    assert events[-1].id == f"{message_id}:{told[-1]['cursor']}"
    assert {"type": "done", **events[-1].data, "cursor": 12} == told[-1]


def test_many_are_answered_at_once_and_each_message_says_whose_it_is(socket, turnstile):
    ids = {socket.ask(f"Say {name}", id=name)["message_id"]: name for name in "abcde"}
    assert len(ids) == 5
    turnstile.set()
    told = [message for _ in ids for message in socket.rest()]

    for message_id in ids:
        mine = [message for message in told if message["message_id"] == message_id]
        assert said(mine) == "Hello, world"
        assert mine[-1]["type"] == "done"
    assert {row.pk.hex: row.prompt.content for row in Response.objects.all()} == {
        message_id: f"Say {name}" for message_id, name in ids.items()
    }


def test_a_conversation_goes_on(socket, engine):
    conversation = socket.ask("One")["conversation"]
    socket.rest()
    socket.ask("Two", conversation=conversation)
    socket.rest()

    assert engine.prompt_text() == "user: One\nassistant: Hello, world\nuser: Two\n"
    assert {str(row.conversation_id) for row in Prompt.objects.all()} == {conversation}


def test_a_reader_comes_back_through_another_socket_with_its_cursor(opened, turnstile):
    first = opened()
    message_id = first.ask("Say it")["message_id"]
    turnstile.admit(2)
    cursor = first.rest("text")[-1]["cursor"]
    first.connection.close()

    second = opened()
    second.tell("follow", id=2, message_id=message_id, after=cursor)
    assert second.hear()["errors"] == {"id": ["Not a valid string."]}
    second.tell("follow", id="again", message_id=message_id, after=cursor)
    assert second.hear()["message_id"] == message_id
    turnstile.set()
    assert said(second.rest()) == "Hello, world"[cursor:]


def test_a_response_that_has_ended_is_read_from_any_cursor(socket, engine, user):
    row = answered(user, "Hello, 世界 🌍")
    for after in (0, 7, len(row.text)):
        socket.tell("follow", message_id=str(row.pk), after=after)
        assert socket.hear()["type"] == "accepted"
        told = socket.rest()
        assert said(told) == row.text[after:]
        assert told[-1]["cursor"] == len(row.text)


def test_a_response_that_failed_ends_with_its_error(socket, serve):
    serve(ScriptedEngine("Hello", ", ", "world", fail_at=1))
    socket.ask("Say it")
    told = socket.rest()

    assert told[-1]["type"] == "error"
    assert (told[-1]["code"], told[-1]["detail"]) == ("generation_failed", "The engine died.")
    assert Response.objects.get().status == "failed"


def test_stop_is_heard_in_the_middle_of_an_answer(socket, turnstile):
    message_id = socket.ask("Say it")["message_id"]
    turnstile.admit()
    assert socket.hear_text()["text"] == "Hello"
    socket.tell("stop", id="enough", message_id=message_id)
    told = {message["type"]: message for message in (socket.hear(), socket.hear())}

    assert told["done"]["finish_reason"] == "cancelled"
    assert told["stopping"] == {"type": "stopping", "id": "enough", "message_id": message_id}
    row = Response.objects.get()
    assert (row.status, row.text) == ("stopped", "Hello")


@pytest.mark.parametrize(("policy", "status"), [("stop", "stopped"), ("finish", "done")])
def test_a_client_that_vanishes_is_one_less_that_waits(opened, turnstile, policy, status):
    socket = opened()
    socket.ask("Say it", on_disconnect=policy)
    turnstile.admit()
    socket.hear_text()
    assert readers.total == 1
    live = supervisor.live(Response.objects.get().pk)
    socket.connection.socket.close()

    eventually(lambda: live.attached == 0 and live.readers == 0 and readers.total == 0)
    if policy == "finish":
        turnstile.set()
    eventually(lambda: Response.objects.get().status == status)


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
    identify = consumers.identify
    monkeypatch.setattr(
        consumers, "identify", lambda scope: (looks.append(scope), identify(scope))[1]
    )
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


def test_a_slow_message_holds_up_nobody_elses(opened, engine, monkeypatch):
    held, let_go = threading.Event(), threading.Event()
    stop = socket_replies.DEEDS["stop"]

    def slow(*arguments):
        held.set()
        assert let_go.wait(10)
        return stop(*arguments)

    monkeypatch.setitem(socket_replies.DEEDS, "stop", slow)
    first, second = opened(), opened()
    first.tell("stop", message_id=NOBODYS)
    assert held.wait(10)
    second.tell("ping")
    assert second.hear()["type"] == "pong"
    second.ask("Say it")
    assert said(second.rest()) == "Hello, world"
    first.tell("ping")
    let_go.set()
    assert [first.hear().get("code"), first.hear()["type"]] == ["not_found", "pong"]


def test_a_mistake_of_ours_is_refused_and_logged(socket, engine, monkeypatch, caplog):
    def broken(*arguments):
        raise RuntimeError("no")

    monkeypatch.setitem(socket_replies.DEEDS, "ping", broken)
    socket.tell("ping", id="a")
    refused = socket.hear()

    assert (refused["status"], refused["code"], refused["id"]) == (500, "internal_error", "a")
    assert "RuntimeError: no" in caplog.text
    assert said([socket.ask("Say it"), *socket.rest()]) == "Hello, world"


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
