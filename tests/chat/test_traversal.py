"""No address names a file: not one that ends in a static file's name, nor one that has an id."""

from __future__ import annotations

import http.client
from itertools import product
from urllib.parse import urlsplit

import pytest

UPWARDS = (
    *("../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..\\", "..%5c", "....//", "..;/"),
    *("%252e%252e%252f", "..%c0%af", "..%00/", ".%2e/", "/../", "%2f..%2f"),
)
FILES = ("etc/passwd", "etc%2fpasswd", "manage.py", "llmsite/settings.py", "var/secret_key")
ALONE = ("/etc/passwd", "%2fetc%2fpasswd", "file:///etc/passwd", "C:\\boot.ini", "~/.ssh/id", "..",
         "%2e%2e", "....", "%00", "con", "\\\\host\\share", ".git/config", ".env")  # fmt: skip
DEPTHS = range(1, 8)
NAMES = [up * depth + file for up, depth, file in product(UPWARDS, DEPTHS, FILES)]
PLACES = ("/static/", "/static/chat/", "/api/responses/", "/api/conversations/", "/v1/models/")
SECRETS = (b"root:", b"INSTALLED_APPS", b"execute_from_command_line", b"[core]")


@pytest.mark.parametrize("place", PLACES)
def test_no_way_leads_to_a_file(place, server, key, engine):
    names = [*NAMES, *ALONE]
    assert len(names) > 500
    connection = http.client.HTTPConnection(urlsplit(server.address).netloc, timeout=20)

    for name in names:
        # As it stands: a client that tidies addresses up would never send most of these.
        connection.putrequest("GET", f"{place}{name}", skip_accept_encoding=True)
        connection.putheader("Authorization", f"Bearer {key}")
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()

        assert answer.status in (400, 404), name
        assert not any(secret in body for secret in SECRETS), name

    connection.close()
