"""JSON bodies, read so that a mistake in them can be named by its field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError, UnsupportedMediaType, ValidationError
from rest_framework.parsers import BaseParser

MAX_DEPTH = 32
ENCODED = "Bodies are read as they are: send this one without a Content-Encoding."


class StorableJSONParser(BaseParser):
    """JSON whose every text can be stored: no NUL, no lone surrogate, anywhere.

    NaN and infinities parse, because the field that holds one is then named by its
    own validation instead of the whole body being refused namelessly.
    """

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """The body's value. Raises ParseError, UnsupportedMediaType, ValidationError."""
        try:
            text = stream.read().decode("utf-8")
        except UnicodeDecodeError:
            if parser_context and "Content-Encoding" in parser_context["request"].headers:
                raise UnsupportedMediaType("", ENCODED) from None
            raise ParseError("The body is not UTF-8.") from None
        return read_json(text)


def read_json(text: str) -> Any:
    """A body's value, of which every text can be stored. Raises ParseError, ValidationError."""
    data = parsed(text)
    refuse_unstorable(data)
    return data


def parsed(text: str) -> Any:
    """The value of a JSON text. Raises ParseError."""
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ParseError("The body is nested too deeply.") from None
    except ValueError as error:
        raise ParseError(f"The body is not JSON: {error}.") from None


def _whole(digits: str) -> int | float:
    """A number; one that Python refuses to read is infinite, as 1e999, and its field is named."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def refuse_unstorable(data: Any) -> None:
    """Raises ValidationError, which names the first part that could not be stored."""
    for path, problem in unstorable_parts(data):
        raise ValidationError({path or "body": [problem]})


def unstorable(text: str) -> str | None:
    """What keeps a text out of the database, if anything."""
    if "\0" in text:
        return "Null characters are not allowed."
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "Lone surrogates are not allowed."
    return None


def unstorable_numbers(value: Any) -> str | None:
    """What keeps a JSON value's numbers out of the database, if anything."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:  # databases keep JSON by the book, which knows no NaN
        return "Finite numbers are required."
    return None


def unstorable_parts(value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Path and problem of every part of a JSON value that could not be stored.

    A path is made for what is wrong only: before each of half a million numbers, a name of half
    a megabyte would be copied for seconds.
    """
    if depth > MAX_DEPTH:
        yield "", "Nested too deeply."
    elif isinstance(value, str):
        if problem := unstorable(value):
            yield "", problem
    else:
        for name, item in _named(value):
            for path, problem in unstorable_parts(item, depth + 1):
                yield (f"{_printable(name)}.{path}" if path else _printable(name)), problem


def _named(value: Any) -> Iterator[tuple[Any, Any]]:
    """What is in it, with its name or place; a name is in it, too."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield name, name
            yield name, item
    elif isinstance(value, list):
        yield from enumerate(value)


def _printable(name: str | int) -> str:
    return str(name).encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
