"""A conversation is a tree: asking again and editing make siblings, and nothing is overwritten."""

from __future__ import annotations

import threading
import uuid

import httpx
import pytest

from chat.models import Conversation, Prompt, Response
from tests.chat.refusals import named
from tests.chat.rows import answered, carried_elsewhere, clock_set_back
from tests.fakes import ScriptedEngine
from tests.web import eventually, stream, text_of

MESSAGE = "/chat/new/message/"


def ask(api: httpx.Client, prompt: str, conversation: str | None = None) -> dict:
    """A prompt behind the newest answer."""
    return api.post(MESSAGE, json={"prompt": prompt, "conversation": conversation}).json()


def again(api: httpx.Client, prompt: Prompt, **body) -> httpx.Response:
    """One more response to a prompt."""
    return api.post(f"/api/prompts/{prompt.pk}/responses/", json=body)


def branch(api: httpx.Client, conversation: str, prompt: str, **body) -> httpx.Response:
    """A prompt inside a conversation."""
    body = {"prompt": prompt, **body}
    return api.post(f"/api/conversations/{conversation}/prompts/", json=body)


def shown(api: httpx.Client, conversation: str) -> dict:
    """The conversation with its tree and path."""
    return api.get(f"/api/conversations/{conversation}/").json()


def texts(path: list[dict]) -> list[str]:
    """What a path says."""
    return [turn["content"] for turn in path]


def test_asking_again_makes_a_sibling_and_overwrites_nothing(api, serve):
    serve(ScriptedEngine("One"))
    first = ask(api, "Say it")
    before = Response.objects.filter(pk=first["message_id"]).values().get()
    serve(ScriptedEngine("Two"))
    prompt = Prompt.objects.get()
    answer = again(api, prompt)

    assert answer.status_code == 201
    second = answer.json()
    assert (second["response"], second["conversation"]) == ("Two", first["conversation"])
    assert second["history"][0] == {"role": "user", "content": "Say it"}
    assert Prompt.objects.count() == 1
    assert Response.objects.filter(pk=first["message_id"]).values().get() == before
    assert [row.text for row in prompt.responses.order_by("created_at")] == ["One", "Two"]
    assert Response.objects.get(pk=second["message_id"]).surface == "regenerate"


def test_each_try_has_a_sampling_of_its_own(api, engine):
    ask(api, "Say it")
    answer = again(api, Prompt.objects.get(), seed=9, temperature=0.5, max_tokens=3, stop=["!"])

    row = Response.objects.get(pk=answer.json()["message_id"])
    assert (row.seed, row.temperature, row.max_tokens, row.stop) == (9, 0.5, 3, ["!"])
    assert row.text == "Hel"


def test_asking_again_can_be_streamed(api, engine):
    ask(api, "Say it")
    path = f"/api/prompts/{Prompt.objects.get().pk.hex}/responses/"

    assert text_of(stream(api, "POST", path, json={"stream": True})) == "Hello, world"


def test_asking_again_in_the_middle_shows_the_model_what_was_before(api, user, engine):
    history = [{"role": "user", "content": "Zero"}, {"role": "assistant", "content": "0"}]
    body = {"prompt": "One", "history": [*history, {"role": "user", "content": "By the way"}]}
    first = api.post(MESSAGE, json=body).json()
    ask(api, "Two", first["conversation"])
    again(api, Prompt.objects.get(content="One"))

    assert engine.prompts[2] == engine.prompts[0]
    assert engine.prompt_text().endswith("user: By the way\nuser: One\n")


def test_two_tries_at_once_are_two_siblings(client_for, key, user, serve, gate):
    serve(ScriptedEngine(gate=gate))
    prompt = answered(user, "One").prompt
    answers: list[httpx.Response] = []

    def work() -> None:
        answers.append(again(client_for(key), prompt))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    eventually(lambda: Response.objects.count() == 3)
    gate.set()
    for thread in threads:
        thread.join(20)

    assert [answer.status_code for answer in answers] == [201, 201]
    assert prompt.responses.count() == 3


def test_the_next_prompt_follows_the_newest_try(api, engine):
    first = ask(api, "One")
    second = again(api, Prompt.objects.get()).json()
    third = ask(api, "Two", first["conversation"])

    assert Prompt.objects.get(content="Two").follows_id.hex == second["message_id"]
    assert third["conversation"] == first["conversation"]


def test_after_a_clock_was_set_back_the_next_prompt_still_follows_the_newest_answer(api, engine):
    conversation = ask(api, "One")["conversation"]
    clock_set_back()
    ask(api, "Two", conversation)
    ask(api, "Three", conversation)

    assert Prompt.objects.get(content="Three").follows.prompt.content == "Two"
    said = texts(shown(api, conversation)["path"])
    assert said[::2] == ["One", "Two", "Three"]


def test_after_a_clock_was_set_back_the_newest_try_is_still_the_newest(api, engine):
    first = ask(api, "One")
    clock_set_back()
    second = again(api, Prompt.objects.get()).json()
    ask(api, "Two", first["conversation"])

    assert Prompt.objects.get(content="Two").follows_id.hex == second["message_id"]


