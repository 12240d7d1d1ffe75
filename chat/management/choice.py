"""Options of commands that choose responses, each a filter of the log."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db.models import QuerySet

from chat.filters import LogFilter
from chat.models import Judgement, Response

FILTERS = ("user", "conversation", "since", "until", "status", "verdict", "paths", "search")


def add_filters(parser: ArgumentParser) -> None:
    """The options that choose responses."""
    parser.add_argument("--user", help="whose")
    parser.add_argument("--conversation", metavar="ID", help="in this one")
    parser.add_argument("--since", metavar="TIME", help="asked then or later (ISO 8601)")
    parser.add_argument("--until", metavar="TIME", help="asked before then (ISO 8601)")
    parser.add_argument("--status", choices=Response.Status.values)
    parser.add_argument("--search", metavar="WORDS", help="all in the prompt or the answer")
    parser.add_argument("--verdict", choices=Judgement.values, help="judged so, by all who judged")
    parser.add_argument(
        "--paths", action="store_true", help="only where a path through a conversation ends"
    )


def chosen(options: dict[str, Any]) -> QuerySet[Response]:
    """The responses that the options choose. Raises CommandError, which names the option."""
    given = {name: options[name] for name in FILTERS if options[name] not in (None, False)}
    for name in (name for name, value in given.items() if value == ""):
        # An empty variable of a script: as a filter it would leave everybody's log.
        raise CommandError(f"--{name}: A value is required.")
    choice = LogFilter(given, queryset=Response.objects.all())
    if not choice.is_valid():
        problems = (f"--{name}: {texts[0]}" for name, texts in choice.errors.items())
        raise CommandError(" ".join(problems))
    rows: QuerySet[Response] = choice.qs
    return rows
