"""The UPDATE that runs all the time, compiled once for each set of columns.

Django builds a query anew each time, which takes longer than the database does with it. The
recorder writes every running response five times a second, so this shows: with 32 of them it
was a third of all Python that ran; see docs/decisions/0011.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, connections

from chat.models import Response


def update_active(worker: str, changes: Mapping[UUID, Mapping[str, Any]]) -> set[UUID]:
    """Set columns of active responses that this worker carries; the ids for which there was none.

    For each the same as `filter(pk=…, worker=…, status__in=ACTIVE).update(…)`. Those with the same
    columns are handed to the driver together.
    """
    database = connections[DEFAULT_DB_ALIAS]  # `connection` would look for it at each use
    alike: dict[tuple[str, ...], dict[UUID, list[Any]]] = defaultdict(dict)
    for response_id, values in changes.items():
        names = tuple(values)
        parameters = [
            field.get_db_prep_save(value, database)
            for field, value in zip(_fields(names), values.values(), strict=True)
        ]
        key = Response._meta.pk.get_db_prep_value(response_id, database)
        alike[names][response_id] = [*parameters, key, worker, *Response.ACTIVE]
    gone: set[UUID] = set()
    with database.cursor() as cursor:
        for names, rows in alike.items():
            gone |= _update(cursor, _statement(database.vendor, names), rows)
    return gone


def _update(cursor: Any, sql: str, rows: Mapping[UUID, list[Any]]) -> set[UUID]:
    """The ids that the statement did not find. A driver only counts those that it did."""
    cursor.executemany(sql, list(rows.values()))
    if cursor.rowcount == len(rows):
        return set()
    gone = set()
    for response_id, parameters in rows.items():
        cursor.execute(sql, parameters)
        if not cursor.rowcount:
            gone.add(response_id)
    return gone


@lru_cache
def _fields(names: tuple[str, ...]) -> list[Any]:
    return [Response._meta.get_field(name) for name in names]


@lru_cache
def _statement(vendor: str, names: tuple[str, ...]) -> str:  # a vendor has its own quotes
    quote = connections[DEFAULT_DB_ALIAS].ops.quote_name
    columns = {field.name: quote(str(field.column)) for field in Response._meta.concrete_fields}
    assignments = ", ".join(f"{columns[name]} = %s" for name in names)
    active = ", ".join("%s" for _ in Response.ACTIVE)
    # Nothing in it but names of the model: every value is a parameter.
    return (
        f"UPDATE {quote(Response._meta.db_table)} SET {assignments} WHERE {columns['id']} = %s "  # noqa: S608
        f"AND {columns['worker']} = %s AND {columns['status']} IN ({active})"
    )
