"""The log as JSON lines: whole, oldest first, to those who may read it."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.utils import timezone

from chat.limits.readers import scanners
from chat.log import exports
from chat.log.datasets import Format
from chat.log.exports import Export
from chat.models import Response, Verdict
from tests.chat.exporting import exported, two_turns
from tests.chat.refusals import named
from tests.chat.rows import answered, left_behind
from tests.web import eventually


def read(answer: httpx.Response) -> list[Any]:
    """The lines that the API sent."""
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


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


@pytest.mark.parametrize(
    ("paths", "texts"),
    [
        *((on, ["Rome.", "Bern."]) for on in ("true", "1")),
        *((off, ["Paris.", "Rome.", "Bern."]) for off in ("false", "0")),
    ],
)
def test_of_paths_only_the_ends_where_that_is_wished(user, api, paths, texts):
    last = two_turns(user)
    first = last.prompt.follows
    other = answered(
        user, "Bern.", conversation=first.prompt.conversation, prompt="And?", follows=first
    )
    answered(
        user, "", conversation=first.prompt.conversation, follows=other, status="failed", error="No"
    )
    answered(user, "", conversation=first.prompt.conversation, follows=last, status="stopped")
    lines = read(api.get(f"/api/export?format=messages&paths={paths}"))

    assert [line["messages"][-1]["content"] for line in lines] == texts


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


def test_what_is_from_before_a_clock_was_set_back_is_in_it(user, api):
    answered(user, "now")
    answered(user, "later", created_at=timezone.now() + timedelta(hours=1))

    lines = read(api.get("/api/export"))
    assert [line["response"]["text"] for line in lines] == ["now", "later"]


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


def test_a_reader_whose_rights_end_gets_no_file_that_looks_whole(user, monkeypatch):
    monkeypatch.setattr(exports, "BATCH", 1)
    answers = iter([True, False])
    answered(user, "one")
    answered(user, "two")

    async def may_read() -> bool:
        return next(answers)

    async def begin_and_go_on() -> str:
        pieces = Export(Response.objects.all(), Format.RECORDS).stream(may_read)
        first = await anext(pieces)
        with pytest.raises(PermissionDenied):
            await anext(pieces)
        return first

    # In a loop of its own: rows made from one would leave a thread behind with a database handle.
    assert json.loads(asyncio.run(begin_and_go_on()))["response"]["text"] == "one"


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
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Accel-Buffering"] == "no"


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


def test_one_caller_reads_few_exports_at_once_and_keeps_nobody_else_out(
    api, other_api, user, gate, monkeypatch, settings
):
    settings.LLMSITE_MAX_SCANS_PER_CALLER = 2
    begun: list[Any] = []

    async def hold(scope: Any, permission: str) -> bool:
        if scope in begun:
            await asyncio.to_thread(gate.wait)  # between its first batch and its second
        begun.append(scope)
        return True

    monkeypatch.setattr(exports, "BATCH", 1)
    monkeypatch.setattr(exports.rights, "hold", hold)
    answered(user, "one")
    answered(user, "two")
    with ExitStack() as reading:
        under_way = [reading.enter_context(api.stream("GET", "/api/export")) for _ in range(2)]
        for path in ("/api/export", "/api/conversations/", "/chat/get/messages/"):
            refused = api.get(path, params={"search": "one"})
            assert (refused.status_code, named(refused)[0]) == (429, "too_many_streams"), path
            assert "One caller may have 2 exports and searches" in refused.json()["detail"]
        assert api.get("/chat/get/messages/").status_code == 200, "which looks for nothing"
        assert read(other_api.get("/api/export", params={"search": "one"})) == []
        gate.set()
        assert [len(list(one.iter_lines())) for one in under_way] == [2, 2]

    eventually(lambda: scanners.total == 0)
    assert len(read(api.get("/api/export"))) == 2
    assert api.get("/chat/get/messages/", params={"search": "one"}).status_code == 200


def test_an_empty_log_is_an_empty_file(api):
    assert read(api.get("/api/export")) == []
