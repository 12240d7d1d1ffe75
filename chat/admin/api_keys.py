"""Keys: made with `manage.py createkey`, revoked here."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import ngettext

from chat.admin.filters import RevokedFilter, UserFilter
from chat.admin.log import ChatAdmin
from chat.models import ApiKey


@admin.register(ApiKey)
class ApiKeyAdmin(ChatAdmin):
    """Keys: made with `manage.py createkey`, revoked here."""

    list_display = ("name", "user", "prefix", "created_at", "last_used_at", "revoked_at")
    list_filter = (UserFilter, RevokedFilter)
    list_with = ("user",)
    search_help_text = "A key's name or its first letters, a user"
    search_fields = ("name", "prefix", "user__username")
    readonly_fields = ("owner", "prefix", "created_at", "last_used_at", "revoked_at")
    fields = ("name", "owner", "prefix", "created_at", "last_used_at", "revoked_at")
    actions = ("revoke",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """The secret must be shown once, which a form cannot."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A revoked key stays: the record says which one asked."""
        return False

    @admin.action(permissions=["change"], description="Revoke the selected keys")
    def revoke(self, request: HttpRequest, rows: QuerySet[ApiKey]) -> Any:
        """End their use at once, once that is confirmed; responses keep pointing at them."""
        usable = list(rows.filter(revoked_at=None))
        if not usable:
            self.message_user(request, "The selected keys are revoked already.", messages.WARNING)
            return None
        if "confirmed" not in request.POST:
            question = "Revoke these keys? Programs that use them are refused from then on."
            return self.ask(request, "Revoke keys", question, usable)
        for key in usable:
            key.revoke()
            self.log_change(request, key, "Revoked.")
        revoked = ngettext("%d key revoked.", "%d keys revoked.", len(usable)) % len(usable)
        self.message_user(request, revoked, messages.SUCCESS)
        return None
