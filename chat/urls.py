"""The routes of the API."""

from __future__ import annotations

from django.urls import path, re_path

from chat.views import completions, conversations, health, messages, page

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
        "api/conversations/<uuid:pk>/",
        conversations.ConversationDetail.as_view(),
        name="conversation",
    ),
    path(
        "api/conversations/<uuid:pk>/prompts/", conversations.Prompts.as_view(), name="prompts"
    ),
    path("api/responses/<uuid:pk>/", conversations.ResponseDetail.as_view(), name="response"),
    path("healthz", health.Healthz.as_view(), name="healthz"),
    path("readyz", health.Readyz.as_view(), name="readyz"),
]
