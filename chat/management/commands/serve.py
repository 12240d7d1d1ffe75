"""`manage.py serve`: everything that a first start needs, then daphne."""

from __future__ import annotations

import logging
import os
import resource
import secrets
import socket
from argparse import ArgumentParser
from itertools import count
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, IntegrityError, connections, transaction
from django.utils.module_loading import import_string

from chat.database import missing_migrations
from chat.models import ApiKey

ADMIN = "admin"
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
DESCRIPTORS = 65_536  # that the process may open, where the system's hard limit allows it


class Command(BaseCommand):
    """Migrates, makes the first user and key, says what to try, serves until it is told to end."""

    help = "Prepare the database, create the first user and key, and start the server."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=os.environ.get("HOST") or "127.0.0.1")
        parser.add_argument("--port", default=os.environ.get("PORT") or "8000")

    def handle(self, *args: Any, **options: Any) -> None:
        host, port = options["host"], parsed_port(options["port"])
        refuse_taken_port(host, port)
        allow_many_connections()
        try:
            self._migrate()
        except DatabaseError as error:
            raise CommandError(f"The database cannot be used: {error}".strip()) from error
        key = self._first_account()
        self._say_what_to_try(f"http://{displayed(host)}:{port}", key)
        if host in EVERYWHERE and "*" not in settings.ALLOWED_HOSTS:
            names = ", ".join(settings.ALLOWED_HOSTS)
            self.stdout.write(f"It answers to the names in ALLOWED_HOSTS: {names}")
        connections.close_all()
        # Importing the application starts to load the model.
        application = import_string("llmsite.asgi.application")
        server = import_string("llmsite.server.Server")
        endpoint = f"tcp:port={port}:interface={host.replace(':', chr(92) + ':')}"
        server(application, endpoints=[endpoint], server_name="llmsite").run()
        # Everything is written and the engine has ended. What is left are threads of requests
        # whose loop has stopped: waiting for them would take for ever, and collecting their
        # coroutines has crashed the interpreter.
        self.stdout.flush()
        logging.shutdown()
        os._exit(0)

    def _migrate(self) -> None:
        """Bring the database up to this version. Raises DatabaseError.

        Where two processes begin at once, both find that something is missing, and one of them
        that it is there already: then the rest is tried again, until nothing gets it further.
        """
        missing, in_vain = missing_migrations(), 0
        while missing:
            try:
                call_command("migrate", interactive=False, verbosity=0)
            except DatabaseError:
                before, missing = missing, missing_migrations()
                in_vain = in_vain + 1 if missing == before else 0
                if in_vain > 1:
                    raise
            else:
                return

    def _first_account(self) -> str | None:
        """An administrator and a key on an empty installation; the key, if it was made."""
        users = get_user_model()
        if users.objects.filter(is_superuser=True).exists():
            return None
        password = secrets.token_urlsafe(12)
        names = (ADMIN if at == 1 else f"{ADMIN}{at}" for at in count(1))
        name = next(name for name in names if not users.objects.filter(username=name).exists())
        with transaction.atomic():  # what could not be shown must not be there
            try:
                with transaction.atomic():
                    user = users.objects.create_superuser(name, password=password)
            except IntegrityError:
                return None  # another process, which began at the same time, has shown its own
            _, key = ApiKey.issue(user=user, name="first key")
            self.stdout.write(f"Created the user {name}; these are shown this once:")
            self.stdout.write(f"  password  {password}")
            self.stdout.write(f"  API key   {key}")
            self.stdout.flush()
        return key

    def _say_what_to_try(self, address: str, key: str | None) -> None:
        shown = key or "llms_…"
        self.stdout.write(f"Page    {address}/")
        self.stdout.write(f"Admin   {address}/admin/")
        self.stdout.write(f"API     {address}/api/docs/")
        self.stdout.write("Try     " + try_line(address, shown))
        self.stdout.flush()


def try_line(address: str, key: str) -> str:
    """A command that answers."""
    return (
        f'curl {address}/chat/new/message/ -H "Authorization: Bearer {key}" '
        "-H 'Content-Type: application/json' "
        """-d '{"prompt": "What is the capital of France?"}'"""
    )


def parsed_port(text: str) -> int:
    """A port as it was given. Raises CommandError."""
    if not str(text).isdecimal() or not 0 < int(text) < 65536:
        raise CommandError(f"PORT is {text!r}; a number from 1 to 65535 is needed.")
    return int(text)


def displayed(host: str) -> str:
    """The host as it stands in an address; a server that listens everywhere is here as well."""
    host = EVERYWHERE.get(host, host)
    return f"[{host}]" if ":" in host else host


def allow_many_connections() -> None:
    """Raise the usual soft limit of 1,024 descriptors, each of which is a client."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def refuse_taken_port(host: str, port: int) -> None:
    """A second start must say what is wrong before it loads a model. Raises CommandError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"{displayed(host)}:{port} cannot be used ({error.strerror}). Set PORT or HOST."
            ) from error
