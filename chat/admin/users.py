"""Users and groups as Django has them, in the looks and with the limits of the other pages."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth import admin as plain
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from chat.admin.lookups import FilterLookups
from chat.models import ApiKey, Conversation

admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(FilterLookups, plain.UserAdmin, ModelAdmin):
    """Who may log in, and who may see what."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What would go with people: conversations may not, keys that nothing points at may.

        Whoever has a conversation stays. Django would read all that they ever said to list it.
        """
        if Conversation.objects.filter(user__in=objs).exists():
            return [], {}, {str(Conversation._meta.verbose_name)}, []
        found, counts, forbidden, protected = super().get_deleted_objects(objs, request)
        return found, counts, forbidden - {ApiKey._meta.verbose_name}, protected


@admin.register(Group)
class GroupAdmin(FilterLookups, plain.GroupAdmin, ModelAdmin):
    """Rights that several people share."""
