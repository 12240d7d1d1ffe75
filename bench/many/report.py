"""What was found, printed as it comes and kept in docs/figures.md."""

from __future__ import annotations

import re

from bench.many.processes import ROOT

DOCUMENT = ROOT / "docs" / "figures.md"
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"


class Report:
    """Markdown that grows."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def add(self, *parts: str) -> None:
        """Paragraphs or tables."""
        for part in parts:
            print(part, flush=True)
            print(flush=True)
            self._parts.append(part)

    def add_list(self, lines: list[str]) -> None:
        """A list, when there is something in it."""
        if lines:
            self.add("\n".join(f"- {one}" for one in lines))

    def write(self) -> None:
        """Replace the section between the markers; without markers it goes to the end."""
        section = "\n\n".join([BEGIN, *self._parts, END])
        text = DOCUMENT.read_text()
        between = re.compile(re.escape(BEGIN) + ".*" + re.escape(END), re.DOTALL)
        if between.search(text):
            text = between.sub(lambda _: section, text)
        else:
            text = f"{text.rstrip()}\n\n{section}\n"
        DOCUMENT.write_text(text)
