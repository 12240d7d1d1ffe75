"""What an address of the admin may ask the database for."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.exceptions import SuspiciousOperation, ValidationError
from django.core.paginator import InvalidPage
from django.db import DataError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

from chat.wire.filters import MOST_WORDS

# What a value raises that no database can read: a NUL, numbers without end, no date.
UNREADABLE = (DataError, OverflowError, ValueError, ValidationError)

COMPARISONS = ("exact", "in", "isnull", "gte", "gt", "lte", "lt")


def read(view: Callable[..., Any]) -> Callable[..., Any]:
    """A view of the admin's own, in which what nobody can read is the address's mistake, too."""

    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            return view(request, *args, **kwargs)
        except (InvalidPage, *UNREADABLE) as error:
            raise SuspiciousOperation(str(error)) from error

    return answer


class FilterLookups:
    """Only what the list's filters ask for.

    Django lets any lookup on a field of the model pass. `__regex` is Python's on SQLite, run inside
    the query: a pattern that backtracks holds the whole process, and no signal ends it.
    """

    list_filter: Any

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """A filter's own parameter, a field's value, a comparison of a field that is filtered."""
        allowed: bool = super().lookup_allowed(lookup, value, request)  # type: ignore[misc]
        path, compared, last = lookup.rpartition("__")
        if not compared:
            return allowed
        filtered = [each[0] if isinstance(each, tuple) else each for each in self.list_filter]
        return allowed and last in COMPARISONS and path.removesuffix("__id") in filtered

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """What no database can read is the address's mistake."""
        try:
            answer = super().changelist_view(request, extra_context)  # type: ignore[misc]
            # Some filters ask the database only when they are drawn.
            return answer.render() if isinstance(answer, TemplateResponse) else answer
        except UNREADABLE as error:
            raise SuspiciousOperation(str(error)) from error

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """For the first words."""
        some = " ".join(search_term.replace("\0", "").split()[:MOST_WORDS])
        return super().get_search_results(request, queryset, some)  # type: ignore[misc]
