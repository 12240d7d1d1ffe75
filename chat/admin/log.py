"""What the lists have in common. The log's rows are read-only: the record is what happened."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.shortcuts import render
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.views import ChangeList

from chat.admin.cells import NOTHING
from chat.admin.lookups import FilterLookups
from chat.admin.pagination import BoundedPaginator

Value = TypeVar("Value")


class Results(ChangeList):
    """A list. Its heading says how many a search or a filter leaves; the foot always does."""

    def get_results(self, request: HttpRequest) -> None:
        """The rows of a page. Of a list that is whole already, nothing more can be shown."""
        super().get_results(request)
        if not (self.query or any(any(each) for each in self.get_filters_params().values())):
            self.full_result_count = self.result_count


class ChatAdmin(FilterLookups, ModelAdmin):
    """A model whose page shows what the one who looks may see.

    list_with: the related rows that a list shows. list_without: columns that it does not.
    """

    list_with: tuple[str, ...] = ()
    list_without: tuple[str, ...] = ()
    list_select_related = ()
    list_per_page = 50
    list_fullwidth = True
    list_filter_submit = True
    empty_value_display = NOTHING
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # each would count the whole log

    def get_changelist(self, request: HttpRequest, **_: Any) -> type[ChangeList]:
        """Ours, without an offer to show all of what is shown."""
        return Results

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

    def list_shown(self, request: HttpRequest) -> str:
        """The filters of the list that somebody came from, as Django's own pages keep them."""
        kept = self.get_preserved_filters(request)
        return f"?{kept}" if kept else ""

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kw: Any) -> Any:
        """A row's page, whose buttons know the list that it was reached from."""
        for button in context.get("actions_detail", ()):
            button["path"] += self.list_shown(request)
        return super().render_change_form(request, context, *args, **kw)

    @admin.display(description="user")
    def owner(self, row: Any) -> SafeString | str:
        """Whose it is; a link for those who may see users."""
        return link_to(row.user, row.request)

    def ask(self, request: HttpRequest, title: str, question: str, rows: Iterable[Any]) -> Any:
        """A page that asks before something is done that cannot be undone."""
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "question": question,
            "rows": rows,
            "action": request.POST.get("action"),
        }
        return render(request, "chat/confirmation.html", context)


class ReadOnlyAdmin(ChatAdmin):
    """Look, search, filter; nothing is added, changed or deleted here."""

    paginator = BoundedPaginator

    def has_no_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_add_permission = has_change_permission = has_delete_permission = has_no_permission


def made_once(show: Callable[[Any, Any], Value]) -> Callable[[Any, Any], Value]:
    """What a row's page shows, kept with the row: Unfold asks for each value up to five times."""

    @wraps(show)
    def shown(of: Any, row: Any) -> Value:
        made: dict[str, Value] = vars(row).setdefault("made", {})
        if show.__name__ not in made:
            made[show.__name__] = show(of, row)
        return made[show.__name__]

    return shown


def link_to(row: Any, request: HttpRequest, query: str = "") -> SafeString | str:
    """A row's name, with a link to its page for those who may see that."""
    if not may_view(row._meta.model, request):
        return str(row)
    address = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
    return format_html('<a class="text-link" href="{}{}">{}</a>', address, query, row)


def may_view(model: Any, request: HttpRequest) -> bool:
    """Whether the admin shows this model to whoever asks."""
    known = admin.site.is_registered(model)
    return known and admin.site.get_model_admin(model).has_view_permission(request)
