"""Values as the lists and pages show them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from chat.models import Prompt, Response

NOTHING = "–"


def text_block(text: str) -> SafeString:
    """A text with its lines, in the direction of its script."""
    return format_html('<div class="chat-text" dir="auto">{}</div>', text or NOTHING)


def json_block(value: Any) -> SafeString | str:
    """JSON to be read by people."""
    if not value:
        return NOTHING
    lines = json.dumps(value, ensure_ascii=False, indent=2)
    return format_html('<pre class="chat-json" dir="auto">{}</pre>', lines)


def call_text(call: Mapping[str, Any]) -> str:
    """A tool call as one would write it: `name(argument=value, …)`."""
    arguments = call.get("arguments")
    if not isinstance(arguments, Mapping):
        return f"{call.get('name')}({_json(arguments)})"
    given = ", ".join(f"{name}={_json(value)}" for name, value in arguments.items())
    return f"{call.get('name')}({given})"


def call_texts(calls: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each of these calls as one would write it."""
    return [call_text(call) for call in calls]


def said(prompt: Prompt) -> str:
    """What a prompt says, and who says it unless that is the user."""
    return prompt.content if prompt.role == "user" else f"{prompt.role}: {prompt.content}"


def answer(row: Response) -> str:
    """A response on one line: its text, then the tools that it calls."""
    return " ".join(part for part in (row.text, *call_texts(row.tool_calls)) if part)


def answer_block(row: Response) -> SafeString:
    """A response in full: its text, then a line for each tool that it calls."""
    calls = [(call,) for call in call_texts(row.tool_calls)]
    lines = format_html_join("", '<code class="chat-call">{}</code>', calls)
    return lines if calls and not row.text else text_block(row.text) + lines


def seconds(start: datetime | None, end: datetime | None) -> str:
    """How long it was from one moment to the other, unless a clock was set back in between."""
    return f"{(end - start).total_seconds():.2f} s" if start and end and end >= start else NOTHING


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
