"""What is shown of a tree of prompts and responses: all of it without texts, one path with them."""

from __future__ import annotations

import uuid

from chat.models import Prompt
from tests.chat.refusals import named
from tests.chat.rows import answered, carried_elsewhere
from tests.chat.test_tree import again, ask, branch, shown, texts

MESSAGE = "/chat/new/message/"


def test_a_conversation_is_shown_with_its_tree_and_its_path(api, engine):
    one = ask(api, "One")
    conversation = one["conversation"]
    two = ask(api, "Two", conversation)
    zwei = branch(api, conversation, "Zwei", follows=one["message_id"]).json()
    retry = again(api, Prompt.objects.get(content="Zwei")).json()
    body = shown(api, conversation)

    def dashed(answer: dict) -> str:
        return str(uuid.UUID(answer["message_id"]))

    prompts = {row.content: row for row in Prompt.objects.all()}
    assert [(node["id"], node["follows"]) for node in body["tree"]] == [
        (str(prompts["One"].pk), None),
        (str(prompts["Two"].pk), dashed(one)),
        (str(prompts["Zwei"].pk), dashed(one)),
    ]
    assert [node["responses"] for node in body["tree"]] == [
        [{"id": dashed(one), "status": "done"}],
        [{"id": dashed(two), "status": "done"}],
        [{"id": dashed(zwei), "status": "done"}, {"id": dashed(retry), "status": "done"}],
    ]
    assert texts(body["path"]) == ["One", "Hello, world", "Zwei", "Hello, world"]
    assert [turn["role"] for turn in body["path"]] == ["user", "assistant"] * 2
    assert body["path"][2]["prompt"] == str(prompts["Zwei"].pk)
    assert body["path"][3] == {
        "response": dashed(retry),
        "role": "assistant",
        "content": "Hello, world",
        "status": "done",
        "finish_reason": "stop",
        "error": "",
        "omitted": [],
        "tool_calls": [],
    }


def test_the_path_to_any_response_can_be_had(api, engine):
    one = ask(api, "One")
    conversation = one["conversation"]
    two = ask(api, "Two", conversation)
    branch(api, conversation, "Zwei", follows=one["message_id"])

    def path_to(answer: dict) -> list[str]:
        address = f"/api/conversations/{conversation}/"
        body = api.get(address, params={"response": answer["message_id"]}).json()
        assert len(body["tree"]) == 3
        return texts(body["path"])

    assert path_to(two) == ["One", "Hello, world", "Two", "Hello, world"]
    assert path_to(one) == ["One", "Hello, world"]


def test_a_path_leads_to_own_responses_of_the_conversation_only(api, user, other, engine):
    row = answered(user, "One")
    strangers = [answered(user, "Elsewhere").pk, answered(other, "Theirs").pk, uuid.uuid4(), "x"]
    for stranger in strangers:
        address = f"/api/conversations/{row.prompt.conversation_id}/"
        answer = api.get(address, params={"response": str(stranger)})
        assert (answer.status_code, *named(answer)) == (400, "invalid_request", "response")
    assert api.get(address, params={"answer": "x"}).status_code == 400


def test_the_path_shows_what_is_under_way(api, user):
    row = carried_elsewhere(user, "Hel")
    path = shown(api, row.prompt.conversation_id)["path"]

    assert (texts(path), path[-1]["status"]) == (["Hi", "Hel"], "streaming")


def test_a_tree_costs_few_queries(api, user, django_assert_max_num_queries):
    from chat.wire.representations import ConversationTreeSerializer

    row = answered(user, "0")
    conversation = row.prompt.conversation
    for at in range(30):
        row = answered(user, str(at), conversation=conversation, follows=row)
        answered(user, "sibling", conversation=conversation, follows=row)
    with django_assert_max_num_queries(6):
        assert len(ConversationTreeSerializer(conversation).data["tree"]) == 61
