"""The log as JSON lines: whole, oldest first, in formats that others read, to those who may."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.utils import timezone

from chat import exports
from chat.datasets import Format, as_conversation, as_messages
from chat.exports import Export
from chat.models import ApiKey, Conversation, Response, Verdict
from modelhost.types import Role, ToolCall, Turn
from tests.chat.rows import answered, left_behind

WEATHER = {"name": "weather", "parameters": {"type": "object"}}
ASKED = Turn(Role.USER, "How warm is it in Rome and in Oslo?")
CALLS = Turn(
    Role.ASSISTANT,
    "",
    tool_calls=(ToolCall("weather", {"city": "Rome"}), ToolCall("weather", {"city": "Oslo"})),
)


def exported(layout: Format = Format.RECORDS, rows: Any = None, **options: Any) -> list[Any]:
    """The lines of an export, read."""
    chosen = Response.objects.all() if rows is None else rows
    return [json.loads(line) for line in "".join(Export(chosen, layout, **options)).splitlines()]


def read(answer: httpx.Response) -> list[Any]:
    """The lines that the API sent."""
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def two_turns(user: Any, **columns: Any) -> Response:
    """The second answer of a conversation that has a persona."""
    conversation = Conversation.objects.create(user=user, title="Towns", system="You are brief.")
    first = answered(user, "Paris.", conversation=conversation, prompt="Of France?")
    return answered(
        user, "Rome.", conversation=conversation, prompt="Of Italy?", follows=first, **columns
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


def test_only_answers_teach_and_a_record_is_of_everything(user):
    answered(user, "Paris.")
    answered(user, "", status="failed", error="The engine died.")
    left_behind(user, "It is")
    answered(user, "", status="stopped")
    answered(user, "Sent.", imported=True)
    answered(user, "", tool_calls=[{"name": "weather", "arguments": {}}])

    assert [line["response"]["status"] for line in exported()] == [
        *("done", "failed", "streaming", "stopped", "done", "done")
    ]
    paris, call = exported(Format.MESSAGES)
    assert paris["messages"][-1]["content"] == "Paris."
    assert call["messages"][-1]["tool_calls"][0]["function"]["name"] == "weather"


def test_of_paths_only_the_ends(user, api):
    last = two_turns(user)
    first = last.prompt.follows
    other = answered(
        user, "Bern.", conversation=first.prompt.conversation, prompt="And?", follows=first
    )
    answered(
        user, "", conversation=first.prompt.conversation, follows=other, status="failed", error="No"
    )
    answered(user, "", conversation=first.prompt.conversation, follows=last, status="stopped")
    lines = read(api.get("/api/export?format=messages&paths=true"))

    assert [line["messages"][-1]["content"] for line in lines] == ["Rome.", "Bern."]


def test_every_row_is_there_once_however_many_share_a_moment(user, monkeypatch):
    monkeypatch.setattr(exports, "BATCH", 7)
    moment = timezone.now() - timedelta(days=1)
    for at in range(50):
        answered(user, f"text {at}", created_at=moment + timedelta(seconds=at // 20))
    texts = [line["response"]["text"] for line in exported()]

    assert len(texts) == len(set(texts)) == 50
    moments = [line["response"]["created_at"] for line in exported()]
    assert moments == sorted(moments)


def test_what_comes_after_its_beginning_is_not_in_it(user, monkeypatch):
    monkeypatch.setattr(exports, "BATCH", 1)
    answered(user, "one")
    answered(user, "two")
    lines = iter(Export(Response.objects.all(), Format.RECORDS))
    next(lines)
    answered(user, "three")

    assert [json.loads(line)["response"]["text"] for line in lines] == ["two"]


def test_what_is_deleted_meanwhile_is_left_out(user, monkeypatch):
    monkeypatch.setattr(exports, "BATCH", 1)
    answered(user, "one")
    gone, _ = two_turns(user), answered(user, "four")
    lines = iter(Export(Response.objects.all(), Format.MESSAGES))
    next(lines)
    gone.prompt.conversation.delete()

    [last] = [json.loads(line) for line in lines]
    assert last["messages"][-1]["content"] == "four"


def test_of_a_batch_no_more_is_made_than_a_piece_needs(user, monkeypatch):
    monkeypatch.setattr(exports, "PIECE", 1000)
    for text in ("long " * 1000, "short", "short", "long " * 1000, "last"):
        answered(user, text)
    export = Export(Response.objects.all(), Format.MESSAGES)
    counts = []
    for piece in export:
        assert piece.endswith("\n")
        counts.append(export.count)

    assert counts == [1, 4, 5]


def test_no_query_stays_open_between_batches(user, monkeypatch):
    monkeypatch.setattr(exports, "BATCH", 1)
    answered(user, "one")
    answered(user, "two")
    lines = iter(Export(Response.objects.all(), Format.RECORDS))
    next(lines)
    with transaction.atomic(durable=True):
        Response.objects.update(text="changed")

    assert json.loads(next(lines))["response"]["text"] == "changed"


async def test_a_reader_whose_rights_end_gets_no_file_that_looks_whole(user, monkeypatch):
    monkeypatch.setattr(exports, "BATCH", 1)
    answers = iter([True, False])

    async def may_read() -> bool:
        return next(answers)

    from asgiref.sync import sync_to_async

    for text in ("one", "two"):
        await sync_to_async(answered)(user, text)
    lines = Export(Response.objects.all(), Format.RECORDS).stream(may_read)

    assert json.loads(await anext(lines))["response"]["text"] == "one"
    with pytest.raises(PermissionDenied):
        await anext(lines)


def test_callers_export_what_is_theirs_without_what_reviewers_think(user, other, api):
    row = answered(user, "mine")
    answered(other, "theirs")
    Verdict.objects.create(response=row, reviewer=other, value="bad", note="Rude.")
    answer = api.get("/api/export")

    [line] = read(answer)
    assert line["response"]["text"] == "mine"
    assert "verdicts" not in line
    assert answer.headers["Content-Type"] == "application/jsonl; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="responses.jsonl"'


def test_filters_choose_what_is_exported(user, api):
    old = answered(user, "old", created_at=timezone.now() - timedelta(days=9))
    new = answered(user, "new", status="stopped")
    since = (timezone.now() - timedelta(days=1)).isoformat()

    for query, texts in (
        ({"since": since}, ["new"]),
        ({"until": since}, ["old"]),
        ({"status": "stopped"}, ["new"]),
        ({"conversation": str(old.prompt.conversation_id)}, ["old"]),
        ({"paths": "false"}, ["old", "new"]),
        ({"paths": ""}, ["old", "new"]),
        ({"paths": "True", "status": "stopped"}, ["new"]),
    ):
        lines = read(api.get("/api/export", params=query))
        assert [line["response"]["text"] for line in lines] == texts, query
    assert new.pk.hex in api.get("/api/export").text


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("format=xml", "format"),
        ("since=yesterday", "since"),
        ("conversation=1", "conversation"),
        ("status=fine", "status"),
        ("verdict=good", "verdict"),
        ("user=bob", "user"),
        ("formt=messages", "formt"),
        ("paths=yes", "paths"),
        ("page_size=10", "page_size"),
        ("cursor=", "cursor"),
    ],
)
def test_a_wrong_filter_is_named(api, query, field):
    answer = api.get(f"/api/export?{query}")

    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [field]


def test_a_long_export_is_streamed_and_leaves_nothing_open(user, api):
    for at in range(2 * exports.BATCH + 1):
        answered(user, f"text {at} " + "word " * 200)
    with api.stream("GET", "/api/export") as answer:
        assert "Content-Length" not in answer.headers
        lines = list(answer.iter_lines())

    assert len(lines) == 2 * exports.BATCH + 1
    assert json.loads(lines[-1])["response"]["text"].startswith(f"text {2 * exports.BATCH} ")


def test_an_empty_log_is_an_empty_file(api):
    assert read(api.get("/api/export")) == []
