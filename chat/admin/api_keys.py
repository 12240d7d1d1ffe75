"""Keys: made with `manage.py createkey`, revoked here."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

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
    def revoke(self, request: HttpRequest, rows: QuerySet[ApiKey]) -> None:
        """End their use at once; responses keep pointing at them."""
        for key in rows:
            key.revoke()
        self.message_user(request, f"{len(rows)} keys revoked.", messages.SUCCESS)
