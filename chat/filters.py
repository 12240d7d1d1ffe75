"""Filters of the log."""

from __future__ import annotations

import django_filters as filters

from chat.models import Response


class ResponseFilter(filters.FilterSet):
    """`conversation`, `since` and `until` (ISO 8601), `status`."""

    conversation = filters.UUIDFilter(field_name="prompt__conversation")
    since = filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="gte")
    until = filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="lt")
    status = filters.ChoiceFilter(choices=Response.Status.choices)

    class Meta:
        model = Response
        fields: list[str] = []
