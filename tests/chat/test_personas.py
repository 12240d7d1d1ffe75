"""A response keeps the persona that it was asked under, whatever its conversation's is later."""

from __future__ import annotations

from typing import Any

import pytest

from chat.conversations import personas
from chat.conversations.history import place_behind
from chat.models import Conversation, Response
from tests.chat.rows import answered, ask, row_of
from tests.fakes import ScriptedEngine

BRIEF, PIRATE = "You are brief.", "You are a pirate."


@pytest.fixture
def conversation(user) -> Conversation:
    return Conversation.objects.create(user=user, system=BRIEF)


def seen(row: Response) -> str:
    return personas.seen(Response.objects.select_related("prompt__conversation").get(pk=row.pk))


def done(user: Any, **options: Any) -> Response:
    """A prompt that was answered."""
    accepted = ask(user, **options)
    assert accepted.live.wait(10)
    return row_of(accepted)


def test_what_was_said_before_a_change_keeps_its_persona(user, api, engine, conversation):
    first = done(user, conversation=conversation)
    address = f"/api/conversations/{conversation.pk}/"
    assert api.patch(address, json={"system": PIRATE}).json()["system"] == PIRATE
    conversation.refresh_from_db()
    second = done(user, conversation=conversation)

    assert (seen(first), seen(second)) == (BRIEF, PIRATE)
    assert f"system: {PIRATE}" in engine.prompt_text()
    assert api.get(f"/api/responses/{first.pk}/").json()["system"] == BRIEF
    assert second.system is None, "the conversation's is not stored once more"


def test_each_change_keeps_what_was_said_since_the_last_one(user, api, engine, conversation):
    rows = []
    for system in (PIRATE, "", BRIEF):
        rows.append(done(user, conversation=conversation))
        api.patch(f"/api/conversations/{conversation.pk}/", json={"system": system})
        conversation.refresh_from_db()

    assert [seen(row) for row in rows] == [BRIEF, PIRATE, ""]


def test_a_new_title_is_no_new_persona(user, api, conversation):
    row = answered(user, "Hello", conversation=conversation)
    body = {"title": "Ships", "system": BRIEF}
    assert api.patch(f"/api/conversations/{conversation.pk}/", json=body).status_code == 200

    row.refresh_from_db()
    assert row.system is None


def test_a_history_with_another_persona_is_kept_with_its_answer(api, engine, conversation):
    turns = [{"role": "system", "content": PIRATE}]
    body = {"prompt": "Hi", "history": turns, "conversation": str(conversation.pk)}
    answer = api.post("/chat/new/message/", json=body).json()

    assert f"system: {PIRATE}" in engine.prompt_text()
    assert api.get(f"/api/responses/{answer['message_id']}/").json()["system"] == PIRATE
    conversation.refresh_from_db()
    assert conversation.system == BRIEF


def test_the_installations_persona_is_kept_where_a_conversation_has_none(user, engine, settings):
    conversation = Conversation.objects.create(user=user)
    before = done(user, conversation=conversation)
    settings.LLMSITE_SYSTEM = PIRATE
    after = done(user, conversation=conversation)

    assert (seen(before), seen(after)) == ("", PIRATE)
    assert engine.prompt_text(-1).startswith(f"system: {PIRATE}")


def test_a_new_conversation_says_it_for_all_of_its_responses(api, engine):
    body = {"prompt": "Hi", "history": [{"role": "system", "content": PIRATE}]}
    row = Response.objects.get(pk=api.post("/chat/new/message/", json=body).json()["message_id"])

    assert row.system is None
    assert seen(row) == PIRATE


def test_a_prompt_that_crosses_a_change_says_what_it_was_asked_under(user, engine, conversation):
    place = place_behind(None, conversation)
    personas.change(conversation, system=PIRATE)

    assert seen(done(user, conversation=conversation, place=place)) == BRIEF


def test_a_conversation_that_is_gone_is_not_changed(user, conversation):
    conversation_id = conversation.pk
    conversation.delete()

    assert not personas.change(Conversation(pk=conversation_id), system=PIRATE)


def test_its_page_in_the_admin_shows_it(administrator, user, serve, conversation):
    serve(ScriptedEngine())
    row = done(user, conversation=conversation)
    personas.change(conversation, system=PIRATE)

    assert BRIEF in administrator.get(f"/admin/chat/response/{row.pk}/change/").content.decode()
