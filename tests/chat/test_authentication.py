"""Who is asking: a bearer key for programs, the session for browsers."""

from __future__ import annotations

import re
from datetime import timedelta

import httpx
import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from chat.access import keys
from chat.models import ApiKey
from llmsite.sessions import SessionStore

URL = "/api/conversations/"


def test_a_key_is_its_user(api, user, engine):
    api.post("/chat/new/message/", json={"prompt": "a"})

    assert user.responses.get().api_key == ApiKey.objects.get()


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_schemes_case_does_not_matter(client_for, key, scheme):
    headers = {"Authorization": f"{scheme} {key}"}
    assert client_for(None).get(URL, headers=headers).status_code == 200


def test_what_is_no_key_is_nobody(client_for, key):
    anonymous = client_for(None)
    for header in (
        "",
        key,
        f"Token {key}",
        f"Basic {key}",
        "Bearer",
        f"Bearer {key}x",
        f"Bearer {key[:-1]}",
        f"Bearer {key.removeprefix(keys.MARK)}",
        f"Bearer {key} {key}",
        f"Bearer {key.upper()}",
        "Bearer llms_",
        "Bearer llms_' OR 1=1 --",
        "Bearer llms_" + "a" * 5000,
        "Bearer ключ".encode(),
        "Bearer llms_ä".encode("latin-1"),
        b"Bearer \xff\xfe\xfd",
        b"\xff",
    ):
        answer = anonymous.get(URL, headers={"Authorization": header})
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated"), header


def test_a_null_in_a_key_is_never_read_over(user):
    _, secret = ApiKey.issue(user=user)

    assert ApiKey.find(secret) is not None
    assert ApiKey.find(secret[:10] + "\0" + secret[10:]) is None
    assert ApiKey.find("\0") is None
    assert ApiKey.find(f"{secret}\0") is None


def test_a_revoked_key_ends_at_once(api, key):
    assert api.get(URL).status_code == 200
    ApiKey.objects.get().revoke()
    assert api.get(URL).status_code == 401


def test_revoking_again_keeps_the_first_time(user):
    row, _ = ApiKey.issue(user=user)
    row.revoke()
    first = ApiKey.objects.get().revoked_at
    row.revoke()
    assert ApiKey.objects.get().revoked_at == first


def test_the_last_use_is_kept_to_the_minute(api, key):
    assert ApiKey.objects.get().last_used_at is None
    api.get(URL)
    first = ApiKey.objects.get().last_used_at
    assert timezone.now() - first < timedelta(minutes=1)
    api.get(URL)
    assert ApiKey.objects.get().last_used_at == first

    ApiKey.objects.update(last_used_at=first - timedelta(minutes=2))
    api.get(URL)
    assert ApiKey.objects.get().last_used_at >= first


def test_a_clock_that_was_set_back_keeps_no_use_that_is_still_to_come(api, key):
    ApiKey.objects.update(last_used_at=timezone.now() + timedelta(days=1))
    api.get(URL)

    assert ApiKey.objects.get().last_used_at <= timezone.now()


def test_a_refused_key_was_not_used(client_for, user):
    row, secret = ApiKey.issue(user=user)
    row.revoke()
    client_for(secret).get(URL)

    assert ApiKey.objects.get().last_used_at is None


def test_only_a_digest_is_stored(user):
    row, secret = ApiKey.issue(user=user, name="laptop")

    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM chat_apikey")
        stored = " ".join(str(value) for value in cursor.fetchone())
    assert secret not in stored
    assert secret[len(keys.MARK) + keys.PREFIX_LENGTH :] not in stored
    assert row.digest == keys.digest(secret)
    assert re.fullmatch(r"llms_[A-Za-z0-9]{48}", secret)
    assert str(row) == f"laptop (llms_{row.prefix}…)"


def test_keys_are_never_alike(user):
    assert len({ApiKey.issue(user=user)[1] for _ in range(50)}) == 50


def browser_of(server, user, *, with_token: bool = True) -> httpx.Client:
    """A client with a session, as a browser would have after the login."""
    login = Client()
    login.force_login(user)
    cookies = {"sessionid": login.cookies["sessionid"].value, "csrftoken": "a" * 32}
    headers = {"X-CSRFToken": "a" * 32, "Referer": server.address} if with_token else {}
    return httpx.Client(base_url=server.address, cookies=cookies, headers=headers)


def test_a_session_reads(server, user):
    with browser_of(server, user, with_token=False) as browser:
        assert browser.get(URL).status_code == 200


def test_a_session_writes_with_its_token_only(server, user, engine):
    body = {"prompt": "a"}
    with browser_of(server, user, with_token=False) as browser:
        refused = browser.post("/chat/new/message/", json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    with browser_of(server, user) as browser:
        assert browser.post("/chat/new/message/", json=body).status_code == 200
    assert user.responses.get().api_key is None


def test_a_session_of_an_inactive_user_is_nobodys(server, user):
    with browser_of(server, user) as browser:
        user.is_active = False
        user.save()
        assert browser.get(URL).status_code == 401


def test_a_bad_key_is_not_made_good_by_a_session(server, user):
    with browser_of(server, user) as browser:
        headers = {"Authorization": "Bearer llms_nonsense"}
        assert browser.get(URL, headers=headers).status_code == 401


@pytest.mark.parametrize("key", ["\0" + "a" * 31, "a" * 31 + "\xff", "' or 1=1 --" * 3])
def test_a_cookie_that_is_no_sessions_key_is_nobodys(client_for, server, key):
    """In a cookie a NUL is spelled in octal, and PostgreSQL looks for no text that has one."""
    spelled = "".join(f"\\{ord(one):03o}" for one in key)
    cookie = {"Cookie": f'sessionid="{spelled}"'}

    assert client_for(None).get(URL, headers=cookie).status_code == 401
    assert client_for(None).get("/", headers=cookie).headers["Location"].startswith("/login/")
    assert SessionStore(key).session_key is None
