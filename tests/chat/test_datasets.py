"""What a line of an export says: all that is known, or a conversation that others train with."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from chat.log.datasets import Format, as_conversation, as_messages
from chat.models import ApiKey, Verdict
from modelhost.types import Role, ToolCall, Turn
from tests.chat.exporting import exported, two_turns
from tests.chat.rows import answered

WEATHER = {"name": "weather", "parameters": {"type": "object"}}
ASKED = Turn(Role.USER, "How warm is it in Rome and in Oslo?")
CALLS = Turn(
    Role.ASSISTANT,
    "",
    tool_calls=(ToolCall("weather", {"city": "Rome"}), ToolCall("weather", {"city": "Oslo"})),
)


def test_a_record_has_all_that_is_known(user, other):
    row = two_turns(user, seed=7, token_ids=[1, 2], api_key=ApiKey.issue(user=user, name="app")[0])
    Verdict.objects.create(response=row, reviewer=other, value="bad", note="Rude.")
    first, second = exported(verdicts=True)

    assert first["verdicts"] == []
    assert (first["response"]["text"], second["response"]["text"]) == ("Paris.", "Rome.")
    assert second["prompt"]["content"] == "Of Italy?"
    assert second["prompt"]["follows"] == first["response"]["id"]
    assert second["conversation"]["system"] == "You are brief."
    assert (second["user"], second["response"]["api_key"]) == ("ada", "app")
    moment = second["prompt"]["created_at"]
    assert datetime.fromisoformat(moment) == row.prompt.created_at, "to the microsecond"
    assert (second["response"]["seed"], second["response"]["token_ids"]) == (7, [1, 2])
    [verdict] = second["verdicts"]
    assert (verdict["value"], verdict["note"], verdict["reviewer"]) == ("bad", "Rude.", "bob")


def test_messages_are_the_conversation_up_to_the_answer(user):
    two_turns(user)
    first, second = exported(Format.MESSAGES)

    assert first == {
        "messages": [
            {"role": "system", "content": "You are brief."},
            {"role": "user", "content": "Of France?"},
            {"role": "assistant", "content": "Paris."},
        ]
    }
    assert [said["content"] for said in second["messages"]] == [
        "You are brief.",
        "Of France?",
        "Paris.",
        "Of Italy?",
        "Rome.",
    ]


def test_chatglms_conversations_have_its_own_key(user):
    two_turns(user)
    *_, last = exported(Format.CONVERSATIONS)

    assert list(last) == ["conversations"]
    assert last["conversations"][-1] == {"role": "assistant", "content": "Rome."}


@pytest.mark.parametrize("layout", list(Format))
def test_a_line_is_one_for_whoever_cuts_a_file_into_lines(user, layout):
    said = "one\u2028two\u2029three\x85four\r\nfive\x0bשלום 😀"
    answered(user, said, prompt=said)
    [only] = exported(layout)

    assert json.dumps(only).count(json.dumps(said)) == 2


def test_the_persona_is_the_one_that_it_was_asked_under(user):
    answered(user, "Paris.", system="You work here.")

    [only] = exported(Format.MESSAGES)
    assert only["messages"][0] == {"role": "system", "content": "You work here."}


def test_what_the_model_did_not_see_teaches_it_nothing(user):
    row = two_turns(user)
    first = row.prompt.follows
    row.omitted = [first.prompt_id.hex, first.pk.hex]
    row.save()

    *_, last = exported(Format.MESSAGES)
    assert [said["content"] for said in last["messages"]] == [
        "You are brief.",
        "Of Italy?",
        "Rome.",
    ]


def test_a_prompt_whose_earlier_turns_were_left_out_is_there_itself(user):
    row = answered(user, "Rome.", prompt="Of Italy?")
    row.prompt.earlier = [{"role": "user", "content": "Long ago"}]
    row.prompt.save()
    [whole] = exported(Format.MESSAGES)
    row.omitted = [row.prompt_id.hex]
    row.save()
    [cut] = exported(Format.MESSAGES)

    assert [said["content"] for said in whole["messages"]] == ["Long ago", "Of Italy?", "Rome."]
    assert [said["content"] for said in cut["messages"]] == ["Of Italy?", "Rome."]


def test_tools_are_functions_for_openai_and_as_they_are_for_chatglm(user):
    answered(user, "Warm.", tools=[WEATHER])

    assert exported(Format.MESSAGES)[0]["tools"] == [{"type": "function", "function": WEATHER}]
    assert exported(Format.CONVERSATIONS)[0]["tools"] == [WEATHER]


def test_each_result_says_which_call_it_is_of():
    results = [Turn(Role.TOOL, "21 °C"), Turn(Role.TOOL, "4 °C")]
    _, calls, rome, oslo = as_messages([ASKED, CALLS, *results])

    ids = [call["id"] for call in calls["tool_calls"]]
    assert len(set(ids)) == 2
    assert [rome["tool_call_id"], oslo["tool_call_id"]] == ids
    assert calls["content"] is None
    assert json.loads(calls["tool_calls"][1]["function"]["arguments"]) == {"city": "Oslo"}


def test_for_chatglm_a_call_and_its_result_are_one_turn():
    results = [Turn(Role.TOOL, "21 °C"), Turn(Role.TOOL, "4 °C"), Turn(Role.ASSISTANT, "Warm.")]
    _, rome, oslo, last = as_conversation([ASKED, CALLS, *results])

    assert rome == {
        "role": "tool",
        "name": "weather",
        "parameters": {"city": "Rome"},
        "observation": "21 °C",
    }
    assert (oslo["parameters"], oslo["observation"]) == ({"city": "Oslo"}, "4 °C")
    assert last == {"role": "assistant", "content": "Warm."}


def test_for_chatglm_a_call_without_result_and_a_result_without_call_are_there():
    *_, open_call = as_conversation([ASKED, CALLS])
    alone, _ = as_conversation([Turn(Role.TOOL, "21 °C"), ASKED])

    assert open_call["observation"] == ""
    assert alone == {"role": "observation", "content": "21 °C"}
