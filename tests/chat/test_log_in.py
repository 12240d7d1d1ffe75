"""Passwords that are tried: counted over all processes, for one name from one address."""

from __future__ import annotations

import pytest
from axes.models import AccessAttempt
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.test import Client

from chat.access import log_in_forms
from chat.access.addresses import client_address
from chat.access.password_turns import PasswordTurns
from chat.models import ApiKey

PASSWORD = "the right one"


@pytest.fixture
def grace(transactional_db):
    return get_user_model().objects.create_superuser("grace", password=PASSWORD)


def try_in(
    password: str, *, path: str = "/login/", name: str = "grace", address: str = "10.0.0.1", **more
):
    """One attempt, of a browser that was never here."""
    form = {"username": name, "password": password, "next": "/"}
    return Client().post(path, form, REMOTE_ADDR=address, **more)


@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
def test_after_so_many_wrong_passwords_the_right_one_is_not_looked_at(grace, settings, path):
    settings.AXES_FAILURE_LIMIT = 3
    answers = [try_in("wrong", path=path).status_code for _ in range(4)]
    refused = try_in(PASSWORD, path=path)

    assert answers == [200, 200, 429, 429]
    assert refused.status_code == 429
    assert "Try again in 15 minutes" in refused.content.decode()
    assert int(refused["Retry-After"]) == 900


@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
def test_passwords_that_are_tried_at_once_are_counted_too(grace, settings, monkeypatch, path):
    settings.AXES_FAILURE_LIMIT = 3
    look = ModelBackend.authenticate

    def slowly(self, request, username=None, password=None, **more):
        if password == PASSWORD:  # the wrong ones came with it, and were looked at first
            # In another process: here they would take turns.
            monkeypatch.setattr(log_in_forms, "password_turns", PasswordTurns())
            for _ in range(3):
                try_in("wrong", path=path)
        return look(self, request, username=username, password=password, **more)

    monkeypatch.setattr(ModelBackend, "authenticate", slowly)
    refused = try_in(PASSWORD, path=path)

    assert refused.status_code == 429
    assert "sessionid" not in refused.cookies


@pytest.mark.parametrize(("proxies", "status"), [(0, 429), (1, 302), (2, 429)])
def test_nor_through_the_proxies_whose_number_is_known(grace, settings, proxies, status):
    settings.AXES_FAILURE_LIMIT = 3
    settings.LLMSITE_PROXIES = proxies
    for _ in range(3):
        try_in("wrong", HTTP_X_FORWARDED_FOR="10.9.9.9, 203.0.113.9")
    answer = try_in(PASSWORD, HTTP_X_FORWARDED_FOR="10.9.9.9, 198.51.100.7")

    assert answer.status_code == status


@pytest.mark.parametrize("forged", ["198.51.100.7, 203.0.113.9", "nonsense, 203.0.113.9"])
def test_nobody_escapes_by_an_address_that_no_proxy_has_seen(grace, settings, forged):
    settings.AXES_FAILURE_LIMIT = 3
    settings.LLMSITE_PROXIES = 1
    for _ in range(3):
        try_in("wrong", HTTP_X_FORWARDED_FOR="203.0.113.9")

    assert try_in(PASSWORD, HTTP_X_FORWARDED_FOR=forged).status_code == 429


@pytest.mark.parametrize("told", ["", "nonsense", "10.1.1.1"])
def test_where_a_proxy_says_nothing_its_own_address_counts(rf, settings, told):
    settings.LLMSITE_PROXIES = 2
    request = rf.get("/", REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR=told)

    assert client_address(request) == "10.0.0.1"


def test_nobody_locks_another_one_out_from_elsewhere(grace, settings):
    settings.AXES_FAILURE_LIMIT = 3
    for _ in range(5):
        try_in("wrong", address="10.0.0.9")

    assert try_in(PASSWORD).status_code == 302
    assert try_in("wrong", name="ada", address="10.0.0.9").status_code == 200


def test_an_address_that_is_only_claimed_does_not_count(grace, settings):
    settings.AXES_FAILURE_LIMIT = 3
    for number in range(3):
        try_in("wrong", HTTP_X_FORWARDED_FOR=f"10.1.1.{number}")

    assert try_in(PASSWORD).status_code == 429


def test_who_gets_in_begins_anew(grace, settings):
    settings.AXES_FAILURE_LIMIT = 3
    for _ in range(3):
        assert try_in("wrong").status_code == 200
        assert try_in("wrong").status_code == 200
        assert try_in(PASSWORD).status_code == 302


def test_keys_and_sessions_are_not_concerned(grace, settings, client_for):
    settings.AXES_FAILURE_LIMIT = 1
    _, secret = ApiKey.issue(user=grace)
    open_already = Client()
    open_already.force_login(grace, backend="django.contrib.auth.backends.ModelBackend")
    try_in("wrong")

    assert try_in(PASSWORD).status_code == 429
    assert open_already.get("/").status_code == 200
    assert Client().get("/chat/get/messages/", HTTP_AUTHORIZATION=f"Bearer {secret}").json()


@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
def test_a_name_that_nobody_can_have_is_refused_and_not_kept(grace, path):
    assert try_in("wrong", path=path, name="z" * 151).status_code == 200
    assert not AccessAttempt.objects.exists()


@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
def test_a_name_may_be_as_long_as_its_column(db, path):
    name = "a" * 150
    get_user_model().objects.create_superuser(name, password=PASSWORD)

    assert try_in(PASSWORD, path=path, name=name).status_code == 302
