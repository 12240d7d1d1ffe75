"""`manage.py forget --user NAME | --unused-since TIME | --conversation ID`: out of the log."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from chat.log.retention import RetentionFilter, forget, leave_no_trace
from chat.management.choice import filtered
from chat.models import Conversation, Response

FILTERS = ("user", "conversation", "unused_since")
STILL_THERE = (
    "Another program is reading the database, so SQLite's write-ahead log still has what was"
    " removed. Run this again when that has ended."
)


class Command(BaseCommand):
    """Says how much it is and asks first. The service may run meanwhile."""

    help = "Remove conversations with everything in them, for good."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", help="whose; the person stays")
        parser.add_argument("--conversation", metavar="ID", help="this one")
        parser.add_argument(
            "--unused-since", metavar="TIME", help="nothing was asked in it since (ISO 8601)"
        )
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, **options: Any) -> None:
        if all(options[name] is None for name in FILTERS):
            raise CommandError("Say which: --user, --conversation or --unused-since.")
        rows = filtered(RetentionFilter, Conversation.objects.all(), FILTERS, options)
        conversations = rows.count()
        said = Response.objects.filter(prompt__conversation__in=rows).count()
        self.stdout.write(f"Conversations: {conversations}, with {said} responses.")
        if conversations:
            if not (options["yes"] or self._confirmed()):
                return
            removed = sum(1 for _ in forget(rows))
            self.stdout.write(f"Removed: {removed}.")
        if not leave_no_trace():  # also when an earlier run has removed them
            raise CommandError(STILL_THERE)

    def _confirmed(self) -> bool:
        if not sys.stdin.isatty():
            raise CommandError("Nobody can be asked here; --yes removes them.")
        return input("Remove them for good? [y/N] ").strip().lower() in ("y", "yes")
