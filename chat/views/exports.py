"""A caller's own log as a file."""

from __future__ import annotations

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics
from rest_framework.request import Request

from chat.limits.readers import readers, scanners, take_place
from chat.log.datasets import Format
from chat.log.exports import Export, download
from chat.models import Response
from chat.wire.filters import ExportFilter, refuse_unknown

PARAMETERS = [
    OpenApiParameter("format", enum=Format.values, description="What a line is"),
    OpenApiParameter("paths", bool, description="Only where a path through a conversation ends"),
    OpenApiParameter("conversation", OpenApiTypes.UUID),
    OpenApiParameter("since", OpenApiTypes.DATETIME),
    OpenApiParameter("until", OpenApiTypes.DATETIME),
    OpenApiParameter("status", enum=Response.Status.values),
    OpenApiParameter("search", description="Words of the prompt or the answer, all of them"),
]


class ExportOwn(generics.GenericAPIView[Response]):
    """The caller's responses, oldest first, a line of JSON for each."""

    filterset_class = ExportFilter
    queryset = Response.objects.none()
    http_method_names = ["get", "options"]  # a HEAD would read all of it and say nothing

    @extend_schema(parameters=PARAMETERS, responses={(200, "application/jsonl"): OpenApiTypes.STR})
    def get(self, request: Request) -> StreamingHttpResponse:
        """All of them, or what the filters leave. A file that ends without an error is whole."""
        refuse_unknown(request.query_params, *ExportFilter.base_filters, paged=False)
        chosen = self.filter_queryset(Response.objects.for_user(request.user))
        layout = Format(request.query_params.get("format") or Format.RECORDS)
        take_place(request, readers, scanners)
        return download(request, Export(chosen, layout), "responses")
