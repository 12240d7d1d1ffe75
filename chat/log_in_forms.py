"""Log-in forms that refuse a name that nobody can have before anything is done with it.

What counts wrong passwords stores the name, and PostgreSQL has no room for a longer one.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import ValidationError
from unfold.forms import AuthenticationForm as AdminAuthenticationForm


class PossibleName:
    """A user name is no longer than its column."""

    cleaned_data: dict[str, Any]

    def clean_username(self) -> str:
        """The name. Raises ValidationError."""
        name = str(self.cleaned_data["username"])
        if len(name) > (get_user_model()._meta.get_field("username").max_length or 0):
            raise ValidationError("There is no such user name.")
        return name


class LogInForm(PossibleName, AuthenticationForm):
    """Of the chat page."""


class AdminLogInForm(PossibleName, AdminAuthenticationForm):
    """Of the admin."""
