"""The chat application."""

from __future__ import annotations

from django.apps import AppConfig


class ChatConfig(AppConfig):
    """Registers the models. The model host is started by the server, never from here."""

    name = "chat"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Registration happens on import.
        from chat import checks  # noqa: F401
        from chat.wire import schema  # noqa: F401
