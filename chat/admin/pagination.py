"""Pages of lists that may be a million rows long."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator
from django.utils.functional import cached_property

COUNTED = 10_000


class AtLeast(int):
    """A count that was given up: there are more."""

    def __str__(self) -> str:
        return f"{int(self):,}+"


class BoundedPaginator(Paginator):
    """Counts so many rows and no further; what is older is found by filters, not by pages."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        found = rows.order_by()[: COUNTED + 1].count()
        return AtLeast(COUNTED) if found > COUNTED else found
