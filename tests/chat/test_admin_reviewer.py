"""Staff who may see the log and nothing else: no link of theirs leads where they may not go."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from chat.models import ApiKey, Response
from tests.chat.rows import answered

SEEN = ["view_response", "view_conversation", "view_apikey"]


@pytest.fixture
def row(user) -> Response:
    return answered(user, "It is Paris.", api_key=ApiKey.issue(user=user)[0])


@pytest.fixture
def reviewer(django_user_model):
    """Makes a signed in browser of somebody with these permissions."""

    def make(*names: str) -> Client:
        person = django_user_model.objects.create_user("eve", is_staff=True)
        person.user_permissions.set(Permission.objects.filter(codename__in=names))
        browser = Client()
        browser.force_login(person)
        return browser

    return make


def pages_of(row: Response) -> list[str]:
    return [
        f"/admin/chat/response/{row.pk}/change/",
        f"/admin/chat/conversation/{row.prompt.conversation_id}/change/",
        f"/admin/chat/apikey/{row.api_key_id}/change/",
    ]


def links(browser: Client, page: str) -> set[str]:
    """The addresses within the admin that a page leads to."""
    answer = browser.get(page)
    assert answer.status_code == 200, page
    return set(re.findall(r'href="(/admin/[^"]*)"', answer.content.decode()))


@pytest.mark.parametrize("names", [SEEN, SEEN[:1], SEEN[1:2], SEEN[2:]])
def test_every_link_opens(reviewer, row, names):
    browser = reviewer(*names)
    pages = [page for page in pages_of(row) if browser.get(page).status_code == 200]

    assert len(pages) == len(names)
    for page in pages:
        for address in links(browser, page) - {"/admin/logout/"}:
            assert browser.get(address).status_code == 200, (page, address)


def test_the_user_is_named_without_a_link(reviewer, row):
    browser = reviewer(*SEEN)
    for page in pages_of(row):
        assert "ada" in browser.get(page).content.decode(), page


def test_who_may_see_users_and_conversations_has_links_to_them(reviewer, row):
    browser = reviewer(*SEEN, "view_user")
    page, *_ = pages_of(row)
    conversation = f"/admin/chat/conversation/{row.prompt.conversation_id}/change/"

    for each in pages_of(row):
        assert f"/admin/auth/user/{row.user_id}/change/" in links(browser, each)
    assert f"{conversation}?response={row.pk}" in links(browser, page)


@pytest.mark.parametrize(
    ("address", "status"), [("/admin/auth/user/1/change/", 403), ("/admin/nowhere/", 404)]
)
def test_what_is_refused_in_the_admin_is_a_page(reviewer, address, status):
    answer = reviewer(*SEEN).get(address)

    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("text/html")
    assert b"/admin/chat/response/" in answer.content, "the navigation"


def test_a_refusal_shows_strangers_nothing(user):
    browser = Client()
    browser.force_login(user)
    answer = browser.get("/admin/chat/response/nowhere/at/all/", follow=True)

    assert b"/admin/chat/response/add" not in answer.content
    assert b"API keys" not in answer.content


def test_what_is_refused_elsewhere_stays_json(user):
    answer = Client().get("/nowhere/")

    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
