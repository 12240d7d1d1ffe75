"""A key that is made in the admin: shown once, and to nobody but whoever made it."""

from __future__ import annotations

import re

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from django.test.client import Client as Browser

from chat.models import ApiKey
from tests.chat.rows import answered

ADD = "/admin/chat/apikey/add/"


def secret_in(page: str) -> str:
    """The key that a page shows."""
    [secret] = re.findall(r"llms_[0-9A-Za-z]{48}", page)
    return secret


def staff_with(user, *codenames: str) -> Browser:
    """A browser of a person with these permissions."""
    user.is_staff = True
    user.save()
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    browser = Client()
    browser.force_login(user)
    return browser


def test_a_new_key_is_shown_once_and_works(administrator, client_for, user, engine):
    answer = administrator.post(ADD, {"username": "ada", "name": "the notebook"})
    secret = secret_in(answer.content.decode())
    row = ApiKey.objects.get()

    assert answer.status_code == 200
    assert "no-store" in answer.headers["Cache-Control"]
    assert (row.user, row.name) == (user, "the notebook")
    assert client_for(secret).get("/v1/models").status_code == 200
    for path in (f"/admin/chat/apikey/{row.pk}/change/", "/admin/chat/apikey/"):
        page = administrator.get(path).content.decode()
        assert row.prefix in page
        assert secret not in page
    assert secret not in str(administrator.cookies)


def test_who_made_it_is_noted_without_its_secret(administrator, user):
    administrator.post(ADD, {"username": "ada", "name": "the notebook"})
    entry = LogEntry.objects.get()

    assert (entry.user.username, entry.get_change_message()) == ("root", "Added.")
    assert entry.object_repr == str(ApiKey.objects.get())


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({"username": "nobody", "name": "a"}, "No active user has this name."),
        ({"username": "ada", "name": ""}, "This field is required."),
        ({"username": "", "name": "a"}, "This field is required."),
        ({"username": "ada", "name": "a" * 101}, "at most 100 characters"),
        ({"username": "a\x00da", "name": "a"}, "Null characters are not allowed."),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(administrator, user, form, problem):
    page = administrator.post(ADD, form).content.decode()

    assert problem in page
    assert ApiKey.objects.count() == 0


def test_who_is_not_active_gets_no_key(administrator, user):
    user.is_active = False
    user.save()
    page = administrator.post(ADD, {"username": "ada", "name": "a"}).content.decode()

    assert "No active user has this name." in page
    assert ApiKey.objects.count() == 0


def test_fields_that_are_not_asked_for_change_nothing(administrator, user, other):
    more = {"user": str(other.pk), "prefix": "aaaaaaaa", "digest": "b", "revoked_at": "2020-01-01"}
    administrator.post(ADD, {"username": "ada", "name": "a", **more})
    row = ApiKey.objects.get()

    assert (row.user, row.revoked_at) == (user, None)
    assert (row.prefix == "aaaaaaaa", row.digest == "b") == (False, False)


def test_to_look_at_keys_is_one_right_and_to_make_them_another(user):
    looking = staff_with(user, "view_apikey")
    assert looking.get(ADD).status_code == 403
    assert looking.post(ADD, {"username": "ada", "name": "a"}).status_code == 403
    assert b"/apikey/add/" not in looking.get("/admin/chat/apikey/").content
    assert ApiKey.objects.count() == 0

    making = staff_with(user, "view_apikey", "add_apikey")
    assert secret_in(making.post(ADD, {"username": "ada", "name": "a"}).content.decode())


ONLY_A_SUPERUSER = "Only a superuser makes keys for other staff and for superusers."


@pytest.mark.parametrize("right", ["is_staff", "is_superuser"])
def test_no_key_makes_its_maker_somebody_with_more_rights(user, other, right):
    making = staff_with(user, "add_apikey")
    setattr(other, right, True)
    other.save()
    page = making.post(ADD, {"username": other.username, "name": "a"}).content.decode()

    assert ONLY_A_SUPERUSER in page
    assert ApiKey.objects.count() == 0


def test_staff_make_keys_for_themselves_and_for_who_is_no_staff(user, other):
    making = staff_with(user, "add_apikey")
    for person in (user, other):
        secret = secret_in(
            making.post(ADD, {"username": person.username, "name": "a"}).content.decode()
        )
        assert ApiKey.find(secret).user == person


def test_superusers_make_keys_for_anybody(administrator, user):
    user.is_staff = user.is_superuser = True
    user.save()
    answer = administrator.post(ADD, {"username": "ada", "name": "a"})

    assert ApiKey.find(secret_in(answer.content.decode())).user == user


def test_the_form_has_one_button(administrator):
    page = administrator.get(ADD).content.decode()

    assert 'name="_save"' in page
    assert 'name="_addanother"' not in page
    assert 'name="_continue"' not in page


def test_a_person_without_conversations_is_deleted_with_their_keys(administrator, user):
    ApiKey.issue(user=user)
    row = answered(user, "one", api_key=ApiKey.issue(user=user)[0])
    address = f"/admin/auth/user/{user.pk}/delete/"
    assert administrator.post(address, {"post": "yes"}).status_code == 403
    assert ApiKey.objects.count() == 2
    row.prompt.conversation.delete()

    assert administrator.post(address, {"post": "yes"}).status_code == 302
    assert ApiKey.objects.count() == 0
    assert not type(user).objects.filter(username="ada").exists()
