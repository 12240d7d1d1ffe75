"""`GET /api/responses/{id}/events`: a response from any cursor on, as often as anybody likes."""

from __future__ import annotations

import threading
import uuid

import httpx
import pytest

from chat.lifecycle.supervisor import supervisor
from chat.models import Response
from tests.chat.rows import answered
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import Event, eventually, read_events, stream, text_of

MESSAGE = "/chat/new/message/"
TEXT = "Hello, 世界 👋"


def events_of(row: Response) -> str:
    """The address of its stream."""
    return f"/api/responses/{row.pk.hex}/events"


def follow(client: httpx.Client, row: Response, after: int | None = None, **options) -> list[Event]:
    """Everything behind the cursor, to the end."""
    query = {} if after is None else {"after": after}
    return stream(client, "GET", events_of(row), params=query, **options)


@pytest.mark.parametrize("after", [None, 0, 1, 7, 8, 9, len(TEXT) - 1])
def test_a_finished_response_is_read_from_any_cursor(api, user, after):
    row = answered(user, TEXT, prompt_tokens=4, completion_tokens=2, omitted=["a", "b"])
    piece, done = follow(api, row, after)

    assert piece.data == {"text": TEXT[after or 0 :], "message_id": row.pk.hex}
    assert piece.id == done.id == f"{row.pk.hex}:{len(TEXT)}"
    assert (done.name, done.data) == (
        "done",
        {
            "message_id": row.pk.hex,
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6},
            "omitted": ["a", "b"],
        },
    )


@pytest.mark.parametrize("after", [len(TEXT), len(TEXT) + 1, (1 << 31) - 1])
@pytest.mark.parametrize("status", ["done", "stopped", "failed", "interrupted"])
def test_an_event_source_that_has_read_everything_is_told_to_stay_away(api, user, after, status):
    row = answered(user, TEXT, status=status)
    answer = api.get(events_of(row), headers={"Last-Event-ID": f"{row.pk.hex}:{after}"})

    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("after", [len(TEXT), len(TEXT) + 1])
@pytest.mark.parametrize(
    ("status", "end"),
    [("done", "done"), ("stopped", "done"), ("failed", "error"), ("interrupted", "error")],
)
def test_a_program_that_lost_only_the_end_hears_how_it_ended(api, user, after, status, end):
    row = answered(user, TEXT, status=status)
    [told] = follow(api, row, after)

    assert (told.name, told.id) == (end, f"{row.pk.hex}:{after}")


def test_an_end_without_text_is_told_to_those_who_come_and_not_to_those_who_come_back(api, user):
    row = answered(user, "", status="stopped", finish_reason="cancelled")
    [done] = follow(api, row)
    back = api.get(events_of(row), headers={"Last-Event-ID": done.id})

    assert (done.id, done.data["finish_reason"]) == (f"{row.pk.hex}:0", "cancelled")
    assert (back.status_code, back.content) == (204, b"")


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_response_that_broke_off_ends_with_its_error(api, user, status):
    row = answered(user, "Hel", status=status, finish_reason="error", error="The engine died.")
    piece, error = follow(api, row, 1)

    assert piece.data["text"] == "el"
    assert (error.name, error.id) == ("error", f"{row.pk.hex}:3")
    assert error.data == {
        "message_id": row.pk.hex,
        "code": "generation_failed",
        "detail": "The engine died.",
    }


def test_a_stopped_response_ends_with_done(api, user):
    row = answered(user, "Hel", status="stopped", finish_reason="cancelled")
    piece, done = follow(api, row)

    assert (piece.data["text"], done.name) == ("Hel", "done")
    assert done.data["finish_reason"] == "cancelled"


def test_a_running_response_is_followed_from_what_it_has_to_its_end(api, serve):
    gate = Turnstile()
    engine = serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    with api.stream("POST", MESSAGE, json={"prompt": "Say it", "stream": True}) as asking:
        gate.admit(2)
        first = read_events(asking.iter_lines())
        assert text_of([next(first), next(first)]) == "Hello, "
        row = Response.objects.get()
        with api.stream("GET", f"{events_of(row)}?after=3") as response:
            rest = read_events(response.iter_lines())
            assert text_of([next(rest), next(rest)]) == "lo, "
            gate.set()
            last = list(rest)

    assert [event.id for event in last] == [f"{row.pk.hex}:12"] * 2
    assert (text_of(last), last[-1].name) == ("world", "done")
    assert len(engine.prompts) == 1


