"""The one UPDATE that runs all the time, compiled once for each set of columns.

Django builds a query anew each time, which takes longer than the database does with it. The
recorder writes every running response five times a second, so this shows: with 32 of them it
was a third of all Python that ran; see docs/decisions/0011.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, connections

from chat.models import Response


def update_active(response_id: UUID, worker: str, values: Mapping[str, Any]) -> bool:
    """Set columns of an active response that this worker carries; whether there was one.

    The same as `filter(pk=…, worker=…, status__in=ACTIVE).update(…)`, in one statement.
    """
    database = connections[DEFAULT_DB_ALIAS]  # `connection` would look for it at each use
    parameters = [
        field.get_db_prep_save(value, database)
        for field, value in zip(_fields(tuple(values)), values.values(), strict=True)
    ]
    key = Response._meta.pk.get_db_prep_value(response_id, database)
    with database.cursor() as cursor:
        sql = _statement(database.vendor, tuple(values))
        cursor.execute(sql, [*parameters, key, worker, *Response.ACTIVE])
        return bool(cursor.rowcount)


@lru_cache
def _fields(names: tuple[str, ...]) -> list[Any]:
    return [Response._meta.get_field(name) for name in names]


@lru_cache
def _statement(vendor: str, names: tuple[str, ...]) -> str:  # a vendor has its own quotes
    quote = connections[DEFAULT_DB_ALIAS].ops.quote_name

    def column(name: str) -> str:
        return quote(str(Response._meta.get_field(name).column))  # type: ignore[union-attr]

    assignments = ", ".join(f"{column(name)} = %s" for name in names)
    active = ", ".join("%s" for _ in Response.ACTIVE)
    # Nothing in it but names of the model: every value is a parameter.
    return (
        f"UPDATE {quote(Response._meta.db_table)} SET {assignments} WHERE {column('id')} = %s "  # noqa: S608
        f"AND {column('worker')} = %s AND {column('status')} IN ({active})"
    )
