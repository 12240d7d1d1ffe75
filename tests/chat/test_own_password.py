"""`/password/`: a person changes their own password."""

from __future__ import annotations

import pytest
from django.test import Client

from chat.access.password_turns import MOST_WAITING, PasswordTurns
from chat.models import ApiKey
from chat.views import password

PATH = "/password/"
OLD, NEW = "a long enough secret", "another one, as long"


@pytest.fixture
def browser(user) -> Client:
    """A browser in which ada is signed in."""
    client = Client()
    client.force_login(user)
    return client


def change(client: Client, old: str = OLD, new: str = NEW, again: str = NEW):
    """What the form sends."""
    form = {"old_password": old, "new_password1": new, "new_password2": again}
    return client.post(PATH, form)


def test_who_knows_the_old_one_has_the_new_one_and_stays(browser, user):
    answer = change(browser)
    user.refresh_from_db()

    assert (answer.status_code, answer["Location"]) == (302, "/")
    assert user.check_password(NEW)
    assert browser.get("/").status_code == 200


def test_other_sessions_end_and_keys_go_on(browser, user, client_for, engine):
    elsewhere, key = Client(), ApiKey.issue(user=user)[1]
    elsewhere.force_login(user)
    change(browser)

    assert elsewhere.get("/").status_code == 302
    assert client_for(key).get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"old": "wrong"}, "Your old password was entered incorrectly"),
        ({"again": "a third one"}, "The two password fields didn’t match."),
        ({"new": "short", "again": "short"}, "at least 8 characters"),
        ({"new": "password", "again": "password"}, "too common"),
        ({"old": ""}, "This field is required."),
    ],
)
def test_what_is_wrong_is_said_and_nothing_changes(browser, user, given, sentence):
    page = change(browser, **given).content.decode()
    user.refresh_from_db()

    assert sentence in page.replace("&#x27;", "’")
    assert user.check_password(OLD)


def test_a_wrong_old_one_is_as_slow_as_at_the_log_in(browser, monkeypatch):
    slept: list[float] = []
    turns = PasswordTurns(clock=iter(range(100)).__next__, sleep=slept.append)
    monkeypatch.setattr(password, "password_turns", turns)
    for _ in range(2):
        change(browser, old="wrong")

    assert slept == [0.0, 4.0 - 1]


def test_too_many_at_once_are_told_to_come_again(browser, user, monkeypatch):
    turns = PasswordTurns()
    monkeypatch.setattr(password, "password_turns", turns)
    for other in range(MOST_WAITING + 1):
        turns._places.enter(str(other))

    assert "Try again in a few seconds" in change(browser).content.decode()
    user.refresh_from_db()
    assert user.check_password(OLD)


@pytest.mark.parametrize("method", ["get", "post"])
def test_the_admin_leads_to_the_same_page(administrator, method):
    root = {"old_password": "secret", "new_password1": NEW, "new_password2": NEW}
    answer = getattr(administrator, method)("/admin/password_change/", root)

    assert (answer.status_code, answer["Location"].partition("?")[0]) == (302, PATH)
    assert b"/admin/password_change/" in administrator.get("/admin/").content, "its link"


def test_who_is_not_signed_in_is_asked_to(db):
    assert change(Client())["Location"] == f"/login/?next={PATH}"
