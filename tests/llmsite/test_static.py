"""Static files while they are replaced: by a deployment, under servers and browsers that go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from django.http import Http404, HttpRequest, HttpResponse
from django.test import RequestFactory

from llmsite.static import StaticFiles


@pytest.fixture
def script(tmp_path: Path, settings) -> Path:
    """A file that is there when the server starts."""
    settings.WHITENOISE_ROOT = str(tmp_path)
    path = tmp_path / "page.js"
    path.write_text("before")
    return path


@pytest.fixture
def get(script: Path) -> Callable[..., HttpResponse]:
    """Asks a server that has started for it."""
    static = StaticFiles(lambda request: HttpResponse(status=404))

    def ask(method: str = "GET", **headers: str) -> HttpResponse:
        request: HttpRequest = RequestFactory().generic(method, "/page.js", headers=headers)
        return static(request)

    return ask


@pytest.mark.parametrize("now", ["now", "from now on", "", "before"])
def test_a_file_that_was_replaced_is_sent_whole(script, get, now):
    script.write_text(now)
    answer = get()

    assert (answer.status_code, answer.content) == (200, now.encode())
    assert answer.headers["Content-Length"] == str(len(now))


def test_who_asks_for_a_part_gets_the_whole(script, get):
    """What its length was at the start says nothing of its parts now (RFC 9110, 14.2: may)."""
    script.write_text("now")
    answer = get(Range="bytes=1-4")

    assert (answer.status_code, answer.content) == (200, b"now")


def test_a_file_that_was_removed_is_not_there(script, get):
    script.unlink()

    with pytest.raises(Http404):
        get()


def test_a_head_tells_the_length_and_sends_nothing(get):
    answer = get("HEAD")

    assert (answer.content, answer.headers["Content-Length"]) == (b"", "6")


@pytest.mark.parametrize(
    ("path", "kept"),
    [("chat/page.js", "no-cache"), ("admin/js/core.js", "max-age=3600, public")],
)
def test_browsers_ask_whether_our_modules_still_hold(server, path, kept):
    with httpx.Client(base_url=server.address) as browser:
        answer = browser.get(f"/static/{path}")
        assert answer.headers["Cache-Control"] == kept

        known = {"If-None-Match": answer.headers["ETag"]}
        again = browser.get(f"/static/{path}", headers=known)
        assert (again.status_code, again.content) == (304, b"")
