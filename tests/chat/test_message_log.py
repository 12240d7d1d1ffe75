"""`GET /chat/get/messages/`: the caller's prompts and responses, newest first."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest

from chat.models import Conversation, Prompt, Response

URL = "/chat/get/messages/"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def asked(user, text: str, *, at: datetime = NOON, **columns) -> Response:
    """A stored response to a stored prompt."""
    conversation = columns.pop("conversation", None) or Conversation.objects.create(user=user)
    prompt = Prompt.objects.create(conversation=conversation, content=text, created_at=at)
    values = {"status": Response.Status.DONE, "text": text.upper(), "created_at": at, **columns}
    return Response.objects.create(prompt=prompt, user=user, **values)


def test_an_entry_says_what_was_asked_and_what_was_answered(api, engine):
    answer = api.post("/chat/new/message/", json={"prompt": "Say it"}).json()
    [entry] = api.get(URL).json()["results"]

    row = Response.objects.get()
    assert entry.pop("created_at").startswith(f"{row.created_at:%Y-%m-%dT%H:%M:%S}")
    assert entry.pop("finished_at").startswith(f"{row.finished_at:%Y-%m-%dT%H:%M:%S}")
    assert entry == {
        "message_id": answer["message_id"],
        "conversation": answer["conversation"],
        "prompt": "Say it",
        "response": "Hello, world",
        "status": "done",
        "finish_reason": "stop",
        "error": "",
        "model": "scripted-model",
        "imported": False,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": 13,
    }


def test_pages_have_no_gaps_and_no_repeats_while_rows_are_added(api, user):
    # Some share their time of creation, as imported rows can.
    rows = [asked(user, f"old {at}", at=NOON + timedelta(seconds=at // 3)) for at in range(12)]
    seen, address = [], f"{URL}?page_size=5"
    while address:
        page = api.get(address).json()
        seen += [entry["message_id"] for entry in page["results"]]
        asked(user, "new", at=NOON + timedelta(hours=1, seconds=len(seen)))
        address = page["next"]

    expected = sorted(rows, key=lambda row: (row.created_at, row.pk), reverse=True)
    assert seen == [row.pk.hex for row in expected]


def test_a_page_leads_back_to_the_one_before(api, user):
    for at in range(4):
        asked(user, str(at), at=NOON + timedelta(seconds=at))
    first = api.get(f"{URL}?page_size=2").json()
    second = api.get(first["next"]).json()

    assert [entry["prompt"] for entry in second["results"]] == ["1", "0"]
    assert api.get(second["previous"]).json()["results"] == first["results"]


def test_only_own_rows_are_shown(api, other_api, user, other):
    asked(user, "mine")
    theirs = asked(other, "theirs")

    assert [entry["prompt"] for entry in api.get(URL).json()["results"]] == ["mine"]
    filtered = api.get(URL, params={"conversation": str(theirs.prompt.conversation_id)})
    assert filtered.json()["results"] == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"since": "2026-11-21T13:00:00Z"}, ["third", "second"]),
        ({"since": "2026-11-21T15:00:00+02:00"}, ["third", "second"]),
        ({"until": "2026-11-21T13:00:00Z"}, ["first"]),
        ({"since": "2026-11-21T13:00:00Z", "until": "2026-11-21T14:00:00Z"}, ["second"]),
        ({"since": "2026-11-22"}, []),
        ({"status": "failed"}, ["second"]),
        ({"status": "interrupted"}, []),
        ({}, ["third", "second", "first"]),
    ],
)
def test_a_filter_narrows_the_list(api, user, query, found):
    asked(user, "first", at=NOON)
    asked(user, "second", at=NOON + timedelta(hours=1), status=Response.Status.FAILED)
    asked(user, "third", at=NOON + timedelta(hours=2))

    assert [entry["prompt"] for entry in api.get(URL, params=query).json()["results"]] == found


def test_the_conversation_filter_takes_its_id_in_both_spellings(api, user):
    conversation = asked(user, "inside").prompt.conversation
    asked(user, "outside")

    for spelling in (str(conversation.pk), conversation.pk.hex):
        [entry] = api.get(URL, params={"conversation": spelling}).json()["results"]
        assert entry["prompt"] == "inside"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("conversation", "7"),
        ("conversation", "\0"),
        ("since", "yesterday"),
        ("since", "2026-13-01T00:00:00Z"),
        ("since", "0001-01-01T00:00:00+14:00"),
        ("until", "9999-12-31T23:59:59-12:00"),
        ("until", "\0"),
        ("status", "finished"),
        ("statuz", "done"),
        ("page", "2"),
        ("page_size", "many"),
        ("page_size", "0"),
        ("page_size", "-1"),
        ("page_size", "9" * 5000),
        ("cursor", "nonsense"),
        ("cursor", b64encode(b"p=yesterday").decode()),
        ("cursor", b64encode(b"p=\0").decode()),
        ("cursor", b64encode(b"p=0001-01-01 00:00:00%2B14:00").decode()),
        ("cursor", b64encode(b"o=-1").decode()),
        ("cursor", b64encode(b"o=" + b"9" * 5000).decode()),
        ("cursor", "é"),
    ],
)
def test_a_bad_parameter_is_refused_by_name(api, user, name, value):
    asked(user, "mine")
    answer = api.get(URL, params={name: value})

    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [name]
    assert answer.json()["code"] == "invalid_request"


@pytest.mark.parametrize("zone", ["-23:59", "%2B23:59", "Z", ""])
def test_a_cursor_may_be_in_any_zone(api, user, zone):
    asked(user, "mine", at=NOON)
    cursor = b64encode(f"p=3000-01-01 00:00:00{zone}".encode()).decode()

    [entry] = api.get(URL, params={"cursor": cursor}).json()["results"]
    assert entry["prompt"] == "mine"


def test_a_page_is_at_most_so_large(api, user):
    for at in range(3):
        asked(user, str(at), at=NOON + timedelta(seconds=at))

    assert len(api.get(URL, params={"page_size": 200}).json()["results"]) == 3
    refused = api.get(URL, params={"page_size": 201})
    assert list(refused.json()["errors"]) == ["page_size"]


def test_the_list_takes_the_same_number_of_queries_for_any_number_of_rows(
    user, engine, rf, django_assert_max_num_queries
):
    from rest_framework.test import APIClient

    for at in range(20):
        asked(user, str(at), at=NOON + timedelta(seconds=at))
    client = APIClient()
    client.force_authenticate(user)
    with django_assert_max_num_queries(2):
        assert len(client.get(URL).json()["results"]) == 20
