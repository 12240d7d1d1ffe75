"""Markers that stand for texts while a template is rendered."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

DIGITS = 8  # of a marker's number; a request's body has fewer texts


class Slots:
    """The texts of one rendering. Nobody can guess their markers, so nobody can write one."""

    def __init__(self) -> None:
        self._mark = f"SLOT{secrets.token_hex(16)}N"
        self._texts: dict[str, str] = {}

    def add(self, text: str) -> str:
        """A marker for the text; an empty text needs none."""
        if not text:
            return ""
        marker = f"{self._mark}{len(self._texts):0{DIGITS}}"
        self._texts[marker] = text
        return marker

    def text(self, marker: str) -> str:
        """What the marker stands for; nothing for the end of the template."""
        return self._texts.get(marker, "")

    def split(self, rendered: str) -> Iterator[tuple[str, str]]:
        """Template text and the marker behind it, in order; the last marker is empty."""
        between, *parts = rendered.split(self._mark)
        for part in parts:
            yield between, self._mark + part[:DIGITS]
            between = part[DIGITS:]
        yield between, ""
