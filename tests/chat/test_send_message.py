"""`GET /sendMessage`: the stream for a browser's EventSource."""

from __future__ import annotations

import uuid

import httpx
import pytest
from django.test import Client

from chat.models import Prompt, Response
from tests.chat.refusals import named
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import opening_of, read_events, stream, text_of

URL = "/sendMessage"

NOBODYS = uuid.UUID(int=7).hex


def test_a_prompt_in_the_query_is_answered_as_a_stream(api, engine):
    query = {"prompt": "Say it", "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": 7}
    events = stream(api, "GET", URL, params=query)

    assert text_of(events) == "Hello"
    assert events[-1].name == "done"
    row = Response.objects.get()
    assert (row.surface, row.prompt.content) == ("sendMessage", "Say it")
    assert (row.max_tokens, row.temperature, row.top_p, row.seed) == (5, 0.5, 0.9, 7)


def test_an_address_that_is_not_utf_8_starts_nothing(api, engine):
    answer = api.get(URL + "?prompt=caf%E9")

    assert answer.status_code == 400
    assert named(answer) == ("invalid_request", "query")
    assert "UTF-8" in answer.json()["detail"]
    assert Response.objects.count() == 0


def test_a_conversation_goes_on(api, engine):
    stream(api, "GET", URL, params={"prompt": "One"})
    conversation = Prompt.objects.get().conversation_id
    stream(api, "GET", URL, params={"prompt": "Two", "conversation": str(conversation)})

    assert engine.prompt_text() == "user: One\nassistant: Hello, world\nuser: Two\n"


def test_a_session_is_enough_for_a_browser(server, user, engine):
    browser = Client()
    browser.force_login(user)
    cookies = {"sessionid": browser.cookies["sessionid"].value}
    headers = {"Accept": "text/event-stream"}  # as every EventSource sends it
    with httpx.Client(base_url=server.address, cookies=cookies, headers=headers) as client:
        events = stream(client, "GET", URL, params={"prompt": "Say it"})

    assert text_of(events) == "Hello, world"
    assert Response.objects.get().user == user


def test_a_navigation_that_tells_nothing_of_itself_starts_nothing(server, user, engine):
    browser = Client()
    browser.force_login(user)
    cookies = {"sessionid": browser.cookies["sessionid"].value}
    with httpx.Client(base_url=server.address, cookies=cookies) as client:
        answer = client.get(URL, params={"prompt": "Hi"}, headers={"Accept": "text/html"})

    assert answer.status_code == 403
    assert Response.objects.count() == 0


def test_a_reader_that_reconnects_gets_the_rest_of_the_running_response(api, serve):
    gate = Turnstile()
    engine = serve(ScriptedEngine("Hello", ", ", "world", gate=gate))
    with api.stream("GET", URL, params={"prompt": "Say it"}) as response:
        gate.admit(2)
        events = read_events(response.iter_lines())
        first, second = next(events), next(events)
    assert (first.data["text"], second.data["text"]) == ("Hello", ", ")

    # Some of the second piece was lost on the way: any number of characters is a cursor.
    lost = {"Last-Event-ID": second.id.replace(":7", ":6")}
    with api.stream("GET", URL, params={"prompt": "Say it"}, headers=lost) as response:
        gate.set()
        again = list(read_events(response.iter_lines()))

    assert text_of(again) == " world"
    assert again[-1].name == "done"
    assert len(engine.prompts) == Response.objects.count() == 1


def test_a_reader_that_lost_its_stream_before_the_first_token_does_not_ask_anew(api, serve, gate):
    engine = serve(ScriptedEngine(gate=gate))
    with api.stream("GET", URL, params={"prompt": "Say it"}) as response:
        cursor = opening_of(response.iter_lines())
    assert cursor == f"{Response.objects.get().pk.hex}:0"

    last = {"Last-Event-ID": cursor}
    gate.set()
    assert text_of(stream(api, "GET", URL, params={"prompt": "Say it"}, headers=last)) == (
        "Hello, world"
    )
    assert len(engine.prompts) == 1


def test_a_reader_that_lost_its_stream_before_the_first_byte_joins_by_its_key(api, serve, gate):
    engine = serve(ScriptedEngine(gate=gate))
    query = {"prompt": "Say it", "idempotency_key": "第一 1"}
    with api.stream("GET", URL, params=query):
        pass  # not even the id has come
    gate.set()

    for _ in range(2):
        assert text_of(stream(api, "GET", URL, params=query)) == "Hello, world"
    assert len(engine.prompts) == Response.objects.count() == 1


def test_without_a_key_it_asks_anew_and_under_another_too(api, engine):
    for key in ({}, {}, {"idempotency_key": "one"}, {"idempotency_key": "two"}):
        stream(api, "GET", URL, params={"prompt": "Say it", **key})

    assert Response.objects.count() == 4


