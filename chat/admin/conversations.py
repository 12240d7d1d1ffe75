"""Conversations, each readable as a transcript."""

from __future__ import annotations

from django.contrib import admin
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from chat.admin.log import ReadOnlyAdmin
from chat.history import trail
from chat.models import Conversation, Prompt


@admin.register(Conversation)
class ConversationAdmin(ReadOnlyAdmin):
    """Conversations, each readable as a transcript."""

    list_display = ("created_at", "user", "title")
    list_filter = ("user",)
    list_select_related = ("user",)
    search_fields = ("title", "user__username", "prompts__content")
    date_hierarchy = "created_at"
    fields = ("title", "user", "system", "created_at", "transcript")

    @admin.display(description="transcript")
    def transcript(self, row: Conversation) -> SafeString:
        """The newest path, turn by turn, as plain text."""
        path = trail(row.newest_response())
        rows = [{"is_prompt": isinstance(item, Prompt), "row": item} for item in path]
        return render_to_string("chat/transcript.html", {"rows": rows})
