"""Every response, with what is known about it."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import ngettext
from unfold.contrib.filters.admin import (
    AutocompleteSelectFilter,
    BooleanRadioFilter,
    ChoicesDropdownFilter,
)
from unfold.decorators import action
from unfold.enums import ActionVariant

from chat import responses
from chat.admin.columns import ResponseColumns
from chat.admin.downloads import Downloads
from chat.admin.filters import (
    ConversationFilter,
    DaysFilter,
    FinishReasonFilter,
    ModelFilter,
    PeriodFilter,
    SurfaceFilter,
    UserFilter,
    VerdictFilter,
    uuid_of,
)
from chat.admin.log import ReadOnlyAdmin, may_view
from chat.admin.verdicts import Judging
from chat.models import ApiKey, Response


@admin.register(Response)
class ResponseAdmin(ResponseColumns, Downloads, Judging, ReadOnlyAdmin):
    """Every response with its prompt, figures and who asked."""

    list_display = (
        "asked_at",
        "user",
        "prompt_text",
        "response_text",
        "status_label",
        "verdict_labels",
        "tokens",
        "first_token",
        "duration",
        "model",
        "key_name",
    )
    list_filter = (
        PeriodFilter,
        ("created_at", DaysFilter),
        UserFilter,
        ("api_key", AutocompleteSelectFilter),
        ("status", ChoicesDropdownFilter),
        VerdictFilter,
        FinishReasonFilter,
        SurfaceFilter,
        ModelFilter,
        ("imported", BooleanRadioFilter),
        ConversationFilter,
    )
    sortable_by = ("asked_at",)
    list_with = ("prompt", "user", "api_key", "verdicts")
    list_without = ("token_ids", "continuation", "tools")
    search_fields = ("text", "prompt__content", "user__username", "api_key__name")
    search_help_text = "Words of a prompt or response, a user, a key, an id"
    actions = ("stop", "download_records", "download_messages", "download_conversations")
    actions_detail = ("stop_this",)
    fieldsets = (
        (
            "Asked",
            {"fields": ("full_prompt", "role", "full_persona", "conversation_link", "asked_at")},
        ),
        ("Answered", {"fields": ("full_text", "status_label", "finish_reason", "error")}),
        ("Judged", {"fields": ("all_verdicts",)}),
        (
            "Figures",
            {
                "fields": (
                    ("prompt_tokens", "completion_tokens"),
                    ("first_token", "duration"),
                    ("speed", "unseen"),
                    "model",
                    ("revision", "adapter"),
                )
            },
        ),
        ("Tools", {"fields": ("offered_tools", "called_tools")}),
        (
            "Sampling",
            {"fields": (("temperature", "top_p"), ("top_k", "max_tokens"), ("seed", "stop_texts"))},
        ),
        (
            "Who",
            {
                "fields": (
                    ("owner", "key_name"),
                    ("surface", "told"),
                    ("message_id", "on_disconnect"),
                )
            },
        ),
        ("Token ids", {"fields": ("all_token_ids",), "classes": ("collapse",)}),
    )

    def get_list_filter(self, request: HttpRequest) -> Any:
        """Keys are chosen by those who may see them."""
        filters = super().get_list_filter(request)
        if may_view(ApiKey, request):
            return filters
        return [each for each in filters if each != ("api_key", AutocompleteSelectFilter)]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Response], search_term: str
    ) -> tuple[QuerySet[Response], bool]:
        """An id names a row, or a prompt's rows, and is found as such; words are looked for."""
        if (named := uuid_of(search_term)) is not None:
            return queryset.filter(Q(pk=named) | Q(prompt=named)), False
        return super().get_search_results(request, queryset, search_term)

    def has_stop_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """To look is one right, to end somebody's answer another."""
        return request.user.has_perm("chat.change_response")

    @admin.action(permissions=["stop"], description="Stop the selected responses")
    def stop(self, request: HttpRequest, rows: QuerySet[Response]) -> None:
        """End what is being generated; the texts so far stay."""
        # Not the rest of them: "select all" of the log is a million rows, with all their text.
        active: QuerySet[Response] = rows.filter(status__in=Response.ACTIVE)
        found = active.prefetch_related(None).only("status", "text")
        count = sum(self._end(request, row) for row in list(found))
        if not count:
            nothing = "None of the selected responses is being generated."
            self.message_user(request, nothing, messages.WARNING)
            return
        said = ngettext("%d response stopped.", "%d responses stopped.", count) % count
        self.message_user(request, said, messages.SUCCESS)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """The button to stop it, while there is something to stop."""
        named = uuid_of(str(object_id))
        if named is None or not Response.objects.active().filter(pk=named).exists():
            return []
        return super().get_actions_detail(request, object_id)

    @action(
        permissions=["stop"],
        description="Stop",
        url_path="stop",
        icon="stop_circle",
        variant=ActionVariant.DANGER,
    )
    def stop_this(self, request: HttpRequest, object_id: str) -> Any:
        """End this one, once that is confirmed."""
        row: Response | None = self.get_object(request, object_id)
        if row is None:
            raise Http404
        if row.active and "confirmed" not in request.POST:
            question = "Stop this response? Its text so far stays."
            return self.ask(request, "Stop a response", question, [row])
        if self._end(request, row):
            self.message_user(request, "1 response stopped.", messages.SUCCESS)
        else:
            self.message_user(request, "This response has ended already.", messages.WARNING)
        address = reverse("admin:chat_response_change", args=[row.pk])
        return redirect(f"{address}{self.list_shown(request)}")

    def _end(self, request: HttpRequest, row: Response) -> bool:
        """Stop it; whether there was anything to stop, which is noted then."""
        if not responses.stop(row):
            return False
        # Without its text: its user may delete that, and the log of actions stays.
        self.log_change(request, Response(pk=row.pk, status=row.status), "Stopped.")
        return True
