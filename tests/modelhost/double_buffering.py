"""The batching manager's loop as it runs on a card, on a CPU.

On a card a step is prepared while the one before it is computed, so nobody knows yet what that one
chose (transformers' `ContinuousBatchingAsyncIOs`). Streams and events are all that needs a card:
here they do nothing, since what they order happens in that order anyway.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers.generation.continuous_batching import input_outputs

from modelhost import batching


class Stream:
    """Work that is over when the call returns."""

    def record_event(self, event: object) -> None: ...

    def wait_event(self, event: object) -> None: ...

    def synchronize(self) -> None: ...


class Event(Stream):
    """A moment that has come."""

    def __init__(self, device: object, *, enable_timing: bool) -> None: ...


class Torch(SimpleNamespace):
    """torch, but for its events: those of a CPU cannot be made."""

    Event = Event

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)


@pytest.fixture
def double_buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines from now on prepare each step before the last one's tokens are known."""
    plain = batching._for_a_cpu

    def for_a_card(config, *rest):
        plain(config, *rest)
        config.use_async_batching = True

    monkeypatch.setattr(batching, "_for_a_cpu", for_a_card)
    monkeypatch.setattr(batching, "_speculate", lambda manager: None)  # never on a card
    monkeypatch.setattr(input_outputs, "torch", Torch())
    monkeypatch.setattr(input_outputs, "create_device_stream", lambda device: Stream())
    monkeypatch.setattr(
        input_outputs.ContinuousBatchingAsyncIOs, "_supported_device_types", ("cpu",)
    )
