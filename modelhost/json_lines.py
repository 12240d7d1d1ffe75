"""The command line's requests: one JSON object per line, every mistake in one a sentence."""

from __future__ import annotations

import json
import secrets
from typing import Any

from modelhost.errors import RequestRefused
from modelhost.types import Sampling, Turn

REQUIRED = object()
NUMBER = (int, float)
NAMES = {str: "a text", int: "a whole number", NUMBER: "a number", list: "a list"}


def parse(line: str) -> dict[str, Any]:
    """The object on a line. Raises RequestRefused."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestRefused(f"The line is not JSON: {error}.") from error
    if not isinstance(request, dict):
        raise RequestRefused("The line is not a JSON object.")
    return request


def turns(request: dict[str, Any]) -> list[Turn]:
    """The conversation in `turns`; which roles there are is the chat format's to say.

    Raises RequestRefused.
    """
    listed = field(request, "turns", list)
    if not all(isinstance(turn, dict) for turn in listed):
        raise RequestRefused("Each of turns must be an object with role and content.")
    return [
        Turn(
            field(turn, "role", str),
            field(turn, "content", str),
            field(turn, "metadata", str, default=""),
            field(turn, "tools", list, default=None),
        )
        for turn in listed
    ]


def token_ids(request: dict[str, Any]) -> list[int] | None:
    """A prompt given as ids, if it is. Raises RequestRefused."""
    ids: list[int] | None = field(request, "token_ids", list, default=None)
    return ids


def max_tokens(request: dict[str, Any]) -> int | None:
    """The longest answer wanted; none named is null or left out. Raises RequestRefused."""
    limit: int | None = field(request, "max_tokens", int, default=None)
    return limit


def sampling(request: dict[str, Any], *, room: int) -> Sampling:
    """The sampling fields; `room` is the longest answer when none is named.

    Without a seed every run differs. Raises RequestRefused.
    """
    limit = max_tokens(request)
    seed = field(request, "seed", int, default=None)
    stop = request.get("stop")
    return Sampling(
        max_tokens=room if limit is None else limit,
        temperature=field(request, "temperature", NUMBER, default=0.0),
        top_p=field(request, "top_p", NUMBER, default=1.0),
        top_k=field(request, "top_k", int, default=0),
        seed=secrets.randbits(63) if seed is None else seed,
        stop=(stop,) if isinstance(stop, str) else tuple(field(request, "stop", list, default=())),
    )


def field(holder: dict[str, Any], name: str, kind: Any, *, default: Any = REQUIRED) -> Any:
    """One field, of the right kind. null counts as left out where nothing is the default."""
    if name not in holder:
        if default is REQUIRED:
            raise RequestRefused(f"The field {name} is missing.")
        return default
    value = holder[name]
    if value is None and default in (None, "", ()):
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RequestRefused(f"The field {name} must be {NAMES[kind]}.")
    return value
