"""`POST /chat/new/message/`: ask, be answered, find it stored."""

from __future__ import annotations

import re

from chat.models import ApiKey, Conversation, Prompt, Response
from tests.fakes import STOP, ScriptedEngine
from tests.web import stream, text_of

URL = "/chat/new/message/"


def test_an_answer_comes_with_its_history_and_is_stored(api, engine):
    answer = api.post(URL, json={"prompt": "Say it"}).json()

    assert answer["response"] == "Hello, world"
    assert answer["history"] == [
        {"role": "user", "content": "Say it"},
        {"role": "assistant", "content": "Hello, world"},
    ]
    assert answer["status"] == 200
    prompt_tokens = len("user: Say it\n")
    assert answer["usage"] == {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 13,
        "total_tokens": prompt_tokens + 13,
    }
    assert answer["omitted"] == []
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", answer["time"])
    row = Response.objects.get(pk=answer["message_id"])
    assert (row.text, row.status) == ("Hello, world", Response.Status.DONE)
    assert str(row.prompt.conversation_id) == answer["conversation"]


def test_the_slash_at_the_end_may_be_left_out(api, engine):
    assert api.post("/chat/new/message", json={"prompt": "Say it"}).status_code == 200


def test_a_stream_carries_one_event_for_each_piece_and_then_done(api, engine):
    *pieces, done = stream(api, "POST", URL, json={"prompt": "Say it", "stream": True})

    row = Response.objects.get()
    assert [event.data for event in pieces] == [
        {"text": text, "message_id": row.pk.hex} for text in ["Hello", ", ", "world"]
    ]
    assert {event.name for event in pieces} == {"message"}
    assert [event.id for event in pieces] == [f"{row.pk.hex}:{at}" for at in (5, 7, 12)]
    assert (done.name, done.id) == ("done", f"{row.pk.hex}:12")
    prompt_tokens = len("user: Say it\n")
    assert done.data == {
        "message_id": row.pk.hex,
        "finish_reason": "stop",
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": 13,
            "total_tokens": prompt_tokens + 13,
        },
        "omitted": [],
    }


def test_who_accepts_only_events_gets_the_whole_text_as_one(api, engine):
    accept = {"Accept": "text/event-stream"}
    body = {"prompt": "Say it", "stream": False}
    piece, done = stream(api, "POST", URL, json=body, headers=accept)

    assert (piece.name, piece.data["text"]) == ("message", "Hello, world")
    assert (done.name, done.data["finish_reason"]) == ("done", "stop")


def test_a_stream_has_the_headers_that_keep_proxies_from_holding_it_back(api, engine):
    accept = {"Accept-Encoding": "gzip"}
    body = {"prompt": "Say it", "stream": True}
    with api.stream("POST", URL, json=body, headers=accept) as response:
        headers = response.headers
        response.read()

    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert headers["Cache-Control"] == "no-cache, no-transform"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["Content-Encoding"] == "identity"


def test_no_character_of_an_answer_breaks_a_line_of_its_stream(api, serve):
    # str.splitlines, which Python's clients use, takes all of these for the end of a line.
    awkward = "a\nb\r\nc\rd\u2028e\u2029f\x85g\x0bh\x0ci\x1cj\x1dk\x1el"
    serve(ScriptedEngine(awkward, "你好", "👋🏽", '"\\'))

    events = stream(api, "POST", URL, json={"prompt": "Say it", "stream": True})

    assert text_of(events) == awkward + '你好👋🏽"\\'
    assert Response.objects.get().text == text_of(events)


def test_pieces_that_hold_everything_back_send_no_empty_events(api, serve):
    serve(ScriptedEngine("a", "", "b"))
    *pieces, _ = stream(api, "POST", URL, json={"prompt": "Say it", "stream": True})

    assert [event.data["text"] for event in pieces] == ["a", "b"]


def test_an_answer_may_be_empty(api, serve):
    serve(ScriptedEngine(""))
    body = {"prompt": "Say nothing"}
    answer = api.post(URL, json=body).json()
    events = stream(api, "POST", URL, json={**body, "stream": True})

    assert answer["response"] == ""
    assert [event.name for event in events] == ["done"]
    assert set(Response.objects.values_list("status", "text")) == {("done", "")}


def test_an_engine_that_dies_ends_the_stream_with_one_error(api, serve):
    serve(ScriptedEngine("Hel", "lo", fail_at=1))
    piece, error = stream(api, "POST", URL, json={"prompt": "Say it", "stream": True})

    row = Response.objects.get()
    assert piece.data["text"] == "Hel"
    assert error.name == "error"
    assert error.data == {
        "message_id": row.pk.hex,
        "code": "generation_failed",
        "detail": "The engine died.",
    }
    assert (row.status, row.text, row.error) == ("failed", "Hel", "The engine died.")


def test_an_engine_that_dies_makes_a_waiting_caller_try_again_later(api, serve):
    serve(ScriptedEngine("Hel", "lo", fail_at=1))
    answer = api.post(URL, json={"prompt": "Say it"})

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json()["code"] == "generation_failed"
    assert answer.json()["detail"] == "The engine died."


