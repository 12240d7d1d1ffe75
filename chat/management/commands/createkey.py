"""`manage.py createkey USERNAME [--name N]`: a new API key, alone on stdout."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from chat.management.people import parsed_username, person
from chat.models import ApiKey


class Command(BaseCommand):
    """Scripts read the key from stdout; everything else goes to stderr."""

    help = "Create an API key for a user, making the user if there is none; print the key."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--name", default="default", help="what the key is for")

    def handle(self, *args: Any, **options: Any) -> None:
        username, name = parsed_username(options["username"]), options["name"].strip()
        if not 0 < len(name) <= 100:
            raise CommandError("The key's name needs 1 to 100 characters.")
        user, made = person(username)
        if made:
            self.stderr.write(f"Created the user {username}.")
        _, secret = ApiKey.issue(user=user, name=name)
        self.stdout.write(secret)
