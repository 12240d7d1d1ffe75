"""Options of commands that choose rows by the API's filters."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any, TypeVar

from django.core.management.base import CommandError
from django.db.models import Model, QuerySet
from django_filters import FilterSet

from chat.models import Judgement, Response
from chat.wire.filters import LogFilter

Row = TypeVar("Row", bound=Model)
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
    return filtered(LogFilter, Response.objects.all(), FILTERS, options)


def filtered(
    choice: type[FilterSet], rows: QuerySet[Row], names: Iterable[str], options: dict[str, Any]
) -> QuerySet[Row]:
    """The rows that the options of these names leave. Raises CommandError, which names one."""
    given = {name: options[name] for name in names if options[name] not in (None, False)}
    for name in (name for name, value in given.items() if value == ""):
        # An empty variable of a script: as a filter it would leave everybody's log.
        raise CommandError(f"{_option(name)}: A value is required.")
    made = choice(given, queryset=rows)
    if not made.is_valid():
        problems = (f"{_option(name)}: {texts[0]}" for name, texts in made.errors.items())
        raise CommandError(" ".join(problems))
    left: QuerySet[Row] = made.qs
    return left


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
