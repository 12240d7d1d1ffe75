"""The WebSocket's routes."""

from __future__ import annotations

from channels.security.websocket import WebsocketDenier
from django.urls import re_path

from chat.websocket.consumers import ChatConsumer

websocket_urlpatterns = [
    re_path(r"^ws/chat/?$", ChatConsumer.as_asgi()),
    re_path(r"", WebsocketDenier.as_asgi()),  # 403, where the router would fail
]