def test_a_key_names_one_prompt(api, engine):
    stream(api, "GET", URL, params={"prompt": "Say it", "idempotency_key": "one"})
    answer = api.get(URL, params={"prompt": "Say more", "idempotency_key": "one"})

    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert list(answer.json()["errors"]) == ["idempotency_key"]


def test_a_key_in_the_header_is_refused_as_the_header(api, engine):
    headers = {"Idempotency-Key": "one"}
    stream(api, "GET", URL, params={"prompt": "Say it"}, headers=headers)
    query = {"prompt": "Say more", "idempotency_key": "two"}
    answer = api.get(URL, params=query, headers=headers)

    assert (answer.status_code, list(answer.json()["errors"])) == (422, ["Idempotency-Key"])


def test_a_key_in_the_header_wins(api, engine):
    for header, key in (("a", "one"), ("b", "one")):
        query = {"prompt": "Say it", "idempotency_key": key}
        stream(api, "GET", URL, params=query, headers={"Idempotency-Key": header})

    assert Response.objects.count() == 2


def test_a_reader_that_reconnects_gets_the_rest_of_a_finished_response(api, engine):
    events = stream(api, "GET", URL, params={"prompt": "Say it"})
    name = events[0].id.split(":")[0]
    rest = stream(api, "GET", URL, headers={"Last-Event-ID": f"{name}:3"})

    assert text_of(rest) == "lo, world"
    assert rest[-1] == events[-1]
    assert len(engine.prompts) == 1


def test_a_reader_that_has_everything_is_told_to_stay_away(api, engine):
    last = stream(api, "GET", URL, params={"prompt": "Say it"})[-1].id

    for cursor in (last, last + "000"):
        headers = {"Last-Event-ID": cursor}
        answer = api.get(URL, params={"prompt": "Say it"}, headers=headers)
        assert (answer.status_code, answer.content) == (204, b"")
    assert len(engine.prompts) == 1


@pytest.mark.parametrize(
    "cursor",
    ["", "nonsense", ":", "12", NOBODYS, f"{NOBODYS}:0", f"{NOBODYS}:x"],
)
def test_a_cursor_of_nothing_is_404_and_starts_nothing(api, engine, cursor):
    headers = {"Last-Event-ID": cursor}
    answer = api.get(URL, params={"prompt": "Say it"}, headers=headers)

    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"
    assert engine.prompts == []


def test_nobody_follows_anothers_response(api, other_api, engine):
    last = stream(api, "GET", URL, params={"prompt": "Say it"})[0].id

    assert other_api.get(URL, headers={"Last-Event-ID": last}).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "iframe"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[::1"},
        {"Origin": "nonsense"},
        {"Referer": "http://evil.example/page"},
        {"Referer": "http://[/"},
    ],
    ids=str,
)
def test_a_request_that_another_site_could_cause_is_refused(api, engine, headers):
    answer = api.get(URL, params={"prompt": "Say it"}, headers=headers)

    assert answer.status_code == 403
    assert answer.json()["code"] == "forbidden"
    assert engine.prompts == []


def test_our_own_page_may_ask(api, server, engine):
    own = {
        "Sec-Fetch-Mode": "cors",
        "Sec-Fetch-Site": "same-origin",
        "Sec-Fetch-Dest": "empty",
        "Origin": server.address,
        "Referer": f"{server.address}/",
    }
    assert text_of(stream(api, "GET", URL, params={"prompt": "Say it"}, headers=own))


def test_asking_for_the_headers_alone_starts_nothing(api, engine):
    answer = api.head(URL, params={"prompt": "Say it"})

    assert answer.status_code == 405
    assert engine.prompts == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "prompt"),
        ("prompt=", "prompt"),
        ("prompt=%20%0A", "prompt"),
        ("prompt=a%00b", "prompt"),
        ("prompt=a&max_tokens=0", "max_tokens"),
        ("prompt=a&max_tokens=1.5", "max_tokens"),
        ("prompt=a&max_tokens=1000000000", "max_tokens"),
        ("prompt=a&temperature=2.1", "temperature"),
        ("prompt=a&temperature=nan", "temperature"),
        ("prompt=a&temperature=1e999", "temperature"),
        ("prompt=a&top_p=0", "top_p"),
        ("prompt=a&top_p=inf", "top_p"),
        ("prompt=a&seed=" + "9" * 5000, "seed"),
        ("prompt=a&seed=x", "seed"),
        ("prompt=a&conversation=7", "conversation"),
        ("prompt=a&tempreature=1", "tempreature"),
        ("prompt=a&stream=true", "stream"),
        ("prompt=a&idempotency_key=", "idempotency_key"),
        ("prompt=a&idempotency_key=a%0Ab", "idempotency_key"),
        ("prompt=a&idempotency_key=" + "x" * 256, "idempotency_key"),
    ],
)
def test_bad_queries_are_refused_by_name(api, engine, query, field):
    answer = api.get(f"{URL}?{query}")

    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [field]
    assert not Prompt.objects.exists()
