"""Conversations, each readable as a transcript."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from chat.admin.cells import NOTHING, text_block
from chat.admin.filters import DaysFilter, PeriodFilter, UserFilter, uuid_of
from chat.admin.log import ReadOnlyAdmin, made_once, may_view
from chat.admin.transcripts import entries
from chat.admin.versions import Versions
from chat.models import Conversation, Response


@admin.register(Conversation)
class ConversationAdmin(ReadOnlyAdmin):
    """Conversations, each readable as a transcript."""

    list_display = ("created_at", "user", "title")
    list_filter = (PeriodFilter, ("created_at", DaysFilter), UserFilter)
    sortable_by = ("created_at",)
    list_with = ("user",)
    search_help_text = "Words of a title or a prompt, a user, an id"
    search_fields = ("title", "user__username", "prompts__content")
    fields = ("title", "owner", "persona", "created_at", "all_responses", "transcript")

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Without a history: nobody changes anything here."""
        context = {**(extra_context or {}), "show_history": False}
        return super().changeform_view(request, object_id, form_url, context)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Conversation], search_term: str
    ) -> tuple[QuerySet[Conversation], bool]:
        """An id names one conversation; words are looked for."""
        if (named := uuid_of(search_term)) is not None:
            return queryset.filter(pk=named), False
        return super().get_search_results(request, queryset, search_term)

    @admin.display(description="persona")
    def persona(self, row: Conversation) -> SafeString | str:
        """The present one: each response's page says under which it was asked."""
        return text_block(row.system) if row.system else NOTHING

    @admin.display(description="responses")
    @made_once
    def all_responses(self, row: Any) -> SafeString | str:
        """Where every row of it is, on whichever path."""
        count = Response.objects.filter(prompt__conversation=row).count()
        if not may_view(Response, row.request):
            return str(count)
        address = f"{reverse('admin:chat_response_changelist')}?conversation={row.pk}"
        return format_html('<a class="text-link" href="{}">all {}</a>', address, count)

    @admin.display(description="transcript")
    @made_once
    def transcript(self, row: Any) -> SafeString:
        """One path, turn by turn, as plain text: the newest, or one through a chosen response."""
        versions = Versions(row)
        newest = versions.newest()
        end = versions.end_through(uuid_of(row.request.GET.get("response", ""))) or newest
        leaf = Response.objects.select_related("prompt").get(pk=end) if end else None
        context: dict[str, Any] = {"entries": entries(leaf, versions), "elsewhere": end != newest}
        context["linked"] = may_view(Response, row.request)
        return render_to_string("chat/transcript.html", context)
