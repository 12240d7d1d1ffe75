"""What did not fit the context is named, wherever an answer is shown."""

from __future__ import annotations

import json
from uuid import UUID

import httpx
import pytest

from chat.models import Prompt, Response
from tests.fakes import ScriptedEngine
from tests.web import stream

MESSAGE = "/chat/new/message/"
COMPLETION = "/v1/chat/completions"
LONG = [letter * 40 for letter in "ABCD"]


@pytest.fixture
def engine(serve) -> ScriptedEngine:
    """Room for two of the long prompts, and no third."""
    return serve(ScriptedEngine("Yes", context_length=140))


def ids(*prompts: str) -> list[str]:
    """Of these prompts and their answers, in their order."""
    named: list[str] = []
    for text in prompts:
        prompt = Prompt.objects.get(content=text)
        named += [prompt.pk.hex, prompt.responses.get().pk.hex]
    return named


def grow(api: httpx.Client, *prompts: str) -> dict[str, str]:
    """A conversation of these prompts."""
    inside: dict[str, str] = {}
    for text in prompts:
        answer = api.post(MESSAGE, json={"prompt": text, "max_tokens": 5, **inside})
        assert answer.status_code == 200
        inside = {"conversation": answer.json()["conversation"]}
    return inside


def test_json_a_stream_and_the_row_name_the_same(api, engine):
    inside = grow(api, *LONG[:2])
    body = {"prompt": LONG[2], "max_tokens": 5, **inside}
    answer = api.post(MESSAGE, json=body).json()
    left_out = ids(LONG[0])

    assert engine.prompt_text() == (f"user: {LONG[1]}\nassistant: Yes\nuser: {LONG[2]}\n")
    assert answer["omitted"] == left_out
    assert api.get(f"/api/responses/{answer['message_id']}/").json()["omitted"] == left_out
    path = api.get(f"/api/conversations/{answer['conversation']}/").json()["path"]
    assert path[-1]["omitted"] == left_out
    followed = stream(api, "GET", f"/api/responses/{answer['message_id']}/events")
    assert followed[-1].data["omitted"] == left_out
    assert len(answer["history"]) == 6, "the client still gets all of it"


def test_a_done_event_names_them(api, engine):
    inside = grow(api, *LONG[:3])
    body = {"prompt": LONG[3], "max_tokens": 5, "stream": True, **inside}
    *_, done = stream(api, "POST", MESSAGE, json=body)

    assert (done.name, done.data["omitted"]) == ("done", ids(*LONG[:2]))


def test_the_whole_text_as_one_event_names_them(api, engine):
    inside = grow(api, *LONG[:2])
    accept = {"Accept": "text/event-stream"}
    body = {"prompt": LONG[2], "max_tokens": 5, **inside}
    _, done = stream(api, "POST", MESSAGE, json=body, headers=accept)

    assert done.data["omitted"] == ids(LONG[0])


def test_the_browsers_stream_names_them(api, engine):
    inside = grow(api, *LONG[:2])
    query = {"prompt": LONG[2], "max_tokens": 5, **inside}
    *_, done = stream(api, "GET", "/sendMessage", params=query)

    assert done.data["omitted"] == ids(LONG[0])


def test_a_prompt_inside_a_conversation_and_another_try_name_them(api, engine):
    conversation = grow(api, *LONG[:2])["conversation"]
    body = {"prompt": LONG[2], "max_tokens": 5}
    answer = api.post(f"/api/conversations/{conversation}/prompts/", json=body).json()
    prompt = Prompt.objects.get(content=LONG[2])
    again = api.post(f"/api/prompts/{prompt.pk}/responses/", json={"max_tokens": 5}).json()

    assert answer["omitted"] == again["omitted"] == ids(LONG[0])


def test_openais_object_names_them(api, engine):
    messages: list[dict] = []
    for text in LONG[:3]:
        messages.append({"role": "user", "content": text})
        answer = api.post(COMPLETION, json={"messages": messages, "max_tokens": 5}).json()
        messages.append(answer["choices"][0]["message"])

    assert answer["omitted"] == ids(LONG[0])


def test_so_does_the_last_chunk_of_openais_stream(api, engine):
    inside = [{"role": "user", "content": LONG[0]}, {"role": "assistant", "content": "Yes"}]
    messages = [*inside, {"role": "user", "content": LONG[1]}, inside[1]]
    body = {"messages": [*messages, {"role": "user", "content": LONG[2]}], "stream": True}
    with api.stream("POST", COMPLETION, json={**body, "max_tokens": 5}) as answer:
        lines = [line for line in answer.iter_lines() if "finish_reason" in line]
    *pieces, last = (json.loads(line.removeprefix("data: ")) for line in lines)

    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["omitted"] == ids(LONG[0])
    assert not any("omitted" in piece for piece in pieces)


@pytest.mark.parametrize("path", [MESSAGE, COMPLETION])
def test_what_is_imported_and_left_out_at_once_is_named_by_its_rows(api, engine, path):
    history = []
    for text in LONG[:3]:
        history.append({"role": "user", "content": text})
        history.append({"role": "assistant", "content": f"{text[0]}!"})
    body = {"prompt": LONG[3], "history": history, "max_tokens": 5}
    answer = api.post(path, json=body).json()

    assert answer["omitted"] == ids(*LONG[:2])
    rows = Response.objects.filter(pk__in=[UUID(hex=one) for one in answer["omitted"]])
    assert {(row.text, row.imported) for row in rows} == {("A!", True), ("B!", True)}
    assert engine.prompt_text() == f"user: {LONG[2]}\nassistant: C!\nuser: {LONG[3]}\n"


def test_turns_before_a_prompt_share_its_id(api, engine):
    """Several turns of one row are named once."""
    history = [
        {"role": "user", "content": "A" * 30},
        {"role": "user", "content": "B" * 30},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "C" * 40},
        {"role": "assistant", "content": "Yes"},
    ]
    body = {"prompt": LONG[3], "history": history, "max_tokens": 5}
    answer = api.post(MESSAGE, json=body).json()

    oldest = Prompt.objects.get(content="B" * 30)
    assert answer["omitted"] == [oldest.pk.hex, oldest.responses.get().pk.hex]


def test_the_persona_is_never_left_out(api, engine, settings):
    settings.LLMSITE_SYSTEM = "Be brief."
    inside = grow(api, *LONG[:2])
    answer = api.post(MESSAGE, json={"prompt": LONG[2], "max_tokens": 5, **inside}).json()

    assert engine.prompt_text().startswith("system: Be brief.\n")
    assert answer["omitted"] == ids(LONG[0])


def test_where_everything_fits_nothing_is_named(api, engine):
    inside = grow(api, "A")
    answer = api.post(MESSAGE, json={"prompt": "B", "max_tokens": 5, **inside}).json()

    assert answer["omitted"] == []


def test_an_answer_that_is_joined_names_the_same(api, engine):
    inside = grow(api, *LONG[:2])
    body = {"prompt": LONG[2], "max_tokens": 5, **inside}
    key = {"Idempotency-Key": "one"}
    first, again = (api.post(MESSAGE, json=body, headers=key).json() for _ in range(2))

    assert first["omitted"] == again["omitted"] == ids(LONG[0])
