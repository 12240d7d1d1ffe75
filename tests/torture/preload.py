"""Imports that a process inherits instead of doing them: what is not ours, and holds no state.

Django is set up behind the fork, and everything of ours is imported there: the name of the
worker, locks, the supervisor's loop are each process's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

import django
from django.core.exceptions import AppRegistryNotReady

ENTRANCES = ("channels.routing", "llmsite.server", "llmsite.urls", "django.test", "tests.witness")
OURS = ("chat", "llmsite", "__main__")


def preload() -> None:
    """Import what the product's entrances import, as far as that goes without Django's apps."""
    for name in imported_by_entrances():
        with suppress(ImportError, AppRegistryNotReady, RuntimeError):  # models and their friends
            import_module(name)


def imported_by_entrances() -> list[str]:
    """Names of modules, found in a process that is thrown away."""
    found, names = os.pipe()

    def name_them() -> None:
        for entrance in ENTRANCES:
            import_module(entrance)
        os.write(names, "\n".join(sys.modules).encode())

    code = in_child(name_them)
    os.close(names)
    assert code == 0
    with os.fdopen(found) as file:
        modules = file.read().split("\n")
    return [name for name in modules if name.partition(".")[0] not in OURS]


def fork(work: Callable[[], object]) -> int:
    """Do it in a new process over a Django of its own; its id."""
    child = os.fork()
    if child == 0:
        django.setup()
        work()
        os._exit(0)
    return child


def in_child(work: Callable[[], object]) -> int:
    """The same, and wait for it; its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(work), 0)[1])
