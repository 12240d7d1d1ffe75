"""Query parameters of the lists: filters and searches; unknown ones are refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import django_filters as filters
from django import forms
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, Q, QuerySet
from rest_framework import exceptions
from rest_framework.request import Request

from chat.access.callers import caller_of_request
from chat.limits.readers import scanners
from chat.log.datasets import Format
from chat.log.exports import path_ends
from chat.models import Conversation, Judgement, Response, judged
from chat.wire.pagination import NewestFirst

FLAGS = {"true": True, "1": True, "false": False, "0": False}
LONGEST_SEARCH = 200  # characters
MOST_WORDS = 20  # of a search; each is a condition, and thousands are more than a query may have
PAGING = (NewestFirst.cursor_query_param, NewestFirst.page_size_query_param)


class MomentField(filters.fields.IsoDateTimeField):
    """A point in time that a database can be asked about."""

    def clean(self, value: Any) -> datetime | None:
        """The time in UTC. Raises ValidationError, also where UTC has no such year."""
        moment: datetime | None = super().clean(value)
        try:
            return moment and moment.astimezone(UTC)
        except OverflowError:
            raise ValidationError(self.error_messages["invalid"], code="invalid") from None


class MomentFilter(filters.IsoDateTimeFilter):
    """ISO 8601."""

    field_class = MomentField


class FlagField(forms.Field):
    """`true` or `false`, and nothing else that would then count as neither."""

    def to_python(self, value: Any) -> bool | None:
        """None where nothing is said. Raises ValidationError."""
        if value in self.empty_values:
            return None
        try:
            return FLAGS[str(value).lower()]
        except KeyError:
            raise ValidationError("Enter true or false.", code="invalid") from None


class FlagFilter(filters.Filter):
    """On or off."""

    field_class = FlagField


class WordsField(forms.CharField):
    """Words that are looked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=LONGEST_SEARCH, **options)

    def clean(self, value: Any) -> list[str]:
        """Each of them. Raises ValidationError where they are too many."""
        words: list[str] = super().clean(value).split()
        if len(words) > MOST_WORDS:
            raise ValidationError(f"At most {MOST_WORDS} words are looked for.", code="invalid")
        return words


class WordsFilter(filters.CharFilter):
    """Parts of words, whatever their case (on SQLite only of ASCII's letters)."""

    field_class = WordsField


SEARCH = "search"  # the parameter of that name


@contextmanager
def searching(request: Request) -> Iterator[None]:
    """Count who looks for words until that is done: who leaves before does not end it.

    Raises TooManyStreams.
    """
    if not request.query_params.get(SEARCH):
        yield
        return
    leave = scanners.enter(caller_of_request(request).name)
    try:
        yield
    finally:
        leave()


def says(word: str) -> Q:
    """Of responses: it is in the prompt or in the answer."""
    return Q(text__icontains=word) | Q(prompt__content__icontains=word)


class ConversationFilter(filters.FilterSet):
    """`search`: each word is in the title or was said."""

    search = WordsFilter(method="with_words")

    class Meta:
        model = Conversation
        fields: list[str] = []

    def with_words(
        self, rows: QuerySet[Conversation], name: str, words: list[str]
    ) -> QuerySet[Conversation]:
        """Those in which all of the words are, wherever."""
        said = Response.objects.filter(prompt__conversation=OuterRef("pk"))
        for word in words:
            rows = rows.filter(Q(title__icontains=word) | Exists(said.filter(says(word))))
        return rows


class ResponseFilter(filters.FilterSet):
    """`conversation`, `since` and `until` (ISO 8601), `status`, `search`."""

    conversation = filters.UUIDFilter(field_name="prompt__conversation")
    since = MomentFilter(field_name="created_at", lookup_expr="gte")
    until = MomentFilter(field_name="created_at", lookup_expr="lt")
    status = filters.ChoiceFilter(choices=Response.Status.choices)
    search = WordsFilter(method="with_words")

    class Meta:
        model = Response
        fields: list[str] = []

    def with_words(
        self, rows: QuerySet[Response], name: str, words: list[str]
    ) -> QuerySet[Response]:
        """Those with all of the words, in the prompt or in the answer."""
        return rows.filter(*map(says, words))


USERNAME = get_user_model().USERNAME_FIELD


class ExportFilter(ResponseFilter):
    """Which responses an export has, and `format`: what a line of it is."""

    format = filters.ChoiceFilter(choices=Format.choices, method="as_it_is", null_label=None)
    paths = FlagFilter(method="only_path_ends")

    def as_it_is(self, rows: QuerySet[Response], name: str, value: str) -> QuerySet[Response]:
        """A format chooses no rows."""
        return rows

    def only_path_ends(self, rows: QuerySet[Response], name: str, on: bool) -> QuerySet[Response]:
        """Each path once: where it ends."""
        return path_ends(rows) if on else rows


class LogFilter(ExportFilter):
    """The same over everybody's responses: also whose, and how they are judged."""

    user = filters.CharFilter(field_name=f"user__{USERNAME}")
    verdict = filters.ChoiceFilter(choices=Judgement.choices, method="judged_so")

    def judged_so(self, rows: QuerySet[Response], name: str, value: str) -> QuerySet[Response]:
        """By all who judged."""
        return judged(rows, value)


def refuse_unknown(query: Iterable[str], *filters: str, paged: bool = True) -> None:
    """A misspelt filter must not look like one that matches everything.

    paged: whether the answer comes in pages.
    """
    known = {*filters, *(PAGING if paged else ())}
    unknown = [name for name in query if name not in known]
    if unknown:
        raise exceptions.ValidationError({name: ["Unknown parameter."] for name in unknown})
