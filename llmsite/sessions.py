"""Sessions in the database, looked for by what can be the key of one."""

from __future__ import annotations

from django.contrib.sessions.backends import db


class SessionStore(db.SessionStore):
    """Django's. A cookie may say anything, a NUL in octal too, and PostgreSQL looks for no NUL."""

    def _validate_session_key(self, key: str | None) -> bool:
        """Whether it could be one of those that are made here."""
        possible: bool = super()._validate_session_key(key)  # type: ignore[misc]
        return possible and key is not None and key.isascii() and key.isalnum()
