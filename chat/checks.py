"""System checks: one for each way to misconfigure what the service relies on.

None has the tag `database`, whose checks only `migrate` runs: these read settings alone.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from django.conf import settings
from django.core import checks
from django.db import connections

PREFIX = "LLMSITE_"  # of all settings of this project


@checks.register()
def no_atomic_requests(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    """A transaction around a request would end before its stream is read."""
    return [
        checks.Error(
            f"ATOMIC_REQUESTS is on for the database {alias!r}.",
            hint="Switch it off; responses make their own durable transactions.",
            id="chat.E001",
        )
        for alias in connections
        if connections[alias].settings_dict.get("ATOMIC_REQUESTS")
    ]


@checks.register()
def sqlite_takes_turns(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    """Deferred transactions on SQLite fail under contention instead of waiting."""
    return [
        checks.Error(
            f"The SQLite database {alias!r} does not use IMMEDIATE transactions.",
            hint='Set OPTIONS["transaction_mode"] = "IMMEDIATE", as llmsite.settings does.',
            id="chat.E002",
        )
        for alias in connections
        if connections[alias].vendor == "sqlite"
        and connections[alias].settings_dict["OPTIONS"].get("transaction_mode") != "IMMEDIATE"
    ]


@checks.register()
def no_persistent_connections(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    """Under ASGI every request has its own thread, and a kept handle leaks with it."""
    return [
        checks.Error(
            f"CONN_MAX_AGE is not 0 for the database {alias!r}.",
            hint="Set it to 0; for PostgreSQL use a pool instead.",
            id="chat.E003",
        )
        for alias in connections
        if connections[alias].settings_dict.get("CONN_MAX_AGE") != 0
    ]


@checks.register()
def every_variable_is_read(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    """A name that is misspelt would be a setting that is not there, and nobody would know."""
    return [
        checks.Warning(
            f"{name} is set, and there is no such setting.",
            hint=_meant(name) or "See docs/configuration.md.",
            id="chat.W001",
        )
        for name in settings.LLMSITE_UNREAD
    ]


def _meant(name: str) -> str:
    # Without what all begin with: that alone would be likeness enough.
    known = [one.removeprefix(PREFIX) for one in dir(settings) if one.startswith(PREFIX)]
    similar = get_close_matches(name.removeprefix(PREFIX), known, n=1)
    return f"{PREFIX}{similar[0]} was meant?" if similar else ""


@checks.register()
def settings_are_in_range(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    """Numbers that the service could not work with, the default sampling among them."""
    ranges = {
        "LLMSITE_TEMPERATURE": 0 <= settings.LLMSITE_TEMPERATURE <= 2,
        "LLMSITE_TOP_P": 0 < settings.LLMSITE_TOP_P <= 1,
        "LLMSITE_ENGINE_PATIENCE": settings.LLMSITE_ENGINE_PATIENCE > 0,
        "LLMSITE_MAX_REQUESTS": settings.LLMSITE_MAX_REQUESTS >= 1,
        "LLMSITE_MAX_QUEUED_TOKENS": settings.LLMSITE_MAX_QUEUED_TOKENS >= 1,
        "LLMSITE_MAX_REQUESTS_PER_CALLER": settings.LLMSITE_MAX_REQUESTS_PER_CALLER >= 1,
        "LLMSITE_MAX_TOKENS_PER_CALLER": settings.LLMSITE_MAX_TOKENS_PER_CALLER >= 1,
        "LLMSITE_MAX_STREAMS": settings.LLMSITE_MAX_STREAMS >= 1,
        "LLMSITE_MAX_STREAMS_PER_CALLER": settings.LLMSITE_MAX_STREAMS_PER_CALLER >= 1,
        "LLMSITE_MAX_SCANS_PER_CALLER": settings.LLMSITE_MAX_SCANS_PER_CALLER >= 1,
        "LLMSITE_EVENTS_PER_SECOND": settings.LLMSITE_EVENTS_PER_SECOND > 0,
        "LLMSITE_PROXIES": settings.LLMSITE_PROXIES >= 0,
        "LLMSITE_DISK_RESERVE": settings.LLMSITE_DISK_RESERVE >= 0,
        "LLMSITE_MAX_BODY": settings.LLMSITE_MAX_BODY >= 1024,
        "LLMSITE_BODY_SECONDS": settings.LLMSITE_BODY_SECONDS > 0,
    }
    return [
        checks.Error(
            f"{name} is {getattr(settings, name)}, which is out of range.",
            hint="See docs/configuration.md.",
            id="chat.E004",
        )
        for name, valid in ranges.items()
        if not valid
    ]
