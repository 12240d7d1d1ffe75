"""Log-in forms that refuse a name that nobody can have before anything is done with it.

What counts wrong passwords stores the name, and PostgreSQL has no room for a longer one. It is
asked before a password is looked at, which takes a while: so once more behind that.
"""

from __future__ import annotations

from typing import Any

from axes.handlers.proxy import AxesProxyHandler
from django.contrib.auth import get_user_model
from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import ValidationError
from unfold.forms import AuthenticationForm as AdminAuthenticationForm

from chat.access.addresses import client_address
from chat.access.password_turns import TooManyLogIns, password_turns

BUSY = "Many are logging in just now. Try again in a few seconds."


class Limited:
    """A user name is no longer than its column, and passwords take turns."""

    cleaned_data: dict[str, Any]
    request: Any
    busy = False  # whether the password was not even looked at

    def clean_username(self) -> str:
        """The name. Raises ValidationError."""
        name = str(self.cleaned_data["username"])
        if len(name) > (get_user_model()._meta.get_field("username").max_length or 0):
            raise ValidationError("There is no such user name.")
        return name

    def clean(self) -> dict[str, Any]:
        """Look at the password, in turn with others. Raises ValidationError."""
        try:
            with password_turns.taken(client_address(self.request)):
                return super().clean()  # type: ignore[misc]
        except TooManyLogIns:
            self.busy = True
            raise ValidationError(BUSY) from None

    def confirm_login_allowed(self, user: Any) -> None:
        """The password is right. Raises ValidationError where too many wrong ones came with it."""
        super().confirm_login_allowed(user)  # type: ignore[misc]
        if not AxesProxyHandler.is_allowed(self.request, {"username": user.get_username()}):
            self.request.axes_locked_out = True  # what axes' middleware answers
            raise ValidationError("Too many wrong passwords.")


class LogInForm(Limited, AuthenticationForm):
    """Of the chat page."""


class AdminLogInForm(Limited, AdminAuthenticationForm):
    """Of the admin."""
