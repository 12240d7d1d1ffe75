"""`POST /chat/new/message/`: ask, be answered, find it stored."""

from __future__ import annotations

import re

from chat.models import Response
from tests.web import read_events


def test_an_answer_comes_with_its_history_and_is_stored(api, engine):
    answer = api.post("/chat/new/message/", json={"prompt": "Say it"}).json()

    assert answer["response"] == "Hello, world"
    assert answer["history"] == [
        {"role": "user", "content": "Say it"},
        {"role": "assistant", "content": "Hello, world"},
    ]
    assert answer["status"] == 200
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", answer["time"])
    row = Response.objects.get(pk=answer["message_id"])
    assert (row.text, row.status) == ("Hello, world", Response.Status.DONE)
    assert str(row.prompt.conversation_id) == answer["conversation"]


def test_a_stream_carries_one_event_for_each_piece_and_then_done(api, engine):
    body = {"prompt": "Say it", "stream": True}
    with api.stream("POST", "/chat/new/message/", json=body) as stream:
        events = list(read_events(stream.iter_lines()))

    *pieces, done = events
    assert [event.data["text"] for event in pieces] == ["Hello", ", ", "world"]
    assert done.name == "done"
    assert done.data["finish_reason"] == "stop"
    assert {event.data["message_id"] for event in events} == {done.data["message_id"]}
