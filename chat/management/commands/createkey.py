"""`manage.py createkey USERNAME [--name N]`: a new API key, alone on stdout."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from chat.models import ApiKey


class Command(BaseCommand):
    """Scripts read the key from stdout; everything else goes to stderr."""

    help = "Create an API key for a user, making the user if there is none; print the key."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--name", default="default", help="what the key is for")

    def handle(self, *args: Any, **options: Any) -> None:
        users = get_user_model()
        username, name = readable(options["username"]), options["name"].strip()
        try:
            users._meta.get_field("username").clean(username, None)
        except ValidationError as error:
            raise CommandError(f"The user name: {error.messages[0]}") from error
        if not 0 < len(name) <= 100:
            raise CommandError("The key's name needs 1 to 100 characters.")
        user = users.objects.filter(username=username).first()
        if user is None:
            user = users.objects.create_user(username)  # without a password: keys only
            self.stderr.write(f"Created the user {username}.")
        _, secret = ApiKey.issue(user=user, name=name)
        self.stdout.write(secret)


def readable(username: str) -> str:
    """A name as Django keeps it (NFKC), without what the terminal sent that is no UTF-8."""
    plain = username.encode("utf-8", "replace").decode().strip()
    return str(get_user_model().normalize_username(plain))
