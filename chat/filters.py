"""What the lists' addresses may say."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import django_filters as filters
from django import forms
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from rest_framework import exceptions

from chat.datasets import Format
from chat.exports import path_ends
from chat.models import Judgement, Response, judged
from chat.pagination import NewestFirst

FLAGS = {"true": True, "1": True, "false": False, "0": False}
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


class ResponseFilter(filters.FilterSet):
    """`conversation`, `since` and `until` (ISO 8601), `status`."""

    conversation = filters.UUIDFilter(field_name="prompt__conversation")
    since = MomentFilter(field_name="created_at", lookup_expr="gte")
    until = MomentFilter(field_name="created_at", lookup_expr="lt")
    status = filters.ChoiceFilter(choices=Response.Status.choices)

    class Meta:
        model = Response
        fields: list[str] = []


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
