"""The probes as views: for the schema, and wherever `llmsite.probes` is not in front of Django."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response as APIResponse
from rest_framework.views import APIView

from chat.monitoring.health import Health, liveness, readiness


class Healthz(APIView):
    """The process answers."""

    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []

    @extend_schema(responses={200: dict})
    def get(self, request: Request) -> APIResponse:
        """Always 200."""
        return _answer(liveness())


class Readyz(APIView):
    """A token can be made now."""

    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []

    @extend_schema(responses={200: dict, 503: dict})
    def get(self, request: Request) -> APIResponse:
        """200 when ready; else 503 with the state, the load's progress or its error."""
        return _answer(readiness())


def _answer(health: Health) -> APIResponse:
    return APIResponse(health.body, status=health.status, headers=dict(health.headers))