def test_many_follow_at_once_each_from_a_place_of_their_own(client_for, api, key, serve):
    gate = Turnstile()
    engine = serve(ScriptedEngine(*"Hello, world", gate=gate))
    texts: dict[int, str] = {}

    with api.stream("POST", MESSAGE, json={"prompt": "Say it", "stream": True}):
        row = Response.objects.get()
        live = supervisor.live(row.pk)
        gate.admit(6)
        eventually(lambda: live.cursor == 6)

        def read(after: int) -> None:
            texts[after] = text_of(follow(client_for(key), row, after))

        readers = [threading.Thread(target=read, args=(after,)) for after in range(12)]
        for thread in readers:
            thread.start()
        eventually(lambda: live.readers == 13)
        gate.set()
        for thread in readers:
            thread.join(20)

    assert texts == {after: "Hello, world"[after:] for after in range(12)}
    assert len(engine.prompts) == 1


def test_the_event_id_wins_over_the_query(api, user):
    row = answered(user, TEXT)
    headers = {"Last-Event-ID": f"{row.pk.hex}:7"}

    assert text_of(follow(api, row, 2, headers=headers)) == TEXT[7:]


def test_an_event_id_from_before_the_beginning_is_the_beginning(api, user):
    row = answered(user, TEXT)
    headers = {"Last-Event-ID": f"{row.pk.hex}:-5"}

    assert text_of(follow(api, row, headers=headers)) == TEXT


@pytest.mark.parametrize(
    "after", ["-1", "x", "1.5", "", "1e3", "NaN", "2147483648", "9" * 5000, "١x", "0x1", "null"]
)
def test_a_cursor_that_is_none_is_refused_by_name(api, user, after):
    answer = api.get(events_of(answered(user, TEXT)), params={"after": after})

    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["after"]


def test_a_misspelt_cursor_is_refused(api, user):
    answer = api.get(events_of(answered(user, TEXT)), params={"afer": 3})

    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["afer"])


@pytest.mark.parametrize("last", ["", "nonsense", ":", "12", "{own}", "{own}:x", "{other}:0"])
def test_an_event_id_that_is_not_this_responses_is_refused(api, user, last):
    row, another = answered(user, TEXT), answered(user, TEXT)
    headers = {"Last-Event-ID": last.format(own=row.pk.hex, other=another.pk.hex)}
    answer = api.get(events_of(row), headers=headers)

    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["Last-Event-ID"]


def test_somebody_elses_response_does_not_exist(other_api, user):
    row = answered(user, "secret")
    answers = [
        other_api.get(events_of(row)),
        other_api.get(events_of(row), headers={"Last-Event-ID": f"{row.pk.hex}:0"}),
        other_api.get(
            MESSAGE.replace("chat/new/message/", "sendMessage"),
            params={"prompt": "a"},
            headers={"Last-Event-ID": f"{row.pk.hex}:0"},
        ),
        other_api.get(f"/api/responses/{uuid.uuid4()}/events"),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert "secret" not in answer.text


def test_following_holds_no_thread_and_loses_nothing_when_it_leaves(api, serve, gate):
    serve(ScriptedEngine("Hel", "lo", gate=gate))
    with api.stream("POST", MESSAGE, json={"prompt": "Say it", "stream": True}):
        row = Response.objects.get()
        live = supervisor.live(row.pk)
        with api.stream("GET", events_of(row)):
            eventually(lambda: live.readers == 2)
        eventually(lambda: live.readers == 1)
    gate.set()

    assert live.wait(10)
    assert text_of(follow(api, row)) == "Hello"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/sendMessage?prompt=Say+it", None),
        ("POST", MESSAGE, {"prompt": "Say it", "stream": True}),
        ("POST", MESSAGE, {"prompt": "Say it"}),
        ("POST", MESSAGE, None),
    ],
)
def test_a_reader_that_reconnects_never_starts_another_generation(api, serve, method, path, body):
    gate = Turnstile()
    engine = serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    with api.stream("POST", MESSAGE, json={"prompt": "Say it", "stream": True}) as response:
        gate.admit()
        first = next(read_events(response.iter_lines()))
    gate.set()
    again = stream(api, method, path, json=body, headers={"Last-Event-ID": first.id})
    once_more = stream(api, method, path, json=body, headers={"Last-Event-ID": first.id})

    assert text_of(again) == text_of(once_more) == ", world"
    assert again[-1] == once_more[-1]
    end = api.request(method, path, json=body, headers={"Last-Event-ID": again[-1].id})
    assert end.status_code == 204
    nothing = api.request(method, path, json=body, headers={"Last-Event-ID": "nonsense"})
    assert nothing.status_code == 404
    assert len(engine.prompts) == Response.objects.count() == 1


def test_nobody_asks_for_the_head_of_a_stream(api, user):
    row = answered(user, "Hi")

    assert api.head(f"/api/responses/{row.pk}/events").status_code == 405