def test_the_tools_of_a_prompt_stay_its_tools(api, engine):
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    body = {"messages": [{"role": "user", "content": "Rain?"}], "tools": [tool]}
    assert api.post("/v1/chat/completions", json=body).status_code == 200
    before = engine.tools
    engine.tools = ()
    again(api, Prompt.objects.get())

    assert before
    assert engine.tools == before
    one, two = Response.objects.all()
    assert one.tools == two.tools


def test_what_a_tool_said_is_asked_again_as_what_a_tool_said(api, user, engine):
    prompt = answered(user, "It is warm.", prompt='{"t": 22}').prompt
    Prompt.objects.update(role="tool")

    assert again(api, prompt).status_code == 201
    assert engine.prompt_text() == 'tool: {"t": 22}\n'


@pytest.mark.parametrize(
    ("body", "field"),
    [({"prompt": "x"}, "prompt"), ({"temperature": 3}, "temperature"), ({"stream": 1}, "stream")],
)
def test_what_cannot_be_asked_again_is_refused_by_name(api, user, engine, body, field):
    prompt = answered(user, "One").prompt_id
    answer = api.post(f"/api/prompts/{prompt}/responses/", json=body)

    assert answer.status_code == 400
    assert named(answer) == ("invalid_request", field)


def test_a_prompt_without_text_cannot_be_answered_again(api, user, engine):
    row = answered(user, "How can I help?", prompt="")
    for prompt in (row.prompt, Prompt(pk=uuid.uuid4())):
        assert again(api, prompt).status_code == 404


def test_an_edit_is_a_sibling_of_what_it_replaces(api, engine):
    first = ask(api, "One")
    conversation = first["conversation"]
    ask(api, "Two", conversation)
    before = list(Response.objects.order_by("created_at").values())
    edited = branch(api, conversation, "Zwei", follows=first["message_id"])

    assert edited.status_code == 201
    assert texts(edited.json()["history"]) == ["One", "Hello, world", "Zwei", "Hello, world"]
    assert engine.prompt_text() == "user: One\nassistant: Hello, world\nuser: Zwei\n"
    two, zwei = Prompt.objects.get(content="Two"), Prompt.objects.get(content="Zwei")
    assert two.follows == zwei.follows
    assert list(Response.objects.order_by("created_at").values())[:2] == before


def test_an_edit_of_the_first_prompt_follows_nothing(api, engine):
    conversation = ask(api, "One")["conversation"]
    ask(api, "Two", conversation)
    edited = branch(api, conversation, "Eins", follows=None)

    assert texts(edited.json()["history"]) == ["Eins", "Hello, world"]
    assert engine.prompt_text() == "user: Eins\n"
    assert Prompt.objects.get(content="Eins").follows is None
    assert Conversation.objects.count() == 1


def test_without_follows_a_prompt_goes_behind_the_newest_answer(api, engine):
    conversation = ask(api, "One")["conversation"]
    eins = branch(api, conversation, "Eins", follows=None).json()
    branch(api, conversation, "Zwei")

    assert Prompt.objects.get(content="Zwei").follows_id.hex == eins["message_id"]


def test_an_edit_need_not_wait_for_another_branch(api, user, engine):
    row = answered(user, "One")
    conversation = row.prompt.conversation
    carried_elsewhere(user, conversation=conversation, follows=row)

    assert branch(api, conversation.pk, "Next").status_code == 409
    assert branch(api, conversation.pk, "Next", follows=row.pk.hex).status_code == 201


def test_an_answer_that_is_not_finished_cannot_be_followed(api, user, engine):
    row = carried_elsewhere(user, "Hel")
    answer = branch(api, row.prompt.conversation_id, "Next", follows=str(row.pk))

    assert (answer.status_code, named(answer)[0]) == (409, "conversation_busy")
    assert int(answer.headers["Retry-After"]) > 0
    assert Prompt.objects.count() == 1


@pytest.mark.parametrize("status", ["stopped", "interrupted"])
def test_half_an_answer_can_be_followed(api, user, engine, status):
    row = answered(user, "Hel", status=status)
    answer = branch(api, row.prompt.conversation_id, "Go on", follows=str(row.pk))

    assert answer.status_code == 201
    assert engine.prompt_text() == "user: Hi\nassistant: Hel\nuser: Go on\n"


def test_only_an_answer_of_the_conversation_can_be_followed(api, user, other, engine):
    row = answered(user, "One")
    inside = row.prompt.conversation
    strangers = [
        answered(user, "In another conversation"),
        answered(other, "Theirs"),
        answered(user, "", conversation=inside, status="failed"),
        Response(pk=uuid.uuid4()),
    ]
    before = Prompt.objects.count()
    for stranger in strangers:
        answer = branch(api, inside.pk, "Next", follows=str(stranger.pk))
        assert (answer.status_code, *named(answer)) == (400, "invalid_request", "follows")
        assert "Theirs" not in answer.text
    assert Prompt.objects.count() == before


@pytest.mark.parametrize("follows", ["", "x", 7, True, [], {}, "0" * 31], ids=repr)
def test_what_is_no_id_cannot_be_followed(api, user, engine, follows):
    answer = branch(api, answered(user, "One").prompt.conversation_id, "Next", follows=follows)

    assert (answer.status_code, *named(answer)) == (400, "invalid_request", "follows")
