"""`/api/`: REST over conversations, prompts and responses."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.utils.dateparse import parse_datetime

from chat.errors import ConversationBusy
from chat.lifecycle import record
from chat.lifecycle.supervisor import supervisor
from chat.models import ApiKey, Conversation, Prompt, Response
from chat.views import conversations
from tests.chat.meanwhile import Rendering
from tests.chat.rows import answered, ask
from tests.fakes import STOP, ScriptedEngine, Turnstile
from tests.web import eventually, read_events, stream, text_of

URL = "/api/conversations/"


def test_a_conversation_is_made_read_renamed_and_deleted(api, engine):
    made = api.post(URL, json={"title": "Mine", "system": "You are Robbie."})
    assert made.status_code == 201
    body = made.json()
    row = Conversation.objects.get()
    assert parse_datetime(body.pop("created_at")) == row.created_at
    assert body == {"id": str(row.pk), "title": "Mine", "system": "You are Robbie."}

    own = f"{URL}{row.pk}/"
    assert api.get(own).json()["title"] == "Mine"
    assert api.patch(own, json={"title": "Ours"}).json()["title"] == "Ours"
    assert api.get(own).json() == made.json() | {"title": "Ours", "tree": [], "path": []}

    deleted = api.delete(own)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert api.get(own).status_code == 404
    assert not Conversation.objects.exists()


def test_an_empty_body_makes_a_conversation_with_the_installations_persona(api, settings):
    settings.LLMSITE_SYSTEM = "You are Marvin."
    assert api.post(URL, json={}).json()["system"] == "You are Marvin."
    assert api.post(URL).status_code == 201


def test_a_changed_persona_holds_from_then_on(api, engine):
    conversation = api.post(URL, json={"system": "You are Robbie."}).json()["id"]
    own = f"{URL}{conversation}/"
    api.post(f"{own}prompts/", json={"prompt": "One"})
    api.patch(own, json={"system": "You are Marvin."})
    api.post(f"{own}prompts/", json={"prompt": "Two"})

    assert engine.prompt_text(0) == "system: You are Robbie.\nuser: One\n"
    assert engine.prompt_text(1) == (
        "system: You are Marvin.\nuser: One\nassistant: Hello, world\nuser: Two\n"
    )


def test_a_patch_of_what_was_deleted_meanwhile_is_404(api, user, monkeypatch):
    row = Conversation.objects.begin(user=user, title="Mine", system="")
    whole = conversations.validated

    def deleting(*arguments):
        Conversation.objects.all().delete()
        return whole(*arguments)

    monkeypatch.setattr(conversations, "validated", deleting)

    assert api.patch(f"{URL}{row.pk}/", json={"title": "Ours"}).status_code == 404


def test_a_patch_of_nothing_changes_nothing(api, user):
    row = Conversation.objects.create(user=user, title="Mine")
    assert api.patch(f"{URL}{row.pk}/", json={}).json()["title"] == "Mine"


def test_conversations_are_listed_newest_first_and_own_ones_only(api, user, other):
    for title in ("One", "Two", "Three"):
        Conversation.objects.create(user=user, title=title)
    Conversation.objects.create(user=other, title="Theirs")

    first = api.get(URL, params={"page_size": 2}).json()
    second = api.get(first["next"]).json()
    assert [row["title"] for row in first["results"]] == ["Three", "Two"]
    assert [row["title"] for row in second["results"]] == ["One"]
    assert second["next"] is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"title": 5}, "title"),
        ({"title": None}, "title"),
        ({"title": "x" * 121}, "title"),
        ({"title": "a\0b"}, "title"),
        ({"system": []}, "system"),
        ({"system": "x" * 100_001}, "system"),
        ({"user": 1}, "user"),
        ({"id": str(uuid.uuid4())}, "id"),
        ({"created_at": "2026-01-01"}, "created_at"),
        ([], "body"),
    ],
)
def test_bad_bodies_are_refused_by_name(api, user, body, field):
    row = Conversation.objects.create(user=user, title="Mine")
    for answer in (api.post(URL, json=body), api.patch(f"{URL}{row.pk}/", json=body)):
        assert answer.status_code == 400
        assert list(answer.json()["errors"]) == [field]
    assert Conversation.objects.get().title == "Mine"


def test_a_misspelt_parameter_of_a_list_is_refused(api, user):
    row = Conversation.objects.create(user=user)
    for path in (URL, f"{URL}{row.pk}/prompts/"):
        answer = api.get(path, params={"page": 2})
        assert (answer.status_code, list(answer.json()["errors"])) == (400, ["page"])


def test_a_prompt_inside_a_conversation_is_created_with_its_answer(api, user, engine):
    row = Conversation.objects.create(user=user)
    answer = api.post(f"{URL}{row.pk}/prompts/", json={"prompt": "Say it", "max_tokens": 5})

    assert answer.status_code == 201
    assert answer.json()["response"] == "Hello"
    assert answer.json()["conversation"] == str(row.pk)
    response = Response.objects.get()
    assert (response.surface, response.prompt.conversation) == ("conversation", row)


def test_a_prompt_inside_a_conversation_can_be_streamed(api, user, engine):
    row = Conversation.objects.create(user=user)
    body = {"prompt": "Say it", "stream": True}

    assert text_of(stream(api, "POST", f"{URL}{row.pk}/prompts/", json=body)) == "Hello, world"


def test_the_server_knows_the_history_of_its_conversations(api, user, engine):
    row = Conversation.objects.create(user=user)
    for prompt in ("One", "Two"):
        api.post(f"{URL}{row.pk}/prompts/", json={"prompt": prompt})

    assert engine.prompt_text() == "user: One\nassistant: Hello, world\nuser: Two\n"


def test_prompts_are_listed_with_their_responses(api, user, engine):
    row = Conversation.objects.create(user=user)
    for prompt in ("One", "Two"):
        api.post(f"{URL}{row.pk}/prompts/", json={"prompt": prompt})
    newest, oldest = api.get(f"{URL}{row.pk}/prompts/").json()["results"]

    assert (newest["content"], oldest["content"]) == ("Two", "One")
    [response] = oldest["responses"]
    assert newest["follows"] == response["id"]
    assert (response["text"], response["status"]) == ("Hello, world", "done")


def test_one_answer_at_a_time(api, user, serve, gate):
    serve(ScriptedEngine(gate=gate))
    row = Conversation.objects.create(user=user)
    inside = {"conversation": str(row.pk)}
    body = {"prompt": "First", "stream": True, **inside}
    with api.stream("POST", "/chat/new/message/", json=body):
        refusals = [
            api.post("/chat/new/message/", json={"prompt": "Second", **inside}),
            api.post(f"{URL}{row.pk}/prompts/", json={"prompt": "Second"}),
            api.get("/sendMessage", params={"prompt": "Second", **inside}),
        ]

    for answer in refusals:
        assert (answer.status_code, answer.json()["code"]) == (409, "conversation_busy")
        assert int(answer.headers["Retry-After"]) > 0
    assert Prompt.objects.get().content == "First"


def test_a_prompt_passes_over_no_answer_that_came_since_its_place_was_found(user, serve):
    first = answered(user, "First")
    conversation = first.prompt.conversation
    serve(Rendering(lambda: answered(user, "Theirs", conversation=conversation, follows=first)))
    with pytest.raises(ConversationBusy):
        ask(user, "And?", conversation=conversation)
    assert Prompt.objects.count() == 2

    said = [turn.content for turn in ask(user, "And?", conversation=conversation).turns]
    assert said == ["Hi", "First", "Hi", "Theirs", "And?"]


def test_a_conversation_deleted_while_it_is_answered_ends_the_answer(api, user, serve, monkeypatch):
    monkeypatch.setattr(record, "LEASE", timedelta(hours=1))  # no renewal finds out
    gate = Turnstile()
    engine = serve(ScriptedEngine("Hel", "lo", gate=gate))
    row = Conversation.objects.create(user=user)
    body = {"prompt": "Say it", "stream": True}
    with api.stream("POST", f"{URL}{row.pk}/prompts/", json=body) as response:
        gate.admit()
        events = read_events(response.iter_lines())
        assert next(events).data["text"] == "Hel"
        eventually(lambda: Response.objects.get().text)  # nothing else is left to be written
        assert api.delete(f"{URL}{row.pk}/").status_code == 204
        [last] = events

    assert (last.name, last.data["finish_reason"]) == ("done", "cancelled")
    assert engine.tickets[0].finish.reason == "cancelled"
    assert supervisor.active == 0
    assert not Prompt.objects.exists()


def test_a_response_is_shown_with_all_its_figures(api, key, engine):
    answer = api.post(
        "/chat/new/message/", json={"prompt": "Say it", "seed": 7, "stop": ["!"], "top_k": 2}
    ).json()
    body = api.get(f"/api/responses/{answer['message_id']}/").json()

    row = Response.objects.get()
    times = ("created_at", "started_at", "first_token_at", "finished_at")
    assert [parse_datetime(body.pop(name)) for name in times] == [
        getattr(row, name) for name in times
    ]
    assert body == {
        "id": str(row.pk),
        "message_id": row.pk.hex,
        "prompt": str(row.prompt.pk),
        "conversation": answer["conversation"],
        "system": "",
        "status": "done",
        "finish_reason": "stop",
        "error": "",
        "text": "Hello, world",
        "token_ids": [*map(ord, "Hello, world"), STOP],
        "model": "scripted-model",
        "revision": "r1",
        "adapter": "",
        "tools": [],
        "tool_calls": [],
        "seed": 7,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 2,
        "max_tokens": 512,
        "stop": ["!"],
        "prompt_tokens": len("user: Say it\n"),
        "completion_tokens": 13,
        "omitted": [],
        "imported": False,
        "surface": "message",
        "api_key": ApiKey.objects.get().name,
        "client": {},
        "on_disconnect": "finish",
    }


def test_ids_are_taken_with_and_without_dashes(api, user):
    row = Conversation.objects.create(user=user)

    assert api.get(f"{URL}{row.pk.hex}/").json() == api.get(f"{URL}{row.pk}/").json()


def test_who_asks_and_who_deletes_at_the_same_time_get_an_answer(api, engine):
    """Never an error of ours, and nothing is left of what was deleted."""
    for _ in range(15):
        answer = api.post("/chat/new/message/", json={"prompt": "before"}).json()
        address = f"{URL}{answer['conversation']}/"
        with ThreadPoolExecutor(3) as at_once:
            asking = at_once.submit(api.post, f"{address}prompts/", json={"prompt": "a"})
            deleting = [at_once.submit(api.delete, address) for _ in range(2)]
        assert asking.result().status_code in (201, 404, 503)
        assert {one.result().status_code for one in deleting} <= {204, 404}
    assert not Conversation.objects.exists()
