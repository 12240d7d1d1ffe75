"""`manage.py dumpdata` with moments to the microsecond: Django's JSON cuts them to milliseconds.

Rows that were made in one request are nearer to each other than that, and what is newest in a
conversation is found by its moment: after a move to another database it could be another answer.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder


class WholeMoments(DjangoJSONEncoder):
    """Moments with all their digits."""

    def default(self, o: Any) -> Any:
        return o.isoformat() if isinstance(o, datetime) else super().default(o)
