"""The witness engine with a stride, and what its words give away."""

from __future__ import annotations

from typing import Any

from modelhost.types import FinishReason
from tests.witness import Play, WitnessEngine, witness_text

__all__ = ["StridingWitness", "foreign_words", "witness_text"]


class StridingWitness(WitnessEngine):
    """Says several characters at a time, as a tokenizer's words come: fewer, larger pieces."""

    def __init__(self, *, stride: int = 16, **options: Any) -> None:
        super().__init__(**options)
        self._stride = stride

    def _advance(self, play: Play) -> None:
        fresh = play.ids[play.said : play.said + self._stride]
        going_on = play.ticket.deliver(fresh, after=play.said)
        play.said += len(fresh)
        if going_on and play.said < len(play.ids):
            return
        self._forget(play.ticket.request_id)
        play.ticket.end(FinishReason.STOP if play.full or not going_on else FinishReason.LENGTH)


def foreign_words(name: str, text: str) -> list[str]:
    """Words that cannot come from an answer to this name; the last one may be cut off."""
    *whole, last = text.split(" ")
    strange = [word for word in whole if not word.startswith(f"{name}:")]
    return strange + ([] if f"{name}:".startswith(last[: len(name) + 1]) else [last])
