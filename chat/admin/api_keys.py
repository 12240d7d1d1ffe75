"""Keys: made here or with `manage.py createkey`, shown once, revoked here."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import ngettext
from unfold.widgets import UnfoldAdminTextInputWidget

from chat.admin.filters import RevokedFilter, UserFilter
from chat.admin.log import ChatAdmin
from chat.models import ApiKey

FIELDS_BESIDE = 3  # in a form that asks about keys, one field each: token, action, confirmation


class NewKeyForm(forms.ModelForm):
    """Whose a new key shall be, and what for.

    maker: who asks for it. A key acts as its person, so only a superuser makes one for other staff.
    """

    maker: Any
    username = forms.CharField(
        label="User",
        help_text="By user name: whom the key acts as.",
        widget=UnfoldAdminTextInputWidget,
    )
    name = forms.CharField(
        help_text="What it is for: a program, a machine.",
        max_length=100,
        widget=UnfoldAdminTextInputWidget,
    )

    class Meta:
        model = ApiKey
        fields = ("name",)

    def clean_username(self) -> str:
        """A name is written by hand, as in the filters: nobody is looked for in a long list."""
        users = get_user_model()
        name = str(users.normalize_username(self.cleaned_data["username"]))
        user = users.objects.filter(username=name, is_active=True).first()
        if user is None:
            raise ValidationError("No active user has this name.")
        if not self._may_act_as(user):
            raise ValidationError("Only a superuser makes keys for other staff and for superusers.")
        self.instance.user = user
        return name

    def _may_act_as(self, user: Any) -> bool:
        """Whether that person may no more than the maker: of those who are not staff so is each."""
        plain = not (user.is_staff or user.is_superuser)
        return plain or self.maker.is_superuser or user.pk == self.maker.pk


@admin.register(ApiKey)
class ApiKeyAdmin(ChatAdmin):
    """Keys: made here or with `manage.py createkey`, shown once, revoked here."""

    list_display = ("name", "user", "prefix", "created_at", "last_used_at", "revoked_at")
    list_filter = (UserFilter, RevokedFilter)
    list_with = ("user",)
    search_help_text = "A key's name or its first letters, a user"
    search_fields = ("name", "prefix", "user__username")
    readonly_fields = ("owner", "prefix", "created_at", "last_used_at", "revoked_at")
    fields = ("name", "owner", "prefix", "created_at", "last_used_at", "revoked_at")
    actions = ("revoke",)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A revoked key stays: the record says which one asked."""
        return False

    def get_form(self, request: HttpRequest, obj: Any = None, **options: Any) -> Any:
        """Another one for a new key, which knows who makes it."""
        if obj:
            return super().get_form(request, obj, **options)
        return type("NewKeyForm", (NewKeyForm,), {"maker": request.user})

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Nothing of a new key is known yet."""
        return super().get_fields(request, obj) if obj else ("username", "name")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """The same."""
        return super().get_readonly_fields(request, obj) if obj else ()

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> Any:
        """With one button: what comes is the only sight of the secret."""
        one_button = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, {**(extra_context or {}), **one_button})

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """A new key gets its secret, which the row keeps for its page alone."""
        if not change:
            obj.secret = obj.new_secret()
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: Any, *_: Any) -> HttpResponse:
        """The secret, in the answer itself: a redirect would have to keep it somewhere.

        Pages of the admin are not stored by browsers.
        """
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "A new API key",
            "key": obj,
        }
        return render(request, "chat/new_key.html", context)

    @admin.action(permissions=["change"], description="Revoke the selected keys")
    def revoke(self, request: HttpRequest, rows: QuerySet[ApiKey]) -> Any:
        """End their use at once, once that is confirmed; responses keep pointing at them."""
        found = rows.filter(revoked_at=None)
        usable = list(found[: settings.DATA_UPLOAD_MAX_NUMBER_FIELDS - FIELDS_BESIDE])
        if usable and "confirmed" not in request.POST:
            which = "these keys" if len(usable) == found.count() else f"these {len(usable)} first"
            question = f"Revoke {which}? Programs that use them are refused from then on."
            return self.ask(request, "Revoke keys", question, usable)
        revoked = [key for key in usable if key.revoke()]  # else somebody else was faster
        for key in revoked:
            self.log_change(request, key, "Revoked.")
        if not revoked:
            self.message_user(request, "The selected keys are revoked already.", messages.WARNING)
            return None
        count = len(revoked)
        said = ngettext("%d key revoked.", "%d keys revoked.", count) % count
        self.message_user(request, said, messages.SUCCESS)
        return None
