"""What a process counts, for those who watch over it."""

from __future__ import annotations

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from prometheus_client.exposition import choose_encoder
from rest_framework.permissions import IsAdminUser
from rest_framework.request import Request
from rest_framework.views import APIView

from chat.failures import Code
from chat.models import Response
from chat.monitoring.gauges import Gauges
from chat.monitoring.health import FRESH
from chat.monitoring.metrics import REFUSALS, RESPONSES, registry

registry.register(Gauges())
# From the beginning: what is not there before it is 1 has no increase.
for status in set(Response.Status) - set(Response.ACTIVE):
    RESPONSES.labels(status)
for code in Code:
    REFUSALS.labels(code)


class Metrics(APIView):
    """In Prometheus' text format, or in OpenMetrics where that is asked for."""

    permission_classes = [IsAdminUser]
    http_method_names = ["get", "head", "options"]

    @extend_schema(responses={(200, "text/plain"): OpenApiTypes.STR})
    def get(self, request: Request) -> HttpResponse:
        """Counters and gauges of the process that answers. For staff and their keys only."""
        try:
            encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        except (TypeError, ValueError):  # the library takes any version for a number
            encode, content_type = choose_encoder("")
        return HttpResponse(encode(registry), content_type=content_type, headers=dict(FRESH))
