"""The API's description, OpenAPI: made once, since it is the same for everybody who asks."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.http import HttpResponse
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request


class Description(SpectacularAPIView):
    """As YAML or JSON. Whoever asks without a key costs no more than a page."""

    content_negotiation_class = DefaultContentNegotiation
    http_method_names = ["get", "head"]

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        """In the format that is asked for."""
        renderer: Any = request.accepted_renderer
        return HttpResponse(
            described(renderer.media_type),
            content_type=f"{renderer.media_type}; charset=utf-8",
            headers={"Content-Disposition": f'inline; filename="llmsite.{renderer.format}"'},
        )


@cache
def described(media_type: str) -> Any:
    """All of it, written down as this; it takes far longer to make than to send."""
    kinds = SpectacularAPIView.renderer_classes
    renderer = next(kind for kind in kinds if kind.media_type == media_type)()
    return renderer.render(SchemaGenerator().get_schema(request=None, public=True))
