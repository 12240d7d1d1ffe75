"""Who may open a WebSocket: keys of programs, and sessions on our own pages only."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from websockets.exceptions import InvalidStatus

from chat.models import ApiKey, Response
from tests.sockets import said, socket_to

FOREIGN = [
    "http://evil.example",
    "null",
    "",
    "http://chat.localhost",
    "https://127.0.0.1",
    "http://127.0.0.1:1",
    "file://",
    "nonsense",
]


@pytest.fixture
def session(user: Any) -> str:
    """The cookie of a browser in which ada is signed in."""
    browser = Client()
    browser.force_login(user)
    return f"sessionid={browser.cookies['sessionid'].value}"


def refused(server: Any, key: str | None = None, **options: str) -> int:
    """The status of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as error, socket_to(server, key, **options):
        pass
    return error.value.response.status_code


def test_a_key_is_enough_wherever_it_says_it_comes_from(server, key, engine):
    for headers in ({}, {"origin": "http://evil.example"}):
        with socket_to(server, key, **headers) as socket:
            assert said([socket.ask("Say it"), *socket.rest()]) == "Hello, world"


def test_without_a_key_or_with_a_wrong_one_there_is_no_socket(server, key, user):
    assert refused(server) == 403
    assert refused(server, key + "x") == 403
    assert refused(server, "llms_") == 403
    assert refused(server, authorization="Basic YWRhOnNlY3JldA==") == 403
    ApiKey.objects.update(revoked_at=timezone.now())
    assert refused(server, key) == 403


def test_the_key_of_someone_who_may_not_log_in_any_more_opens_nothing(server, key, user):
    user.is_active = False
    user.save()
    assert refused(server, key) == 403


def test_a_session_opens_one_from_our_own_pages(server, session, user, engine):
    with socket_to(server, cookie=session, origin=server.address) as socket:
        socket.ask("Say it")
        assert said(socket.rest()) == "Hello, world"
    row = Response.objects.get()
    assert (row.user, row.api_key) == (user, None)


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_session_opens_none_from_anywhere_else(server, session, origin):
    # What is no origin at all the server's library refuses by itself, as malformed.
    assert refused(server, cookie=session, origin=origin) in (400, 403)


def test_a_session_without_an_origin_is_no_page_of_ours(server, session):
    assert refused(server, cookie=session) == 403


def test_other_pages_may_be_trusted(server, session, settings, engine):
    settings.CSRF_TRUSTED_ORIGINS = ["https://chat.example"]
    with socket_to(server, cookie=session, origin="https://chat.example") as socket:
        socket.tell("ping")
        assert socket.hear()["type"] == "pong"
    assert refused(server, cookie=session, origin="https://other.example") == 403


def test_a_session_that_is_over_opens_nothing_and_ends_what_is_open(server, session, user, engine):
    with socket_to(server, cookie=session, origin=server.address) as socket:
        user.set_password("yet another long secret")  # which ends all sessions
        user.save()
        assert socket.ask("Say it")["code"] == "not_authenticated"
        assert socket.closed() == 4401
    assert refused(server, cookie=session, origin=server.address) == 403
    assert refused(server, cookie="sessionid=nonsense", origin=server.address) == 403


def test_a_host_that_is_not_ours_is_refused(server, key, settings):
    settings.ALLOWED_HOSTS = ["chat.example"]
    assert refused(server, key) == 403


def test_there_is_one_address(server, key):
    with socket_to(server, key, path="/ws/chat/?prompt=ignored") as socket:
        socket.tell("ping")
        assert socket.hear()["type"] == "pong"
    for path in ("/", "/ws", "/ws/chat/more", "/chat/new/message/"):
        assert refused(server, key, path=path) == 403


def test_opening_one_notes_the_use_of_its_key(server, key):
    row = ApiKey.objects.get()
    assert row.last_used_at is None
    with socket_to(server, key):
        row.refresh_from_db()
        assert timezone.now() - row.last_used_at < timedelta(seconds=10)
