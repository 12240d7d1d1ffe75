"""For load balancers and people who wait: is it alive, can it answer?

Nothing here waits for anything, neither a row nor the model, so that the event loop can ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chat.errors import ServerStopping
from chat.lifecycle.supervisor import supervisor
from chat.limits import storage
from modelhost.errors import ModelHostError, NotReady
from modelhost.host import HostState, host

FRESH = {"Cache-Control": "no-store"}
RETRY_AFTER = {"Retry-After": "5"}


@dataclass(frozen=True, slots=True)
class Health:
    """What is answered, by the event loop and by the views alike."""

    body: dict[str, Any]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: FRESH)


def liveness() -> Health:
    """The process answers: always 200."""
    return Health({"status": "alive"})


def readiness() -> Health:
    """A token can be made now: 200; else 503 with the state, the load's progress or its error."""
    try:
        if supervisor.draining:
            raise NotReady(str(ServerStopping()))
        card = host.engine().card
        if not supervisor.well:
            raise NotReady("Responses cannot be written at the moment.")
        if supervisor.missing:
            raise NotReady("The database is not prepared for this version; the log says more.")
        storage.check()
    except (ModelHostError, storage.DiskFull) as error:
        return Health(_waiting(str(error)), 503, FRESH | RETRY_AFTER)
    return Health({"status": "ready", "model": card.name, "revision": card.revision})


def _waiting(reason: str) -> dict[str, Any]:
    progress = host.progress
    # A model that is loaded and does not answer: its engine died, or the process is ending.
    state = "stopped" if host.state is HostState.READY else host.state
    return {
        "status": state,
        "detail": reason,
        "progress": {
            "stage": progress.stage,
            "done": progress.done,
            "total": progress.total,
            "unit": progress.unit,
            "fraction": progress.fraction,
        },
    }