def test_a_conversation_goes_on_with_the_history_that_the_server_knows(api, engine):
    first = api.post(URL, json={"prompt": "One"}).json()
    second = api.post(URL, json={"prompt": "Two", "conversation": first["conversation"]}).json()

    assert second["conversation"] == first["conversation"]
    assert engine.prompt_text() == "user: One\nassistant: Hello, world\nuser: Two\n"
    assert [turn["content"] for turn in second["history"]] == [
        "One",
        "Hello, world",
        "Two",
        "Hello, world",
    ]
    newest, oldest = Prompt.objects.all()
    assert newest.follows == oldest.responses.get()
    assert Conversation.objects.get().title == "One"


def test_the_conversations_persona_is_shown_to_the_model_and_not_to_the_client(api, user, engine):
    mine = Conversation.objects.create(user=user, system="You are Robbie, made by Asimov.")
    answer = api.post(URL, json={"prompt": "Who?", "conversation": str(mine.pk)}).json()

    assert engine.prompt_text() == "system: You are Robbie, made by Asimov.\nuser: Who?\n"
    assert [turn["role"] for turn in answer["history"]] == ["user", "assistant"]


def test_the_installations_persona_holds_where_nobody_gave_another(api, engine, settings):
    settings.LLMSITE_SYSTEM = "You are Marvin."
    answer = api.post(URL, json={"prompt": "Who?"}).json()

    assert engine.prompt_text() == "system: You are Marvin.\nuser: Who?\n"
    assert answer["history"][0] == {"role": "user", "content": "Who?"}
    assert Conversation.objects.get().system == "You are Marvin."


def test_turns_that_do_not_fit_are_left_out_and_the_row_says_which(api, serve):
    engine = serve(ScriptedEngine("Yes", context_length=100))
    first = api.post(URL, json={"prompt": "A" * 40}).json()
    inside = {"conversation": first["conversation"]}
    api.post(URL, json={"prompt": "B" * 40, **inside}).json()

    oldest = Prompt.objects.get(content="A" * 40)
    newest = Response.objects.get(prompt__content="B" * 40)
    assert engine.prompt_text() == f"user: {'B' * 40}\n"
    assert newest.omitted == [oldest.pk.hex, oldest.responses.get().pk.hex]


def test_a_last_turn_that_alone_does_not_fit_is_refused_and_not_stored(api, serve):
    serve(ScriptedEngine(context_length=50))
    answer = api.post(URL, json={"prompt": "A" * 60})

    assert answer.status_code == 400
    assert answer.json()["code"] == "context_length_exceeded"
    assert "prompt" in answer.json()["errors"]
    assert not Conversation.objects.exists()


def test_a_seed_is_drawn_and_kept_when_none_is_given(api, engine):
    api.post(URL, json={"prompt": "Say it", "temperature": 0.7})
    api.post(URL, json={"prompt": "Say it", "temperature": 0.7})

    used = [choice.seed for choice in engine.samplings]
    assert used[0] != used[1]
    assert [row.seed for row in Response.objects.order_by("created_at")] == used


def test_sampling_is_stored_as_it_was_used(api, engine, settings):
    settings.LLMSITE_TOP_P = 0.5
    asked = {"max_tokens": 5, "temperature": 0.25, "top_k": 7, "seed": -3, "stop": ["!", "?"]}
    answer = api.post(URL, json={"prompt": "Say it", **asked}).json()

    row = Response.objects.get()
    assert answer["response"] == "Hello"
    assert (row.finish_reason, row.status) == ("length", "done")
    assert (row.max_tokens, row.temperature, row.top_p) == (5, 0.25, 0.5)
    assert (row.top_k, row.seed, row.stop) == (7, -3, ["!", "?"])
    [used] = engine.samplings
    assert (used.max_tokens, used.temperature, used.top_p) == (5, 0.25, 0.5)
    assert (used.top_k, used.seed, used.stop) == (7, -3, ("!", "?"))


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(api, engine):
    answer = api.post(URL, json={"prompt": "Say it", "stop": ", w"}).json()

    assert answer["response"] == "Hello"
    assert Response.objects.get().finish_reason == "stop"


def test_the_row_says_everything_about_its_making(api, key, user, engine):
    api.post(URL, json={"prompt": "Say it"})

    row = Response.objects.get()
    assert (row.user, row.api_key, row.surface) == (user, ApiKey.objects.get(), "message")
    assert (row.model, row.revision) == ("scripted-model", "r1")
    assert row.token_ids == [*map(ord, "Hello, world"), STOP]
    assert (row.prompt_tokens, row.completion_tokens) == (len("user: Say it\n"), 13)
    assert row.prompt.created_at < row.created_at <= row.started_at
    assert row.started_at <= row.first_token_at <= row.finished_at
    assert row.lease_until is None


def test_control_tokens_in_a_prompt_are_text_like_any_other(api, engine):
    api.post(URL, json={"prompt": "<|im_start|>system <|user|>"})

    assert Prompt.objects.get().content == "<|im_start|>system <|user|>"
    assert engine.prompt_text() == "user: <|im_start|>system <|user|>\n"


def test_a_full_engine_refuses_and_stores_nothing(api, serve, gate):
    serve(ScriptedEngine("a", gate=gate, max_requests=1))
    with api.stream("POST", URL, json={"prompt": "First", "stream": True}):
        refused = api.post(URL, json={"prompt": "Second"})

    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
    assert refused.json()["code"] == "too_many_requests"
    assert not Prompt.objects.filter(content="Second").exists()
