"""Tools in the log: who said what, what was called with which arguments, what was offered."""

from __future__ import annotations

import pytest
from django.utils.html import escape

from chat.models import Response
from tests.chat.rows import answered

LIST = "/admin/chat/response/"
TOOLS = [{"name": "get_weather", "description": "The weather now", "parameters": {}}]
CALLS = [{"name": "get_weather", "arguments": {"city": "北京", "days": 2}}]
WRITTEN = escape('get_weather(city="北京", days=2)')


@pytest.fixture
def called(user) -> Response:
    """An answer that is nothing but a call."""
    return answered(user, "", prompt="And in Beijing?", tools=TOOLS, tool_calls=CALLS)


@pytest.fixture
def result(user, called) -> Response:
    """The answer to what the tool said."""
    row = answered(
        user, "22 degrees.", prompt="22", conversation=called.prompt.conversation, follows=called
    )
    row.prompt.role = "tool"
    row.prompt.save()
    return row


def transcript(administrator, row: Response) -> str:
    address = f"/admin/chat/conversation/{row.prompt.conversation_id}/change/"
    return administrator.get(address).content.decode()


def test_the_list_says_what_was_called(administrator, called):
    assert WRITTEN in administrator.get(LIST).content.decode()


def test_a_page_says_what_was_offered_and_called(administrator, called):
    called.adapter = "weather-lora"
    called.save()
    page = administrator.get(f"{LIST}{called.pk}/change/").content.decode()

    for shown in (WRITTEN, "The weather now", escape('"city": "北京"'), "weather-lora"):
        assert shown in page, shown


def test_a_transcript_says_what_was_called(administrator, called):
    assert WRITTEN in transcript(administrator, called)


def test_what_a_tool_said_is_not_the_users(administrator, result):
    page = transcript(administrator, result)

    assert page.count("<strong>user</strong>") == 1
    assert page.count("<strong>tool</strong>") == 1
    assert "tool: 22" in administrator.get(LIST).content.decode()


def test_a_tool_that_said_nothing_is_shown_behind_the_turns_before_it(administrator, result):
    result.prompt.content, result.prompt.earlier = "", [{"role": "user", "content": "Look"}]
    result.prompt.save()

    assert "<strong>tool</strong>" in transcript(administrator, result)


def test_calls_that_a_client_told_of_are_shown(administrator, called):
    told = {"role": "assistant", "content": "", "tool_calls": CALLS}
    called.tool_calls, called.prompt.earlier = [], [told]
    called.save()
    called.prompt.save()

    assert WRITTEN in transcript(administrator, called)


@pytest.mark.parametrize(
    ("call", "written"),
    [
        ({"name": "now", "arguments": {}}, "now()"),
        ({"name": "add", "arguments": [1, 2]}, "add([1, 2])"),
        ({"name": "find", "arguments": {"in": {"a": None}}}, 'find(in={"a": null})'),
    ],
)
def test_odd_calls_are_shown_too(administrator, user, call, written):
    row = answered(user, "I look.", tool_calls=[call])
    for page in (
        administrator.get(LIST).content.decode(),
        administrator.get(f"{LIST}{row.pk}/change/").content.decode(),
        transcript(administrator, row),
    ):
        assert escape(written) in page


def test_who_said_a_prompt_stands_on_the_responses_page(administrator, result):
    page = administrator.get(f"{LIST}{result.pk}/change/").content.decode()

    assert "Said by" in page
    assert ">tool</div>" in page
