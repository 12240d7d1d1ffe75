"""The routes of the API."""

from __future__ import annotations

from uuid import UUID

from django.urls import path, re_path, register_converter
from django.urls.converters import UUIDConverter

from chat.views import (
    completions,
    conversations,
    exports,
    health,
    messages,
    metrics,
    page,
    responses,
)


class AnyUUIDConverter(UUIDConverter):
    """A UUID with or without dashes: a `message_id` is 32 hex digits."""

    regex = r"[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}"

    def to_python(self, value: str) -> UUID:
        return UUID(hex=value)


register_converter(AnyUUIDConverter, "id")

urlpatterns = [
    path("", page.ChatPage.as_view(), name="page"),
    # The tutorial's clients are not agreed about the slash, and a redirect would lose a body.
    re_path(r"^chat/new/message/?$", messages.NewMessage.as_view(), name="new-message"),
    re_path(r"^chat/get/messages/?$", messages.Messages.as_view(), name="messages"),
    re_path(r"^sendMessage/?$", messages.SendMessage.as_view(), name="send-message"),
    path("v1/chat/completions", completions.ChatCompletions.as_view(), name="chat-completions"),
    path("v1/models", completions.Models.as_view(), name="models"),
    path("v1/models/<path:name>", completions.ModelDetail.as_view(), name="model"),
    path("api/conversations/", conversations.Conversations.as_view(), name="conversations"),
    path(
        "api/conversations/<id:pk>/",
        conversations.ConversationDetail.as_view(),
        name="conversation",
    ),
    path("api/conversations/<id:pk>/prompts/", conversations.Prompts.as_view(), name="prompts"),
    path("api/prompts/<id:pk>/responses/", responses.PromptResponses.as_view(), name="regenerate"),
    path("api/responses/<id:pk>/", responses.ResponseDetail.as_view(), name="response"),
    path("api/export", exports.ExportOwn.as_view(), name="export"),
    path("api/responses/<id:pk>/events", responses.ResponseEvents.as_view(), name="events"),
    path("api/responses/<id:pk>/stop", responses.ResponseStop.as_view(), name="stop"),
    path("healthz", health.Healthz.as_view(), name="healthz"),
    path("readyz", health.Readyz.as_view(), name="readyz"),
    path("metrics", metrics.Metrics.as_view(), name="metrics"),
]
