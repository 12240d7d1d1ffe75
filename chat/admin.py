"""The log, where staff read and judge. Rows are read-only: the record is what happened."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db import connection
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin

from chat.history import trail
from chat.models import ApiKey, Conversation, Prompt, Response, shorten

BIG = 100_000


class EstimatingPaginator(Paginator):
    """Counts big tables by the planner's estimate, so that the log opens at a million rows."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        query = rows.query
        if connection.vendor == "postgresql" and not query.where:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass",
                    [query.model._meta.db_table],
                )
                estimate = int(cursor.fetchone()[0])
            if estimate > BIG:
                return estimate
        return int(super().count)


class ReadOnlyAdmin(ModelAdmin):
    """Look, search, filter; nothing is added, changed or deleted here."""

    paginator = EstimatingPaginator
    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Response)
class ResponseAdmin(ReadOnlyAdmin):
    """Every response with its prompt, figures and who asked."""

    list_display = (
        "created_at",
        "user",
        "prompt_text",
        "response_text",
        "status",
        "model",
        "tokens",
        "first_token",
        "duration",
        "api_key",
    )
    list_filter = ("status", "surface", "model", "imported", "finish_reason")
    list_select_related = ("prompt", "user", "api_key")
    search_fields = ("text", "prompt__content", "user__username", "id")
    search_help_text = "Words of a prompt or response, a user name, or a message id."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    exclude = ("prompt", "fingerprint", "lease_until")
    readonly_fields = ("prompt_text", "conversation_link", "first_token", "duration")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Response]:
        """Ids are long and only shown on the row's own page."""
        rows = super().get_queryset(request)
        return (
            rows.defer("token_ids")
            if request.resolver_match and not request.resolver_match.kwargs
            else rows
        )

    @admin.display(description="prompt")
    def prompt_text(self, row: Response) -> str:
        return shorten(row.prompt.content, 80)

    @admin.display(description="response")
    def response_text(self, row: Response) -> str:
        return shorten(row.text, 80)

    @admin.display(description="tokens")
    def tokens(self, row: Response) -> str:
        return f"{_or_dash(row.prompt_tokens)} → {_or_dash(row.completion_tokens)}"

    @admin.display(description="first token")
    def first_token(self, row: Response) -> str:
        return _seconds(row.created_at, row.first_token_at)

    @admin.display(description="took")
    def duration(self, row: Response) -> str:
        return _seconds(row.created_at, row.finished_at)

    @admin.display(description="conversation")
    def conversation_link(self, row: Response) -> SafeString:
        conversation = row.prompt.conversation
        address = reverse("admin:chat_conversation_change", args=[conversation.pk])
        return format_html('<a href="{}">{}</a>', address, conversation)


@admin.register(Conversation)
class ConversationAdmin(ReadOnlyAdmin):
    """Conversations, each readable as a transcript."""

    list_display = ("created_at", "user", "title")
    list_filter = ("user",)
    list_select_related = ("user",)
    search_fields = ("title", "user__username", "prompts__content")
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    fields = ("title", "user", "system", "created_at", "transcript")
    readonly_fields = ("transcript",)

    @admin.display(description="transcript")
    def transcript(self, row: Conversation) -> SafeString:
        """The newest path, turn by turn, as plain text."""
        newest = (
            Response.objects.filter(prompt__conversation=row)
            .select_related("prompt")
            .order_by("-created_at")
            .first()
        )
        rows = [{"is_prompt": isinstance(item, Prompt), "row": item} for item in trail(newest)]
        return render_to_string("chat/transcript.html", {"rows": rows})


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    """Keys: made with `manage.py createkey`, revoked here."""

    list_display = ("name", "user", "prefix", "created_at", "last_used_at", "revoked_at")
    list_filter = ("user", "revoked_at")
    list_select_related = ("user",)
    search_fields = ("name", "prefix", "user__username")
    readonly_fields = ("user", "prefix", "created_at", "last_used_at", "revoked_at")
    fields = ("name", "user", "prefix", "created_at", "last_used_at", "revoked_at")
    actions = ("revoke",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """The secret must be shown once, which a form cannot."""
        return False

    @admin.action(description="Revoke the selected keys")
    def revoke(self, request: HttpRequest, rows: QuerySet[ApiKey]) -> None:
        """End their use at once; responses keep pointing at them."""
        for key in rows:
            key.revoke()
        self.message_user(request, f"{len(rows)} keys revoked.", messages.SUCCESS)


def _seconds(start: Any, end: Any) -> str:
    return f"{(end - start).total_seconds():.2f} s" if start and end else "–"


def _or_dash(value: int | None) -> str:
    return "–" if value is None else str(value)
