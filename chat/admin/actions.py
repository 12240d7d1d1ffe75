"""What was done in the admin, by whom: stopped, revoked, judged, downloaded."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.utils.html import format_html
from django.utils.safestring import SafeString

from chat.admin.filters import DaysFilter, UserFilter
from chat.admin.log import ReadOnlyAdmin


@admin.register(LogEntry)
class ActionAdmin(ReadOnlyAdmin):
    """Django shows these to whoever did them; here all are for those who may see log entries."""

    list_display = ("action_time", "user", "done", "done_to")
    list_display_links = None
    list_filter = (("action_time", DaysFilter), UserFilter)
    list_with = ("user", "content_type")
    sortable_by = ()

    @admin.display(description="what")
    def done(self, entry: LogEntry) -> str:
        return entry.get_change_message()

    @admin.display(description="to")
    def done_to(self, entry: LogEntry) -> SafeString | str:
        """A link where it was one row; whoever may see what all staff do may see that, too."""
        address, of = entry.get_admin_url(), entry.content_type
        if address is None or of is None:
            return entry.object_repr
        name = f"{of.name} {str(entry.object_id)[:8]}"
        return format_html('<a class="text-link" href="{}">{}</a>', address, name)
