"""The log as staff read it. How it looks in a browser is in test_admin_page.py."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from chat.models import ApiKey, Conversation, Prompt, Response

LIST = "/admin/chat/response/"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>"


def asked(user, said: str, *, at: datetime = NOON, **columns) -> Response:
    """A stored response to a stored prompt."""
    conversation = columns.pop("conversation", None)
    conversation = conversation or Conversation.objects.create(user=user, title=f"About {said}")
    prompt = Prompt.objects.create(
        conversation=conversation, content=said, created_at=at, follows=columns.pop("follows", None)
    )
    values = {"status": Response.Status.DONE, "text": said.upper(), "created_at": at, **columns}
    return Response.objects.create(prompt=prompt, user=user, **values)


def listed(client: Client, query: str = "") -> list[Response]:
    """The rows that the log shows."""
    answer = client.get(f"{LIST}{query}")
    assert answer.status_code == 200, answer.content
    return list(answer.context["cl"].result_list)


def test_the_log_is_newest_first(administrator, user):
    rows = [asked(user, str(at), at=NOON + timedelta(hours=at)) for at in range(3)]

    assert listed(administrator) == rows[::-1]


@pytest.mark.parametrize(
    "spelled", ["capital", "PARIS", "ada", "laptop", "{id}", "{hex}", "{prompt}"]
)
def test_the_log_is_searched_by_words_by_user_by_key_and_by_id(administrator, user, other, spelled):
    key, _ = ApiKey.issue(user=user, name="the laptop's")
    row = asked(user, "the capital", text="It is Paris.", api_key=key)
    asked(other, "nothing", text="of that kind")
    term = spelled.format(id=row.pk, hex=row.pk.hex, prompt=row.prompt_id)

    assert listed(administrator, f"?q={term}") == [row]


def test_the_list_takes_the_same_queries_for_any_number_of_rows(
    administrator, user, django_assert_max_num_queries
):
    key, _ = ApiKey.issue(user=user)
    for at in range(40):
        asked(user, str(at), at=NOON + timedelta(seconds=at), api_key=key)
    administrator.get(LIST)
    with django_assert_max_num_queries(12):
        administrator.get(LIST)


def test_a_row_shows_everything_that_was_stored(administrator, user):
    key, _ = ApiKey.issue(user=user, name="laptop")
    row = asked(
        user,
        "the prompt",
        api_key=key,
        model="some-model",
        seed=987654,
        temperature=0.25,
        prompt_tokens=77,
        completion_tokens=88,
        token_ids=[123456, 7],
        error="an error",
        client={"user": "u-9"},
        first_token_at=NOON + timedelta(seconds=1.5),
        finished_at=NOON + timedelta(seconds=3),
    )
    page = administrator.get(f"{LIST}{row.pk}/change/").content.decode()

    for shown in (
        "the prompt",
        "THE PROMPT",
        "some-model",
        "987654",
        "0.25",
        "77",
        "88",
        "123456",
        "an error",
        "u-9",
        "laptop",
        "1.50 s",
        "3.00 s",
        f"/admin/chat/conversation/{row.prompt.conversation_id}/change/",
    ):
        assert shown in page, shown


def test_a_conversation_reads_as_a_transcript(administrator, user):
    first = asked(user, "first question")
    conversation = first.prompt.conversation
    later = NOON + timedelta(seconds=1)
    second = asked(user, "second question", at=later, conversation=conversation, follows=first)
    prompt = Prompt.objects.get(responses=second)
    prompt.earlier = [{"role": "user", "content": "by the way"}]
    prompt.save()
    page = administrator.get(f"/admin/chat/conversation/{conversation.pk}/change/").content.decode()

    places = [
        page.index(text)
        for text in (
            "first question",
            "FIRST QUESTION",
            "by the way",
            "second question",
            "SECOND QUESTION",
        )
    ]
    assert places == sorted(places)


def test_a_transcript_takes_the_same_queries_for_any_number_of_turns(
    administrator, user, django_assert_num_queries
):
    row = asked(user, "0")
    conversation = row.prompt.conversation
    page = f"/admin/chat/conversation/{conversation.pk}/change/"
    administrator.get(page)
    with CaptureQueriesContext(connection) as alone:
        administrator.get(page)
    for at in range(1, 30):
        moment = NOON + timedelta(seconds=at)
        row = asked(user, str(at), at=moment, conversation=conversation, follows=row)
    with django_assert_num_queries(len(alone)):
        shown = administrator.get(page)
    assert shown.content.count(b'class="assistant"') == 30


def test_text_of_people_and_models_is_shown_as_text(administrator, user):
    row = asked(user, HOSTILE, text=HOSTILE, error=HOSTILE, model=HOSTILE, client={"user": HOSTILE})
    conversation = row.prompt.conversation
    for address in (
        LIST,
        f"{LIST}{row.pk}/change/",
        "/admin/chat/conversation/",
        f"/admin/chat/conversation/{conversation.pk}/change/",
    ):
        page = administrator.get(address).content.decode()
        assert HOSTILE not in page
        assert "&lt;script&gt;alert(1)" in page, address


@pytest.mark.parametrize("model", ["response", "conversation"])
def test_the_record_is_read_only(administrator, user, model):
    row = asked(user, "a")
    pk = row.pk if model == "response" else row.prompt.conversation_id
    change = reverse(f"admin:chat_{model}_change", args=[pk])

    assert administrator.get(reverse(f"admin:chat_{model}_add")).status_code == 403
    assert administrator.get(reverse(f"admin:chat_{model}_delete", args=[pk])).status_code == 403
    assert administrator.post(change, {"text": "changed", "title": "changed"}).status_code == 403
    action = {"action": "delete_selected", "_selected_action": [str(pk)], "post": "yes"}
    administrator.post(reverse(f"admin:chat_{model}_changelist"), action)
    row.refresh_from_db()
    assert (row.text, row.prompt.conversation.title) == ("A", "About a")
    assert b"_save" not in administrator.get(change).content


def test_a_keys_page_shows_no_digest(administrator, user):
    key, secret = ApiKey.issue(user=user)
    page = administrator.get(f"/admin/chat/apikey/{key.pk}/change/").content.decode()

    assert key.prefix in page
    assert key.digest not in page
    assert secret not in page


@pytest.mark.parametrize("model", ["response", "conversation", "apikey"])
def test_who_is_not_staff_sees_nothing(user, model):
    asked(user, "secret words")
    browser = Client()
    browser.force_login(user)
    answer = browser.get(f"/admin/chat/{model}/")

    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/admin/login/")


def test_a_key_opens_no_admin(api, user):
    user.is_staff = user.is_superuser = True
    user.save()
    assert api.get(LIST).status_code == 302


def test_no_duration_is_shown_of_what_began_before_a_clock_was_set_back(administrator, user):
    moments = {"first_token_at": NOON - timedelta(hours=1), "finished_at": NOON}
    row = asked(user, "Hello", **moments)
    page = administrator.get(f"{LIST}{row.pk}/change/").content.decode()

    assert "-3600" not in page
    assert "0.00 s" in page
