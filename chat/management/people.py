"""People as commands name them: made where there is none of that name, without a password."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError


def parsed_username(text: str) -> str:
    """A name as Django keeps it (NFKC), without what the terminal sent that is no UTF-8.

    Raises CommandError for one that nobody can have.
    """
    users = get_user_model()
    plain = text.encode("utf-8", "replace").decode().strip()
    name = str(users.normalize_username(plain))
    try:
        users._meta.get_field("username").clean(name, None)
    except ValidationError as error:
        raise CommandError(f"The user name: {error.messages[0]}") from error
    return name


def person(username: str) -> tuple[Any, bool]:
    """Whoever has this name, and whether they were made for it: with keys, and no way to log in."""
    users = get_user_model()
    user = users.objects.filter(username=username).first()
    return (user, False) if user else (users.objects.create_user(username), True)
