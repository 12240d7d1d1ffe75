"""Staff take responses out of the log, if they may, and that is noted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user
from django.contrib.auth.models import Permission
from django.test import Client

from chat.limits.admission import caller_of
from chat.limits.readers import scanners
from chat.models import Response, Verdict
from tests.chat.rows import answered

LIST = "/admin/chat/response/"


@pytest.fixture
def rows(user, other) -> list[Response]:
    """Two responses, one of them judged."""
    rows = [answered(user, "Paris."), answered(other, "Rome.")]
    Verdict.objects.create(response=rows[0], reviewer=other, value="good")
    return rows


def staff(django_user_model: Any, *permissions: str) -> Client:
    """A browser of somebody who may do this much."""
    person = django_user_model.objects.create_user("eve", is_staff=True)
    person.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    browser = Client()
    browser.force_login(person)
    return browser


def take(browser: Client, action: str, *rows: Response, query: str = "", **more: str) -> Any:
    """Carry out the action on these rows."""
    form = {"action": action, "_selected_action": [str(row.pk) for row in rows], **more}
    return browser.post(f"{LIST}?{query}", {"select_across": "0", **form})


def lines(answer: Any) -> list[Any]:
    """What the file holds."""
    return [json.loads(line) for line in answer.getvalue().decode().splitlines()]


def test_selected_responses_are_a_file_with_their_verdicts(administrator, rows):
    answer = take(administrator, "download_records", rows[0])

    [line] = lines(answer)
    assert (line["response"]["text"], line["verdicts"][0]["value"]) == ("Paris.", "good")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="records.jsonl"'


@pytest.mark.parametrize(
    ("action", "key"),
    [("download_messages", "messages"), ("download_conversations", "conversations")],
)
def test_each_format_has_its_action(administrator, rows, action, key):
    answer = take(administrator, action, *rows)

    assert [line[key][-1]["content"] for line in lines(answer)] == ["Paris.", "Rome."]


def test_everything_that_the_filters_leave_can_be_taken(administrator, rows):
    answer = take(
        administrator, "download_records", rows[0], query="user=ada&verdict=good", select_across="1"
    )

    assert [line["user"] for line in lines(answer)] == ["ada"]
    [note] = LogEntry.objects.all()
    assert note.get_change_message() == "Downloaded as records: all with user=ada, verdict=good."


def test_a_batch_is_a_few_queries_however_many_rows_it_has(
    administrator, user, django_assert_max_num_queries
):
    for at in range(20):
        row = answered(user, f"text {at}", token_ids=[at], tools=[{"name": "weather"}])

    with django_assert_max_num_queries(16):
        told = lines(take(administrator, "download_records", row, select_across="1"))
    assert [line["response"]["token_ids"] for line in told] == [[at] for at in range(20)]


def test_who_took_what_is_noted_without_the_words_that_were_looked_for(administrator, rows):
    take(administrator, "download_messages", *rows, query="q=Paris", select_across="1")
    take(administrator, "download_records", *rows)

    notes = [(note.user.username, note.get_change_message()) for note in LogEntry.objects.all()]
    assert set(notes) == {
        ("root", "Downloaded as messages: all that a search found."),
        ("root", "Downloaded as records: 2 of a page."),
    }


def test_who_reads_as_many_as_one_may_is_told_so(administrator, rows, settings):
    caller = caller_of(None, get_user(administrator).pk)
    leave = [scanners.enter(caller) for _ in range(settings.LLMSITE_MAX_SCANS_PER_CALLER)]
    refused = take(administrator, "download_records", *rows)
    page = administrator.get(refused.url).content.decode()
    for left in leave:
        left()

    assert "One caller may have 4 exports and searches open at once." in page
    assert not LogEntry.objects.exists()
    assert len(lines(take(administrator, "download_records", *rows))) == 2


def test_who_may_only_look_takes_nothing(django_user_model, rows):
    browser = staff(django_user_model, "view_response")
    page = browser.get(LIST).content

    assert b"download_records" not in page
    answer = take(browser, "download_records", *rows)
    assert not answer.streaming, "the list again"
    assert not LogEntry.objects.exists()


def test_who_may_take_the_log_does(django_user_model, rows):
    browser = staff(django_user_model, "view_response", "export_response")

    assert b"download_records" in browser.get(LIST).content
    assert len(lines(take(browser, "download_records", *rows))) == 2


def test_who_took_what_is_a_list_for_those_who_may_see_it(administrator, django_user_model, rows):
    take(administrator, "download_records", *rows)
    actions = "/admin/admin/logentry/"
    page = administrator.get(actions).content.decode()

    assert "Downloaded as records: 2 of a page." in page
    assert administrator.get(f"{actions}?user=root").context["cl"].result_count == 1
    assert administrator.get(f"{actions}?user=eve").context["cl"].result_count == 0
    assert administrator.get(f"{actions}add/").status_code == 403
    assert staff(django_user_model, "view_response").get(actions).status_code == 403


@contextmanager
def all_of_it(server: Any, signed_in: Client, row: Response) -> Iterator[httpx.Response]:
    """The answer to a real browser that downloads everything, as it comes."""
    cookies = {name: morsel.value for name, morsel in signed_in.cookies.items()}
    with httpx.Client(base_url=server.address, cookies=cookies, timeout=20) as browser:
        page = browser.get(LIST)
        token = browser.cookies["csrftoken"]
        form = {"action": "download_records", "select_across": "1"}
        form |= {"_selected_action": str(row.pk), "csrfmiddlewaretoken": token}
        assert page.status_code == 200
        with browser.stream("POST", LIST, data=form) as answer:
            yield answer


@pytest.mark.parametrize("columns", [{"is_staff": False}, {"is_active": False}, {}])
def test_who_may_not_any_more_gets_no_whole_file(
    server, django_user_model, rows, monkeypatch, columns
):
    monkeypatch.setattr("chat.access.rights.SPEAKS_FOR", 0.0)
    for at in range(200):
        answered(rows[0].user, f"text {at} " + "word " * 20_000)
    browser = staff(django_user_model, "view_response", "export_response")

    with all_of_it(server, browser, rows[0]) as answer:
        pieces = answer.iter_bytes()
        next(pieces)
        people = django_user_model.objects.filter(username="eve")
        people.update(**columns) if columns else people.get().user_permissions.clear()
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)


def test_over_a_real_socket_it_is_streamed(server, administrator, rows):
    with all_of_it(server, administrator, rows[0]) as answer:
        answer.read()

    assert [json.loads(line)["user"] for line in answer.text.splitlines()] == ["ada", "bob"]
