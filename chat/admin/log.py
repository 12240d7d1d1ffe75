"""What the lists of the log have in common. Rows are read-only: the record is what happened."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from chat.admin.pagination import BoundedPaginator


class ReadOnlyAdmin(ModelAdmin):
    """Look, search, filter; nothing is added, changed or deleted here.

    list_with: the related rows that a list shows. list_without: columns that it does not.
    """

    paginator = BoundedPaginator
    show_full_result_count = False
    list_select_related = ()
    list_with: tuple[str, ...] = ()
    list_without: tuple[str, ...] = ()
    list_per_page = 50
    list_fullwidth = True
    list_filter_submit = True

    class Media:
        css = {"all": ("chat/admin.css",)}

    def has_no_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """A list asks for related rows by themselves: joined, a planner may begin with them."""
        rows = super().get_queryset(request)
        match = request.resolver_match
        if match is None or match.kwargs:
            return rows
        return rows.prefetch_related(*self.list_with).defer(*self.list_without)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """The row, and what asked for it: what its page shows depends on who looks."""
        row: Any = super().get_object(request, object_id, from_field)
        if row is not None:
            row.request = request
        return row

    has_add_permission = has_change_permission = has_delete_permission = has_no_permission
