"""Values as the lists and pages show them."""

from __future__ import annotations

from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString


def text_block(text: str) -> SafeString:
    """A text with its lines, in the direction of its script."""
    return format_html('<div class="chat-text" dir="auto">{}</div>', text or "–")


def seconds(start: Any, end: Any) -> str:
    """How long it was from one moment to the other."""
    return f"{(end - start).total_seconds():.2f} s" if start and end else "–"
