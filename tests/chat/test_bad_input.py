"""Bad input gets a clear answer on every route that asks, and nothing else breaks."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from django.db import close_old_connections
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat.models import Conversation, Prompt, Response
from tests.chat.refusals import named
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import read_events

MESSAGE = "/chat/new/message/"
COMPLETION = "/v1/chat/completions"
INSIDE = "/api/conversations/{conversation}/prompts/"
GOOD = {
    MESSAGE: {"prompt": "a"},
    INSIDE: {"prompt": "a"},
    COMPLETION: {"messages": [{"role": "user", "content": "a"}]},
}
LEGACY = {"prompt": "a"}
OURS = [(MESSAGE, GOOD[MESSAGE]), (INSIDE, GOOD[INSIDE]), (COMPLETION, LEGACY)]
EVERYWHERE = [*OURS, (COMPLETION, GOOD[COMPLETION])]

HUGE = 10**4000
NOT_NUMBERS = ["1", "", True, [], {}, [1], float("nan"), float("inf"), float("-inf"), HUGE, -HUGE]
WHOLE = [*NOT_NUMBERS, 1.5]
SAMPLING = {
    "temperature": [*NOT_NUMBERS, -0.1, -1, 2.0001, 3],
    "top_p": [*NOT_NUMBERS, 0, -0.5, 1.1, 2],
    "top_k": [*WHOLE, -1, 0x110000 + 2, 1 << 31, 1 << 63],
    "max_tokens": [*WHOLE, 0, -1, 4096, 1_000_000_000, 1 << 31],
    "seed": [*WHOLE, 1 << 63, -(1 << 63) - 1],
    "stop": [5, True, {}, [5], [None], "", [""], ["a"] * 17, "a" * 300, [["a"]]],
    "stream": ["true", 1, 0, [], {}, "", 1.0],
}
PROMPTS = {"prompt": [None, "", " \n\t", 5, True, [], {}, ["a"], float("nan")]}
TURNS = {
    "history": [
        ("history", "a"),
        ("history", 5),
        ("history", {"role": "user", "content": "a"}),
        ("history.0", ["a"]),
        ("history.0", [None]),
        ("history.0.role", [{"content": "a"}]),
        ("history.0.role", [{"role": "tool", "content": "a"}]),
        ("history.0.role", [{"role": "User", "content": "a"}]),
        ("history.0.role", [{"role": None, "content": "a"}]),
        ("history.0.role", [{"role": ["user"], "content": "a"}]),
        ("history.0.role", [{"role": {}, "content": "a"}]),
        ("history.0.content", [{"role": "user"}]),
        ("history.0.content", [{"role": "user", "content": None}]),
        ("history.0.content", [{"role": "user", "content": 5}]),
        ("history.0.colour", [{"role": "user", "content": "a", "colour": 1}]),
        ("history.1.content", [{"role": "user", "content": "a"}, {"role": "user", "content": []}]),
    ]
}
IDS = {"conversation": [5, 0, True, -1, "", "7", "x" * 32, [], {}, float("nan"), HUGE]}
UNKNOWN = {"n_predict": [1], "": [1], "Prompt": ["a"], "user_id": [None]}


@contextmanager
def neighbour(api: httpx.Client, gate: Turnstile) -> Iterator[None]:
    """Somebody's stream that is under way meanwhile, and comes to its right end afterwards."""
    body = {"prompt": "Neighbour", "stream": True}
    with api.stream("POST", MESSAGE, json=body) as response:
        events = read_events(response.iter_lines())
        gate.admit()
        assert next(events).data["text"] == "Hello"
        yield
        gate.set()
        rest = list(events)
    assert [event.data.get("text") for event in rest[:-1]] == [", ", "world"]
    assert rest[-1].name == "done"
    assert Prompt.objects.get().content == "Neighbour"
    assert Response.objects.get().text == "Hello, world"


@pytest.fixture
def world(api, user, serve) -> Iterator[dict[str, str]]:
    """A conversation to ask in, and a neighbour who must not notice anything."""
    gate = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    conversation = Conversation.objects.create(user=user)
    with neighbour(api, gate):
        yield {"conversation": str(conversation.pk)}


def refusals(api: httpx.Client, path: str, body: bytes) -> tuple[int, str, str]:
    """Status, code and named field of the answer to a raw JSON body."""
    answer = api.post(path, content=body, headers={"Content-Type": "application/json"})
    return answer.status_code, *named(answer)


