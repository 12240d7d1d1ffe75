"""Callers look for words in what they and the model said."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest

from chat.limits.readers import scanners
from chat.models import Conversation
from chat.wire.filters import LONGEST_SEARCH, MOST_WORDS, ResponseFilter
from tests.chat.rows import answered
from tests.web import eventually

MESSAGES = "/chat/get/messages/"
CONVERSATIONS = "/api/conversations/"
EXPORT = "/api/export"


def found(api: Any, search: str) -> list[str]:
    """The answers that a search finds, newest first."""
    page = api.get(MESSAGES, params={"search": search}).json()
    return [entry["response"] for entry in page["results"]]


def titles(api: Any, search: str) -> list[str]:
    """The conversations that it finds."""
    page = api.get(CONVERSATIONS, params={"search": search}).json()
    return [row["title"] for row in page["results"]]


@pytest.fixture
def towns(user: Any) -> Conversation:
    """Two answers in a conversation with a title."""
    conversation = Conversation.objects.create(user=user, title="Capitals of Europe")
    first = answered(user, "Paris, 100 % sure.", conversation=conversation, prompt="Of France?")
    answered(user, "罗马 is Rome.", conversation=conversation, prompt="Of Italy?", follows=first)
    return conversation


@pytest.mark.parametrize(
    ("search", "texts"),
    [
        ("France", ["Paris, 100 % sure."]),
        ("paris", ["Paris, 100 % sure."]),
        ("sure  FRANCE", ["Paris, 100 % sure."]),
        ("罗马", ["罗马 is Rome."]),
        ("of", ["罗马 is Rome.", "Paris, 100 % sure."]),
        ("", ["罗马 is Rome.", "Paris, 100 % sure."]),
        ("France Rome", []),
        ("%", ["Paris, 100 % sure."]),
        ("1_0", []),
        ("Capitals", []),
    ],
)
def test_all_words_are_in_the_prompt_or_the_answer(api, towns, search, texts):
    assert found(api, search) == texts


@pytest.mark.parametrize(
    ("search", "is_found"),
    [
        ("capitals", True),
        ("France Rome", True),
        ("Europe 罗马", True),
        ("", True),
        ("France Berlin", False),
    ],
)
def test_all_words_are_somewhere_in_the_conversation(api, towns, search, is_found):
    assert titles(api, search) == ["Capitals of Europe"] * is_found


def test_only_in_what_is_ones_own(other_api, towns):
    assert found(other_api, "France") == titles(other_api, "France") == []


def test_what_was_said_elsewhere_finds_no_conversation(api, towns, user, other):
    answered(user, "Bern.")
    answered(other, "Berlin.")

    assert titles(api, "Capitals Bern") == titles(api, "Berlin") == []


def test_pages_of_what_was_found_lead_on_to_what_was_found(api, user):
    for at in range(3):
        answered(user, f"yes {at}")
        answered(user, f"no {at}")
    page = api.get(MESSAGES, params={"search": "yes", "page_size": 2}).json()
    rest = api.get(page["next"]).json()

    said = [entry["response"] for entry in [*page["results"], *rest["results"]]]
    assert said == ["yes 2", "yes 1", "yes 0"]


def test_what_is_found_can_be_exported(api, towns):
    lines = api.get(EXPORT, params={"search": "Rome", "format": "messages"}).text.splitlines()

    assert len(lines) == 1
    assert "Of France?" in lines[0], "with what was said before"


@pytest.mark.parametrize("path", [MESSAGES, CONVERSATIONS, EXPORT])
@pytest.mark.parametrize(
    "search", ["a" * (LONGEST_SEARCH + 1), "a " * (MOST_WORDS + 1), "a\0b"], ids=len
)
def test_a_search_that_cannot_be_made_is_refused(api, path, search):
    answer = api.get(path, params={"search": search})

    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["search"]


@pytest.mark.parametrize("path", [MESSAGES, CONVERSATIONS, EXPORT])
def test_as_many_words_as_there_may_be_are_looked_for(api, towns, path):
    assert api.get(path, params={"search": "a " * MOST_WORDS}).status_code == 200


def test_who_leaves_takes_its_place_along_only_when_the_search_is_done(
    api, user, settings, monkeypatch, gate
):
    settings.LLMSITE_MAX_SCANS_PER_CALLER = 1
    answered(user, "found")
    search, begun = ResponseFilter.with_words, threading.Event()

    def slowly(*arguments: Any) -> Any:
        begun.set()
        assert gate.wait(10)
        return search(*arguments)

    monkeypatch.setattr(ResponseFilter, "with_words", slowly)
    with pytest.raises(httpx.ReadTimeout):
        api.get(MESSAGES, params={"search": "found"}, timeout=0.5)
    assert begun.is_set()
    assert api.get(CONVERSATIONS, params={"search": "found"}).status_code == 429
    gate.set()
    eventually(lambda: scanners.total == 0)

    assert found(api, "found") == ["found"]
