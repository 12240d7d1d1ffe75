"""What staff do from the log: revoke keys, stop answers; who may only look does neither."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from chat.models import ApiKey, Response
from tests.chat.rows import answered, ask, left_behind
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import eventually

LIST = "/admin/chat/response/"
KEYS = "/admin/chat/apikey/"


def revoke(*keys: ApiKey, **more: str) -> dict[str, object]:
    """The form that revokes these keys."""
    return {"action": "revoke", "_selected_action": [str(key.pk) for key in keys], **more}


def notes(row: object) -> list[tuple[str, str]]:
    """What was done to a row in the admin, and by whom."""
    entries = LogEntry.objects.filter(object_id=str(row.pk)).order_by("pk")
    return [(entry.user.username, entry.get_change_message()) for entry in entries]


def test_keys_are_revoked_together_and_never_deleted(administrator, user):
    kept, taken = ApiKey.issue(user=user, name="kept")[0], ApiKey.issue(user=user, name="taken")[0]
    answer = administrator.post(KEYS, revoke(taken, confirmed="yes"), follow=True)

    assert b"1 key revoked." in answer.content
    kept.refresh_from_db()
    taken.refresh_from_db()
    assert kept.revoked_at is None
    assert taken.revoked_at is not None
    assert administrator.get(f"/admin/chat/apikey/{taken.pk}/delete/").status_code == 403


def test_revoking_is_asked_about_first(administrator, user):
    key, _ = ApiKey.issue(user=user, name="the laptop")
    page = administrator.post(KEYS, revoke(key))

    assert b"Revoke these keys?" in page.content
    assert b"the laptop" in page.content
    key.refresh_from_db()
    assert (key.revoked_at, notes(key)) == (None, [])


def test_who_revoked_a_key_is_noted_once(administrator, user):
    key, _ = ApiKey.issue(user=user)
    administrator.post(KEYS, revoke(key, confirmed="yes"))
    again = administrator.post(KEYS, revoke(key, confirmed="yes"), follow=True)

    assert b"revoked already" in again.content
    assert notes(key) == [("root", "Revoked.")]
    assert b"Revoked." in administrator.get(f"/admin/chat/apikey/{key.pk}/history/").content


def test_who_may_only_look_revokes_nothing(user):
    key, _ = ApiKey.issue(user=user)
    user.is_staff = True
    user.save()
    user.user_permissions.add(Permission.objects.get(codename="view_apikey"))
    browser = Client()
    browser.force_login(user)
    assert browser.get("/admin/chat/apikey/").status_code == 200
    browser.post("/admin/chat/apikey/", revoke(key, confirmed="yes"))

    key.refresh_from_db()
    assert key.revoked_at is None


def stop_all(browser: Client) -> CaptureQueriesContext:
    """Stop whatever the log has; the queries that it took."""
    chosen = Response.objects.values_list("pk", flat=True)[:1]
    action = {"action": "stop", "_selected_action": list(chosen), "select_across": "1"}
    with CaptureQueriesContext(connection) as queries:
        browser.post(LIST, action)
    return queries


def test_staff_stop_what_is_being_generated(administrator, user, serve):
    turnstile = Turnstile()
    serve(ScriptedEngine("Hello", ", ", "world", gate=turnstile))
    accepted = ask(user)
    turnstile.admit()
    eventually(lambda: accepted.live.text)
    left = left_behind(user, "Hel")
    done = answered(user, "It was said before.")
    stop_all(administrator)
    turnstile.set()

    assert accepted.live.wait(10)
    for response_id, status, text in (
        (accepted.response_id, "stopped", "Hello"),
        (left.pk, "stopped", "Hel"),
        (done.pk, "done", "It was said before."),
    ):
        row = Response.objects.get(pk=response_id)
        assert (row.status, row.text) == (status, text)


def test_a_stop_of_the_whole_log_reads_only_what_is_under_way(administrator, user):
    for at in range(3):
        answered(user, f"text {at}")
    left_behind(user, "Hel")
    queries = stop_all(administrator)

    read = [query["sql"] for query in queries if query["sql"].startswith("SELECT")]
    of_texts = [sql for sql in read if '"chat_response"."text"' in sql]
    assert len(of_texts) == 2, "the row that is stopped, to note it and to name its history"
    assert all("WHERE" in sql for sql in of_texts)
    assert Response.objects.filter(status="stopped").count() == 1


def test_who_stopped_a_response_is_noted(administrator, user):
    left, done = left_behind(user, "Hel"), answered(user, "It was said before.")
    action = {"action": "stop", "_selected_action": [str(left.pk), str(done.pk)]}
    answer = administrator.post(LIST, action, follow=True)

    assert b"1 response stopped." in answer.content
    assert notes(left) == [("root", "Stopped.")]
    assert notes(done) == []
    assert not LogEntry.objects.filter(object_repr__contains="Hel"), "its user may delete it"


def test_to_stop_nothing_is_no_success(administrator, user):
    done = answered(user, "It was said before.")
    action = {"action": "stop", "_selected_action": [str(done.pk)]}
    [message] = administrator.post(LIST, action, follow=True).context["messages"]

    assert message.level_tag == "warning"
    assert "None of the selected responses" in message.message


def test_a_running_responses_page_has_a_button_to_stop_it(administrator, user):
    row = left_behind(user, "Hel")
    page = f"{LIST}{row.pk}/"
    assert f"{page}stop/" in administrator.get(f"{page}change/").content.decode()

    assert b"Stop this response?" in administrator.get(f"{page}stop/").content
    row.refresh_from_db()
    assert row.status == "streaming", "to look at the question stops nothing"
    administrator.post(f"{page}stop/", {"confirmed": "yes"})

    row.refresh_from_db()
    assert row.status == "stopped"
    assert notes(row) == [("root", "Stopped.")]
    assert f"{page}stop/" not in administrator.get(f"{page}change/").content.decode()


def test_to_stop_a_response_leads_back_to_the_list_with_its_filters(administrator, user):
    row = left_behind(user, "Hel")
    kept = urlencode({"_changelist_filters": "status__exact=streaming&user=ada"})
    page = f"{LIST}{row.pk}/"
    [address] = re.findall(
        r'href="([^"]*/stop/[^"]*)"', administrator.get(f"{page}change/?{kept}").content.decode()
    )
    answer = administrator.post(html.unescape(address), {"confirmed": "yes"})

    assert answer.headers["Location"] == f"{page}change/?{kept}"
    row.refresh_from_db()
    assert row.status == "stopped"


def test_what_has_ended_in_between_is_not_stopped(administrator, user):
    done = answered(user, "It was said before.")
    answer = administrator.post(f"{LIST}{done.pk}/stop/", {"confirmed": "yes"}, follow=True)

    assert b"has ended already" in answer.content
    assert notes(done) == []
    assert administrator.get(f"{LIST}nonsense/stop/").status_code == 404


def test_only_what_can_have_a_history_offers_one(administrator, user):
    row = answered(user, "a", api_key=ApiKey.issue(user=user)[0])
    offered = {
        name: b"/history/" in administrator.get(f"/admin/chat/{name}/{pk}/change/").content
        for name, pk in (
            ("response", row.pk),
            ("conversation", row.prompt.conversation_id),
            ("apikey", row.api_key_id),
        )
    }

    assert offered == {"response": True, "conversation": False, "apikey": True}


def test_to_look_is_not_to_stop(user, django_user_model):
    row = left_behind(user, "Hel")
    reviewer = django_user_model.objects.create_user("eve", is_staff=True)
    reviewer.user_permissions.set(Permission.objects.filter(codename="view_response"))
    browser = Client()
    browser.force_login(reviewer)
    stop_all(browser)
    page = f"{LIST}{row.pk}/"

    assert f"{page}stop/" not in browser.get(f"{page}change/").content.decode()
    assert browser.post(f"{page}stop/", {"confirmed": "yes"}).status_code == 403
    row.refresh_from_db()
    assert (row.status, row.stop_requested) == ("streaming", False)


def test_whoever_may_not_be_deleted_is_refused_before_what_they_said_is_read(administrator, user):
    answered(user, "one")
    with CaptureQueriesContext(connection) as asked:
        page = administrator.get(f"/admin/auth/user/{user.pk}/delete/")

    assert "conversation" in page.context["perms_lacking"]
    assert not any('"chat_response"."text"' in query["sql"] for query in asked)


def test_a_person_with_conversations_is_deactivated_and_not_deleted(administrator, user):
    answered(user, "It was said before.")
    address = f"/admin/auth/user/{user.pk}/delete/"

    assert b"permission to delete" in administrator.get(address).content
    assert administrator.post(address, {"post": "yes"}).status_code == 403
    user.refresh_from_db()


def test_more_keys_than_a_form_may_have_fields_are_revoked_in_parts(administrator, user, settings):
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 10
    for _ in range(9):
        ApiKey.issue(user=user)
    for asked, left in (("these 7 first", 2), ("these keys", 0)):
        page = administrator.post(KEYS, revoke(ApiKey.objects.first(), select_across="1"))
        assert f"Revoke {asked}?" in page.content.decode()
        confirmed = administrator.post(KEYS, revoke(*page.context["rows"], confirmed="yes"))
        assert confirmed.status_code == 302
        assert ApiKey.objects.filter(revoked_at=None).count() == left


def just_before(statement: str, deed: Callable[[], object]) -> AbstractContextManager[None]:
    """Do what somebody else does right before the first statement with these words, once."""
    deeds = [deed]

    def watched(execute: Any, sql: str, *rest: Any) -> Any:
        if statement in sql and deeds:
            deeds.pop()()
        return execute(sql, *rest)

    return connection.execute_wrapper(watched)


def test_of_two_who_revoke_a_key_at_once_one_is_noted(administrator, user):
    key, _ = ApiKey.issue(user=user)
    with just_before('SET "revoked_at"', key.revoke):
        answer = administrator.post(KEYS, revoke(key, confirmed="yes"), follow=True)

    assert b"revoked already" in answer.content
    assert notes(key) == []


def test_what_ends_while_it_is_stopped_is_not_noted_as_stopped(administrator, user):
    row = left_behind(user, "Hel")
    action = {"action": "stop", "_selected_action": [str(row.pk)]}
    ended = Response.objects.filter(pk=row.pk)
    with just_before('SET "stop_requested"', lambda: ended.update(status="done")):
        answer = administrator.post(LIST, action, follow=True)

    assert b"None of the selected responses" in answer.content
    assert notes(row) == []