def spelled(body: dict[str, Any]) -> bytes:
    """JSON with NaN and numbers longer than Python likes to print, as a client could send it."""
    text = json.dumps(body, default=str) if HUGE not in body.values() else _with_huge(body)
    return text.encode()


def _with_huge(body: dict[str, Any]) -> str:
    parts = [f"{json.dumps(name)}: {_huge_or_json(value)}" for name, value in body.items()]
    return "{" + ", ".join(parts) + "}"


def _huge_or_json(value: Any) -> str:
    if value in (HUGE, -HUGE) and not isinstance(value, bool):
        return ("-" if value < 0 else "") + "1" + "0" * 4000
    return json.dumps(value)


@pytest.mark.parametrize(("path", "good"), EVERYWHERE, ids=lambda value: str(value)[:24])
def test_sampling_out_of_range_or_of_another_type_is_refused_by_name(api, world, path, good):
    wrong = []
    for field, values in SAMPLING.items():
        for value in values:
            got = refusals(api, path.format(**world), spelled({**good, field: value}))
            if got != (400, "invalid_request", field):
                wrong.append((field, str(value)[:30], got))
    assert wrong == []


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("field", ["seed", "max_tokens", "top_k", "temperature", "conversation"])
def test_a_number_that_python_refuses_to_read_is_named(api, serve, field, sign):
    body = f'{{"prompt": "a", "{field}": {sign}{"9" * 5000}}}'
    assert refusals(api, MESSAGE, body.encode()) == (400, "invalid_request", field)


@pytest.mark.parametrize("path", [MESSAGE, COMPLETION])
def test_a_compressed_body_is_refused_for_that(api, path):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = api.post(path, content=gzip.compress(b'{"prompt": "a"}'), headers=headers)
    assert answer.status_code == 415
    assert named(answer)[0] == "unsupported_media_type"
    assert "Content-Encoding" in answer.text


@pytest.mark.parametrize(("path", "good"), OURS, ids=lambda value: str(value)[:24])
def test_prompts_that_say_nothing_are_refused(api, world, path, good):
    assert refusals(api, path.format(**world), b"{}")[0] == 400
    for value in PROMPTS["prompt"]:
        got = refusals(api, path.format(**world), spelled({**good, "prompt": value}))
        assert got == (400, "invalid_request", "prompt"), value


@pytest.mark.parametrize("path", [MESSAGE, COMPLETION])
def test_histories_are_refused_with_the_place_of_the_mistake(api, world, path):
    for field, value in TURNS["history"]:
        got = refusals(api, path, spelled({"prompt": "a", "history": value}))
        assert got == (400, "invalid_request", field), value


@pytest.mark.parametrize("path", [MESSAGE, COMPLETION])
def test_ids_that_are_none_are_refused(api, world, path):
    for value in IDS["conversation"]:
        got = refusals(api, path, spelled({"prompt": "a", "conversation": value}))
        assert got == (400, "invalid_request", "conversation"), str(value)[:30]


@pytest.mark.parametrize(("path", "good"), EVERYWHERE, ids=lambda value: str(value)[:24])
def test_unknown_fields_are_refused_by_name(api, world, path, good):
    for field, values in UNKNOWN.items():
        for value in values:
            got = refusals(api, path.format(**world), spelled({**good, field: value}))
            assert got == (400, "invalid_request", field or "body"), field


NUL, HALF = "\\u0000", "\\ud83d"


@pytest.mark.parametrize(("path", "good"), EVERYWHERE, ids=lambda value: str(value)[:24])
@pytest.mark.parametrize("bad", [NUL, HALF, "\\udc00", "\\udc00\\ud800"])
def test_text_that_cannot_be_stored_is_refused_wherever_it_stands(api, world, path, good, bad):
    deep = "[" * 20 + f'{{"k": "{bad}"}}' + "]" * 20
    for fields in (
        f'"prompt": "a{bad}b"',
        f'"messages": [{{"role": "user", "content": "{bad}"}}]',
        f'"messages": [{{"role": "user", "content": "a", "name": "{bad}"}}]',
        f'"history": [{{"role": "user", "content": "{bad}"}}]',
        f'"stop": ["{bad}"]',
        f'"metadata": {{"{bad}": 1}}',
        f'"metadata": {deep}',
        f'"{bad}": 1',
        f'"user": "{bad}"',
        f'"conversation": "{bad}"',
    ):
        body = json.dumps(good)[:-1] + f", {fields}}}"
        status, code, field = refusals(api, path.format(**world), body.encode())
        assert (status, code) == (400, "invalid_request"), fields
        assert field
        assert field != "body"


