"""How much torture: a little in every test run, all of it with `make torture`.

Each amount has a name, and `TORTURE_<NAME>` sets it alone.
"""

from __future__ import annotations

import os

FULL = os.environ.get("TORTURE") == "full"


def amount(name: str, *, quick: int, full: int) -> int:
    """How many times a harness does what it does."""
    return int(os.environ.get(f"TORTURE_{name}") or (full if FULL else quick))
