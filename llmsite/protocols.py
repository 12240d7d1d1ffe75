"""Which application answers what: the layers in front of Django, and the WebSocket beside it.

Imported once Django is set up; no model is loaded by it.
"""

from __future__ import annotations

from typing import Any

from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings

from chat.connections import ConnectionWatch
from chat.monitoring.health import liveness, readiness
from chat.websocket.routing import websocket_urlpatterns
from llmsite.body_gate import BodyGate
from llmsite.probes import Probes
from llmsite.request_ids import RequestIds


def by_protocol(django_application: Any, **others: Any) -> ProtocolTypeRouter:
    """The ASGI application around Django's. others: of further protocols, as `lifespan`."""
    gate = BodyGate(
        ConnectionWatch(django_application),
        limit=settings.LLMSITE_MAX_BODY,
        seconds=settings.LLMSITE_BODY_SECONDS,
    )
    return ProtocolTypeRouter(
        {
            "http": RequestIds(Probes(gate, {"/healthz": liveness, "/readyz": readiness})),
            "websocket": URLRouter(websocket_urlpatterns),
            **others,
        }
    )
