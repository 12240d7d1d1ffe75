"""Statements that every request runs, compiled once for each model.

Django builds a query anew each time, which takes longer than the database does with it: the look
for a key and three INSERTs were four tenths of a request's thread; docs/decisions/0029.
For models without parents; nothing in the text of a statement but their names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Field, Model
from django.db.models.signals import post_save, pre_save

M = TypeVar("M", bound=Model)


def insert(row: Model) -> None:
    """Store a new row that has its key already: `save(force_insert=True)`, signals included."""
    model, database = type(row), connections[DEFAULT_DB_ALIAS]
    told = {"sender": model, "instance": row, "using": DEFAULT_DB_ALIAS}
    pre_save.send(**told, raw=False, update_fields=None)
    values = [
        field.get_db_prep_save(field.pre_save(row, add=True), database) for field in _fields(model)
    ]
    with database.cursor() as cursor:
        cursor.execute(_insertion(database.vendor, model), values)
    row._state.adding, row._state.db = False, DEFAULT_DB_ALIAS
    post_save.send(**told, created=True, raw=False, update_fields=None)


def fetch(model: type[M], by: str, value: Any, *, to: str) -> M | None:
    """The row that has this value in a unique column, with the one that its `to` points at.

    The same as `objects.select_related(to).get(**{by: value})`, and None where that raises.
    """
    database = connections[DEFAULT_DB_ALIAS]
    key = _field(model, by).get_db_prep_value(value, database)
    with database.cursor() as cursor:
        cursor.execute(_selection(database.vendor, model, by, to), [key])
        found = cursor.fetchone()
    if found is None:
        return None
    other: Any = model._meta.get_field(to).related_model
    count = len(_fields(model))
    row = _made(model, found[:count])
    setattr(row, to, _made(other, found[count:]))
    return row


def _made(model: type[M], values: Sequence[Any]) -> M:
    """A row out of what the driver gave for its columns."""
    database, converted = connections[DEFAULT_DB_ALIAS], list(values)
    for index, column, converters in _converters(database.vendor, model):
        for converter in converters:
            converted[index] = converter(converted[index], column, database)
    names = [field.attname for field in _fields(model)]
    return model.from_db(DEFAULT_DB_ALIAS, names, converted)


@lru_cache
def _fields(model: type[Model]) -> Sequence[Field[Any, Any]]:
    return model._meta.concrete_fields


def _field(model: type[Model], name: str) -> Field[Any, Any]:
    return next(field for field in _fields(model) if field.name == name)


@lru_cache
def _converters(
    vendor: str, model: type[Model]
) -> list[tuple[int, Any, list[Callable[[Any, Any, Any], Any]]]]:
    """What turns a driver's values into Python's, for the columns that need it."""
    database = connections[DEFAULT_DB_ALIAS]
    columns: list[Any] = [field.cached_col for field in _fields(model)]
    made = [
        (
            index,
            column,
            [*database.ops.get_db_converters(column), *column.get_db_converters(database)],
        )
        for index, column in enumerate(columns)
    ]
    return [one for one in made if one[2]]


@lru_cache
def _insertion(vendor: str, model: type[Model]) -> str:  # a vendor has its own quotes
    columns = ", ".join(_quoted(field.column) for field in _fields(model))
    values = ", ".join("%s" for _ in _fields(model))
    return f"INSERT INTO {_table(model)} ({columns}) VALUES ({values})"  # noqa: S608


@lru_cache
def _selection(vendor: str, model: type[Model], by: str, to: str) -> str:
    pointer: Any = model._meta.get_field(to)
    other = pointer.related_model
    columns = ", ".join(
        f"{_table(one)}.{_quoted(field.column)}" for one in (model, other) for field in _fields(one)
    )
    here = f"{_table(model)}.{_quoted(pointer.column)}"
    there = f"{_table(other)}.{_quoted(pointer.target_field.column)}"
    wanted = f"{_table(model)}.{_quoted(_field(model, by).column)}"
    return (
        f"SELECT {columns} FROM {_table(model)} JOIN {_table(other)} ON {here} = {there} "  # noqa: S608
        f"WHERE {wanted} = %s"
    )


def _table(model: type[Model]) -> str:
    return _quoted(model._meta.db_table)


def _quoted(name: str | None) -> str:
    return connections[DEFAULT_DB_ALIAS].ops.quote_name(str(name))
