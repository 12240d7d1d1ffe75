"""What staff do from the log: revoke keys, stop answers; who may only look does neither."""

from __future__ import annotations

from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from chat.models import ApiKey, Response
from tests.chat.rows import answered, ask, left_behind
from tests.fakes import ScriptedEngine, Turnstile
from tests.web import eventually

LIST = "/admin/chat/response/"


def test_keys_are_revoked_together_and_never_deleted(administrator, user):
    kept, taken = ApiKey.issue(user=user, name="kept")[0], ApiKey.issue(user=user, name="taken")[0]
    action = {"action": "revoke", "_selected_action": [str(taken.pk)]}
    answer = administrator.post("/admin/chat/apikey/", action, follow=True)

    assert b"1 keys revoked." in answer.content
    kept.refresh_from_db()
    taken.refresh_from_db()
    assert kept.revoked_at is None
    assert taken.revoked_at is not None
    assert administrator.get(f"/admin/chat/apikey/{taken.pk}/delete/").status_code == 403
    assert administrator.get("/admin/chat/apikey/add/").status_code == 403


def test_who_may_only_look_revokes_nothing(user):
    key, _ = ApiKey.issue(user=user)
    user.is_staff = True
    user.save()
    user.user_permissions.add(Permission.objects.get(codename="view_apikey"))
    browser = Client()
    browser.force_login(user)
    action = {"action": "revoke", "_selected_action": [str(key.pk)]}

    assert browser.get("/admin/chat/apikey/").status_code == 200
    browser.post("/admin/chat/apikey/", action)

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
    assert len(of_texts) == 1, "the row that is stopped, to name its history"
    assert Response.objects.filter(status="stopped").count() == 1


def test_to_look_is_not_to_stop(user, django_user_model):
    row = left_behind(user, "Hel")
    reviewer = django_user_model.objects.create_user("eve", is_staff=True)
    reviewer.user_permissions.set(Permission.objects.filter(codename="view_response"))
    browser = Client()
    browser.force_login(reviewer)
    stop_all(browser)

    row.refresh_from_db()
    assert (row.status, row.stop_requested) == ("streaming", False)
