"""The format `jsonl`."""

from __future__ import annotations

from django.core.serializers import jsonl

from llmsite.dumps import WholeMoments

Deserializer = jsonl.Deserializer


class Serializer(jsonl.Serializer):
    """Django's, with whole moments."""

    def _init_options(self) -> None:
        super()._init_options()  # type: ignore[misc]  # the stubs leave it out
        self.json_kwargs["cls"] = WholeMoments
