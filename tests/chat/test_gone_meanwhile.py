"""What a prompt needs is deleted between the look for it and the storing of the prompt."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model

from chat.conversations import history
from chat.limits.admission import admission
from chat.models import Conversation, Prompt
from tests.chat.meanwhile import Rendering
from tests.fakes import ScriptedEngine

COMPLETION = "/v1/chat/completions"
MESSAGE = "/chat/new/message/"
FIRST = {"role": "user", "content": "One"}
ANSWER = {"role": "assistant", "content": "Hello, world"}
SECOND = {"role": "user", "content": "Two"}


def forget_everything() -> None:
    Conversation.objects.all().delete()


@pytest.fixture
def asked(api, serve):
    """A conversation of one turn."""
    serve(ScriptedEngine())
    return api.post(MESSAGE, json={"prompt": "One"}).json()


def test_a_history_whose_conversation_goes_while_it_is_rendered_is_stored_anew(api, asked, serve):
    before = admission.total
    engine = serve(Rendering(forget_everything))
    answer = api.post(COMPLETION, json={"messages": [FIRST, ANSWER, SECOND]})

    assert answer.status_code == 200, answer.text
    assert engine.prompt_text() == "user: One\nassistant: Hello, world\nuser: Two\n"
    assert [row.content for row in Prompt.objects.order_by("created_at")] == ["One", "Two"]
    assert str(Conversation.objects.get().pk) != asked["conversation"]
    assert admission.total == before


def test_so_is_one_whose_conversation_goes_before_its_rows_are_read(api, asked, monkeypatch):
    steps = history.steps

    def late(*arguments):
        monkeypatch.undo()
        forget_everything()
        return steps(*arguments)

    monkeypatch.setattr(history, "steps", late)
    answer = api.post(COMPLETION, json={"messages": [FIRST, ANSWER, SECOND]})

    assert answer.status_code == 200, answer.text
    assert Prompt.objects.count() == 2


@pytest.mark.parametrize("more", [{}, {"history": [FIRST, ANSWER]}], ids=["", "history"])
def test_a_conversation_that_was_named_is_not_there(api, asked, serve, more):
    serve(Rendering(forget_everything))
    body = {"prompt": "Two", "conversation": asked["conversation"], **more}

    assert api.post(MESSAGE, json=body).status_code == 404
    assert not Conversation.objects.exists()


@pytest.mark.parametrize("path", [MESSAGE, COMPLETION])
def test_a_caller_whose_account_was_deleted_is_nobody(api, serve, path):
    before = admission.total
    serve(Rendering(lambda: get_user_model().objects.all().delete()))
    answer = api.post(path, json={"prompt": "One"})

    assert answer.status_code == 401, answer.text
    assert not Conversation.objects.exists()
    assert admission.total == before
