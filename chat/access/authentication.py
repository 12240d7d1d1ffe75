"""Who is asking: a bearer key for programs, the session for browsers."""

from __future__ import annotations

from typing import Any

from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from chat.models import ApiKey


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer <key>`. `request.auth` is the key's row."""

    def authenticate(self, request: Request) -> tuple[Any, ApiKey] | None:
        """The key's user. Raises AuthenticationFailed for a key that is not usable."""
        scheme, _, key = get_authorization_header(request).partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        row = ApiKey.find(key.strip().decode("latin-1"))
        if row is None:
            raise AuthenticationFailed("The API key is unknown or revoked.")
        row.touch()
        return row.user, row

    def authenticate_header(self, request: Request) -> str:
        """Makes the answer to an anonymous request 401 and not 403."""
        return 'Bearer realm="llmsite"'
