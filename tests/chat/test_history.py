"""A resent history finds the rows that it already is; only what is new becomes rows."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.db.models import Count, Q
from django.utils import timezone

from chat.conversations.history import BRANCHES, place_of, store
from chat.models import Conversation, Prompt, Response
from modelhost.types import Role, Turn
from tests.chat.rows import clock_set_back

URL = "/chat/new/message/"


def said(*contents: str) -> list[dict[str, str]]:
    """A history in which user and assistant take turns."""
    roles = ("user", "assistant")
    return [{"role": roles[at % 2], "content": text} for at, text in enumerate(contents)]


def test_a_stateless_client_of_five_turns_makes_one_conversation_with_five_prompts(api, engine):
    history: list[dict[str, str]] = []
    for turn in range(5):
        history = api.post(URL, json={"prompt": f"Turn {turn}", "history": history}).json()[
            "history"
        ]

    assert len(history) == 10
    assert Conversation.objects.count() == 1
    assert Prompt.objects.count() == Response.objects.count() == 5
    assert not Response.objects.filter(imported=True).exists()
    newest, before, *_ = Prompt.objects.all()
    assert newest.follows == before.responses.get()


def test_the_answer_repeats_the_history_as_it_was_sent(api, engine):
    history = [{"role": "system", "content": "Be brief."}, *said("One", "1")]
    answer = api.post(URL, json={"prompt": "Two", "history": history}).json()

    assert answer["history"] == [*history, *said("Two", "Hello, world")]


def test_an_unknown_history_is_imported_once(api, engine):
    history = said("One", "1", "Two", "2")
    first = api.post(URL, json={"prompt": "Three", "history": history}).json()
    again = api.post(URL, json={"prompt": "Three", "history": history}).json()

    assert first["conversation"] == again["conversation"]
    imported = Response.objects.filter(imported=True).order_by("created_at")
    assert [(row.prompt.content, row.text) for row in imported] == [("One", "1"), ("Two", "2")]
    assert {row.status for row in imported} == {"done"}
    assert [row.finished_at for row in imported] == [row.created_at for row in imported]
    assert Prompt.objects.filter(content="Three", follows=imported.last()).count() == 2
    assert engine.prompt_text() == (
        "user: One\nassistant: 1\nuser: Two\nassistant: 2\nuser: Three\n"
    )


@pytest.mark.parametrize("examples", [said("2 + 2?", "4"), said("2 + 2?", "4", "3 + 3?", "6")])
def test_chats_that_all_begin_alike_are_no_single_conversation(api, engine, examples):
    """As with examples before each question, or the greeting of a page."""
    for at in range(BRANCHES + 2):
        api.post(URL, json={"prompt": f"Question {at}", "history": examples})

    questions = Count("prompts", filter=Q(prompts__content__startswith="Question"))
    per = Conversation.objects.annotate(questions=questions).order_by("created_at")
    assert [row.questions for row in per] == [BRANCHES, 2]
    assert Response.objects.filter(imported=True).count() == len(examples)
    assert engine.prompt_text().startswith("user: 2 + 2?\nassistant: 4\n")
    assert engine.prompt_text().endswith(f"user: Question {BRANCHES + 1}\n")


def test_in_a_conversation_that_is_named_all_branches_stay(api, engine):
    conversation = api.post("/api/conversations/", json={}).json()["id"]
    for at in range(BRANCHES + 1):
        body = {"prompt": str(at), "history": said("One", "1"), "conversation": conversation}
        assert api.post(URL, json=body).json()["conversation"] == conversation

    assert Response.objects.filter(imported=True).count() == 1


def test_an_edited_history_makes_a_branch_and_overwrites_nothing(api, engine):
    history = api.post(URL, json={"prompt": "One"}).json()["history"]
    longer = api.post(URL, json={"prompt": "Two", "history": history}).json()["history"]
    edited = [*longer[:2], {"role": "user", "content": "Zwei"}, longer[3]]
    api.post(URL, json={"prompt": "Three", "history": edited})

    conversation = Conversation.objects.get()
    two, zwei = Prompt.objects.get(content="Two"), Prompt.objects.get(content="Zwei")
    assert two.follows == zwei.follows == Response.objects.get(prompt__content="One")
    assert zwei.conversation == conversation
    assert Prompt.objects.get(content="Three").follows == zwei.responses.get()


def test_an_edited_last_prompt_needs_no_new_row_for_what_is_before_it(api, engine):
    history = api.post(URL, json={"prompt": "One"}).json()["history"]
    api.post(URL, json={"prompt": "Two", "history": history})
    api.post(URL, json={"prompt": "Zwei", "history": history})

    assert Prompt.objects.count() == Response.objects.count() == 3
    first = Response.objects.get(prompt__content="One")
    assert {row.content for row in first.followed_by.all()} == {"Two", "Zwei"}


def test_of_two_known_beginnings_the_longer_one_is_found(api, engine):
    for turns in (said("One", "1"), said("One", "1", "Two", "2", "Three", "3")):
        api.post(URL, json={"prompt": "And?", "history": turns})
    before = Response.objects.filter(imported=True).count()
    turns = said("One", "1", "Two", "2", "Three", "3", "Four", "4")
    api.post(URL, json={"prompt": "And?", "history": turns})

    assert Response.objects.filter(imported=True).count() == before + 1
    assert Prompt.objects.get(content="Four").follows.text == "3"


def test_of_two_equal_beginnings_the_newer_one_is_gone_on_with(api, engine):
    _, newer = (api.post(URL, json={"prompt": "One"}).json() for _ in range(2))
    after = api.post(URL, json={"prompt": "Two", "history": newer["history"]}).json()

    assert after["conversation"] == newer["conversation"]


def test_a_conversation_is_called_by_the_first_words_that_the_user_said(api, engine):
    turns = [*said("", "1"), {"role": "system", "content": "Be brief."}, *said("Two", "2")]
    api.post(URL, json={"prompt": "Three", "history": turns})

    assert Conversation.objects.get().title == "Two"


def test_after_a_clock_was_set_back_what_is_imported_stays_in_its_order(api, engine):
    history = api.post(URL, json={"prompt": "One"}).json()["history"]
    clock_set_back()
    body = {"prompt": "Four", "history": [*history, *said("Two", "2", "Three", "3")]}
    api.post(URL, json=body)

    said_then = Prompt.objects.order_by("created_at").values_list("content", flat=True)
    assert list(said_then) == ["One", "Two", "Three", "Four"]
    answers = Response.objects.order_by("created_at").values_list("text", flat=True)
    assert list(answers) == ["Hello, world", "2", "3", "Hello, world"]


def test_people_with_equal_histories_share_no_rows(api, other_api, engine):
    answers = []
    for client in (api, other_api):
        history = client.post(URL, json={"prompt": "One"}).json()["history"]
        answers.append(client.post(URL, json={"prompt": "Two", "history": history}).json())

    mine, theirs = answers
    assert mine["conversation"] != theirs["conversation"]
    for row in Conversation.objects.all():
        assert row.prompts.count() == 2
        users = set(Response.objects.filter(prompt__conversation=row).values_list("user"))
        assert users == {(row.user_id,)}


def test_a_history_that_only_somebody_else_has_is_imported(api, other_api, other, engine):
    mine = api.post(URL, json={"prompt": "One"}).json()
    body = {"prompt": "Two", "history": mine["history"]}
    theirs = Conversation.objects.get(pk=other_api.post(URL, json=body).json()["conversation"])

    assert theirs.user == other
    assert [row.content for row in theirs.prompts.all()] == ["Two", "One"]
    assert Prompt.objects.get(conversation=mine["conversation"]).content == "One"


def test_a_history_is_found_in_a_conversation_with_the_installations_persona(api, engine, settings):
    settings.LLMSITE_SYSTEM = "You are Marvin."
    inside = {"conversation": api.post("/api/conversations/", json={}).json()["id"]}
    first = api.post(URL, json={"prompt": "One", **inside}).json()
    second = api.post(URL, json={"prompt": "Two", "history": first["history"]}).json()

    assert second["conversation"] == first["conversation"]
    assert Response.objects.count() == 2


@pytest.mark.parametrize("persona", ["", "You are Robbie."])
def test_history_and_conversation_together_attach_inside_that_conversation(
    api, user, engine, persona
):
    mine = Conversation.objects.create(user=user, system=persona)
    inside = {"conversation": str(mine.pk)}
    first = api.post(URL, json={"prompt": "One", **inside}).json()
    body = {"prompt": "Two", "history": first["history"], **inside}
    second = api.post(URL, json=body).json()

    assert first["conversation"] == second["conversation"] == str(mine.pk)
    assert Prompt.objects.count() == Response.objects.count() == 2
    system = f"system: {persona}\n" if persona else ""
    assert engine.prompt_text() == f"{system}user: One\nassistant: Hello, world\nuser: Two\n"


def test_a_history_from_elsewhere_is_imported_into_the_conversation_that_is_named(
    api, user, engine
):
    history = api.post(URL, json={"prompt": "One"}).json()["history"]
    mine = Conversation.objects.create(user=user, system="You are Robbie.")
    api.post(URL, json={"prompt": "Two", "history": history, "conversation": str(mine.pk)})

    assert engine.prompt_text().startswith("system: You are Robbie.\nuser: One\n")
    assert [row.content for row in mine.prompts.all()] == ["Two", "One"]
    assert Response.objects.get(prompt__conversation=mine, imported=True).text == "Hello, world"


def test_a_system_turn_is_the_persona_of_the_new_conversation(api, engine, settings):
    settings.LLMSITE_SYSTEM = "You are Marvin."
    system = {"role": "system", "content": "You are Robbie."}
    first = api.post(URL, json={"prompt": "One", "history": [system]}).json()
    api.post(URL, json={"prompt": "Two", "history": first["history"]})

    assert Conversation.objects.get().system == "You are Robbie."
    assert Prompt.objects.count() == 2
    assert engine.prompt_text() == (
        "system: You are Robbie.\nuser: One\nassistant: Hello, world\nuser: Two\n"
    )


def test_histories_under_different_personas_are_different_histories(api, engine):
    for name in ("Robbie", "Marvin"):
        system = {"role": "system", "content": f"You are {name}."}
        history = api.post(URL, json={"prompt": "One", "history": [system]}).json()["history"]
        api.post(URL, json={"prompt": "Two", "history": history})
        assert engine.prompt_text().startswith(f"system: You are {name}.\n")

    assert Conversation.objects.count() == 2
    assert Prompt.objects.count() == 4


def test_a_client_that_sends_its_persona_gets_that_one_though_the_conversation_has_another(
    api, engine
):
    system = {"role": "system", "content": "You are Robbie."}
    answer = api.post(URL, json={"prompt": "One", "history": [system]}).json()
    Conversation.objects.update(system="You are Marvin.")
    api.post(URL, json={"prompt": "Two", "history": answer["history"]})

    assert engine.prompt_text().startswith("system: You are Robbie.\nuser: One\n")


def test_a_history_that_ends_in_a_user_turn_keeps_it_before_the_prompt(api, engine):
    history = [*said("One", "1"), {"role": "user", "content": "By the way"}]
    answer = api.post(URL, json={"prompt": "Two", "history": history}).json()

    prompt = Prompt.objects.get(content="Two")
    assert [turn["content"] for turn in prompt.earlier] == ["By the way"]
    assert engine.prompt_text() == "user: One\nassistant: 1\nuser: By the way\nuser: Two\n"

    api.post(URL, json={"prompt": "Three", "history": answer["history"]})
    assert Prompt.objects.get(content="Three").follows == prompt.responses.get()
    assert engine.prompt_text() == (
        "user: One\nassistant: 1\nuser: By the way\nuser: Two\n"
        "assistant: Hello, world\nuser: Three\n"
    )


def test_a_history_may_begin_with_the_assistant(api, engine):
    history = [{"role": "assistant", "content": "How can I help?"}]
    first = api.post(URL, json={"prompt": "One", "history": history}).json()
    api.post(URL, json={"prompt": "Two", "history": first["history"]})

    assert engine.prompt_text() == (
        "assistant: How can I help?\nuser: One\nassistant: Hello, world\nuser: Two\n"
    )
    assert Conversation.objects.count() == 1
    assert Response.objects.filter(imported=True).count() == 1


def test_an_empty_history_is_the_beginning_of_a_conversation(api, engine):
    for history in ([], None):
        api.post(URL, json={"prompt": "One", "history": history})

    assert Conversation.objects.count() == 2


def test_a_failed_answer_is_no_history(api, user, engine):
    history = api.post(URL, json={"prompt": "One"}).json()["history"]
    Response.objects.update(status=Response.Status.FAILED)
    api.post(URL, json={"prompt": "Two", "history": history})

    assert Response.objects.filter(imported=True).get().text == "Hello, world"


def test_a_long_history_is_imported_with_few_queries(user, engine, django_assert_max_num_queries):
    turns = [Turn((Role.USER, Role.ASSISTANT)[at % 2], str(at)) for at in range(2000)]
    with django_assert_max_num_queries(60), transaction.atomic():
        place = place_of(turns, user=user)
        prompt = store(
            place, Turn(Role.USER, "And?"), user=user, surface="message", now=timezone.now()
        )

    assert Prompt.objects.count() == 1001
    assert prompt.follows.text == "1999"
