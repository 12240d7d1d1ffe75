"""Filters of the log. Their choices are fixed or typed: none is looked for among the rows."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import DropdownFilter, RangeDateFilter, TextFilter
from unfold.utils import parse_date_str

from chat.models import Judgement, judged
from modelhost.types import FinishReason

Choices = tuple[tuple[str, str], ...]
PERIODS = {"today": 1, "7": 7, "30": 30}
SURFACES = (
    "message",
    "sendMessage",
    "completion",
    "websocket",
    "conversation",
    "regenerate",
    "ask",
)


class PeriodFilter(DropdownFilter):
    """What began lately, in days of the server's time zone."""

    title = "period"
    parameter_name = "period"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        """Today counts as a day."""
        return (("today", "Today"), ("7", "Last 7 days"), ("30", "Last 30 days"))

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """A range of the index on `created_at`."""
        if (days := PERIODS.get(str(self.value()))) is None:
            return queryset
        first = timezone.localdate() - timedelta(days=days - 1)
        return queryset.filter(created_at__gte=_midnight(first))


class DaysFilter(RangeDateFilter):
    """From one day to another, both included."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.title = "days"  # no list has its column under the field's own name

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """A range of the field's index; what is no date bounds nothing."""
        if (first := self._day("from")) is not None:
            queryset = queryset.filter(**{f"{self.field_path}__gte": _midnight(first)})
        last = self._day("to")
        if last is not None and last < date.max:
            end = _midnight(last + timedelta(days=1))
            queryset = queryset.filter(**{f"{self.field_path}__lt": end})
        return queryset

    def _day(self, end: str) -> date | None:
        return parse_date_str(self.used_parameters.get(f"{self.field_path}_{end}"))


class SurfaceFilter(DropdownFilter):
    """The route that was asked through."""

    title = "surface"
    parameter_name = "surface"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        """Those that there are."""
        return tuple((name, name) for name in SURFACES)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows that came this way."""
        return queryset.filter(surface=self.value()) if self.value() else queryset


class FinishReasonFilter(DropdownFilter):
    """Why the generation ended."""

    title = "finish reason"
    parameter_name = "finish_reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        """The model host's."""
        return tuple((reason.value, reason.value.replace("_", " ")) for reason in FinishReason)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows that ended so."""
        return queryset.filter(finish_reason=self.value()) if self.value() else queryset


class VerdictFilter(DropdownFilter):
    """What all verdicts on a response come to."""

    title = "verdict"
    parameter_name = "verdict"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        """Judged or not, and how."""
        return tuple((value, str(label)) for value, label in Judgement.choices)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """By the few verdicts, not by the many responses."""
        return judged(queryset, self.value()) if self.value() in Judgement.values else queryset


class ModelFilter(TextFilter):
    """A part of the model's name."""

    title = "model"
    parameter_name = "model"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows that such a model answered."""
        return queryset.filter(model__icontains=self.value()) if self.value() else queryset


class UserFilter(TextFilter):
    """Whose rows, by the whole name as the list shows it."""

    title = "user"
    parameter_name = "user"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """A range of the index on the user; none at all for a name that nobody has."""
        if not self.value():
            return queryset
        users = get_user_model()._default_manager
        user = users.filter(**{get_user_model().USERNAME_FIELD: self.value()}).first()
        return queryset.none() if user is None else queryset.filter(user=user)


class ConversationFilter(TextFilter):
    """All responses of one conversation, by its id."""

    title = "conversation"
    parameter_name = "conversation"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """None at all for what is no id."""
        if not self.value():
            return queryset
        conversation_id = uuid_of(str(self.value()))
        if conversation_id is None:
            return queryset.none()
        return queryset.filter(prompt__conversation=conversation_id)


class RevokedFilter(DropdownFilter):
    """Whether a key still lets anybody in."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        """One or the other."""
        return (("usable", "Usable"), ("revoked", "Revoked"))

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """By the moment of revocation, which usable keys do not have."""
        if self.value() not in ("usable", "revoked"):
            return queryset
        return queryset.filter(revoked_at__isnull=self.value() == "usable")


def uuid_of(text: str) -> UUID | None:
    """The id that a text spells, with or without hyphens."""
    try:
        return UUID(text.strip())
    except ValueError:
        return None


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))
