"""For load balancers and people who wait: is it alive, can it answer?"""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response as APIResponse
from rest_framework.views import APIView

from chat.errors import ServerStopping
from chat.supervisor import supervisor
from modelhost.errors import ModelHostError, NotReady
from modelhost.host import HostState, host


class Healthz(APIView):
    """The process answers."""

    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []

    @extend_schema(responses={200: dict})
    def get(self, request: Request) -> APIResponse:
        """Always 200."""
        return APIResponse({"status": "alive"})


class Readyz(APIView):
    """A token can be made now."""

    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []

    @extend_schema(responses={200: dict, 503: dict})
    def get(self, request: Request) -> APIResponse:
        """200 when ready; else 503 with the state, the load's progress or its error."""
        try:
            if supervisor.draining:
                raise NotReady(str(ServerStopping()))
            card = host.engine().card
        except ModelHostError as error:
            return APIResponse(_waiting(str(error)), status=503, headers={"Retry-After": "5"})
        return APIResponse({"status": "ready", "model": card.name, "revision": card.revision})


def _waiting(reason: str) -> dict[str, Any]:
    progress = host.progress
    # A model that is loaded and does not answer: its engine died, or the process is ending.
    state = "stopped" if host.state is HostState.READY else host.state
    return {
        "status": state,
        "detail": reason,
        "progress": {
            "stage": progress.stage,
            "done": progress.done,
            "total": progress.total,
            "unit": progress.unit,
            "fraction": progress.fraction,
        },
    }
