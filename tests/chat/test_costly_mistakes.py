"""A body full of mistakes costs little more than one that is right, and the first are named."""

from __future__ import annotations

import json
import time

import pytest

from chat.errors import failure_of
from chat.wire.completion_requests import CompletionSerializer
from chat.wire.parsers import read_json
from tests.chat.refusals import named

MESSAGE = "/chat/new/message/"
JSON = {"Content-Type": "application/json"}
ASKED = [{"role": "user", "content": "a"}]


def mistakes(body):
    serializer = CompletionSerializer(data=body)
    with pytest.raises(Exception) as caught:
        serializer.is_valid(raise_exception=True)
    return failure_of(caught.value).fields


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("messages", lambda wrong: {"messages": wrong}),
        ("tools", lambda wrong: {"messages": ASKED, "tools": wrong}),
        (
            "messages.0.tool_calls",
            lambda wrong: {"messages": [{"role": "assistant", "tool_calls": wrong}, *ASKED]},
        ),
    ],
)
def test_of_a_list_the_mistakes_of_one_part_are_named(path, body):
    fields = mistakes(body([{}] * 900))

    assert {int(name.removeprefix(f"{path}.").split(".")[0]) for name in fields} == {*range(100)}


def test_a_mistake_far_behind_is_named_by_its_place():
    tool = {"type": "function", "function": {"name": "f"}}
    wrong = {"type": "function", "function": {"name": "no name"}}

    fields = mistakes({"messages": ASKED, "tools": [*[tool] * 250, wrong, *[tool] * 3, wrong]})

    assert set(fields) == {"tools.250.function.name", "tools.254.function.name"}


def test_what_is_right_is_taken_from_every_part():
    tools = [{"type": "function", "function": {"name": f"f{number}"}} for number in range(250)]
    serializer = CompletionSerializer(data={"messages": ASKED, "tools": tools})

    assert serializer.is_valid(), serializer.errors
    assert serializer.validated_data["tools"] == [tool["function"] for tool in tools]


def test_too_many_messages_are_refused_before_any_is_read():
    fields = mistakes({"messages": [{}] * 1001})

    assert fields == {"messages": ["At most 1000 messages are taken."]}


def test_a_name_of_any_length_costs_its_length_once():
    """It stands in the path of each of the numbers below it, which nobody asks for."""

    def seconds(name):
        text = json.dumps({name: [0] * 200_000})
        begun = time.thread_time()
        read_json(text)
        return time.thread_time() - begun

    assert seconds("k" * 400_000) < 4 * seconds("k") + 0.1


def test_a_path_leads_through_lists_and_names_to_what_is_wrong(api):
    body = {"prompt": "a", "history": [{"role": "user", "content": "a", "x\0": ["\ud800"]}]}
    answer = api.post(MESSAGE, content=json.dumps(body), headers=JSON)
    assert named(answer) == ("invalid_request", "history.0.x\\0")

    body["history"] = [{"role": "user", "content": {"a": [0, {"b.c": "\ud800"}]}}]
    answer = api.post(MESSAGE, content=json.dumps(body), headers=JSON)
    assert named(answer) == ("invalid_request", "history.0.content.a.1.b.c")
