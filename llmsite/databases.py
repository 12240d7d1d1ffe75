"""Connection settings for the database that `DATABASE_URL` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

ENGINES = ("django.db.backends.sqlite3", "django.db.backends.postgresql")
POOL = 10  # connections of one process to PostgreSQL, unless somebody says otherwise
POOL_TIMEOUT = 30.0  # seconds that a request waits for its turn

# SQLite as several writers need it: with Django's defaults 17 to 36 % of contended writes fail.
SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": (
        "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;PRAGMA busy_timeout=20000;"
        "PRAGMA foreign_keys=ON;PRAGMA secure_delete=ON;"  # what is deleted is overwritten
    ),
}


def sqlite_url(file: Path) -> str:
    """The URL of a SQLite file, whatever its path: `#`, `?` and `%` mean something in a URL."""
    return f"sqlite:///{quote(str(file))}"


def parsed(url: str) -> dict[str, object]:
    """What a URL says. Raises ImproperlyConfigured, which does not repeat it: passwords are in it.

    One slash too few makes the file's name a host, and its database would be in memory.
    """
    try:
        if url.startswith("sqlite:") and (urlsplit(url).netloc or not urlsplit(url).path[1:]):
            raise ImproperlyConfigured(
                "DATABASE_URL names no file of SQLite: sqlite:////srv/llmsite.sqlite3 does."
            )
        return {**environ.Env.db_url_config(url)}
    except ValueError:
        raise ImproperlyConfigured(
            "DATABASE_URL cannot be read. In a password : / ? # [ ] @ % are written as "
            "%3A %2F %3F %23 %5B %5D %40 %25."
        ) from None


def database(url: str, *, pool: int = POOL, test_file: Path | None = None) -> dict[str, object]:
    """Connection settings for a URL. Connections are not kept per thread: CONN_MAX_AGE is 0.

    test_file: where tests have their SQLite. Raises ImproperlyConfigured.
    """
    engine = environ.Env.DB_SCHEMES.get(url.partition(":")[0])
    if engine not in ENGINES:
        raise ImproperlyConfigured(
            "DATABASE_URL is no address of PostgreSQL or SQLite: postgres://… is one."
        )
    config = {**parsed(url), "CONN_MAX_AGE": 0}
    given: Any = config.get("OPTIONS", {})  # the URL's own, as `sslmode`
    if engine == "django.db.backends.sqlite3":
        config["ENGINE"] = "llmsite.sqlite"  # the same, with connections that are used again
        config["OPTIONS"] = {**SQLITE_OPTIONS, **given}
        config["TEST"] = {"NAME": str(test_file) if test_file else None}
    else:
        # PostgreSQL refuses the hundred-and-first connection. Every request has a thread of its
        # own and needs one for some milliseconds: they take turns.
        if "pool" in given:
            raise ImproperlyConfigured("DATABASE_URL names a pool; set LLMSITE_DATABASE_POOL.")
        limits = {"min_size": 1, "max_size": pool, "timeout": POOL_TIMEOUT}
        # A pool doubles its pauses between attempts for five minutes, and would come back minutes
        # after its database. One that gave up tries anew for whoever asks next.
        limits["reconnect_timeout"] = POOL_TIMEOUT
        config["OPTIONS"] = {"pool": limits, **given}
    return config
