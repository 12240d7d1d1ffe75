"""What comes between the look at a place and the storing of a prompt: its rendering."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modelhost.types import Rendered
from tests.fakes import ScriptedEngine


class Rendering(ScriptedEngine):
    """Counts what it renders; meanwhile, for its first prompt, somebody else does `deed`."""

    def __init__(self, deed: Callable[[], object] = lambda: None, **options: Any) -> None:
        super().__init__(**options)
        self.rendered = 0
        self._deed = deed

    def render(self, *turns: Any, **options: Any) -> Rendered:
        self.rendered += 1
        if self.rendered == 1:
            self._deed()
        return super().render(*turns, **options)
