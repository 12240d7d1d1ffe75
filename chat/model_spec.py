"""The model that the settings name."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from modelhost.types import ModelSpec


def spec() -> ModelSpec:
    """The settings as modelhost's configuration."""
    return ModelSpec(
        model=settings.LLMSITE_MODEL,
        revision=settings.LLMSITE_REVISION,
        adapter=Path(settings.LLMSITE_ADAPTER) if settings.LLMSITE_ADAPTER else None,
        device=settings.LLMSITE_DEVICE,
        dtype=settings.LLMSITE_DTYPE,
        quantize=settings.LLMSITE_QUANTIZE,
        cache_tokens=settings.LLMSITE_CACHE_TOKENS,
        cache_dir=Path(settings.LLMSITE_CACHE) if settings.LLMSITE_CACHE else None,
        max_requests=settings.LLMSITE_MAX_REQUESTS,
        share_prefixes=settings.LLMSITE_PREFIX_SHARING == "owner",
        speculate=settings.LLMSITE_SPECULATION == "on",
        patience=settings.LLMSITE_ENGINE_PATIENCE,
    )
