"""The WebSocket: any number of responses through one connection, each with its cursor."""

from __future__ import annotations

from uuid import UUID

import pytest

from chat.lifecycle.supervisor import supervisor
from chat.limits.readers import readers
from chat.models import ApiKey, Prompt, Response
from tests.chat.rows import answered
from tests.fakes import ScriptedEngine
from tests.sockets import said
from tests.web import eventually, stream


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


def test_a_history_that_the_client_brings_along_is_shown_to_the_model(socket, engine):
    history = [{"role": "user", "content": "One"}, {"role": "assistant", "content": "1"}]
    socket.ask("Two", history=history)
    socket.rest()

    assert engine.prompt_text() == "user: One\nassistant: 1\nuser: Two\n"


def test_the_end_says_which_turns_the_model_did_not_see(socket, serve):
    serve(ScriptedEngine("Yes", context_length=100))
    conversation = socket.ask("A" * 40)["conversation"]
    first = socket.rest()[-1]
    oldest = Prompt.objects.get()
    socket.ask("B" * 40, conversation=conversation)

    assert socket.rest()[-1]["omitted"] == [oldest.pk.hex, first["message_id"]]


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
    row = answered(user, "Hello, 世界 🌍", omitted=["a", "b"])
    for after in (0, 7, len(row.text)):
        socket.tell("follow", message_id=str(row.pk), after=after)
        assert socket.hear()["type"] == "accepted"
        told = socket.rest()
        assert said(told) == row.text[after:]
        assert (told[-1]["cursor"], told[-1]["omitted"]) == (len(row.text), ["a", "b"])


def test_a_response_that_failed_ends_with_its_error(socket, serve):
    serve(ScriptedEngine("Hello", ", ", "world", fail_at=1))
    socket.ask("Say it")
    told = socket.rest()

    assert told[-1]["type"] == "error"
    assert (told[-1]["code"], told[-1]["detail"]) == ("generation_failed", "The engine died.")
    assert told[-1]["cursor"] == len(said(told)) == len("Hello")
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


def test_what_a_client_sent_before_it_left_counts(opened, turnstile):
    socket = opened()
    socket.ask("First", on_disconnect="finish")
    turnstile.admit()
    first = socket.hear_text()["message_id"]
    for _ in range(5):
        socket.tell("ping")
    socket.tell("stop", message_id=first)
    socket.tell("ask", prompt="For whoever comes", on_disconnect="finish")
    socket.tell("ask", prompt="For me alone", on_disconnect="stop")
    socket.connection.close()

    status = dict.fromkeys(["First", "For me alone"], "stopped")
    eventually(lambda: dict(ended("stopped")) == status)
    turnstile.set()
    eventually(lambda: ended("done") == [("For whoever comes", "done")])
    assert (Response.objects.count(), readers.total) == (3, 0)


def ended(how: str) -> list[tuple[str, str]]:
    """The prompts whose responses ended so."""
    rows = Response.objects.filter(status=how).order_by("created_at")
    return list(rows.values_list("prompt__content", "status"))


def test_a_message_that_cannot_be_stored_is_refused_by_its_name(socket, engine):
    socket.tell("ask", id="mine", prompt="a\0b")

    refused = socket.hear()
    assert (refused["type"], refused["id"]) == ("refused", "mine")
    assert "prompt" in refused["errors"]


def test_who_follows_an_answer_waits_for_it_as_well(opened, turnstile):
    first, second = opened(), opened()
    asked = first.ask("Say it", on_disconnect="stop")
    second.tell("follow", message_id=asked["message_id"])
    assert second.hear()["type"] == "accepted"
    live = supervisor.live(UUID(asked["message_id"]))
    eventually(lambda: live.readers == 2)
    first.connection.close()
    eventually(lambda: live.readers == live.attached == 1)
    turnstile.set()

    assert said(second.rest()) == "Hello, world"