# Whole bodies that are no requests, with the content type they come with.
JSON = "application/json"
BROKEN: list[tuple[bytes, str | None, int]] = [
    (b"", JSON, 400),
    (b" ", JSON, 400),
    (b"{", JSON, 400),
    (b"{'prompt': 'a'}", JSON, 400),
    (b'{"prompt": "a"} x', JSON, 400),
    (b"null", JSON, 400),
    (b"[]", JSON, 400),
    (b'["prompt"]', JSON, 400),
    (b'"prompt"', JSON, 400),
    (b"5", JSON, 400),
    (b"NaN", JSON, 400),
    (b"true", JSON, 400),
    (b'{"prompt": ' + b"9" * 5000 + b"}", JSON, 400),
    (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", JSON, 400),
    (b"[" * 100_000 + b"]" * 100_000, JSON, 400),
    (b"[" * 100_000, JSON, 400),
    (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, JSON, 400),
    (b'{"prompt": "a", "metadata": ' + b"[" * 40 + b"]" * 40 + b"}", JSON, 400),
    ('{"prompt": "ä"}'.encode("latin-1"), JSON, 400),
    ('{"prompt": "ä"}'.encode("latin-1"), f"{JSON}; charset=latin-1", 400),
    ('{"prompt": "ä"}'.encode("utf-16"), f"{JSON}; charset=utf-16", 400),
    (b'\xef\xbb\xbf{"prompt": "a"}', JSON, 400),
    (b'{"prompt": "\xed\xa0\x80"}', JSON, 400),
    (b'{"prompt": "a\nb"}', JSON, 400),
    (b"prompt=a", "application/x-www-form-urlencoded", 415),
    (b"--x\r\n\r\na\r\n--x--", "multipart/form-data; boundary=x", 415),
    (b'{"prompt": "a"}', "text/plain", 415),
    (b'{"prompt": "a"}', "application/jsonx", 415),
    (b'{"prompt": "a"}', "nonsense", 415),
    (b'{"prompt": "a"}', None, 415),
    (b"", None, 400),
]


@pytest.mark.parametrize("path", [MESSAGE, INSIDE, COMPLETION])
def test_bodies_that_are_no_requests_are_refused(api, world, path):
    for body, kind, expected in BROKEN:
        headers = {"Content-Type": kind} if kind else {}
        answer = api.post(path.format(**world), content=body, headers=headers)
        code, field = named(answer)
        assert answer.status_code == expected, (body[:60], kind, answer.text)
        assert code == ("invalid_request" if expected == 400 else "unsupported_media_type")
        assert field if expected == 400 else not field, (body[:60], answer.text)


def test_utf8_may_be_named_as_what_it_is(api, engine):
    body = '{"prompt": "ä"}'.encode()
    for kind in (f"{JSON}; charset=utf-8", f"{JSON};charset=UTF-8", "Application/JSON"):
        assert api.post(MESSAGE, content=body, headers={"Content-Type": kind}).status_code == 200
    assert set(Prompt.objects.values_list("content", flat=True)) == {"ä"}


NAMES = st.sampled_from(
    [
        "prompt", "history", "conversation", "max_tokens", "temperature", "top_p", "top_k",
        "seed", "stop", "stream", "model", "messages", "n", "stream_options", "metadata",
        "user", "tools", "response_format", "client", "role", "content", "", "\0",
    ]
)  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["user", "assistant", "system", "a", "demo", "\ud800"])
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": LEAVES}
)
VALUES = st.recursive(
    LEAVES | st.lists(TURN, max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=6)
BODIES = VALUES | OBJECTS.map(lambda body: {"prompt": "a"} | body)


@pytest.mark.parametrize("path", [MESSAGE, COMPLETION])
def test_no_body_makes_an_error_of_the_servers_own(api, serve, path):
    serve(ScriptedEngine("Hi"))

    @settings(
        max_examples=150,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[*HealthCheck],
    )
    @given(BODIES)
    def sent(body: Any) -> None:
        content = json.dumps(body).encode()
        answer = api.post(path, content=content, headers={"Content-Type": JSON})
        assert answer.status_code in (200, 400, 404, 409), (content, answer.text)
        if answer.status_code != 200:
            named(answer)

    sent()
    close_old_connections()
