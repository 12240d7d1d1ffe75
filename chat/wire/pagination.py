"""Pages that stay right while rows are added."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request
from rest_framework.serializers import DateTimeField


class NewestFirst(CursorPagination):
    """A cursor over the time of creation."""

    ordering = ("-created_at", "-id")
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200

    def decode_cursor(self, request: Request) -> Cursor | None:
        """The cursor in the query. Raises ValidationError for one that no page of ours gave."""
        try:
            cursor: Cursor | None = super().decode_cursor(request)
            if cursor is not None and cursor.position is not None:
                moment = DateTimeField().to_internal_value(str(cursor.position))
                # PostgreSQL knows fewer zones than Python; as our own pages say it, it knows it.
                position: Any = str(moment.astimezone(UTC))
                cursor = cursor._replace(position=position)
        except (NotFound, ValidationError, ValueError, OverflowError):
            sentence = "This is no page's cursor."
            raise ValidationError({self.cursor_query_param: [sentence]}) from None
        return cursor

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """As described by OpenAPI, with the bounds of `page_size`."""
        parameters: list[dict[str, Any]] = super().get_schema_operation_parameters(view)
        for parameter in parameters:
            if parameter["name"] == self.page_size_query_param:
                bounds = {"minimum": 1, "maximum": self.max_page_size, "default": self.page_size}
                parameter["schema"] |= bounds
        return parameters

    def get_page_size(self, request: Request) -> int:
        """Rows on a page. Raises ValidationError."""
        wanted: Any = request.query_params.get(self.page_size_query_param, str(self.page_size))
        if not (wanted.isdecimal() and len(wanted) < 9 and 1 <= int(wanted) <= self.max_page_size):
            sentence = f"A number from 1 to {self.max_page_size} is required."
            raise ValidationError({self.page_size_query_param: [sentence]})
        return int(wanted)
