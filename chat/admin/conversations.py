"""Conversations, each readable as a transcript."""

from __future__ import annotations

from django.contrib import admin
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from chat.admin.log import ReadOnlyAdmin
from chat.admin.transcripts import entries
from chat.models import Conversation


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
        return render_to_string("chat/transcript.html", {"entries": entries(row.newest_response())})
