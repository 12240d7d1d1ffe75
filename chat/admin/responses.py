"""Every response, with what is known about it."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.utils import display_for_label

from chat import responses
from chat.admin.cells import answer, answer_block, json_block, said, seconds, text_block
from chat.admin.filters import ConversationFilter
from chat.admin.log import ReadOnlyAdmin
from chat.models import Response, shorten

LABELS = {
    **dict.fromkeys(Response.ACTIVE, "info"),
    Response.Status.DONE: "success",
    Response.Status.STOPPED: "warning",
    **dict.fromkeys((Response.Status.FAILED, Response.Status.INTERRUPTED), "danger"),
}


@admin.register(Response)
class ResponseAdmin(ReadOnlyAdmin):
    """Every response with its prompt, figures and who asked."""

    list_display = (
        "asked_at",
        "user",
        "prompt_text",
        "response_text",
        "status_label",
        "tokens",
        "first_token",
        "duration",
        "model",
        "key_name",
    )
    list_filter = (
        "status",
        "surface",
        "model",
        "imported",
        "finish_reason",
        ConversationFilter,
    )
    list_filter_submit = True
    list_select_related = ("prompt", "user", "api_key")
    search_fields = ("text", "prompt__content", "user__username", "id")
    search_help_text = "Words of a prompt or response, a user, an id"
    date_hierarchy = "created_at"
    actions = ("stop",)
    fieldsets = (
        ("Asked", {"fields": ("full_prompt", "role", "conversation_link", "asked_at")}),
        ("Answered", {"fields": ("full_text", "status_label", "finish_reason", "error")}),
        (
            "Figures",
            {
                "fields": (
                    ("prompt_tokens", "completion_tokens"),
                    ("first_token", "duration"),
                    ("speed", "unseen"),
                    ("model", "revision", "adapter"),
                )
            },
        ),
        ("Tools", {"fields": ("offered_tools", "called_tools")}),
        (
            "Sampling",
            {"fields": (("temperature", "top_p"), ("top_k", "max_tokens"), ("seed", "stop"))},
        ),
        (
            "Who",
            {
                "fields": (
                    ("user", "key_name"),
                    ("surface", "client"),
                    ("message_id", "on_disconnect"),
                )
            },
        ),
        ("Token ids", {"fields": ("token_ids",), "classes": ("collapse",)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Response]:
        """Ids are long and only shown on the row's own page."""
        rows = super().get_queryset(request)
        match = request.resolver_match
        return rows.defer("token_ids") if match and not match.kwargs else rows

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Response], search_term: str
    ) -> tuple[QuerySet[Response], bool]:
        """Message ids are shown without hyphens, which PostgreSQL would not find."""
        with suppress(ValueError):
            search_term = str(UUID(search_term.strip()))
        return super().get_search_results(request, queryset, search_term)

    def has_stop_permission(self, request: HttpRequest) -> bool:
        """To look is one right, to end somebody's answer another."""
        return request.user.has_perm("chat.change_response")

    @admin.action(permissions=["stop"], description="Stop the selected responses")
    def stop(self, request: HttpRequest, rows: QuerySet[Response]) -> None:
        """End what is being generated; the texts so far stay."""
        # Not the rest of them: "select all" of the log is a million rows, with all their text.
        active: QuerySet[Response] = rows.filter(status__in=Response.ACTIVE)
        stopped = 0
        for row in active.select_related(None).only("status"):
            responses.stop(row)
            stopped += 1
        self.message_user(request, f"{stopped} responses stopped.", messages.SUCCESS)

    @admin.display(description="asked", ordering="created_at")
    def asked_at(self, row: Response) -> str:
        return f"{timezone.localtime(row.created_at):%Y-%m-%d %H:%M:%S}"

    @admin.display(description="prompt")
    def prompt_text(self, row: Response) -> str:
        return shorten(said(row.prompt), 80)

    @admin.display(description="response")
    def response_text(self, row: Response) -> str:
        return shorten(answer(row) or row.error, 80)

    @admin.display(description="prompt")
    def full_prompt(self, row: Response) -> SafeString:
        return text_block(row.prompt.content)

    @admin.display(description="said by")
    def role(self, row: Response) -> str:
        return row.prompt.role

    @admin.display(description="offered")
    def offered_tools(self, row: Response) -> SafeString | str:
        return json_block(row.tools)

    @admin.display(description="called")
    def called_tools(self, row: Response) -> SafeString | str:
        return json_block(row.tool_calls)

    @admin.display(description="response")
    def full_text(self, row: Response) -> SafeString:
        return answer_block(row)

    @admin.display(description="status", ordering="status")
    def status_label(self, row: Response) -> SafeString:
        if row.imported:
            return display_for_label("imported", "–", True)
        return display_for_label((row.status, row.get_status_display()), "–", LABELS)

    @admin.display(description="tokens")
    def tokens(self, row: Response) -> str:
        counts = (row.prompt_tokens, row.completion_tokens)
        return " → ".join("–" if count is None else str(count) for count in counts)

    @admin.display(description="first token")
    def first_token(self, row: Response) -> str:
        return seconds(row.created_at, row.first_token_at)

    @admin.display(description="took")
    def duration(self, row: Response) -> str:
        return seconds(row.created_at, row.finished_at)

    @admin.display(description="speed")
    def speed(self, row: Response) -> str:
        if not (row.first_token_at and row.finished_at and row.completion_tokens):
            return "–"
        took = (row.finished_at - row.first_token_at).total_seconds()
        return f"{(row.completion_tokens - 1) / took:.1f} tokens/s" if took > 0 else "–"

    @admin.display(description="not seen by the model")
    def unseen(self, row: Response) -> str:
        """The context receipt: earlier turns that did not fit, as ids that the search finds."""
        return f"{len(row.omitted)} turns: {', '.join(row.omitted)}" if row.omitted else "–"

    @admin.display(description="key", ordering="api_key")
    def key_name(self, row: Response) -> str:
        return row.api_key.name if row.api_key else "–"

    @admin.display(description="message id")
    def message_id(self, row: Response) -> str:
        return row.pk.hex

    @admin.display(description="conversation")
    def conversation_link(self, row: Response) -> SafeString:
        conversation = row.prompt.conversation
        address = reverse("admin:chat_conversation_change", args=[conversation.pk])
        here = f"{address}?response={row.pk}"
        return format_html('<a class="text-link" href="{}">{}</a>', here, conversation)
