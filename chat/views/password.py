"""A person's own password, changed by whoever knows the old one."""

from __future__ import annotations

from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import ValidationError
from django.urls import reverse_lazy

from chat.access.log_in_forms import BUSY
from chat.access.password_turns import TooManyLogIns, password_turns
from chat.limits.admission import caller_of


class OwnPasswordForm(PasswordChangeForm):
    """The old one is looked at in turn with those of log-ins, and a wrong one is as slow."""

    def clean_old_password(self) -> str:
        """It. Raises ValidationError where it is wrong, or too many are looked at."""
        try:
            with password_turns.taken(caller_of(None, self.user.pk)):
                return str(super().clean_old_password())
        except TooManyLogIns:
            raise ValidationError(BUSY) from None


class ChangePassword(PasswordChangeView):
    """Ends the person's other sessions, with what they have open; keys go on."""

    form_class = OwnPasswordForm
    template_name = "chat/password.html"
    success_url = reverse_lazy("page")
